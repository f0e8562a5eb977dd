//! What `tail` knows of its channels, and what each message means. Plain code, without a socket or a clock.

use std::borrow::Cow;
use std::time::Duration;

use akis_model::Channel;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most channels that fit in one message. Section 3 of the protocol.
const CHANNELS_PER_MESSAGE: usize = 200;

/// Where to begin on the first connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// With the latest event, then live.
    Live,
    /// With what follows a position.
    After(u64),
    /// With what happened at a time or later, milliseconds since the epoch.
    Since(u64),
}

/// What to do with a message.
#[derive(Debug)]
pub(super) struct Heard {
    /// Print it on stdout.
    pub(super) print: bool,
    /// Words for stderr.
    pub(super) say: Option<String>,
    /// What comes next.
    pub(super) next: Next,
}

/// What comes after a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    Listen,
    /// Go on: the connection has proved to work.
    Healthy,
    /// Ask again, after a wait, for the channels that have no answer yet.
    AskAgain,
    /// Leave this replica after a wait.
    LeaveIn(Duration),
    /// Everything that was asked for has been printed.
    Done,
    /// There is nothing left to wait for.
    Fail(String),
}

#[derive(Debug)]
struct Wanted {
    channel: Channel,
    /// What to resume from; none until the gateway has told a position.
    position: Option<u64>,
    answered: bool,
}

/// The channels of one `tail`, over all its connections.
#[derive(Debug)]
pub(super) struct State {
    wanted: Vec<Wanted>,
    start: Start,
    interval: Option<u64>,
    left: Option<u64>,
    heartbeat: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    seq: u64,
    ok: bool,
    #[serde(borrow)]
    error_code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Fields of the gateway's own events. Section 4 of the protocol.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Own {
    message: Option<String>,
    replica: Option<String>,
    recovered: Option<bool>,
    heartbeat_ms: Option<u64>,
    reconnect_after_ms: Option<u64>,
}

#[derive(Serialize)]
struct Subscribe<'a> {
    r#type: &'static str,
    channels: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<u64>,
}

impl State {
    /// `left`: how many events to print before it is done.
    pub(super) fn new(mut channels: Vec<Channel>, start: Start, interval: Option<u64>, left: Option<u64>) -> Self {
        channels.sort();
        channels.dedup();
        let wanted = channels.into_iter().map(|channel| Wanted { channel, position: None, answered: false }).collect();
        Self { wanted, start, interval, left, heartbeat: None }
    }

    /// What to send on a new connection.
    pub(super) fn connected(&mut self) -> Vec<String> {
        self.heartbeat = None;
        for wanted in &mut self.wanted {
            wanted.answered = false;
        }
        self.unanswered()
    }

    /// What to send to ask for the channels that have no answer yet.
    pub(super) fn unanswered(&self) -> Vec<String> {
        let entries: Vec<&Wanted> = self.wanted.iter().filter(|wanted| !wanted.answered).collect();
        entries
            .chunks(CHANNELS_PER_MESSAGE)
            .filter_map(|chunk| {
                let channels = chunk.iter().map(|wanted| self.entry(wanted)).collect();
                serde_json::to_string(&Subscribe { r#type: "subscribe", channels }).ok()
            })
            .collect()
    }

    /// How often the gateway says that it is there, once it has told.
    pub(super) fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    /// Takes a message of the gateway.
    pub(super) fn on_text(&mut self, text: &str) -> Heard {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else {
            return say("a message could not be understood".to_owned());
        };
        let own = || serde_json::from_str::<Own>(envelope.data.get()).unwrap_or_default();
        if envelope.channel == "system" {
            return self.on_system(&envelope, own());
        }
        let Some(index) = self.wanted.iter().position(|wanted| *wanted.channel.as_str() == *envelope.channel) else {
            return quiet();
        };
        match &*envelope.event {
            "subscribed" => self.on_subscribed(index, envelope.seq, &own()),
            "unsubscribed" | "subscribe_error" => self.on_refused(index, &envelope, own()),
            "gap" | "term" | "backpressure_drop" => {
                self.wanted[index].position = Some(envelope.seq);
                Heard { print: true, say: None, next: Next::Listen }
            }
            "staleness" => {
                let what = if envelope.ok { "speaks again" } else { "has been silent for much longer than usual" };
                say(format!("{} {what}", envelope.channel))
            }
            "error" => say(format!("{}: {}", envelope.channel, words(&envelope, own()))),
            _ => self.on_event(index, envelope.seq),
        }
    }

    fn entry<'a>(&self, wanted: &'a Wanted) -> Entry<'a> {
        let (after, since) = match (wanted.position, self.start) {
            (Some(position), _) => (Some(position), None),
            (None, Start::After(after)) => (Some(after), None),
            (None, Start::Since(since)) => (None, Some(since)),
            (None, Start::Live) => (None, None),
        };
        Entry { channel: wanted.channel.as_str(), after, since, interval: self.interval }
    }

