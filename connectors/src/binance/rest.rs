//! REST: books when they are asked for, and once at the start what the symbols are made of.
//!
//! Requests are made one after the other and paced by the weight that the venue says is used.
//! Source: <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits>.

mod weight;

use std::collections::VecDeque;
use std::time::Duration;

use akis_service::backoff::Backoff;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::config::Config;
use super::listing;
use super::market::Market;
use crate::clock::{Clock, MEASURE_EVERY};
use crate::frame::Content;
use crate::http;
use crate::outlet::{Outlet, Stopped, now_ms};
use crate::ports::Request;
use crate::symbols::{Listed, Lookup, Refresh};
use weight::Weight;

/// The most that one request may name, so that the address stays short.
const SYMBOLS_PER_INFO: usize = 100;

/// So many books can still be asked for when trades have used what they may; candles leave as much again to trades.
const RESERVED_BOOKS: u32 = 20;

/// How long any wait lasts before it is looked what has been asked for: it has to be taken in, and may be more urgent.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Whoever misses trades has told a hole by then.
const TRADES_AWAITED: Duration = Duration::from_secs(5);

/// How long no trades are asked for when a call for some has failed. Whoever misses them asks again after twice that.
const TRADES_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait when the venue says 429 or 418 and not how long.
const HOLD: Duration = Duration::from_secs(60);
const HOLD_WHEN_BANNED: Duration = Duration::from_secs(120);

/// The calls that wait to be made, at most one about each subject.
pub(super) struct Calls {
    client: reqwest::Client,
    market: &'static Market,
    base: String,
    /// Before all others trades, for those that came since wait behind them; the newest hole first, each with when it was asked for.
    trades: VecDeque<(Instant, Call)>,
    /// No trades before this moment.
    trades_at: Instant,
    queue: VecDeque<Call>,
    /// What is only asked for while nothing else waits: what has failed once, then candles of the past, of which there are many at
    /// the start, when books are wanted too; then what has failed again.
    later: VecDeque<Call>,
    /// Nothing of those before this moment.
    later_at: Instant,
    /// Nothing at all before this moment.
    held_until: Instant,
    /// What is asked for again and again: what the symbols are made of.
    infos: Vec<Call>,
    refresh: Refresh,
    measure_at: Instant,
    clock: Clock,
    weight: Weight,
    backoff: Backoff,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    /// Two calls about the same are one.
    subject: String,
    /// Path and query.
    target: String,
    weight: u32,
    /// Of how many candles; the more, the more of them a call covers.
    candles: u32,
}

/// Where a call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Trades,
    Queue,
    Later,
}

/// What the answer to a call means for the queue.
enum Outcome {
    /// It has been answered for good.
    Done(Content),
    /// The venue wants nothing for so long, then the same again.
    Held(Duration),
    /// There was none, or one that may be another next time: why.
    Failed(String),
}

impl Calls {
    /// `found` is told what there is, when symbols have to be looked up.
    pub(super) fn new(client: reqwest::Client, config: &Config, found: mpsc::Sender<Vec<Listed>>) -> Self {
        let market = config.market;
        let names = config.symbols.names();
        let looks_up = config.symbols.looks_up();
        let infos = match (looks_up, market.info_by_symbol) {
            (true, _) => vec![Call::info(market), Call::days(market)],
            (false, true) => names.chunks(SYMBOLS_PER_INFO).map(|symbols| Call::info_of(market, symbols)).collect(),
            (false, false) => vec![Call::info(market)],
        };
        let lookup = looks_up.then(|| Lookup::new(listing::ROUTES, listing::read, config.symbols.clone(), found));
        let now = Instant::now();
        Self {
            client,
            market,
            base: config.rest_url.clone(),
            trades: VecDeque::new(),
            trades_at: now,
            queue: VecDeque::new(),
            later: VecDeque::new(),
            later_at: now,
            held_until: now,
            infos,
            refresh: Refresh::new(config.refresh_every, lookup),
            measure_at: now,
            clock: Clock::default(),
            weight: Weight::new(market.weight_limit),
            backoff: config.backoff.clone(),
        }
    }

    /// Makes the calls and hands on the answers, until the session stops or nobody can ask any more.
    pub(super) async fn serve(mut self, mut requests: mpsc::Receiver<Request>, outlet: &Outlet) {
        loop {
            while let Ok(request) = requests.try_recv() {
                self.enqueue(&request);
            }
            self.enqueue_due();
            self.drop_given_up();
            if self.first(now_ms()).is_none() {
                let due = sleep_until(self.refresh.at().min(self.measure_at));
                let next = async {
                    tokio::select! { request = requests.recv() => Some(request), () = due => None }
                };
                match outlet.unless_stopped(next).await {
                    Ok(Some(Some(request))) => self.enqueue(&request),
                    Ok(None) => {}
                    Ok(Some(None)) | Err(Stopped) => return,
                }
            } else if outlet.unless_stopped(self.make_first(outlet)).await.is_err() {
                return;
            }
        }
    }

