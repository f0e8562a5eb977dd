//! When best prices are those of an auction, and when those of the book.

use akis_connectors::bist::itch::{Equilibrium, Message, Price, Side};

use super::feed::{Feed, THYAO, add, delete, flush, state};
use crate::mapper::Output;
use crate::update::Payload;

/// Best bid, best ask, and where the auction would meet.
type Best = [Option<String>; 3];

fn best(bid: &str, ask: &str, equilibrium: Option<&str>) -> Option<Best> {
    let price = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some([price(bid), price(ask), equilibrium.map(str::to_owned)])
}

/// That of the last tick; `None` when there is none.
fn told(out: &Output) -> Option<Best> {
    let tick = out.updates.iter().rev().find_map(|update| match &update.payload {
        Payload::PriceTick(tick) => Some((tick.as_ref(), None)),
        Payload::Auction(auction) => Some((&auction.tick, auction.equilibrium)),
        _ => None,
    });
    tick.map(|(tick, equilibrium)| [tick.bid, tick.ask, equilibrium].map(|price| price.map(|price| price.to_string())))
}

/// An auction that would meet at 10.50, with the best prices 10.20 and 10.80.
fn meets() -> Message<'static> {
    equilibrium([1_050, 1_020, 1_080].map(Price))
}

fn equilibrium([price, best_bid, best_ask]: [Price; 3]) -> Message<'static> {
    Message::Equilibrium(Equilibrium {
        ns: 0,
        book: THYAO,
        bid_quantity: 5,
        ask_quantity: 5,
        price,
        best_bid,
        best_ask,
        best_bid_quantity: 5,
        best_ask_quantity: 5,
    })
}

fn orders() -> [Message<'static>; 2] {
    [add(1, Side::Buy, 1_000, 10, 0), add(2, Side::Sell, 1_100, 10, 0)]
}

#[test]
fn an_equilibrium_outside_an_auction_says_nothing() {
    for name in ["P_SUREKLI_ISLEM", "P_MARJ_YAYIN", "P_KAPANIS_FIY_ISLEM", "P_GUNSONU"] {
        for nothing_or_something in [equilibrium([Price::NONE; 3]), meets()] {
            let mut feed = Feed::open();
            feed.packet(&[state("P_ACS_EMR_TP_PY_EIY"), meets(), state(name)]);
            assert_eq!(told(&feed.packet(&orders())), best("10", "11", None));
            assert_eq!(told(&feed.packet(&[nothing_or_something])), None, "{name}");
            assert_eq!(told(&feed.packet(&[add(3, Side::Buy, 1_095, 1, 0)])), best("10.95", "11", None), "{name}");
        }
    }
}

#[test]
fn another_state_ends_the_equilibrium_whatever_its_name_is() {
    for name in ["P_YENI_DURUM", "P_ESLESTIRME", "P_DK_TEKFIY_EMIR_TPL"] {
        let mut feed = Feed::open();
        feed.packet(&orders());
        let out = feed.packet(&[state("P_ACS_EMR_TP_PY_EIY"), meets(), add(3, Side::Buy, 1_010, 1, 0)]);
        assert_eq!(told(&out), best("10.2", "10.8", Some("10.5")));
        assert_eq!(told(&feed.packet(&[state("P_ACS_EMR_TP_PY_EIY")])), None, "it is the same state, told again");
        assert_eq!(told(&feed.packet(&[state(name)])), best("10.1", "11", None), "{name}");
    }
}

#[test]
fn in_an_unknown_state_the_newer_of_equilibrium_and_orders_holds() {
    let mut feed = Feed::open();
    feed.packet(&[state("P_YENI_DURUM")]);
    feed.packet(&orders());
    assert_eq!(told(&feed.packet(&[meets()])), best("10.2", "10.8", Some("10.5")));
    let crosses = add(3, Side::Buy, 1_100, 1, 0);
    assert_eq!(told(&feed.packet(&[crosses])), None, "orders that cross are those of an auction");
    assert_eq!(told(&feed.packet(&[delete(3, Side::Buy)])), best("10", "11", None));
    assert_eq!(told(&feed.packet(&[meets()])), best("10.2", "10.8", Some("10.5")));
    assert_eq!(told(&feed.packet(&[flush(0)])), best("", "", None));
}

#[test]
fn a_hole_takes_the_equilibrium() {
    let mut feed = Feed::open();
    feed.packet(&[state("P_DK_TEKFIY_EMIR_TPL"), meets()]);
    feed.next += 1; // The state that ends the auction is lost.
    feed.packet(&[add(1, Side::Buy, 1_000, 1, 0)]);
    assert_eq!(told(&feed.tick(11_000)), best("", "", None), "no snapshot came");
}

#[test]
fn behind_a_hole_a_price_tells_that_an_auction_has_begun() {
    let mut feed = Feed::open();
    feed.packet(&[state("P_SUREKLI_ISLEM")]);
    feed.packet(&orders());
    feed.next += 1; // The state that begins the auction is lost.
    feed.packet(&[equilibrium([Price::NONE, Price(1_020), Price(1_080)])]);
    assert_eq!(told(&feed.tick(11_000)), best("", "", None), "no snapshot came, and nothing meets");
    assert_eq!(told(&feed.packet(&[meets()])), best("10.2", "10.8", Some("10.5")));
    assert_eq!(told(&feed.packet(&[state("P_SUREKLI_ISLEM")])), best("", "", None), "it is over");
    assert_eq!(told(&feed.packet(&[meets()])), None);
}

#[test]
fn behind_a_hole_orders_tell_that_an_auction_is_over() {
    let mut feed = Feed::open();
    feed.packet(&[state("P_DK_TEKFIY_EMIR_TPL"), meets()]);
    feed.next += 1;
    feed.packet(&[equilibrium([1_060, 1_020, 1_080].map(Price))]);
    assert_eq!(told(&feed.tick(11_000)), best("10.2", "10.8", Some("10.6")));
    assert_eq!(told(&feed.packet(&[flush(0), add(1, Side::Buy, 1_000, 1, 0)])), best("10", "", None));
}

#[test]
fn best_prices_are_not_told_longer_than_the_book_is_known() {
    let mut feed = Feed::open();
    feed.packet(&orders());
    feed.next += 1;
    assert_eq!(told(&feed.heartbeat()), None, "a snapshot may come soon");
    assert_eq!(told(&feed.tick(1_501)), best("", "", None));
    assert_eq!(told(&feed.snapshot(&orders(), feed.next)), best("10", "11", None));
    feed.end();
    feed.new_session("DAY2");
    assert_eq!(told(&feed.heartbeat()), best("", "", None), "they were those of a day before");
}
