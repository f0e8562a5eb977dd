//! A client of a watch: connects, resumes by itself, and replaces a connection whose replica drains before it ends.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use akis_service::backoff::Backoff;
use anyhow::Error;
use tokio::sync::Semaphore;
use tokio::time::{sleep, sleep_until, timeout};

use super::connection::{Connection, Lost, Url};
use super::follow::{Follow, Moment, Next};
use super::ledger::Ledger;

/// Bounds of the wait before coming back.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What a client needs beside what it knows of its channels.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) urls: Rc<[Url]>,
    pub(crate) token: Rc<str>,
    pub(crate) follow: Follow,
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    /// Handshakes under way of all clients.
    pub(crate) connecting: Rc<Semaphore>,
    /// Attempts to connect so far: each goes to the next URL.
    pub(crate) attempts: usize,
}

/// What a connection waits for beside the next message.
#[derive(Default)]
struct Timers {
    /// When to ask again for channels whose history could not be read.
    ask_at: Option<Instant>,
    /// When to open the connection that takes the place of this one.
    replace_at: Option<Instant>,
}

type Opening = Pin<Box<dyn Future<Output = Result<Connection, Lost>>>>;

impl Client {
    /// Follows its channels until it can never have them, and tells the ledger why.
    pub(crate) async fn run(mut self) {
        let why = self.follow_on().await;
        self.ledger.borrow_mut().set_connected(self.number, false);
        self.ledger.borrow_mut().fail(self.number, &format!("{why:#}"));
    }

    async fn follow_on(&mut self) -> Error {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut next: Option<Connection> = None;
        loop {
            let opened = match next.take() {
                Some(connection) => Ok(connection),
                None => self.open().await,
            };
            let ended = match opened {
                Ok(connection) => self.stay(connection, &mut backoff).await,
                Err(lost) => {
                    self.ledger.borrow_mut().counts().refusals += 1;
                    Err(lost)
                }
            };
            match ended {
                Ok(replacement) => {
                    self.ledger.borrow_mut().counts().replaced += 1;
                    next = Some(replacement);
                }
                Err(Lost::ComeBack(least)) => sleep(least.unwrap_or_default() + backoff.next_wait()).await,
                Err(Lost::ForGood(why)) => return why,
            }
        }
    }

    /// One connection; gives the one that takes its place.
    async fn stay(&mut self, mut connection: Connection, backoff: &mut Backoff) -> Result<Connection, Lost> {
        let requests = self.follow.resume();
        let ended = match connection.send(&requests).await {
            Ok(()) => self.listen(&mut connection, backoff).await,
            Err(lost) => Err(lost),
        };
        match ended {
            Ok(replacement) => {
                // Everything that it was told is counted; what is still under way comes again from the other one.
                connection.close().await;
                Ok(replacement)
            }
            Err(lost) => {
                self.ledger.borrow_mut().counts().cuts += 1;
                self.ledger.borrow_mut().set_connected(self.number, false);
                Err(lost)
            }
        }
    }

    /// Reads until the connection ends, or the one that takes its place is open.
    async fn listen(&mut self, connection: &mut Connection, backoff: &mut Backoff) -> Result<Connection, Lost> {
        let mut timers = Timers::default();
        let mut opening: Option<Opening> = None;
        loop {
            self.take(connection, backoff, &mut timers).await?;
            tokio::select! {
                read = timeout(self.follow.silence(), connection.read()) => match read {
                    Ok(read) => read?,
                    Err(_) => return Err(Lost::ComeBack(None)),
                },
                () = until(timers.ask_at) => {
                    timers.ask_at = None;
                    connection.send(&self.follow.unanswered()).await?;
                }
                () = until(timers.replace_at) => {
                    timers.replace_at = None;
                    opening = Some(Box::pin(self.open()));
                }
                opened = finished(&mut opening) => {
                    opening = None;
                    match opened {
                        Ok(replacement) => return Ok(replacement),
                        Err(Lost::ComeBack(least)) => {
                            self.ledger.borrow_mut().counts().refusals += 1;
                            timers.replace_at = Some(Instant::now() + least.unwrap_or_default() + backoff.next_wait());
                        }
                        Err(lost) => return Err(lost),
                    }
                }
            }
        }
    }

    /// Takes every message that has been read.
    async fn take(
        &mut self,
        connection: &mut Connection,
        backoff: &mut Backoff,
        timers: &mut Timers,
    ) -> Result<(), Lost> {
        let (follow, ledger, number) = (&mut self.follow, &self.ledger, self.number);
        let now = Moment::now();
        let on_text = |text: &[u8]| {
            let mut ledger = ledger.borrow_mut();
            match follow.on_text(text, &mut ledger, now)? {
                Next::Listen => {}
                Next::Subscribed => {
                    backoff.reset();
                    ledger.set_connected(number, true);
                }
                Next::AskAgain => timers.ask_at = timers.ask_at.or_else(|| Some(now.at + backoff.next_wait())),
                Next::ReplaceIn(wait) => timers.replace_at = Some(now.at + wait),
            }
            Ok(())
        };
        connection.take(on_text).await
    }

    /// Opens a connection at the next URL. The future borrows nothing: the present connection is read meanwhile.
    fn open(&mut self) -> impl Future<Output = Result<Connection, Lost>> + use<> {
        let url = self.urls[self.attempts % self.urls.len()].clone();
        self.attempts += 1;
        let (token, connecting) = (Rc::clone(&self.token), Rc::clone(&self.connecting));
        async move {
            // The semaphore is never closed.
            let _place = connecting.acquire().await;
            Connection::open(&url, &token).await
        }
    }
}

/// Waits for a moment that may not have been set, which never comes.
pub(crate) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// Waits for a connection that may not have been asked for, which never opens.
async fn finished(opening: &mut Option<Opening>) -> Result<Connection, Lost> {
    match opening {
        Some(opening) => opening.await,
        None => pending().await,
    }
}
