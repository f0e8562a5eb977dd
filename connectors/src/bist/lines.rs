//! The lines of MoldUDP64 and the rewinder: sockets around the [`Arbiter`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::arbiter::{Arbiter, PassedOver, Step};
use super::config::Lines;
use super::mold::{Request, SessionId};
use super::session::{Wanted, forget, want};
use crate::frame::Content;
use crate::outlet::{Outlet, Stopped};

/// No datagram is longer.
const MOST_BYTES: usize = 1 << 16;

/// What the system keeps for a line while this process is busy: at the opening thousands come in a millisecond.
const SYSTEM_BUFFER: usize = 8 << 20;

/// How many datagrams are read from one line before the others have their turn.
const BATCH: usize = 64;

/// Heartbeats come every second: a line without a datagram for so long is silent.
const SILENCE: Duration = Duration::from_secs(3);

/// The close code of a feed that ended without one.
const ABNORMAL: u16 = 1006;

/// The sockets of a channel.
#[derive(Debug)]
pub(super) struct Sockets {
    a: UdpSocket,
    b: Option<UdpSocket>,
    rewinder: Option<Rewinder>,
}

/// The rewinder and where it is.
#[derive(Debug)]
struct Rewinder {
    socket: UdpSocket,
    /// `host:port`.
    name: String,
    /// Looked up with the first request: that may take longer than the feed can wait every time.
    address: OnceLock<SocketAddr>,
}

impl Rewinder {
    async fn ask(&self, request: Request) -> io::Result<()> {
        let address = match self.address.get() {
            Some(&address) => address,
            None => {
                let found = lookup_host(&self.name).await?.find(SocketAddr::is_ipv4);
                let found = found.ok_or_else(|| io::Error::other("the rewinder has no address of version 4"))?;
                *self.address.get_or_init(|| found)
            }
        };
        self.socket.send_to(&request.encode(), address).await.map(drop)
    }
}

/// Opens the sockets and joins the groups.
pub(super) fn open(at: &Lines) -> io::Result<Sockets> {
    if at.is_multicast() {
        info!(venue = "bist", "joining multicast groups");
    }
    let rewinder = match &at.rewinder {
        Some(name) => {
            let socket = bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), at.interface)?;
            Some(Rewinder { socket, name: name.clone(), address: OnceLock::new() })
        }
        None => None,
    };
    let b = at.b.map(|b| bind(b, at.interface)).transpose()?;
    Ok(Sockets { a: bind(at.a, at.interface)?, b, rewinder })
}

fn bind(address: SocketAddr, interface: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The system gives what it allows, and tells no error when that is less.
    socket.set_recv_buffer_size(SYSTEM_BUFFER)?;
    socket.set_nonblocking(true)?;
    if let IpAddr::V4(group) = address.ip()
        && group.is_multicast()
    {
        // A standby on the same machine listens to the same group.
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(address))?;
        socket.join_multicast_v4(&group, &interface)?;
    } else {
        socket.bind(&SockAddr::from(address))?;
    }
    UdpSocket::from_std(socket.into())
}

/// Which socket has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    A,
    B,
    Rewinder,
}

impl Sockets {
    /// Waits until something comes on a line.
    pub(super) async fn heard(&self) -> io::Result<()> {
        tokio::select! {
            heard = self.a.readable() => heard,
            heard = readable(self.b.as_ref()) => heard,
        }
    }

    /// Hands on the feed until `cancel`.
    pub(super) async fn listen(self, outlet: &Outlet, wanted: &Wanted, cancel: &CancellationToken) {
        let mut feed = Feed::new(self.rewinder.is_some(), outlet, wanted);
        let mut buffer = vec![0; MOST_BYTES];
        loop {
            let read = tokio::select! {
                () = cancel.cancelled() => return,
                _ = self.a.readable() => self.read(From::A, &mut feed, &mut buffer).await,
                _ = readable(self.b.as_ref()) => self.read(From::B, &mut feed, &mut buffer).await,
                _ = readable(self.rewinder.as_ref().map(|rewinder| &rewinder.socket)) => {
                    self.read(From::Rewinder, &mut feed, &mut buffer).await
                }
                () = sleep_until(feed.due()) => {
                    feed.arbiter.on_time(Instant::now().into_std());
                    match self.act(&mut feed).await {
                        Ok(()) => feed.look_for_silence(self.b.is_some()).await,
                        Err(Stopped) => Err(Stopped),
                    }
                }
            };
            if read.is_err() {
                return;
            }
        }
    }

