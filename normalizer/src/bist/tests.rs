//! The mapper on the constructed day and on what can go wrong, one thing at a time.

mod auctions;
mod days;
mod feed;
mod numbers;
mod sessions;

use akis_connectors::bist::itch::{
    BookState, Executed, ExecutedAtPrice, Message, OrderKey, Price, Seconds, Side, SystemEvent, Text, Trade,
};
use akis_model::{ChannelState, MarketState, TimeSource};

use self::feed::{
    Feed, MORNING, THYAO, add, books, delete, directory, encoded, executed, flush, prices, state, statuses, trades,
};
use super::*;
use crate::mapper::Resync;
use crate::update::Payload;

/// The messages of the constructed day.
fn day() -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../connectors/fixtures/bist/synthetic_itch_v2112_day.jsonl");
    let lines = std::fs::read_to_string(path).unwrap();
    let hex = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let hex = line["hex"].as_str().unwrap().to_owned();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    lines.lines().map(hex).collect()
}

#[test]
fn the_constructed_day_is_told_as_it_went() {
    let mut feed = Feed::before_the_day();
    let mut out = Output::default();
    for message in day() {
        feed.message(&message, &mut out);
    }
    assert_eq!(out.skipped, []);
    assert_eq!(out.resyncs, []);
    assert_eq!(
        trades(&out),
        [
            ("9001", "100.5", "300", None),
            ("9002", "100.8", "100", Some("buy")),
            ("9003", "100.8", "150", Some("buy")),
            ("9004", "100.8", "50", None),
            ("9005", "100.4", "400", Some("sell")),
        ]
        .map(|(id, price, qty, side)| (id.into(), price.into(), qty.into(), side))
    );
    let states: Vec<_> = statuses(&out).into_iter().map(|status| (status.state, status.venue_state)).collect();
    let told = [
        (Some(MarketState::OpeningAuction), "P_ACS_EMR_TP_PY_EIY"),
        (Some(MarketState::OpeningAuction), "P_ESLESTIRME"),
        (Some(MarketState::Continuous), "P_SUREKLI_ISLEM"),
        (Some(MarketState::Break), "P_MARJ_YAYIN_KAPANIS"),
        (Some(MarketState::Closed), "P_GUNSONU"),
    ];
    assert_eq!(states, told.map(|(state, name)| (state, name.to_owned())));
    let ticks = &statuses(&out)[0].ticks;
    assert_eq!((ticks.len(), ticks[0].1.to_string(), ticks[4].0.to_string()), (5, "0.01".into(), "250".into()));

    let books = books(&out);
    let last = books.last().unwrap();
    assert_eq!(prices(&last.bids), [("100.5".into(), "500".into())]);
    assert_eq!(prices(&last.asks), [("101".into(), "700".into())]);
    assert_eq!(last.venue_seq, "36");
    let crossed = |book: &&akis_model::Book| matches!((book.bids.first(), book.asks.first()), (Some(bid), Some(ask)) if bid.0 >= ask.0);
    assert_eq!(books.iter().find(crossed), None, "in the auction the book was crossed");
}

#[test]
fn an_auction_shows_where_it_would_meet() {
    let mut feed = Feed::before_the_day();
    let mut out = Output::default();
    for message in &day()[..15] {
        feed.message(message, &mut out);
    }
    let Some(Payload::Auction(auction)) = out.updates.last().map(|update| &update.payload) else {
        panic!("no tick: {out:?}")
    };
    assert_eq!(auction.equilibrium.unwrap().to_string(), "100.5");
    assert_eq!(auction.equilibrium_bid_qty.unwrap().to_string(), "700");
    assert_eq!(auction.equilibrium_ask_qty.unwrap().to_string(), "300");
    assert_eq!((auction.tick.bid, auction.tick.ask), (None, None), "they cross");
}

