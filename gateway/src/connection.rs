//! Moves the bytes of one WebSocket: reads messages into the session, writes what the session has, runs its joins.
//!
//! One task owns the socket and everything that belongs to it. Decisions are the session's; here lie only those about the
//! socket itself: when to write, when a client is silent, when it is too slow.

mod liveness;
mod outgoing;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use akis_eventlog::{Replica, Upstream};
use akis_model::CloseCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::liveness::{Liveness, Verdict};
use self::outgoing::Outgoing;
use crate::auth::Grant;
use crate::clock::Now;
use crate::frame::{Decoder, Incoming, put_close, put_ping, put_pong};
use crate::guest::Guest;
use crate::hub::Hub;
use crate::session::{Session, Surroundings};

/// Bytes of envelopes taken from the session for one write.
const WRITE_BYTES: usize = 64 << 10;

/// Bytes of one read.
const READ_BYTES: usize = 8 << 10;

/// A socket that takes no byte for so long is closed.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long the last bytes and the close may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// How long to wait for the client's end of the connection. Closing a socket with unread bytes in it would take the close frame back.
const LINGER: Duration = Duration::from_secs(1);

/// What connections share.
pub(crate) struct Context {
    /// What their sessions share.
    pub(crate) surroundings: Arc<Surroundings>,
    /// The log.
    pub(crate) replica: Arc<Replica>,
    /// The index of subscribers.
    pub(crate) hub: Arc<Hub>,
    /// Ends connections one by one, over the drain time.
    pub(crate) drain: CancellationToken,
    /// Ends connections at once.
    pub(crate) stop: CancellationToken,
    /// Numbers connections.
    pub(crate) next_id: AtomicU64,
}

/// How a connection ended.
enum End {
    /// With this code, still to be said.
    Close(CloseCode),
    /// The other side is gone, or nothing more can be said.
    Gone,
}

/// One upgraded socket.
pub(crate) struct Connection {
    context: Arc<Context>,
    stream: TcpStream,
    guest: Guest,
    decoder: Decoder,
    takes_batches: bool,
    upstream: watch::Receiver<Upstream>,
    outgoing: Outgoing,
    pong: Option<Vec<u8>>,
    /// Whether messages that were read may wait for the session to want them.
    is_held: bool,
    written_at: Option<Instant>,
    is_blocked: bool,
    liveness: Liveness,
    drain_ends_at: Option<Instant>,
}

impl Connection {
    /// Takes an upgraded socket, with the bytes that were read already.
    pub(crate) fn new(
        context: Arc<Context>,
        stream: TcpStream,
        already_read: &[u8],
        grant: Grant,
        takes_batches: bool,
    ) -> Self {
        let now = Now::read();
        let id = context.next_id.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{id}", context.surroundings.config.replica);
        let session = Session::new(Arc::clone(&context.surroundings), grant, &name, now);
        let max_message = context.surroundings.config.limits.message_bytes;
        Self {
            stream,
            guest: Guest::new(Arc::clone(&context), id, session),
            decoder: Decoder::new(max_message, already_read),
            takes_batches,
            upstream: context.replica.upstream(),
            outgoing: Outgoing::default(),
            pong: None,
            is_held: false,
            written_at: None,
            is_blocked: false,
            liveness: Liveness::new(now.instant),
            drain_ends_at: None,
            context,
        }
    }

    /// Serves the client until the connection ends.
    pub(crate) async fn run(mut self) {
        let metrics = &Arc::clone(&self.context).surroundings.metrics;
        metrics.connections.inc();
        if matches!(*self.upstream.borrow_and_update(), Upstream::Down { .. }) {
            self.guest.session().on_upstream(false, Now::read());
        }
        let end = self.serve().await;
        self.guest.leave_all();
        if let End::Close(code) = end {
            metrics.closed(code);
            // Whoever is cut off here has had the time to read.
            let _ = timeout(FLUSH_WITHIN, self.say_goodbye(code)).await;
        }
        metrics.connections.dec();
    }

