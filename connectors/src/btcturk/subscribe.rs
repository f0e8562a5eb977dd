//! What is joined, in which words, and what frames are to the connection.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use akis_model::Kind;
use serde::Deserialize;

use super::config::Config;
use crate::attempts::Attempts;
use crate::dialog::{Dialog, Reading};

/// Time between two messages. The venue has taken 379 joins in 5 ms; once it named a limit of 200 messages a second.
const PACE: Duration = Duration::from_millis(10);

/// The venue pings every 15 s: three of them are missing. It closes a connection without pongs after 45 s itself.
const SILENCE: Duration = Duration::from_secs(45);

/// The venue tells no lifetime and closes without notice. Changing over in time costs nothing, a close costs a hole.
const LIFETIME: Duration = Duration::from_secs(23 * 3600);

/// A join is answered with `ok` whatever it names, so only data proves it: it has come within 1.3 s for all pairs.
const FIRST_DATA: Duration = Duration::from_secs(10);

/// The venue takes 15 connections a minute from an address, then none for 60 s. Some are left to others there.
const ATTEMPTS: (usize, Duration) = (10, Duration::from_secs(60));

/// From so many pairs on, the tickers of all pairs of the venue in one frame cost less than a frame for each.
const TICKER_ALL_FROM: usize = 40;

/// The channels that are joined.
const CHANNELS: [&str; 4] = ["tradeview", "ticker", "trade", "obdiff"];

/// The dialog of the one connection.
pub(super) fn dialog(config: &Config, symbols: &[String], attempts: &Arc<Attempts>) -> Dialog {
    let streams = streams(config, symbols);
    let messages: Vec<String> = streams.iter().map(|stream| stream.join(true)).collect();
    let first_data = FIRST_DATA + PACE * u32::try_from(messages.len()).unwrap_or(u32::MAX);
    Dialog {
        venue: "btcturk",
        url: format!("{}/", config.ws_url),
        messages,
        pace: PACE,
        streams: streams.iter().filter(|stream| stream.speaks_at_once()).map(Stream::name).collect(),
        first_data,
        silence: SILENCE,
        lifetime: LIFETIME,
        backoff: config.backoff.clone(),
        attempts: Arc::clone(attempts),
        again: Some(again),
        read,
    }
}

/// What counts the attempts to connect, for all dialogs of a session.
pub(super) fn attempts() -> Arc<Attempts> {
    Arc::new(Attempts::new(ATTEMPTS.0, ATTEMPTS.1))
}

/// The messages after which the book of a pair comes anew.
pub(super) fn book_again(symbol: &str) -> Vec<String> {
    let stream = Stream { channel: "obdiff", event: symbol.to_owned() };
    vec![stream.join(false), stream.join(true)]
}

/// The messages after which streams that have stopped come anew. A second join alone would be refused.
fn again(names: &[&str]) -> Vec<String> {
    let named = |name: &&str| {
        let (channel, event) = name.split_once(':')?;
        let channel = CHANNELS.into_iter().find(|known| *known == channel)?;
        let stream = Stream { channel, event: event.to_owned() };
        Some([stream.join(false), stream.join(true)])
    };
    names.iter().filter_map(named).flatten().collect()
}

/// A channel of a pair.
struct Stream {
    channel: &'static str,
    event: String,
}

impl Stream {
    /// As in the data: `obdiff:BTCTRY`.
    fn name(&self) -> String {
        format!("{}:{}", self.channel, self.event)
    }

    fn join(&self, join: bool) -> String {
        let Self { channel, event } = self;
        serde_json::json!([151, {"type": 151, "channel": channel, "event": event, "join": join}]).to_string()
    }

    /// Whether something comes right after the join. A candle comes with the next trade only, which may take hours.
    fn speaks_at_once(&self) -> bool {
        self.channel != "tradeview"
    }
}

/// What is joined. Candles come first: by the time anything else comes, nothing of them is missed any more.
fn streams(config: &Config, symbols: &[String]) -> Vec<Stream> {
    let stream = |channel, event: &str| Stream { channel, event: event.to_owned() };
    // The frame of all pairs is of use only to those who know which of them they want.
    let all_tickers =
        config.kinds.contains(&Kind::Ticker) && !config.symbols.looks_up() && symbols.len() >= TICKER_ALL_FROM;
    let mut streams = Vec::new();
    if all_tickers {
        streams.push(stream("ticker", "all"));
    }
    for symbol in symbols {
        if config.kinds.contains(&Kind::Candles) {
            streams.push(stream("tradeview", &format!("{symbol}_1")));
        }
        for kind in &config.kinds {
            match kind {
                Kind::Ticker if !all_tickers => streams.push(stream("ticker", symbol)),
                Kind::Trades => streams.push(stream("trade", symbol)),
                Kind::Book => streams.push(stream("obdiff", symbol)),
                Kind::Ticker | Kind::Candles | Kind::Session | Kind::App => {}
            }
        }
    }
    streams
}

