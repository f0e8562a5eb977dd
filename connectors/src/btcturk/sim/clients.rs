//! Who has joined what, and what is sent to whom.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fault::Once;
use super::frames;
use crate::sim::client::{ClientId, Outgoing, QUEUE_FRAMES};
use crate::sim::pending::Pending;

/// A client as the world sees it.
#[derive(Debug)]
pub(super) struct Client {
    /// What waits to be written.
    pub(super) queue: mpsc::Sender<Outgoing>,
    /// Cancelled when the connection is to be reset.
    pub(super) cut: CancellationToken,
    /// What was joined: channel and event, with the number of the state that was told last, where it has one.
    pub(super) joined: BTreeMap<(String, String), i64>,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) channel: String,
    pub(super) event: String,
    pub(super) join: bool,
}

#[derive(Deserialize)]
struct Asked {
    channel: String,
    event: String,
    join: bool,
}

/// Understands a text frame; everything but a join or a leave is passed over in silence, as the venue does.
pub(super) fn understand(text: &str) -> Option<Join> {
    let (kind, asked): (i64, Asked) = serde_json::from_str(text).ok()?;
    (kind == 151).then_some(Join { channel: asked.channel, event: asked.event, join: asked.join })
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    clients: BTreeMap<ClientId, Client>,
    pub(super) faults: Pending<Once>,
    /// Differences that are sent behind the next one of their pair.
    swapped: BTreeMap<(ClientId, String), Outgoing>,
    /// Where the numbers of a subscription begin.
    rng: Rng,
    /// The moment that is being played.
    pub(super) now: i64,
}

impl Clients {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            clients: BTreeMap::new(),
            faults: Pending::default(),
            swapped: BTreeMap::new(),
            rng: Rng::with_seed(seed),
            now: 0,
        }
    }

    /// Adds a client; the version is the first thing that it hears.
    pub(super) fn add(&mut self, id: ClientId, client: Client) {
        self.clients.insert(id, client);
        self.send(id, "", Outgoing::Text(frames::VERSION.into()));
    }

    /// Forgets a client.
    pub(super) fn leave(&mut self, id: ClientId) {
        self.clients.remove(&id);
        self.swapped.retain(|(client, _), _| *client != id);
    }

    /// Whether anybody has joined anything.
    pub(super) fn has_readers(&self) -> bool {
        self.clients.values().any(|client| !client.joined.is_empty())
    }

    /// Whether a client's queue is more than half full.
    pub(super) fn is_congested(&self) -> bool {
        self.clients.values().any(|client| client.queue.capacity() < QUEUE_FRAMES / 2)
    }

    /// Carries out a join or a leave and answers it; gives back whether the client has newly joined.
    pub(super) fn carry_out(&mut self, id: ClientId, asked: &Join) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        let key = (asked.channel.clone(), asked.event.clone());
        let is_new = asked.join && !client.joined.contains_key(&key);
        if is_new {
            // Every subscription counts from somewhere else.
            client.joined.insert(key, self.rng.i64(10_000..9_000_000));
        } else if !asked.join {
            client.joined.remove(&key);
        }
        let ok = is_new || !asked.join;
        self.send(id, "", Outgoing::Text(frames::answer(ok, asked.join, &asked.channel, &asked.event).into()));
        is_new
    }

    /// The number that a client's subscription was told last.
    pub(super) fn number(&self, id: ClientId, channel: &str, event: &str) -> i64 {
        self.subscription(id, channel, event).copied().unwrap_or_default()
    }

    /// Sets the number of a client's subscription.
    pub(super) fn set_number(&mut self, id: ClientId, channel: &str, event: &str, number: i64) {
        let key = (channel.to_owned(), event.to_owned());
        if let Some(told) = self.clients.get_mut(&id).and_then(|client| client.joined.get_mut(&key)) {
            *told = number;
        }
    }

    fn subscription(&self, id: ClientId, channel: &str, event: &str) -> Option<&i64> {
        self.clients.get(&id)?.joined.get(&(channel.to_owned(), event.to_owned()))
    }

    /// Who has joined this.
    pub(super) fn readers(&self, channel: &str, event: &str) -> Vec<ClientId> {
        let key = (channel.to_owned(), event.to_owned());
        self.clients.iter().filter(|(_, client)| client.joined.contains_key(&key)).map(|(&id, _)| id).collect()
    }

    /// Sends one frame to everybody who has joined this.
    pub(super) fn publish(&mut self, channel: &str, event: &str, symbol: &str, frame: impl FnOnce() -> String) {
        let readers = self.readers(channel, event);
        if readers.is_empty() {
            return;
        }
        let outgoing = Outgoing::Text(frame().into());
        readers.into_iter().for_each(|id| self.send(id, symbol, outgoing.clone()));
    }

    /// Sends a difference of a pair's book to everybody who has joined it, each with its own number, and does to it what
    /// was asked for.
    pub(super) fn publish_difference(&mut self, symbol: &str, frame: impl Fn(i64) -> String) {
        let drop = self.faults.take(Once::DropDiff, symbol);
        let copies = if self.faults.take(Once::DuplicateDiff, symbol) { 2 } else { 1 };
        let wrong = if self.faults.take(Once::WrongSequence, symbol) { 7 } else { 0 };
        let swap = self.faults.take(Once::Reorder, symbol);
        for id in self.readers("obdiff", symbol) {
            let number = self.number(id, "obdiff", symbol) + 1;
            self.set_number(id, "obdiff", symbol, number);
            if drop {
                continue;
            }
            let outgoing = Outgoing::Text(frame(number + wrong).into());
            if swap {
                self.swapped.insert((id, symbol.to_owned()), outgoing);
                continue;
            }
            (0..copies).for_each(|_| self.send(id, symbol, outgoing.clone()));
            if let Some(earlier) = self.swapped.remove(&(id, symbol.to_owned())) {
                self.send(id, symbol, earlier);
            }
        }
    }

    /// Sends something to every client, whatever it has joined.
    pub(super) fn send_all(&mut self, outgoing: &Outgoing) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        ids.into_iter().for_each(|id| self.push(id, outgoing.clone()));
    }

    /// Resets every connection.
    pub(super) fn cut_all(&mut self) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        ids.into_iter().for_each(|id| self.cut(id));
    }

    /// Sends a frame of a pair to a client, unless it is to be lost or held back.
    pub(super) fn send(&mut self, id: ClientId, symbol: &str, outgoing: Outgoing) {
        if !symbol.is_empty() && self.faults.is_silent(symbol, self.now) {
            return;
        }
        if !symbol.is_empty() && self.faults.is_late(symbol, self.now) {
            self.faults.hold(id, symbol, outgoing);
            return;
        }
        self.push(id, outgoing);
    }

    /// Sends what was held back long enough, in order.
    pub(super) fn release(&mut self) {
        for (id, outgoing) in self.faults.release(self.now) {
            self.push(id, outgoing);
        }
    }

    /// Queues something for a client. After an end nothing more is meant for it.
    fn push(&mut self, id: ClientId, outgoing: Outgoing) {
        let Some(client) = self.clients.get(&id) else { return };
        let is_end = !matches!(outgoing, Outgoing::Text(_));
        if client.queue.try_send(outgoing).is_err() {
            self.cut(id);
        } else if is_end {
            self.leave(id);
        }
    }

    fn cut(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get(&id) {
            client.cut.cancel();
        }
        self.leave(id);
    }
}
