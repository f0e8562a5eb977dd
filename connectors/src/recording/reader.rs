//! Reads a recording line by line.

use std::io::{self, BufRead, Read};

use super::line::{FrameLine, parse_header};
use super::{Header, MAX_LINE_BYTES, RecordingError};
use crate::RawFrame;

/// The frames of a recording, in order.
///
/// A bad line is an `Err` and the iteration goes on; it ends with the file or with [`RecordingError::Io`].
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    reached: i64,
    failed: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Header`] when the first line is not that of a recording of a known version,
    /// [`RecordingError::TooLong`] when it never ends, [`RecordingError::Io`] when it cannot be read.
    pub fn open(input: R) -> Result<(Header, Self), RecordingError> {
        let mut reader = Self { input, buffer: Vec::new(), line: 0, reached: i64::MIN, failed: false };
        if !reader.next_line()? {
            return Err(RecordingError::Header("the file is empty".into()));
        }
        let header = parse_header(&reader.buffer).map_err(RecordingError::Header)?;
        Ok((header, reader))
    }

    /// Reads the next line into the buffer; `false` at the end of the file.
    fn next_line(&mut self) -> Result<bool, RecordingError> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        self.input.by_ref().take(limit).read_until(b'\n', &mut self.buffer)?;
        if self.buffer.is_empty() {
            return Ok(false);
        }
        self.line += 1;
        if self.buffer.len() as u64 == limit && self.buffer.last() != Some(&b'\n') {
            skip_line(&mut self.input)?;
            return Err(RecordingError::TooLong { line: self.line });
        }
        Ok(true)
    }

    fn parse(&mut self) -> Result<RawFrame, RecordingError> {
        let malformed = |reason| RecordingError::Malformed { line: self.line, reason };
        let line: FrameLine<'_> = serde_json::from_slice(&self.buffer).map_err(|error| malformed(error.to_string()))?;
        if line.at < self.reached {
            return Err(RecordingError::Backwards { line: self.line, at: line.at, before: self.reached });
        }
        let frame = line.into_frame().map_err(|reason| malformed(reason.into()))?;
        self.reached = frame.received_at;
        Ok(frame)
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<RawFrame, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        loop {
            match self.next_line() {
                Ok(false) => return None,
                // An editor or `cat` may leave an empty line; it says nothing.
                Ok(true) if self.buffer.trim_ascii().is_empty() => {}
                Ok(true) => return Some(self.parse()),
                Err(error) => {
                    self.failed = matches!(error, RecordingError::Io(_));
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Reads on to the end of the line and keeps nothing of it.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = match input.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = bytes.iter().position(|&b| b == b'\n');
        let read = end.map_or(bytes.len(), |at| at + 1);
        input.consume(read);
        if end.is_some() {
            return Ok(());
        }
    }
}
