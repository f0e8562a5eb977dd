//! The live feed over SoupBinTCP: comes back where it was, and hands on packets as MoldUDP64 would.

use std::time::Duration;

use akis_service::backoff::Backoff;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::config::Config;
use super::link::{Link, LinkError};
use super::mold::{self, Builder, SessionId};
use super::session::{Wanted, forget, want};
use super::soup::{Event, LoginRequest, Refusal};
use crate::frame::Content;
use crate::outlet::{Outlet, Stopped};

/// The most bytes in a packet that is handed on, so that one TCP read is about one frame.
const MOST_BYTES: usize = 32 << 10;

/// Data must have flowed for so long before the failures are forgotten.
const HEALTHY: Duration = Duration::from_secs(5);

/// The close code of a connection that ended without one.
const ABNORMAL: u16 = 1006;

/// The session names the running one when it is blank.
const RUNNING: SessionId = SessionId([b' '; 10]);

/// Where the feed is.
#[derive(Debug)]
pub(super) struct Stream {
    address: String,
    user: String,
    password: String,
    position: Position,
    backoff: Backoff,
}

/// What has been handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    /// Blank before the first login.
    session: SessionId,
    /// The next number.
    next: u64,
    /// The first message that was handed on of the session, and its number. A session that begins anew under its name has
    /// another one: the exchange begins with the second of the day.
    first: Option<(u64, Vec<u8>)>,
    ask: Ask,
    /// The session has begun anew under the name that it had.
    is_again: bool,
}

/// What a login asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// This session, from where it was.
    Same,
    /// The same, of a server that does not have as many messages yet, as it has said: it was looked at, and is of this session.
    Behind,
    /// Whichever runs, from the same number: it may still be this one, and then nothing comes twice.
    Running,
    /// Whichever runs, from its first message: it may not have as many yet. What is known already is passed over.
    First,
    /// This session, from the first message that was handed on: whether it still is that one.
    Look,
}

/// What follows from a login that was accepted, or from what came first behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It goes on here; what is known already is passed over.
    GoOn,
    /// The first message tells whether it is the session of before.
    Look,
    /// Something else has to be asked for.
    AskAgain,
}

/// Why a connection is no longer read.
#[derive(Debug)]
enum End {
    Stopped,
    /// The session is another one than it was asked for, so its first message has to be asked for.
    Elsewhere,
    Over,
    Failed(LinkError),
}

impl<E: Into<LinkError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Position {
    const START: Self = Self { session: RUNNING, next: 1, first: None, ask: Ask::Same, is_again: false };

    /// Takes a login that was accepted.
    fn accept(&mut self, session: SessionId, next: u64) -> Then {
        let ask = std::mem::replace(&mut self.ask, Ask::Same);
        if self.session != session {
            let goes_on = self.session == RUNNING || next == 1;
            *self = Self { session, ..Self::START };
            return if goes_on { Then::GoOn } else { Then::AskAgain };
        }
        if next >= self.next || ask == Ask::Behind {
            return Then::GoOn;
        }
        // Either the server is behind, as one that takes over may be, or the session has begun anew under its name.
        if matches!(ask, Ask::First | Ask::Look) {
            self.ask = ask;
            return Then::Look;
        }
        self.ask = Ask::Look;
        Then::AskAgain
    }

    /// Takes the first message behind a login by which the session is looked at.
    fn look(&mut self, number: u64, message: &[u8]) -> Then {
        let is_same = self.first.as_ref().is_some_and(|(first, bytes)| (*first, &bytes[..]) == (number, message));
        if !is_same {
            *self = Self { session: self.session, is_again: !self.is_again, ..Self::START };
            return Then::AskAgain;
        }
        if std::mem::replace(&mut self.ask, Ask::Same) == Ask::First {
            return Then::GoOn;
        }
        self.ask = Ask::Behind;
        Then::AskAgain
    }