/// What the connection looks at.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(default)]
    ok: Option<bool>,
}

/// `[431,{…,"channel":"obdiff","event":"BTCTRY"}]` is data, `[100,{"ok":false,…}]` a refusal.
fn read(text: &str) -> Reading<'_> {
    let Ok((kind, head)) = serde_json::from_str::<(i64, Head<'_>)>(text) else { return Reading::Other };
    match (kind, head.channel, head.event) {
        (100, ..) if head.ok == Some(false) => Reading::Refusal,
        (401 | 402 | 421 | 422 | 428 | 431 | 432, Some(channel), Some(event)) => {
            Reading::Data(format!("{channel}:{event}").into())
        }
        _ => Reading::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Settings;

    fn config(symbols: usize, kinds: &[Kind]) -> Config {
        let symbols = (0..symbols).map(|n| format!("s{n}_try")).collect();
        config_of(symbols, kinds)
    }

    fn config_of(symbols: Vec<String>, kinds: &[Kind]) -> Config {
        Config::from(&Settings { symbols, kinds: kinds.to_vec(), ..Settings::default() })
    }

    fn dialog(config: &Config) -> Dialog {
        super::dialog(config, &config.symbols.names(), &attempts())
    }

    #[test]
    fn a_pair_is_joined_channel_by_channel() {
        let dialog = dialog(&config(1, &[]));
        assert_eq!(
            dialog.messages,
            [
                "tradeview\",\"event\":\"S0TRY_1",
                "ticker\",\"event\":\"S0TRY",
                "trade\",\"event\":\"S0TRY",
                "obdiff\",\"event\":\"S0TRY"
            ]
            .map(|named| format!(r#"[151,{{"channel":"{named}","join":true,"type":151}}]"#))
        );
        assert_eq!(dialog.streams, ["ticker:S0TRY", "trade:S0TRY", "obdiff:S0TRY"]);
        assert_eq!(dialog.url, "wss://ws-feed-pro.btcturk.com/");
    }

    #[test]
    fn many_pairs_share_their_tickers() {
        let dialog = dialog(&config(379, &[Kind::Ticker, Kind::Book]));
        assert_eq!(dialog.messages.len(), 380);
        assert_eq!(dialog.streams[0], "ticker:all");
        assert!(dialog.first_data > FIRST_DATA + PACE * 379);
        let found: Vec<String> = (0..379).map(|n| format!("S{n}TRY")).collect();
        let dialog = super::dialog(&config_of(vec!["*TRY".into()], &[Kind::Ticker]), &found, &attempts());
        assert_eq!(dialog.streams[378], "ticker:S378TRY", "who looks pairs up gets the tickers of those only");
    }

    #[test]
    fn a_book_comes_again_by_leaving_and_joining() {
        let messages = book_again("BTCTRY");
        assert!(messages[0].contains(r#""join":false"#) && messages[1].contains(r#""join":true"#), "{messages:?}");
        assert_eq!(again(&["obdiff:BTCTRY", "nothing"]), messages);
    }

    #[test]
    fn frames_are_told_apart() {
        for (text, reading) in [
            (r#"[991,{"type":991,"current":"6.0.0","min":"2.3.0"}]"#, Reading::Other),
            (r#"[100,{"type":100,"ok":true,"message":"join|obdiff:BTCUSDT"}]"#, Reading::Other),
            (r#"[100,{"type":100,"ok":false,"message":"join|obdiff:BTCUSDT"}]"#, Reading::Refusal),
            (
                r#"[431,{"CS":1,"AO":[],"channel":"obdiff","event":"BTCTRY","type":431}]"#,
                Reading::Data("obdiff:BTCTRY".into()),
            ),
            (r#"[401,{"channel":"ticker","event":"all","items":[],"type":401}]"#, Reading::Data("ticker:all".into())),
            (r#"[801,{"channel":"x","event":"y"}]"#, Reading::Other),
            (r#"{"a":1}"#, Reading::Other),
            ("", Reading::Other),
        ] {
            assert_eq!(read(text), reading, "{text}");
        }
    }
}
