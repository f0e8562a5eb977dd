//! The REST routes over the generated pairs, and what every route has: limits, refusals, error bodies.

use std::collections::{BTreeMap, VecDeque};

use super::frames;
use super::pair::{LAST_TRADES, Pair};
use super::world::{Generated, RESOLUTIONS};

/// A reply to a REST request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
    /// Seconds until it makes sense to ask again.
    pub(super) retry_after: Option<i64>,
    /// Whether it comes byte by byte.
    pub(super) dripped: bool,
}

/// What a route answers: the body, or a refusal.
pub(super) type Answer = Result<String, Refusal>;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    body: String,
    retry_after: Option<i64>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: i32, message: &str) -> Self {
        let body = serde_json::json!({ "success": false, "message": message, "code": code }).to_string();
        Self { status, body, retry_after: None }
    }

    pub(super) fn unknown_route() -> Self {
        Self { status: 404, body: String::new(), retry_after: None }
    }

    fn too_many(limit: usize, period: &str, retry_after: i64) -> Self {
        let details = format!("Quota exceeded. Maximum allowed: {limit} per {period}.");
        let body = serde_json::json!({"message": "TOO_MANY_REQUESTS", "success": false, "code": 429, "details": details,
            "limit": limit.to_string(), "period": period, "policy": "ip"});
        Self { status: 429, body: body.to_string(), retry_after: Some(retry_after) }
    }

    fn unknown_pair(pair: &str) -> Self {
        Self::new(400, 1037, &format!("Pair {pair} does not exists."))
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok(body) => Self { status: 200, body, ..Self::default() },
            Err(Refusal { status, body, retry_after }) => Self { status, body, retry_after, dripped: false },
        }
    }
}

/// How often a route may be asked, and in how long, in milliseconds.
fn limit(path: &str) -> Option<(usize, i64, &'static str)> {
    match path {
        "/api/v2/orderbook" => Some((180, 60_000, "1m")),
        "/api/v2/trades" => Some((120, 60_000, "1m")),
        "/api/v2/ticker" => Some((600, 60_000, "1m")),
        "/v1/klines/history" => Some((600, 600_000, "10m")),
        _ => None,
    }
}

/// Counts requests and makes the next ones fail or drip when told to.
#[derive(Debug, Default)]
pub(super) struct Gate {
    asked: BTreeMap<String, VecDeque<i64>>,
    failing: Option<(u16, u32)>,
    dripping: u32,
}

impl Gate {
    /// The next `times` requests fail with `status`.
    pub(super) fn fail(&mut self, status: u16, times: u32) {
        self.failing = Some((status, times));
    }

    /// The next `times` replies come byte by byte.
    pub(super) fn drip(&mut self, times: u32) {
        self.dripping = times;
    }

    /// Whether this reply comes byte by byte.
    pub(super) fn drips(&mut self) -> bool {
        let drips = self.dripping > 0;
        self.dripping = self.dripping.saturating_sub(1);
        drips
    }

    /// Counts a request; an error is its answer.
    pub(super) fn admit(&mut self, target: &str, now: i64) -> Result<(), Refusal> {
        if let Some((status, times)) = self.failing.take().filter(|(_, times)| *times > 0) {
            self.failing = Some((status, times - 1));
            return Err(match status {
                429 => Refusal::too_many(120, "1m", 1),
                _ => Refusal::new(status, 1, "AN_ERROR_OCCURRED"),
            });
        }
        let path = target.split('?').next().unwrap_or_default();
        let Some((most, within, period)) = limit(path) else { return Ok(()) };
        let asked = self.asked.entry(path.to_owned()).or_default();
        while asked.front().is_some_and(|&at| now - at >= within) {
            asked.pop_front();
        }
        if asked.len() >= most {
            return Err(Refusal::too_many(most, period, within / 1_000));
        }
        asked.push_back(now);
        Ok(())
    }
}

