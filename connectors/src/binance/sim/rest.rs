//! The REST routes over the generated markets, and what every route has: weight, refusals, error bodies.
//!
//! <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints>

use super::candles::Interval;
use super::frames;
use super::generator::{Generator, Listing};
use super::query::Target;
use crate::binance::USDM;

/// How much weight an address may use in a minute of the clock.
fn weight_per_minute(target: &Target) -> u32 {
    if *target.market() == USDM { 2400 } else { 6000 }
}

/// One depth reply in so many is a second old, as from a cache: older than a stream that has just begun.
const STALE_EVERY: u64 = 4;

/// How long a ban is said to last.
const BAN_SECONDS: i64 = 120;

/// A reply to a REST request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
    /// What was used of the minute's weight.
    pub(super) used_weight: u32,
    /// Seconds until it makes sense to ask again.
    pub(super) retry_after: Option<i64>,
    /// Whether it comes byte by byte.
    pub(super) dripped: bool,
}

impl Reply {
    /// The reply that an answer becomes.
    pub(super) fn new(answer: Answer, used_weight: u32, now: i64) -> Self {
        let rest_of_minute = 60 - now.div_euclid(1000).rem_euclid(60);
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(Refusal { status, code, message }) => {
                (status, serde_json::json!({ "code": code, "msg": message }).to_string())
            }
        };
        let retry_after = match status {
            418 => Some(BAN_SECONDS),
            429 => Some(rest_of_minute),
            _ => None,
        };
        Self { status, body, used_weight, retry_after, dripped: false }
    }
}

/// What a route answers: the body, or status, code and message.
pub(super) type Answer = Result<String, Refusal>;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: i32,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: i32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn invalid_symbol() -> Self {
        Self::new(400, -1121, "Invalid symbol.")
    }

    fn malformed(name: &str) -> Self {
        let message = format!("Mandatory parameter '{name}' was not sent, was empty/null, or malformed.");
        Self::new(400, -1102, message)
    }

    pub(super) fn unknown_path() -> Self {
        Self::new(404, -1000, "There is nothing at this path.")
    }
}

/// Counts weight and makes the next requests fail or drip when told to.
#[derive(Debug, Default)]
pub(super) struct Gate {
    minute: i64,
    used: u32,
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
    pub(super) fn admit(&mut self, target: &Target, now: i64) -> Result<(), Refusal> {
        if self.minute != now.div_euclid(60_000) {
            (self.minute, self.used) = (now.div_euclid(60_000), 0);
        }
        self.used = self.used.saturating_add(weight(target));
        if let Some((status, times)) = self.failing.take().filter(|(_, times)| *times > 0) {
            self.failing = Some((status, times - 1));
            let (code, message) = match status {
                418 => {
                    (-1003, format!("Way too much request weight used; IP banned until {}.", now + BAN_SECONDS * 1000))
                }
                429 => (-1003, "Too many requests.".into()),
                _ => (-1000, "An unknown error occurred while processing the request.".into()),
            };
            return Err(Refusal::new(status, code, message));
        }
        let allowed = weight_per_minute(target);
        if self.used > allowed {
            let limit = format!("Too much request weight used; current limit is {allowed} per 1 MINUTE.");
            return Err(Refusal::new(429, -1003, limit));
        }
        Ok(())
    }

    /// What was used of the minute's weight.
    pub(super) fn used_weight(&self) -> u32 {
        self.used
    }
}

fn weight(target: &Target) -> u32 {
    if *target.market() == USDM {
        return usdm_weight(target);
    }
    match target.route() {
        "/depth" => match target.parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(100u64) {
            0..=100 => 5,
            101..=500 => 25,
            501..=1000 => 50,
            _ => 250,
        },
        "/exchangeInfo" => 20,
        "/klines" | "/uiKlines" => 2,
        "/aggTrades" => 4,
        "/ticker/24hr" if target.parameter("symbol").is_some() => 2,
        "/ticker/24hr" => 80,
        _ => 1,
    }
}

/// Source: measured by <https://github.com/dilettante-trading/polyoxide>, October 2026.
fn usdm_weight(target: &Target) -> u32 {
    let limit = |default: u64| target.parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(default);
    match target.route() {
        "/depth" => match limit(500) {
            0..=50 => 2,
            51..=100 => 5,
            101..=500 => 10,
            _ => 20,
        },
        "/klines" => match limit(500) {
            0..=100 => 1,
            101..=500 => 2,
            501..=1000 => 5,
            _ => 10,
        },
        "/aggTrades" => 20,
        "/ticker/24hr" if target.parameter("symbol").is_none() => 40,
        _ => 1,
    }
}

