//! Where candles and trades of a day go on, and where they do not: sessions that end, break off, are joined late.

use akis_connectors::bist::itch::{Message, Seconds, Side};
use akis_model::{Candle, ChannelState, MarketState};

use super::feed::{Feed, MORNING, THYAO, add, books, directory, executed, state, statuses, trades};
use super::states_of;
use crate::bist::Bist;
use crate::mapper::{Mapper as _, Output, Resync};
use crate::update::Payload;

const DAY: u32 = 24 * 3_600;

fn second(second: u32) -> Message<'static> {
    Message::Seconds(Seconds { second })
}

fn candles(out: &Output, interval: &str, closed: bool) -> Vec<Candle> {
    let candles = out.updates.iter().filter_map(|update| match &update.payload {
        Payload::Candle(candle) if candle.interval == interval && candle.closed == closed => Some(candle.clone()),
        _ => None,
    });
    candles.collect()
}

/// One trade of 1, in the morning.
fn traded() -> Feed {
    let mut feed = Feed::open();
    let out = feed.packet(&[add(1, Side::Sell, 110, 5, 0), executed(1, Side::Sell, 1, 70)]);
    assert_eq!(candles(&out, "1d", false).len(), 1);
    feed
}

/// The session that begins at `at`, with a trade of 2.
fn next_session(feed: &mut Feed, name: &str, at: u32) -> [Output; 2] {
    feed.new_session(name);
    let begin = feed.packet(&[second(at), directory("THYAO.E", THYAO)]);
    [begin, feed.packet(&[add(1, Side::Sell, 120, 5, 0), executed(1, Side::Sell, 2, 71)])]
}

#[test]
fn a_session_that_has_ended_is_whole() {
    let mut feed = traded();
    feed.end();
    let [begin, later] = next_session(&mut feed, "DAY2", MORNING + DAY);
    assert_eq!(candles(&begin, "1d", true).len(), 1);
    assert_eq!((trades(&later).len(), later.lost_trades), (1, 0));
    assert_eq!(candles(&later, "1d", false)[0].volume.to_string(), "2");
    assert_eq!((states_of(&begin, "bist:THYAO:1d"), states_of(&later, "bist:THYAO:1d")), (vec![], vec![]));
}

#[test]
fn a_session_that_breaks_off_is_not_whole() {
    let mut feed = traded();
    assert_eq!(feed.heartbeat().resyncs, [], "no more is heard of it");
    let [begin, later] = next_session(&mut feed, "DAY2", MORNING + DAY);
    for interval in ["1m", "1d"] {
        assert_eq!(candles(&begin, interval, true), [], "trades may be missing in it");
    }
    assert_eq!(states_of(&begin, "bist:THYAO:1d"), [ChannelState::Resyncing, ChannelState::Up]);
    assert_eq!((trades(&later).len(), later.lost_trades), (1, 1));
    assert_eq!(candles(&later, "1d", false)[0].volume.to_string(), "2", "the new day is whole");
}

#[test]
fn a_session_that_is_started_anew_closes_and_begins_no_candle_of_its_day() {
    let mut feed = traded();
    feed.end();
    let noon = MORNING + 2 * 3_600;
    let [begin, later] = next_session(&mut feed, "AGAIN", noon);
    assert_eq!(candles(&begin, "1h", true).len(), 1, "its time is over, and nothing of it is missing");
    assert_eq!(candles(&begin, "1d", true), []);
    assert_eq!(states_of(&begin, "bist:THYAO:1d"), [ChannelState::Resyncing]);
    assert_eq!((trades(&later).len(), later.lost_trades), (1, 0));
    assert_eq!(candles(&later, "1d", false), []);
    feed.packet(&[second(noon + 1)]);
    feed.packet(&[second(noon + 60)]);
    let out = feed.packet(&[executed(1, Side::Sell, 1, 72)]);
    let told = ["1m", "5m", "1d"].map(|interval| candles(&out, interval, false).len());
    assert_eq!(told, [1, 0, 0], "the minute is whole");
    let [begin, later] = next_session(&mut feed, "DAY2", MORNING + DAY);
    assert_eq!(states_of(&begin, "bist:THYAO:1d"), [ChannelState::Up]);
    assert_eq!(candles(&later, "1d", false)[0].volume.to_string(), "2");
}