/// The first value of a parameter; what clients ask for needs no percent-encoding.
pub(super) fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// Answers from the generated pairs.
pub(super) fn answer(target: &str, market: &Generated) -> Answer {
    let now = market.now() + market.skew;
    match target.split('?').next().unwrap_or_default() {
        "/api/v2/server/ping" => Ok(r#"{"pong":true}"#.into()),
        "/api/v2/server/time" => Ok(format!(r#"{{"serverTime":{now},"serverTime2":null}}"#)),
        "/api/v2/server/exchangeinfo" => {
            let info = |pair: &Pair| {
                let tick = frames::plain(1, pair.price_decimals);
                frames::symbol_info(&pair.symbol, &pair.base, &pair.quote, &tick)
            };
            let infos: Vec<String> = market.pairs().map(info).collect();
            Ok(exchange_info_body(now, &infos))
        }
        "/api/v2/ticker" => {
            let wanted = parameter(target, "pairSymbol").map(normal);
            let pairs = market.pairs().filter(|pair| wanted.as_ref().is_none_or(|wanted| *wanted == pair.symbol));
            let rows: Vec<String> = pairs.filter_map(|pair| frames::ticker_row(pair, now)).collect();
            Ok(frames::envelope(&format!("[{}]", rows.join(","))))
        }
        "/api/v2/orderbook" => {
            let pair = named(target, "pairSymbol", market)?;
            let limit = number(target, "limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(100);
            Ok(frames::envelope(&frames::orderbook(pair, limit.clamp(1, 100), now)))
        }
        "/api/v2/trades" => {
            let pair = named(target, "pairSymbol", market)?;
            let last = number(target, "last").and_then(|last| usize::try_from(last).ok()).unwrap_or(LAST_TRADES);
            let newest = pair.trades().iter().rev().take(last.min(LAST_TRADES));
            let rows: Vec<String> = newest.map(|trade| frames::trade_row(pair, trade, market.skew)).collect();
            Ok(frames::envelope(&format!("[{}]", rows.join(","))))
        }
        "/v1/klines/history" => klines(target, market),
        _ => Err(Refusal::unknown_route()),
    }
}

fn klines(target: &str, market: &Generated) -> Answer {
    let pair = named(target, "symbol", market)?;
    let resolution = parameter(target, "resolution").unwrap_or_default();
    let minutes = RESOLUTIONS.iter().find(|(name, _)| *name == resolution).map(|(_, minutes)| *minutes);
    let Some(minutes) = minutes else { return Ok(r#"{"s":"error"}"#.into()) };
    // Asked for by the venue's clock.
    let moment = |name| number(target, name).and_then(|seconds| seconds.checked_mul(1_000)).map(|ms| ms - market.skew);
    let (from, to) = (moment("from").unwrap_or(0), moment("to").unwrap_or(i64::MAX));
    Ok(frames::klines(pair, &pair.candles(minutes, from, to), market.skew))
}

/// The body of `/api/v2/server/exchangeinfo` for these entries of `symbols`.
pub(super) fn exchange_info_body(now: i64, symbols: &[String]) -> String {
    let symbols = symbols.join(",");
    frames::envelope(&format!(r#"{{"timeZone":"UTC","serverTime":{now},"symbols":[{symbols}],"currencies":[]}}"#))
}

/// REST takes `BTC_TRY` and small letters too.
fn normal(pair: &str) -> String {
    pair.replace('_', "").to_ascii_uppercase()
}

fn named<'a>(target: &str, name: &str, market: &'a Generated) -> Result<&'a Pair, Refusal> {
    let asked = parameter(target, name).ok_or_else(|| Refusal::new(400, 1037, "INVALID_REQUEST_ERROR"))?;
    market.pair(&normal(asked)).ok_or_else(|| Refusal::unknown_pair(asked))
}

fn number(target: &str, name: &str) -> Option<i64> {
    parameter(target, name)?.parse().ok()
}
