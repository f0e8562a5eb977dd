//! The orders of one book, and what they add up to by price.
//!
//! An order is found by its id, in one table for each side, because ids are unique only there. What the orders of a price add
//! up to is brought up to date by each message, never summed anew.

use akis_connectors::bist::itch::{Price, Side};

use super::table::{Line, Table};
use crate::book::SHOWN_LEVELS;
use crate::ladder::Ladder;

/// A message that does not fit the book: an order that is not there, or is there already, or has less than was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misfit;

/// A line of memory with orders.
pub(super) type OrderLine = Line<u64, Order, 3>;

/// Whether the levels that are shown have changed.
pub(super) type IsSeen = bool;

/// The orders of one book.
#[derive(Debug, Default)]
pub(super) struct Orders {
    bids: OneSide,
    asks: OneSide,
}

#[derive(Debug, Default)]
struct OneSide {
    by_id: Table<u64, Order, 3>,
    levels: Levels,
}

/// What is known of an order. Packed, so that three of them with their ids fit into a line of the table.
#[derive(Debug, Default, Clone, Copy)]
#[repr(Rust, packed(4))]
pub(super) struct Order {
    quantity: u64,
    price: Price,
}

/// Quantities by [`key`]. None is 0.
#[derive(Debug, Default)]
struct Levels(Ladder<i32, u64>);

impl Orders {
    /// A new order. One without a price, and one that shows no quantity, is in no level.
    pub(super) fn add(&mut self, side: Side, id: u64, price: Price, quantity: u64) -> Result<IsSeen, Misfit> {
        let this = self.side_mut(side);
        if !this.by_id.insert(id, Order { quantity, price }) {
            return Err(Misfit);
        }
        match price.get() {
            Some(price) => this.levels.add(key(side, price), quantity),
            None => Ok(false),
        }
    }

    /// So much of an order was matched: its own price, and whether that can be seen.
    pub(super) fn execute(&mut self, side: Side, id: u64, quantity: u64) -> Result<(Price, IsSeen), Misfit> {
        let this = self.side_mut(side);
        let place = this.by_id.find(id).ok_or(Misfit)?;
        let Order { quantity: before, price } = this.by_id.value(place);
        match before.checked_sub(quantity).ok_or(Misfit)? {
            0 => this.by_id.remove(place),
            left => this.by_id.value_mut(place).quantity = left,
        }
        Ok((price, this.levels.take(side, price, quantity)?))
    }

    /// An order is gone.
    pub(super) fn delete(&mut self, side: Side, id: u64) -> Result<IsSeen, Misfit> {
        let this = self.side_mut(side);
        let place = this.by_id.find(id).ok_or(Misfit)?;
        let Order { quantity, price } = this.by_id.value(place);
        this.by_id.remove(place);
        this.levels.take(side, price, quantity)
    }

    /// See [`Table::line_of`].
    #[inline]
    pub(super) fn line_of(&self, side: Side, id: u64) -> Option<&OrderLine> {
        match side {
            Side::Buy => self.bids.by_id.line_of(id),
            Side::Sell => self.asks.by_id.line_of(id),
        }
    }

    /// All orders are gone.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many orders there are.
    pub(super) fn len(&self) -> usize {
        self.bids.by_id.len() + self.asks.by_id.len()
    }

    /// The levels of a side, best first: price and quantity, which is never 0.
    pub(super) fn levels(&self, side: Side) -> impl Iterator<Item = (i32, u64)> {
        let this = match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        };
        this.levels.0.iter().map(move |(level, quantity)| (key(side, level), quantity))
    }

    /// Whether the best bid is not below the best ask.
    pub(super) fn is_crossed(&self) -> bool {
        match (self.levels(Side::Buy).next(), self.levels(Side::Sell).next()) {
            (Some((bid, _)), Some((ask, _))) => bid >= ask,
            _ => false,
        }
    }

    fn side_mut(&mut self, side: Side) -> &mut OneSide {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }
}

/// What a price is sorted by, so that the best one of either side is the largest; and the price of such a key.
fn key(side: Side, price: i32) -> i32 {
    match side {
        Side::Buy => price,
        Side::Sell => !price,
    }
}

impl Levels {
    fn add(&mut self, key: i32, quantity: u64) -> Result<IsSeen, Misfit> {
        if quantity == 0 {
            return Ok(false);
        }
        let at = match self.0.find(key) {
            Ok(at) => {
                let level = self.0.value_mut(at);
                // Only an attacker's orders add up to more than there are shares.
                *level = level.checked_add(quantity).ok_or(Misfit)?;
                at
            }
            Err(at) => {
                self.0.insert(at, key, quantity);
                at
            }
        };
        Ok(self.0.depth(at) <= SHOWN_LEVELS)
    }

