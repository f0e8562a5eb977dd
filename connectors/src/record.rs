//! Recording a session: everything that it yields goes to a file.

use std::io::Write;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::RawFrame;
use crate::recording::{RecordingError, Writer};

/// How often what was written is flushed and told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How many frames are taken from the session at once.
const BATCH: usize = 256;

/// How far a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Frames written so far.
    pub frames: u64,
    /// Of them, those since the last report.
    pub new: u64,
    /// Frames that could not be written because their moment lay before the last one's.
    pub skipped: u64,
}

/// Writes frames until the session ends, which is when the last sender is gone; flushes and reports once a second
/// and at the end.
///
/// A disk that is slow holds the session back, as its queue is bounded.
///
/// # Errors
///
/// [`RecordingError::Io`] when the output fails; what was flushed before is in the file.
pub async fn record<W: Write>(
    mut frames: mpsc::Receiver<RawFrame>,
    mut writer: Writer<W>,
    mut report: impl FnMut(Progress),
) -> Result<Progress, RecordingError> {
    let mut progress = Progress::default();
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let is_over = tokio::select! {
            count = frames.recv_many(&mut batch, BATCH) => count == 0,
            _ = ticks.tick() => {
                writer.flush()?;
                report(progress);
                progress.new = 0;
                false
            }
        };
        for frame in batch.drain(..) {
            match writer.write(&frame) {
                Ok(()) => (progress.frames, progress.new) = (progress.frames + 1, progress.new + 1),
                Err(error @ RecordingError::Backwards { .. }) => {
                    warn!(%error, "a frame is not recorded");
                    progress.skipped += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if is_over {
            writer.flush()?;
            report(progress);
            return Ok(progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Content;
    use crate::recording::{Header, Reader};

    #[tokio::test(start_paused = true)]
    async fn everything_is_written_and_told_once_a_second() {
        let header = Header {
            venue: "binance".into(),
            market: "spot".into(),
            started_at: 0,
            symbols: None,
            transport: None,
            connections: BTreeMap::new(),
        };
        let frame = |at| RawFrame { received_at: at, content: Content::Text { connection: 1, text: at.to_string() } };
        let (sender, frames) = mpsc::channel(4);
        let mut written = Vec::new();
        let writer = Writer::create(&mut written, &header).unwrap();
        let session = async move {
            for at in [1, 2, 1] {
                sender.send(frame(at)).await.unwrap();
            }
            tokio::time::sleep(PROGRESS_EVERY * 5 / 2).await;
            sender.send(frame(3)).await.unwrap();
        };
        let mut reports = Vec::new();
        let ((), end) = tokio::join!(session, record(frames, writer, |progress| reports.push(progress)));
        let end = end.unwrap();
        assert_eq!(end, Progress { frames: 3, new: 1, skipped: 1 });
        assert_eq!(reports.first(), Some(&Progress { frames: 2, new: 2, skipped: 1 }));
        assert_eq!(reports.last(), Some(&end));
        let (_, reader) = Reader::open(&written[..]).unwrap();
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [frame(1), frame(2), frame(3)]);
    }
}
