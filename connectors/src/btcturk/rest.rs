//! REST: candles when they are asked for, and by the clock what pairs there are and what time it is at the venue.
//!
//! Requests are made one after the other, seldom enough for the venue's limits, which count by address: 600 in 10
//! minutes on the host of the candles, and then 10 minutes of nothing.
//! Source: <https://docs.btcturk.com/rate-limits>.

use std::collections::VecDeque;
use std::time::Duration;

use akis_service::backoff::Backoff;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::config::Config;
use super::listing;
use crate::clock::{Clock, MEASURE_EVERY};
use crate::frame::Content;
use crate::http;
use crate::outlet::{Outlet, Stopped, now_ms};
use crate::symbols::{Listed, Lookup, Refresh};

/// Time between two requests: 500 in 10 minutes.
const PACE: Duration = Duration::from_millis(1_200);

/// Time between two looks at the trades of a pair, which are taken while nothing else waits: 24 in a minute, of some 100 that
/// the venue answers to an address with perhaps several normalizers.
const LATER_PACE: Duration = Duration::from_millis(2_500);

/// How long to wait when the venue says 429 and not how long.
const HOLD: Duration = Duration::from_secs(60);

/// Most that one 429 may hold everything.
const MOST_HOLD: Duration = Duration::from_secs(1_800);

/// What time it is at the venue.
const TIME: &str = "/api/v2/server/time";

/// The last trades of a pair.
const TRADES: &str = "/api/v2/trades";

/// A request that can be made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Two calls about the same are one.
    subject: String,
    /// Path and query; of candles without the time.
    target: String,
    /// So many seconds of candles, up to the moment of the call: with many pairs it waits for minutes.
    candles_s: Option<i64>,
}

impl Call {
    /// The latest candles of a pair, `interval` in minutes as the venue names it. They are asked for by time.
    pub(super) fn candles(symbol: &str, interval: &str, count: u32) -> Self {
        let minutes: i64 = interval.parse().unwrap_or(1);
        let target = format!("/v1/klines/history?symbol={symbol}&resolution={interval}");
        Self { subject: symbol.to_owned(), target, candles_s: Some(i64::from(count) * minutes * 60) }
    }

    /// The last 50 trades of a pair.
    pub(super) fn trades(symbol: &str) -> Self {
        Self::api(&format!("{TRADES}?pairSymbol={symbol}&last=50"))
    }

    /// What is the same whenever it is asked.
    fn api(target: &str) -> Self {
        Self { subject: target.to_owned(), target: target.to_owned(), candles_s: None }
    }

    /// Whether it goes to the server of candles.
    fn is_of_graph(&self) -> bool {
        self.candles_s.is_some()
    }

    /// Path and query of a call at this moment, in seconds.
    fn target_at(&self, now_s: i64) -> String {
        match self.candles_s {
            Some(candles_s) => format!("{}&from={}&to={now_s}", self.target, now_s - candles_s),
            None => self.target.clone(),
        }
    }
}

/// One of the venue's servers: that of candles fails by itself.
struct Host {
    base: String,
    backoff: Backoff,
    /// After a failure, until then.
    rests_until: Instant,
}

/// The calls that wait to be made.
pub(super) struct Calls {
    client: reqwest::Client,
    api: Host,
    graph: Host,
    /// At most one for each subject.
    queue: VecDeque<Call>,
    /// What is only asked for while nothing else waits: trades, to compare them with what came, and what has failed. At most one
    /// for each subject.
    later: VecDeque<Call>,
    later_at: Instant,
    next_at: Instant,
    /// What is asked for again and again: what pairs there are.
    infos: Vec<Call>,
    refresh: Refresh,
    measure_at: Instant,
    clock: Clock,
}

/// What the answer to a call means for the queue.
enum Outcome {
    /// It has been answered for good.
    Done(Content),
    /// Nothing is asked for so long, then the same again.
    Held(Duration),
    /// The same is asked behind all others, for what fails once may fail for ever, and nothing of its server for a while.
    Failed,
}