    /// What was seen of the session by a look is too old.
    fn forget_look(&mut self) {
        if self.ask == Ask::Behind {
            self.ask = Ask::Same;
        }
    }

    /// Whether the next message is looked at.
    fn looks(&self) -> bool {
        matches!(self.ask, Ask::First | Ask::Look)
    }

    /// Takes note of a message that is handed on.
    fn pass(&mut self, number: u64, message: &[u8]) {
        self.next = number.saturating_add(1);
        self.first.get_or_insert_with(|| (number, message.to_vec()));
    }

    /// The session as packets name it: one that begins anew under the name that it had is another one, and its name ends with
    /// what no name of the exchange has.
    fn name(&self) -> SessionId {
        let mut name = self.session;
        if self.is_again {
            name.0[9] = b'~';
        }
        name
    }

    fn wish(&self) -> (SessionId, u64) {
        match self.ask {
            Ask::Same | Ask::Behind => (self.session, self.next),
            Ask::Running => (RUNNING, self.next),
            Ask::First => (RUNNING, 1),
            Ask::Look => (self.session, self.first.as_ref().map_or(1, |(first, _)| *first)),
        }
    }

    /// There is no such session. Returns whether it is worth asking for something else at once.
    fn refused(&mut self) -> bool {
        let (ask, at_once) = match self.ask {
            Ask::Same | Ask::Behind => (Ask::Running, self.session != RUNNING),
            Ask::Running => (Ask::First, false),
            Ask::First | Ask::Look => (Ask::Running, false),
        };
        self.ask = ask;
        at_once
    }
}

impl Stream {
    pub(super) fn new(address: String, config: &Config) -> Self {
        let (user, password) = (config.user.clone(), config.password.clone());
        Self { address, user, password, position: Position::START, backoff: config.backoff.clone() }
    }

    /// Hands on the feed until `cancel`.
    pub(super) async fn keep(mut self, outlet: &Outlet, wanted: &Wanted, cancel: &CancellationToken) {
        while !cancel.is_cancelled() {
            let began = Instant::now();
            let connection = outlet.next_connection();
            let end = match outlet.unless_stopped(self.listen(connection, outlet, wanted)).await {
                Ok(end) => end,
                Err(Stopped) => End::Stopped,
            };
            if began.elapsed() >= HEALTHY {
                self.backoff.reset();
            }
            let first = self.backoff.is_fresh();
            let reason = match end {
                End::Stopped => return,
                End::Elsewhere => continue,
                End::Over => "the session is over".to_owned(),
                End::Failed(LinkError::Refused(Refusal::NoSession)) if self.position.refused() => {
                    info!(venue = "bist", session = %self.position.session, "the session is gone, asking for another");
                    continue;
                }
                End::Failed(error) => error.to_string(),
            };
            // By the next login it may have begun anew.
            self.position.forget_look();
            let wait = self.backoff.next_wait();
            let retry_in_ms = wait.as_millis();
            if first {
                warn!(venue = "bist", reason, retry_in_ms, "connection lost, trying again");
            } else {
                debug!(venue = "bist", reason, retry_in_ms, "connection failed again");
            }
            if outlet.unless_stopped(sleep(wait)).await.is_err() {
                return;
            }
        }
    }

    /// One connection.
    async fn listen(&mut self, connection: u32, outlet: &Outlet, wanted: &Wanted) -> End {
        let (session, next) = self.position.wish();
        let login = LoginRequest { user: self.user.clone(), password: self.password.clone(), session, next };
        let mut link = match Link::open(&self.address, &login).await {
            Ok(link) => link,
            Err(error) => return error.into(),
        };
        let mut opened = false;
        let end = loop {
            match self.read(&mut link, connection, &mut opened, outlet, wanted).await {
                Ok(()) => link.listened(),
                Err(end) => break end,
            }
        };
        if opened {
            outlet.stats().open.less(1);
            if !matches!(end, End::Stopped | End::Over) {
                outlet.stats().lost.add(1);
            }
            // When nobody takes frames any more, nobody needs this one.
            let _ = outlet.send(Content::Closed { connection, code: ABNORMAL }).await;
        }
        if matches!(end, End::Elsewhere | End::Stopped) {
            link.log_out().await;
        }
        end
    }