    fn on_event(&mut self, index: usize, seq: u64) -> Heard {
        self.wanted[index].position = Some(seq);
        self.left = self.left.map(|left| left.saturating_sub(1));
        let next = if self.left == Some(0) { Next::Done } else { Next::Healthy };
        Heard { print: true, say: None, next }
    }

    fn on_subscribed(&mut self, index: usize, seq: u64, own: &Own) -> Heard {
        let wanted = &mut self.wanted[index];
        // Nothing was asked to be recovered on the first time, unless the user named a position; 0 names none.
        let asked = wanted.position.or(match self.start {
            Start::After(after) => Some(after),
            Start::Since(_) | Start::Live => None,
        });
        let lost = own.recovered == Some(false) && asked.is_some_and(|position| position > 0);
        wanted.answered = true;
        wanted.position = Some(seq);
        let say =
            lost.then(|| format!("{}: not everything since seq {} could be had", wanted.channel, asked.unwrap_or(0)));
        Heard { print: false, say, next: Next::Healthy }
    }

    /// A channel that will not be had, or not now.
    fn on_refused(&mut self, index: usize, envelope: &Envelope<'_>, own: Own) -> Heard {
        let words = format!("{}: {}", envelope.channel, words(envelope, own));
        if envelope.error_code.as_deref() == Some("REPLAY_UNAVAILABLE") {
            self.wanted[index].answered = false;
            return Heard { print: false, say: Some(words), next: Next::AskAgain };
        }
        self.wanted.remove(index);
        if self.wanted.is_empty() {
            return Heard { print: false, say: None, next: Next::Fail(words) };
        }
        say(words)
    }

    fn on_system(&mut self, envelope: &Envelope<'_>, own: Own) -> Heard {
        match &*envelope.event {
            "welcome" => {
                self.heartbeat = own.heartbeat_ms.map(Duration::from_millis);
                say(format!("connected to replica {}", own.replica.unwrap_or_default()))
            }
            "draining" => {
                let wait = Duration::from_millis(own.reconnect_after_ms.unwrap_or(0));
                let say = format!("the replica is draining; leaving it in {:.1} s", wait.as_secs_f64());
                Heard { print: false, say: Some(say), next: Next::LeaveIn(wait) }
            }
            "upstream" if envelope.ok => say("the log can be reached again".to_owned()),
            "upstream" => say("the log cannot be reached; waiting".to_owned()),
            "token_expiring" => say("the token is about to expire".to_owned()),
            "error" => say(words(envelope, own)),
            _ => quiet(),
        }
    }
}

fn words(envelope: &Envelope<'_>, own: Own) -> String {
    let code = envelope.error_code.as_deref().unwrap_or(&envelope.event);
    own.message.map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"))
}

fn say(words: String) -> Heard {
    Heard { print: false, say: Some(words), next: Next::Listen }
}