impl Calls {
    /// `found` is told what there is, when pairs have to be looked up.
    pub(super) fn new(client: reqwest::Client, config: &Config, found: mpsc::Sender<Vec<Listed>>) -> Self {
        let looks_up = config.symbols.looks_up();
        let [pairs, days] = listing::ROUTES.map(Call::api);
        let lookup = looks_up.then(|| Lookup::new(listing::ROUTES, listing::read, config.symbols.clone(), found));
        let now = Instant::now();
        let host = |base: &str| Host { base: base.to_owned(), backoff: config.backoff.clone(), rests_until: now };
        Self {
            client,
            api: host(&config.rest_url),
            graph: host(&config.graph_url),
            queue: VecDeque::new(),
            later: VecDeque::new(),
            later_at: now,
            next_at: now,
            infos: if looks_up { vec![pairs, days] } else { vec![pairs] },
            refresh: Refresh::new(config.refresh_every, lookup),
            measure_at: now,
            clock: Clock::default(),
        }
    }

    /// Makes the calls and hands on the answers, until the session stops or nobody can ask any more.
    pub(super) async fn serve(mut self, mut asked: mpsc::Receiver<Call>, outlet: &Outlet) {
        loop {
            while let Ok(call) = asked.try_recv() {
                self.enqueue(call);
            }
            self.enqueue_due();
            if let Some(at) = self.ready() {
                if outlet.unless_stopped(self.make_next(at, outlet)).await.is_err() {
                    return;
                }
            } else {
                let rested = self.queue.iter().map(|call| self.rests_until(call)).min();
                let later_at = (!self.later.is_empty()).then_some(self.later_at);
                let due = [Some(self.refresh.at()), rested, later_at]
                    .into_iter()
                    .flatten()
                    .fold(self.measure_at, Instant::min);
                let due = sleep_until(due);
                let next = async {
                    tokio::select! { call = asked.recv() => Some(call), () = due => None }
                };
                match outlet.unless_stopped(next).await {
                    Ok(Some(Some(call))) => self.enqueue(call),
                    Ok(None) => {}
                    Ok(Some(None)) | Err(Stopped) => return,
                }
            }
        }
    }

    /// Queues what is asked for by the clock.
    fn enqueue_due(&mut self) {
        let now = Instant::now();
        if self.measure_at <= now {
            self.measure_at = now + MEASURE_EVERY;
            self.enqueue(Call::api(TIME));
        }
        if self.refresh.is_due(now) {
            self.infos.clone().into_iter().for_each(|call| self.enqueue(call));
        }
        if self.ready().is_none()
            && self.later_at <= now
            && let Some(call) = self.later.pop_front()
        {
            self.later_at = now + LATER_PACE;
            self.queue.push_back(call);
        }
    }

    fn enqueue(&mut self, call: Call) {
        if call.target.starts_with(TRADES) {
            enqueue_in(&mut self.later, call);
        } else {
            self.later.retain(|failed| failed.subject != call.subject);
            enqueue_in(&mut self.queue, call);
        }
    }

    /// The place of the first call whose server does not rest.
    fn ready(&self) -> Option<usize> {
        let now = Instant::now();
        self.queue.iter().position(|call| self.rests_until(call) <= now)
    }

    fn rests_until(&self, call: &Call) -> Instant {
        if call.is_of_graph() { self.graph.rests_until } else { self.api.rests_until }
    }

    fn host(&mut self, call: &Call) -> &mut Host {
        if call.is_of_graph() { &mut self.graph } else { &mut self.api }
    }

