//! Writes a recording line by line.

use std::io::Write;

use serde::Serialize;

use super::line::{FrameLine, HeaderLine};
use super::{Header, RecordingError};
use crate::RawFrame;

/// Writes frames as they come in. Give it a buffered output; nothing is flushed unasked.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    lines: u64,
    reached: i64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Io`] when it cannot be written.
    pub fn create(output: W, header: &Header) -> Result<Self, RecordingError> {
        let mut writer = Self { output, lines: 0, reached: i64::MIN };
        writer.line(&HeaderLine::new(header))?;
        Ok(writer)
    }

    /// Writes one frame.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Backwards`] when it came before the frame ahead of it: nothing is written, and others may
    /// follow. [`RecordingError::Io`] when it cannot be written: the last line may be cut.
    pub fn write(&mut self, frame: &RawFrame) -> Result<(), RecordingError> {
        if frame.received_at < self.reached {
            return Err(RecordingError::Backwards {
                line: self.lines + 1,
                at: frame.received_at,
                before: self.reached,
            });
        }
        self.reached = frame.received_at;
        self.line(&FrameLine::from(frame))
    }

    /// Hands what is buffered to the operating system.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Io`] when it cannot be written.
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        Ok(self.output.flush()?)
    }

    /// The output. What it buffers is not flushed.
    pub fn into_inner(self) -> W {
        self.output
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), RecordingError> {
        serde_json::to_writer(&mut self.output, line).map_err(std::io::Error::from)?;
        self.output.write_all(b"\n")?;
        self.lines += 1;
        Ok(())
    }
}
