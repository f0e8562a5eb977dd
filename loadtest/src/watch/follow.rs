//! What one client of a watch knows of its channels, and what each message means: plain code, without a socket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::ledger::Ledger;
use crate::client::now_us;
use crate::wire::scan;

/// Channels that fit in one request. Source: `docs/protocol.md`, section 3.
const CHANNELS_PER_MESSAGE: usize = 200;

/// What a client does because of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Goes on reading.
    Listen,
    /// Goes on reading: every subscription is answered.
    Subscribed,
    /// Asks again, after a wait, for what was not answered.
    AskAgain,
    /// Replaces this connection after a wait.
    ReplaceIn(Duration),
}

/// When messages were read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    /// Milliseconds since the epoch, as events have them.
    pub(crate) unix_ms: u64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), unix_ms: now_us() / 1000 }
    }
}

/// The channels of one client, over all of its connections.
#[derive(Debug)]
pub(crate) struct Follow {
    client: usize,
    channels: Vec<Channel>,
    /// How often the gateway says that it is there, once it has told.
    heartbeat: Option<Duration>,
}

#[derive(Debug)]
struct Channel {
    name: String,
    /// The position that the next event follows; `None` until the first answer.
    position: Option<u64>,
    is_answered: bool,
    /// Events to come that are older than the subscription.
    replayed: u64,
}

impl Follow {
    /// Of the client with this number.
    pub(crate) fn new(client: usize, channels: &[String]) -> Self {
        let channel = |name: &String| Channel { name: name.clone(), position: None, is_answered: false, replayed: 0 };
        Self { client, channels: channels.iter().map(channel).collect(), heartbeat: None }
    }

    /// What to send on a new connection: every channel, each from where it stands.
    pub(crate) fn resume(&mut self) -> Vec<String> {
        self.heartbeat = None;
        self.channels.iter_mut().for_each(|channel| channel.is_answered = false);
        self.unanswered()
    }

    /// What to send to ask for the channels that were not answered.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        let wanted: Vec<_> = self.channels.iter().filter(|channel| !channel.is_answered).map(Channel::wish).collect();
        let requests = wanted.chunks(CHANNELS_PER_MESSAGE);
        requests.map(|channels| json!({ "type": "subscribe", "channels": channels }).to_string()).collect()
    }

    /// How long the connection may be silent before it counts as lost.
    pub(crate) fn silence(&self) -> Duration {
        self.heartbeat.map_or(Duration::from_secs(20), |heartbeat| heartbeat * 3 + Duration::from_secs(2))
    }

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// When it says that the client can never have what it wants, or is no message at all.
    pub(crate) fn on_text(&mut self, text: &[u8], ledger: &mut Ledger, now: Moment) -> Result<Next> {
        let envelope = scan(text).with_context(|| format!("no envelope: {}", String::from_utf8_lossy(text)))?;
        if envelope.channel == b"system" {
            return self.on_system(envelope.event, text);
        }
        let (client, seq) = (self.client, envelope.seq);
        let named = |channel: &Channel| channel.name.as_bytes() == envelope.channel;
        let Some(place) = self.channels.iter().position(named) else {
            bail!("told of a channel that nobody asked for: {}", String::from_utf8_lossy(text));
        };
        let channel = &mut self.channels[place];
        match envelope.event {
            b"subscribed" => {
                channel.on_subscribed(seq, &data(text)?, (client, place), ledger);
                return Ok(if self.channels.iter().all(|one| one.is_answered) {
                    Next::Subscribed
                } else {
                    Next::Listen
                });
            }
            b"subscribe_error" if text.windows(18).any(|window| window == b"REPLAY_UNAVAILABLE") => {
                return Ok(Next::AskAgain);
            }
            b"subscribe_error" | b"unsubscribed" => bail!("refused: {}", String::from_utf8_lossy(text)),
            b"staleness" | b"error" => return Ok(Next::Listen),
            _ => {}
        }
        let Some(position) = channel.position.filter(|_| channel.is_answered) else {
            let event = String::from_utf8_lossy(envelope.event);
            ledger.wrong(client, place, format!("{event} at {seq} before subscribed"));
            return Ok(Next::Listen);
        };
        match envelope.event {
            b"term" => channel.on_term(seq, position, (client, place), ledger),
            b"gap" | b"backpressure_drop" => {
                channel.on_missing(envelope.event, seq, &data(text)?, (client, place), ledger);
            }
            _ => {
                let is_live = channel.on_event(seq, position, (client, place), ledger);
                ledger.event(client, place, seq, text, now.at);
                if is_live && envelope.event == b"trade" {
                    ledger.delay(now.unix_ms.saturating_sub(envelope.ts_ms));
                }
            }
        }
        Ok(Next::Listen)
    }

    fn on_system(&mut self, event: &[u8], text: &[u8]) -> Result<Next> {
        match event {
            b"welcome" => self.heartbeat = data(text)?["heartbeatMs"].as_u64().map(Duration::from_millis),
            b"draining" => {
                let wait_ms = data(text)?["reconnectAfterMs"].as_u64().unwrap_or(0);
                return Ok(Next::ReplaceIn(Duration::from_millis(wait_ms)));
            }
            b"error" => bail!("a request was refused: {}", String::from_utf8_lossy(text)),
            _ => {}
        }
        Ok(Next::Listen)
    }
}