fn quiet() -> Heard {
    Heard { print: false, say: None, next: Next::Listen }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(start: Start, count: Option<u64>) -> State {
        let channels = ["b:x", "a:x", "a:x"].map(|name| Channel::parse(name).unwrap());
        let mut state = State::new(channels.to_vec(), start, None, count);
        state.connected();
        state
    }

    fn envelope(event: &str, channel: &str, seq: u64, rest: &str) -> String {
        format!(r#"{{"v":1,"event":"{event}","channel":"{channel}","seq":{seq},"ts":1,{rest}}}"#)
    }

    const FINE: &str = r#""ok":true,"data":{}"#;

    #[test]
    fn begins_where_the_user_said_and_resumes_from_the_last_position() {
        let mut state = state(Start::After(5), None);
        assert_eq!(
            state.unanswered(),
            [r#"{"type":"subscribe","channels":[{"channel":"a:x","after":5},{"channel":"b:x","after":5}]}"#]
        );
        let heard = state.on_text(&envelope("subscribed", "a:x", 5, r#""ok":true,"data":{"recovered":true}"#));
        assert!(heard.say.is_none() && !heard.print && heard.next == Next::Healthy);
        for (event, seq) in [("e", 6), ("e", 7), ("gap", 9), ("term", 20), ("backpressure_drop", 30)] {
            assert!(state.on_text(&envelope(event, "a:x", seq, FINE)).print, "{event}");
        }
        assert_eq!(
            state.connected(),
            [r#"{"type":"subscribe","channels":[{"channel":"a:x","after":30},{"channel":"b:x","after":5}]}"#]
        );
    }

    #[test]
    fn says_when_something_was_lost_in_between() {
        let mut state = state(Start::Live, None);
        let lost = r#""ok":true,"data":{"recovered":false}"#;
        assert!(state.on_text(&envelope("subscribed", "a:x", 3, r#""ok":true,"data":{}"#)).say.is_none());
        state.connected();
        let heard = state.on_text(&envelope("subscribed", "a:x", 8, lost));
        assert_eq!(heard.say.unwrap(), "a:x: not everything since seq 3 could be had");
        assert!(state.unanswered()[0].contains("b:x") && !state.unanswered()[0].contains("a:x"));
    }

    #[test]
    fn only_events_count() {
        let mut state = state(Start::Live, Some(2));
        assert_eq!(state.on_text(&envelope("e", "a:x", 1, FINE)).next, Next::Healthy);
        assert_eq!(state.on_text(&envelope("gap", "a:x", 2, FINE)).next, Next::Listen);
        assert!(!state.on_text(&envelope("heartbeat", "system", 0, FINE)).print);
        let heard = state.on_text(&envelope("e", "b:x", 3, r#""ok":true,"data":{"recovered":"text"}"#));
        assert!(heard.print && heard.next == Next::Done);
    }

    #[test]
    fn a_refused_channel_is_left_out_and_the_last_one_ends_it() {
        let mut state = state(Start::Live, None);
        let refused = r#""ok":false,"errorCode":"CHANNEL_FORBIDDEN","data":{"message":"not yours"}"#;
        let heard = state.on_text(&envelope("subscribe_error", "a:x", 0, refused));
        assert_eq!(heard.say.unwrap(), "a:x: CHANNEL_FORBIDDEN: not yours");
        let later = r#""ok":false,"errorCode":"REPLAY_UNAVAILABLE","data":{}"#;
        assert_eq!(state.on_text(&envelope("subscribe_error", "b:x", 0, later)).next, Next::AskAgain);
        let expired = r#""ok":false,"errorCode":"TOKEN_EXPIRED","data":{}"#;
        let heard = state.on_text(&envelope("unsubscribed", "b:x", 0, expired));
        assert_eq!(heard.next, Next::Fail("b:x: TOKEN_EXPIRED".to_owned()));
    }

    #[test]
    fn heeds_the_gateway() {
        let mut state = state(Start::Live, None);
        state.on_text(&envelope("welcome", "system", 0, r#""ok":true,"data":{"replica":"r","heartbeatMs":5000}"#));
        assert_eq!(state.heartbeat(), Some(Duration::from_secs(5)));
        let heard = state.on_text(&envelope("draining", "system", 0, r#""ok":true,"data":{"reconnectAfterMs":300}"#));
        assert_eq!(heard.next, Next::LeaveIn(Duration::from_millis(300)));
        for odd in ["", "{}", "[]", r#"{"event":1}"#] {
            assert!(state.on_text(odd).say.is_some(), "{odd}");
        }
    }
}
