//! One side of a book: a sorted array whose best price is at its end.
//!
//! Almost everything happens within some places of the best price, so what is found is found in the few lines of memory there,
//! and what moves is little. That beats a tree up to thousands of levels. Prices and quantities lie apart, for only
//! prices are searched.

/// How many levels behind the best one are looked at before the search goes further back.
const NEAR: usize = 32;

/// Values by key, the largest key last and best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ladder<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K, V> Default for Ladder<K, V> {
    fn default() -> Self {
        Self { keys: Vec::new(), values: Vec::new() }
    }
}

impl<K, V> FromIterator<(K, V)> for Ladder<K, V> {
    /// Of levels that come by rising key.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(levels: I) -> Self {
        let (keys, values) = levels.into_iter().unzip();
        Self { keys, values }
    }
}

impl<K: Ord + Copy, V: Copy> Ladder<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Where `key` is, or where it would be, for [`Ladder::insert`].
    #[inline]
    pub(crate) fn find(&self, key: K) -> Result<usize, usize> {
        let (mut end, mut reach) = (self.keys.len(), NEAR);
        loop {
            let start = self.keys.len().saturating_sub(reach);
            if start == 0 || self.keys[start] <= key {
                return match self.keys[start..end].binary_search(&key) {
                    Ok(at) => Ok(start + at),
                    Err(at) => Err(start + at),
                };
            }
            end = start;
            reach *= 2;
        }
    }

    /// How many levels are as good as the one at `at`, or better.
    pub(crate) fn depth(&self, at: usize) -> usize {
        self.keys.len() - at
    }

    pub(crate) fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.values[at]
    }

    /// Puts in a level where [`Ladder::find`] said that it would be.
    pub(crate) fn insert(&mut self, at: usize, key: K, value: V) {
        self.keys.insert(at, key);
        self.values.insert(at, value);
    }

    pub(crate) fn remove(&mut self, at: usize) {
        self.keys.remove(at);
        self.values.remove(at);
    }

    /// Forgets the levels behind the best `most`.
    pub(crate) fn keep_best(&mut self, most: usize) {
        let worst = self.keys.len().saturating_sub(most);
        self.keys.drain(..worst);
        self.values.drain(..worst);
    }

    pub(crate) fn best(&self) -> Option<K> {
        self.keys.last().copied()
    }

    pub(crate) fn worst(&self) -> Option<K> {
        self.keys.first().copied()
    }

    /// The levels, best first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.keys.iter().copied().zip(self.values.iter().copied()).rev()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Changes near the best price and far from it, against a tree.
        #[test]
        fn is_what_a_tree_is(steps in prop::collection::vec((0u16..400, 0u8..4), 1..600), most in 1usize..300) {
            let (mut ladder, mut tree) = (Ladder::default(), BTreeMap::new());
            for (number, (key, what)) in steps.into_iter().enumerate() {
                match (ladder.find(key), what) {
                    (Ok(at), 0) => {
                        ladder.remove(at);
                        tree.remove(&key);
                    }
                    (Ok(at), _) => {
                        *ladder.value_mut(at) = number;
                        tree.insert(key, number);
                    }
                    (Err(at), _) => {
                        prop_assert!(!tree.contains_key(&key));
                        ladder.insert(at, key, number);
                        tree.insert(key, number);
                    }
                }
                if what == 3 {
                    ladder.keep_best(most);
                    while tree.len() > most {
                        tree.pop_first();
                    }
                }
                prop_assert_eq!(ladder.best(), tree.last_key_value().map(|(&key, _)| key));
            }
            let sorted: Vec<(u16, usize)> = tree.into_iter().rev().collect();
            prop_assert_eq!(ladder.len(), sorted.len());
            prop_assert_eq!(ladder.iter().collect::<Vec<_>>(), sorted);
        }
    }
}
