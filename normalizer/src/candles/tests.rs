use proptest::prelude::*;

use super::*;

/// 2021-10-12 00:00 UTC.
const DAY: i64 = 1_633_996_800_000;

fn decimal(hundredths: i64) -> Decimal {
    Decimal::from_parts(hundredths.into(), 2).unwrap()
}

fn bar(price: i64, volume: i64) -> Bar {
    let price = decimal(price);
    Bar { open: price, high: price, low: price, close: price, volume: decimal(volume), trades: Some(1) }
}

/// A market that is open for two and a half hours from each midnight, and whose day is that session.
struct Short;

impl Calendar for Short {
    fn span(&self, interval: Interval, time_ms: i64) -> Option<Span> {
        let day = Utc.span(Interval::D1, time_ms)?;
        let session = Span { open_time: day.open_time, end: day.open_time + 150 * 60_000 };
        if time_ms >= session.end {
            return None;
        }
        let span = Utc.span(interval, time_ms)?;
        Some(Span { open_time: span.open_time, end: span.end.min(session.end) })
    }
}

#[test]
fn an_open_candle_follows_its_running_minute() {
    let (mut roll, mut out) = (RollUp::new(Utc), Vec::new());
    roll.take(DAY, &bar(100, 1), false, &mut out).unwrap();
    roll.take(DAY, &bar(200, 3), false, &mut out).unwrap();
    roll.take(DAY, &bar(150, 4), true, &mut out).unwrap();
    roll.take(DAY, &bar(999, 9), false, &mut out).unwrap();
    roll.take(DAY + 60_000, &bar(120, 2), false, &mut out).unwrap();
    let five: Vec<_> = out.iter().filter(|shown| shown.interval == Interval::M5).collect();
    let seen: Vec<_> = five.iter().map(|shown| (shown.bar.close, shown.bar.volume, shown.closed)).collect();
    let expected =
        [(100, 1), (200, 3), (150, 4), (120, 6)].map(|(close, volume)| (decimal(close), decimal(volume), false));
    assert_eq!(seen, expected, "a closed minute changes no more, a running one is replaced");
    assert_eq!(five.last().map(|shown| shown.span.close_time()), Some(DAY + 299_999));
    assert_eq!(out.len(), 4 * Interval::LONGER.len());
}

#[test]
fn a_candle_whose_beginning_was_missed_is_not_told() {
    let (mut roll, mut out) = (RollUp::new(Utc), Vec::new());
    for minute in 3..11 {
        roll.take(DAY + minute * 60_000, &bar(100, 1), true, &mut out).unwrap();
    }
    assert!(out.iter().all(|shown| shown.interval == Interval::M5), "longer ones begin later");
    let closed: Vec<_> = out.iter().filter(|shown| shown.closed).map(|shown| shown.span.open_time).collect();
    assert_eq!(closed, [DAY + 5 * 60_000], "the one that began before is unknown, the last one is open");
}

#[test]
fn a_candle_goes_on_from_what_the_venue_told() {
    let (mut roll, mut out) = (RollUp::new(Utc), Vec::new());
    roll.begin(Interval::D1, DAY, Some(bar(500, 40)), DAY + 60 * 60_000);
    roll.take(DAY + 59 * 60_000, &bar(900, 7), true, &mut out).unwrap();
    assert_eq!(out, [], "that minute is in it already");
    roll.take(DAY + 60 * 60_000, &bar(600, 2), false, &mut out).unwrap();
    let day = out.iter().find(|shown| shown.interval == Interval::D1).unwrap();
    assert_eq!((day.bar.open, day.bar.close, day.bar.volume), (decimal(500), decimal(600), decimal(42)));
}