    /// Queues what is asked for by the clock.
    fn enqueue_due(&mut self) {
        let now = Instant::now();
        if self.refresh.is_due(now) {
            self.infos.clone().into_iter().for_each(|info| self.enqueue_soon(info));
        }
        if self.measure_at <= now {
            self.measure_at = now + MEASURE_EVERY;
            self.enqueue_soon(Call::time(self.market));
        }
    }

    fn enqueue(&mut self, request: &Request) {
        match request {
            Request::Book { symbol } => self.enqueue_soon(Call::book(self.market, symbol)),
            Request::Candles { symbol, interval, count } => {
                let call = Call::candles(self.market, symbol, interval, *count);
                match self.later.iter_mut().find(|waiting| waiting.subject == call.subject) {
                    Some(waiting) if waiting.candles >= call.candles => {}
                    Some(waiting) => *waiting = call,
                    None => self.later.push_back(call),
                }
            }
            Request::Trades { symbol, from_id } => {
                let call = Call::trades(self.market, symbol, *from_id);
                self.trades.retain(|(_, waiting)| waiting.subject != call.subject);
                self.trades.push_front((Instant::now(), call));
            }
        }
    }

    /// Forgets trades that nobody waits for any more.
    fn drop_given_up(&mut self) {
        while self.trades.pop_back_if(|(asked_at, _)| asked_at.elapsed() > TRADES_AWAITED).is_some() {}
    }

    /// Queues what does not wait for anything else, unless it is queued already.
    fn enqueue_soon(&mut self, call: Call) {
        self.later.retain(|waiting| *waiting != call);
        if !self.queue.contains(&call) {
            self.queue.push_back(call);
        }
    }

    async fn make_first(&mut self, outlet: &Outlet) {
        let now_ms = now_ms();
        let Some((lane, call)) = self.first(now_ms).map(|(lane, call)| (lane, call.clone())) else { return };
        let wait = self.wait(lane, &call, now_ms);
        if !wait.is_zero() {
            sleep(wait.min(LOOK_AGAIN)).await;
            return;
        }
        outlet.stats().requests.add(1);
        match self.make(&call).await {
            Outcome::Done(reply) => {
                self.pop(lane);
                self.backoff.reset();
                self.enqueue_whole_list(&call, &reply);
                self.refresh.take(&reply);
                if let Some(offset) = self.clock.offset() {
                    outlet.stats().clock_offset_ms.set(offset);
                }
                // The caller sees by itself that the session has stopped.
                let _ = outlet.send(reply).await;
            }
            Outcome::Held(hold) => {
                outlet.stats().refused.add(1);
                self.held_until = Instant::now() + hold;
            }
            Outcome::Failed(reason) => {
                outlet.stats().refused.add(1);
                self.on_failure(lane, &reason);
            }
        }
    }

    /// The call that is to be made next, and where it waits. Nothing else waits for trades that have to wait themselves.
    fn first(&self, now_ms: i64) -> Option<(Lane, &Call)> {
        let trades = self.trades.front().map(|(_, call)| (Lane::Trades, call));
        let queued = self.queue.front().map(|call| (Lane::Queue, call));
        let later = self.later.front().map(|call| (Lane::Later, call));
        let free = trades.filter(|&(lane, call)| self.wait(lane, call, now_ms).is_zero());
        free.or(queued).or(later).or(trades)
    }

    /// How long a call has to wait.
    fn wait(&self, lane: Lane, call: &Call, now_ms: i64) -> Duration {
        let reserve = RESERVED_BOOKS * self.market.book_weight;
        let (reserve, not_before) = match lane {
            Lane::Trades => (reserve, self.trades_at),
            Lane::Queue => (0, self.held_until),
            Lane::Later => (2 * reserve, self.later_at),
        };
        let held = not_before.max(self.held_until).saturating_duration_since(Instant::now());
        self.weight.wait(now_ms, call.weight + reserve).max(held)
    }

    fn pop(&mut self, lane: Lane) -> Option<Call> {
        match lane {
            Lane::Trades => self.trades.pop_front().map(|(_, call)| call),
            Lane::Queue => self.queue.pop_front(),
            Lane::Later => self.later.pop_front(),
        }
    }