#[test]
fn what_a_hole_leaves_unknown_is_told_also_without_an_open_candle() {
    let mut feed = Feed::open();
    feed.next += 1;
    let out = feed.packet(&[second(MORNING + 1)]);
    for interval in ["1m", "5m", "15m", "1h", "4h", "1d"] {
        assert_eq!(states_of(&out, &format!("bist:THYAO:{interval}")), [ChannelState::Resyncing], "{interval}");
    }
    feed.tick(11_000);
    let up = |out: &Output| ["1m", "5m", "1d"].map(|interval| states_of(out, &format!("bist:THYAO:{interval}")).len());
    assert_eq!(up(&feed.packet(&[second(MORNING + 59)])), [0, 0, 0]);
    assert_eq!(up(&feed.packet(&[second(MORNING + 60)])), [1, 0, 0], "a minute without a trade is known");
    assert_eq!(up(&feed.packet(&[second(MORNING + 300)])), [0, 1, 0]);
    let out = feed.packet(&[add(1, Side::Sell, 110, 5, 0), executed(1, Side::Sell, 1, 70)]);
    assert_eq!(["1m", "5m", "15m"].map(|interval| candles(&out, interval, false).len()), [1, 1, 0]);
    assert_eq!(up(&feed.packet(&[second(MORNING + DAY)])), [0, 0, 1]);
}

#[test]
fn a_late_join_tells_which_candles_it_does_not_know() {
    let mut feed = Feed::new();
    feed.next = 1_000;
    feed.packet(&[second(MORNING)]);
    let out = feed.snapshot(&[second(MORNING), directory("THYAO.E", THYAO)], 1_001);
    for interval in ["1m", "1d"] {
        assert_eq!(states_of(&out, &format!("bist:THYAO:{interval}")), [ChannelState::Resyncing]);
    }
}

#[test]
fn who_takes_over_tells_again_what_is_so() {
    let mut feed = traded();
    let continuous = state("P_SUREKLI_ISLEM");
    feed.packet(&[second(MORNING + 60), continuous, add(2, Side::Buy, 100, 7, 0), executed(1, Side::Sell, 1, 71)]);
    feed.packet(&[second(MORNING + 70), continuous]);
    let mut out = Output::default();
    feed.mapper.backfill(&mut out);
    assert_eq!(trades(&out), [], "they are kept by whoever publishes them");
    let status = &statuses(&out)[0];
    assert_eq!((statuses(&out).len(), status.state), (1, Some(MarketState::Continuous)));
    let update = out.updates.iter().find(|update| update.channel.as_str() == "bist:THYAO:session").unwrap();
    assert_eq!(update.ts, i64::from(MORNING + 60) * 1_000, "that is since when");
    assert_eq!(books(&out)[0].bids.len(), 1);
    assert!(out.updates.iter().any(|update| matches!(&update.payload, Payload::PriceTick(tick) if tick.bid.is_some())));
    assert_eq!(candles(&out, "1m", false)[0].trades, Some(1), "the open one");
    let [closed] = &candles(&out, "1m", true)[..] else { panic!("who published may not have come to it: {out:?}") };
    assert_eq!((closed.open_time, closed.trades), (i64::from(MORNING) * 1_000, Some(1)));
    let [minute] = &out.history[..] else { panic!("one candle is closed: {:?}", out.history) };
    assert_eq!((minute.channel.as_str(), minute.candles[0].open_time), ("bist:THYAO:1m", i64::from(MORNING) * 1_000));

    feed.next += 1;
    feed.packet(&[second(MORNING + 71)]);
    feed.tick(1_500);
    feed.mapper.backfill(&mut Output::default());
    let mut out = feed.tick(50);
    feed.mapper.backfill(&mut out);
    for channel in ["bist:THYAO:book", "bist:THYAO:1m"] {
        assert_eq!(states_of(&out, channel), [ChannelState::Resyncing], "{channel}");
    }
}

