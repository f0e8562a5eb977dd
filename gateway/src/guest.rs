//! A session outside the shards: for whatever writes to its client from a task of its own.
//!
//! Owns the session's place in the hub and its joins. The task that serves the client puts messages and the passing of
//! time into the session, calls [`Guest::carry_out`] after that, writes what [`Session::take`] gives, and waits with
//! [`Guest::changed`] and for [`Guest::deadline`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use akis_eventlog::{From, Replica};
use akis_model::{Channel, ErrorCode};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::{MappedMutexGuard, MutexGuard};
use tokio::sync::watch;

use crate::clock::Now;
use crate::context::Context;
use crate::hub::Peer;
use crate::request::Refusal;
use crate::session::{Action, ActionKind, Session};

/// See the module's documentation. Leaves all its channels when dropped.
pub(crate) struct Guest {
    context: Arc<Context>,
    peer: Arc<Peer>,
    /// Channels registered with the hub.
    registered: HashSet<Channel, foldhash::fast::RandomState>,
    joins: FuturesUnordered<BoxFuture<'static, Channel>>,
    revocations: watch::Receiver<u64>,
}

impl Guest {
    /// Takes a session in. `id` is the connection's number, from [`Context::next_id`].
    pub(crate) fn new(context: Arc<Context>, id: u64, session: Session) -> Self {
        Self {
            peer: Peer::new(id, session),
            registered: HashSet::default(),
            joins: FuturesUnordered::new(),
            revocations: context.surroundings.auth.revocations().watch(),
            context,
        }
    }

    /// The session. The log's notices wait meanwhile, so it must not be held for longer than a few steps.
    pub(crate) fn session(&self) -> MappedMutexGuard<'_, Session> {
        MutexGuard::map(self.peer.solo.lock(), |solo| &mut solo.session)
    }

    /// Does what is due, as [`Session::on_tick`].
    pub(crate) fn on_tick(&self, now: Now, heartbeat: impl FnOnce() -> Bytes) {
        self.peer.solo.lock().on_tick(now, heartbeat);
    }

    /// When [`Guest::on_tick`] has something to do again.
    pub(crate) fn deadline(&self, now: Now) -> Instant {
        self.peer.solo.lock().deadline(now)
    }

    /// Does what the session wants done outside. Must be called after everything that went into the session.
    pub(crate) fn carry_out(&mut self) {
        loop {
            let actions = self.peer.solo.lock().actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Channel { channel, kind, .. } => self.act(channel, kind),
                    Action::List { token } => self.refuse_pattern(token),
                }
            }
        }
    }

    fn act(&mut self, channel: Channel, kind: ActionKind) {
        match kind {
            ActionKind::Join { from, token } => {
                if self.registered.insert(channel.clone()) {
                    self.context.hub.add(&channel, &self.peer);
                }
                let (replica, peer) = (Arc::clone(&self.context.replica), Arc::clone(&self.peer));
                self.joins.push(Box::pin(join(replica, peer, channel, from, token)));
            }
            // The session's own matter.
            ActionKind::Pace { .. } => {}
            ActionKind::Leave => {
                if self.registered.remove(&channel) {
                    self.leave(&channel);
                }
            }
        }
    }

    /// A client that comes back says where it was by the names that it asked for, and a pattern has no position.
    fn refuse_pattern(&self, token: u64) {
        let refusal = Refusal::new(ErrorCode::BadChannel, "a stream takes no patterns: name the channels");
        self.session().on_listed(token, Err(refusal), Now::read());
    }

    /// Waits until the log or a join has given the session something, or tokens have been revoked, which its next tick finds out.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: what happened is in the session, and the next call returns at once when it was not seen.
    pub(crate) async fn changed(&mut self) {
        tokio::select! {
            Some(channel) = self.joins.next() => self.after_join(&channel),
            () = self.peer.wake.notified() => {}
            Ok(()) = self.revocations.changed() => {}
        }
    }

    /// Leaves all channels. The session may still have answers to be written.
    pub(crate) fn leave_all(&mut self) {
        self.joins.clear();
        for channel in std::mem::take(&mut self.registered) {
            self.leave(&channel);
        }
    }

    fn leave(&self, channel: &Channel) {
        self.context.hub.remove(channel, &self.peer, || self.context.replica.leave(channel));
    }

    /// A join that ended after its channel was left has told the log that somebody subscribes.
    fn after_join(&self, channel: &Channel) {
        if !self.registered.contains(channel) {
            self.context.hub.check_unused(channel, || self.context.replica.leave(channel));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.leave_all();
    }
}

async fn join(replica: Arc<Replica>, peer: Arc<Peer>, channel: Channel, from: From, token: u64) -> Channel {
    let activate = |joined| peer.solo.lock().session.on_joined(&channel, token, Ok(joined), Now::read());
    if let Err(error) = replica.join(&channel, from, activate).await {
        peer.solo.lock().session.on_joined(&channel, token, Err(error), Now::read());
    }
    channel
}