    /// Makes the call at this place of the queue.
    async fn make_next(&mut self, at: usize, outlet: &Outlet) {
        sleep_until(self.next_at).await;
        let Some(call) = self.queue.get(at).cloned() else { return };
        outlet.stats().requests.add(1);
        let outcome = self.make(&call).await;
        let wait = match outcome {
            Outcome::Done(reply) => {
                self.queue.remove(at);
                self.host(&call).backoff.reset();
                self.refresh.take(&reply);
                if let Some(offset) = self.clock.offset() {
                    outlet.stats().clock_offset_ms.set(offset);
                }
                // The caller sees by itself that the session has stopped.
                let _ = outlet.send(reply).await;
                PACE
            }
            Outcome::Held(hold) => {
                outlet.stats().refused.add(1);
                hold.max(PACE)
            }
            Outcome::Failed => {
                outlet.stats().refused.add(1);
                let host = self.host(&call);
                host.rests_until = Instant::now() + host.backoff.next_wait();
                if let Some(failed) = self.queue.remove(at) {
                    enqueue_in(&mut self.later, failed);
                }
                PACE
            }
        };
        self.next_at = Instant::now() + wait;
    }

    async fn make(&mut self, call: &Call) -> Outcome {
        let asked_at = now_ms();
        let target = call.target_at(asked_at.div_euclid(1_000));
        let url = format!("{}{target}", self.host(call).base);
        let response = match self.client.get(url).send().await {
            Ok(response) => response,
            Err(error) => return self.failed(call, &error),
        };
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let hold = hold(&response);
            warn!(venue = "btcturk", hold_s = hold.as_secs(), "too many requests, holding all");
            return Outcome::Held(hold);
        }
        // 400 and 404 are about what was asked for and stay so; everything else may pass.
        if !(status.is_success() || status == StatusCode::BAD_REQUEST || status == StatusCode::NOT_FOUND) {
            return self.failed(call, &status);
        }
        match http::body(response).await {
            Ok(body) => {
                if call.target == TIME {
                    self.clock.take(&body, asked_at, now_ms());
                }
                Outcome::Done(Content::Reply { target: target.clone(), status: status.as_u16(), body })
            }
            Err(error) => self.failed(call, &error),
        }
    }

    fn failed(&mut self, call: &Call, reason: &dyn std::fmt::Display) -> Outcome {
        if self.host(call).backoff.is_fresh() {
            info!(venue = "btcturk", target = call.target, %reason, "request failed, trying again behind all others");
        }
        Outcome::Failed
    }
}

/// Queues a call behind all others; what it is about waits once, and the newest counts.
fn enqueue_in(queue: &mut VecDeque<Call>, call: Call) {
    match queue.iter_mut().find(|waiting| waiting.subject == call.subject) {
        Some(waiting) => *waiting = call,
        None => queue.push_back(call),
    }
}