/// A client's number and the place of a channel in its list, for the ledger.
type Where = (usize, usize);

impl Channel {
    /// From now on at first, then from where it stands.
    fn wish(&self) -> Value {
        match self.position {
            None => json!({ "channel": self.name, "snapshot": false }),
            Some(position) => json!({ "channel": self.name, "after": position }),
        }
    }

    fn on_subscribed(&mut self, seq: u64, data: &Value, (client, place): Where, ledger: &mut Ledger) {
        self.is_answered = true;
        self.replayed = data["replayed"].as_u64().unwrap_or(0);
        let Some(position) = self.position.replace(seq) else { return };
        match data["recovered"].as_bool() {
            Some(true) if seq < position => {
                ledger.wrong(client, place, format!("recovered from {position}, and goes back to {seq}"));
            }
            Some(true) => ledger.empty(client, place, position, seq),
            // 0 asks for all that is kept, and promises nothing.
            _ if position == 0 => {}
            _ => ledger.counts().not_recovered += 1,
        }
    }

    fn on_term(&mut self, seq: u64, position: u64, (client, place): Where, ledger: &mut Ledger) {
        self.position = Some(seq);
        if seq < position {
            ledger.wrong(client, place, format!("a term goes back from {position} to {seq}"));
        } else if position > 0 {
            ledger.empty(client, place, position, seq);
        }
    }

    fn on_missing(&mut self, event: &[u8], seq: u64, data: &Value, (client, place): Where, ledger: &mut Ledger) {
        let position = self.position.replace(seq).unwrap_or(0);
        let (from, to) = (data["from"].as_u64().unwrap_or(0), data["to"].as_u64().unwrap_or(0));
        if to != seq || from > to || to <= position {
            ledger.wrong(client, place, format!("{from} to {to} are called missing behind {position}, at {seq}"));
            return;
        }
        if event == b"gap" {
            ledger.counts().gaps += 1;
        } else {
            ledger.counts().drops += 1;
            ledger.counts().dropped_events += data["count"].as_u64().unwrap_or(0);
        }
        if position > 0 {
            ledger.empty(client, place, position, from.saturating_sub(1));
        }
    }

    /// Gives whether the event happened while the client was subscribed.
    fn on_event(&mut self, seq: u64, position: u64, (client, place): Where, ledger: &mut Ledger) -> bool {
        let is_live = self.replayed == 0;
        self.replayed = self.replayed.saturating_sub(1);
        if position > 0 && seq <= position {
            ledger.duplicate(client, place, format!("{seq} comes behind {position}"));
            return false;
        }
        self.position = Some(seq);
        // A channel without events is at 0, and its first event has any position.
        if position > 0 && seq > position + 1 {
            ledger.lost(client, place, 1, format!("{seq} follows {position} without a word"));
        }
        is_live
    }
}

