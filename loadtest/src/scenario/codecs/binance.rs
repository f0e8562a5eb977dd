//! Binance: differences of a book, books as events, trades.

use std::fmt::Write as _;

use akis_connectors::{Content, RawFrame};
use akis_normalizer::{Output, Payload, Update};
use anyhow::{Result, bail};
use fastrand::Rng;

use super::{BEGINS_MS, add, feed, live_mapper, middle};
use crate::report::Report;
use crate::usage::thread_cpu;

/// How many times everything is measured; the middle one counts.
const ROUNDS: usize = 5;

const FRAMES: usize = 40_000;

/// Levels of a side of the snapshot, as the venue gives them.
const SNAPSHOT_LEVELS: i64 = 1_000;

/// Levels of a side in a difference: 20 in all.
const DIFF_LEVELS: i64 = 10;

/// How far from the best price a level of a difference may lie, in ticks of a cent.
const REACH: i64 = 100;

/// The middle of the book, in ticks of a cent.
const MIDDLE: i64 = 6_200_000;

pub(super) fn measure(report: &mut Report) -> Result<()> {
    let mut rng = Rng::with_seed(1);
    let diffs: Vec<RawFrame> = (0..FRAMES as i64).map(|number| diff(number, &mut rng)).collect();
    let trades: Vec<RawFrame> = (0..FRAMES as i64).map(|number| trade(number, &mut rng)).collect();
    let (mut parsed, mut rendered, mut traded) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut books: Vec<Update> = Vec::with_capacity(FRAMES);
        let mut mapper = live_mapper("binance", "spot")?;
        let mut out = Output::default();
        mapper.on_frame(&diffs[0], &mut out);
        mapper.on_frame(&snapshot(), &mut out);
        parsed.push(feed(&mut *mapper, &diffs[1..], |out| books.append(&mut out.updates))?);
        // A book is told every 250 ms, so two of five differences have one made.
        if books.len() < FRAMES / 3 || !books.iter().all(is_full) {
            bail!("{} books came of {} differences, or some are not full", books.len(), FRAMES - 1);
        }

        let (before, count) = (thread_cpu()?, books.len() as u32);
        let events = books.drain(..).map(Update::into_event).collect::<Result<Vec<_>, _>>()?;
        rendered.push(thread_cpu()?.saturating_sub(before) / count);
        drop(events);

        let mut mapper = live_mapper("binance", "spot")?;
        let mut events = Vec::with_capacity(FRAMES);
        traded.push(feed(&mut *mapper, &trades, |out| {
            events.extend(out.updates.drain(..).map(Update::into_event));
        })?);
        if events.len() != FRAMES || events.iter().any(Result::is_err) {
            bail!("{} events came of {FRAMES} trades, or some could not be rendered", events.len());
        }
    }
    let count = FRAMES as u64;
    add(report, "Binance difference of 20 levels, parsed and applied", middle(parsed), count - 1, 3.0);
    add(report, "book of 20 levels rendered as an event", middle(rendered), 1, 2.0);
    add(report, "Binance trade, frame to event", middle(traded), count, 1.0);
    Ok(())
}

fn is_full(update: &Update) -> bool {
    matches!(&update.payload, Payload::Book(book) if book.bids.len() == 20 && book.asks.len() == 20)
}

fn text(number: i64, text: String) -> RawFrame {
    RawFrame { received_at: BEGINS_MS + number * 100, content: Content::Text { connection: 1, text } }
}

fn diff(number: i64, rng: &mut Rng) -> RawFrame {
    let time = BEGINS_MS + number * 100 - 5;
    // The first one is there before the snapshot, and is in it.
    let (first, last) = (number * 10 + 1, number * 10 + 10);
    let mut frame = format!(
        r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":{time},"s":"BTCUSDT","U":{first},"u":{last},"b":"#
    );
    let mut side = |sign: i64, frame: &mut String| {
        let mut prices: Vec<i64> = (0..DIFF_LEVELS).map(|_| MIDDLE + sign * rng.i64(1..=REACH)).collect();
        prices.sort_unstable_by_key(|price| price * sign);
        prices.dedup();
        // A third of the levels go; those of the snapshot behind them make up for it.
        let levels =
            prices.into_iter().map(|price| (price, if rng.u8(..3) == 0 { 0 } else { rng.i64(1..500_000_000) }));
        push_levels(levels, frame);
    };
    side(-1, &mut frame);
    frame.push_str(r#","a":"#);
    side(1, &mut frame);
    frame.push_str("}}");
    text(number, frame)
}

fn snapshot() -> RawFrame {
    let mut body = r#"{"lastUpdateId":10,"bids":"#.to_owned();
    push_levels((1..=SNAPSHOT_LEVELS).map(|distance| (MIDDLE - distance, 123_450_000)), &mut body);
    body.push_str(r#","asks":"#);
    push_levels((1..=SNAPSHOT_LEVELS).map(|distance| (MIDDLE + distance, 123_450_000)), &mut body);
    body.push('}');
    let target = "/api/v3/depth?symbol=BTCUSDT&limit=1000".to_owned();
    RawFrame { received_at: BEGINS_MS, content: Content::Reply { target, status: 200, body } }
}

fn push_levels(levels: impl Iterator<Item = (i64, i64)>, out: &mut String) {
    out.push('[');
    for (number, (price, lots)) in levels.enumerate() {
        let comma = if number == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(out, r#"{comma}["{}","{}"]"#, price_text(price), lots_text(lots));
    }
    out.push(']');
}

fn price_text(cents: i64) -> String {
    format!("{}.{:02}000000", cents / 100, cents % 100)
}

fn lots_text(lots: i64) -> String {
    format!("{}.{:08}", lots / 100_000_000, lots % 100_000_000)
}

fn trade(number: i64, rng: &mut Rng) -> RawFrame {
    let (time, id) = (BEGINS_MS + number * 100 - 5, 3_000_000_000 + number);
    let (price, qty) = (price_text(MIDDLE + rng.i64(-REACH..REACH)), lots_text(rng.i64(1..500_000_000)));
    let (first, last, is_maker) = (id * 2, id * 2 + 1, rng.bool());
    text(
        number,
        format!(
            concat!(
                r#"{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":{time},"s":"BTCUSDT","a":{id},"p":"{price}","q":"{qty}","#,
                r#""f":{first},"l":{last},"T":{time},"m":{is_maker},"M":true}}}}"#
            ),
            time = time,
            id = id,
            price = price,
            qty = qty,
            first = first,
            last = last,
            is_maker = is_maker
        ),
    )
}