/// How long the venue wants no requests.
fn hold(response: &Response) -> Duration {
    http::retry_after(response.headers()).unwrap_or(HOLD).min(MOST_HOLD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Settings;
    use crate::symbols::REFRESH_EVERY;

    fn calls(symbols: &[&str]) -> (Calls, mpsc::Receiver<Vec<Listed>>) {
        let symbols = symbols.iter().copied().map(str::to_owned).collect();
        let config = Config::from(&Settings { symbols, ..Settings::default() });
        let (found, listings) = mpsc::channel(1);
        (Calls::new(http::client().unwrap(), &config, found), listings)
    }

    fn reply(target: &str, body: &str) -> Content {
        Content::Reply { target: target.into(), status: 200, body: body.into() }
    }

    fn targets(calls: &Calls) -> Vec<&str> {
        calls.queue.iter().map(|call| call.target.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn calls_about_the_same_wait_once_and_the_newest_counts() {
        let (mut calls, _listings) = calls(&["BTCTRY"]);
        for (symbol, count) in [("BTCTRY", 50), ("ETHTRY", 100), ("BTCTRY", 100)] {
            calls.enqueue(Call::candles(symbol, "1", count));
        }
        let targets = calls.queue.iter().map(|call| call.target_at(9_000)).collect::<Vec<_>>();
        assert_eq!(
            targets,
            [
                "/v1/klines/history?symbol=BTCTRY&resolution=1&from=3000&to=9000",
                "/v1/klines/history?symbol=ETHTRY&resolution=1&from=3000&to=9000",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn trades_are_compared_slowly_and_while_nothing_else_waits() {
        let (mut calls, _listings) = calls(&["BTCTRY"]);
        for symbol in ["BTCTRY", "ETHTRY", "BTCTRY"] {
            calls.enqueue(Call::trades(symbol));
        }
        calls.enqueue_due();
        assert_eq!(targets(&calls), [TIME, listing::ROUTES[0]]);
        for symbol in ["BTCTRY", "ETHTRY"] {
            calls.queue.clear();
            calls.enqueue_due();
            assert_eq!(targets(&calls), [format!("/api/v2/trades?pairSymbol={symbol}&last=50")]);
            calls.queue.clear();
            calls.enqueue_due();
            assert!(targets(&calls).is_empty(), "not before its time");
            tokio::time::advance(LATER_PACE).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pairs_are_looked_up_every_day_and_the_clock_more_often() {
        for (symbols, looked_up) in [
            (&["BTCTRY"] as &[_], &["/api/v2/server/exchangeinfo"] as &[_]),
            (&["*TRY"], &["/api/v2/server/exchangeinfo", "/api/v2/ticker"]),
        ] {
            let (mut calls, _listings) = calls(symbols);
            calls.enqueue_due();
            assert_eq!(targets(&calls), [&[TIME], looked_up].concat());
            calls.queue.clear();
            for (target, body) in looked_up.iter().zip([
                r#"{"data":{"symbols":[{"name":"BTCTRY","status":"TRADING","denominator":"TRY"}]}}"#,
                r#"{"data":[]}"#,
            ]) {
                calls.refresh.take(&reply(target, body));
            }
            tokio::time::advance(MEASURE_EVERY).await;
            calls.enqueue_due();
            assert_eq!(targets(&calls), [TIME]);
            tokio::time::advance(REFRESH_EVERY).await;
            calls.enqueue_due();
            assert_eq!(targets(&calls), [&[TIME], looked_up].concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn until_pairs_are_found_they_are_looked_up_every_minute() {
        let (mut calls, _listings) = calls(&["*TRY"]);
        for body in ["nonsense", r#"{"data":{"symbols":[]}}"#] {
            calls.enqueue_due();
            calls.queue.retain(|call| call.target != TIME);
            assert_eq!(targets(&calls), listing::ROUTES);
            calls.queue.clear();
            calls.refresh.take(&reply(listing::ROUTES[1], r#"{"data":[]}"#));
            calls.refresh.take(&reply(listing::ROUTES[0], body));
            tokio::time::advance(crate::symbols::SEARCH_EVERY).await;
        }
    }

    #[tokio::test]
    async fn a_server_that_always_fails_stops_no_call_to_the_other_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = |uri: axum::http::Uri| async move {
            if uri.path() == "/v1/klines/history" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
        };
        let cancel = tokio_util::sync::CancellationToken::new();
        let server = axum::serve(listener, axum::Router::new().fallback(answer));
        tokio::spawn(server.with_graceful_shutdown(cancel.clone().cancelled_owned()).into_future());
        let hours = Duration::from_secs(3_600);
        let backoff = Backoff::new(hours, hours * 2);
        let config = Config { rest_url: url.clone(), graph_url: url, backoff, ..Config::from(&Settings::default()) };
        let calls = Calls::new(http::client().unwrap(), &config, mpsc::channel(1).0);
        let ((frames_in, mut frames), (ask, asked)) = (mpsc::channel(8), mpsc::channel(8));
        let stats = std::sync::Arc::new(crate::ports::Stats::default());
        let outlet = Outlet::new(frames_in, stats, cancel.clone());
        for call in [Call::candles("BADTRY", "1", 10), Call::trades("BTCTRY")] {
            ask.send(call).await.unwrap();
        }
        let served = tokio::spawn(async move { calls.serve(asked, &outlet).await });
        for expected in [TIME, listing::ROUTES[0], "/api/v2/trades?pairSymbol=BTCTRY&last=50"] {
            let frame = tokio::time::timeout(Duration::from_secs(20), frames.recv()).await.unwrap().unwrap();
            assert!(matches!(&frame.content, Content::Reply { target, .. } if target == expected), "{frame:?}");
        }
        cancel.cancel();
        served.await.unwrap();
    }
}
