//! Numbers of books that change hands during a day.

use akis_connectors::bist::itch::{Message, OrderKey, Side};

use super::feed::{Feed, THYAO, add, books, delete, directory, prices};
use crate::bist::Bist;
use crate::mapper::{Mapper as _, Output, Reason, Resync};
use crate::update::Payload;

/// The same order in another book.
fn in_book(order: Message<'static>, book: u32) -> Message<'static> {
    let Message::Add(mut add) = order else { panic!("{order:?}") };
    add.order = OrderKey { book, ..add.order };
    Message::Add(add)
}

/// The prices of the bids of a book that was told, by its symbol.
fn bids(out: &Output, symbol: &str) -> Option<Vec<String>> {
    let told = books(out).into_iter().rfind(|book| book.symbol == symbol)?;
    Some(prices(&told.bids).into_iter().map(|(price, _)| price).collect())
}

/// The best bid of the last tick of a symbol.
fn best_bid(out: &Output, symbol: &str) -> Option<String> {
    let tick = out.updates.iter().rev().find_map(|update| match &update.payload {
        Payload::PriceTick(tick) if tick.symbol == symbol => Some(tick),
        _ => None,
    });
    tick.expect("a tick").bid.map(|bid| bid.to_string())
}

#[test]
fn a_number_that_is_anothers_now_leaves_an_empty_book() {
    let mut bad = directory("BAD.E", THYAO);
    let Message::Directory(reference) = &mut bad else { panic!() };
    reference.price_decimals = 99;
    for (other, skipped) in
        [(directory("GARAN.E", THYAO), vec![]), (directory("OTHER.E", THYAO), vec![]), (bad, vec![Reason::BadNumber])]
    {
        let mut mapper = Bist::default();
        mapper.admit(Some(&["THYAO", "GARAN", "BAD"].map(str::to_owned)), &[]);
        let mut feed = Feed::of(mapper);
        feed.packet(&[directory("THYAO.E", THYAO), add(1, Side::Buy, 1_000, 5, 0)]);
        let out = feed.packet(&[other]);
        assert_eq!((bids(&out, "THYAO"), best_bid(&out, "THYAO")), (Some(vec![]), None));
        assert_eq!((out.skipped, out.resyncs), (skipped, vec![]));
    }
}

#[test]
fn the_next_owner_of_a_number_begins_with_nothing() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Buy, 1_000, 5, 0)]);
    let out = feed.packet(&[directory("GARAN.E", THYAO), add(1, Side::Buy, 500, 3, 0)]);
    assert_eq!((bids(&out, "GARAN"), out.skipped), (Some(vec!["5".to_owned()]), vec![]));
}

#[test]
fn another_number_of_a_symbol_is_another_book() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Buy, 1_000, 5, 0), add(2, Side::Buy, 1_001, 5, 0)]);
    let moved = feed.packet(&[directory("THYAO.E", 7)]);
    assert_eq!((bids(&moved, "THYAO"), best_bid(&moved, "THYAO")), (Some(vec![]), None));
    let out = feed.packet(&[in_book(add(1, Side::Buy, 900, 5, 0), 7)]);
    assert_eq!((bids(&out, "THYAO"), out.skipped), (Some(vec!["9".to_owned()]), vec![]));
    let late = feed.packet(&[delete(2, Side::Buy), add(3, Side::Buy, 1_002, 5, 0)]);
    assert_eq!((books(&late).len(), late.resyncs), (0, vec![]), "the book before is nobody's");
    let out = feed.packet(&[directory("GARAN.E", THYAO), add(1, Side::Buy, 500, 3, 0)]);
    assert_eq!((bids(&out, "GARAN"), bids(&out, "THYAO")), (Some(vec!["5".to_owned()]), None));
    assert_eq!(feed.packet(&[directory("THYAO.E", 7)]).updates, [], "it is its book already");
}

#[test]
fn a_book_that_is_not_proven_is_not_told_as_empty_when_its_number_changes() {
    let mut feed = Feed::open();
    feed.packet(&[add(1, Side::Buy, 1_000, 5, 0)]);
    feed.next += 1;
    let out = feed.packet(&[directory("THYAO.E", 7)]);
    assert_eq!(out.resyncs, [Resync::Gap]);
    assert_eq!(books(&feed.tick(11_000)), []);
    let orders = [directory("THYAO.E", 7), in_book(add(1, Side::Buy, 900, 5, 0), 7)];
    let out = feed.snapshot(&orders, feed.next);
    assert_eq!(bids(&out, "THYAO"), Some(vec!["9".to_owned()]));
}
