//! Books and trades as a client puts them together.

use std::collections::BTreeMap;

use super::*;

/// A book in the venue's own texts.
#[derive(Debug, Clone, PartialEq)]
struct Book {
    last: i64,
    levels: BTreeMap<(&'static str, String), String>,
}

impl Book {
    fn of(snapshot: &Value) -> Self {
        let mut book = Self { last: int(&snapshot["lastUpdateId"]), levels: BTreeMap::new() };
        book.set("bid", &snapshot["bids"]);
        book.set("ask", &snapshot["asks"]);
        book
    }

    /// The venue's steps 4 to 6.
    fn apply(&mut self, diff: &Value) {
        if int(&diff["u"]) <= self.last {
            return;
        }
        assert!(int(&diff["U"]) <= self.last + 1, "nothing is missing");
        self.last = int(&diff["u"]);
        self.set("bid", &diff["b"]);
        self.set("ask", &diff["a"]);
    }

    fn set(&mut self, side: &'static str, levels: &Value) {
        for level in levels.as_array().unwrap() {
            let (price, amount) = (level[0].as_str().unwrap(), level[1].as_str().unwrap());
            if amount == "0.00000000" {
                self.levels.remove(&(side, price.into()));
            } else {
                self.levels.insert((side, price.into()), amount.into());
            }
        }
    }
}

#[tokio::test]
async fn snapshots_and_diffs_give_the_same_book() {
    let sim = Sim::generated().await;
    for stream in ["btcusdt@depth@100ms", "btcusdt@depth"] {
        let mut client = sim.connect(&format!("/stream?streams={stream}")).await;
        let mut diffs = vec![client.next(stream, |_| true).await];
        let mut snapshots = Vec::new();
        // One in four is stale; one that ends before the first diff begins cannot be used.
        while snapshots.len() < 5 {
            let snapshot = sim.get("/api/v3/depth?symbol=BTCUSDT&limit=5000").await;
            if int(&snapshot["lastUpdateId"]) >= int(&diffs[0]["U"]) - 1 {
                snapshots.push(snapshot);
            }
            diffs.push(client.next(stream, |_| true).await);
        }
        let reached = int(&snapshots.last().unwrap()["lastUpdateId"]);
        diffs.push(client.next(stream, |diff| int(&diff["u"]) > reached).await);
        let books: Vec<Book> = snapshots
            .iter()
            .map(|snapshot| {
                let mut book = Book::of(snapshot);
                diffs.iter().for_each(|diff| book.apply(diff));
                book
            })
            .collect();
        assert!(books.windows(2).all(|pair| pair[0] == pair[1]), "{stream}");
        assert!(books[0].levels.len() > 100);
    }
    sim.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_sometimes_older_than_the_one_before() {
    let sim = Sim::generated().await;
    let (mut last, mut went_back) = (0, false);
    for _ in 0..100 {
        let snapshot = sim.get("/api/v3/depth?symbol=BTCUSDT&limit=5").await;
        let id = int(&snapshot["lastUpdateId"]);
        went_back |= id < last;
        last = id;
    }
    assert!(went_back, "one in four comes from the last slow diff");
    sim.stop().await;
}

#[tokio::test]
async fn trades_are_dense_and_rest_has_them_too() {
    let sim = Sim::generated().await;
    let mut client = sim.connect("/stream?streams=btcusdt@aggTrade/btcusdt@trade").await;
    let (mut aggregates, mut trades) = (Vec::<Value>::new(), Vec::<Value>::new());
    while aggregates.len() < 50 {
        let mut frame = client.json().await;
        let data = frame["data"].take();
        if data["e"] == "aggTrade" { aggregates.push(data) } else { trades.push(data) }
    }
    for pair in aggregates.windows(2) {
        assert_eq!(int(&pair[1]["a"]), int(&pair[0]["a"]) + 1);
        assert_eq!(int(&pair[1]["f"]), int(&pair[0]["l"]) + 1);
    }
    for pair in trades.windows(2) {
        assert_eq!(int(&pair[1]["t"]), int(&pair[0]["t"]) + 1);
    }
    let from = &aggregates[10];
    let rows = sim.get(&format!("/api/v3/aggTrades?symbol=BTCUSDT&fromId={}&limit=20", from["a"])).await;
    for (row, told) in rows.as_array().unwrap().iter().zip(&aggregates[10..]) {
        for field in ["a", "p", "q", "f", "l", "T", "m", "M"] {
            assert_eq!(row[field], told[field], "{field}");
        }
    }
    assert_eq!(rows.as_array().map(Vec::len), Some(20));
    sim.stop().await;
}
