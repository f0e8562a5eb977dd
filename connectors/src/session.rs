//! Keeps one connection to a venue open: comes back with growing waits, and changes over without a hole.

use std::sync::Arc;
use std::time::Duration;

use akis_service::backoff::Backoff;
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::connection::{End, Life, News, drive};
use crate::dialog::Dialog;
use crate::outlet::Outlet;

/// Data must have flowed for so long before the failures are forgotten. A venue that accepts, speaks and
/// closes at once would otherwise be called several times a second, and Binance bans addresses for that.
const HEALTHY: Duration = Duration::from_secs(5);

/// A connection tells at most two things, and there are at most two connections.
const NEWS: usize = 4;

/// How many things may wait to be said on a connection; more are dropped, and whoever wants them asks again.
const SAID: usize = 64;

/// Speaks the dialog until `cancel`. When it becomes another one, a connection that speaks that one takes the place of
/// those that are open, as it does when a connection's lifetime ends: without a hole. What comes over `said` is said on every connection that is open then, each of it as
/// a whole or not at all; a connection that begins later begins with the dialog instead.
pub(crate) async fn keep(
    mut dialog: watch::Receiver<Arc<Dialog>>,
    outlet: Arc<Outlet>,
    mut said: mpsc::Receiver<Vec<String>>,
    cancel: CancellationToken,
) {
    let (news, mut heard) = mpsc::channel(NEWS);
    let first = Arc::clone(&dialog.borrow_and_update());
    let mut session = Session {
        backoff: first.backoff.clone(),
        dialog: first,
        outlet,
        news,
        cancel: cancel.clone(),
        tasks: JoinSet::new(),
        open: Vec::new(),
        connect_at: Instant::now(),
    };
    while !cancel.is_cancelled() {
        tokio::select! {
            () = cancel.cancelled() => break,
            () = sleep_until(session.connect_at), if session.wants_another() => session.connect(),
            Ok(()) = dialog.changed() => session.change_to(Arc::clone(&dialog.borrow_and_update())),
            Some(messages) = said.recv() => session.say(&messages),
            Some(news) = heard.recv() => session.on_news(&news),
            Some(ended) = session.tasks.join_next_with_id() => match ended {
                Ok((id, life)) => session.on_end(id, Some(life)),
                Err(error) => session.on_end(error.id(), None),
            },
        }
    }
    while session.tasks.join_next().await.is_some() {}
}

struct Session {
    dialog: Arc<Dialog>,
    outlet: Arc<Outlet>,
    news: mpsc::Sender<News>,
    cancel: CancellationToken,
    tasks: JoinSet<Life>,
    /// The oldest first; never more than two.
    open: Vec<Open>,
    backoff: Backoff,
    connect_at: Instant,
}

struct Open {
    task: task::Id,
    number: u32,
    say: mpsc::Sender<Vec<String>>,
    stop: CancellationToken,
    leaving: bool,
}

impl Session {
    fn wants_another(&self) -> bool {
        match self.open.as_slice() {
            [] => true,
            [only] => only.leaving,
            _ => false,
        }
    }

    fn connect(&mut self) {
        if let Err(free_at) = self.dialog.attempts.take(Instant::now()) {
            debug!(venue = self.dialog.venue, "connected to so often that another try has to wait");
            self.connect_at = free_at;
            return;
        }
        let number = self.outlet.next_connection();
        let stop = self.cancel.child_token();
        let (dialog, outlet, news) = (Arc::clone(&self.dialog), Arc::clone(&self.outlet), self.news.clone());
        let stopped = stop.clone();
        let (say, mut said) = mpsc::channel(SAID);
        let task = self.tasks.spawn(async move { drive(&dialog, number, &outlet, &news, &mut said, &stopped).await });
        self.open.push(Open { task: task.id(), number, say, stop, leaving: false });
    }

    fn change_to(&mut self, dialog: Arc<Dialog>) {
        self.dialog = dialog;
        self.open.iter_mut().for_each(|open| open.leaving = true);
    }

    fn say(&self, messages: &[String]) {
        for open in &self.open {
            // Full, or just ending: either way it is asked for again, or the next connection begins with it.
            let _ = open.say.try_send(messages.to_vec());
        }
    }

    fn on_news(&mut self, news: &News) {
        match *news {
            // Both carry everything now, so nothing is lost between them.
            News::Ready(number) => {
                self.open.iter().filter(|open| open.number < number).for_each(|old| old.stop.cancel())
            }
            News::Leaving(number) => {
                self.open.iter_mut().filter(|open| open.number == number).for_each(|open| open.leaving = true);
            }
        }
    }

    fn on_end(&mut self, task: task::Id, life: Option<Life>) {
        let others = self.open.len() > 1;
        let planned =
            self.open.iter().any(|open| open.task == task && (open.stop.is_cancelled() || (open.leaving && others)));
        self.open.retain(|open| open.task != task);
        if planned {
            return;
        }
        self.outlet.stats().lost.add(1);
        let (flowed, reason) = match life {
            Some(life) => {
                if let End::Refused { hold, .. } = life.end {
                    self.dialog.attempts.hold(Instant::now(), hold);
                }
                (life.flowed, life.end.to_string())
            }
            None => (None, "the task failed".to_owned()),
        };
        if flowed.is_some_and(|flowed| flowed >= HEALTHY) {
            self.backoff.reset();
        }
        let first = self.backoff.is_fresh();
        let wait = self.backoff.next_wait();
        self.connect_at = Instant::now() + wait;
        let (venue, retry_in_ms) = (self.dialog.venue, wait.as_millis());
        if first {
            warn!(venue, reason, retry_in_ms, "connection lost, trying again");
        } else {
            debug!(venue, reason, retry_in_ms, "connection failed again");
        }
    }
}

#[cfg(test)]
mod tests;
