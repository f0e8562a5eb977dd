//! Books against a model of the venue: whatever is lost, doubled, swapped, numbered wrong or cut, what is published is the
//! venue's, and it always comes back.

use std::collections::BTreeMap;

use super::super::depth::Sequence;
use super::*;

/// Price and quantity of each level, best first: bids and asks.
type Levels = [Vec<(String, String)>; 2];

/// The venue: its book in integers, its numbers, and what it said when.
struct Venue {
    market: Market,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    /// Levels of a side in a snapshot, at most.
    most: usize,
    /// Of the last event.
    last_id: u64,
    /// The book by each number that an event ended with.
    truth: BTreeMap<u64, Levels>,
}

/// An event of the stream.
#[derive(Clone)]
struct Diff {
    first: u64,
    last: u64,
    previous: u64,
    bids: Value,
    asks: Value,
}

impl Venue {
    fn new(market: Market, most: usize) -> Self {
        let side = |sign: i64| (1..=60).map(|n| (1_000 + sign * n * 3, n)).collect();
        let mut venue = Self { market, bids: side(-1), asks: side(1), most, last_id: 500, truth: BTreeMap::new() };
        venue.note();
        venue
    }

    fn note(&mut self) {
        let text = |(price, qty): (&i64, &i64)| (price.to_string(), qty.to_string());
        let shown =
            [self.bids.iter().rev().take(20).map(text).collect(), self.asks.iter().take(20).map(text).collect()];
        self.truth.insert(self.last_id, shown);
    }

    /// Sets an amount, of nothing too, where there may be nothing; `step` is how many numbers the event takes.
    fn change(&mut self, is_bid: bool, distance: i64, qty: i64, step: u64) -> Diff {
        let (side, price) =
            if is_bid { (&mut self.bids, 1_000 - distance) } else { (&mut self.asks, 1_000 + distance) };
        if qty == 0 {
            side.remove(&price)
        } else {
            side.insert(price, qty)
        };
        let previous = self.last_id;
        self.last_id += step;
        // Futures share their numbers with other symbols, so an event need not begin where the last one ended.
        let first = if self.market.sequence == Sequence::Dense { previous + 1 } else { self.last_id.min(previous + 2) };
        self.note();
        let told = json!([[price.to_string(), format!("{qty}.000")]]);
        let (bids, asks) = if is_bid { (told, json!([])) } else { (json!([]), told) };
        Diff { first, last: self.last_id, previous, bids, asks }
    }

    /// The best levels of the book, as REST gives them.
    fn snapshot(&self) -> String {
        let level = |(price, qty): (&i64, &i64)| json!([price.to_string(), qty.to_string()]);
        let bids: Vec<Value> = self.bids.iter().rev().take(self.most).map(level).collect();
        let asks: Vec<Value> = self.asks.iter().take(self.most).map(level).collect();
        json!({"lastUpdateId": self.last_id, "bids": bids, "asks": asks}).to_string()
    }
}

/// A mapper with what it said.
struct Reader {
    mapper: Binance,
    rest: &'static str,
    /// Levels that are asked for.
    most: usize,
    now: i64,
    connection: u32,
    wants_book: bool,
    published: Vec<(u64, Levels)>,
    /// The number of the newest book that was published, and how often one has been built anew.
    newest: Option<u64>,
    resyncs: usize,
}

impl Reader {
    fn new(market: Market, most: usize, is_paced: bool) -> Self {
        let mut mapper = Binance::new(market);
        if is_paced {
            mapper.pace();
        }
        mapper.admit(Some(&["BTCUSDT".to_owned()]), &[Kind::Book]);
        Self {
            mapper,
            rest: market.rest,
            most,
            now: 1_000,
            connection: 1,
            wants_book: false,
            published: Vec::new(),
            newest: None,
            resyncs: 0,
        }
    }

    fn content(&mut self, content: Content) {
        let mut out = Output::default();
        self.mapper.on_frame(&RawFrame { received_at: self.now, content }, &mut out);
        self.note(out);
    }

