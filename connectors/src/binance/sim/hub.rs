//! Who listens to what: clients, their streams, and the one frame that all of a stream's clients share.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::control::{self, Message, Refusal, Request};
use super::fault::Once;
use crate::binance::subscribe::is_of_book;
use crate::sim::client::{ClientId, Outgoing, QUEUE_FRAMES};
use crate::sim::pending::Pending;

/// How many streams a connection may have.
const MOST_STREAMS: usize = 1024;

/// What a client's address carries. What is asked for beyond it is acknowledged and never comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Every stream: spot.
    All,
    /// `/public` of futures: books and best prices.
    Book,
    /// `/market` of futures: everything else.
    Tape,
}

impl Route {
    /// How many messages a client may send in a second; pings, pongs and text all count.
    pub(super) fn messages_per_second(self) -> usize {
        match self {
            Self::All => 5,
            Self::Book | Self::Tape => 10,
        }
    }

    /// Futures ping every three minutes where spot pings every 20 s, and wait for ten where spot waits for one.
    pub(super) fn limits(self, spot: Limits) -> Limits {
        match self {
            Self::All => spot,
            Self::Book | Self::Tape => {
                Limits { ping_every: spot.ping_every * 9, pong_within: spot.pong_within * 10, ..spot }
            }
        }
    }

    fn carries(self, stream: &str) -> bool {
        match self {
            Self::All => true,
            Self::Book => is_of_book(stream),
            Self::Tape => !is_of_book(stream),
        }
    }
}

/// A client as the hub sees it.
#[derive(Debug)]
pub(super) struct Client {
    /// Whether frames are wrapped with the stream's name.
    pub(super) combined: bool,
    /// What waits to be written.
    pub(super) queue: mpsc::Sender<Outgoing>,
    /// Cancelled when the connection is to be reset.
    pub(super) cut: CancellationToken,
    /// In the order of subscribing.
    pub(super) streams: Vec<String>,
    pub(super) route: Route,
}

/// A frame of a stream.
pub(super) struct Frame<'a> {
    pub(super) stream: &'a str,
    /// Whose it is, in the venue's spelling: faults name symbols.
    pub(super) symbol: &'a str,
    /// Whether it is a depth diff.
    pub(super) is_diff: bool,
    /// The payload.
    pub(super) data: String,
    /// The payload with the stream's name around it, where it was recorded like that.
    pub(super) wrapped: Option<String>,
}

/// What is kept of a frame that comes behind the next one.
#[derive(Debug)]
struct Turned {
    symbol: String,
    data: String,
    wrapped: Option<String>,
}

/// All clients.
#[derive(Debug, Default)]
pub(super) struct Hub {
    clients: HashMap<ClientId, Client>,
    streams: HashMap<String, Vec<ClientId>>,
    pub(super) faults: Pending<Once>,
    /// Diffs that are sent behind the next one of their stream.
    swapped: HashMap<String, Turned>,
    /// Streams that have stopped.
    stalled: HashSet<String>,
    /// The moment that is being played.
    pub(super) now: i64,
}

impl Hub {
    /// Takes note of the moment, and sends what was held back until now.
    pub(super) fn move_to(&mut self, now: i64) {
        self.now = now;
        self.release();
    }

    /// Adds a client with the streams of its address.
    pub(super) fn join(&mut self, id: ClientId, client: Client, streams: Vec<String>) {
        self.clients.insert(id, client);
        if self.subscribe(id, streams).is_err() {
            self.refuse_streams(id, &Value::Null);
        }
    }

    /// Forgets a client.
    pub(super) fn leave(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        for stream in &client.streams {
            self.remove_from(stream, id);
        }
    }

