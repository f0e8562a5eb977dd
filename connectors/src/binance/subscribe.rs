//! Which streams are asked for, over how many connections and in how many messages.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use akis_model::Kind;

use super::config::Config;
use crate::attempts::Attempts;
use crate::dialog::{Dialog, Reading};

/// The venue closes a connection that asks for more.
const STREAMS_PER_CONNECTION: usize = 1024;

/// So many names in one message have been seen to be accepted.
const NAMES_PER_MESSAGE: usize = 200;

/// Spot pings every 20 s, so three of them are missing. Futures ping every three minutes, but there one stream or
/// another always speaks.
const SILENCE: Duration = Duration::from_secs(60);

/// The venue closes connections after 24 hours.
const LIFETIME: Duration = Duration::from_secs(23 * 3600);

/// So many connections may be tried in so long; the venue closes its doors to an address that tries more.
const ATTEMPTS: (usize, Duration) = (300, Duration::from_secs(300));

/// An acknowledgement proves nothing: a name that does not exist is acknowledged and silent.
const FIRST_DATA: Duration = Duration::from_secs(30);

/// What one connection carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Carried {
    /// Where the venue has it.
    pub(super) path: &'static str,
    /// None: the connection is not needed any more.
    pub(super) streams: Vec<String>,
}

/// Spreads the streams of the symbols over connections: those that are open come first, in their order, keep what is still
/// wanted and take more where they have room.
pub(super) fn spread(config: &Config, symbols: &[String], open: &[&Dialog]) -> Vec<Carried> {
    let market = config.market;
    let mut missing: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for stream in symbols.iter().flat_map(|symbol| streams(symbol, &config.kinds)) {
        let path = if is_of_book(&stream) { market.book_path } else { market.tape_path };
        missing.entry(path).or_default().push(stream);
    }
    let wanted: HashSet<&str> = missing.values().flatten().map(String::as_str).collect();
    let path_of = |dialog: &Dialog| {
        let is_of_books = dialog.streams.first().is_some_and(|stream| is_of_book(stream));
        if is_of_books { market.book_path } else { market.tape_path }
    };
    let still = |dialog: &&Dialog| {
        let streams = dialog.streams.iter().filter(|stream| wanted.contains(stream.as_str())).cloned().collect();
        Carried { path: path_of(dialog), streams }
    };
    let mut carried: Vec<Carried> = open.iter().map(still).collect();
    let known: HashSet<String> = carried.iter().flat_map(|carried| &carried.streams).cloned().collect();
    for (path, streams) in missing {
        let mut streams = streams.into_iter().filter(|stream| !known.contains(stream));
        for with_room in carried.iter_mut().filter(|carried| carried.path == path) {
            let room = STREAMS_PER_CONNECTION - with_room.streams.len();
            with_room.streams.extend(streams.by_ref().take(room));
        }
        loop {
            let streams: Vec<String> = streams.by_ref().take(STREAMS_PER_CONNECTION).collect();
            if streams.is_empty() {
                break;
            }
            carried.push(Carried { path, streams });
        }
    }
    carried
}

