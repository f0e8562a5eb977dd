//! How often each channel speaks, and which ones are silent for longer than is usual for them.
//!
//! A quiet symbol is not a broken one, so nothing is compared with a constant but with the channel's own pauses.

use std::collections::HashMap;

use akis_model::Channel;
use foldhash::fast::RandomState;

/// After so many events it is known how long a channel pauses.
const LEARNED: u32 = 30;

/// No channel is told to be silent before this.
const SHORTEST_MS: i64 = 30_000;

/// How many times its longest pause lately a channel has to be silent.
const TIMES: i64 = 8;

/// The longest pause is forgotten by this part with each event, so that one long pause does not count for ever.
const FADING: i64 = 256;

/// How often silence is looked for.
const LOOK_EVERY_MS: i64 = 1_000;

/// The channels of a venue.
#[derive(Debug, Default)]
pub(crate) struct Rhythms {
    channels: HashMap<Channel, Rhythm, RandomState>,
    look_at: i64,
}

#[derive(Debug)]
struct Rhythm {
    heard_at: i64,
    longest_ms: i64,
    events: u32,
    is_told: bool,
}

/// A channel that is silent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Silent {
    pub(crate) channel: Channel,
    /// Since when, milliseconds since the epoch.
    pub(crate) since: i64,
    /// Its longest pause before.
    pub(crate) usual_ms: i64,
}

impl Rhythms {
    /// Takes note of an event; whether the channel had been told to be silent. One of the `past` says nothing of how often it speaks.
    pub(crate) fn note(&mut self, channel: &Channel, now_ms: i64, past: bool) -> bool {
        let learned = u32::from(!past);
        let Some(rhythm) = self.channels.get_mut(channel) else {
            let rhythm = Rhythm { heard_at: now_ms, longest_ms: 0, events: learned, is_told: false };
            self.channels.insert(channel.clone(), rhythm);
            return false;
        };
        if !past {
            let pause = now_ms.saturating_sub(rhythm.heard_at);
            rhythm.longest_ms = pause.max(rhythm.longest_ms - rhythm.longest_ms / FADING);
        }
        rhythm.events = rhythm.events.saturating_add(learned);
        rhythm.heard_at = now_ms;
        std::mem::take(&mut rhythm.is_told)
    }

    /// The channels that have become silent, in order, each once; those that rest have not.
    pub(crate) fn silent(&mut self, now_ms: i64, rests: impl Fn(&Channel) -> bool) -> Vec<Silent> {
        if now_ms < self.look_at {
            return Vec::new();
        }
        self.look_at = now_ms.saturating_add(LOOK_EVERY_MS);
        let mut silent = Vec::new();
        for (channel, rhythm) in &mut self.channels {
            let limit = SHORTEST_MS.max(rhythm.longest_ms.saturating_mul(TIMES));
            let is_silent = now_ms.saturating_sub(rhythm.heard_at) > limit;
            if rhythm.events < LEARNED || !is_silent || rhythm.is_told {
                continue;
            }
            if rests(channel) {
                // When it is awake again it has as long as ever before it is missed.
                rhythm.heard_at = now_ms;
                continue;
            }
            rhythm.is_told = true;
            let (since, usual_ms) = (rhythm.heard_at, rhythm.longest_ms);
            silent.push(Silent { channel: channel.clone(), since, usual_ms });
        }
        silent.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
        silent
    }

    /// The channel's silence, while it is told.
    pub(crate) fn told(&self, channel: &Channel) -> Option<Silent> {
        let rhythm = self.channels.get(channel).filter(|rhythm| rhythm.is_told)?;
        Some(Silent { channel: channel.clone(), since: rhythm.heard_at, usual_ms: rhythm.longest_ms })
    }

    /// Our clock was set forward by this much, to `now_ms`: nobody was silent for so long.
    pub(crate) fn on_clock_set(&mut self, by_ms: i64, now_ms: i64) {
        for rhythm in self.channels.values_mut() {
            rhythm.heard_at = rhythm.heard_at.saturating_add(by_ms).min(now_ms);
        }
    }

    /// Forgets everything: the venue as a whole is away, and every channel is told so.
    pub(crate) fn clear(&mut self) {
        self.channels.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_and_by_a_channels_own_measure() {
        let channel = |name: &str| Channel::parse(name).unwrap();
        let (quick, slow, new) = (channel("v:A:ticker"), channel("v:B:ticker"), channel("v:C:ticker"));
        let mut rhythms = Rhythms::default();
        for n in 1..=400 {
            rhythms.note(&quick, n * 1_000, false);
            if n % 10 == 0 {
                rhythms.note(&slow, n * 1_000, false);
            }
        }
        rhythms.note(&new, 400_000, false);
        assert_eq!(rhythms.silent(430_000, |_| false), []);
        let told = |rhythms: &mut Rhythms, now| {
            rhythms.silent(now, |_| false).into_iter().map(|silent| silent.channel).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut rhythms, 431_001), std::slice::from_ref(&quick));
        assert_eq!(rhythms.told(&quick).map(|silent| silent.since), Some(400_000));
        assert_eq!(rhythms.told(&slow), None);
        assert_eq!(told(&mut rhythms, 440_000), []);
        assert_eq!(told(&mut rhythms, 480_001), [slow]);
        assert!(rhythms.note(&quick, 490_000, false), "it is back");
        assert!(!rhythms.note(&quick, 491_000, false));
    }

    #[test]
    fn a_channel_that_rests_is_not_missed_until_it_was_awake_for_as_long_as_ever() {
        let (restless, resting) = (Channel::parse("v:A:ticker").unwrap(), Channel::parse("v:B:ticker").unwrap());
        let mut rhythms = Rhythms::default();
        for n in 1..=40 {
            rhythms.note(&restless, n * 1_000, false);
            rhythms.note(&resting, n * 1_000, false);
        }
        let silent = |rhythms: &mut Rhythms, now, rests: bool| {
            let silent = rhythms.silent(now, |channel| rests && *channel == resting);
            silent.into_iter().map(|silent| (silent.channel, silent.since)).collect::<Vec<_>>()
        };
        assert_eq!(silent(&mut rhythms, 71_000, true), [(restless, 40_000)]);
        assert_eq!(silent(&mut rhythms, 90_000, true), []);
        assert_eq!(silent(&mut rhythms, 101_000, false), [], "awake since then");
        assert_eq!(silent(&mut rhythms, 102_000, false), [(resting.clone(), 71_000)]);
        assert!(rhythms.note(&resting, 103_000, false));
    }
}
