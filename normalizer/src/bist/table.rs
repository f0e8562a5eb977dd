//! The orders of one side of a book by their ids: a hash table of which a message touches one place.
//!
//! A day has hundreds of thousands of orders at a time, which no cache of a core holds, so what a message costs is the places
//! in memory that it waits for. Here an order lies where its hash says or right behind, with its id, in an array that is never
//! fuller than five eighths. What is removed leaves no mark: those behind it move up.

use std::hash::BuildHasher;

use akis_connectors::bist::itch::Price;
use foldhash::fast::RandomState;

/// How many places the smallest table has; a power of two, as all have.
const LEAST_SLOTS: usize = 8;

/// What is known of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) quantity: u64,
    pub(super) price: Price,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// None, or a power of two.
    slots: Vec<Slot>,
    length: usize,
    hasher: RandomState,
}

/// An order with its id, in 24 bytes.
#[derive(Debug, Clone, Copy)]
struct Slot {
    id: u64,
    quantity: u64,
    price: Price,
    is_taken: bool,
}

/// Where an order is, until the next change of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

impl Slot {
    const FREE: Self = Self { id: 0, quantity: 0, price: Price::NONE, is_taken: false };
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds an order; `false` when there is one with its id, which stays.
    #[inline]
    pub(super) fn insert(&mut self, id: u64, order: Order) -> bool {
        if (self.length + 1) * 8 > self.slots.len() * 5 {
            self.grow();
        }
        let Err(Place(at)) = self.find(id) else { return false };
        self.slots[at] = Slot { id, quantity: order.quantity, price: order.price, is_taken: true };
        self.length += 1;
        true
    }

    /// Where the order with this id is, or where it would be.
    #[inline]
    pub(super) fn find(&self, id: u64) -> Result<Place, Place> {
        let mut at = self.home(id);
        while let Some(slot) = self.slots.get(at).filter(|slot| slot.is_taken) {
            if slot.id == id {
                return Ok(Place(at));
            }
            at = self.behind(at);
        }
        Err(Place(at))
    }

    /// Reads where the order with this id is looked for first, so that it is at hand when it is.
    #[inline]
    pub(super) fn touch(&self, id: u64) -> u64 {
        self.slots.get(self.home(id)).map_or(0, |slot| slot.id)
    }

    #[inline]
    pub(super) fn order(&self, Place(at): Place) -> Order {
        let Slot { quantity, price, .. } = self.slots[at];
        Order { quantity, price }
    }

    #[inline]
    pub(super) fn set_quantity(&mut self, Place(at): Place, quantity: u64) {
        self.slots[at].quantity = quantity;
    }

    #[inline]
    pub(super) fn remove(&mut self, Place(mut free): Place) {
        let mut at = self.behind(free);
        while self.slots[at].is_taken {
            // It may not move to before where it is looked for first.
            let from_home = at.wrapping_sub(self.home(self.slots[at].id)) & self.mask();
            if from_home >= at.wrapping_sub(free) & self.mask() {
                self.slots[free] = self.slots[at];
                free = at;
            }
            at = self.behind(at);
        }
        self.slots[free] = Slot::FREE;
        self.length -= 1;
    }

    fn grow(&mut self) {
        let count = (self.slots.len() * 2).max(LEAST_SLOTS);
        let before = std::mem::replace(&mut self.slots, vec![Slot::FREE; count]);
        for slot in before.into_iter().filter(|slot| slot.is_taken) {
            let mut at = self.home(slot.id);
            while self.slots[at].is_taken {
                at = self.behind(at);
            }
            self.slots[at] = slot;
        }
    }

    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    #[inline]
    fn home(&self, id: u64) -> usize {
        self.hasher.hash_one(id) as usize & self.mask()
    }

    fn behind(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Orders that come, change and go, against a table of the standard library.
        #[test]
        fn is_what_a_map_is(steps in prop::collection::vec((0u64..90, 0u64..5, 0u8..3), 1..800)) {
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for (id, quantity, what) in steps {
                let order = Order { quantity, price: Price(id as i32) };
                match what {
                    0 => {
                        let is_new = !map.contains_key(&id);
                        prop_assert_eq!(table.insert(id, order), is_new);
                        map.entry(id).or_insert(order);
                    }
                    1 => match table.find(id) {
                        Ok(place) => {
                            prop_assert_eq!(Some(table.order(place)), map.remove(&id));
                            table.remove(place);
                        }
                        Err(_) => prop_assert!(!map.contains_key(&id)),
                    },
                    _ => if let Ok(place) = table.find(id) {
                        table.set_quantity(place, quantity);
                        map.insert(id, order);
                    },
                }
                prop_assert_eq!(table.len(), map.len());
            }
            for id in 0..90 {
                prop_assert_eq!(table.find(id).ok().map(|place| table.order(place)), map.get(&id).copied());
            }
        }
    }
}
