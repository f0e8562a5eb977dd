use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::hub::{Client, Route};
use super::super::query::Target;
use super::super::rest;
use super::*;
use crate::sim::client::{Outgoing, QUEUE_FRAMES};

/// Ten seconds before a full minute.
const START: i64 = 1_791_383_690_000;

/// A generator and the one client that listens to it.
struct Run {
    generator: Generator,
    hub: Hub,
    queue: mpsc::Receiver<Outgoing>,
}

impl Run {
    fn new(symbols: &[&str], rate: u32, seed: u64, start: i64, streams: &[&str]) -> Self {
        let symbols: Vec<String> = symbols.iter().map(|&symbol| symbol.into()).collect();
        let (sender, queue) = mpsc::channel(QUEUE_FRAMES);
        let mut hub = Hub::default();
        let client = Client {
            combined: true,
            queue: sender,
            cut: CancellationToken::new(),
            streams: Vec::new(),
            route: Route::All,
        };
        hub.join(1, client, streams.iter().map(|&stream| stream.into()).collect());
        Self { generator: Generator::new(&crate::binance::SPOT, &symbols, rate, seed, start), hub, queue }
    }

    /// Lets time pass and returns the frames that came.
    fn pass(&mut self, ms: i64) -> Vec<Value> {
        let until = self.generator.now() + ms;
        let mut frames = Vec::new();
        while self.generator.now() < until {
            self.generator.advance(self.generator.now() + STEP_MS, &mut self.hub);
            while let Ok(Outgoing::Text(text)) = self.queue.try_recv() {
                frames.push(serde_json::from_str(&text).unwrap());
            }
        }
        frames
    }

    fn get(&mut self, target: &str) -> Value {
        let body = rest::answer(&Target::parse(target).unwrap(), &mut self.generator).unwrap();
        serde_json::from_str(&body).unwrap()
    }
}

/// Removes every time, which is what two runs at different moments differ in.
fn timeless(frame: &mut Value) {
    match frame {
        Value::Object(fields) => {
            let is_trade = fields.get("e") == Some(&"trade".into());
            fields.retain(|name, value| {
                !matches!(name.as_str(), "E" | "T" | "O" | "C") && (name != "t" || !value.is_i64() || is_trade)
            });
            fields.values_mut().for_each(timeless);
        }
        Value::Array(items) => items.iter_mut().for_each(timeless),
        _ => {}
    }
}

const ALL_KINDS: [&str; 9] = [
    "btcusdt@trade",
    "btcusdt@aggTrade",
    "btcusdt@bookTicker",
    "btcusdt@ticker",
    "btcusdt@miniTicker",
    "btcusdt@kline_1m",
    "btcusdt@depth@100ms",
    "ethusdt@depth",
    "ethusdt@depth5@100ms",
];

#[test]
fn equal_seeds_give_equal_frames_shifted_in_time() {
    let run = |seed, start| {
        let mut frames = Run::new(&["BTCUSDT", "ETHUSDT"], 300, seed, start, &ALL_KINDS).pass(15_000);
        frames.iter_mut().for_each(timeless);
        frames
    };
    let frames = run(1, START);
    for kind in ALL_KINDS {
        assert!(frames.iter().any(|frame| frame["stream"] == kind), "{kind} never came");
    }
    assert_eq!(frames, run(1, START));
    assert_eq!(frames, run(1, START + 3 * 86_400_000));
    assert_ne!(frames, run(2, START));
}

#[test]
fn the_rate_is_kept_and_all_symbols_live() {
    let symbols = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT"];
    let mut run = Run::new(&symbols, 1234, 5, START, &[]);
    let ids = |run: &Run| run.generator.listings().iter().map(|l| l.market.update_id()).collect::<Vec<_>>();
    let before = ids(&run);
    run.pass(60_000);
    let changes: Vec<i64> = ids(&run).iter().zip(before).map(|(after, before)| after - before).collect();
    let total: i64 = changes.iter().sum();
    // Each event changes one level, some several.
    assert!((60 * 1234..60 * 1234 * 2).contains(&total), "{changes:?}");
    assert!(changes[3] > 0 && changes[3] * 20 < changes[0], "the fourth one is quiet: {changes:?}");
}

