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
            let Ok(Ok(_)) = outlet.unless_stopped(wishes.wait_for(|&from| from > 0)).await else { return };
            let taken = match outlet.unless_stopped(self.take(outlet)).await {
                Ok(Ok(next)) if next < *wanted.borrow() => Err(Failure::Early(next)),
                Ok(taken) => taken,
                Err(Stopped) => Err(Failure::Stopped),
            };
            let wait = match taken {
                Err(Failure::Stopped) => return,
                Ok(next) => {
                    info!(venue = "bist", next, "snapshot taken");
                    self.backoff.reset();
                    // What was lost meanwhile, behind this snapshot, needs another one.
                    wanted.send_if_modified(|from| {
                        let met = *from <= next;
                        *from = if met { 0 } else { *from };
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

    /// Takes one, and gives the number that the live feed goes on with.
    async fn take(&self, outlet: &Outlet) -> Result<u64, Failure> {
        outlet.stats().requests.add(1);
        let mut link = Link::open(&self.address, &self.login).await?;
        let connection = outlet.next_connection();
        let mut accepted = false;
        let taken = match timeout(WITHIN, Self::read(&mut link, connection, &mut accepted, outlet)).await {
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
    async fn read(link: &mut Link, connection: u32, accepted: &mut bool, outlet: &Outlet) -> Result<u64, Failure> {
        let mut held = Vec::new();
        loop {
            held.extend_from_slice(link.read().await?);
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
    use super::*;

    #[test]
    fn the_end_of_a_snapshot_names_the_next_message() {
        assert_eq!(next_live(b"G                  27"), Some(27));
        assert_eq!(next_live(b"G27                  "), Some(27));
        for other in [&b"G"[..], b"", b"A27", b"Gx"] {
            assert_eq!(next_live(other), None);
        }
    }
}
