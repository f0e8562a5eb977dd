//! One read for all who ask the same.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Shares reads by what is asked. Holds only what is being asked for.
///
/// A read is shared by those who asked before it began: whoever comes later may know of something newer.
pub(super) struct Shared<K, V>(Mutex<HashMap<K, Arc<Line<V>>, foldhash::fast::RandomState>>);

/// Those who ask the same.
struct Line<V> {
    /// Held by the read that is under way.
    turn: tokio::sync::Mutex<()>,
    /// The read that has not begun.
    next: Mutex<Arc<OnceCell<V>>>,
}

impl<K: Hash + Eq + Clone, V: Clone> Shared<K, V> {
    /// Nobody asks.
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Gives what `read` gives, or what somebody else's read gives that begins after this call.
    pub(super) async fn get(&self, key: K, read: impl Future<Output = V>) -> V {
        let fresh = || Arc::new(Line { turn: tokio::sync::Mutex::default(), next: Mutex::default() });
        let line = Arc::clone(self.0.lock().entry(key.clone()).or_insert_with(fresh));
        let _leaving = Leaving { shared: self, key };
        let next = Arc::clone(&line.next.lock());
        let reading = async {
            let _turn = line.turn.lock().await;
            *line.next.lock() = Arc::default();
            read.await
        };
        next.get_or_init(|| reading).await.clone()
    }
}

/// Removes a line that nobody is in any more, also when whoever asked goes away.
struct Leaving<'a, K: Hash + Eq, V> {
    shared: &'a Shared<K, V>,
    key: K,
}

impl<K: Hash + Eq, V> Drop for Leaving<'_, K, V> {
    fn drop(&mut self) {
        let mut lines = self.shared.0.lock();
        // The map's own, and that of whoever is leaving, which is dropped right after this.
        if lines.get(&self.key).is_some_and(|line| Arc::strong_count(line) <= 2) {
            lines.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_share_the_next_read_and_leave_nothing_behind() {
        let shared = Shared::<&str, usize>::new();
        let (begun, go_on, reads) = (Notify::new(), Notify::new(), Cell::new(0));
        let first = shared.get("a", async {
            begun.notify_one();
            go_on.notified().await;
            reads.set(reads.get() + 1);
            reads.get()
        });
        let later = async {
            begun.notified().await;
            let read = || async {
                reads.set(reads.get() + 1);
                reads.get()
            };
            let all = join_all((0..10).map(|_| shared.get("a", read())));
            let opening = async { go_on.notify_one() };
            tokio::join!(all, opening).0
        };
        let (first, later) = tokio::join!(first, later);
        assert_eq!((first, later), (1, vec![2; 10]), "nobody shares what began before it was asked for");
        assert!(shared.0.lock().is_empty());
    }

    #[tokio::test]
    async fn another_goes_on_when_the_one_who_reads_goes_away() {
        let shared = Shared::<&str, usize>::new();
        let mut left = Box::pin(shared.get("a", std::future::pending()));
        assert!(futures_util::poll!(left.as_mut()).is_pending());
        let mut waits = Box::pin(shared.get("a", async { 7 }));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(left);
        assert_eq!(waits.await, 7);
        assert!(shared.0.lock().is_empty());
    }
}