    /// One read, and everything in it.
    async fn read(
        &mut self,
        link: &mut Link,
        connection: u32,
        opened: &mut bool,
        outlet: &Outlet,
        wanted: &Wanted,
    ) -> Result<(), End> {
        link.read().await?;
        let mut packets = Packets::default();
        let gathered = self.gather(link, connection, opened, outlet, wanted, &mut packets);
        // Also what came before something that ends the connection: it is not asked for again.
        for bytes in packets.finish() {
            outlet.send(Content::Binary { connection, bytes }).await.map_err(|Stopped| End::Stopped)?;
        }
        gathered
    }

    /// Takes what was read.
    fn gather(
        &mut self,
        link: &mut Link,
        connection: u32,
        opened: &mut bool,
        outlet: &Outlet,
        wanted: &Wanted,
        packets: &mut Packets,
    ) -> Result<(), End> {
        while let Some(event) = link.event()? {
            match event {
                Event::Accepted { session, next } => {
                    let before = self.position.name();
                    let then = self.position.accept(session, next);
                    self.note_session(before, wanted);
                    match then {
                        Then::AskAgain => return Err(End::Elsewhere),
                        Then::Look => debug!(venue = "bist", %session, next, "the session is looked at"),
                        Then::GoOn => {
                            self.go_on(connection, next, outlet, wanted);
                            *opened = true;
                        }
                    }
                }
                Event::Message(number, message) if self.position.looks() => {
                    let before = self.position.name();
                    let then = self.position.look(number, &message);
                    self.note_session(before, wanted);
                    if then != Then::GoOn {
                        return Err(End::Elsewhere);
                    }
                    self.go_on(connection, number, outlet, wanted);
                    *opened = true;
                }
                // What the server sends again is passed over.
                Event::Message(number, _) if number < self.position.next => {}
                Event::Message(number, message) => {
                    packets.push(self.position.name(), number, &message);
                    self.position.pass(number, &message);
                }
                // A server that is behind says nothing of what comes next.
                Event::Heartbeat(next) if next < self.position.next => {}
                Event::Heartbeat(next) => packets.put(mold::heartbeat(self.position.name(), next).to_vec()),
                Event::End(next) => {
                    if next >= self.position.next {
                        packets.put(mold::end_of_session(self.position.name(), next).to_vec());
                    }
                    self.position.ask = Ask::Running;
                    return Err(End::Over);
                }
                Event::Refused(refusal) => return Err(LinkError::Refused(refusal).into()),
            }
        }
        Ok(())
    }

    /// What was wanted of another session is wanted no more.
    fn note_session(&self, before: SessionId, wanted: &Wanted) {
        if before != RUNNING && before != self.position.name() {
            forget(wanted);
        }
    }

    /// The connection goes on with the message of this number.
    fn go_on(&self, connection: u32, next: u64, outlet: &Outlet, wanted: &Wanted) {
        let Position { session, next: known, .. } = self.position;
        if next > known {
            warn!(venue = "bist", messages = next - known, "messages are lost");
            want(wanted, next);
        } else if next < known {
            warn!(venue = "bist", messages = known - next, "messages that are known come again and are passed over");
        }
        info!(venue = "bist", connection, %session, next, "logged in");
        outlet.stats().open.add(1);
        outlet.stats().opened.add(1);
    }
}

/// Gathers messages into packets.
#[derive(Debug, Default)]
struct Packets {
    done: Vec<Vec<u8>>,
    filling: Option<Builder>,
}

impl Packets {
    fn push(&mut self, session: SessionId, number: u64, message: &[u8]) {
        if self.filling.as_mut().is_some_and(|packet| packet.push(message)) {
            return;
        }
        let mut packet = Builder::new(session, number, MOST_BYTES);
        // The first one always fits: SoupBinTCP knows no longer messages than MoldUDP64 does.
        packet.push(message);
        self.done.extend(self.filling.replace(packet).map(Builder::finish));
    }

