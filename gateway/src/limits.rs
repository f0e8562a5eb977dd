//! Counting what clients take: rates as token buckets, and connections by key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A second without a refusal is the pause after which refusals are counted anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets `rate` units a second pass, and `burst` of them at once.
///
/// Holds only the moment at which the bucket would be full again, so a fresh bucket and one that nobody used for long
/// are the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenBucket {
    interval: Duration,
    depth: Duration,
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket. A rate or burst of 0 counts as 1.
    pub(crate) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, depth: interval * burst.max(1), full_at: now }
    }

    /// Lets another rate and burst pass from now on. It is full when it would have been, or sooner where that is more than an empty one takes.
    fn change(&mut self, rate: u32, burst: u32, now: Instant) {
        let full_in = self.full_at.saturating_duration_since(now);
        *self = Self::new(rate, burst, now);
        self.full_at += full_in.min(self.depth);
    }

    /// Takes `units` when they are there; otherwise takes nothing and says how long to wait for them.
    pub(crate) fn take(&mut self, units: u32, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.interval * units;
        let used = full_at.duration_since(now);
        if used > self.depth {
            return Err(used - self.depth);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Whether nothing is taken, so that forgetting the bucket changes nothing.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

/// What becomes of one message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is carried out.
    Accepted,
    /// It is answered `RATE_LIMITED`.
    Refused {
        /// When the next one would be accepted.
        retry_after: Duration,
        /// As many in a row were refused as the burst allows: the connection is closed.
        is_last: bool,
    },
}

/// The message rate of one connection.
#[derive(Debug)]
pub(crate) struct MessageGate {
    bucket: TokenBucket,
    burst: u32,
    refused: u32,
    last_refusal: Option<Instant>,
}

impl MessageGate {
    /// A gate for `rate` messages a second, `burst` at once.
    pub(crate) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        Self { bucket: TokenBucket::new(rate, burst, now), burst: burst.max(1), refused: 0, last_refusal: None }
    }

    /// Lets another rate and burst pass from now on. It is the same connection, with what it has used and what was refused.
    pub(crate) fn change(&mut self, rate: u32, burst: u32, now: Instant) {
        self.bucket.change(rate, burst, now);
        self.burst = burst.max(1);
    }

    /// Decides about one message.
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        let Err(retry_after) = self.bucket.take(1, now) else { return Admission::Accepted };
        if self.last_refusal.is_none_or(|last| now.duration_since(last) >= PAUSE) {
            self.refused = 0;
        }
        self.last_refusal = Some(now);
        self.refused += 1;
        Admission::Refused { retry_after, is_last: self.refused >= self.burst }
    }
}

/// How many of something each key has now.
#[derive(Debug)]
pub(crate) struct Counts<K: Hash + Eq>(Mutex<HashMap<K, usize, foldhash::fast::RandomState>>);

impl<K: Hash + Eq + Clone> Counts<K> {
    /// Nobody has anything.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Counts one more for `key`, until the permit is dropped; `None` when it already has `max`.
    pub(crate) fn acquire(self: &Arc<Self>, key: K, max: usize) -> Option<Permit<K>> {
        let mut counts = self.0.lock();
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= max {
            // A limit of 0 must not leave an entry behind for every key that was refused.
            if *count == 0 {
                counts.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Permit { counts: Arc::clone(self), key })
    }
}

/// One counted thing; uncounted when dropped.
#[derive(Debug)]
pub(crate) struct Permit<K: Hash + Eq> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Hash + Eq> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_lets_the_burst_pass_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(20, 5, start);
        for _ in 0..5 {
            assert_eq!(bucket.take(1, start), Ok(()));
        }
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(50)));
        assert_eq!(bucket.take(1, start + Duration::from_millis(50)), Ok(()));
        assert_eq!(bucket.take(3, start + Duration::from_millis(100)), Err(Duration::from_millis(100)));
        let later = start + Duration::from_secs(60);
        assert!(bucket.is_full(later));
        assert_eq!(bucket.take(5, later), Ok(()));
    }

    #[test]
    fn gate_closes_after_a_burst_of_refusals_and_forgives_after_a_pause() {
        let start = Instant::now();
        let mut gate = MessageGate::new(1, 3, start);
        let mut refused = 0;
        let mut flood = |gate: &mut MessageGate, at: Instant, times: usize| -> bool {
            (0..times).any(|_| match gate.admit(at) {
                Admission::Accepted => false,
                Admission::Refused { is_last, .. } => {
                    refused += 1;
                    is_last
                }
            })
        };
        assert!(!flood(&mut gate, start, 3 + 2), "two refusals are not three");
        let later = start + Duration::from_secs(1);
        assert!(!flood(&mut gate, later, 1 + 2), "the pause began the count anew");
        assert!(flood(&mut gate, later + Duration::from_millis(500), 1), "the third without a pause");
    }

    #[test]
    fn a_gate_that_is_changed_gives_nothing_back() {
        let start = Instant::now();
        let mut gate = MessageGate::new(10, 20, start);
        for _ in 0..15 {
            assert_eq!(gate.admit(start), Admission::Accepted);
        }
        gate.change(1, 2, start);
        assert!(
            matches!(gate.admit(start), Admission::Refused { .. }),
            "an empty one takes two seconds, and half of that is not there"
        );
        gate.change(10, 20, start);
        let accepted = (0..20).take_while(|_| gate.admit(start) == Admission::Accepted).count();
        assert_eq!(accepted, 5, "fifteen of twenty stay taken");
        gate.change(1, 2, start);
        assert!(matches!(gate.admit(start), Admission::Refused { is_last: true, .. }), "the second without a pause");
        assert_eq!(
            gate.admit(start + Duration::from_secs(1)),
            Admission::Accepted,
            "no more than the new burst is owed"
        );
    }

    #[test]
    fn counts_forget_keys_that_have_nothing() {
        let counts = Counts::new();
        let first = counts.acquire("a", 1);
        assert!(first.is_some());
        assert!(counts.acquire("a", 1).is_none());
        assert!(counts.acquire("b", 0).is_none());
        drop(first);
        assert!(counts.0.lock().is_empty());
        assert!(counts.acquire("a", 1).is_some());
    }
}
