//! The past that a generated symbol begins with, so that charts are not empty.

use std::collections::VecDeque;

use fastrand::Rng;

use super::super::candles::{Candle, MINUTE_MS};
use super::super::instrument::Instrument;

/// How many minutes of the past there are.
const MINUTES: i64 = 500;

/// The past, and where it left things.
pub(super) struct Past {
    pub(super) minutes: VecDeque<Candle>,
    pub(super) price: i64,
    pub(super) next_trade_id: i64,
}

/// Walks through the minutes before `until`, which is the start of one.
pub(super) fn walk(instrument: &Instrument, rng: &mut Rng, until: i64, first_trade_id: i64) -> Past {
    let mut past = Past { minutes: VecDeque::new(), price: instrument.start, next_trade_id: first_trade_id };
    for minute in -MINUTES..0 {
        let candle = candle(instrument, rng, until + minute * MINUTE_MS, &past);
        past.price = candle.close;
        past.next_trade_id = candle.last_id + 1;
        past.minutes.push_back(candle);
    }
    past
}

fn candle(instrument: &Instrument, rng: &mut Rng, open_time: i64, past: &Past) -> Candle {
    let reach = (past.price / 2_000).max(1);
    let open = past.price;
    let close = open + rng.i64(-reach..=reach);
    let trades = rng.i64(5..60);
    let lots = trades * rng.i64(1..=instrument.usual_lots * 2);
    let taker_lots = lots * rng.i64(30..=70) / 100;
    let mean = i128::from(open + close) / 2;
    Candle {
        open_time,
        open,
        high: open.max(close) + rng.i64(0..=reach / 2),
        low: (open.min(close) - rng.i64(0..=reach / 2)).max(1),
        close,
        lots,
        value: i128::from(lots) * mean,
        taker_lots,
        taker_value: i128::from(taker_lots) * mean,
        first_id: past.next_trade_id,
        last_id: past.next_trade_id + trades - 1,
    }
}