#[test]
fn symbols_that_nothing_is_known_of_are_told() {
    let mut mapper = Bist::default();
    mapper.admit(Some(&["THYAO".to_owned(), "GONE".to_owned()]), &[]);
    let mut feed = Feed::of(mapper);
    feed.next = 1_000;
    feed.packet(&[second(MORNING), add(1, Side::Sell, 110, 5, 0)]);
    let all = ["ticker", "trades", "book", "session", "1m", "1d"].map(|facet| format!("bist:THYAO:{facet}"));
    let out = feed.tick(1_500);
    for channel in &all {
        assert_eq!(states_of(&out, channel), [ChannelState::Resyncing], "{channel}");
    }
    assert_eq!(feed.tick(1_500).updates.len(), 0, "once");
    let mut again = Output::default();
    feed.mapper.backfill(&mut again);
    assert_eq!(states_of(&again, &all[0]), [ChannelState::Resyncing], "but for who takes over");
    assert_eq!(feed.tick(30_000).requests.len(), 1, "a snapshot is asked for");
    let out = feed.snapshot(&[directory("THYAO.E", THYAO), add(1, Side::Sell, 110, 5, 0)], 1_002);
    for channel in &all[..4] {
        assert_eq!(states_of(&out, channel), [ChannelState::Up], "{channel}");
    }
    assert_eq!(states_of(&out, &all[5]), [ChannelState::Resyncing], "its day is not known");
    assert_eq!(states_of(&out, "bist:GONE:1d"), [ChannelState::Up], "there is none");
}

#[test]
fn a_replay_tells_its_trades_and_then_how_things_are() {
    let mut feed = Feed::new();
    feed.now += 3_600_000;
    let morning = [second(MORNING), directory("THYAO.E", THYAO), state("P_ACS_EMR_TP_PY_EIY")];
    assert_eq!(feed.packet(&morning).updates, []);
    let out = feed.packet(&[state("P_SUREKLI_ISLEM"), add(1, Side::Sell, 110, 5, 0), executed(1, Side::Sell, 1, 70)]);
    assert_eq!((out.updates.len(), trades(&out).len()), (1, 1));
    let out = feed.packet(&[second(MORNING + 60)]);
    assert_eq!((out.updates.len(), out.history.len()), (0, 1), "its minute is history");
    let mut out = feed.tick(1_000);
    feed.mapper.backfill(&mut out);
    assert_eq!(out.updates, [], "whoever takes over does not tell the past either");
    let out = feed.packet(&[second(MORNING + 3_600)]);
    assert_eq!(statuses(&out).iter().map(|status| status.state).collect::<Vec<_>>(), [Some(MarketState::Continuous)]);
    assert_eq!((books(&out).len(), candles(&out, "1d", false).len(), trades(&out).len()), (1, 1, 0));
    let out = feed.packet(&[add(2, Side::Buy, 100, 7, 0)]);
    assert_eq!(books(&out).len(), 1, "from here on as it happens");
}

/// The state, book and day of a replay that is over, each once.
#[track_caller]
fn tells_how_things_are(out: &Output) {
    let told = (statuses(out).len(), books(out).len(), candles(out, "1d", false).len());
    assert_eq!(told, (1, 1, 1));
}

/// A day that is read an hour late.
fn replayed() -> Feed {
    let mut feed = Feed::new();
    feed.now += 3_600_000;
    let orders = [state("P_SUREKLI_ISLEM"), add(1, Side::Sell, 110, 5, 0), executed(1, Side::Sell, 1, 70)];
    let out = feed.packet(&[&[second(MORNING), directory("THYAO.E", THYAO)][..], &orders].concat());
    assert_eq!(out.updates.len(), 1, "its trade");
    feed
}

#[test]
fn a_replay_ends_with_its_session() {
    let mut feed = replayed();
    tells_how_things_are(&feed.end());
    assert_eq!(feed.end().updates, [], "once");
}

#[test]
fn a_replay_that_says_no_more_ends_all_the_same() {
    let mut feed = replayed();
    assert_eq!(feed.tick(119_000).updates, []);
    tells_how_things_are(&feed.tick(1_000));
}

#[test]
fn a_symbol_of_yesterday_whose_reference_data_is_lost_is_told() {
    for admitted in [None, Some(&["THYAO".to_owned()][..])] {
        let mut mapper = Bist::default();
        mapper.admit(admitted, &[]);
        let mut feed = Feed::of(mapper);
        feed.packet(&[second(MORNING), directory("THYAO.E", THYAO)]);
        feed.end();
        feed.new_session("DAY2");
        feed.packet(&[second(MORNING + DAY)]);
        feed.next += 1; // That is it.
        feed.packet(&[second(MORNING + DAY + 1)]);
        let out = feed.tick(1_501);
        let all = ["ticker", "trades", "session", "book"].map(|facet| format!("bist:THYAO:{facet}"));
        for channel in &all {
            assert_eq!(states_of(&out, channel), [ChannelState::Resyncing], "{channel}");
        }
        assert_eq!(feed.tick(1_500).updates, [], "once");
        feed.tick(11_000);
        let out = feed.packet(&[directory("THYAO.E", THYAO)]);
        for channel in &all[..3] {
            assert_eq!(states_of(&out, channel), [ChannelState::Up], "{channel}");
        }
        assert_eq!(states_of(&out, &all[3]), [], "its orders are not known");
        assert_eq!(states_of(&out, "bist:THYAO:1d"), []);
    }
}

