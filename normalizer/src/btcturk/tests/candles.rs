//! The candles of one pair.

use super::*;

/// Candles of the past: interval, minute in which it opened, volume.
fn past(out: &Output) -> Vec<String> {
    let all = out.history.iter().flat_map(|history| &history.candles);
    all.map(|c| format!("{} {} {}", c.interval, c.open_time / MINUTE, c.volume)).collect()
}

fn asks(out: &Output) -> bool {
    out.requests.iter().any(|request| matches!(request, Request::Candles { .. }))
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
fn rest_is_newer_than_what_a_lost_connection_said() {
    let mut harness = Harness::new();
    harness.candle(600, "10", "1");
    harness.klines(&[(600, 1)]);
    harness.close();
    assert_eq!(
        harness.klines(&[(600, 1)]).skipped,
        [Reason::UnusedSnapshot],
        "more may be missed until something comes"
    );
    harness.connection = 2;
    harness.book(431, 5, json!([level("10", "3")]), json!([level("11", "3")]));
    assert_eq!(candles(&harness.klines(&[(600, 7)]))[0], ("1m", 10, "7".into(), false));
    assert_eq!(candles(&harness.candle(660, "10", "2"))[0], ("1m", 10, "7".into(), true));
    harness.close();
    harness.book(431, 5, json!([level("10", "3")]), json!([level("11", "3")]));
    assert_eq!(candles(&harness.klines(&[(600, 7)])), [], "how minute 11 goes on REST does not know yet");
    assert_eq!(candles(&harness.candle(720, "10", "2"))[0], ("1m", 12, "2".into(), false), "nor how it ended");
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
fn what_was_told_closed_is_not_told_again() {
    let mut harness = Harness::new();
    harness.now = 16 * MINUTE;
    harness.candle(780, "10", "1");
    harness.klines(&[(600, 1), (780, 1)]);
    harness.trade(16 * MINUTE, 1);
    let out = harness.tick(5_000);
    let closed: Vec<_> = candles(&out).into_iter().filter(|candle| candle.3).collect();
    assert_eq!(closed, [("1m", 13, "1".into(), true), ("5m", 10, "2".into(), true)]);
    harness.mapper.backfill(&mut Output::default());
    assert_eq!(candles(&harness.tick(50)), closed, "but by who begins to publish");
    assert_eq!(candles(&harness.klines(&[(600, 1), (780, 1)])), []);
    assert_eq!(candles(&harness.tick(50)), []);
}

#[test]
fn what_was_told_after_a_late_candle_is_told_again() {
    let mut harness = Harness::new();
    // Nobody says how minute 10 ended until after minute 12 was closed by the clock.
    harness.candle(600, "10", "1");
    harness.klines(&[(540, 3)]);
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
fn an_answer_that_comes_after_it_was_given_up_is_taken() {
    let mut harness = Harness::new();
    harness.candle(600, "10", "1");
    assert!(asks(&harness.tick(50)));
    harness.tick(91_000);
    harness.candle(780, "10", "2");
    harness.tick(50);
    harness.candle(840, "10", "3");
    assert!(asks(&harness.tick(60_000)), "it is asked for on and on");
    // Made when minute 13 was running still.
    let out = harness.klines(&[(540, 3), (600, 1), (780, 1)]);
    assert_eq!(past(&out), ["1m 9 3", "1m 10 1", "1m 13 2"], "what was closed meanwhile is newer");
    let told = candles(&out);
    assert_eq!(told, [("1m", 14, "3".into(), false), ("5m", 10, "6".into(), false)]);
    assert!(!asks(&harness.tick(60_000)));
}

#[test]
fn who_begins_to_publish_tells_how_the_last_candle_closed() {
    let mut harness = Harness::new();
    harness.candle(600, "10", "1");
    harness.klines(&[(600, 1)]);
    harness.candle(660, "10", "2");
    harness.mapper.backfill(&mut Output::default());
    let told = [("1m", 10, "1".into(), true), ("1m", 11, "2".into(), false), ("5m", 10, "3".into(), false)];
    assert_eq!(candles(&harness.tick(50)), told);
    assert_eq!(candles(&harness.tick(50)), [], "once");
}

#[test]
fn who_begins_to_publish_goes_on_with_what_is_known() {
    let mut harness = Harness::new();
    harness.candle(600, "10", "1");
    harness.klines(&[(600, 1)]);
    harness.mapper.backfill(&mut Output::default());
    let out = harness.candle(660, "12", "4");
    assert!(candles(&out).contains(&("5m", 10, "5".into(), false)), "{:?}", candles(&out));
    harness.tick(91_000);
    let out = harness.candle(720, "12", "4");
    assert!(candles(&out).contains(&("5m", 10, "9".into(), false)), "without an answer too: {:?}", candles(&out));
}

#[test]
fn an_answer_from_before_the_pair_was_joined_ends_no_hole() {
    let mut harness = Harness::new();
    harness.ticker_of_all();
    assert!(asks(&harness.tick(50)));
    assert_eq!(past(&harness.klines(&[(480, 2), (660, 1)])), ["1m 8 2"], "charts have it");
    assert!(!asks(&harness.tick(MINUTE)), "nobody would tell of what came since");
    let out = harness.candle(720, "10", "1");
    assert_eq!(candles(&out), [("1m", 12, "1".into(), false)], "how minute 11 ended is not known");
    assert!(asks(&harness.tick(50)));
    let out = harness.klines(&[(480, 2), (660, 9), (720, 1)]);
    assert_eq!(candles(&out)[0], ("1m", 11, "9".into(), true));
}

#[test]
fn what_rest_said_last_is_closed_by_a_trade_that_comes_before_its_candle() {
    let mut harness = Harness::new();
    harness.list(&[(8 * MINUTE + 5, 1)]);
    harness.klines(&[(0, 1), (300, 1), (480, 2)]);
    let out = harness.trade(12 * MINUTE + 5, 2);
    assert_eq!(candles(&out)[0], ("1m", 8, "2".into(), true), "{:?}", candles(&out));
    let closed = candles(&out).into_iter().filter(|candle| candle.3).map(|candle| candle.0);
    assert_eq!(closed.collect::<Vec<_>>(), ["1m", "5m"]);
    assert!(candles(&out).contains(&("15m", 0, "4.02033732".into(), false)), "{:?}", candles(&out));
}

#[test]
fn a_minute_whose_end_was_held_up_is_not_closed_before_it_is_read() {
    let mut harness = Harness::new();
    harness.now = 10 * MINUTE + 45_000;
    harness.candle(600, "10", "1");
    harness.klines(&[(600, 1)]);
    harness.trade(harness.now, 1);
    assert_eq!(candles(&harness.tick(5_000)), []);
    assert_eq!(candles(&harness.silent_tick(18_000)), [], "nothing was read since ten seconds before it ended");
    harness.frame(991, &json!({}));
    assert_eq!(candles(&harness.tick(50)), [], "what comes first was sent before");
    assert_eq!(candles(&harness.candle(600, "10", "7"))[0], ("1m", 10, "7".into(), false));
    assert_eq!(candles(&harness.tick(5_000))[0], ("1m", 10, "7".into(), true));
}

#[test]
fn a_minute_closes_by_the_clock_that_was_measured_where_nobody_trades() {
    for ahead_ms in [-300_000, 300_000] {
        let mut harness = Harness::new();
        harness.now = 11 * MINUTE - ahead_ms - 10_000;
        harness.server_time(ahead_ms);
        let out = harness.candle(600, "10", "1");
        assert_eq!((candles(&out).len(), out.skipped), (1, vec![]), "ten minutes by the venue's clock");
        assert_eq!(out.updates[0].ts, 11 * MINUTE - 10_000);
        harness.klines(&[(600, 1)]);
        assert_eq!(candles(&harness.tick(14_999)), []);
        assert_eq!(candles(&harness.tick(1))[0], ("1m", 10, "1".into(), true), "{ahead_ms}");
    }
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
    // The venue's clock is fifty minutes behind.
    harness.trade(10 * MINUTE + 30_000, 1);
    harness.klines(&[]);
    harness.candle(600, "10", "1");
    assert!(candles(&harness.tick(30_000)).is_empty(), "it may be told a moment late");
    assert_eq!(candles(&harness.tick(5_000))[0], ("1m", 10, "1".into(), true));
}

#[test]
fn a_clock_of_ours_that_is_set_forward_closes_no_minute_early() {
    let mut harness = Harness::new();
    harness.now = 10 * MINUTE + 30_000;
    harness.candle(600, "10", "1");
    harness.klines(&[(600, 1)]);
    harness.trade(harness.now, 1);
    harness.trade(harness.now, 2);
    harness.now += 10_000;
    harness.trade(harness.now - 10_000, 3);
    harness.trade(harness.now - 10_000, 4);
    assert_eq!(
        candles(&harness.tick(34_999)),
        [],
        "the venue's minute goes on for ten seconds more, and some may be late"
    );
    assert_eq!(candles(&harness.tick(1))[0], ("1m", 10, "1".into(), true));
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
        harness.candle(600, "10", "1");
        harness.klines(&[]);
        for (time, id) in times.iter().zip(1..) {
            harness.trade(*time, id);
        }
        let early = harness.tick(closes_at - 1 - now);
        assert!(candles(&early).is_empty(), "{times:?}: {:?}", candles(&early));
        assert_eq!(candles(&harness.tick(1))[0], ("1m", 10, "1".into(), true), "{times:?}");
    }
}

/// What is traded each minute, and what was told of it.
struct Market {
    harness: Harness,
    open: Vec<u32>,
    next_connection: u32,
    asked: bool,
    /// When the trades were.
    trades: Vec<i64>,
    /// Trades so far by minute.
    volumes: BTreeMap<i64, i64>,
    /// Candles by interval and minute: whether the last word on them was that they are closed.
    told: BTreeMap<(String, i64), bool>,
}

/// A trade of the volume 1.
fn one(time: i64) -> Value {
    let mut trade = trade(time, time.unsigned_abs());
    trade["A"] = json!("1");
    trade
}

impl Market {
    fn take(&mut self, out: &Output) {
        let minutes = |interval: &str| if interval == "1m" { 1 } else { 5 };
        let mut newest = BTreeMap::new();
        for (interval, minute, volume, closed) in
            candles(out).into_iter().filter(|candle| matches!(candle.0, "1m" | "5m"))
        {
            let known = self.told.insert((interval.to_owned(), minute), closed);
            assert!(known != Some(true) || closed, "{interval} {minute} is open again");
            newest.insert(interval.to_owned(), minute);
            let until = minute + minutes(interval);
            let volumes: i64 = self.volumes.range(minute..until).map(|minute| minute.1).sum();
            assert!(!closed || volumes.to_string() == volume, "{interval} {minute} had {volumes}, not {volume}");
            assert!(!closed || self.harness.now >= until * MINUTE, "{interval} {minute} is not over");
        }
        for (interval, minute) in newest {
            let last = self.told.keys().filter(|told| told.0 == interval).map(|told| told.1).max();
            assert_eq!(last, Some(minute), "the newest of {interval} wins");
        }
    }

    fn connect(&mut self) {
        self.next_connection += 1;
        self.open.push(self.next_connection);
        self.harness.connection = self.next_connection;
        self.harness.book(431, 1, json!([level("10", "3")]), json!([level("11", "3")]));
        let last: Vec<Value> = self.trades.iter().rev().take(50).map(|time| one(*time)).collect();
        let list = json!({"symbol": "BTCTRY", "items": last, "channel": "trade", "event": "BTCTRY", "type": 421});
        let out = self.harness.frame(421, &list);
        self.take(&out);
    }

    fn disconnect(&mut self) {
        self.harness.connection = self.open.remove(0);
        self.harness.close();
    }

    fn trade(&mut self) {
        let (now, minute) = (self.harness.now, self.harness.now / MINUTE);
        *self.volumes.entry(minute).or_default() += 1;
        self.trades.push(now);
        let volume = self.volumes[&minute].to_string();
        for connection in self.open.clone() {
            self.harness.connection = connection;
            // Either may come first.
            let candle_first = now / 2_000 % 2 == 0;
            for is_candle in [candle_first, !candle_first] {
                let out = if is_candle {
                    self.harness.candle(minute * 60, "10", &volume)
                } else {
                    self.harness.frame(422, &one(now))
                };
                self.take(&out);
            }
        }
    }

    fn tick(&mut self, later_ms: i64) {
        let out = self.harness.tick(later_ms);
        self.asked |= asks(&out);
        self.take(&out);
    }

    fn answer(&mut self) {
        self.asked = false;
        let rows: Vec<(i64, i64)> = self.volumes.iter().map(|(minute, volume)| (minute * 60, *volume)).collect();
        let out = self.harness.klines(&rows);
        self.take(&out);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// However connections come and go and REST answers: what is told closed is what was traded, and all is told closed.
    #[test]
    fn every_closed_candle_is_the_venues_and_none_stays_open(steps in prop::collection::vec(0u8..16, 1..150)) {
        let (harness, volumes, told) = (Harness::new(), BTreeMap::new(), BTreeMap::new());
        let (open, trades) = (vec![], vec![]);
        let mut market = Market { harness, open, next_connection: 0, asked: false, trades, volumes, told };
        for step in steps {
            match step {
                0 if !market.open.is_empty() => market.disconnect(),
                1 | 2 if market.open.len() < 2 => market.connect(),
                3 | 4 if market.asked => market.answer(),
                5 => market.tick(50_000),
                6 => market.harness.mapper.backfill(&mut Output::default()),
                7..13 => market.trade(),
                _ => {}
            }
            market.tick(6_000);
        }
        market.connect();
        market.trade();
        market.harness.mapper.backfill(&mut Output::default());
        market.answer();
        let last = market.harness.now / MINUTE;
        let open: Vec<_> = market.told.iter().filter(|told| !told.1).map(|told| told.0).collect();
        prop_assert!(open.iter().all(|(interval, minute)| minute + if interval == "1m" { 1 } else { 5 } > last), "{:?}", open);
    }
}