#[test]
fn a_session_that_ends_early_closes_its_candles() {
    let (mut roll, mut out) = (RollUp::new(Short), Vec::new());
    for minute in 0..150 {
        roll.take(DAY + minute * 60_000, &bar(100 + minute, 1), true, &mut out).unwrap();
    }
    let ends = |interval| {
        let closed = out.iter().filter(|shown| shown.closed && shown.interval == interval);
        closed.map(|shown| (shown.span.end - DAY) / 60_000).collect::<Vec<_>>()
    };
    assert_eq!(
        (ends(Interval::H1), ends(Interval::H4), ends(Interval::D1)),
        (vec![60, 120, 150], vec![150], vec![150])
    );
    let before = out.len();
    roll.take(DAY + 151 * 60_000, &bar(1, 1), true, &mut out).unwrap();
    assert_eq!(out.len(), before, "the market is closed");
}

#[test]
fn time_alone_closes_what_is_over() {
    let (mut roll, mut out) = (RollUp::new(Utc), Vec::new());
    roll.take(DAY, &bar(100, 1), true, &mut out).unwrap();
    out.clear();
    roll.on_time(DAY + 15 * 60_000, &mut out);
    let closed: Vec<_> = out.iter().map(|shown| (shown.interval, shown.closed)).collect();
    assert_eq!(closed, [(Interval::M5, true), (Interval::M15, true)]);
}

#[test]
fn a_bar_without_trades_changes_nothing() {
    let quiet = Bar { trades: Some(0), ..bar(900, 0) };
    assert_eq!(bar(100, 1).then(&quiet), Ok(bar(100, 1)));
    assert_eq!(quiet.then(&bar(100, 1)), Ok(bar(100, 1)));
}

proptest! {
    /// Against candles that are added up from the whole list of trades.
    #[test]
    fn candles_are_those_of_all_trades(
        trades in prop::collection::vec((1i64..400_000, 1i64..100_000, 1i64..1_000), 1..200)
    ) {
        let mut time = DAY;
        let trades: Vec<Trade> = trades.into_iter().map(|(later, price, qty)| {
            time += later;
            Trade { time, price: decimal(price), qty: decimal(qty) }
        }).collect();
        let (mut minutes, mut roll) = (Minutes::new(Utc), RollUp::new(Utc));
        for interval in Interval::LONGER {
            roll.begin(interval, DAY, None, DAY);
        }
        let (mut of_minute, mut out) = (Vec::new(), Vec::new());
        for trade in &trades {
            minutes.take(trade, &mut of_minute).unwrap();
        }
        minutes.on_time(i64::MAX, &mut of_minute);
        for minute in &of_minute {
            roll.take(minute.span.open_time, &minute.bar, minute.closed, &mut out).unwrap();
        }
        roll.on_time(i64::MAX, &mut out);
        out.extend(of_minute);
        for interval in Interval::ALL {
            let mut expected: Vec<(i64, Bar)> = Vec::new();
            for trade in &trades {
                let open_time = trade.time - trade.time.rem_euclid(interval.length_ms());
                match expected.last_mut().filter(|(open, _)| *open == open_time) {
                    Some((_, bar)) => {
                        bar.high = bar.high.max(trade.price);
                        bar.low = bar.low.min(trade.price);
                        bar.close = trade.price;
                        bar.volume = bar.volume.checked_add(trade.qty).unwrap();
                        bar.trades = bar.trades.map(|n| n + 1);
                    }
                    None => {
                        let (price, volume) = (trade.price, trade.qty);
                        let trades = Some(1);
                        expected.push((open_time, Bar { open: price, high: price, low: price, close: price, volume, trades }));
                    }
                }
            }
            let of_interval = || out.iter().filter(|shown| shown.interval == interval);
            let closed: Vec<(i64, Bar)> = of_interval().filter(|s| s.closed).map(|s| (s.span.open_time, s.bar)).collect();
            prop_assert_eq!(expected, closed, "{:?}", interval);
            let sane = of_interval().all(|shown| {
                let at_open = shown.span.open_time.rem_euclid(interval.length_ms()) == 0;
                at_open && shown.bar.low <= shown.bar.open && shown.bar.open <= shown.bar.high
            });
            prop_assert!(sane);
        }
    }
}
