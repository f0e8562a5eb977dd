//! Binance: differences of a book, books as events, trades.

use std::fmt::Write as _;
use std::time::Duration;

use akis_connectors::{Content, RawFrame};
use akis_normalizer::{Payload, Update};
use anyhow::{Result, bail};
use fastrand::Rng;

use super::{BEGINS_MS, Feed, add, middle};
use crate::report::Report;

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

/// How many frames are made at a time: what a cache of a core holds.
const BATCH: usize = 200;

pub(super) fn measure(report: &mut Report) -> Result<()> {
    let (mut parsed, mut rendered, mut traded) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (parsing, rendering) = books()?;
        parsed.push(parsing);
        rendered.push(rendering);
        traded.push(trades()?);
    }
    let count = FRAMES as u64;
    add(report, "Binance difference of 20 levels, parsed and applied", middle(parsed), count, 3.0);
    add(report, "book of 20 levels rendered as an event", middle(rendered), 1, 2.0);
    add(report, "Binance trade, frame to event", middle(traded), count, 1.0);
    Ok(())
}

/// What differences take, and one book that comes of them.
fn books() -> Result<(Duration, Duration)> {
    let mut rng = Rng::with_seed(1);
    let mut feed = Feed::new("binance", "spot", &[])?;
    feed.take(&[diff(0, &mut rng), snapshot()]);
    feed.cpu = Duration::ZERO;
    let (mut books, mut rendering) = (0, Duration::ZERO);
    for first in (1..=FRAMES).step_by(BATCH) {
        let frames: Vec<RawFrame> = (first..first + BATCH).map(|number| diff(number as i64, &mut rng)).collect();
        feed.take(&frames);
        if !feed.out.updates.iter().all(is_full) {
            bail!("some books are not full");
        }
        let (count, took) = feed.render()?;
        books += count;
        rendering += took;
    }
    // A book is told every 250 ms, so two of five differences have one made.
    if books < FRAMES / 3 {
        bail!("{books} books came of {FRAMES} differences");
    }
    Ok((feed.cpu, rendering / books as u32))
}

/// What trades take until they are events.
fn trades() -> Result<Duration> {
    let mut rng = Rng::with_seed(1);
    let mut feed = Feed::new("binance", "spot", &[])?;
    let (mut events, mut rendering) = (0, Duration::ZERO);
    for first in (0..FRAMES).step_by(BATCH) {
        let frames: Vec<RawFrame> = (first..first + BATCH).map(|number| trade(number as i64, &mut rng)).collect();
        feed.take(&frames);
        let (count, took) = feed.render()?;
        events += count;
        rendering += took;
    }
    if events != FRAMES {
        bail!("{events} events came of {FRAMES} trades");
    }
    Ok(feed.cpu + rendering)
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