    /// A packet that is whole already.
    fn put(&mut self, packet: Vec<u8>) {
        self.done.extend(self.filling.take().map(Builder::finish));
        self.done.push(packet);
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        self.done.extend(self.filling.take().map(Builder::finish));
        self.done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::bist::soup::{self, accepted};
    use crate::registry::{Own, Settings};

    /// A position behind these messages of one byte each, the first of which is `first`.
    fn behind(session: SessionId, first: u8, next: u64) -> Position {
        Position { session, next, first: Some((1, vec![first])), ..Position::START }
    }

    #[test]
    fn a_login_goes_on_where_it_was_and_a_new_day_begins_at_its_first_message() {
        let (today, tomorrow) = (SessionId::new("TODAY"), SessionId::new("TOMORROW"));
        let mut position = Position::START;
        assert_eq!(position.wish(), (RUNNING, 1));
        assert_eq!(position.accept(today, 1), Then::GoOn);
        position.pass(6, b"a");
        assert_eq!(position.wish(), (today, 7));
        assert_eq!(position.accept(today, 7), Then::GoOn);
        position.ask = Ask::Running;
        assert_eq!(position.wish(), (RUNNING, 7));
        assert_eq!(
            position.accept(tomorrow, 7),
            Then::AskAgain,
            "the seventh message of another day is not the next one"
        );
        assert_eq!(position, Position { session: tomorrow, ..Position::START });
        assert_eq!(position.wish(), (tomorrow, 1));
    }

    #[test]
    fn a_session_that_is_gone_is_not_asked_for_again() {
        let today = SessionId::new("TODAY");
        let mut position = behind(today, b'a', 7);
        assert!(position.refused());
        assert_eq!(position.wish(), (RUNNING, 7));
        assert!(!position.refused(), "a pause before the next try");
        assert_eq!(position.wish(), (RUNNING, 1));
        assert_eq!(position.accept(today, 1), Then::Look);
        assert_eq!(position.look(1, b"a"), Then::GoOn, "it is the session of before");
        assert_eq!((position.next, position.looks()), (7, false), "what comes again is passed over");
    }

    #[test]
    fn a_session_that_is_gone_and_comes_anew_under_its_name_is_another_one() {
        let today = SessionId::new("TODAY");
        let mut position = behind(today, b'a', 50_000);
        assert!(position.refused());
        assert!(!position.refused());
        assert_eq!(position.accept(today, 1), Then::Look);
        assert_eq!(position.look(1, b"b"), Then::AskAgain);
        assert_eq!((position.wish(), position.name()), ((today, 1), SessionId::new("TODAY    ~")));
    }

    #[test]
    fn a_session_that_begins_anew_under_its_name_is_another_one() {
        let today = SessionId::new("TR29620650");
        let mut position = behind(today, b'a', 50_000);
        for (name, first) in [("TR2962065~", b"b"), ("TR29620650", b"c")] {
            assert_eq!(position.accept(today, 100), Then::AskAgain, "it has 99 messages: of which session?");
            assert_eq!(position.wish(), (today, 1));
            assert_eq!(position.accept(today, 1), Then::Look);
            assert_eq!(position.look(1, first), Then::AskAgain);
            assert_eq!((position.wish(), position.name()), ((today, 1), SessionId::new(name)));
            assert_eq!(position.accept(today, 1), Then::GoOn);
            position.pass(1, first);
            position.next = 200;
        }
        assert_eq!(position.accept(today, 300), Then::GoOn, "what is missing is a hole, and no beginning");
        assert_eq!((position.next, position.name()), (200, today));
    }

    #[test]
    fn a_server_that_is_behind_tells_nothing_twice() {
        let today = SessionId::new("TODAY");
        let mut position = behind(today, b'a', 5_000_000);
        assert_eq!(position.accept(today, 4_999_990), Then::AskAgain);
        assert_eq!(position.accept(today, 1), Then::Look);
        assert_eq!(position.look(1, b"a"), Then::AskAgain, "and not the whole day once more");
        assert_eq!(position.wish(), (today, 5_000_000));
        assert_eq!(position.accept(today, 4_999_990), Then::GoOn);
        assert_eq!((position.next, position.name()), (5_000_000, today));
        assert_eq!(position.accept(today, 4_999_990), Then::AskAgain, "by the next login it may have begun anew");
    }

    #[test]
    fn a_session_whose_first_message_is_gone_is_another_one() {
        let today = SessionId::new("TODAY");
        let mut position = behind(today, b'a', 50_000);
        position.accept(today, 300);
        assert_eq!(position.accept(today, 200), Then::Look);
        assert_eq!(position.look(200, b"a"), Then::AskAgain);
        assert_eq!((position.next, position.is_again), (1, true), "told as lost, and not lost in silence");
    }

    #[test]
    fn messages_are_gathered_in_order() {
        let session = SessionId::new("S");
        let mut packets = Packets::default();
        packets.push(session, 5, b"a");
        packets.push(session, 6, b"b");
        packets.put(mold::heartbeat(session, 7).to_vec());
        packets.push(session, 7, b"c");
        let sequences: Vec<(u64, u16)> = packets
            .finish()
            .iter()
            .map(|bytes| mold::Packet::parse(bytes).unwrap())
            .map(|packet| (packet.sequence, packet.count()))
            .collect();
        assert_eq!(sequences, [(5, 2), (7, 0), (7, 1)]);
    }

    /// A server, and the feed that asks it.
    async fn served() -> (TcpListener, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let own = [("transport", "soupbintcp".to_owned()), ("soup", address.clone())];
        let own = Own(own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        let config = Config::read(&Settings { own, ..Settings::default() }).unwrap();
        (listener, Stream::new(address, &config))
    }

    #[tokio::test]
    async fn what_came_before_something_malformed_is_handed_on() {
        let (listener, stream) = served().await;
        let (frames, mut handed_on) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        let outlet = Outlet::new(frames, Arc::default(), cancel.clone());
        let wanted = Wanted::default();
        let session = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            // A login is accepted once.
            let accepted = accepted(SessionId::new("DAY1"), 1);
            let bytes = [&accepted[..], &soup::packet(b'S', b"one"), &accepted].concat();
            socket.write_all(&bytes).await.unwrap();
            let Content::Binary { bytes, .. } = handed_on.recv().await.unwrap().content else { panic!("a packet") };
            let packet = mold::Packet::parse(&bytes).unwrap();
            assert_eq!((packet.sequence, packet.messages().collect::<Vec<_>>()), (1, vec![&b"one"[..]]));
        };
        tokio::select! {
            () = stream.keep(&outlet, &wanted, &cancel) => panic!("it never ends"),
            done = timeout(Duration::from_secs(20), session) => done.unwrap(),
        }
    }

    #[tokio::test]
    async fn what_was_lost_of_another_session_is_not_wanted_of_this_one() {
        let (listener, stream) = served().await;
        let (frames, _frames) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        let outlet = Outlet::new(frames, Arc::default(), cancel.clone());
        let wanted = Wanted::default();
        let session = async {
            for (session, next) in [("DAY1", 500), ("DAY2", 1)] {
                let (mut socket, _) = listener.accept().await.unwrap();
                socket.write_all(&accepted(SessionId::new(session), next)).await.unwrap();
                let due = if next > 1 { next } else { 0 };
                wanted.subscribe().wait_for(|wish| wish.from == due).await.unwrap();
            }
        };
        tokio::select! {
            () = stream.keep(&outlet, &wanted, &cancel) => panic!("it never ends"),
            done = timeout(Duration::from_secs(20), session) => done.unwrap(),
        }
    }
}
