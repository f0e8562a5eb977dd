//! A recording in place of the exchange: its live messages come again, as far apart as they came.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use tracing::warn;

use super::tape::Tape;
use crate::bist::mold::Packet;
use crate::frame::{Content, RawFrame};
use crate::recording::{Header, Reader, RecordingError};

/// A recording that is being played.
#[derive(Debug)]
pub(super) struct Playback {
    header: Header,
    frames: Reader<BufReader<File>>,
    speed: f64,
    /// The moment of the first frame.
    first_at: Option<i64>,
    next: Option<RawFrame>,
}

impl Playback {
    pub(super) fn open(file: &Path, speed: f64) -> Result<Self, RecordingError> {
        let (header, frames) = Reader::open(BufReader::new(File::open(file)?))?;
        let mut playback = Self { header, frames, speed, first_at: None, next: None };
        playback.read();
        playback.first_at = playback.next.as_ref().map(|frame| frame.received_at);
        Ok(playback)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn is_over(&self) -> bool {
        self.next.is_none()
    }

    fn read(&mut self) {
        self.next = self
            .frames
            .by_ref()
            .find_map(|frame| frame.inspect_err(|error| warn!(%error, "a line of the recording is not played")).ok());
    }

    /// Puts on the tape what came within `elapsed`. Returns whether the tape has gone on behind a hole, or is that of
    /// another session.
    pub(super) fn advance(&mut self, elapsed: Duration, tape: &mut Tape) -> bool {
        let passed = i64::try_from(elapsed.mul_f64(self.speed).as_millis()).unwrap_or(i64::MAX);
        let mut skipped = false;
        while let (Some(frame), Some(first)) = (&self.next, self.first_at)
            && frame.received_at.saturating_sub(first) <= passed
        {
            if let Content::Binary { bytes, .. } = &frame.content
                && let Ok(packet) = Packet::parse(bytes)
            {
                skipped |= put(&packet, tape);
            }
            self.read();
        }
        skipped
    }
}

/// Puts the messages of a packet on the tape that are not there yet.
fn put(packet: &Packet<'_>, tape: &mut Tape) -> bool {
    let is_another = packet.session != tape.session();
    if is_another {
        *tape = Tape::new(packet.session);
    }
    let skips = packet.sequence > tape.next();
    if skips {
        tape.skip_to(packet.sequence);
    }
    let known = tape.next();
    for (message, _) in packet.messages().zip(packet.sequence..).filter(|(_, number)| *number >= known) {
        tape.push(message);
    }
    is_another || skips
}