    /// Whether anybody has subscribed to anything.
    pub(super) fn has_readers(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Whether a frame of this stream would reach anybody.
    pub(super) fn wants(&self, stream: &str) -> bool {
        self.streams.contains_key(stream)
    }

    /// Whether a client's queue is more than half full.
    pub(super) fn is_congested(&self) -> bool {
        self.clients.values().any(|client| client.queue.capacity() < QUEUE_FRAMES / 2)
    }

    /// Answers a text frame of a client.
    pub(super) fn control(&mut self, id: ClientId, text: &str) {
        let reply = match control::parse(text) {
            Ok(Message { id: request_id, request }) => match self.carry_out(id, request) {
                Ok(result) => control::reply(&request_id, &result),
                Err(TooManyStreams) => return self.refuse_streams(id, &request_id),
            },
            Err(refusal) => refusal.reply(),
        };
        self.send(id, Outgoing::Text(reply.into()));
    }

    /// Sends a frame to everyone who wants it, and does to it what was asked for.
    pub(super) fn publish(&mut self, frame: Frame<'_>) {
        let Frame { stream, symbol, is_diff, .. } = frame;
        if !self.wants(stream) || self.stalled.contains(stream) || self.faults.is_silent(symbol, self.now) {
            return;
        }
        if is_diff && self.faults.take(Once::DropDiff, symbol) {
            return;
        }
        if is_diff && self.faults.take(Once::Reorder, symbol) {
            let turned = Turned { symbol: symbol.to_owned(), data: frame.data, wrapped: frame.wrapped };
            self.swapped.insert(stream.to_owned(), turned);
            return;
        }
        let copies = if is_diff && self.faults.take(Once::Duplicate, symbol) { 2 } else { 1 };
        self.deliver(&frame, copies);
        if let Some(Turned { symbol, data, wrapped }) = self.swapped.remove(stream) {
            self.deliver(&Frame { stream, symbol: &symbol, is_diff, data, wrapped }, 1);
        }
    }

    /// Sends so many copies of a frame; it is written down once.
    fn deliver(&mut self, frame: &Frame<'_>, copies: usize) {
        let Some(readers) = self.streams.get(frame.stream) else { return };
        let is_late = self.faults.is_late(frame.symbol, self.now);
        let wrap = || format!(r#"{{"stream":"{}","data":{}}}"#, frame.stream, frame.data);
        let mut wrapped = frame.wrapped.as_ref().map(|text| Outgoing::Text(text.as_str().into()));
        let mut bare = None;
        let mut slow = Vec::new();
        for id in std::iter::repeat_n(readers, copies).flatten() {
            let Some(client) = self.clients.get(id).filter(|client| client.route.carries(frame.stream)) else {
                continue;
            };
            let outgoing = if client.combined {
                wrapped.get_or_insert_with(|| Outgoing::Text(wrap().into()))
            } else {
                bare.get_or_insert_with(|| Outgoing::Text(frame.data.as_str().into()))
            };
            if is_late {
                self.faults.hold(*id, frame.symbol, outgoing.clone());
            } else if client.queue.try_send(outgoing.clone()).is_err() {
                slow.push(*id);
            }
        }
        slow.into_iter().for_each(|id| self.cut(id));
    }

    /// A stream stops, until somebody asks for it anew.
    pub(super) fn stall(&mut self, stream: String) {
        self.stalled.insert(stream);
    }

    /// Sends what was held back long enough, in order.
    fn release(&mut self) {
        for (id, outgoing) in self.faults.release(self.now) {
            self.send(id, outgoing);
        }
    }

    /// Sends something to every client.
    pub(super) fn send_all(&mut self, outgoing: impl Fn(&Client) -> Outgoing) {
        let clients: Vec<_> = self.clients.iter().map(|(&id, client)| (id, outgoing(client))).collect();
        clients.into_iter().for_each(|(id, outgoing)| self.send(id, outgoing));
    }

    /// Resets every connection.
    pub(super) fn cut_all(&mut self) {
        let ids: Vec<_> = self.clients.keys().copied().collect();
        ids.into_iter().for_each(|id| self.cut(id));
    }

    fn carry_out(&mut self, id: ClientId, request: Request) -> Result<Value, TooManyStreams> {
        match request {
            Request::Subscribe(streams) => self.subscribe(id, streams)?,
            Request::Unsubscribe(streams) => self.unsubscribe(id, &streams),
            Request::List => return Ok(self.clients.get(&id).map_or(Value::Null, |c| c.streams.clone().into())),
            Request::SetCombined(combined) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.combined = combined;
                }
            }
            Request::GetCombined => return Ok(self.clients.get(&id).is_some_and(|client| client.combined).into()),
        }
        Ok(Value::Null)
    }

    fn subscribe(&mut self, id: ClientId, streams: Vec<String>) -> Result<(), TooManyStreams> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        for stream in streams {
            let readers = self.streams.entry(stream.clone()).or_default();
            if readers.contains(&id) {
                continue;
            }
            readers.push(id);
            self.stalled.remove(&stream);
            client.streams.push(stream);
            if client.streams.len() > MOST_STREAMS {
                return Err(TooManyStreams);
            }
        }
        Ok(())
    }

    fn unsubscribe(&mut self, id: ClientId, streams: &[String]) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.streams.retain(|stream| !streams.contains(stream));
        streams.iter().for_each(|stream| self.remove_from(stream, id));
    }

    fn remove_from(&mut self, stream: &str, id: ClientId) {
        if let Some(readers) = self.streams.get_mut(stream) {
            readers.retain(|reader| *reader != id);
            if readers.is_empty() {
                self.streams.remove(stream);
            }
        }
    }

    fn refuse_streams(&mut self, id: ClientId, request_id: &Value) {
        self.send(id, Outgoing::Text(Refusal::too_many_streams(request_id.clone()).reply().into()));
        self.send(id, Outgoing::Close(1008, "Invalid request".into()));
    }

    /// Queues something for a client. After an end nothing more is meant for it.
    fn send(&mut self, id: ClientId, outgoing: Outgoing) {
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

/// A connection has as many streams as it may have.
struct TooManyStreams;

#[cfg(test)]
mod tests;
