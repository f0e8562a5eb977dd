use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::binance::{SPOT, USDM};
use crate::frame::RawFrame;
use crate::ports::Stats;
use crate::registry::Settings;
use crate::symbols::{REFRESH_EVERY, SEARCH_EVERY};

const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn targets_are_what_the_venue_expects() {
    assert_eq!(Call::book(&SPOT, "BTCUSDT").target, "/api/v3/depth?symbol=BTCUSDT&limit=1000");
    assert_eq!(Call::book(&USDM, "BTCUSDT").target, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000");
    assert_eq!(Call::info(&USDM).target, "/fapi/v1/exchangeInfo");
    assert_eq!(Call::book(&SPOT, "币USDT").target, "/api/v3/depth?symbol=%E5%B8%81USDT&limit=1000");
    let symbols = ["BTCUSDT", "ETHTRY"].map(str::to_owned);
    assert_eq!(
        Call::info_of(&SPOT, &symbols).target,
        "/api/v3/exchangeInfo?symbols=%5B%22BTCUSDT%22%2C%22ETHTRY%22%5D"
    );
}

/// What the calls that wait ask for, in the order in which they would be made now.
fn order(calls: &mut Calls) -> Vec<String> {
    let next = || {
        let (lane, _) = calls.first(now_ms())?;
        calls.pop(lane)
    };
    std::iter::from_fn(next).map(|call| call.target).collect()
}

/// Statuses to answer with, one after the other, then 200; and what was asked.
struct Script {
    /// What has this in its address is always answered with 503.
    broken: Option<&'static str>,
    statuses: VecDeque<u16>,
    /// What `Retry-After` says.
    hold_s: u32,
    asked: Vec<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self { broken: None, statuses: VecDeque::new(), hold_s: 1, asked: Vec::new() }
    }
}

type Shared = Arc<Mutex<Script>>;

async fn answer(State(script): State<Shared>, uri: Uri) -> impl IntoResponse {
    let mut script = script.lock().unwrap();
    script.asked.push(uri.to_string());
    let is_broken = script.broken.is_some_and(|broken| uri.to_string().contains(broken));
    let status = if is_broken { 503 } else { script.statuses.pop_front().unwrap_or(200) };
    let headers = [("retry-after", script.hold_s.to_string()), ("x-mbx-used-weight-1m", "70".to_owned())];
    (StatusCode::from_u16(status).unwrap(), headers, format!("body {status}"))
}

struct Venue {
    script: Shared,
    requests: mpsc::Sender<Request>,
    frames: mpsc::Receiver<RawFrame>,
    stats: Arc<Stats>,
    cancel: CancellationToken,
}

impl Venue {
    async fn start(symbols: &[&str], statuses: &[u16]) -> Self {
        Self::scripted(symbols, Script { statuses: statuses.iter().copied().collect(), ..Script::default() }).await
    }

