//! Moves what one stream's session has to its socket, piece by piece.

use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_eventlog::Upstream;
use akis_model::CloseCode;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::text::{COMMENT, Page, RETRY};
use crate::clock::Now;
use crate::context::Context;
use crate::guest::Guest;
use crate::session::Surroundings;
use crate::wire;

/// Bytes of envelopes taken from the session for one piece.
const PIECE_BYTES: usize = 64 << 10;

/// How often a comment says that the stream is alive.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// A piece that waits for so long says that the socket takes nothing. The web server may just not have looked for less.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);

/// A socket that takes nothing for so long gives way before those that do when too much waits for all clients together.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// A socket that takes nothing for so long is closed.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long the last piece may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Where pieces go.
pub(super) struct Outlet {
    /// To the body of the response. When it is full the writer waits, and what comes meanwhile queues in the session.
    pub(super) pieces: mpsc::Sender<Vec<u8>>,
    /// The body has been written to its end, or given up.
    pub(super) ended: CancellationToken,
    /// Cuts the socket.
    pub(super) cut: CancellationToken,
}

/// How a stream ended.
enum End {
    /// With what is still to be said; the code is the one that a socket would have.
    Close(CloseCode),
    /// Nothing more can be said.
    Gone,
}

/// One stream.
pub(super) struct Writer {
    context: Arc<Context>,
    guest: Guest,
    cursor: Cursor,
    expires_at_ms: i64,
    outlet: Outlet,
    upstream: watch::Receiver<Upstream>,
    /// The piece that waits for its turn, and since when.
    piece: Vec<u8>,
    waits_since: Option<Instant>,
    is_blocked: bool,
    written_at: Option<Instant>,
    comment_at: Instant,
    drain_ends_at: Option<Instant>,
}

impl Writer {
    /// A stream whose session has its message. `cursor` is where the client was, `upstream` what it knows of the log.
    pub(super) fn new(
        context: Arc<Context>,
        guest: Guest,
        cursor: Cursor,
        expires_at_ms: i64,
        outlet: Outlet,
        upstream: watch::Receiver<Upstream>,
    ) -> Self {
        Self {
            guest,
            cursor,
            expires_at_ms,
            outlet,
            upstream,
            piece: RETRY.to_vec(),
            waits_since: None,
            is_blocked: false,
            written_at: None,
            comment_at: Instant::now() + COMMENT_EVERY,
            drain_ends_at: None,
            context,
        }
    }

    /// Serves the client until the stream ends.
    pub(super) async fn run(mut self) {
        let metrics = &Arc::clone(&self.context).surroundings.metrics;
        metrics.connections.inc();
        metrics.opened.inc();
        let end = self.serve().await;
        self.guest.leave_all();
        let cut = self.outlet.cut.clone();
        if let End::Close(code) = end {
            metrics.closed(code);
            // Whoever is too slow gets nothing more; the others have the time to read.
            let said = code != CloseCode::Slow && timeout(FLUSH_WITHIN, self.say_goodbye()).await.is_ok();
            if !said {
                cut.cancel();
            }
        }
        metrics.connections.dec();
    }