    fn take(&mut self, side: Side, price: Price, quantity: u64) -> Result<IsSeen, Misfit> {
        let Some(price) = price.get().filter(|_| quantity > 0) else { return Ok(false) };
        let at = self.0.find(key(side, price)).map_err(|_| Misfit)?;
        let is_seen = self.0.depth(at) <= SHOWN_LEVELS;
        let level = self.0.value_mut(at);
        *level = level.checked_sub(quantity).ok_or(Misfit)?;
        if *level == 0 {
            self.0.remove(at);
        }
        Ok(is_seen)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn side(is_bid: bool) -> Side {
        if is_bid { Side::Buy } else { Side::Sell }
    }

    #[test]
    fn ids_of_the_two_sides_are_different_orders() {
        let mut orders = Orders::default();
        assert_eq!(orders.add(Side::Buy, 1, Price(10), 5), Ok(true));
        assert_eq!(orders.add(Side::Sell, 1, Price(12), 7), Ok(true));
        assert_eq!(orders.add(Side::Sell, 1, Price(12), 7), Err(Misfit));
        assert_eq!(orders.execute(Side::Buy, 1, 5), Ok((Price(10), true)));
        assert_eq!(orders.delete(Side::Buy, 1), Err(Misfit), "it was filled");
        assert_eq!(orders.levels(Side::Buy).next(), None);
        assert_eq!(orders.len(), 1);
    }

    #[test]
    fn orders_without_a_price_or_a_quantity_are_known_but_not_shown() {
        let mut orders = Orders::default();
        assert_eq!(orders.add(Side::Buy, 1, Price::NONE, 5), Ok(false));
        assert_eq!(orders.add(Side::Buy, 2, Price(10), 0), Ok(false));
        assert_eq!(orders.levels(Side::Buy).next(), None);
        assert_eq!(orders.execute(Side::Buy, 1, 6), Err(Misfit));
        assert_eq!(orders.delete(Side::Buy, 1), Ok(false));
        assert_eq!(orders.delete(Side::Buy, 2), Ok(false));
        assert_eq!(orders.len(), 0);
    }

    #[test]
    fn what_lies_below_the_levels_shown_is_not_seen() {
        let mut orders = Orders::default();
        for n in 0..20u8 {
            assert_eq!(orders.add(Side::Sell, n.into(), Price(n.into()), 1), Ok(true));
        }
        assert_eq!(orders.add(Side::Sell, 20, Price(20), 1), Ok(false));
        assert_eq!(orders.add(Side::Sell, 21, Price(20), 1), Ok(false));
        assert_eq!(orders.delete(Side::Sell, 5), Ok(true));
        assert_eq!(orders.delete(Side::Sell, 20), Ok(true), "it has moved up");
    }

    proptest! {
        #[test]
        fn levels_are_the_sums_of_the_orders(
            steps in prop::collection::vec((any::<bool>(), 0u64..40, 0i32..60, 0u64..9, 0u8..4), 1..300)
        ) {
            let mut orders = Orders::default();
            let mut naive: BTreeMap<(bool, u64), (i32, u64)> = BTreeMap::new();
            for (is_bid, id, price, quantity, what) in steps {
                let (one, known) = ((is_bid, id), naive.contains_key(&(is_bid, id)));
                match what {
                    0 | 1 if !known => {
                        let price = if price == 0 { i32::MIN } else { price - 30 };
                        prop_assert!(orders.add(side(is_bid), id, Price(price), quantity).is_ok());
                        naive.insert(one, (price, quantity));
                    }
                    2 => {
                        let done = orders.delete(side(is_bid), id);
                        prop_assert_eq!(done.is_ok(), naive.remove(&one).is_some());
                    }
                    _ => {
                        let fits = naive.get(&one).is_some_and(|order| order.1 >= quantity);
                        let done = orders.execute(side(is_bid), id, quantity);
                        prop_assert_eq!(done.is_ok(), fits);
                        if let (true, Some(order)) = (fits, naive.get_mut(&one)) {
                            order.1 -= quantity;
                            if order.1 == 0 {
                                naive.remove(&one);
                            }
                        }
                    }
                }
                prop_assert_eq!(orders.len(), naive.len());
                for is_bid in [true, false] {
                    let mut sums: BTreeMap<i32, u64> = BTreeMap::new();
                    for ((_, _), (price, quantity)) in naive.iter().filter(|((bid, _), _)| *bid == is_bid) {
                        if *price != i32::MIN && *quantity > 0 {
                            *sums.entry(*price).or_default() += quantity;
                        }
                    }
                    let mut expected: Vec<(i32, u64)> = sums.into_iter().collect();
                    if is_bid {
                        expected.reverse();
                    }
                    prop_assert_eq!(orders.levels(side(is_bid)).collect::<Vec<_>>(), expected);
                }
            }
        }
    }
}