    async fn scripted(symbols: &[&str], script: Script) -> Self {
        let script: Shared = Arc::new(Mutex::new(script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            symbols: symbols.iter().copied().map(str::to_owned).collect(),
            rest_url: Some(format!("http://{}", listener.local_addr().unwrap())),
            ..Settings::default()
        };
        let config = Config::new(&SPOT, &settings);
        let (cancel, stats) = (CancellationToken::new(), Arc::new(Stats::default()));
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let stopped = cancel.clone().cancelled_owned();
        tokio::spawn(axum::serve(listener, routes).with_graceful_shutdown(stopped).into_future());
        let ((frames_in, frames), (requests, asked)) = (mpsc::channel(8), mpsc::channel(8));
        let outlet = Outlet::new(frames_in, Arc::clone(&stats), cancel.clone());
        let calls = Calls::new(http::client().unwrap(), &config, mpsc::channel(1).0);
        tokio::spawn(async move { calls.serve(asked, &outlet).await });
        Self { script, requests, frames, stats, cancel }
    }

    async fn ask(&self, symbol: &str) {
        self.requests.send(Request::Book { symbol: symbol.into() }).await.unwrap();
    }

    async fn reply(&mut self) -> (String, u16, String) {
        loop {
            match timeout(WITHIN, self.frames.recv()).await.unwrap().unwrap().content {
                // The clock is compared beside everything else.
                Content::Reply { target, .. } if target.ends_with("/time") => {}
                Content::Reply { target, status, body } => return (target, status, body),
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[tokio::test]
async fn symbols_are_asked_for_once_and_books_on_request() {
    let mut venue = Venue::start(&["BTCUSDT"], &[]).await;
    let (target, status, body) = venue.reply().await;
    assert!(target.starts_with("/api/v3/exchangeInfo?symbols="));
    assert_eq!((status, body.as_str()), (200, "body 200"));
    venue.ask("BTCUSDT").await;
    assert_eq!(venue.reply().await.0, "/api/v3/depth?symbol=BTCUSDT&limit=1000");
}

#[tokio::test]
async fn a_refused_request_is_held_as_long_as_the_venue_says_and_made_again() {
    // Too many requests, and a ban.
    for refusal in [429, 418] {
        let mut venue = Venue::start(&[], &[refusal, 500]).await;
        let asked_at = Instant::now();
        for _ in 0..3 {
            venue.ask("BTCUSDT").await;
        }
        venue.ask("ETHUSDT").await;
        let (target, status, _) = venue.reply().await;
        assert!(status == 200 && target.contains("ETHUSDT"), "what has failed goes behind all others: {target}");
        assert!(asked_at.elapsed() >= Duration::from_secs(1), "held for Retry-After");
        assert!(venue.reply().await.0.contains("BTCUSDT"), "what waits is not asked for twice");
        let asked = venue.script.lock().unwrap().asked.clone();
        assert_eq!(
            asked.iter().filter(|target| target.contains("BTCUSDT")).count(),
            3,
            "{refusal}, 500, 200: {asked:?}"
        );
        assert_eq!((venue.stats.requests.get(), venue.stats.refused.get()), (5, 2));
    }
}

#[tokio::test]
async fn what_is_asked_for_while_all_is_held_is_taken_in() {
    let script = Script { statuses: [429].into(), hold_s: 600, ..Script::default() };
    let venue = Venue::scripted(&[], script).await;
    let most = venue.requests.max_capacity();
    for number in 0..most * 4 {
        let asked = timeout(WITHIN, venue.ask(&format!("S{number}USDT"))).await;
        assert!(asked.is_ok(), "there is always room: {number}");
    }
    assert_eq!(venue.script.lock().unwrap().asked.len(), 1, "all is held");
}

#[tokio::test]
async fn candles_of_the_past_let_everything_else_go_first() {
    let mut venue = Venue::start(&[], &[]).await;
    for interval in ["1m", "5m", "15m"] {
        let request = Request::Candles { symbol: "BTCUSDT".into(), interval, count: 500 };
        venue.requests.send(request).await.unwrap();
    }
    venue.ask("ETHUSDT").await;
    let mut targets = Vec::new();
    while targets.len() < 4 {
        targets.push(venue.reply().await.0);
    }
    let book = targets.iter().position(|target| target.contains("/depth?")).unwrap();
    assert!(book <= 1, "only one that was under way already may come first: {targets:?}");
}

#[tokio::test]
async fn a_list_of_names_that_is_refused_is_looked_up_in_the_list_of_all() {
    let mut venue = Venue::start(&["BTCUSDT", "GONEUSDT"], &[400]).await;
    let (target, status, _) = venue.reply().await;
    assert!(status == 400 && target.contains("GONEUSDT"));
    let (target, status, _) = venue.reply().await;
    assert_eq!((target.as_str(), status), ("/api/v3/exchangeInfo", 200));
    venue.ask("BTCUSDT").await;
    assert!(venue.reply().await.0.contains("/depth?"), "once");
}

#[tokio::test]
async fn a_request_that_can_never_succeed_is_answered() {
    let mut venue = Venue::start(&[], &[400]).await;
    venue.ask("NOSUCH").await;
    let (_, status, body) = venue.reply().await;
    assert_eq!((status, body.as_str()), (400, "body 400"));
}

#[tokio::test]
async fn a_request_that_always_fails_stops_no_other() {
    let mut venue = Venue::scripted(&[], Script { broken: Some("symbol=BADUSDT"), ..Script::default() }).await;
    venue.ask("BADUSDT").await;
    let candles = |symbol: &str| Request::Candles { symbol: symbol.into(), interval: "1m", count: 500 };
    venue.requests.send(candles("BADUSDT")).await.unwrap();
    venue.requests.send(candles("BTCUSDT")).await.unwrap();
    assert!(venue.reply().await.0.contains("/klines?symbol=BTCUSDT"));
    venue.ask("BTCUSDT").await;
    assert!(venue.reply().await.0.contains("/depth?symbol=BTCUSDT"));
}

#[tokio::test(start_paused = true)]
async fn until_symbols_are_found_they_are_looked_up_every_minute() {
    let settings = Settings { symbols: vec!["*TRY".into()], ..Settings::default() };
    let (found, mut listings) = mpsc::channel(1);
    let mut calls = Calls::new(http::client().unwrap(), &Config::new(&SPOT, &settings), found);
    let [info, days] = ["/api/v3/exchangeInfo", "/api/v3/ticker/24hr"];
    let reply = |target: &str, body: &str| Content::Reply { target: target.into(), status: 200, body: body.into() };
    let listed = |status| {
        reply(info, &format!(r#"{{"symbols":[{{"symbol":"BTCTRY","status":"{status}","quoteAsset":"TRY"}}]}}"#))
    };
    for (replies, is_found) in [
        (&[reply(days, "[]")] as &[_], false),
        (&[listed("TRADING")], false),
        (&[reply(info, r#"{"symbols":[]}"#), reply(days, "[]")], false),
        (&[listed("BREAK"), reply(days, "[]")], false),
        (&[reply(days, "[]"), listed("TRADING")], true),
        (&[listed("TRADING"), reply(days, "[]")], true),
    ] {
        calls.enqueue_due();
        calls.queue.retain(|call| *call != Call::time(&SPOT));
        let asked: Vec<String> = calls.queue.drain(..).map(|call| call.target).collect();
        assert_eq!(asked, [info, days]);
        replies.iter().for_each(|reply| calls.refresh.take(reply));
        tokio::time::advance(SEARCH_EVERY).await;
        let due = if is_found { REFRESH_EVERY - SEARCH_EVERY } else { Duration::ZERO };
        assert_eq!(calls.refresh.at(), Instant::now() + due, "{replies:?}");
        let _ = listings.try_recv();
        tokio::time::advance(due).await;
    }
}

#[tokio::test(start_paused = true)]
async fn trades_go_before_books_while_somebody_waits_for_them() {
    let config = Config::new(&SPOT, &Settings::default());
    let mut calls = Calls::new(http::client().unwrap(), &config, mpsc::channel(1).0);
    let trades = |symbol: &str| Request::Trades { symbol: symbol.into(), from_id: 7 };
    calls.enqueue(&Request::Book { symbol: "BTCUSDT".into() });
    calls.enqueue(&trades("BTCUSDT"));
    tokio::time::advance(TRADES_AWAITED).await;
    calls.enqueue(&trades("ETHUSDT"));
    tokio::time::advance(Duration::from_millis(1)).await;
    calls.drop_given_up();
    assert_eq!(
        order(&mut calls),
        ["/api/v3/aggTrades?symbol=ETHUSDT&fromId=7&limit=1000", "/api/v3/depth?symbol=BTCUSDT&limit=1000"]
    );
}

#[tokio::test(start_paused = true)]
async fn trades_that_fail_hold_up_nothing_but_trades() {
    let mut calls = Calls::new(http::client().unwrap(), &Config::new(&SPOT, &Settings::default()), mpsc::channel(1).0);
    let trades = |from_id| Request::Trades { symbol: "BTCUSDT".into(), from_id };
    for from_id in 1..=20 {
        calls.enqueue(&trades(from_id));
        assert_eq!(calls.first(now_ms()).map(|(lane, _)| lane), Some(Lane::Trades), "the pause is over");
        calls.on_failure(Lane::Trades, "503 Service Unavailable");
        assert!(calls.first(now_ms()).is_none(), "whoever misses them asks again");
        tokio::time::advance(TRADES_PAUSE).await;
    }
    assert!(calls.backoff.is_fresh());
    calls.enqueue(&trades(21));
    calls.on_failure(Lane::Trades, "503 Service Unavailable");
    calls.enqueue(&trades(22));
    calls.enqueue(&Request::Book { symbol: "BTCUSDT".into() });
    let (lane, call) = calls.first(now_ms()).unwrap();
    assert_eq!(
        (lane, calls.wait(lane, call, now_ms())),
        (Lane::Queue, Duration::ZERO),
        "a book does not wait for trades that wait"
    );
    calls.pop(lane);
    let (lane, call) = calls.first(now_ms()).unwrap();
    assert_eq!((lane, calls.wait(lane, call, now_ms())), (Lane::Trades, TRADES_PAUSE));
}

#[tokio::test(start_paused = true)]
async fn a_book_that_failed_once_does_not_wait_for_candles() {
    let mut calls = Calls::new(http::client().unwrap(), &Config::new(&SPOT, &Settings::default()), mpsc::channel(1).0);
    for interval in ["1m", "5m"] {
        calls.enqueue(&Request::Candles { symbol: "BTCUSDT".into(), interval, count: 500 });
    }
    let book = Call::book(&SPOT, "BTCUSDT");
    calls.enqueue(&Request::Book { symbol: "BTCUSDT".into() });
    calls.on_failure(Lane::Queue, "503 Service Unavailable");
    assert_eq!(calls.later.front(), Some(&book));
    calls.on_failure(Lane::Later, "503 Service Unavailable");
    assert_eq!(calls.later.back(), Some(&book), "it may fail for ever");
}

#[tokio::test]
async fn candles_leave_weight_for_trades_and_these_for_books() {
    let mut calls = Calls::new(http::client().unwrap(), &Config::new(&USDM, &Settings::default()), mpsc::channel(1).0);
    let now_ms = now_ms();
    let next = |calls: &Calls| calls.first(now_ms).map(|(lane, call)| (lane, calls.wait(lane, call, now_ms).is_zero()));
    let reserve = RESERVED_BOOKS * USDM.book_weight;
    calls.enqueue(&Request::Candles { symbol: "BTCUSDT".into(), interval: "1m", count: 500 });
    calls.weight.told(now_ms, now_ms, USDM.weight_limit - 2 * reserve - USDM.candles_weight);
    assert_eq!(next(&calls), Some((Lane::Later, true)));
    calls.weight.spend(now_ms, USDM.candles_weight);
    assert_eq!(next(&calls), Some((Lane::Later, false)), "candles leave what is left to trades and books");
    calls.enqueue(&Request::Trades { symbol: "BTCUSDT".into(), from_id: 7 });
    calls.enqueue(&Request::Book { symbol: "BTCUSDT".into() });
    calls.weight.told(now_ms, now_ms, USDM.weight_limit - reserve - USDM.trades_weight);
    assert_eq!(next(&calls), Some((Lane::Trades, true)));
    calls.weight.spend(now_ms, USDM.trades_weight);
    assert_eq!(next(&calls), Some((Lane::Queue, true)), "trades leave what is left to books");
    calls.pop(Lane::Queue);
    calls.pop(Lane::Later);
    assert_eq!(next(&calls), Some((Lane::Trades, false)));
}

#[tokio::test]
async fn of_each_subject_one_request_waits_and_it_covers_the_others() {
    let config = Config::new(&SPOT, &Settings::default());
    let mut calls = Calls::new(http::client().unwrap(), &config, mpsc::channel(1).0);
    for from_id in 1..=1_000 {
        calls.enqueue(&Request::Trades { symbol: "ETHUSDT".into(), from_id });
        calls.enqueue(&Request::Trades { symbol: "BTCUSDT".into(), from_id });
    }
    for count in [3, 500, 7] {
        calls.enqueue(&Request::Candles { symbol: "BTCUSDT".into(), interval: "1m", count });
    }
    calls.enqueue(&Request::Book { symbol: "BTCUSDT".into() });
    assert_eq!(
        order(&mut calls),
        [
            "/api/v3/aggTrades?symbol=BTCUSDT&fromId=1000&limit=1000",
            "/api/v3/aggTrades?symbol=ETHUSDT&fromId=1000&limit=1000",
            "/api/v3/depth?symbol=BTCUSDT&limit=1000",
            "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=500",
        ]
    );
}