    /// Reads what is there.
    async fn read(&self, from: From, feed: &mut Feed<'_>, buffer: &mut [u8]) -> Result<(), Stopped> {
        let socket = match from {
            From::A => Some(&self.a),
            From::B => self.b.as_ref(),
            From::Rewinder => self.rewinder.as_ref().map(|rewinder| &rewinder.socket),
        };
        let Some(socket) = socket else { return Ok(()) };
        for _ in 0..BATCH {
            match socket.try_recv(buffer) {
                Ok(length) => {
                    feed.take(from, &buffer[..length]);
                    self.act(feed).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The rewinder is not there, or the network had a moment; datagrams have no connection to lose.
                Err(error) => {
                    debug!(venue = "bist", %error, ?from, "a datagram could not be read");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Does what the arbiter says.
    async fn act(&self, feed: &mut Feed<'_>) -> Result<(), Stopped> {
        while let Some(step) = feed.arbiter.step() {
            match step {
                Step::Packet(bytes) => feed.hand_on(bytes).await?,
                Step::Ask(request) => {
                    let Some(rewinder) = &self.rewinder else { continue };
                    feed.outlet.stats().requests.add(1);
                    if let Err(error) = rewinder.ask(request).await {
                        debug!(venue = "bist", %error, "the rewinder could not be asked");
                    }
                }
                Step::Lost(messages) => {
                    warn!(venue = "bist", messages, "messages are lost: no line and no rewinder had them");
                    feed.lost();
                }
            }
        }
        Ok(())
    }
}

async fn readable(socket: Option<&UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

/// When a line was heard.
#[derive(Debug)]
struct Watch {
    name: &'static str,
    heard_at: Instant,
    is_silent: bool,
}

impl Watch {
    fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        if self.is_silent {
            self.is_silent = false;
            info!(venue = "bist", line = self.name, "the line speaks again");
        }
    }

    /// Whether it has just fallen silent.
    fn falls_silent(&mut self, now: Instant) -> bool {
        let falls = !self.is_silent && now >= self.heard_at + SILENCE;
        self.is_silent |= falls;
        falls
    }

    fn due(&self) -> Option<Instant> {
        (!self.is_silent).then(|| self.heard_at + SILENCE)
    }
}

/// The feed and what is known of its lines.
struct Feed<'a> {
    arbiter: Arbiter,
    /// The one that is followed.
    session: Option<SessionId>,
    a: Watch,
    b: Watch,
    /// While the feed speaks.
    connection: Option<u32>,
    /// Whether it was told that another session is on the lines too.
    told_other: bool,
    outlet: &'a Outlet,
    wanted: &'a Wanted,
}

impl<'a> Feed<'a> {
    fn new(has_rewinder: bool, outlet: &'a Outlet, wanted: &'a Wanted) -> Self {
        let now = Instant::now();
        let watch = |name| Watch { name, heard_at: now, is_silent: false };
        Self {
            arbiter: Arbiter::new(has_rewinder),
            session: None,
            a: watch("A"),
            b: watch("B"),
            connection: None,
            told_other: false,
            outlet,
            wanted,
        }
    }

    fn due(&self) -> Instant {
        let never = Instant::now() + SILENCE;
        [self.arbiter.due().map(Instant::from_std), self.a.due(), self.b.due()]
            .into_iter()
            .flatten()
            .fold(never, Instant::min)
    }

    fn take(&mut self, from: From, bytes: &[u8]) {
        let now = Instant::now();
        match self.arbiter.on_datagram(bytes, now.into_std()) {
            Ok(()) => self.note_session(),
            Err(error) => {
                self.outlet.stats().malformed.add(1);
                debug!(venue = "bist", %error, ?from, "a datagram is no packet");
                return;
            }
        }
        let PassedOver { packets, session } = self.arbiter.take_passed_over();
        self.outlet.stats().other_session.add(packets as u64);
        if let Some(session) = session
            && !std::mem::replace(&mut self.told_other, true)
        {
            warn!(venue = "bist", %session, "another session beside the one that is followed is passed over");
        }
        match from {
            From::A => self.a.heard(now),
            From::B => self.b.heard(now),
            From::Rewinder => {}
        }
    }

    fn note_session(&mut self) {
        let session = self.arbiter.session();
        let before = std::mem::replace(&mut self.session, session);
        if before.is_some() && before != session {
            self.told_other = false;
            forget(self.wanted);
        }
    }

    async fn hand_on(&mut self, bytes: Vec<u8>) -> Result<(), Stopped> {
        let connection = match self.connection {
            Some(connection) => connection,
            None => {
                let connection = self.outlet.next_connection();
                info!(venue = "bist", connection, "the feed speaks");
                self.outlet.stats().open.add(1);
                self.outlet.stats().opened.add(1);
                self.connection = Some(connection);
                connection
            }
        };
        self.outlet.send(Content::Binary { connection, bytes }).await
    }

    /// The state is unknown until there is a snapshot from behind the loss.
    fn lost(&self) {
        want(self.wanted, self.arbiter.next_sequence());
    }

    /// A line that fell silent is told; when all of them have, the feed is down.
    async fn look_for_silence(&mut self, has_b: bool) -> Result<(), Stopped> {
        let now = Instant::now();
        if !has_b {
            self.b.is_silent = true;
        }
        for line in [&mut self.a, &mut self.b] {
            if line.falls_silent(now) {
                self.outlet.stats().silent_streams.add(1);
                warn!(venue = "bist", line = line.name, "nothing for {SILENCE:?} on the line");
            }
        }
        if self.a.is_silent
            && self.b.is_silent
            && let Some(connection) = self.connection.take()
        {
            self.outlet.stats().open.less(1);
            self.outlet.stats().lost.add(1);
            self.outlet.send(Content::Closed { connection, code: ABNORMAL }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::bist::mold::{end_of_session, heartbeat};
    use crate::bist::session::Wish;

    #[test]
    fn what_was_lost_of_another_session_is_not_wanted_of_this_one() {
        let (frames, _frames) = mpsc::channel(1);
        let outlet = Outlet::new(frames, Arc::default(), CancellationToken::new());
        let wanted = Wanted::default();
        let mut feed = Feed::new(false, &outlet, &wanted);
        let [first, second] = ["DAY1", "DAY2"].map(SessionId::new);
        feed.take(From::A, &heartbeat(first, 1));
        want(&wanted, 500);
        feed.take(From::A, &heartbeat(first, 2));
        assert_eq!(*wanted.borrow(), Wish { session: 0, from: 500 }, "it is the same session");
        feed.take(From::A, &end_of_session(first, 2));
        feed.take(From::A, &heartbeat(second, 1));
        assert_eq!(*wanted.borrow(), Wish { session: 1, from: 0 });
    }
}
