//! How often each stream of a connection speaks, and which ones have stopped while others go on.
//!
//! Venues have been seen to stop single streams of a connection without a word.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// After so many frames it is known how long a stream pauses.
const LEARNED: u32 = 30;

/// No stream has stopped before this.
const SHORTEST: Duration = Duration::from_secs(15);

/// How many times its longest pause lately a stream has to be silent.
const TIMES: u32 = 8;

/// The longest pause is forgotten by this part with each frame, so that one long pause does not count for ever.
const FADING: u32 = 256;

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Rhythms<'a> {
    streams: HashMap<&'a str, Rhythm>,
    heard_at: Instant,
}

#[derive(Debug)]
struct Rhythm {
    heard_at: Instant,
    longest: Duration,
    frames: u32,
    /// When it was last said to have stopped.
    told_at: Option<Instant>,
}

impl<'a> Rhythms<'a> {
    /// Of these streams nothing has been heard yet.
    pub(crate) fn new(streams: impl Iterator<Item = &'a str>, now: Instant) -> Self {
        let silent = |stream| (stream, Rhythm { heard_at: now, longest: Duration::ZERO, frames: 0, told_at: None });
        Self { streams: streams.map(silent).collect(), heard_at: now }
    }

    /// Takes note of a frame.
    pub(crate) fn note(&mut self, stream: &str, now: Instant) {
        self.heard_at = now;
        let Some(rhythm) = self.streams.get_mut(stream) else { return };
        if rhythm.frames > 0 {
            let pause = now.duration_since(rhythm.heard_at);
            rhythm.longest = pause.max(rhythm.longest - rhythm.longest / FADING);
        }
        rhythm.frames = rhythm.frames.saturating_add(1);
        (rhythm.heard_at, rhythm.told_at) = (now, None);
    }

    /// The streams that have stopped, in order; each again only when it stays silent for as long again.
    pub(crate) fn stopped(&mut self, now: Instant) -> Vec<&'a str> {
        // When nothing speaks at all, it is the connection that has a problem.
        if now.duration_since(self.heard_at) > SHORTEST {
            return Vec::new();
        }
        let mut stopped = Vec::new();
        for (&stream, rhythm) in self.streams.iter_mut().filter(|(_, rhythm)| rhythm.frames >= LEARNED) {
            let limit = SHORTEST.max(rhythm.longest * TIMES);
            if now.duration_since(rhythm.told_at.unwrap_or(rhythm.heard_at)) > limit {
                rhythm.told_at = Some(now);
                stopped.push(stream);
            }
        }
        stopped.sort_unstable();
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// `quick` speaks every second and `slow` every four, for two minutes.
    fn learned(start: Instant) -> Rhythms<'static> {
        let mut rhythms = Rhythms::new(["quick", "slow", "never"].into_iter(), start);
        for n in 1..=120 {
            rhythms.note("quick", start + n * SECOND);
            if n % 4 == 0 {
                rhythms.note("slow", start + n * SECOND);
            }
        }
        rhythms
    }

    #[test]
    fn a_stream_has_stopped_when_it_is_silent_for_longer_than_is_usual_for_it() {
        let start = Instant::now();
        let mut rhythms = learned(start);
        let at = |seconds: u32| start + seconds * SECOND;
        rhythms.note("other", at(134));
        assert!(rhythms.stopped(at(135)).is_empty());
        assert_eq!(rhythms.stopped(at(136)), ["quick"]);
        assert!(rhythms.stopped(at(137)).is_empty(), "once");
        rhythms.note("other", at(152));
        assert_eq!(rhythms.stopped(at(153)), ["quick", "slow"], "again, and the slow one after eight of its pauses");
        rhythms.note("quick", at(154));
        assert!(rhythms.stopped(at(156)).is_empty());
    }

    #[test]
    fn a_connection_that_is_silent_as_a_whole_is_left_to_its_own_watch() {
        let start = Instant::now();
        assert!(learned(start).stopped(start + 200 * SECOND).is_empty());
    }
}
