//! The candles of one pair.

use super::*;

/// Candles of the past: interval, minute in which it opened, volume.
fn past(out: &Output) -> Vec<String> {
    let all = out.history.iter().flat_map(|history| &history.candles);
    all.map(|c| format!("{} {} {}", c.interval, c.open_time / MINUTE, c.volume)).collect()
}

#[test]
fn minutes_close_with_the_next_one_once_the_past_is_known() {
    let mut harness = Harness::new();
    assert_eq!(candles(&harness.candle(600, "10", "1")), [("1m", 10, "1".into(), false)]);
    let asked = Request::Candles { symbol: "BTCTRY".into(), interval: "1", count: 1_500 };
    assert_eq!(harness.tick(50).requests, [asked]);
    let out = harness.klines(&[(480, 2), (540, 3), (600, 1)]);
    assert_eq!(past(&out), ["1m 8 2", "1m 9 3"]);
    assert_eq!(candles(&out), [("1m", 10, "1".into(), false), ("5m", 10, "1".into(), false)]);
    assert_eq!(harness.candle(600, "10", "1").skipped, [Reason::Duplicate]);
    let out = harness.candle(660, "12", "4");
    assert_eq!(
        candles(&out),
        [
            ("1m", 10, "1".into(), true),
            ("5m", 10, "1".into(), false),
            ("1m", 11, "4".into(), false),
            ("5m", 10, "5".into(), false),
        ]
    );
    assert_eq!(harness.candle(600, "10", "9").skipped, [Reason::Stale], "a closed one changes no more");
}

#[test]
fn a_minute_that_was_not_seen_whole_comes_from_rest() {
    let mut harness = Harness::new();
    harness.candle(600, "10", "1");
    harness.klines(&[(540, 3), (600, 1)]);
    harness.close();
    let out = harness.candle(720, "10", "2");
    assert_eq!(candles(&out), [("1m", 12, "2".into(), false)], "minute 10 may have gone on unseen");
    assert_eq!(harness.tick(50).requests.len(), 1);
    let out = harness.klines(&[(540, 3), (600, 8), (660, 9), (720, 1)]);
    assert_eq!(past(&out), ["1m 9 3", "1m 10 8", "1m 11 9"]);
    let told = candles(&out);
    let late = ("1m", 10, "8".into(), true);
    let running = [("1m", 12, "2".into(), false), ("5m", 10, "19".into(), false)];
    assert_eq!(told[0], late, "who was told that it is open is told how it ended");
    assert_eq!(told[1..], running, "and what runs adds up");
}

#[test]
fn every_candle_that_was_told_is_told_closed_after_a_hole() {
    let mut harness = Harness::new();
    harness.now = 16 * MINUTE;
    harness.candle(840, "10", "1");
    let opened = candles(&harness.klines(&[(600, 1), (840, 1)])).len();
    assert_eq!(opened, 2, "minute 14 and the five minutes that it is in");
    harness.close();
    harness.candle(900, "10", "2");
    harness.close();
    harness.candle(960, "10", "3");
    let out = harness.klines(&[(600, 1), (840, 5), (900, 6), (960, 3)]);
    let told: Vec<_> = candles(&out).into_iter().take(5).collect();
    assert_eq!(
        told,
        [
            ("1m", 14, "5".into(), true),
            ("5m", 10, "6".into(), true),
            ("1m", 15, "6".into(), true),
            ("1m", 16, "3".into(), false),
            ("5m", 15, "9".into(), false),
        ]
    );
    harness.mapper.backfill(&mut Output::default());
    let out = harness.klines(&[(600, 1), (840, 5), (900, 6), (960, 3)]);
    assert!(candles(&out).iter().all(|candle| !candle.3), "only once: {:?}", candles(&out));
}

#[test]
fn what_was_told_after_a_late_candle_is_told_again() {
    let mut harness = Harness::new();
    // Nobody says how minute 10 ended until after minute 12 was closed by the clock.
    harness.klines(&[(540, 3)]);
    harness.candle(600, "10", "1");
    harness.close();
    harness.candle(720, "10", "2");
    harness.tick(50);
    harness.tick(91_000);
    harness.candle(780, "10", "4");
    harness.now = 14 * MINUTE + 30_000;
    harness.trade(14 * MINUTE + 30_000, 1);
    let closed = harness.tick(5_000);
    assert!(candles(&closed).contains(&("1m", 13, "4".into(), true)), "{:?}", candles(&closed));
    harness.mapper.backfill(&mut Output::default());
    let out = harness.klines(&[(600, 8), (720, 2), (780, 4)]);
    let minutes: Vec<_> = candles(&out).into_iter().filter(|candle| candle.0 == "1m").collect();
    assert_eq!(minutes, [("1m", 10, "8".into(), true), ("1m", 13, "4".into(), true)]);
}

#[test]
fn connections_that_change_over_leave_no_hole() {
    let mut harness = Harness::new();
    harness.candle(600, "10", "1");
    harness.klines(&[(600, 1)]);
    harness.connection = 2;
    harness.book(431, 5, json!([level("10", "3")]), json!([level("11", "3")]));
    harness.connection = 1;
    harness.close();
    assert!(harness.tick(50).requests.is_empty(), "the new one has been asked for candles before it told of the book");
    let out = harness.candle(660, "12", "4");
    assert_eq!(candles(&out)[0], ("1m", 10, "1".into(), true));
    harness.close();
    harness.ticker_of_all();
    harness.candle(720, "12", "4");
    assert_eq!(harness.tick(50).requests.len(), 1, "after the last one there is a hole");
}

