use std::collections::BTreeMap;

use super::super::candles::INTERVALS;
use super::*;

const NOW: i64 = 1_791_383_650_000;

fn market(symbol: &str, seed: u64) -> Market {
    Market::new(Instrument::named(&crate::binance::SPOT, symbol), seed, NOW)
}

/// What a reader of the diffs keeps: lots by tick.
#[derive(Debug, Default, PartialEq)]
struct Reader {
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
}

impl Reader {
    fn of(snapshot: &Snapshot) -> Self {
        Self { bids: snapshot.bids.iter().copied().collect(), asks: snapshot.asks.iter().copied().collect() }
    }

    /// Applies a diff and counts the removals of levels that were not there.
    fn apply(&mut self, diff: &Diff) -> usize {
        let mut unknown = 0;
        for (levels, changes) in [(&mut self.bids, &diff.bids), (&mut self.asks, &diff.asks)] {
            for &(tick, lots) in changes {
                if lots > 0 {
                    levels.insert(tick, lots);
                } else if levels.remove(&tick).is_none() {
                    unknown += 1;
                }
            }
        }
        unknown
    }
}

#[test]
fn diffs_are_contiguous_and_build_the_book() {
    for symbol in ["BTCUSDT", "SHIBUSDT", "ANYTHINGTRY"] {
        let mut market = market(symbol, 7);
        let start = market.snapshot(5000);
        let mut readers = [(Pace::Fast, Reader::of(&start), start.last), (Pace::Slow, Reader::of(&start), start.last)];
        let (mut trades, mut unknown, mut removed) = (Vec::new(), 0, 0);
        for round in 0..2_000 {
            for _ in 0..round % 7 {
                market.act(NOW + round * 100, &mut trades);
            }
            for (pace, reader, last) in &mut readers {
                if *pace == Pace::Slow && round % 10 != 9 {
                    continue;
                }
                let Some(diff) = market.diff(*pace) else { continue };
                assert_eq!(diff.first, *last + 1, "{symbol}");
                *last = diff.last;
                removed += diff.bids.iter().chain(&diff.asks).filter(|level| level.1 == 0).count();
                unknown += reader.apply(&diff);
            }
        }
        let end = market.snapshot(5000);
        let [(_, fast, _), (_, slow, _)] = readers;
        assert_eq!(fast, Reader::of(&end), "{symbol}");
        assert_eq!(slow, Reader::of(&end), "{symbol}");
        assert!(unknown > 0 && removed > unknown, "{symbol}: {removed} removals, {unknown} of them of nothing");
        assert!(trades.len() > 500, "{symbol}: {} trades", trades.len());
    }
}

#[test]
fn a_stale_snapshot_is_the_book_of_the_last_slow_diff() {
    let mut market = market("ETHUSDT", 1);
    let mut trades = Vec::new();
    for round in 0..50 {
        let at_diff = market.snapshot(5000);
        market.diff(Pace::Slow);
        for _ in 0..=round {
            market.act(NOW, &mut trades);
            assert_eq!(market.stale_snapshot(5000), at_diff);
            assert!(market.stale_snapshot(5000).last < market.update_id());
        }
    }
}

#[test]
fn the_book_is_never_crossed_or_empty_and_the_price_stays_plausible() {
    for symbol in ["BTCUSDT", "PEPEUSDT", "SIM7USDT"] {
        let mut market = market(symbol, 99);
        let (mut trades, mut spreads) = (Vec::new(), 0);
        for _ in 0..50_000 {
            market.act(NOW, &mut trades);
            let [(bid, bid_lots), (ask, ask_lots)] = market.best();
            assert!(0 < bid && bid < ask && bid_lots > 0 && ask_lots > 0, "{symbol}: {bid} {ask}");
            spreads += ask - bid;
        }
        let start = market.instrument.start;
        let away = trades.iter().map(|trade| (trade.price - start).abs()).max().unwrap();
        assert!(away < start / 5, "{symbol}: {away} ticks from {start}");
        let spread = spreads / 50_000;
        assert!(spread < (start / 1_000).max(3), "{symbol}: {spread} ticks between bid and ask");
    }
}

#[test]
fn ids_are_dense_and_candles_follow_from_the_trades() {
    let mut market = market("BTCUSDT", 3);
    let mut trades = Vec::new();
    let open_time = INTERVALS[0].open_of(NOW);
    let mut expected = market.candle(INTERVALS[0], NOW).unwrap();
    for _ in 0..1_000 {
        market.act(NOW, &mut trades);
    }
    for pair in trades.windows(2) {
        assert_eq!((pair[1].id, pair[1].first_id), (pair[0].id + 1, pair[0].last_id() + 1));
    }
    expected.first_id = trades[0].first_id;
    expected.open = trades[0].price;
    expected.high = trades.iter().map(|t| t.price).max().unwrap();
    expected.low = trades.iter().map(|t| t.price).min().unwrap();
    expected.close = trades.last().unwrap().price;
    expected.last_id = trades.last().unwrap().last_id();
    expected.lots = trades.iter().map(AggTrade::lots).sum();
    expected.value = trades.iter().map(|t| i128::from(t.price) * i128::from(t.lots())).sum();
    let bought = || trades.iter().filter(|t| t.taker_buys);
    expected.taker_lots = bought().map(AggTrade::lots).sum();
    expected.taker_value = bought().map(|t| i128::from(t.price) * i128::from(t.lots())).sum();
    assert_eq!(market.candle(INTERVALS[0], NOW), Some(expected));
    market.roll();
    assert_eq!(market.candle(INTERVALS[0], NOW), Some(expected));
    let next = market.candle(INTERVALS[0], open_time + MINUTE_MS).unwrap();
    assert_eq!((next.open, next.trades()), (expected.close, 0));
}

#[test]
fn the_past_leads_up_to_the_present() {
    let market = market("BTCUSDT", 3);
    let past = market.candles().series(INTERVALS[0], None, None, 1000);
    assert_eq!(past.len(), 501);
    for pair in past.windows(2) {
        assert_eq!((pair[1].open_time, pair[1].open), (pair[0].open_time + MINUTE_MS, pair[0].close));
        assert!(pair[0].low <= pair[0].open.min(pair[0].close) && pair[0].high >= pair[0].open.max(pair[0].close));
        assert!(pair[1].first_id < 0 || pair[1].first_id == pair[0].last_id + 1);
    }
    let [(bid, _), (ask, _)] = market.best();
    let last = past.last().unwrap().close;
    assert!(bid <= last && last <= ask, "{bid} {last} {ask}");
}

#[test]
fn equal_seeds_give_equal_markets_at_any_time() {
    let run = |seed, start| {
        let mut market = Market::new(Instrument::named(&crate::binance::SPOT, "BTCUSDT"), seed, start);
        let mut trades = Vec::new();
        for _ in 0..500 {
            market.act(start, &mut trades);
        }
        let ticks: Vec<_> = trades.into_iter().map(|t| (t.id, t.price, t.first_id, t.fills)).collect();
        (ticks, market.diff(Pace::Fast), market.snapshot(5000))
    };
    assert_eq!(run(5, NOW), run(5, NOW + 86_400_123));
    assert_ne!(run(5, NOW), run(6, NOW));
}