#[test]
fn a_later_session_that_is_joined_late_is_a_replay_too() {
    let mut feed = traded();
    feed.end();
    feed.now += (i64::from(DAY) + 3 * 3_600) * 1_000;
    feed.new_session("DAY2");
    let out = feed.packet(&[second(MORNING + DAY), directory("THYAO.E", THYAO), add(1, Side::Sell, 120, 5, 0)]);
    assert_eq!(books(&out).len(), 0, "that was this morning");
    let out = feed.packet(&[executed(1, Side::Sell, 2, 71)]);
    assert_eq!((books(&out).len(), trades(&out).len()), (0, 1));
    assert_eq!(books(&feed.heartbeat()).len(), 1, "nothing more waits");
}

#[test]
fn what_was_missed_in_an_hour_of_one_session_is_a_replay() {
    let mut feed = traded();
    feed.now += 3_600_000;
    let out = feed.packet(&[second(MORNING + 2), add(5, Side::Sell, 130, 5, 0), executed(5, Side::Sell, 2, 71)]);
    assert_eq!((books(&out).len(), trades(&out).len()), (0, 1), "that was an hour ago");
    assert_eq!(books(&feed.heartbeat()).len(), 1, "nothing more waits");
}

#[test]
fn a_clock_that_is_set_forward_closes_no_candle() {
    let mut feed = traded();
    feed.now += 600_000;
    feed.mapper.on_clock_set(600_000);
    assert_eq!(candles(&feed.heartbeat(), "1m", true), [], "the venue's clock has not gone on");
    feed.now += 62_000;
    assert_eq!(candles(&feed.heartbeat(), "1m", true).len(), 1);
}

#[test]
fn a_clock_that_is_set_forward_begins_no_replay() {
    let mut feed = traded();
    feed.now += 600_000;
    feed.mapper.on_clock_set(600_000);
    let out = feed.packet(&[second(MORNING + 1), add(5, Side::Sell, 130, 5, 0)]);
    assert_eq!(books(&out).len(), 1);
}

#[test]
fn a_symbol_that_is_first_met_behind_a_hole_has_no_book() {
    let mut feed = Feed::new();
    feed.packet(&[second(MORNING)]);
    feed.next += 3; // Its reference data, and orders.
    feed.packet(&[second(MORNING + 1)]);
    feed.tick(11_000);
    let out = feed.packet(&[directory("THYAO.E", THYAO), add(9, Side::Sell, 110, 5, 0)]);
    assert_eq!((books(&out).len(), out.resyncs), (0, vec![Resync::Gap]));
    let out = feed.tick(1_501);
    assert_eq!(states_of(&out, "bist:THYAO:book"), [ChannelState::Resyncing]);
    assert_eq!(books(&feed.packet(&[add(10, Side::Buy, 100, 5, 0)])).len(), 0, "others may be in front of it");

    feed.end();
    feed.new_session("DAY2");
    let out = feed.packet(&[second(MORNING + DAY), directory("THYAO.E", THYAO), add(1, Side::Sell, 110, 5, 0)]);
    assert_eq!(states_of(&out, "bist:THYAO:book"), [ChannelState::Up]);
    assert_eq!(books(&out).len(), 1);
}

#[test]
fn a_replay_ends_where_nothing_waits_and_tells_nothing_when_it_is_broken_off() {
    let mut feed = Feed::new();
    feed.now += 3_600_000;
    feed.packet(&[second(MORNING), directory("THYAO.E", THYAO), add(1, Side::Sell, 110, 5, 0)]);
    let mut out = Output::default();
    feed.mapper.finish(&mut out);
    assert_eq!(out.updates, []);
    assert_eq!(books(&feed.heartbeat()).len(), 1);
}