#[test]
fn the_tickers_of_all_pairs_do_not_show_that_candles_come() {
    let mut harness = Harness::new();
    harness.candle(600, "10", "1");
    harness.klines(&[(600, 1)]);
    harness.connection = 2;
    harness.ticker_of_all();
    harness.connection = 1;
    harness.close();
    harness.ticker_of_all();
    assert_eq!(harness.tick(50).requests.len(), 1);
}

#[test]
fn a_minute_whose_successor_came_over_its_connection_is_closed_without_rest() {
    let mut harness = Harness::new();
    harness.now = 14 * MINUTE;
    harness.candle(600, "10", "1");
    let told =
        |out: &Output| candles(out).into_iter().map(|(_, minute, _, closed)| (minute, closed)).collect::<Vec<_>>();
    assert_eq!(told(&harness.candle(660, "10", "2")), [(10, true), (11, false)]);
    harness.close();
    assert_eq!(told(&harness.candle(720, "10", "3")), [(12, false)], "minute 11 may have gone on unseen");
    harness.close();
    assert_eq!(harness.candle(720, "10", "3").skipped, [Reason::Duplicate]);
    assert_eq!(told(&harness.candle(840, "10", "4")), [(12, true), (14, false)]);
    let out = harness.klines(&[(600, 1), (660, 9), (720, 3), (840, 4)]);
    let minutes: Vec<_> = candles(&out).into_iter().filter(|candle| candle.0 == "1m").collect();
    assert_eq!(minutes, [("1m", 11, "9".into(), true), ("1m", 14, "4".into(), false)]);
}

#[test]
fn without_an_answer_longer_candles_begin_anew_and_go_on() {
    let mut harness = Harness::new();
    harness.now = 5 * MINUTE;
    let outs: Vec<Output> = (5..=15)
        .map(|minute| {
            let out = harness.candle(minute * 60, "10", "1");
            harness.tick(MINUTE);
            out
        })
        .collect();
    let told: Vec<_> = outs.iter().flat_map(candles).collect();
    let closed = |interval| told.iter().filter(move |candle| candle.0 == interval && candle.3);
    assert_eq!(closed("1m").count(), 10);
    // The answer is given up after a minute and a half, so the five minutes from 5 on are not known as a whole.
    assert_eq!(told.iter().find(|candle| candle.0 == "5m"), Some(&("5m", 10, "1".into(), false)));
    assert_eq!(closed("5m").collect::<Vec<_>>(), [&("5m", 10, "5".into(), true)]);
}

#[test]
fn who_begins_to_publish_gets_the_past_again() {
    let mut harness = Harness::new();
    harness.candle(600, "10", "1");
    harness.klines(&[(540, 3), (600, 1)]);
    assert_eq!(harness.klines(&[(540, 3), (600, 1)]).skipped, [Reason::UnusedSnapshot]);
    harness.mapper.backfill(&mut Output::default());
    assert_eq!(harness.tick(50).requests.len(), 1);
    assert_eq!(past(&harness.klines(&[(540, 3), (600, 1)])), ["1m 9 3"]);
}

#[test]
fn minutes_are_built_from_trades_where_the_venue_sends_none() {
    let mut harness = Harness::new();
    harness.list(&[(9 * MINUTE, 1)]);
    harness.klines(&[]);
    assert_eq!(candles(&harness.trade(9 * MINUTE + 5, 2)).len(), 0, "a minute whose beginning was not seen");
    let out = harness.trade(10 * MINUTE + 5, 3);
    assert_eq!(candles(&out)[0], ("1m", 10, "0.02033732".into(), false));
    let out = harness.trade(11 * MINUTE + 5, 4);
    assert!(candles(&out).contains(&("1m", 10, "0.02033732".into(), true)), "{:?}", candles(&out));
}

#[test]
fn a_quiet_minute_closes_by_the_clock_of_the_venue() {
    let mut harness = Harness::new();
    harness.now = 60 * MINUTE;
    harness.klines(&[]);
    // The venue's clock is fifty minutes behind.
    harness.trade(10 * MINUTE + 30_000, 1);
    harness.candle(600, "10", "1");
    assert!(candles(&harness.tick(30_000)).is_empty(), "it may be told a moment late");
    assert_eq!(candles(&harness.tick(5_000))[0], ("1m", 10, "1".into(), true));
}

#[test]
fn a_trade_from_the_future_closes_no_minute() {
    let second = 1_000;
    for (now, times, closes_at) in [
        (10 * MINUTE + 2 * second, &[10 * MINUTE + second, 10 * MINUTE + 58 * second][..], 11 * MINUTE + 6 * second),
        // Without any that is right it is no earlier than by our own clock.
        (10 * MINUTE + 2 * second, &[10 * MINUTE + 58 * second], 11 * MINUTE + 5 * second),
        (10 * MINUTE + 2 * second, &[10 * MINUTE + 58 * second; 2], 11 * MINUTE + 5 * second),
        // The venue's clock is fifty minutes behind.
        (60 * MINUTE + 2 * second, &[10 * MINUTE + second, 60 * MINUTE + 58 * second], 61 * MINUTE + 6 * second),
    ] {
        let mut harness = Harness::new();
        harness.now = now;
        harness.klines(&[]);
        harness.candle(600, "10", "1");
        for (time, id) in times.iter().zip(1..) {
            harness.trade(*time, id);
        }
        let early = harness.tick(closes_at - 1 - now);
        assert!(candles(&early).is_empty(), "{times:?}: {:?}", candles(&early));
        assert_eq!(candles(&harness.tick(1))[0], ("1m", 10, "1".into(), true), "{times:?}");
    }
}