#[test]
fn candles_of_the_constructed_day_are_those_of_its_trades() {
    let mut feed = Feed::before_the_day();
    let mut out = Output::default();
    for message in day() {
        feed.message(&message, &mut out);
    }
    let closed: Vec<_> = out
        .updates
        .iter()
        .filter_map(|update| match &update.payload {
            Payload::Candle(candle) if candle.closed && candle.interval == "1d" => Some(candle),
            _ => None,
        })
        .collect();
    let [day] = closed[..] else { panic!("one day: {closed:?}") };
    let told = [day.open, day.high, day.low, day.close, day.volume].map(|value| value.to_string());
    assert_eq!(told, ["100.5", "100.8", "100.4", "100.4", "1000"]);
    assert_eq!((day.trades, day.open_time), (Some(5), 1_767_225_600_000), "2026-01-01 in UTC");
}

#[test]
fn a_day_has_so_many_books_and_no_more() {
    let mut feed = Feed::new();
    let mut skipped = Vec::new();
    for book in 0..65_538 {
        // All of one symbol, so that only the numbers of books grow.
        skipped.extend(feed.packet(&[directory("THYAO.E", book)]).skipped);
    }
    assert_eq!(skipped, [Reason::OutOfRange, Reason::OutOfRange]);
    assert_eq!(feed.packet(&[directory("THYAO.E", 65_535)]).skipped, [], "it is one of them");
}

#[test]
fn times_are_the_seconds_and_their_nanoseconds() {
    let mut feed = Feed::open();
    let out =
        feed.packet(&[Message::Seconds(Seconds { second: 1_767_250_800 }), add(1, Side::Buy, 100, 5, 123_999_999)]);
    assert_eq!(out.updates[0].ts, 1_767_250_800_123);
    assert_eq!(books(&out)[0].provenance.ts_source, TimeSource::Venue);
}

/// The candles of a minute: which minute of the morning, how many trades, and whether it is closed.
fn minutes(out: &Output) -> Vec<(i64, Option<u64>, bool)> {
    let candles = out.updates.iter().filter_map(|update| match &update.payload {
        Payload::Candle(candle) if candle.interval == "1m" => {
            Some(((candle.open_time / 1_000 - i64::from(MORNING)) / 60, candle.trades, candle.closed))
        }
        _ => None,
    });
    candles.collect()
}

#[test]
fn a_second_that_cannot_be_true_moves_no_candle() {
    for (second, why) in [
        (MORNING + 3_600, "an hour ahead"),
        (MORNING + 10 + 62, "a minute ahead"),
        (MORNING + 9, "before the last one"),
        (0, "1970"),
    ] {
        let mut feed = Feed::open();
        let orders = [add(1, Side::Sell, 1_000, 9, 0), executed(1, Side::Sell, 1, 70)];
        feed.packet(&[&[Message::Seconds(Seconds { second: MORNING + 10 })][..], &orders].concat());
        feed.now += 500;
        let mut out = Output::default();
        let [wrong, trade] =
            [Message::Seconds(Seconds { second }), executed(1, Side::Sell, 1, 71)].map(|m| encoded(&m));
        feed.packet_of(&[&wrong, &trade], &mut out);
        assert_eq!((minutes(&out), &out.skipped[..]), (vec![(0, Some(2), false)], &[Reason::BadTime][..]), "{why}");
        let trade = out.updates.iter().find_map(|update| match &update.payload {
            Payload::Trade(trade) => Some((trade.provenance.ts_source, update.ts)),
            _ => None,
        });
        assert_eq!(trade, Some((TimeSource::Received, feed.now)), "{why}");
        // The next second is right, and so is everything from then on.
        let out = feed.packet(&[Message::Seconds(Seconds { second: MORNING + 70 }), executed(1, Side::Sell, 1, 72)]);
        assert_eq!(minutes(&out), [(0, Some(2), true), (1, Some(1), false)], "{why}");
        assert_eq!(out.skipped, [], "{why}");
    }
}

#[test]
fn a_day_that_is_read_late_keeps_its_times() {
    let mut feed = Feed::open();
    // Beyond a day it is no replay of what was missed.
    feed.now += 29 * 3_600_000;
    for minute in 0..3 {
        let second = Message::Seconds(Seconds { second: MORNING + minute * 60 });
        let orders = [directory("THYAO.E", THYAO), add(minute.into(), Side::Sell, 1_000, 1, 0)];
        let out = feed.packet(&[&[second][..], &orders, &[executed(minute.into(), Side::Sell, 1, 70)]].concat());
        assert_eq!((minutes(&out).last(), out.skipped), (Some(&(minute.into(), Some(1), false)), vec![]));
    }
}

