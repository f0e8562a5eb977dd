//! One WebSocket of a shard: its session, and what has to be known about its socket.
//!
//! A plain struct without a task. It holds no buffer while nothing is half read or half written.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use akis_model::CloseCode;
use mio::net::TcpStream;
use tokio::task::AbortHandle;

use super::desk::Desk;
use super::gather::Style;
use super::inbox::ConnKey;
use super::liveness::{Liveness, Verdict};
use crate::age::{self, Arrival, Mark};
use crate::clock::Now;
use crate::server::Seat;
use crate::session::{Session, Tally};
use crate::ws::{Decoder, FrameError, Incoming, Rules, put_close, put_ping, put_pong};

/// Bytes of envelopes taken from the session for one write.
const WRITE_BYTES: usize = 64 << 10;

/// Writes to one connection before it is another one's turn.
const WRITES_PER_TURN: usize = 4;

/// Reads from one connection before it is another one's turn.
const READS_PER_TURN: usize = 8;

/// A socket that takes no byte for so long is closed.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A socket that takes no byte for so long gives way before those that do.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// How long the last bytes and the close may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// How long to wait for the client's end of the connection. Closing a socket with unread bytes in it would take the close frame back.
const LINGER: Duration = Duration::from_secs(1);

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With this code, still to be said.
    Close(CloseCode),
    /// With this code, which cannot be said: the socket takes nothing, and what waits for it must not be kept.
    Cut(CloseCode),
    /// The other side is gone, or nothing more can be said.
    Gone,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Close(match error {
            FrameError::Protocol(_) => CloseCode::Protocol,
            FrameError::NotUtf8 => CloseCode::NotUtf8,
            FrameError::TooLarge => CloseCode::TooLarge,
        })
    }
}

/// How far a turn of reading came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// As far as there was something to do.
    Done,
    /// There may be more, for the next turn.
    More,
}

/// See the module's documentation.
pub(super) struct Conn {
    pub(super) key: ConnKey,
    stream: TcpStream,
    pub(super) session: Session,
    decoder: Decoder,
    style: Style,
    /// Topics by the session's numbers of channels; [`NO_TOPIC`] where there is none.
    pub(super) topics: Vec<u32>,
    /// Reads of the log that it waits for.
    reads: Vec<AbortHandle>,
    /// Whole frames that the socket has not taken, and how much of them it has.
    unsent: Vec<u8>,
    sent: usize,
    stuck_since: Option<Instant>,
    written_at: Option<Instant>,
    pong: Option<Box<[u8]>>,
    wants_ping: bool,
    /// Whether messages may be waiting for the session to want them.
    is_held: bool,
    liveness: Liveness,
    drain_ends_at: Option<Instant>,
    /// The close has been said, or is about to be: when to give up waiting for the client's end.
    leaves_at: Option<Instant>,
    /// Whether it is in the shard's list of those with something to do.
    pub(super) is_touched: bool,
    /// Whether it is in the shard's queue of those that gather.
    pub(super) is_gathering: bool,
    /// The earliest timer that the shard has for it.
    pub(super) timer_at: Option<Instant>,
    /// When the oldest of what waits to be written came from the log.
    arrival: Option<Arrival>,
    /// A sampled event that waits to be written.
    pub(super) mark: Option<Box<Mark>>,
    _seat: Seat,
}

/// No topic.
pub(super) const NO_TOPIC: u32 = u32::MAX;

impl Conn {
    pub(super) fn new(key: ConnKey, stream: TcpStream, session: Session, style: Style, seat: Seat, now: Now) -> Self {
        Self {
            key,
            stream,
            session,
            decoder: Decoder::default(),
            style,
            topics: Vec::new(),
            reads: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            stuck_since: None,
            written_at: None,
            pong: None,
            wants_ping: false,
            is_held: false,
            liveness: Liveness::new(now.instant),
            drain_ends_at: None,
            leaves_at: None,
            is_touched: false,
            is_gathering: false,
            timer_at: None,
            arrival: None,
            mark: None,
            _seat: seat,
        }
    }