    fn diff(&mut self, diff: &Diff) {
        let Diff { first, last, previous, bids, asks } = diff;
        let data = json!({"e":"depthUpdate","E":900,"s":"BTCUSDT","U":first,"u":last,"pu":previous,"b":bids,"a":asks});
        let text = json!({"stream": "btcusdt@depth@100ms", "data": data}).to_string();
        self.content(Content::Text { connection: self.connection, text });
    }

    fn reply(&mut self, body: String) {
        self.wants_book = false;
        let target = format!("{}/depth?symbol=BTCUSDT&limit={}", self.rest, self.most);
        self.content(Content::Reply { target, status: 200, body });
    }

    fn close(&mut self) {
        let connection = self.connection;
        self.connection += 1;
        self.content(Content::Closed { connection, code: 1006 });
    }

    fn tick(&mut self, later_ms: i64) {
        self.now += later_ms;
        let mut out = Output::default();
        self.mapper.on_tick(self.now, &mut out);
        self.wants_book |= out.requests.contains(&Request::Book { symbol: "BTCUSDT".into() });
        self.note(out);
    }

    fn note(&mut self, out: Output) {
        self.resyncs += out.resyncs.len();
        let texts = |levels: &[Level]| levels.iter().map(|level| (level.0.to_string(), level.1.to_string())).collect();
        self.published.extend(out.updates.iter().filter_map(|update| match &update.payload {
            Payload::Book(book) => Some((book.venue_seq.parse().unwrap(), [texts(&book.bids), texts(&book.asks)])),
            _ => None,
        }));
        self.newest = self.published.last().map(|(id, _)| *id).or(self.newest);
    }
}

/// What happens to an event on its way.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Dropped,
    Doubled,
    Swapped,
    WrongSequence,
    Cut,
    HalfFrame,
    Crossed,
    /// The snapshot that was asked for is of a moment long ago.
    OldSnapshot,
    /// It stays away for a while.
    LateSnapshot,
    None,
}

fn fault() -> impl Strategy<Value = Fault> {
    let rare = [
        Fault::Dropped,
        Fault::Doubled,
        Fault::Swapped,
        Fault::WrongSequence,
        Fault::Cut,
        Fault::HalfFrame,
        Fault::Crossed,
        Fault::OldSnapshot,
        Fault::LateSnapshot,
    ];
    prop_oneof![1 => prop::sample::select(rare.to_vec()), 3 => Just(Fault::None)]
}

/// How many levels a snapshot has: all that there are, or hardly more than are shown.
fn most() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1_000), 20..30_usize, 30..90_usize]
}

/// One event with its fault: side, distance from the middle, quantity, numbers taken.
type Step = (Fault, bool, i64, i64, u64);

/// Plays a session and checks whatever is published on the way; then lets the faults end.
fn play(market: Market, most: usize, steps: &[Step], is_paced: bool) -> Result<(), TestCaseError> {
    let (mut venue, mut reader) = (Venue::new(market, most), Reader::new(market, most, is_paced));
    let old = venue.snapshot();
    let (mut swapped, mut late_until): (Option<Diff>, usize) = (None, 0);
    for (at, &(fault, is_bid, distance, qty, step)) in steps.iter().enumerate() {
        let diff = venue.change(is_bid, distance, qty, step);
        match fault {
            Fault::Dropped => {}
            Fault::Doubled => (0..2).for_each(|_| reader.diff(&diff)),
            Fault::Swapped if swapped.is_none() => swapped = Some(diff.clone()),
            Fault::WrongSequence => {
                let wrong = |id: u64| id + 7_000;
                let (first, last) = (wrong(diff.first), wrong(diff.last));
                reader.diff(&Diff { first, last, previous: wrong(diff.previous), ..diff });
            }
            Fault::Cut => reader.close(),
            Fault::HalfFrame => {
                let text = r#"{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":900,"s":"BTCU"#.into();
                reader.content(Content::Text { connection: reader.connection, text });
            }
            Fault::Crossed => reader.diff(&Diff { bids: json!([["5000", "1"]]), ..diff }),
            Fault::LateSnapshot => {
                late_until = at + 4;
                reader.diff(&diff);
            }
            Fault::OldSnapshot | Fault::Swapped | Fault::None => reader.diff(&diff),
        }
        if !matches!(fault, Fault::Swapped)
            && let Some(earlier) = swapped.take()
        {
            reader.diff(&earlier);
        }
        reader.tick(60);
        if reader.wants_book && at >= late_until {
            let is_old = matches!(fault, Fault::OldSnapshot);
            reader.reply(if is_old { old.clone() } else { venue.snapshot() });
        }
        check(&venue, &mut reader)?;
    }
    recovers(&mut venue, &mut reader)
}

