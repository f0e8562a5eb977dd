//! Plays recordings through the normalizer. Pure: the same files give the same output.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufRead, Write};

use akis_connectors::recording::{Header, Reader, RecordingError};
use akis_model::{Channel, Kind, Seq};

use crate::mapper::{Reason, mapper};
use crate::pipeline::{Pipeline, Step, TICK_MS};

/// Every timer has fired by then, so the ticks of a longer pause would change nothing.
const SETTLED_MS: i64 = 10_000;

/// What was played.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Things that came in.
    pub frames: u64,
    /// Events that came out.
    pub events: u64,
    /// What was skipped, by reason.
    pub skipped: BTreeMap<Reason, u64>,
    /// How often a book was built anew, by cause.
    pub resyncs: BTreeMap<&'static str, u64>,
    /// Trades that are known to be missing in the recording.
    pub lost_trades: u64,
}

impl fmt::Display for Summary {
    /// One count a line: `skipped bad_number 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frames {}\nevents {}", self.frames, self.events)?;
        for (reason, count) in &self.skipped {
            write!(f, "\nskipped {} {count}", reason.as_str())?;
        }
        for (cause, count) in &self.resyncs {
            write!(f, "\nbook_resync {cause} {count}")?;
        }
        if self.lost_trades > 0 {
            write!(f, "\nlost_trades {}", self.lost_trades)?;
        }
        Ok(())
    }
}

/// Why recordings could not be played to their end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file is no recording, or could not be read.
    #[error("read the recording")]
    Recording(#[from] RecordingError),
    /// There is no mapper for it.
    #[error("no mapper for the market \"{market}\" of the venue \"{venue}\"")]
    UnknownMarket {
        /// As the header names it.
        venue: String,
        /// As the header names it.
        market: String,
    },
    /// The events could not be written.
    #[error("write the events")]
    Write(#[source] io::Error),
}

/// Plays `files`, in order and as one run, and writes the envelope of each event as a line to `out`.
///
/// `seq` counts from 1 in each channel. Lines that are no frames are skipped and counted.
///
/// # Errors
///
/// [`ReplayError::Recording`] when a file has no header or cannot be read, [`ReplayError::UnknownMarket`] when its
/// market has no mapper, [`ReplayError::Write`] when `out` fails, a closed pipe included.
pub fn replay<R: BufRead>(
    files: impl IntoIterator<Item = R>,
    throttle: bool,
    out: &mut impl Write,
) -> Result<Summary, ReplayError> {
    let mut run = Run { throttle, out, players: BTreeMap::new(), seqs: HashMap::new(), summary: Summary::default() };
    for file in files {
        let (header, frames) = Reader::open(file)?;
        run.play(&header, frames)?;
    }
    run.finish()
}

struct Run<'a, W> {
    throttle: bool,
    out: &'a mut W,
    /// By venue and market.
    players: BTreeMap<(String, String), Player>,
    seqs: HashMap<Channel, Seq>,
    summary: Summary,
}

impl<W: Write> Run<'_, W> {
    fn play<R: BufRead>(&mut self, header: &Header, frames: Reader<R>) -> Result<(), ReplayError> {
        let key = (header.venue.clone(), header.market.clone());
        let mut player = match self.players.remove(&key) {
            Some(player) => player,
            None => match mapper((&header.venue, &header.market)) {
                Some(mapper) => Player { pipeline: Pipeline::new(mapper, self.throttle), tick_at: None },
                None => return Err(ReplayError::UnknownMarket { venue: key.0, market: key.1 }),
            },
        };
        player.pipeline.on_header(header);
        // No kinds: what a recording does not hold is not missing either.
        player.pipeline.admit(header.symbols.as_deref(), None, &[] as &[Kind]);
        for frame in frames {
            let mut step = Step::default();
            match frame {
                Ok(frame) => {
                    self.summary.frames += 1;
                    player.tick_until(frame.received_at, &mut step);
                    player.pipeline.on_frame(&frame, &mut step);
                }
                Err(error @ RecordingError::Io(_)) => return Err(error.into()),
                Err(_) => step.skipped.push(Reason::BadLine),
            }
            self.take(step)?;
        }
        self.players.insert(key, player);
        Ok(())
    }

    fn finish(mut self) -> Result<Summary, ReplayError> {
        for mut player in std::mem::take(&mut self.players).into_values() {
            let mut step = Step::default();
            player.pipeline.finish(&mut step);
            self.take(step)?;
        }
        self.out.flush().map_err(ReplayError::Write)?;
        Ok(self.summary)
    }

    fn take(&mut self, step: Step) -> Result<(), ReplayError> {
        for event in step.events {
            let seq = self.seqs.entry(event.channel).or_default();
            *seq = seq.next();
            self.summary.events += 1;
            writeln!(self.out, "{}", event.body.envelope(*seq)).map_err(ReplayError::Write)?;
        }
        for reason in step.skipped {
            *self.summary.skipped.entry(reason).or_default() += 1;
        }
        for cause in step.resyncs {
            *self.summary.resyncs.entry(cause.as_str()).or_default() += 1;
        }
        self.summary.lost_trades += step.lost_trades;
        Ok(())
    }
}

/// A pipeline with the clock of its recordings.
struct Player {
    pipeline: Pipeline,
    /// When the next tick is due; `None` before the first frame.
    tick_at: Option<i64>,
}

impl Player {
    /// Ticks as they would have come live, up to the frame at `at`.
    fn tick_until(&mut self, at: i64, step: &mut Step) {
        let mut tick_at = self.tick_at.unwrap_or(at);
        let settled = tick_at.saturating_add(SETTLED_MS);
        while tick_at <= at.min(settled) {
            self.pipeline.on_tick(tick_at, step);
            tick_at = tick_at.saturating_add(TICK_MS);
        }
        if tick_at <= at {
            self.pipeline.on_tick(at, step);
            tick_at = at.saturating_add(TICK_MS);
        }
        self.tick_at = Some(tick_at);
    }
}