    /// The socket, for the shard's selector.
    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the close has been said.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaves_at.is_some()
    }

    /// Bytes of memory that it holds, without those of the session's queues.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.decoder.held_bytes() + self.unsent.capacity() + 4 * self.topics.capacity()
    }

    /// Bytes that the socket has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// Bytes that wait for the client, whether or not they have been framed.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.unsent_bytes() + self.session.waiting_bytes()
    }

    /// Whether the socket did not take all that was last written to it.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck_since.is_some()
    }

    /// Whether the socket has taken nothing for so long that its client is not just on a slow line.
    pub(super) fn is_idle(&self, now: Now) -> bool {
        self.stuck_since.is_some_and(|since| now.instant >= since + IDLE_AFTER)
    }

    /// Waits for a read of the log.
    pub(super) fn wait_for(&mut self, read: AbortHandle) {
        self.reads.retain(|read| !read.is_finished());
        self.reads.push(read);
    }

    /// What has happened since this was last asked.
    pub(super) fn tally(&mut self) -> Tally {
        self.session.tally(self.unsent_bytes())
    }

    /// Drops everything that waits: nothing more can be said.
    pub(super) fn give_up(&mut self) {
        self.session.give_up();
        self.reads.drain(..).for_each(|read| read.abort());
        self.unsent = Vec::new();
        self.sent = 0;
    }

    /// How it stands, for the metrics.
    pub(super) fn state(&self) -> &'static str {
        match (self.is_leaving(), self.is_stuck()) {
            (true, _) => "leaving",
            (false, true) => "blocked",
            (false, false) => "open",
        }
    }

    /// Whether there is something to write and the socket takes it.
    pub(super) fn can_write(&self) -> bool {
        self.unsent.is_empty() && self.session.has_output()
    }

    /// Reads what there is and hands whole messages to the session, as long as it wants them. With `is_closing` until the socket says
    /// that there is no more; otherwise a read that does not fill the buffer is the last one, because what comes later is a new event.
    pub(super) fn read(&mut self, desk: &mut Desk, is_closing: bool, now: Now) -> Result<Progress, End> {
        for _ in 0..READS_PER_TURN {
            if self.is_leaving() {
                // Only its end is waited for.
                match self.stream.read(&mut desk.read_buffer) {
                    Ok(0) => return Err(End::Gone),
                    Ok(_) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Done),
                    Err(error) => return Err(error.into()),
                }
            }
            if !self.session.wants_input() {
                self.is_held = true;
                return Ok(Progress::Done);
            }
            match self.stream.read(&mut desk.read_buffer) {
                Ok(0) => return Err(End::Gone),
                Ok(read) => {
                    let mut buffer = std::mem::take(&mut desk.read_buffer);
                    let decoded = self.decode(buffer.get_mut(..read).unwrap_or_default(), desk, now);
                    desk.read_buffer = buffer;
                    decoded?;
                    if read < desk.read_buffer.len() && !is_closing {
                        return Ok(Progress::Done);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Done),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Progress::More)
    }

    /// Decodes bytes that were read, or without any, those that were kept.
    pub(super) fn decode(&mut self, bytes: &mut [u8], desk: &mut Desk, now: Now) -> Result<(), End> {
        let Self { session, pong, decoder, style, .. } = self;
        let inflater = style.is_deflated.then_some(&mut desk.inflater);
        let mut rules = Rules { max_message: desk.max_message, inflater };
        let mut is_closed = false;
        decoder.feed(bytes, &mut rules, &mut |incoming| {
            match incoming {
                Incoming::Text(text) => session.on_text(text, now),
                Incoming::Binary(_) => session.on_binary(now),
                Incoming::Ping(payload) => {
                    // Only the latest ping needs an answer: RFC 6455 section 5.5.3.
                    if session.on_control_frame(now) {
                        *pong = Some(payload.into());
                    }
                }
                Incoming::Pong => {
                    session.on_control_frame(now);
                }
                Incoming::Close(_) => is_closed = true,
            }
            !is_closed && session.wants_input()
        })?;
        self.liveness.heard(self.decoder.frames(), now.instant);
        self.is_held = !self.session.wants_input();
        if is_closed { Err(End::Close(CloseCode::Normal)) } else { Ok(()) }
    }

    /// Whether messages that were held back may be read now. Asked once.
    pub(super) fn resumes(&mut self) -> bool {
        self.is_held && self.session.wants_input() && std::mem::take(&mut self.is_held)
    }

    /// Takes note of when something came that is to be written.
    pub(super) fn note_arrival(&mut self, came: Option<Arrival>) {
        if self.arrival.is_none() {
            self.arrival = came;
        }
    }

    /// Measures a write that leaves nothing behind.
    fn note_written(&mut self, desk: &Desk, now: Now) {
        let age_s = self.arrival.take().map(|arrival| desk.ages.written(arrival, now, Instant::now()));
        if let Some(mark) = self.mark.take() {
            age::written(&desk.context.surroundings.metrics, &mark, desk.number, age_s);
        }
    }

    /// Writes what may be written now. Gives the moment at which the rest may be, when it has to wait for it.
    pub(super) fn write(&mut self, desk: &mut Desk, now: Now) -> Result<Option<Instant>, End> {
        if !self.flush(desk, now)? {
            return Ok(None);
        }
        let has_control = self.pong.is_some() || self.wants_ping;
        if !has_control && !self.session.has_output() {
            self.arrival = None;
            return Ok(None);
        }
        if let Some(at) = desk.pace.writes_at(self.written_at, now.instant)
            && !has_control
        {
            return Ok(Some(at));
        }
        for _ in 0..WRITES_PER_TURN {
            desk.gather.begin(self.style);
            if let Some(payload) = self.pong.take() {
                desk.gather.put(|out| put_pong(out, &payload));
            }
            if std::mem::take(&mut self.wants_ping) {
                desk.gather.put(put_ping);
            }
            self.session.on_write(now, || desk.heartbeat(now));
            if !self.send(desk, now)? {
                return Ok(None);
            }
            if !self.session.has_output() {
                self.note_written(desk, now);
                return Ok(None);
            }
        }
        // There is more: others first.
        Ok(Some(now.instant))
    }

    /// Begins with what the handshake left to be said, and what the session says first along with it.
    pub(super) fn greet(&mut self, greeting: &[u8], desk: &mut Desk, now: Now) -> Result<(), End> {
        desk.gather.begin(self.style);
        desk.gather.put(|out| out.extend_from_slice(greeting));
        self.send(desk, now).map(|_| ())
    }

    /// Sends what has been gathered and what the session has. Gives whether the socket took all of it, and there was something.
    fn send(&mut self, desk: &mut Desk, now: Now) -> Result<bool, End> {
        self.session.take(WRITE_BYTES, &mut desk.gather, now);
        let bytes = desk.gather.finish();
        if bytes.is_empty() {
            self.arrival = None;
            return Ok(false);
        }
        let written = write_some(&mut self.stream, bytes)?;
        desk.tally.writes += 1;
        desk.tally.written_bytes += written as u64;
        self.written_at = Some(now.instant);
        let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) else { return Ok(true) };
        self.unsent = rest.to_vec();
        self.sent = 0;
        self.set_stuck(Some(now.instant));
        Ok(false)
    }

    /// Writes what the socket did not take before. Gives whether all of it has left.
    pub(super) fn flush(&mut self, desk: &mut Desk, now: Now) -> Result<bool, End> {
        let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) else { return Ok(true) };
        let written = write_some(&mut self.stream, rest)?;
        desk.tally.written_bytes += written as u64;
        self.sent += written;
        if self.sent < self.unsent.len() {
            if written > 0 {
                self.set_stuck(Some(now.instant));
            }
            return Ok(false);
        }
        self.unsent = Vec::new();
        self.sent = 0;
        self.set_stuck(None);
        if !self.session.has_output() {
            self.note_written(desk, now);
        }
        if self.is_leaving() {
            self.leaves_at = Some(now.instant + LINGER);
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(true)
    }

    fn set_stuck(&mut self, since: Option<Instant>) {
        self.stuck_since = since;
        self.session.set_blocked(since.is_some());
    }

    /// Begins the drain: the client is told, and closed when the time is over.
    pub(super) fn drain(&mut self, period: Duration, now: Now) {
        self.drain_ends_at = Some(now.instant + period);
        self.session.drain(period, now);
    }

    /// Says what is still to be said, and the close. The session has nothing to say after that.
    pub(super) fn say_goodbye(&mut self, code: CloseCode, desk: &mut Desk, now: Now) -> Result<(), End> {
        desk.gather.begin(self.style);
        if !matches!(code, CloseCode::Slow | CloseCode::Normal) {
            self.session.take(usize::MAX, &mut desk.gather, now);
        }
        desk.gather.finish();
        desk.gather.put(|out| put_close(out, code.number(), code.reason()));
        self.unsent.drain(..self.sent);
        self.sent = 0;
        self.unsent.extend_from_slice(desk.gather.finish());
        self.leaves_at = Some(now.instant + FLUSH_WITHIN);
        self.flush(desk, now).map(|_| ())
    }

    /// Does what is due, and judges the socket by the clock.
    pub(super) fn on_time(&mut self, desk: &mut Desk, now: Now) -> Result<(), End> {
        if let Some(at) = self.leaves_at {
            return if now.instant >= at { Err(End::Gone) } else { Ok(()) };
        }
        self.session.on_tick(now, || desk.heartbeat(now));
        if self.stuck_since.is_some_and(|since| now.instant >= since + STUCK_AFTER) {
            return Err(End::Close(CloseCode::Slow));
        }
        if self.drain_ends_at.is_some_and(|at| now.instant >= at) {
            return Err(End::Close(CloseCode::GoingAway));
        }
        if !self.session.wants_input() {
            self.liveness.excuse(now.instant);
        }
        match self.liveness.judge(now.instant, self.session.has_output()) {
            Verdict::Fine => {}
            Verdict::Silent => return Err(End::Close(CloseCode::Silent)),
            Verdict::Ping => self.wants_ping = true,
        }
        Ok(())
    }

    /// The next moment at which something is due.
    pub(super) fn wake_at(&self, now: Now) -> Instant {
        if let Some(at) = self.leaves_at {
            return at;
        }
        let stuck = self.stuck_since.map(|since| since + STUCK_AFTER);
        [stuck, self.drain_ends_at, Some(self.liveness.next_at())]
            .into_iter()
            .flatten()
            .fold(self.session.deadline(now), Instant::min)
    }
}

/// Writes as much as the socket takes now.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
