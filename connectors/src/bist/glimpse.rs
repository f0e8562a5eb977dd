//! Snapshots from GLIMPSE: taken whenever the feed has lost something, handed on as they are read.

use std::time::Duration;

use akis_service::backoff::Backoff;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::config::Config;
use super::link::{Link, LinkError};
use super::mold::SessionId;
use super::session::Wanted;
use super::soup::{Event, LoginRequest};
use crate::frame::Content;
use crate::outlet::{Outlet, Stopped};

/// A snapshot that takes longer is given up.
const WITHIN: Duration = Duration::from_secs(120);

/// How long after a snapshot the next one may be asked for.
const SPACING: Duration = Duration::from_secs(5);

/// The close code of a snapshot that is whole.
const NORMAL: u16 = 1000;

/// The close code of a snapshot that died.
const ABNORMAL: u16 = 1006;

/// Where snapshots come from.
#[derive(Debug)]
pub(super) struct Glimpse {
    address: String,
    login: LoginRequest,
    backoff: Backoff,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("stopped")]
    Stopped,
    #[error("not whole within {WITHIN:?}")]
    Timeout,
    #[error("it ends without its last message")]
    Cut,
    #[error("it is of message {0}, before the loss")]
    Early(u64),
    #[error("its session is over")]
    OtherSession,
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl Glimpse {
    pub(super) fn new(address: String, config: &Config) -> Self {
        let (user, password) = (config.user.clone(), config.password.clone());
        // A snapshot is a session of its own and always asked for from its first message.
        let login = LoginRequest { user, password, session: SessionId::new(""), next: 1 };
        Self { address, login, backoff: config.backoff.clone() }
    }

    /// Takes a snapshot whenever one is wanted, until `cancel`.
    pub(super) async fn keep(mut self, outlet: &Outlet, wanted: &Wanted, cancel: &CancellationToken) {
        let mut wishes = wanted.subscribe();
        while !cancel.is_cancelled() {
            let Ok(Ok(wish)) =
                outlet.unless_stopped(wishes.wait_for(|wish| wish.from > 0)).await.map(|met| met.map(|wish| *wish))
            else {
                return;
            };
            let is_over = || wanted.borrow().session != wish.session;
            let taken = match outlet.unless_stopped(self.take(outlet, &is_over)).await {
                Ok(Ok(_)) if is_over() => Err(Failure::OtherSession),
                Ok(Ok(next)) if next < wanted.borrow().from => Err(Failure::Early(next)),
                Ok(taken) => taken,
                Err(Stopped) => Err(Failure::Stopped),
            };
            let wait = match taken {
                Err(Failure::Stopped) => return,
                Ok(next) => {
                    info!(venue = "bist", next, "snapshot taken");
                    self.backoff.reset();
                    // What was lost meanwhile, behind this snapshot, needs another one.
                    wanted.send_if_modified(|now| {
                        let met = now.session == wish.session && now.from <= next;
                        now.from = if met { 0 } else { now.from };
                        met
                    });
                    SPACING
                }
                Err(failure) => {
                    outlet.stats().refused.add(1);
                    let (first, wait) = (self.backoff.is_fresh(), self.backoff.next_wait());
                    if first {
                        warn!(venue = "bist", %failure, retry_in_ms = wait.as_millis(), "no snapshot, trying again");
                    } else {
                        debug!(venue = "bist", %failure, retry_in_ms = wait.as_millis(), "no snapshot again");
                    }
                    wait
                }
            };
            if outlet.unless_stopped(sleep(wait)).await.is_err() {
                return;
            }
        }
    }

    /// Takes one, unless its session ends meanwhile, and gives the number that the live feed goes on with.
    async fn take(&self, outlet: &Outlet, is_over: &impl Fn() -> bool) -> Result<u64, Failure> {
        outlet.stats().requests.add(1);
        let mut link = Link::open(&self.address, &self.login).await?;
        let connection = outlet.next_connection();
        let mut accepted = false;
        let taken = match timeout(WITHIN, Self::read(&mut link, connection, &mut accepted, outlet, is_over)).await {
            Ok(taken) => taken,
            Err(_) => Err(Failure::Timeout),
        };
        if accepted {
            let code = if taken.is_ok() { NORMAL } else { ABNORMAL };
            outlet.send(Content::Closed { connection, code }).await.map_err(|Stopped| Failure::Stopped)?;
        }
        link.log_out().await;
        taken
    }

    /// Hands on everything from the accepted login on, until the message that ends the snapshot.
    async fn read(
        link: &mut Link,
        connection: u32,
        accepted: &mut bool,
        outlet: &Outlet,
        is_over: &impl Fn() -> bool,
    ) -> Result<u64, Failure> {
        let mut held = Vec::new();
        loop {
            held.extend_from_slice(link.read().await?);
            if is_over() {
                return Err(Failure::OtherSession);
            }
            let mut end = None;
            while let Some(event) = link.event()? {
                match event {
                    Event::Accepted { .. } => *accepted = true,
                    Event::Message(_, message) => end = end.or(next_live(&message)),
                    Event::End(_) if end.is_none() => return Err(Failure::Cut),
                    Event::End(_) | Event::Heartbeat(_) | Event::Refused(_) => {}
                }
            }
            // A refusal is an error before this; what is said before the login is accepted is handed on with it.
            if *accepted {
                let bytes = std::mem::take(&mut held);
                outlet.send(Content::Binary { connection, bytes }).await.map_err(|Stopped| Failure::Stopped)?;
                link.listened();
            }
            if let Some(next) = end {
                return Ok(next);
            }
        }
    }
}

