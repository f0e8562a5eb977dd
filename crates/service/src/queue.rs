//! What waits for the exporter: bounded and counted. Whoever puts something in never waits.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::mpsc;

use crate::telemetry::registered;

/// How much may wait. When there is more, the newcomers are dropped and counted.
pub(crate) const CAPACITY: usize = 2048;

/// Where things are put in.
#[derive(Debug)]
pub(crate) struct Entrance<T> {
    waiting: mpsc::Sender<T>,
    dropped: IntCounter,
}

impl<T> Entrance<T> {
    /// Lets it wait, or drops and counts it.
    pub(crate) fn put(&self, item: T) {
        if self.waiting.try_send(item).is_err() {
            self.dropped.inc();
        }
    }
}

/// Where things are taken out, and what becomes of them is counted.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: mpsc::Receiver<T>,
    sent: IntCounter,
    dropped: IntCounter,
    /// How many were taken and have not come to an end.
    under_way: u64,
}

/// A queue whose counts are the metric `name`.
///
/// # Errors
///
/// When the registry has that metric already.
pub(crate) fn bounded<T>(
    name: &str,
    help: &str,
    registry: &Registry,
) -> Result<(Entrance<T>, Queue<T>), prometheus::Error> {
    let counts = registered(registry, IntCounterVec::new(Opts::new(name, help), &["what"]))?;
    let (sent, dropped) = (counts.with_label_values(&["sent"]), counts.with_label_values(&["dropped"]));
    let (entrance, waiting) = mpsc::channel(CAPACITY);
    let queue = Queue { waiting, sent, dropped: dropped.clone(), under_way: 0 };
    Ok((Entrance { waiting: entrance, dropped }, queue))
}

impl<T> Queue<T> {
    /// Takes what waits, `most` at most.
    pub(crate) fn take(&mut self, most: usize) -> Vec<T> {
        let mut batch = Vec::new();
        while batch.len() < most
            && let Ok(item) = self.waiting.try_recv()
        {
            batch.push(item);
        }
        self.under_way += batch.len() as u64;
        batch
    }

    /// Counts what was taken: it has arrived, or it is lost.
    pub(crate) fn settle(&mut self, has_arrived: bool) {
        let count = if has_arrived { &self.sent } else { &self.dropped };
        count.inc_by(std::mem::take(&mut self.under_way));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (entrance, mut queue) = bounded("x", "help", &Registry::new()).unwrap();
        (0..CAPACITY + 5).for_each(|n| entrance.put(n));
        assert_eq!(queue.dropped.get(), 5);
        assert_eq!(queue.take(2), [0, 1], "the oldest are kept");
        queue.settle(true);
        assert_eq!(queue.take(1), [2]);
        queue.settle(false);
        assert_eq!((queue.sent.get(), queue.dropped.get()), (2, 6));
    }
}