#[test]
fn candles_follow_from_the_trades_and_close_at_the_minute() {
    let streams = ["btcusdt@trade", "btcusdt@kline_1m", "btcusdt@kline_5m"];
    let mut run = Run::new(&["BTCUSDT"], 200, 9, START, &streams);
    let frames = run.pass(140_000);
    let minute = |time: &Value| time.as_i64().unwrap().div_euclid(MINUTE_MS);
    let closed: Vec<&Value> = frames
        .iter()
        .map(|frame| &frame["data"]["k"])
        .filter(|candle| candle["x"] == true && candle["i"] == "1m")
        .collect();
    assert_eq!(closed.len(), 3, "three minutes end in the run");
    for candle in &closed[1..] {
        let trades: Vec<&Value> = frames
            .iter()
            .map(|frame| &frame["data"])
            .filter(|data| data["e"] == "trade" && minute(&data["T"]) == minute(&candle["t"]))
            .collect();
        let (first, last) = (trades[0], trades[trades.len() - 1]);
        assert_eq!((&candle["o"], &candle["f"]), (&first["p"], &first["t"]));
        assert_eq!((&candle["c"], &candle["L"]), (&last["p"], &last["t"]));
        assert_eq!(candle["n"], trades.len());
        let hundredths = |price: &Value| price.as_str().unwrap().replace('.', "").parse::<i64>().unwrap();
        assert_eq!(Some(hundredths(&candle["h"])), trades.iter().map(|trade| hundredths(&trade["p"])).max());
        assert_eq!(hundredths(&candle["v"]), trades.iter().map(|trade| hundredths(&trade["q"])).sum::<i64>());
        let row = run.get(&format!("/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={}&limit=1", candle["t"]));
        assert_eq!((&row[0][1], &row[0][4], &row[0][5]), (&candle["o"], &candle["c"], &candle["v"]));
        assert_eq!((&row[0][7], &row[0][8], &row[0][6]), (&candle["q"], &candle["n"], &candle["T"]));
    }
    let rows = run.get("/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1000");
    assert_eq!(rows.as_array().map(Vec::len), Some(504));
    let open = run.get("/api/v3/klines?symbol=BTCUSDT&interval=5m&limit=1");
    let told = frames.iter().rev().map(|frame| &frame["data"]["k"]).find(|candle| candle["i"] == "5m").unwrap();
    assert_eq!((&open[0][0], &open[0][1]), (&told["t"], &told["o"]));
}

#[test]
fn partial_books_and_tickers_show_the_book() {
    let mut run = Run::new(&["BTCUSDT"], 500, 2, START, &["btcusdt@depth20@100ms", "btcusdt@ticker"]);
    let frames = run.pass(1_000);
    let partial = frames.iter().rev().find(|f| f["stream"] == "btcusdt@depth20@100ms").unwrap();
    assert_eq!(partial["data"]["bids"].as_array().map(Vec::len), Some(20));
    let ticker = &frames.iter().find(|f| f["stream"] == "btcusdt@ticker").unwrap()["data"];
    assert_eq!(ticker["n"].as_i64().unwrap(), ticker["L"].as_i64().unwrap() - ticker["F"].as_i64().unwrap() + 1);
    let row = run.get("/api/v3/ticker/24hr?symbol=BTCUSDT");
    assert_eq!(row["openPrice"], ticker["o"]);
    assert_eq!(run.get("/api/v3/ticker/24hr").as_array().map(Vec::len), Some(1));
}

#[test]
fn a_long_sleep_is_not_made_up_for() {
    let mut run = Run::new(&["BTCUSDT"], 1000, 2, START, &["btcusdt@kline_1m"]);
    run.generator.advance(START + 3_600_000, &mut run.hub);
    assert_eq!(run.generator.now(), START + 3_600_000);
    let frames = run.pass(60_000);
    let closed: Vec<&Value> = frames.iter().map(|f| &f["data"]["k"]).filter(|k| k["x"] == true).collect();
    assert_eq!(closed.len(), 61, "quiet minutes close too");
    assert_eq!(closed[1]["n"], 0);
    assert_eq!(closed[1]["f"], -1);
}