    /// The first call of a lane has failed. It goes behind what waits, for what fails once may fail for ever, but behind candles
    /// only when it fails again: there may be thousands. Nothing else is asked for a while unless it had failed before. Trades
    /// are asked for by many at once, and again while somebody waits for them: they are dropped, and hold up nothing but each
    /// other.
    fn on_failure(&mut self, lane: Lane, reason: &str) {
        let Some(failed) = self.pop(lane) else { return };
        match lane {
            Lane::Trades => {
                debug!(venue = self.market.name, target = failed.target, reason, "request for trades failed");
                self.trades_at = Instant::now() + TRADES_PAUSE;
            }
            Lane::Queue => {
                self.held_until = self.back_off(&failed, reason);
                self.later.push_front(failed);
            }
            Lane::Later => {
                self.later_at = self.back_off(&failed, reason);
                self.later.push_back(failed);
            }
        }
    }

    /// When to go on after a failure.
    fn back_off(&mut self, failed: &Call, reason: &str) -> Instant {
        if self.backoff.is_fresh() {
            info!(
                venue = self.market.name,
                target = failed.target,
                reason,
                "request failed, trying again behind others"
            );
        }
        Instant::now() + self.backoff.next_wait()
    }

    /// A symbol that is listed no more makes the venue refuse the list of all that were named with it; what it has says
    /// which one that is.
    fn enqueue_whole_list(&mut self, call: &Call, reply: &Content) {
        let whole = Call::info(self.market);
        if matches!(reply, Content::Reply { status: 400, .. }) && self.infos.contains(call) && *call != whole {
            self.enqueue_soon(whole);
        }
    }

    async fn make(&mut self, call: &Call) -> Outcome {
        self.weight.spend(now_ms(), call.weight);
        let asked_at = now_ms();
        let response = match self.client.get(format!("{}{}", self.base, call.target)).send().await {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        if let Some(used) = http::number(&response, "x-mbx-used-weight-1m") {
            self.weight.told(asked_at, now_ms(), u32::try_from(used).unwrap_or(u32::MAX));
        }
        let status = response.status();
        if let Some(hold) = hold(&response) {
            warn!(
                venue = self.market.name,
                status = status.as_u16(),
                hold_s = hold.as_secs(),
                "too many requests, holding all"
            );
            return Outcome::Held(hold);
        }
        // 400 and 404 are about what was asked for and stay so; everything else may pass.
        if !(status.is_success() || status == StatusCode::BAD_REQUEST || status == StatusCode::NOT_FOUND) {
            return Outcome::Failed(status.to_string());
        }
        match http::body(response).await {
            Ok(body) => {
                if *call == Call::time(self.market) {
                    self.clock.take(&body, asked_at, now_ms());
                }
                Outcome::Done(Content::Reply { target: call.target.clone(), status: status.as_u16(), body })
            }
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

impl Call {
    fn book(market: &Market, symbol: &str) -> Self {
        let target = format!("{}/depth?symbol={}&limit=1000", market.rest, http::encode(symbol));
        Self::about_itself(target, market.book_weight)
    }

    /// Of each symbol the newest hole is asked for.
    fn trades(market: &Market, symbol: &str, from_id: u64) -> Self {
        let subject = format!("{}/aggTrades?symbol={}", market.rest, http::encode(symbol));
        let target = format!("{subject}&fromId={from_id}&limit=1000");
        Self { subject, target, weight: market.trades_weight, candles: 0 }
    }

    fn candles(market: &Market, symbol: &str, interval: &str, count: u32) -> Self {
        let subject = format!("{}/klines?symbol={}&interval={interval}", market.rest, http::encode(symbol));
        let target = format!("{subject}&limit={count}");
        Self { subject, target, weight: market.candles_weight, candles: count }
    }

    fn time(market: &Market) -> Self {
        Self::about_itself(format!("{}/time", market.rest), 1)
    }

    /// The last 24 hours of every symbol.
    fn days(market: &Market) -> Self {
        Self::about_itself(format!("{}/ticker/24hr", market.rest), market.days_weight)
    }

    /// What every symbol is made of.
    fn info(market: &Market) -> Self {
        Self::about_itself(format!("{}/exchangeInfo", market.rest), market.info_weight)
    }

    /// What these symbols are made of.
    fn info_of(market: &Market, symbols: &[String]) -> Self {
        let list = symbols.iter().map(|symbol| format!("\"{symbol}\"")).collect::<Vec<_>>().join(",");
        let target = format!("{}/exchangeInfo?symbols={}", market.rest, http::encode(&format!("[{list}]")));
        Self::about_itself(target, market.info_weight)
    }

    /// A call that asks for all there is about its subject.
    fn about_itself(target: String, weight: u32) -> Self {
        Self { subject: target.clone(), target, weight, candles: 0 }
    }
}

/// How long the venue wants no requests at all, when it says so.
fn hold(response: &Response) -> Option<Duration> {
    let default = match response.status().as_u16() {
        429 => HOLD,
        418 => HOLD_WHEN_BANNED,
        _ => return None,
    };
    Some(http::retry_after(response.headers()).unwrap_or(default))
}

#[cfg(test)]
mod tests;