#[test]
fn the_last_numbers_that_there_are_end_nothing() {
    let mut feed = Feed::open();
    feed.next = u64::MAX - 2;
    let out = feed.packet(&[add(1, Side::Buy, 100, 5, 0), add(2, Side::Buy, 100, 7, 0)]);
    assert_eq!(out.resyncs, [Resync::Gap]);
}

#[test]
fn the_venues_number_is_that_of_the_last_message() {
    let mut feed = Feed::open();
    let first = feed.next;
    let out = feed.packet(&[add(1, Side::Buy, 100, 5, 0), add(2, Side::Buy, 100, 7, 0)]);
    assert_eq!(books(&out).len(), 1, "a packet is told once");
    assert_eq!(books(&out)[0].venue_seq, (first + 1).to_string());
    assert_eq!(prices(&books(&out)[0].bids), [("1".into(), "12".into())]);
}

#[test]
fn paced_books_are_held_until_they_are_due_and_the_newest_is_told() {
    let mut feed = Feed::open();
    feed.mapper.pace();
    assert_eq!(books(&feed.packet(&[add(1, Side::Buy, 1_000, 5, 0)])).len(), 1);
    assert_eq!(books(&feed.packet(&[add(2, Side::Buy, 1_001, 5, 0)])), []);
    assert_eq!(books(&feed.packet(&[add(3, Side::Buy, 1_002, 7, 0)])), []);
    assert_eq!(books(&feed.tick(249)), []);
    let told = books(&feed.tick(1));
    assert_eq!(
        told.iter().map(|book| prices(&book.bids)[0].clone()).collect::<Vec<_>>(),
        [("10.02".into(), "7".into())]
    );
    assert_eq!(books(&feed.tick(1_000)), [], "nothing has changed since");
    assert_eq!(books(&feed.packet(&[delete(3, Side::Buy)])).len(), 1);
    feed.packet(&[delete(2, Side::Buy)]);
    let mut out = Output::default();
    feed.mapper.finish(&mut out);
    assert_eq!(prices(&books(&out)[0].bids), [("10".into(), "5".into())]);
}

#[test]
fn a_repeated_packet_changes_nothing() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Buy, 100, 5, 0)]);
    feed.next -= 1;
    let out = feed.packet(&[add(1, Side::Buy, 100, 5, 0)]);
    assert_eq!((out.updates.len(), out.skipped), (0, vec![Reason::Duplicate]));
    feed.next -= 1;
    let out = feed.packet(&[add(1, Side::Buy, 100, 5, 0), add(2, Side::Buy, 101, 5, 0)]);
    assert_eq!(out.skipped, [], "its second message is new");
    assert_eq!(books(&out)[0].bids.len(), 2);
}

#[test]
fn a_hole_takes_the_book_until_a_snapshot_is_joined() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Buy, 100, 5, 0), add(2, Side::Sell, 110, 5, 0)]);
    feed.packet(&[executed(2, Side::Sell, 1, 70)]);
    feed.next += 1; // A new order of 7 at 105 is lost.
    let out = feed.packet(&[executed(3, Side::Sell, 2, 71), add(4, Side::Buy, 101, 1, 0)]);
    assert_eq!(out.resyncs, [Resync::Gap]);
    assert_eq!((books(&out).len(), trades(&out).len()), (0, 0), "nobody knows what 71 was traded at");
    let out = feed.tick(1_500);
    assert_eq!(states_of(&out, "bist:THYAO:book"), [ChannelState::Resyncing]);

    // The snapshot was taken between the order that was lost and its trade.
    let orders = [add(1, Side::Buy, 100, 5, 0), add(2, Side::Sell, 110, 4, 0), add(3, Side::Sell, 105, 7, 0)];
    let out = feed.snapshot(&orders, feed.next - 2);
    assert_eq!(trades(&out), [("71".to_owned(), "1.05".to_owned(), "2".to_owned(), Some("buy"))]);
    let lost: Vec<u64> =
        out.updates.iter().map(|update| update.missing_before).filter(|&missing| missing > 0).collect();
    assert_eq!((lost, out.lost_trades), (vec![1], 1), "there may have been trades in the hole");
    let book = books(&out).pop().unwrap();
    assert_eq!(prices(&book.bids), [("1.01".into(), "1".into()), ("1".into(), "5".into())]);
    assert_eq!(prices(&book.asks), [("1.05".into(), "5".into()), ("1.1".into(), "4".into())]);
    assert_eq!(states_of(&out, "bist:THYAO:book"), [ChannelState::Up]);
}

