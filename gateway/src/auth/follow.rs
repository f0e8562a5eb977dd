//! Follows the reserved channel of the log on which revocations are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use akis_eventlog::{Select, Store, StoreError, links};
use akis_model::{Channel, Seq};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, warn};

use super::revoked::{self, REVOKE_CHANNEL};
use crate::auth::Authenticator;
use crate::clock::Now;
use crate::metrics::Metrics;

/// How often the channel is looked at. A revocation has to be honoured within a second, whatever else the log carries.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An answer that takes longer is asked for anew: a connection may have gone deaf.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// Entries of one read.
const BATCH: usize = 500;

/// Reads history rather than waiting for notices: it is the same at the start, after the log was away and after it was
/// replaced, and it does not depend on who else subscribes to what.
pub(crate) struct Follower {
    store: Arc<dyn Store>,
    channel: Channel,
    after: Seq,
    has_caught_up: Arc<AtomicBool>,
}

impl Follower {
    /// A follower that has seen nothing. `None` never happens: the channel's name is a channel.
    pub(crate) fn new(store: Arc<dyn Store>, has_caught_up: Arc<AtomicBool>) -> Option<Self> {
        let channel = Channel::parse(REVOKE_CHANNEL).ok()?;
        Some(Self { store, channel, after: Seq::ZERO, has_caught_up })
    }

    /// Takes what comes, until dropped.
    pub(crate) async fn run(mut self, auth: &Authenticator, metrics: &Metrics) {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            // The log being away is told by those who serve from it.
            if let Ok(Ok(())) = timeout(LOOK_WITHIN, self.catch_up(auth, metrics)).await {
                self.has_caught_up.store(true, Ordering::Relaxed);
            }
            let now = Now::read();
            let left = auth.revocations().forget_past(now.unix_ms);
            metrics.revocations.set(i64::try_from(left).unwrap_or(i64::MAX));
        }
    }

    /// Reads to the end of the channel.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: what was read has been taken.
    async fn catch_up(&mut self, auth: &Authenticator, metrics: &Metrics) -> Result<(), StoreError> {
        loop {
            let range = self.store.range(&self.channel, Select::Above { after: self.after, limit: BATCH }).await?;
            let now = Now::read();
            if let Some(next) = range.entries.first()
                && self.after > Seq::ZERO
                && range.first == Some(next.seq)
                && !links(self.after, next.seq, next.previous)
            {
                error!(
                    after = self.after.get(),
                    oldest = next.seq.get(),
                    "revocations were trimmed before they were read: their tokens are believed"
                );
            }
            for entry in &range.entries {
                self.after = self.after.max(entry.seq);
                match revoked::parse_entry(&entry.body) {
                    None => {}
                    Some(Ok(revocation)) => {
                        let pushed_out = auth.revocations().add(revocation, now.unix_ms);
                        if pushed_out > 0 {
                            error!(
                                pushed_out,
                                "more revocations than there is room for: tokens are believed again too early"
                            );
                        }
                    }
                    Some(Err(why)) => {
                        metrics.bad_revocations.inc();
                        warn!(seq = entry.seq.get(), why, "a revocation cannot be understood");
                    }
                }
            }
            if range.entries.is_empty() || range.last.is_none_or(|newest| self.after >= newest) {
                return Ok(());
            }
        }
    }
}