/// The dialog of a connection that carries these streams.
pub(super) fn dialog(config: &Config, attempts: &Arc<Attempts>, path: &str, streams: Vec<String>) -> Dialog {
    let market = config.market;
    Dialog {
        venue: market.name,
        url: format!("{}{path}", config.ws_url),
        messages: streams.chunks(NAMES_PER_MESSAGE).zip(1..).map(|(names, id)| subscribe(names, id)).collect(),
        pace: market.pace,
        streams,
        first_data: FIRST_DATA,
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

/// Leaves the streams and asks for them again.
fn again(streams: &[&str]) -> Vec<String> {
    let message = |method, (names, id): (&[&str], u64)| {
        serde_json::json!({ "method": method, "params": names, "id": id }).to_string()
    };
    let parts = || streams.chunks(NAMES_PER_MESSAGE).zip(1_000_000..);
    parts().flat_map(|part| [message("UNSUBSCRIBE", part), message("SUBSCRIBE", part)]).collect()
}

/// The streams of one symbol, which stand in their names with small ASCII letters.
fn streams(symbol: &str, kinds: &[Kind]) -> Vec<String> {
    let name = symbol.to_ascii_lowercase();
    kinds
        .iter()
        .flat_map(|kind| match kind {
            Kind::Ticker => ["bookTicker", "ticker"].as_slice(),
            Kind::Trades => &["aggTrade"],
            Kind::Book => &["depth@100ms"],
            Kind::Candles => &["kline_1m", "kline_5m", "kline_15m", "kline_1h", "kline_4h", "kline_1d"],
            Kind::Session | Kind::App => &[],
        })
        .map(|stream| format!("{name}@{stream}"))
        .collect()
}

/// Whether a stream tells of the book or its best prices. Source: "Websocket Market Streams",
/// <https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams>.
pub(super) fn is_of_book(stream: &str) -> bool {
    stream.split_once('@').is_some_and(|(_, kind)| kind == "bookTicker" || kind.starts_with("depth"))
}

fn subscribe(names: &[String], id: u64) -> String {
    serde_json::json!({ "method": "SUBSCRIBE", "params": names, "id": id }).to_string()
}

/// `{"stream":"btcusdt@aggTrade","data":{…}}` is data; replies are bare objects, also on combined connections.
fn read(text: &str) -> Reading<'_> {
    const SHUTDOWN: &str = "\"serverShutdown\"";
    if let Some((stream, rest)) = text.strip_prefix("{\"stream\":\"").and_then(|rest| rest.split_once('"')) {
        return if stream == "!serverShutdown" || rest.starts_with(",\"data\":{\"e\":\"serverShutdown\"") {
            Reading::Leaving
        } else {
            Reading::Data(stream.into())
        };
    }
    if text.starts_with("{\"e\":") && text.contains(SHUTDOWN) {
        Reading::Leaving
    } else if text.contains("\"code\":") || text.contains("\"error\":") {
        Reading::Refusal
    } else {
        Reading::Other
    }
}

/// Reads a line as a frame.
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz_read(line: &str) {
    let _ = read(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binance::{SPOT, USDM};
    use crate::registry::Settings;

    fn config(symbols: usize, kinds: &[Kind]) -> Config {
        let symbols = (0..symbols).map(|i| format!("S{i}USDT")).collect();
        Config::new(&SPOT, &Settings { symbols, kinds: kinds.to_vec(), ..Settings::default() })
    }

    fn dialogs(config: &Config) -> Vec<Dialog> {
        let carried = spread(config, &config.symbols.names(), &[]);
        carried.into_iter().map(|Carried { path, streams }| dialog(config, &attempts(), path, streams)).collect()
    }

    #[test]
    fn streams_are_left_and_asked_for_again() {
        assert_eq!(
            again(&["a@trade", "b@trade"]),
            [
                r#"{"id":1000000,"method":"UNSUBSCRIBE","params":["a@trade","b@trade"]}"#,
                r#"{"id":1000000,"method":"SUBSCRIBE","params":["a@trade","b@trade"]}"#
            ]
        );
    }

    #[test]
    fn a_symbol_has_the_streams_of_its_kinds() {
        assert_eq!(
            streams("BTCUSDT", &config(1, &[]).kinds),
            [
                "bookTicker",
                "ticker",
                "aggTrade",
                "depth@100ms",
                "kline_1m",
                "kline_5m",
                "kline_15m",
                "kline_1h",
                "kline_4h",
                "kline_1d"
            ]
            .map(|stream| format!("btcusdt@{stream}"))
        );
        assert_eq!(streams("币安人生USDT", &[Kind::Trades]), ["币安人生usdt@aggTrade"]);
        assert!(streams("BTCUSDT", &[Kind::Session]).is_empty());
    }

    #[test]
    fn many_symbols_are_spread_over_connections_and_messages() {
        let dialogs = dialogs(&config(225, &[]));
        assert_eq!(dialogs.iter().map(|dialog| dialog.streams.len()).collect::<Vec<_>>(), [1024, 1024, 202]);
        assert_eq!(dialogs.iter().map(|dialog| dialog.messages.len()).collect::<Vec<_>>(), [6, 6, 2]);
        assert!(dialogs[0].messages[0].contains("\"method\":\"SUBSCRIBE\""));
    }

    #[test]
    fn connections_keep_what_they_carry_and_take_what_there_is_room_for() {
        let config = config(103, &[]);
        let open = dialogs(&config);
        assert_eq!(open.iter().map(|dialog| dialog.streams.len()).collect::<Vec<_>>(), [1024, 6]);
        let open: Vec<&Dialog> = open.iter().collect();
        let mut symbols = config.symbols.names();
        let same: Vec<_> = spread(&config, &symbols, &open).into_iter().map(|carried| carried.streams).collect();
        assert_eq!(same, [open[0].streams.clone(), open[1].streams.clone()], "nothing changes");
        symbols.remove(5);
        symbols.push("NEWUSDT".into());
        let carried = spread(&config, &symbols, &open);
        assert_eq!(carried.iter().map(|carried| carried.streams.len()).collect::<Vec<_>>(), [1024, 6]);
        let name = |name: &str| carried[0].streams.iter().filter(|stream| stream.starts_with(name)).count();
        assert_eq!((name("s5usdt@"), name("newusdt@")), (0, 10));
        let carried = spread(&config, &symbols[..1], &open);
        assert_eq!(carried.iter().map(|carried| carried.streams.len()).collect::<Vec<_>>(), [10, 0]);
    }

    #[test]
    fn futures_are_asked_for_where_the_venue_has_them() {
        let settings = Settings { symbols: vec!["BTCUSDT".into()], ..Settings::default() };
        let dialogs = dialogs(&Config::new(&USDM, &settings));
        let [tape, book] = dialogs.as_slice() else { panic!("{dialogs:?}") };
        assert_eq!(tape.url, "wss://fstream.binance.com/market/stream");
        assert_eq!(book.url, "wss://fstream.binance.com/public/stream");
        assert_eq!(book.streams, ["btcusdt@bookTicker", "btcusdt@depth@100ms"]);
        assert_eq!(tape.streams.len(), 8);
    }

    #[test]
    fn symbols_are_taken_once_and_in_upper_case() {
        let symbols = ["btcusdt", "BTCUSDT", "币安人生usdt"].map(str::to_owned).to_vec();
        let settings = Settings { symbols, ws_url: Some("ws://127.0.0.1:1/".into()), ..Settings::default() };
        let config = Config::new(&SPOT, &settings);
        assert_eq!(config.symbols.names(), ["BTCUSDT", "币安人生USDT"]);
        assert_eq!((config.ws_url.as_str(), config.rest_url.as_str()), ("ws://127.0.0.1:1", SPOT.rest_url));
    }

    #[test]
    fn frames_are_told_apart() {
        for (text, reading) in [
            (r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade"}}"#, Reading::Data("btcusdt@aggTrade".into())),
            (r#"{"result":null,"id":1}"#, Reading::Other),
            (r#"{"code":2,"msg":"Invalid request"}"#, Reading::Refusal),
            (r#"{"error":{"code":4,"msg":"Too many subscriptions"}}"#, Reading::Refusal),
            (r#"{"e":"serverShutdown","E":1770123456789}"#, Reading::Leaving),
            (r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}"#, Reading::Leaving),
            ("", Reading::Other),
            (r#"{"stream":"btcusdt"#, Reading::Other),
        ] {
            assert_eq!(read(text), reading, "{text}");
        }
    }
}