#[test]
fn a_snapshot_of_the_session_before_is_joined_nowhere() {
    let mut feed = Feed::open();
    let out = feed.snapshot_during(&[directory("THYAO.E", THYAO), add(9, Side::Sell, 120, 9, 0)], 6, |feed| {
        feed.end();
        feed.new_session("DAY2");
        let morning = Message::Seconds(Seconds { second: MORNING + 86_400 });
        feed.packet(&[morning, directory("THYAO.E", THYAO), add(1, Side::Sell, 110, 5, 0)]);
        feed.next += 1; // Books wait for a snapshot, and its number would be right.
        feed.packet(&[add(2, Side::Sell, 111, 5, 0)]);
    });
    assert_eq!(out, Output::default());
    let out = feed.snapshot(&[add(1, Side::Sell, 110, 5, 0), add(2, Side::Sell, 111, 5, 0)], feed.next);
    assert_eq!(prices(&books(&out)[0].asks), [("1.1".into(), "5".into()), ("1.11".into(), "5".into())]);
}

#[test]
fn a_snapshot_that_is_ahead_waits_for_the_live_messages() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    feed.next += 1;
    feed.packet(&[add(2, Side::Sell, 111, 3, 0)]);
    let ahead = feed.next + 1;
    let out = feed.snapshot(&[add(1, Side::Sell, 110, 5, 0), add(2, Side::Sell, 111, 1, 0)], ahead);
    assert_eq!(books(&out).len(), 0);
    let out = feed.packet(&[executed(2, Side::Sell, 2, 72)]);
    assert_eq!(trades(&out).len(), 1, "it is told, although the snapshot has it already");
    assert_eq!(prices(&books(&out)[0].asks), [("1.1".into(), "5".into()), ("1.11".into(), "1".into())]);
}

#[test]
fn a_snapshot_that_waits_is_let_go_when_another_one_is_joined() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    feed.next += 1;
    feed.packet(&[add(2, Side::Sell, 111, 3, 0)]);
    let [first, second, third] = [1, 2, 3].map(|id| add(id, Side::Sell, 109 + i32::try_from(id).unwrap(), 5, 0));
    feed.snapshot(&[first, second, third], feed.next + 1);
    let out = feed.snapshot(&[first, second], feed.next);
    assert_eq!(books(&out)[0].asks.len(), 2);
    let out = feed.packet(&[third, add(4, Side::Sell, 113, 5, 0)]);
    assert_eq!(books(&out)[0].asks.len(), 4, "the fourth is in no snapshot");
}

#[test]
fn without_a_snapshot_trades_go_on_and_those_of_unknown_orders_are_lost() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    feed.packet(&[executed(1, Side::Sell, 1, 70)]);
    feed.next += 1;
    let out =
        feed.packet(&[executed(1, Side::Sell, 1, 71), add(2, Side::Sell, 111, 3, 0), executed(2, Side::Sell, 1, 72)]);
    assert_eq!(trades(&out).len(), 0, "held back");
    let out = feed.tick(11_000);
    assert_eq!(trades(&out), [("72".to_owned(), "1.11".to_owned(), "1".to_owned(), Some("buy"))]);
    assert_eq!(out.lost_trades, 2, "what was in the hole, and 71");
    assert_eq!(books(&out).len(), 0);
    assert_eq!(out.skipped, []);
    let out = feed.packet(&[flush(0), add(3, Side::Buy, 90, 1, 0)]);
    assert_eq!(books(&out).len(), 1, "a flushed book is known again");
}

