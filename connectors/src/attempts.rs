//! How often a venue may be connected to.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts the connections that are tried, for all dialogs with one address: the venue counts them together too.
#[derive(Debug)]
pub(crate) struct Attempts {
    most: usize,
    within: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that the venue still counts, the oldest first.
    recent: VecDeque<Instant>,
    /// The venue wants none before this.
    held_until: Option<Instant>,
}

impl Attempts {
    /// At most `most` of them (at least one) in any stretch of `within`.
    pub(crate) fn new(most: usize, within: Duration) -> Self {
        Self { most: most.max(1), within, state: Mutex::new(State::default()) }
    }

    /// Takes note of an attempt at `now`, or says when there may be one.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = state.held_until.filter(|until| *until > now) {
            return Err(until);
        }
        while state.recent.front().is_some_and(|&at| now.duration_since(at) >= self.within) {
            state.recent.pop_front();
        }
        match state.recent.front() {
            Some(&oldest) if state.recent.len() >= self.most => Err(oldest + self.within),
            _ => {
                state.recent.push_back(now);
                Ok(())
            }
        }
    }

    /// The venue has refused one: nothing is tried for as long as it says, or for as long as it counts.
    pub(crate) fn hold(&self, now: Instant, said: Option<Duration>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.held_until = Some(now + said.unwrap_or(self.within));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_too_many_waits_for_the_oldest_to_be_forgotten() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let attempts = Attempts::new(2, 60 * second);
        assert_eq!(attempts.take(start), Ok(()));
        assert_eq!(attempts.take(start + second), Ok(()));
        assert_eq!(attempts.take(start + 2 * second), Err(start + 60 * second));
        assert_eq!(attempts.take(start + 60 * second), Ok(()));
        assert_eq!(attempts.take(start + 60 * second), Err(start + 61 * second));
    }

    #[test]
    fn a_refusal_holds_everything() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let attempts = Attempts::new(9, 60 * second);
        attempts.hold(start, None);
        assert_eq!(attempts.take(start + second), Err(start + 60 * second));
        attempts.hold(start, Some(3 * second));
        assert_eq!(attempts.take(start + 2 * second), Err(start + 3 * second));
        assert_eq!(attempts.take(start + 3 * second), Ok(()));
    }
}