/// The payload of one of the gateway's own events.
fn data(text: &[u8]) -> Result<Value> {
    let mut envelope: Value = serde_json::from_slice(text).context("an envelope is no JSON")?;
    Ok(envelope["data"].take())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        follow: Follow,
        ledger: Ledger,
        now: Moment,
    }

    impl Bench {
        fn new() -> Self {
            let channels = ["a:1".to_owned(), "b:1".to_owned()];
            let mut follow = Follow::new(0, &channels);
            follow.resume();
            let now = Moment { at: Instant::now(), unix_ms: 20 };
            Self { follow, ledger: Ledger::new(&channels, 1, now.at).unwrap(), now }
        }

        fn told(&mut self, event: &str, channel: &str, seq: u64, data: &Value) -> Next {
            let text = format!(
                r#"{{"v":1,"seq":{seq},"ts":1,"event":"{event}","channel":"{channel}","ok":true,"data":{data}}}"#
            );
            self.follow.on_text(text.as_bytes(), &mut self.ledger, self.now).unwrap()
        }

        /// Silent losses, duplicates, what is wrong, gaps, resumptions that were not recovered.
        fn counts(&mut self) -> [u64; 5] {
            let counts = *self.ledger.counts();
            [counts.silent_losses, counts.duplicates, counts.wrong, counts.gaps, counts.not_recovered]
        }
    }

    #[test]
    fn an_honest_stream_is_clean_and_resumed_from_where_it_stands() {
        let mut bench = Bench::new();
        assert_eq!(bench.told("subscribed", "a:1", 4, &json!({})), Next::Listen);
        assert_eq!(bench.told("subscribed", "b:1", 0, &json!({})), Next::Subscribed);
        bench.told("e", "a:1", 5, &json!({}));
        bench.told("e", "b:1", 900, &json!({}));
        bench.told("gap", "a:1", 8, &json!({ "from": 6, "to": 8, "reason": "lost" }));
        bench.told("term", "a:1", 99, &json!({ "previous": 8 }));
        bench.told("e", "a:1", 100, &json!({}));
        bench.told("staleness", "a:1", 100, &json!({}));
        bench.told("backpressure_drop", "a:1", 103, &json!({ "from": 101, "to": 103, "count": 3 }));
        assert_eq!(bench.counts(), [0, 0, 0, 1, 0]);
        assert_eq!(
            bench.follow.resume(),
            [r#"{"channels":[{"after":103,"channel":"a:1"},{"after":900,"channel":"b:1"}],"type":"subscribe"}"#]
        );
        bench.told("subscribed", "a:1", 103, &json!({ "recovered": true }));
        bench.told("e", "a:1", 104, &json!({}));
        bench.told("subscribed", "b:1", 1200, &json!({ "recovered": false }));
        assert_eq!(bench.counts(), [0, 0, 0, 1, 1]);
    }

    #[test]
    fn delays_are_those_of_trades_that_came_live() {
        let mut bench = Bench::new();
        bench.told("subscribed", "a:1", 4, &json!({ "replayed": 2 }));
        bench.told("trade", "a:1", 5, &json!({}));
        bench.told("trade", "a:1", 6, &json!({}));
        bench.told("e", "a:1", 7, &json!({}));
        bench.ledger.mark("", bench.now.at);
        assert_eq!(bench.ledger.report()["total"]["tradeDelayMs"], Value::Null, "nothing was measured");
        bench.told("trade", "a:1", 8, &json!({}));
        bench.ledger.mark("", bench.now.at);
        let report = bench.ledger.report();
        assert_eq!(report["total"]["tradeDelayMs"], json!({ "p50": 19, "p95": 19, "p99": 19, "max": 19 }));
        assert_eq!(report["phases"][0]["tradeDelayMs"], Value::Null);
        assert_eq!(report["phases"][1]["tradeDelayMs"]["p50"], 19);
    }

    #[test]
    fn each_lie_is_found() {
        for (event, seq, data, expected) in [
            ("e", 7, json!({}), [1, 0, 0, 0, 0]),
            ("e", 5, json!({}), [0, 1, 0, 0, 0]),
            ("term", 3, json!({}), [0, 0, 1, 0, 0]),
            ("gap", 9, json!({ "from": 6, "to": 8 }), [0, 0, 1, 0, 0]),
            ("subscribed", 4, json!({ "recovered": true }), [0, 0, 1, 0, 0]),
        ] {
            let mut bench = Bench::new();
            bench.told("subscribed", "a:1", 4, &json!({}));
            bench.told("e", "a:1", 5, &json!({}));
            bench.told(event, "a:1", seq, &data);
            assert_eq!(bench.counts(), expected, "{event} at {seq}");
        }
        let mut bench = Bench::new();
        bench.told("e", "a:1", 5, &json!({}));
        assert_eq!(bench.counts(), [0, 0, 1, 0, 0], "before subscribed");
    }

    #[test]
    fn the_gateway_is_heeded() {
        let mut bench = Bench::new();
        bench.told("welcome", "system", 0, &json!({ "heartbeatMs": 1000 }));
        assert_eq!(bench.follow.silence(), Duration::from_secs(5));
        let draining = bench.told("draining", "system", 0, &json!({ "reconnectAfterMs": 70, "deadlineMs": 100 }));
        assert_eq!(draining, Next::ReplaceIn(Duration::from_millis(70)));
        let later = r#"{"v":1,"seq":0,"ts":1,"event":"subscribe_error","channel":"a:1","ok":false,"errorCode":"REPLAY_UNAVAILABLE","data":{}}"#;
        let mut take = |text: &str| bench.follow.on_text(text.as_bytes(), &mut bench.ledger, bench.now);
        assert_eq!(take(later).unwrap(), Next::AskAgain);
        take(&later.replace("REPLAY_UNAVAILABLE", "CHANNEL_FORBIDDEN")).unwrap_err();
    }
}
