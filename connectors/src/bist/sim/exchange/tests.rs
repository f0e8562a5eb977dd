use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::*;
use crate::bist::itch::{OrderKey, Rank};
use crate::bist::mold::SessionId;
use crate::bist::sim::day;

const START: u64 = 1_764_052_800 * SECOND;

/// Everything that a day says.
fn day(seed: u64, step: Duration) -> Tape {
    let symbols = ["A.E", "B.E", "C.E", "D.E"].map(String::from);
    let every = 2 * SECOND;
    let mut exchange = Exchange::new(&symbols, seed, START, every, &day::whole());
    let mut tape = Tape::new(SessionId::new("S"));
    let mut now = START;
    while !exchange.is_over() {
        exchange.advance(now, &mut tape);
        now += u64::try_from(step.as_nanos()).unwrap();
    }
    tape
}

fn messages(tape: &Tape) -> impl Iterator<Item = Message<'_>> {
    (1..tape.next()).filter_map(|number| Message::decode(tape.get(number).unwrap()).ok())
}

#[test]
fn the_same_seed_gives_the_same_day_however_its_clock_is_advanced() {
    let bytes = |tape: &Tape| (1..tape.next()).map(|number| tape.get(number).unwrap().to_vec()).collect::<Vec<_>>();
    let one = bytes(&day(3, Duration::from_secs(1)));
    assert_eq!(one, bytes(&day(3, Duration::from_secs(40_000))));
    assert_ne!(one, bytes(&day(4, Duration::from_secs(40_000))));
}

#[test]
fn a_day_has_everything_that_a_day_has() {
    let tape = day(1, Duration::from_secs(40_000));
    let kinds: HashSet<u8> = (1..tape.next()).map(|number| tape.get(number).unwrap()[0]).collect();
    for kind in b"TSRLVOAECDYPZ" {
        assert!(kinds.contains(kind), "{}", char::from(*kind));
    }
    let states: HashSet<String> = messages(&tape)
        .filter_map(|message| if let Message::BookState(m) = message { Some(m.state.to_string()) } else { None })
        .collect();
    assert_eq!(states.len(), 9, "{states:?}");
    let (mut layouts, mut market_orders, mut ids) = (HashSet::new(), 0, HashSet::new());
    for message in messages(&tape) {
        if let Message::Add(add) = message {
            layouts.insert(matches!(add.rank, Rank::Time { .. }));
            market_orders += u32::from(add.price == Price::NONE);
            ids.insert((add.order.book, add.order.side, add.order.id));
        }
    }
    assert_eq!(layouts.len(), 2, "both layouts");
    assert!(market_orders > 0);
    let both = ids.iter().filter(|(book, side, id)| *side == Side::Buy && ids.contains(&(*book, Side::Sell, *id)));
    assert!(both.count() > 100, "ids come on both sides");
}

/// The book as a reader of the messages sees it.
#[derive(Default)]
struct Reader {
    orders: HashMap<OrderKey, (Price, u64)>,
    states: HashMap<u32, String>,
}

impl Reader {
    fn take(&mut self, message: &Message<'_>) {
        match message {
            Message::Add(add) => {
                assert!(self.orders.insert(add.order, (add.price, add.quantity)).is_none(), "an id twice in a side");
            }
            Message::Executed(m) => self.less(m.order, m.quantity),
            Message::ExecutedAtPrice(m) => self.less(m.order, m.quantity),
            Message::Delete(m) => assert!(self.orders.remove(&m.order).is_some(), "an order that is not there ends"),
            Message::Flush(m) => self.orders.retain(|key, _| key.book != m.book),
            Message::BookState(m) => {
                self.states.insert(m.book, m.state.to_string());
            }
            _ => {}
        }
    }

    fn less(&mut self, key: OrderKey, quantity: u64) {
        let (_, left) = self.orders.get_mut(&key).expect("an order that is there");
        *left = left.checked_sub(quantity).expect("no more than there is");
        if *left == 0 {
            self.orders.remove(&key);
        }
    }

    fn best(&self, book: u32, side: Side) -> Option<i32> {
        let prices = self.orders.iter().filter(|(key, _)| key.book == book && key.side == side);
        let prices = prices.filter(|(_, (_, quantity))| *quantity > 0).filter_map(|(_, (price, _))| price.get());
        if side == Side::Buy { prices.max() } else { prices.min() }
    }
}

#[test]
fn every_message_fits_to_those_before_and_the_book_is_never_crossed_in_continuous_trading() {
    let tape = day(2, Duration::from_secs(40_000));
    let mut reader = Reader::default();
    for message in messages(&tape) {
        reader.take(&message);
        if let Message::Add(add) = message
            && reader.states[&add.order.book] == CONTINUOUS
        {
            let book = add.order.book;
            if let (Some(bid), Some(ask)) = (reader.best(book, Side::Buy), reader.best(book, Side::Sell)) {
                assert!(bid < ask, "{bid} and {ask}");
            }
        }
    }
}

#[test]
fn a_snapshot_is_the_state_that_the_messages_before_it_lead_to() {
    let symbols = ["A.E", "B.E", "C.E", "D.E"].map(String::from);
    let mut exchange = Exchange::new(&symbols, 5, START, SECOND, &day::whole());
    let mut tape = Tape::new(SessionId::new("S"));
    for minutes in [3, 16, 100, 205, 300, 502, 506, 509] {
        exchange.advance(START + minutes * 60 * SECOND, &mut tape);
        let mut reader = Reader::default();
        messages(&tape).for_each(|message| reader.take(&message));
        let mut joined = Reader::default();
        let snapshot = exchange.snapshot(tape.next());
        let (last, before) = snapshot.split_last().unwrap();
        before.iter().for_each(|bytes| joined.take(&Message::decode(bytes).unwrap()));
        assert_eq!(joined.orders, reader.orders, "after {minutes} minutes");
        assert_eq!(joined.states, reader.states);
        let end = EndOfSnapshot { next_sequence: tape.next() };
        assert_eq!(Message::decode(last), Ok(Message::EndOfSnapshot(end)));
    }
}