    async fn serve(&mut self) -> End {
        let context = Arc::clone(&self.context);
        loop {
            let now = Now::read();
            if let Some(end) = self.advance(now) {
                return end;
            }
            let wake_at = self.wake_at(now).into();
            let wants_input = self.guest.session().wants_input();
            let is_writing = !self.outgoing.is_empty();
            let is_draining = self.drain_ends_at.is_some();
            tokio::select! {
                () = context.stop.cancelled() => return End::Close(CloseCode::GoingAway),
                ready = self.stream.writable(), if is_writing => if ready.is_err() { return End::Gone },
                ready = self.stream.readable(), if wants_input => {
                    if ready.is_err() || self.read().is_err() {
                        return End::Gone;
                    }
                }
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
        if let Some(end) = self.decode(now) {
            return Some(end);
        }
        self.guest.session().on_tick(now, || self.context.replica.tail_age());
        self.guest.carry_out();
        if self.write(now).is_err() {
            return Some(End::Gone);
        }
        // Writing may have asked for the next part of a replay, and made room for what was read before.
        self.guest.carry_out();
        let (closing, wants_input) = {
            let session = self.guest.session();
            (session.closing(), session.wants_input())
        };
        if self.is_held && wants_input {
            self.guest.wake();
        }
        if let Some(code) = closing {
            return Some(End::Close(code));
        }
        self.check_times(now)
    }

    /// Hands whole messages to the session, as long as it wants them.
    fn decode(&mut self, now: Now) -> Option<End> {
        loop {
            self.is_held = !self.guest.session().wants_input();
            if self.is_held {
                return None;
            }
            let incoming = match self.decoder.next() {
                Ok(incoming) => incoming,
                Err(error) => return Some(End::Close(error.close_code())),
            };
            self.liveness.heard(self.decoder.frames(), now.instant);
            let mut session = self.guest.session();
            match incoming? {
                Incoming::Text(text) => session.on_text(&text, now),
                Incoming::Binary => session.on_binary(now),
                Incoming::Ping(payload) => {
                    // Only the latest ping needs an answer: RFC 6455 section 5.5.3.
                    if session.on_control_frame(now) {
                        self.pong = Some(payload);
                    }
                }
                Incoming::Pong => {
                    session.on_control_frame(now);
                }
                Incoming::Close => return Some(End::Close(CloseCode::Normal)),
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; READ_BYTES];
        match self.stream.try_read(&mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.decoder.push(chunk.get(..read).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes what may be written now, as far as the socket takes it.
    fn write(&mut self, now: Now) -> io::Result<()> {
        loop {
            if self.outgoing.is_empty() {
                self.fill(now);
            }
            if self.outgoing.is_empty() {
                return Ok(());
            }
            self.flush(now)?;
            if self.is_blocked {
                return Ok(());
            }
        }
    }

    /// Takes envelopes for the next write: at once when the last one is long ago, otherwise when the coalescing time
    /// has passed, so that what comes in between shares one write.
    fn fill(&mut self, now: Now) {
        if let Some(payload) = self.pong.take() {
            self.outgoing.put(|out| put_pong(out, &payload));
        }
        if self.coalesces_until().is_some_and(|at| at > now.instant) {
            return;
        }
        let mut envelopes = Vec::new();
        self.guest.session().take(WRITE_BYTES, &mut envelopes, now);
        if !envelopes.is_empty() {
            let waiting = self.outgoing.put_envelopes(&envelopes, self.takes_batches);
            // A full write is followed by the next one at once.
            self.written_at = (waiting < WRITE_BYTES).then_some(now.instant);
        }
    }

    fn coalesces_until(&self) -> Option<Instant> {
        self.written_at.map(|at| at + self.context.surroundings.config.coalesce)
    }

    fn flush(&mut self, now: Now) -> io::Result<()> {
        let written = self.outgoing.flush(&self.stream, now.instant)?;
        self.context.surroundings.metrics.written_bytes.inc_by(written as u64);
        let is_blocked = self.outgoing.stuck_since().is_some();
        if is_blocked != self.is_blocked {
            self.is_blocked = is_blocked;
            self.guest.session().set_blocked(is_blocked);
        }
        Ok(())
    }

    fn begin_drain(&mut self) {
        let period = self.context.surroundings.config.drain;
        // Clients come back elsewhere in the first part of the time; the rest is for those that are slow to.
        let latest = period.as_millis() as u64 * 4 / 5;
        let reconnect_after = Duration::from_millis(fastrand::u64(0..=latest));
        let now = Now::read();
        self.drain_ends_at = Some(now.instant + period);
        self.guest.session().drain(reconnect_after, period, now);
    }

    /// Judges the socket by the clock.
    fn check_times(&mut self, now: Now) -> Option<End> {
        if self.outgoing.stuck_since().is_some_and(|since| now.instant >= since + STUCK_AFTER) {
            return Some(End::Close(CloseCode::Slow));
        }
        if self.drain_ends_at.is_some_and(|at| now.instant >= at) {
            return Some(End::Close(CloseCode::GoingAway));
        }
        if !self.guest.session().wants_input() {
            self.liveness.excuse(now.instant);
        }
        match self.liveness.judge(now.instant) {
            Verdict::Fine => None,
            Verdict::Silent => Some(End::Close(CloseCode::Silent)),
            Verdict::Ping => {
                self.outgoing.put(put_ping);
                self.flush(now).err().map(|_| End::Gone)
            }
        }
    }

    /// The next moment at which something is due.
    fn wake_at(&self, now: Now) -> Instant {
        let (deadline, has_output) = {
            let session = self.guest.session();
            (session.deadline(now), session.has_output())
        };
        let coalesced = self.coalesces_until().filter(|_| has_output && self.outgoing.is_empty());
        let stuck = self.outgoing.stuck_since().map(|since| since + STUCK_AFTER);
        [coalesced, stuck, self.drain_ends_at, Some(self.liveness.next_at())]
            .into_iter()
            .flatten()
            .fold(deadline, Instant::min)
    }

    /// Writes what is still to be said and the close, then waits for the client's end.
    async fn say_goodbye(&mut self, code: CloseCode) -> io::Result<()> {
        let now = Now::read();
        loop {
            let mut envelopes = Vec::new();
            self.guest.session().take(WRITE_BYTES, &mut envelopes, now);
            if envelopes.is_empty() || matches!(code, CloseCode::Slow | CloseCode::Normal) {
                break;
            }
            self.outgoing.put_envelopes(&envelopes, self.takes_batches);
            self.outgoing.write_out(&mut self.stream).await?;
        }
        self.outgoing.put(|out| put_close(out, code));
        self.outgoing.write_out(&mut self.stream).await?;
        self.stream.shutdown().await?;
        let mut chunk = vec![0; READ_BYTES];
        let until_end = async {
            loop {
                self.stream.readable().await?;
                match self.stream.try_read(&mut chunk) {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        timeout(LINGER, until_end).await.unwrap_or(Ok(()))
    }
}