/// The routes that need no market; `venue_time` is what its clock says.
pub(super) fn common(target: &Target, venue_time: i64) -> Option<String> {
    match target.route() {
        "/ping" => Some("{}".into()),
        "/time" => Some(format!(r#"{{"serverTime":{venue_time}}}"#)),
        _ => None,
    }
}

/// Answers from the generated markets.
pub(super) fn answer(target: &Target, markets: &mut Generator) -> Answer {
    match target.route() {
        "/exchangeInfo" => exchange_info(target, markets),
        "/depth" => {
            let now = markets.now();
            depth(target, listing(target, markets)?, now)
        }
        "/klines" | "/uiKlines" => klines(target, listing(target, markets)?),
        "/aggTrades" => agg_trades(target, listing(target, markets)?),
        "/ticker/24hr" => ticker(target, markets),
        _ => Err(Refusal::unknown_path()),
    }
}

/// The body of `/api/v3/exchangeInfo` for these entries of `symbols`.
pub(super) fn exchange_info_body(target: &Target, now: i64, symbols: &[String]) -> String {
    format!(
        concat!(
            r#"{{"timezone":"UTC","serverTime":{now},"rateLimits":[{{"rateLimitType":"REQUEST_WEIGHT","#,
            r#""interval":"MINUTE","intervalNum":1,"limit":{limit}}}],"exchangeFilters":[],"symbols":[{symbols}]}}"#
        ),
        now = now,
        limit = weight_per_minute(target),
        symbols = symbols.join(",")
    )
}

fn exchange_info(target: &Target, markets: &mut Generator) -> Answer {
    let info_of = |listing: &Listing| frames::symbol_info(&listing.market.instrument, "TRADING");
    let infos = match wanted(target)? {
        None => markets.listings().iter().filter(|listing| listing.is_traded).map(info_of).collect(),
        Some(symbols) => symbols
            .iter()
            .map(|symbol| match find(symbol, markets)? {
                listing if listing.is_traded => Ok(info_of(listing)),
                _ => Err(Refusal::invalid_symbol()),
            })
            .collect::<Result<Vec<_>, _>>()?,
    };
    Ok(exchange_info_body(target, markets.venue_time(), &infos))
}

fn depth(target: &Target, listing: &mut Listing, now: i64) -> Answer {
    let limit = number(target, "limit")?.unwrap_or(100).clamp(1, 5000);
    listing.depth_requests += 1;
    let limit = usize::try_from(limit).unwrap_or(5000);
    let snapshot = if listing.depth_requests.is_multiple_of(STALE_EVERY) {
        listing.market.stale_snapshot(limit)
    } else {
        listing.market.snapshot(limit)
    };
    Ok(frames::snapshot(&listing.market.instrument, &snapshot, now))
}

fn klines(target: &Target, listing: &Listing) -> Answer {
    let interval = target.parameter("interval").ok_or_else(|| Refusal::malformed("interval"))?;
    let interval = Interval::named(interval).ok_or_else(|| Refusal::new(400, -1120, "Invalid interval."))?;
    let (start, end) = (number(target, "startTime")?, number(target, "endTime")?);
    let series = listing.market.candles().series(interval, start, end, row_limit(target)?);
    let rows = series.iter().map(|candle| frames::kline_row(&listing.market.instrument, interval, candle));
    Ok(array(rows))
}

fn agg_trades(target: &Target, listing: &Listing) -> Answer {
    let limit = row_limit(target)?;
    let (from, start, end) = (number(target, "fromId")?, number(target, "startTime")?, number(target, "endTime")?);
    let instrument = &listing.market.instrument;
    let found = listing
        .market
        .recent()
        .iter()
        .filter(|trade| from.is_none_or(|id| trade.id >= id))
        .filter(|trade| start.is_none_or(|at| trade.time >= at) && end.is_none_or(|at| trade.time <= at));
    // The most recent ones, unless it is said where to begin.
    let surplus = if from.or(start).is_some() { 0 } else { found.clone().count().saturating_sub(limit) };
    Ok(array(found.skip(surplus).take(limit).map(|trade| frames::agg_trade_row(instrument, trade))))
}

fn ticker(target: &Target, markets: &mut Generator) -> Answer {
    let now = markets.now();
    let row = |listing: &Listing| {
        listing.market.day().map(|day| frames::ticker_row(&listing.market.instrument, &day, now)).unwrap_or_default()
    };
    match (target.parameter("symbol"), wanted(target)?) {
        (Some(symbol), _) => Ok(row(find(symbol, markets)?)),
        (None, None) => Ok(array(markets.listings().iter().map(row))),
        (None, Some(symbols)) => {
            let rows = symbols.iter().map(|symbol| Ok(row(find(symbol, markets)?)));
            Ok(array(rows.collect::<Result<Vec<_>, Refusal>>()?.into_iter()))
        }
    }
}

/// The symbols that `symbol` or `symbols` names.
fn wanted(target: &Target) -> Result<Option<Vec<String>>, Refusal> {
    match (target.parameter("symbol"), target.parameter("symbols")) {
        (Some(symbol), _) => Ok(Some(vec![symbol.into()])),
        (None, Some(list)) => serde_json::from_str(list).map(Some).map_err(|_| Refusal::malformed("symbols")),
        (None, None) => Ok(None),
    }
}

fn listing<'a>(target: &Target, markets: &'a mut Generator) -> Result<&'a mut Listing, Refusal> {
    match target.parameter("symbol") {
        Some(symbol) if !symbol.is_empty() => find(symbol, markets),
        _ => Err(Refusal::malformed("symbol")),
    }
}

fn find<'a>(symbol: &str, markets: &'a mut Generator) -> Result<&'a mut Listing, Refusal> {
    let is_legal = |c: char| !c.is_ascii() || c.is_ascii_uppercase() || c.is_ascii_digit() || "-_.".contains(c);
    if !symbol.chars().all(is_legal) {
        let message = "Illegal characters found in parameter 'symbol'; legal range is '^[A-Z0-9-_.]{1,20}$'.";
        return Err(Refusal::new(400, -1100, message));
    }
    markets.listing(symbol).ok_or_else(Refusal::invalid_symbol)
}

fn row_limit(target: &Target) -> Result<usize, Refusal> {
    let limit = number(target, "limit")?.unwrap_or(500).clamp(1, 1000);
    Ok(usize::try_from(limit).unwrap_or(500))
}

fn number(target: &Target, name: &str) -> Result<Option<i64>, Refusal> {
    target.parameter(name).map(str::parse).transpose().map_err(|_| Refusal::malformed(name))
}

fn array(rows: impl Iterator<Item = String>) -> String {
    format!("[{}]", rows.collect::<Vec<_>>().join(","))
}
