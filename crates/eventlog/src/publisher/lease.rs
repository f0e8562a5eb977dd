//! Keeping a publisher's lease: taking it, renewing it, and knowing by its own clock when it has run out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Heard, Inbox, PublisherConfig, PublisherCounts, Role};
use crate::store::{Identity, Store, StoreError};

/// The lease, as its holder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Tells one reign from the next.
    pub(super) number: u64,
    /// See [`crate::Lease::continues`].
    pub(super) continues: bool,
    /// See [`crate::Lease::before`].
    pub(super) before: u64,
    /// By this moment it has run out, whatever the store says: measured from before the call that gave it.
    pub(super) until: Instant,
}

impl Held {
    /// Whether it still runs, with nothing to spare.
    pub(super) fn is_valid(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Takes and renews one publisher's lease.
pub(super) struct LeaseKeeper {
    store: Arc<dyn Store>,
    publisher: Arc<str>,
    owner: String,
    ttl: Duration,
    heard: Arc<Heard>,
    held: watch::Sender<Option<Held>>,
    role: watch::Sender<Role>,
    /// The log that replaced another one last while the lease ran on.
    replacement: parking_lot::Mutex<Option<Identity>>,
    /// One call at a time, so that an older answer never overwrites a newer one.
    calling: tokio::sync::Mutex<()>,
}

/// The lease ended, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

impl LeaseKeeper {
    pub(super) fn new(
        store: Arc<dyn Store>,
        config: &PublisherConfig,
        heard: Arc<Heard>,
        role: watch::Sender<Role>,
    ) -> Self {
        Self {
            store,
            publisher: Arc::clone(&config.name),
            owner: format!("{:016x}", fastrand::u64(..)),
            ttl: config.ttl,
            heard,
            held: watch::Sender::new(None),
            role,
            replacement: parking_lot::Mutex::default(),
            calling: tokio::sync::Mutex::new(()),
        }
    }

    /// Who this process is, as leases and fences name it.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// The lease as it changes: `None` while it is not held.
    pub(super) fn held(&self) -> watch::Receiver<Option<Held>> {
        self.held.subscribe()
    }

    /// Renews the lease now, and gives its new end.
    ///
    /// # Errors
    ///
    /// [`Lost`] when it is not this publisher's any more; `Ok(None)` when the store did not answer.
    pub(super) async fn renew(&self, number: u64) -> Result<Option<Held>, Lost> {
        let _calling = self.calling.lock().await;
        let current = (*self.held.borrow()).filter(|held| held.number == number && held.is_valid()).ok_or(Lost)?;
        let sent = Instant::now();
        match self.store.renew_lease(&self.publisher, &self.owner, self.ttl, self.heard.now()).await {
            // An answer that came after the end is no proof that nobody else had it in between.
            Ok(_) if current.is_valid() => {
                let held = Held { until: sent + self.ttl, ..current };
                self.held.send_replace(Some(held));
                Ok(Some(held))
            }
            Err(StoreError::HeardElsewhere) => {
                warn!(publisher = %self.publisher, "one that stands by hears what does not come here: the lease is left to it");
                self.held.send_replace(None);
                Err(Lost)
            }
            Ok(_) | Err(StoreError::Held { .. }) => {
                self.held.send_replace(None);
                Err(Lost)
            }
            Err(_) => Ok(None),
        }
    }

    /// Ends a reign that the log has ended: another publisher has set its fence.
    pub(super) fn give_up(&self, number: u64) {
        self.held.send_if_modified(|held| held.take_if(|held| held.number == number).is_some());
    }

    /// Tells once for each log that replaces another one under a running lease that the publisher is active, as if the lease had just been
    /// taken: such a log may have lost what only those who offer can say again.
    pub(super) fn tell_replaced(&self, identity: &Identity) {
        let before = self.replacement.lock().replace(identity.clone());
        if before.as_ref() != Some(identity) {
            self.role.send_modify(|_| {});
        }
    }

    /// Takes the lease whenever it can be had and renews it, until `done`.
    pub(super) async fn keep(&self, inboxes: &[Inbox], counts: &PublisherCounts, done: CancellationToken) {
        loop {
            let step = async {
                let held = *self.held.borrow();
                match held {
                    Some(held) => self.hold(held).await,
                    None => self.seek(inboxes, counts).await,
                }
            };
            tokio::select! {
                () = step => {}
                () = done.cancelled() => break,
            }
            self.tell();
        }
    }

    /// Ends for good. With all written the lease is given back, which says that nothing is missing behind the last event; else
    /// it runs out.
    pub(super) async fn end(&self, wrote_all: bool) {
        if wrote_all {
            let _ = self.store.release_lease(&self.publisher, &self.owner).await;
        } else {
            warn!(publisher = %self.publisher, "not all could be written: the lease is left to run out");
        }
        self.held.send_replace(None);
    }

    /// Waits for the next renewal, renews, and notices the end.
    async fn hold(&self, held: Held) {
        let next = (held.until - self.ttl) + self.ttl / 3;
        let mut changes = self.held.subscribe();
        tokio::select! {
            () = sleep_until(next.max(Instant::now())) => {}
            _ = changes.wait_for(|now| *now != Some(held)) => return,
        }
        match self.renew(held.number).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                // No answer. Try again soon; at the end of the lease it is over.
                let soon = Instant::now() + self.ttl / 10;
                sleep_until(soon.min(held.until)).await;
                if !held.is_valid() {
                    self.give_up(held.number);
                }
            }
            Err(Lost) => self.give_up(held.number),
        }
    }

    /// Tries once to take the lease, and waits a little when it cannot be had.
    async fn seek(&self, inboxes: &[Inbox], counts: &PublisherCounts) {
        let sent = Instant::now();
        let taken = self.store.take_lease(&self.publisher, &self.owner, self.ttl, self.heard.now()).await;
        match taken {
            Ok(lease) => {
                for inbox in inboxes {
                    inbox.pending.lock().open();
                }
                let crate::Lease { number, continues, before } = lease;
                let held = Held { number, continues, before, until: sent + self.ttl };
                self.held.send_replace(Some(held));
                return;
            }
            Err(StoreError::Held { by_another: true }) => {
                let dropped: u64 = inboxes.iter().map(|inbox| inbox.pending.lock().close()).sum();
                counts.dropped.fetch_add(dropped, Ordering::Relaxed);
                if self.role.send_if_modified(|role| std::mem::replace(role, Role::Standby) != Role::Standby) {
                    warn!(publisher = %self.publisher, dropped, "another publisher has the lease: standing by");
                }
            }
            Err(_) => {}
        }
        tokio::time::sleep(self.ttl / 20).await;
    }

    fn tell(&self) {
        let held = self.held.borrow().is_some();
        let changed = self.role.send_if_modified(|role| {
            let next = match (held, *role) {
                (true, _) => Role::Active,
                (false, Role::Active) => Role::Away,
                (false, before) => before,
            };
            std::mem::replace(role, next) != next
        });
        if changed && held {
            info!(publisher = %self.publisher, "lease taken: publishing");
        } else if changed {
            warn!(publisher = %self.publisher, "lease lost: not publishing until it can be taken again");
        }
    }
}