/// What was published has to be the venue's book at that number, which was told.
fn check(venue: &Venue, reader: &mut Reader) -> Result<(), TestCaseError> {
    for (id, shown) in reader.published.drain(..) {
        prop_assert_eq!(Some(&shown), venue.truth.get(&id), "at {}", id);
        let price = |side: &[(String, String)]| side.first().map(|level| level.0.parse::<i64>().unwrap());
        prop_assert!(price(&shown[0]).zip(price(&shown[1])).is_none_or(|(bid, ask)| bid < ask), "crossed at {}", id);
        prop_assert!(shown.iter().flatten().all(|level| level.1 != "0"), "an empty level at {}", id);
    }
    Ok(())
}

/// Without faults it is proven again, and each event is published.
fn recovers(venue: &mut Venue, reader: &mut Reader) -> Result<(), TestCaseError> {
    let mut shown = 0;
    for n in 0..60 {
        let diff = venue.change(n % 2 == 0, 3 + n % 40, 1 + n, 1 + n as u64 % 3);
        reader.diff(&diff);
        reader.tick(1_000);
        shown = if reader.published.iter().any(|(id, _)| *id == diff.last) { shown + 1 } else { 0 };
        check(venue, reader)?;
        if reader.wants_book {
            let body = venue.snapshot();
            reader.reply(body);
        }
        check(venue, reader)?;
    }
    prop_assert!(shown >= 10, "only the last {} of 60 events were published", shown);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_published_book_of_spot_is_the_venues(
        steps in prop::collection::vec((fault(), any::<bool>(), 1i64..200, 0i64..4, 1u64..4), 1..150),
        most in most(),
        is_paced: bool,
    ) {
        play(Market::SPOT, most, &steps, is_paced)?;
    }

    #[test]
    fn every_published_book_of_futures_is_the_venues(
        steps in prop::collection::vec((fault(), any::<bool>(), 1i64..200, 0i64..4, 2u64..9), 1..150),
        most in most(),
        is_paced: bool,
    ) {
        play(Market::USDM, most, &steps, is_paced)?;
    }
    /// Beside a mapper that says everything: what a paced one said last is never old, and when a book is lost it is the newest.
    #[test]
    fn what_is_not_due_is_told_when_it_is_or_when_it_would_be_lost(
        steps in prop::collection::vec((fault(), any::<bool>(), 1i64..200, 0i64..4, 1u64..4, 0i64..100), 1..150),
        most in most(),
    ) {
        let mut venue = Venue::new(Market::SPOT, most);
        let (mut all, mut paced) = (Reader::new(Market::SPOT, most, false), Reader::new(Market::SPOT, most, true));
        // When the newest book of all came.
        let mut since = 0;
        for (fault, is_bid, distance, qty, step, later_ms) in steps {
            let diff = venue.change(is_bid, distance, qty, step);
            let (newest, resyncs) = (all.newest, all.resyncs);
            for reader in [&mut all, &mut paced] {
                match fault {
                    Fault::Dropped => {}
                    Fault::Cut => reader.close(),
                    Fault::Crossed => reader.diff(&Diff { bids: json!([["5000", "1"]]), ..diff.clone() }),
                    _ => reader.diff(&diff),
                }
                if reader.resyncs > resyncs {
                    prop_assert_eq!(reader.newest, newest, "the last one before it was lost");
                }
                reader.tick(later_ms);
                if reader.wants_book {
                    reader.reply(venue.snapshot());
                }
            }
            if all.newest != newest {
                since = all.now;
            }
            prop_assert!(paced.newest == all.newest || all.now - since < 250, "it is late");
            check(&venue, &mut paced)?;
            check(&venue, &mut all)?;
        }
        paced.tick(250);
        prop_assert_eq!(paced.newest, all.newest);
    }
}
