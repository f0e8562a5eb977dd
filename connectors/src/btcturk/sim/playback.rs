//! A recording in the place of the generated pairs.

use std::collections::{BTreeMap, HashMap, VecDeque};

use akis_model::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::clients::{Clients, Join};
use super::frames;
use super::pair::LAST_TRADES;
use super::rest::{self, Answer, Refusal, Reply, parameter};
use crate::Content;
use crate::sim::client::{ClientId, Outgoing};
use crate::sim::player::Player;
use crate::sim::replies::{Recorded, Replies};
use crate::symbols::is_symbol;

/// The recording begins when nobody has joined anything for so long: joins come one by one.
const SETTLED_MS: i64 = 300;

/// What a reply is about: its path, the pair, and the resolution of candles.
type Subject = (String, Option<String>, Option<String>);

/// Who waits for a reply.
pub(super) struct Asker {
    pub(super) reply: oneshot::Sender<Reply>,
    /// Whether it comes byte by byte.
    pub(super) dripped: bool,
}

impl Asker {
    pub(super) fn answer(self, answer: Answer) {
        // Who asked may be gone by now; then nobody minds.
        let _ = self.reply.send(Reply { dripped: self.dripped, ..Reply::from(answer) });
    }
}

/// A recording that is being played.
///
/// Time stands still until somebody has joined, and while a client's queue is more than half full: nothing is lost to a
/// fast playback. Who joins later gets the book and the trades as they are at that moment, as at the venue. A reply is
/// given out once its moment has come; requests wait for it. Only what was looked up before anything came over a
/// connection is there at once.
pub(super) struct Playback {
    player: Player,
    joined_at: Option<i64>,
    replies: Replies<Subject, Asker>,
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
    /// Nothing has been played yet.
    pub(super) fn new(player: Player) -> Self {
        Self { player, joined_at: None, replies: Replies::default(), books: HashMap::new(), trades: HashMap::new() }
    }

    /// Whether the recording is one of this pair, as far as it says so.
    pub(super) fn has(&self, symbol: &str) -> bool {
        self.player.has(symbol)
    }

    /// Plays what is due at `now`.
    pub(super) fn advance(&mut self, now: i64, clients: &mut Clients) {
        let settled = self.joined_at.is_some_and(|joined| now - joined >= SETTLED_MS);
        let waits = !self.player.has_begun() && !settled;
        let stands_still = waits || clients.is_congested() || !clients.has_readers();
        self.player.move_to(now, stands_still);
        while let Some(frame) = self.player.next_lookup() {
            self.play(frame.content, clients);
        }
        while !stands_still
            && !clients.is_congested()
            && let Some(frame) = self.player.next_due()
        {
            self.play(frame.content, clients);
        }
        if self.player.is_over() {
            for asker in self.replies.give_up() {
                asker.answer(Err(Refusal::unknown_route()));
            }
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

    /// Answers a request, now or when the recording has come to it.
    pub(super) fn answer(&mut self, target: &str, asker: Asker) {
        let subject = subject(target);
        let answer = match self.replies.latest(&subject) {
            Some(recorded) => as_answer(recorded),
            None if target.starts_with("/api/v2/server/ping") => Ok(r#"{"pong":true}"#.into()),
            None if target.starts_with("/api/v2/server/exchangeinfo") => Ok(self.exchange_info()),
            None if self.player.is_over() => Err(Refusal::unknown_route()),
            None => {
                if let Err(asker) = self.replies.wait(subject, asker, |asker| asker.reply.is_closed()) {
                    asker.answer(Err(Refusal::new(503, 1, "TOO_MANY_REQUESTS_WAIT")));
                }
                return;
            }
        };
        asker.answer(answer);
    }

    fn play(&mut self, content: Content, clients: &mut Clients) {
        match content {
            Content::Text { text, .. } => self.play_text(text, clients),
            Content::Reply { target, status, body } => {
                let recorded = (status, body);
                let answer = as_answer(&recorded);
                for asker in self.replies.take(subject(&target), recorded) {
                    asker.answer(answer.clone());
                }
            }
            Content::Closed { code, .. } if self.player.is_unconnected() => match code {
                1006 => clients.cut_all(),
                code => clients.send_all(&Outgoing::Close(code, String::new())),
            },
            Content::Closed { .. } => {}
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
        let infos: Vec<String> =
            self.player.header().symbols.iter().flatten().filter(|symbol| is_symbol(symbol)).map(info).collect();
        rest::exchange_info_body(self.player.header().started_at, &infos)
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

/// What a request or a reply is about, whatever the extent that is asked for.
fn subject(target: &str) -> Subject {
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let pair = parameter(target, "symbol").or_else(|| parameter(target, "pairSymbol"));
    (path, pair.map(str::to_owned), parameter(target, "resolution").map(str::to_owned))
}

fn as_answer((status, body): &Recorded) -> Answer {
    match status {
        200 => Ok(body.clone()),
        status => Err(Refusal::new(*status, 1, "AN_ERROR_OCCURRED")),
    }
}