    async fn serve(&mut self) -> End {
        let context = Arc::clone(&self.context);
        let pieces = self.outlet.pieces.clone();
        loop {
            let now = Now::read();
            if let Some(end) = self.advance(now) {
                return end;
            }
            let wake_at = self.wake_at(now).into();
            let is_waiting = self.waits_since.is_some();
            let is_draining = self.drain_ends_at.is_some();
            tokio::select! {
                () = context.stop.cancelled() => return End::Close(CloseCode::GoingAway),
                () = self.outlet.ended.cancelled() => return End::Gone,
                permit = pieces.reserve(), if is_waiting => if permit.is_err() { return End::Gone },
                () = self.guest.changed() => {}
                changed = self.upstream.changed() => {
                    if changed.is_err() {
                        return End::Close(CloseCode::Unavailable);
                    }
                    let is_up = matches!(*self.upstream.borrow_and_update(), Upstream::Up);
                    self.guest.session().on_upstream(is_up, Now::read());
                }
                () = context.drain.cancelled(), if !is_draining => self.begin_drain(),
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Does everything that can be done without waiting.
    fn advance(&mut self, now: Now) -> Option<End> {
        let replica = Arc::clone(&self.context.replica);
        self.guest.on_tick(now, || wire::heartbeat(replica.tail_age(), now.unix_ms));
        self.guest.carry_out();
        loop {
            if self.piece.is_empty() {
                self.fill(now);
                // Writing may have asked for the next part of a replay.
                self.guest.carry_out();
            }
            if self.piece.is_empty() || !self.hand_over(now) {
                break;
            }
        }
        self.guest.session().report(self.piece.len());
        if self.outlet.pieces.is_closed() {
            return Some(End::Gone);
        }
        if let Some(code) = self.guest.session().closing() {
            return Some(End::Close(code));
        }
        self.check_times(now)
    }

    /// Makes the next piece: at once when the last one is long ago, otherwise when the coalescing time has passed.
    fn fill(&mut self, now: Now) {
        if now.instant >= self.comment_at {
            self.comment_at = now.instant + COMMENT_EVERY;
            self.piece.extend_from_slice(COMMENT);
        }
        if self.coalesces_until().is_some_and(|at| at > now.instant) {
            return;
        }
        if self.take(now) {
            // A full piece is followed by the next one at once.
            self.written_at = (self.piece.len() < PIECE_BYTES).then_some(now.instant);
        }
    }

    /// Adds what the session has. Gives whether it had something.
    fn take(&mut self, now: Now) -> bool {
        let before = self.piece.len();
        let mut page = Page { piece: &mut self.piece, cursor: &mut self.cursor };
        self.guest.session().take(PIECE_BYTES, &mut page, now);
        self.piece.len() > before
    }

    /// Hands the piece to the body of the response, if that has room.
    fn hand_over(&mut self, now: Now) -> bool {
        let is_taken = match self.outlet.pieces.try_reserve() {
            Ok(permit) => {
                self.context.surroundings.metrics.written_bytes.inc_by(self.piece.len() as u64);
                permit.send(std::mem::take(&mut self.piece));
                true
            }
            Err(_) => false,
        };
        self.waits_since = if is_taken { None } else { self.waits_since.or(Some(now.instant)) };
        let is_blocked = self.waits_since.is_some_and(|since| now.instant >= since + BLOCKED_AFTER);
        if is_blocked != self.is_blocked {
            self.is_blocked = is_blocked;
            self.guest.session().set_blocked(is_blocked);
        }
        is_taken
    }

    fn coalesces_until(&self) -> Option<Instant> {
        self.written_at.map(|at| at + self.context.surroundings.config.coalesce)
    }

    fn begin_drain(&mut self) {
        let period = self.context.surroundings.config.drain;
        let now = Now::read();
        self.drain_ends_at = Some(now.instant + period);
        self.guest.session().drain(period, now);
    }

    fn check_times(&self, now: Now) -> Option<End> {
        if self.waits_since.is_some_and(|since| now.instant >= since + STUCK_AFTER) {
            return Some(End::Close(CloseCode::Slow));
        }
        if self.gives_way(now) {
            return Some(End::Close(CloseCode::Slow));
        }
        // A fresh token comes with a new request.
        if now.unix_ms >= self.expires_at_ms {
            return Some(End::Close(CloseCode::Token));
        }
        self.drain_ends_at.is_some_and(|at| now.instant >= at).then_some(End::Close(CloseCode::GoingAway))
    }

    /// Whether too much waits for all clients together and this one is among those that make room: it reads nothing and much waits for
    /// it, or one of the two where it is streams that have more than their part. Whoever has stopped for a moment with little that waits
    /// would make no room for sockets.
    fn gives_way(&self, now: Now) -> bool {
        let Surroundings { config, metrics, .. } = &*self.context.surroundings;
        if !metrics.is_overfull(config.limits.queue_bytes_total) {
            return false;
        }
        let is_idle = self.waits_since.is_some_and(|since| now.instant >= since + IDLE_AFTER);
        let has_much = self.guest.session().waiting_bytes() > config.limits.queue_bytes / 2;
        if metrics.stream_bytes() > self.context.streams_part() { is_idle || has_much } else { is_idle && has_much }
    }

    /// The next moment at which something is due.
    fn wake_at(&self, now: Now) -> Instant {
        let (deadline, has_output) = (self.guest.deadline(now), self.guest.session().has_output());
        let coalesced = self.coalesces_until().filter(|_| has_output && self.piece.is_empty());
        // Whoever is blocked looks from time to time whether it has to give way.
        let waits_until = self.waits_since.map(|since| {
            if self.is_blocked { (now.instant + IDLE_AFTER).min(since + STUCK_AFTER) } else { since + BLOCKED_AFTER }
        });
        // A comment cannot be made before the piece that waits has left.
        let comment = self.piece.is_empty().then_some(self.comment_at);
        [coalesced, waits_until, self.drain_ends_at, comment].into_iter().flatten().fold(deadline, Instant::min)
    }

    /// Hands over what is still to be said, then waits until the body has been written.
    async fn say_goodbye(mut self) {
        let now = Now::read();
        while self.take(now) {}
        if !self.piece.is_empty() && self.outlet.pieces.send(self.piece).await.is_err() {
            return;
        }
        drop(self.outlet.pieces);
        self.outlet.ended.cancelled().await;
    }
}