/// The number in `G`, the last message of a snapshot: 20 digits, filled up with spaces. Source: GLIMPSE 2.7.
fn next_live(message: &[u8]) -> Option<u64> {
    let (b'G', number) = message.split_first().map(|(kind, rest)| (*kind, rest))? else { return None };
    std::str::from_utf8(number).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::super::session::{Wish, forget, want};
    use super::super::soup::{accepted, packet};
    use super::*;
    use crate::registry::{Own, Settings};

    /// The next client is let in.
    async fn let_in(listener: &TcpListener) -> TcpStream {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(&accepted(SessionId::new("DAY"), 1)).await.unwrap();
        socket
    }

    #[tokio::test]
    async fn a_snapshot_of_a_session_that_ends_meanwhile_is_taken_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = [("transport", "soupbintcp"), ("soup", "127.0.0.1:1")];
        let own = Own(own.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let config = Config::read(&Settings { own, ..Settings::default() }).unwrap();
        let glimpse = Glimpse::new(listener.local_addr().unwrap().to_string(), &config);
        let (frames, mut handed_on) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        let outlet = Outlet::new(frames, Arc::default(), cancel.clone());
        let wanted = Wanted::default();
        want(&wanted, 20);
        let venue = async {
            let mut old = let_in(&listener).await;
            assert!(matches!(handed_on.recv().await.unwrap().content, Content::Binary { .. }));
            forget(&wanted);
            want(&wanted, 5);
            old.write_all(&packet(b'S', b"G                  27")).await.unwrap();
            let content = handed_on.recv().await.unwrap().content;
            assert!(matches!(content, Content::Closed { code: ABNORMAL, .. }), "{content:?}");
            let mut new = let_in(&listener).await;
            new.write_all(&packet(b'S', b"G                   6")).await.unwrap();
            let mut wishes = wanted.subscribe();
            assert_eq!(*wishes.wait_for(|wish| wish.from == 0).await.unwrap(), Wish { session: 1, from: 0 });
        };
        tokio::select! {
            () = glimpse.keep(&outlet, &wanted, &cancel) => panic!("it never ends"),
            done = timeout(Duration::from_secs(20), venue) => done.unwrap(),
        }
    }

    #[test]
    fn the_end_of_a_snapshot_names_the_next_message() {
        assert_eq!(next_live(b"G                  27"), Some(27));
        assert_eq!(next_live(b"G27                  "), Some(27));
        for other in [&b"G"[..], b"", b"A27", b"Gx"] {
            assert_eq!(next_live(other), None);
        }
    }
}
