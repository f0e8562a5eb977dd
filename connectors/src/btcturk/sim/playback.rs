//! A recording in the place of the generated pairs.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use akis_model::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;

use super::clients::{ClientId, Clients, Join, Outgoing};
use super::frames;
use super::pair::LAST_TRADES;
use super::rest::{self, Answer, Refusal, parameter};
use crate::recording::{Header, Reader, RecordingError};
use crate::{Content, RawFrame};

/// How many frames are read ahead of the moment that is being played.
const READ_AHEAD: usize = 1024;

/// The recording begins when nobody has joined anything for so long: joins come one by one.
const SETTLED_MS: i64 = 300;

/// A recording that is being played.
///
/// Time stands still until somebody has joined, and while a client's queue is more than half full: nothing is lost to a
/// fast playback. Who joins later gets the book and the trades as they are at that moment, as at the venue.
pub(super) struct Playback {
    header: Header,
    frames: mpsc::Receiver<RawFrame>,
    ahead: Option<RawFrame>,
    speed: f64,
    /// The recording's moment in milliseconds; `None` before the first frame is due.
    position: Option<f64>,
    /// When the position was last moved, by our clock.
    moved_at: i64,
    joined_at: Option<i64>,
    is_over: bool,
    /// Recorded connections that are open.
    open: HashSet<u32>,
    replies: HashMap<(String, Option<String>), (u16, String)>,
    books: HashMap<String, Book>,
    trades: HashMap<String, VecDeque<Value>>,
}

/// The book of a pair as far as it was recorded: the venue's texts by price.
#[derive(Default)]
struct Book {
    change_set: i64,
    bids: BTreeMap<Decimal, Value>,
    asks: BTreeMap<Decimal, Value>,
}

/// Where a frame goes.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    event: Option<String>,
}

impl Playback {
    /// Opens a recording and begins to read it on a thread of its own.
    pub(super) fn open(file: &Path, speed: f64) -> Result<Self, RecordingError> {
        let (header, reader) = Reader::open(BufReader::new(File::open(file)?))?;
        let (sender, frames) = mpsc::channel(READ_AHEAD);
        // It ends with the file, or at the next frame once the receiver is gone.
        tokio::task::spawn_blocking(move || {
            for frame in reader {
                match frame.map(|frame| sender.blocking_send(frame)) {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(error) => warn!(%error, "a line of the recording is skipped"),
                }
            }
        });
        Ok(Self {
            header,
            frames,
            ahead: None,
            speed,
            position: None,
            moved_at: 0,
            joined_at: None,
            is_over: false,
            open: HashSet::new(),
            replies: HashMap::new(),
            books: HashMap::new(),
            trades: HashMap::new(),
        })
    }

    /// What the recording says about itself.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the recording is one of this pair, as far as it says so.
    pub(super) fn has(&self, symbol: &str) -> bool {
        self.header.symbols.as_ref().is_none_or(|symbols| symbols.iter().any(|found| found == symbol))
    }

    /// Plays what is due at `now`.
    pub(super) fn advance(&mut self, now: i64, clients: &mut Clients) {
        let passed = (now - std::mem::replace(&mut self.moved_at, now)) as f64;
        let settled = self.joined_at.is_some_and(|joined| now - joined >= SETTLED_MS);
        if self.is_over || (self.position.is_none() && !settled) || clients.is_congested() || !clients.has_readers() {
            return;
        }
        if let Some(position) = &mut self.position {
            *position += passed * self.speed;
        }
        while !clients.is_congested() {
            let Some(frame) = self.next() else { return };
            let at = frame.received_at as f64;
            let position = *self.position.get_or_insert(at);
            if at > position {
                self.ahead = Some(frame);
                return;
            }
            self.play(frame.content, clients);
        }
    }

    /// Tells a client that has joined what there is by now.
    pub(super) fn welcome(&mut self, id: ClientId, asked: &Join, now: i64, clients: &mut Clients) {
        self.joined_at = Some(now);
        let pair = &asked.event;
        let text = match asked.channel.as_str() {
            "obdiff" => self.books.get(pair).map(|book| book.whole(pair)),
            "trade" => self.trades.get(pair).map(
                |items| json!([421, {"symbol": pair, "items": items, "channel": "trade", "event": pair, "type": 421}]),
            ),
            _ => None,
        };
        if let Some(text) = text {
            clients.send(id, pair, Outgoing::Text(text.to_string().into()));
        }
    }