#[test]
fn the_first_trade_after_a_late_join_or_a_hole_proves_nothing() {
    let mut late = Feed::new();
    late.next = 1_000;
    late.packet(&[add(2, Side::Sell, 111, 3, 0)]);
    late.snapshot(&[directory("THYAO.E", THYAO), add(1, Side::Sell, 110, 5, 0)], 1_000);
    let mut early = Feed::open();
    early.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    early.next += 1;
    early.packet(&[delete(9, Side::Buy)]);
    early.tick(11_000);
    for mut feed in [late, early] {
        let out = feed.packet(&[flush(0), add(3, Side::Sell, 110, 5, 0), executed(3, Side::Sell, 1, 70)]);
        assert_eq!((trades(&out).len(), out.lost_trades), (1, 1), "the log may have trades of before");
        let out = feed.packet(&[executed(3, Side::Sell, 1, 71)]);
        assert_eq!((trades(&out).len(), out.lost_trades), (1, 0));
    }
}

#[test]
fn what_is_held_back_is_told_at_the_end() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    feed.next += 1;
    feed.packet(&[add(2, Side::Sell, 111, 3, 0), executed(2, Side::Sell, 1, 72)]);
    let mut out = Output::default();
    feed.mapper.finish(&mut out);
    assert_eq!(trades(&out).len(), 1);
}

#[test]
fn a_heartbeat_tells_of_a_hole_at_the_end() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    assert_eq!(feed.heartbeat().resyncs, []);
    feed.next += 3;
    assert_eq!(feed.heartbeat().resyncs, [Resync::Gap]);
}

#[test]
fn a_snapshot_that_dies_is_of_no_use() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    feed.next += 1;
    feed.packet(&[add(2, Side::Sell, 111, 3, 0)]);
    let out = feed.dying_snapshot(&[add(1, Side::Sell, 110, 5, 0)]);
    assert_eq!(books(&out).len(), 0);
    let out = feed.snapshot(&[add(1, Side::Sell, 110, 5, 0)], feed.next - 1);
    assert_eq!(books(&out)[0].asks.len(), 2);
    let out = feed.snapshot(&[], feed.next);
    assert_eq!(out.skipped, [Reason::UnusedSnapshot], "nobody waits for another");
}

#[test]
fn a_change_that_does_not_fit_takes_one_book_and_asks_for_a_snapshot() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    let out = feed.packet(&[delete(9, Side::Sell), add(2, Side::Sell, 120, 1, 0)]);
    assert_eq!((out.skipped, out.resyncs), (vec![Reason::Misfit], vec![Resync::Misfit]));
    assert_eq!(out.requests.len(), 1);
    let out = feed.snapshot(&[add(1, Side::Sell, 110, 5, 0)], feed.next - 1);
    assert_eq!(prices(&books(&out)[0].asks), [("1.1".into(), "5".into()), ("1.2".into(), "1".into())]);
}

#[test]
fn a_new_session_begins_with_nothing() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    feed.new_session("DAY2");
    let out = feed.packet(&[Message::Seconds(Seconds { second: 1_767_333_600 }), directory("THYAO.E", THYAO + 7)]);
    assert!(books(&out).iter().all(|book| book.asks.is_empty()));
    let out = feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    assert_eq!(out.skipped, [Reason::UnknownSymbol], "the number was that of a day before");
    assert_eq!(out.resyncs, []);
}

#[test]
fn the_first_message_of_a_day_begins_it_too() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    let out = feed.packet(&[Message::SystemEvent(SystemEvent { ns: 0, code: b'O' }), directory("THYAO.E", THYAO)]);
    assert_eq!(books(&out).len(), 1);
    assert_eq!(books(&out)[0].asks, []);
    assert_eq!(feed.packet(&[add(1, Side::Sell, 110, 5, 0)]).skipped, []);
}

#[test]
fn unknown_and_broken_messages_are_counted() {
    let mut feed = Feed::open();
    let mut out = Output::default();
    feed.packet_of(&[b"q1234", b"T12", b""], &mut out);
    assert_eq!(out.skipped, [Reason::UnknownEvent, Reason::BadShape, Reason::BadShape]);
    let out = feed.frame(1, b"short".to_vec());
    assert_eq!(out.skipped, [Reason::BadShape]);
    let out = feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    assert_eq!(out.skipped, []);
}

