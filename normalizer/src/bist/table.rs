//! What is known by number: a hash table of which a message touches one line of memory.
//!
//! A day has hundreds of thousands of orders at a time, which no cache of a core holds, so what a message costs is the lines of
//! memory that it waits for. Here a line holds some values with their keys, and a value lies in the line that the hash of its key
//! says, or, where that one is full, in the next that is not. A table is never more than half full, so few lines are. What is
//! removed leaves no mark: those that were put behind a full line for want of room move up.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

/// How many lines the smallest table has; a power of two, as all have.
const LEAST_LINES: usize = 2;

/// See the module's documentation. `N` is as many as fit into 64 bytes with a byte for their number.
#[derive(Debug)]
pub(super) struct Table<K, V, const N: usize> {
    /// None, or a power of two.
    lines: Box<[Line<K, V, N>]>,
    length: usize,
    hasher: RandomState,
}

/// The first `count` are values with their keys, the others nothing.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<K, V, const N: usize> {
    keys: [K; N],
    values: [V; N],
    count: u8,
}

/// Where a value is, until the next change of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    at: usize,
}

impl<K, V, const N: usize> Line<K, V, N> {
    /// Reads the line, so that it is at hand when it is needed; what that gives means nothing.
    #[inline]
    pub(super) fn touch(&self) -> u8 {
        self.count
    }
}

impl<K: Copy + Default, V: Copy + Default, const N: usize> Line<K, V, N> {
    fn empty() -> Self {
        const { assert!(size_of::<Self>() == 64) };
        Self { keys: [K::default(); N], values: [V::default(); N], count: 0 }
    }

    fn count(&self) -> usize {
        usize::from(self.count).min(N)
    }

    /// The caller has seen that there is room.
    #[inline]
    fn push(&mut self, key: K, value: V) {
        let at = self.count();
        (self.keys[at], self.values[at]) = (key, value);
        self.count += 1;
    }

    /// The last one takes the place of the one that goes.
    #[inline]
    fn remove(&mut self, at: usize) {
        let last = self.count() - 1;
        (self.keys[at], self.values[at]) = (self.keys[last], self.values[last]);
        self.count -= 1;
    }
}

impl<K, V, const N: usize> Default for Table<K, V, N> {
    fn default() -> Self {
        Self { lines: Box::default(), length: 0, hasher: RandomState::default() }
    }
}

impl<K: Copy + Eq + Hash + Default, V: Copy + Default, const N: usize> Table<K, V, N> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds a value; `false` when there is one of its key, which stays.
    #[inline]
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        if (self.length + 1) * 2 > self.lines.len() * N {
            self.grow();
        }
        let Err(line) = self.look_for(key) else { return false };
        self.lines[line].push(key, value);
        self.length += 1;
        true
    }

    /// Adds a value, in the place of the one of its key: that one.
    pub(super) fn replace(&mut self, key: K, value: V) -> Option<V> {
        match self.find(key) {
            Some(place) => Some(std::mem::replace(self.value_mut(place), value)),
            None => {
                self.insert(key, value);
                None
            }
        }
    }

    /// Where the value of this key is.
    #[inline]
    pub(super) fn find(&self, key: K) -> Option<Place> {
        self.look_for(key).ok()
    }

    /// The value of this key.
    #[inline]
    pub(super) fn get(&self, key: K) -> Option<V> {
        self.find(key).map(|place| self.value(place))
    }

    /// The line where the value of this key is looked for first, for [`Line::touch`].
    #[inline]
    pub(super) fn line_of(&self, key: K) -> Option<&Line<K, V, N>> {
        self.lines.get(self.home(key))
    }

    #[inline]
    pub(super) fn value(&self, place: Place) -> V {
        self.lines[place.line].values[place.at]
    }

    #[inline]
    pub(super) fn value_mut(&mut self, place: Place) -> &mut V {
        &mut self.lines[place.line].values[place.at]
    }

    #[inline]
    pub(super) fn remove(&mut self, place: Place) {
        let was_full = self.lines[place.line].count() == N;
        self.lines[place.line].remove(place.at);
        self.length -= 1;
        if was_full {
            self.move_up(place.line);
        }
    }

    /// Fills a line that was full with what was put behind it.
    #[cold]
    fn move_up(&mut self, mut free: usize) {
        let mut line = free;
        loop {
            line = self.behind(line);
            let this = self.lines[line];
            // It may not move to before where it is looked for first.
            let may_move = |key: &K| {
                let from_home = line.wrapping_sub(self.home(*key)) & self.mask();
                from_home >= line.wrapping_sub(free) & self.mask()
            };
            if let Some(at) = this.keys[..this.count()].iter().position(may_move) {
                self.lines[free].push(this.keys[at], this.values[at]);
                self.lines[line].remove(at);
                free = line;
            }
            if this.count() < N {
                return;
            }
        }
    }

    /// Where the value of this key is, or else the line that it would be put in.
    #[inline]
    fn look_for(&self, key: K) -> Result<Place, usize> {
        let mut line = self.home(key);
        while let Some(this) = self.lines.get(line) {
            let keys = &this.keys[..this.count()];
            if let Some(at) = keys.iter().position(|one| *one == key) {
                return Ok(Place { line, at });
            }
            if keys.len() < N {
                break;
            }
            line = self.behind(line);
        }
        Err(line)
    }

    fn grow(&mut self) {
        let count = (self.lines.len() * 2).max(LEAST_LINES);
        let before = std::mem::replace(&mut self.lines, vec![Line::empty(); count].into());
        for line in before {
            for (key, value) in line.keys.into_iter().zip(line.values).take(line.count()) {
                if let Err(at) = self.look_for(key) {
                    self.lines[at].push(key, value);
                }
            }
        }
    }

    fn mask(&self) -> usize {
        self.lines.len().wrapping_sub(1)
    }

    #[inline]
    fn home(&self, key: K) -> usize {
        self.hasher.hash_one(key) as usize & self.mask()
    }

    fn behind(&self, line: usize) -> usize {
        (line + 1) & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Values that come, change and go, against a table of the standard library.
        #[test]
        fn is_what_a_map_is(steps in prop::collection::vec((0u64..90, 0u64..5, 0u8..4), 1..800)) {
            let (mut table, mut map) = (Table::<u64, u64, 3>::default(), HashMap::new());
            for (key, value, what) in steps {
                match what {
                    0 => {
                        let is_new = !map.contains_key(&key);
                        prop_assert_eq!(table.insert(key, value), is_new);
                        map.entry(key).or_insert(value);
                    }
                    1 => match table.find(key) {
                        Some(place) => {
                            prop_assert_eq!(Some(table.value(place)), map.remove(&key));
                            table.remove(place);
                        }
                        None => prop_assert!(!map.contains_key(&key)),
                    },
                    2 => prop_assert_eq!(table.replace(key, value), map.insert(key, value)),
                    _ => if let Some(place) = table.find(key) {
                        *table.value_mut(place) = value;
                        map.insert(key, value);
                    },
                }
                prop_assert_eq!(table.len(), map.len());
            }
            for key in 0..90 {
                prop_assert_eq!(table.get(key), map.get(&key).copied());
            }
        }
    }
}