    /// Answers a request with what was recorded up to now.
    pub(super) fn answer(&self, target: &str) -> Answer {
        match self.replies.get(&subject(target)) {
            Some((200, body)) => Ok(body.clone()),
            _ if target.starts_with("/api/v2/server/ping") => Ok(r#"{"pong":true}"#.into()),
            _ if target.starts_with("/api/v2/server/exchangeinfo") => Ok(self.exchange_info()),
            _ => Err(Refusal::unknown_route()),
        }
    }

    /// The next frame; `None` when none has been read yet or the recording is over.
    fn next(&mut self) -> Option<RawFrame> {
        if let Some(frame) = self.ahead.take() {
            return Some(frame);
        }
        match self.frames.try_recv() {
            Ok(frame) => Some(frame),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => {
                self.is_over = true;
                None
            }
        }
    }

    fn play(&mut self, content: Content, clients: &mut Clients) {
        match content {
            Content::Text { connection, text } => {
                self.open.insert(connection);
                self.play_text(text, clients);
            }
            Content::Reply { target, status, body } => {
                self.replies.insert(subject(&target), (status, body));
            }
            Content::Closed { connection, code } => {
                self.open.remove(&connection);
                // While another recorded connection is open, this was a change of connections and nothing was missed.
                if self.open.is_empty() {
                    match code {
                        1006 => clients.cut_all(),
                        code => clients.send_all(&Outgoing::Close(code, String::new())),
                    }
                }
            }
            // The venue sends none.
            Content::Binary { .. } => {}
        }
    }

    /// Sends a recorded frame on, byte for byte. One that goes nowhere is an answer: who plays it asked nothing.
    fn play_text(&mut self, text: String, clients: &mut Clients) {
        let Ok((kind, head)) = serde_json::from_str::<(i64, Head)>(&text) else { return };
        let (Some(channel), Some(event)) = (head.channel, head.event) else { return };
        if matches!(kind, 421 | 422 | 431 | 432)
            && let Ok((_, data)) = serde_json::from_str::<(i64, Value)>(&text)
        {
            self.remember(kind, &event, &channel, data);
        }
        let symbol = event.clone();
        clients.publish(&channel, &event, &symbol, || text);
    }

    /// Keeps what a client that joins later has to be told.
    fn remember(&mut self, kind: i64, pair: &str, channel: &str, mut data: Value) {
        match (kind, channel) {
            (421, _) => {
                let items = data["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
                self.trades.insert(pair.to_owned(), items.into_iter().take(LAST_TRADES).collect());
            }
            (422, _) => {
                let trades = self.trades.entry(pair.to_owned()).or_default();
                trades.push_front(data);
                trades.truncate(LAST_TRADES);
            }
            (431, "obdiff") => {
                self.books.insert(pair.to_owned(), Book::default());
                self.change(pair, &data);
            }
            (432, "obdiff") => self.change(pair, &data),
            _ => {}
        }
    }

    fn change(&mut self, pair: &str, data: &Value) {
        let Some(book) = self.books.get_mut(pair) else { return };
        book.change_set = data["CS"].as_i64().unwrap_or_default();
        for (side, levels) in [(&mut book.bids, &data["BO"]), (&mut book.asks, &data["AO"])] {
            for level in levels.as_array().into_iter().flatten() {
                let Some(Ok(price)) = level["P"].as_str().map(str::parse) else { continue };
                if level["CP"].as_i64() == Some(3) {
                    side.remove(&price);
                } else {
                    side.insert(price, json!({"A": level["A"], "P": level["P"]}));
                }
            }
        }
    }

    /// The recording may have none, so it is made from the names.
    fn exchange_info(&self) -> String {
        let info = |symbol: &String| {
            let quote = if symbol.ends_with("USDT") { "USDT" } else { "TRY" };
            let base = symbol.strip_suffix(quote).unwrap_or(symbol);
            frames::symbol_info(symbol, base, quote, "1")
        };
        let infos: Vec<String> = self.header.symbols.iter().flatten().map(info).collect();
        rest::exchange_info_body(self.header.started_at, &infos)
    }
}

impl Book {
    fn whole(&self, pair: &str) -> Value {
        let bids: Vec<&Value> = self.bids.values().rev().collect();
        let asks: Vec<&Value> = self.asks.values().collect();
        let change_set = self.change_set;
        json!([431, {"CS": change_set, "PS": pair, "AO": asks, "BO": bids, "channel": "obdiff", "event": pair, "type": 431}])
    }
}

/// What a reply is about: its path, and the pair.
fn subject(target: &str) -> (String, Option<String>) {
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let pair = parameter(target, "symbol").or_else(|| parameter(target, "pairSymbol"));
    (path, pair.map(str::to_owned))
}