#[test]
fn a_crossed_book_in_continuous_trading_is_not_shown() {
    let mut feed = Feed::open();
    feed.packet(&[state("P_SUREKLI_ISLEM"), add(1, Side::Sell, 110, 5, 0)]);
    let out = feed.packet(&[add(2, Side::Buy, 110, 5, 0)]);
    assert_eq!((books(&out).len(), out.skipped), (0, vec![Reason::Crossed]));
    let out = feed.packet(&[delete(1, Side::Sell)]);
    assert_eq!(books(&out).len(), 1);
}

#[test]
fn an_unknown_state_is_passed_through() {
    let mut feed = Feed::open();
    let out = feed.packet(&[state("P_YENI_BIR_SEY")]);
    assert_eq!((statuses(&out)[0].state, statuses(&out)[0].venue_state.as_str()), (None, "P_YENI_BIR_SEY"));
}

#[test]
fn behind_a_hole_nobody_knows_which_auction_is_matched() {
    let mut feed = Feed::open();
    feed.packet(&[state("P_ACS_EMR_TP_PY_EIY")]);
    feed.next += 1; // The day until the evening.
    feed.packet(&[state("P_ESLESTIRME")]);
    let out = feed.tick(11_000);
    assert_eq!((statuses(&out)[0].state, statuses(&out)[0].venue_state.as_str()), (None, "P_ESLESTIRME"));
}

#[test]
fn only_what_was_asked_for_is_told() {
    let mut mapper = Bist::default();
    mapper.admit(Some(&["thyao.e".to_owned()]), &[Kind::Trades]);
    assert_eq!(mapper.channels().iter().map(Channel::as_str).collect::<Vec<_>>(), ["bist:THYAO:trades"]);
    let mut feed = Feed::of(mapper);
    let out = feed.packet(&[directory("THYAO.E", THYAO), directory("GARAN.E", 74_196), add(1, Side::Sell, 110, 5, 0)]);
    assert_eq!((out.updates.len(), out.skipped), (0, vec![]));
    let other = Message::BookState(BookState { ns: 0, book: 74_196, state: Text::new(b"P_ARA") });
    assert_eq!(feed.packet(&[other]).updates.len(), 0);
    let out = feed.packet(&[executed(1, Side::Sell, 5, 70)]);
    assert_eq!(out.updates.len(), 1);
}

#[test]
fn the_channels_of_an_instrument_rest_while_it_does() {
    let mut feed = Feed::open();
    let [channel, other] = ["bist:THYAO:book", "bist:GARAN:book"].map(|name| Channel::parse(name).unwrap());
    assert!(feed.mapper.rests(&channel), "the day has not told yet");
    for (name, rests) in [
        ("P_ACS_EMR_TP_PY_EIY", true),
        ("P_SUREKLI_ISLEM", false),
        ("P_DK_TEKFIY_EMIR_TPL", true),
        ("P_YENI_BIR_SEY", false),
        ("P_MARJ_YAYIN", true),
        ("P_GUNSONU", true),
    ] {
        feed.packet(&[state(name)]);
        assert_eq!(feed.mapper.rests(&channel), rests, "{name}");
        assert!(feed.mapper.rests(&other), "it is not there today");
    }
}

#[test]
fn a_session_that_has_ended_rests_until_the_next_is_due() {
    let mut feed = Feed::open();
    feed.packet(&[state("P_SUREKLI_ISLEM")]);
    let channel = Channel::parse("bist:THYAO:book").unwrap();
    // 19:00 on a Thursday, and 09:30 on the day after.
    feed.tick(9 * 3_600_000);
    let due_at = i64::from(MORNING) * 1_000 + (23 * 60 + 30) * 60_000;
    for (after_ms, rests) in [(0, true), (1_000, true), (17 * 3_600_000, false)] {
        feed.tick(after_ms);
        let out = feed.end();
        assert_eq!((out.data, out.rests_until), (true, Some(due_at)), "told again it is the same end");
        assert_eq!(feed.mapper.rests(&channel), rests);
    }
    feed.new_session("DAY2");
    assert_eq!(feed.packet(&[directory("THYAO.E", THYAO)]).rests_until, None);
    assert_eq!(feed.end().rests_until, Some(feed.now), "at noon the exchange begins anew");
}

#[test]
fn every_symbol_of_the_feed_is_of_one_part_and_no_other() {
    let symbols = ["THYAO.E", "GARAN.E", "ASELS.E", "AKBNK.E", "F_X"];
    let told = |number| {
        let mut mapper = Bist::default();
        mapper.take_part(Part { number, of: 2 });
        mapper.admit(Some(&["*".to_owned()]), &[Kind::Session]);
        let mut feed = Feed::of(mapper);
        let messages = symbols.iter().zip(1..).flat_map(|(&symbol, book)| {
            let state = BookState { ns: 0, book, state: Text::new(b"P_ARA") };
            [directory(symbol, book), Message::BookState(state)]
        });
        let out = feed.packet(&messages.collect::<Vec<_>>());
        statuses(&out).into_iter().map(|status| status.symbol).collect::<Vec<_>>()
    };
    let (first, second) = (told(1), told(2));
    assert_eq!(first.len() + second.len(), symbols.len(), "{first:?} {second:?}");
    assert!(first.iter().all(|symbol| !second.contains(symbol)), "{first:?} {second:?}");
}

#[test]
fn fractions_are_exact_and_a_trade_without_a_price_is_lost() {
    let mut feed = Feed::new();
    let Message::Directory(mut reference) = directory("F_X", THYAO) else { panic!() };
    reference.price_decimals = 256;
    feed.packet(&[Message::Directory(reference)]);
    let out = feed.packet(&[add(1, Side::Sell, 385, 5, 0), add(2, Side::Buy, i32::MIN, 5, 0)]);
    assert_eq!(prices(&books(&out)[0].asks), [("1.50390625".into(), "5".into())]);
    let key = executed(2, Side::Buy, 5, 70);
    assert!(matches!(key, Message::Executed(Executed { .. })));
    assert_eq!(trades(&feed.packet(&[key])).len(), 0);
    assert_eq!(Price::NONE.get(), None);
}

#[test]
fn a_trade_whose_message_has_no_price_is_lost() {
    let without_price = [
        Message::Trade(Trade {
            ns: 0,
            match_id: 71,
            combo_group: 0,
            side: None,
            quantity: 2,
            book: THYAO,
            price: Price::NONE,
            printable: true,
            at_cross: false,
        }),
        Message::ExecutedAtPrice(ExecutedAtPrice {
            ns: 0,
            order: OrderKey { id: 1, book: THYAO, side: Side::Sell },
            quantity: 2,
            match_id: 71,
            combo_group: 0,
            price: Price::NONE,
            at_cross: false,
            printable: true,
        }),
    ];
    for trade in without_price {
        let mut feed = Feed::open();
        feed.packet(&[add(1, Side::Sell, 110, 5, 0), executed(1, Side::Sell, 1, 70)]);
        let out = feed.packet(&[trade]);
        assert_eq!((trades(&out).len(), &out.skipped[..]), (0, &[Reason::BadNumber][..]));
        assert_eq!(states_of(&out, "bist:THYAO:1m"), [ChannelState::Resyncing], "its candle is given up");
        let out = feed.packet(&[executed(1, Side::Sell, 1, 72)]);
        assert_eq!((trades(&out).len(), out.lost_trades), (1, 1));
        assert_eq!(out.updates[0].missing_before, 1);
    }
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Sell, 110, 5, 0)]);
    feed.packet(&[without_price[0]]);
    let out = feed.packet(&[executed(1, Side::Sell, 1, 72)]);
    assert_eq!((out.updates[0].missing_before, out.lost_trades), (2, 1), "and what the log may have of before");
}

fn states_of(out: &Output, channel: &str) -> Vec<ChannelState> {
    let updates = out.updates.iter().filter(|update| update.channel.as_str() == channel);
    updates
        .filter_map(|update| match &update.payload {
            Payload::Status(status) => Some(status.state),
            _ => None,
        })
        .collect()
}
