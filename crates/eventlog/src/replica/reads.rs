//! Reads of history for joins: few at a time, in the order in which they were asked for, and one for all who ask the same.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use akis_model::{Channel, Seq};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::{From, LogEvent, ReplicaCounts};
use crate::ByChannel;
use crate::store::{Range, Select, Store, StoreError};

/// Most entries of history that one read gives: somewhat more than any kind keeps, because trimming is approximate.
const HISTORY: usize = 8192;

/// How far below the position asked for a read begins. Clients that were cut off together wait at slightly different
/// positions; the first one's read serves the others.
const SLACK: u64 = 256;

/// A part of a channel's history, checked once and shared by all who asked for it.
pub(super) struct Page {
    /// Those entries that are events, in order.
    pub(super) events: Vec<Arc<LogEvent>>,
    /// Position of the oldest entry kept.
    pub(super) first: Option<Seq>,
    /// See [`Range::last`].
    pub(super) last: Option<Seq>,
    /// Whether the channel's end is proven under the present identity.
    pub(super) is_proven: bool,
    /// See [`Range::told`].
    pub(super) told: Option<RangeInclusive<Seq>>,
    /// How many entries lie above those that were read.
    pub(super) rest: usize,
    /// How many entries are kept.
    pub(super) length: usize,
    /// Position of the last entry that was read.
    pub(super) reached: Seq,
    /// Above this position everything was read that is kept, up to the last entry that was.
    floor: Seq,
}

impl Page {
    /// `floor`: the position that was asked from; `None`: what is newest was asked for.
    fn new(channel: &Channel, range: &Range, floor: Option<Seq>) -> Self {
        let oldest = range.entries.first().map(|entry| entry.seq);
        let floor = floor.or_else(|| oldest.filter(|oldest| Some(*oldest) != range.first).map(Seq::before));
        let reached = range.entries.last().map(|entry| entry.seq);
        let parse = |entry: &crate::store::Entry| LogEvent::parse(channel, entry.seq, entry.previous, &entry.body);
        Self {
            events: range.entries.iter().filter_map(parse).map(Arc::new).collect(),
            first: range.first,
            last: range.last,
            is_proven: range.proven,
            told: range.told.clone(),
            rest: range.rest,
            length: range.length,
            floor: floor.unwrap_or_default(),
            reached: reached.unwrap_or_default(),
        }
    }

    /// For a position that has nothing above it: the latest event, with which those begin who cannot resume, unless `latest` is
    /// of a later end than `range`. Then what lies between the two is in neither, and those who stood at the end would lose
    /// it; the ring or the feed brings all of it.
    pub(super) fn at_end(channel: &Channel, range: Range, latest: Range) -> Self {
        Self::new(channel, if latest.last == range.last { &latest } else { &range }, Some(Seq::ZERO))
    }

    /// Whether what was read reaches the newest entry.
    pub(super) fn is_complete(&self) -> bool {
        self.rest == 0
    }

    /// Whether subscribers may have been told the position, and nothing lies between it and the next event.
    pub(super) fn was_told(&self, position: Seq) -> bool {
        self.told.as_ref().is_some_and(|told| told.contains(&position))
    }

    /// Whether somebody who asked after the read had begun can use it. A client that comes from a replica that was faster may
    /// know positions that were not there yet.
    fn knows(&self, from: From) -> bool {
        match from {
            From::Live { .. } | From::Since(_) => true,
            From::After(after) => self.last.unwrap_or_default() >= after || self.was_told(after),
        }
    }

    /// What has to be read for somebody who asked for this, where it is not what was read here: one read goes only so far, and may
    /// have ended before, or begun behind.
    fn missing(&self, from: From) -> Option<Scope> {
        match from {
            From::Live { .. } => (!self.is_complete()).then_some(Scope::Latest),
            From::After(after) => {
                let reaches = self.floor <= after && (self.is_complete() || self.reached > after);
                (!reaches).then_some(Scope::Above(after))
            }
            From::Since(ts_ms) => {
                // Whether it begins below the moment; or else at the beginning of all that is kept.
                let is_begun = self.events.first().is_some_and(|first| first.ts_ms < ts_ms);
                let reaches = is_begun || self.first.is_none_or(|first| self.floor < first);
                (!reaches).then_some(Scope::Below(self.floor.next()))
            }
        }
    }
}

/// What a read covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The newest entry.
    Latest,
    /// Everything above a position.
    Above(Seq),
    /// Everything below a position, as far back as one read reaches.
    Below(Seq),
    /// Everything.
    All,
}

impl Scope {
    fn covers(self, from: From) -> bool {
        match (self, from) {
            (Self::All, _) | (Self::Latest | Self::Above(_), From::Live { .. }) => true,
            (Self::Above(floor), From::After(after)) => floor <= after,
            (Self::Below(_), _)
            | (Self::Above(_), From::Since(_))
            | (Self::Latest, From::After(_) | From::Since(_)) => false,
        }
    }
}

/// One read under way. Whoever waits for it first carries it out; when that one goes away, the next one does.
struct Flight {
    scope: Scope,
    page: OnceCell<Result<Arc<Page>, StoreError>>,
}

/// The flights of each channel: at most one of each scope.
type Flights = ByChannel<Vec<Arc<Flight>>>;

/// See the module's documentation.
pub(super) struct Reads {
    store: Arc<dyn Store>,
    counts: Arc<ReplicaCounts>,
    /// Given out in the order in which they are asked for.
    permits: Semaphore,
    flights: Mutex<Flights>,
}

impl Reads {
    pub(super) fn new(store: Arc<dyn Store>, counts: Arc<ReplicaCounts>, concurrent: usize) -> Self {
        Self { store, counts, permits: Semaphore::new(concurrent), flights: Mutex::default() }
    }

    /// Reads what it takes to join a channel.
    ///
    /// # Errors
    ///
    /// That of the store; everybody who shares the read gets the same.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: others who share the read carry it out.
    pub(super) async fn read(&self, channel: &Channel, from: From) -> Result<Arc<Page>, StoreError> {
        let mut exactly = None;
        loop {
            let seat = self.board(channel, from, exactly);
            let page = seat.flight.page.get_or_init(|| self.carry_out(channel, seat.flight.scope)).await.clone()?;
            match page.missing(from) {
                // Shared by those alone who need the same.
                Some(missing) => exactly = Some(missing),
                None if !seat.is_late || page.knows(from) => return Ok(page),
                None => {}
            }
        }
    }

    /// A seat in a flight of a scope, or else in any that may serve.
    fn board<'a>(&'a self, channel: &'a Channel, from: From, exactly: Option<Scope>) -> Seat<'a> {
        let mut flights = self.flights.lock();
        let of_channel = flights.entry(channel.clone()).or_default();
        let open = of_channel.iter().filter(|flight| !flight.page.initialized());
        let serves = |flight: &&Arc<Flight>| exactly.map_or(flight.scope.covers(from), |scope| flight.scope == scope);
        if let Some(flight) = open.clone().find(serves) {
            return Seat { reads: self, channel, flight: Arc::clone(flight), is_late: true };
        }
        let scope = exactly.unwrap_or_else(|| match from {
            From::Live { .. } => Scope::Latest,
            // A second read of the channel beside one that begins too high serves everybody.
            From::After(_) if open.clone().any(|flight| matches!(flight.scope, Scope::Above(_))) => Scope::All,
            From::After(after) => Scope::Above(Seq::new(after.get().saturating_sub(SLACK)).unwrap_or_default()),
            From::Since(_) => Scope::All,
        });
        let flight = Arc::new(Flight { scope, page: OnceCell::new() });
        of_channel.push(Arc::clone(&flight));
        Seat { reads: self, channel, flight, is_late: false }
    }

    async fn carry_out(&self, channel: &Channel, scope: Scope) -> Result<Arc<Page>, StoreError> {
        let _permit = self.permits.acquire().await.map_err(|_| StoreError::Broken("reads are closed".to_owned()))?;
        self.counts.history_reads.fetch_add(1, Ordering::Relaxed);
        let latest = Select::Newest { limit: 1 };
        let (select, mut floor) = match scope {
            Scope::Latest => (latest, None),
            Scope::Above(after) => (Select::Above { after, limit: HISTORY }, Some(after)),
            Scope::Below(before) => (Select::Below { before, limit: HISTORY }, None),
            Scope::All => (Select::Newest { limit: HISTORY }, None),
        };
        let mut range = self.store.range(channel, select).await?;
        if let Scope::Below(before) = scope
            && range.entries.is_empty()
        {
            // It was trimmed meanwhile: what is kept begins here.
            let after = before.before();
            floor = Some(after);
            range = self.store.range(channel, Select::Above { after, limit: HISTORY }).await?;
        }
        if range.entries.is_empty() && range.last.is_some() {
            let latest = self.store.range(channel, latest).await?;
            return Ok(Arc::new(Page::at_end(channel, range, latest)));
        }
        Ok(Arc::new(Page::new(channel, &range, floor)))
    }
}

/// One who waits for a flight. The last one who leaves takes it off the board.
struct Seat<'a> {
    reads: &'a Reads,
    channel: &'a Channel,
    flight: Arc<Flight>,
    /// The flight may have left before this one came.
    is_late: bool,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = self.reads.flights.lock();
        let Some(of_channel) = flights.get_mut(self.channel) else { return };
        // One reference is the board's, one this seat's.
        let is_over = self.flight.page.initialized() || Arc::strong_count(&self.flight) <= 2;
        if is_over {
            of_channel.retain(|flight| !Arc::ptr_eq(flight, &self.flight));
        }
        if of_channel.is_empty() {
            flights.remove(self.channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use akis_model::{Body, Outcome};
    use serde_json::json;

    use super::*;
    use crate::memory::MemoryStore;
    use crate::store::{Append, Partition};

    /// A log with a channel of ten events, the position of the last, and its reads, one at a time.
    async fn reads() -> (Reads, Channel, Seq) {
        let (store, channel) = (MemoryStore::new(1), Channel::parse("job:1").unwrap());
        let event = |ts_ms| {
            let body = Body::render(ts_ms, "e", &channel, Outcome::Ok, &json!({})).unwrap();
            Append { channel: channel.clone(), id: None, body: body.text().clone(), trace: None }
        };
        let events: Vec<Append> = (0..10).map(event).collect();
        let seqs = store.append(Partition(0), &events, Seq::ZERO).await.unwrap();
        (Reads::new(store, Arc::default(), 1), channel, seqs[9])
    }

    fn count(reads: &Reads) -> u64 {
        reads.counts.history_reads.load(Ordering::Relaxed)
    }

    fn below(last: Seq, n: u64) -> From {
        From::After(Seq::new(last.get() - n).unwrap())
    }

    #[tokio::test]
    async fn those_who_ask_the_same_share_one_read() {
        let (reads, channel, last) = reads().await;
        let held = reads.permits.acquire().await.unwrap();
        let (a, b, c, d, ()) = tokio::join!(
            reads.read(&channel, below(last, 2)),
            reads.read(&channel, below(last, 9)),
            reads.read(&channel, below(last, 0)),
            reads.read(&channel, From::Live { snapshot: true }),
            async { drop(held) }
        );
        let pages = [a, b, c, d].map(Result::unwrap);
        assert!(pages.iter().all(|page| Arc::ptr_eq(page, &pages[0])));
        assert_eq!((count(&reads), pages[0].events.len()), (1, 10));
        assert!(reads.flights.lock().is_empty());
    }

    #[tokio::test]
    async fn whoever_wants_more_than_the_read_under_way_gets_one_that_serves_everybody() {
        let (reads, channel, last) = reads().await;
        let held = reads.permits.acquire().await.unwrap();
        let (a, b, c, d, ()) = tokio::join!(
            reads.read(&channel, below(last, 2)),
            reads.read(&channel, From::After(Seq::ZERO)),
            reads.read(&channel, From::Since(3)),
            reads.read(&channel, below(last, 2 * SLACK)),
            async { drop(held) }
        );
        let pages = [a, b, c, d].map(Result::unwrap);
        assert!(pages[1..].iter().all(|page| Arc::ptr_eq(page, &pages[1])));
        assert_eq!(count(&reads), 2);
    }

    #[tokio::test]
    async fn a_position_that_the_shared_read_does_not_know_is_read_again() {
        let (reads, channel, last) = reads().await;
        let held = reads.permits.acquire().await.unwrap();
        let (a, b, ()) =
            tokio::join!(reads.read(&channel, below(last, 2)), reads.read(&channel, From::After(last.next())), async {
                drop(held)
            });
        assert!(!Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
        assert_eq!(count(&reads), 2, "a replica that was faster may have told it");
    }

    /// A log with a channel of events that are too large for one read, their positions, and its reads, one at a time.
    async fn large_reads() -> (Reads, Channel, Vec<Seq>) {
        let (store, channel) = (MemoryStore::new(1), Channel::parse("job:1").unwrap());
        let big = "x".repeat(crate::RANGE_BYTES / 50);
        let event = |ts_ms: usize| {
            let body = format!(r#""ts":{ts_ms},"event":"e","channel":"job:1","ok":true,"data":{{"big":"{big}"}}}}"#);
            Append { channel: channel.clone(), id: None, body: body.into(), trace: None }
        };
        let events: Vec<Append> = (0..400).map(event).collect();
        let seqs = store.append(Partition(0), &events, Seq::ZERO).await.unwrap();
        (Reads::new(store, Arc::default(), 1), channel, seqs)
    }

    #[tokio::test]
    async fn large_events_are_read_in_parts_from_wherever_somebody_stands() {
        let (reads, channel, seqs) = large_reads().await;
        let next = async |after: Seq| {
            let page = reads.read(&channel, From::After(after)).await.unwrap();
            (page.events.iter().map(|event| event.seq).find(|seq| *seq > after), page.is_complete())
        };
        // Far above the floor of a read that serves others too, and below it.
        for at in [0, 100, 300, 390] {
            assert_eq!(next(seqs[at]).await, (Some(seqs[at + 1]), at == 390), "{at}");
        }
        let held = reads.permits.acquire().await.unwrap();
        let (a, b, c, ()) = tokio::join!(next(seqs[380]), next(seqs[20]), next(seqs[200]), async { drop(held) });
        assert_eq!([a.0, b.0, c.0], [381, 21, 201].map(|at| Some(seqs[at])));
    }

    #[tokio::test]
    async fn a_moment_is_looked_for_as_far_back_as_history_goes() {
        let (reads, channel, seqs) = large_reads().await;
        for ts_ms in [0, 1, 51, 200, 350, 399] {
            let page = reads.read(&channel, From::Since(ts_ms)).await.unwrap();
            let at = page.events.iter().position(|event| event.ts_ms >= ts_ms);
            match at {
                Some(at) => assert_eq!(page.events[at].seq, seqs[ts_ms as usize]),
                None => assert_eq!(page.reached, seqs[ts_ms as usize - 1], "it begins with what follows"),
            }
            assert!(ts_ms == 0 || at != Some(0), "the event before shows that nothing is missing");
            assert_eq!(page.is_complete(), ts_ms > 350, "{ts_ms}");
        }
    }

    #[tokio::test]
    async fn whoever_begins_live_is_given_the_end_also_beside_a_read_that_does_not_reach_it() {
        let (reads, channel, seqs) = large_reads().await;
        let held = reads.permits.acquire().await.unwrap();
        let (all, with_snapshot, without, ()) = tokio::join!(
            reads.read(&channel, From::After(Seq::ZERO)),
            reads.read(&channel, From::Live { snapshot: true }),
            reads.read(&channel, From::Live { snapshot: false }),
            async { drop(held) }
        );
        assert!(!all.unwrap().is_complete());
        let (live, without) = (with_snapshot.unwrap(), without.unwrap());
        assert!(live.is_complete() && live.events.last().is_some_and(|latest| latest.seq == seqs[399]));
        assert!(without.is_complete() && without.last == Some(seqs[399]));
    }

    #[tokio::test]
    async fn those_whom_a_shared_read_does_not_reach_share_one_that_does() {
        let (reads, channel, last) = reads().await;
        let scopes = [Scope::Above(last), Scope::Above(last.before()), Scope::Below(last), Scope::Latest];
        let board = |scope| reads.board(&channel, From::After(last), Some(scope));
        let first = scopes.map(board);
        for (first, second) in first.iter().zip(scopes.map(board)) {
            assert!(Arc::ptr_eq(&first.flight, &second.flight) && !first.is_late && second.is_late);
        }
        assert_eq!(reads.flights.lock()[&channel].len(), 4, "and with nobody else");
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_is_forgotten_and_one_that_somebody_waits_for_is_carried_out() {
        let (reads, channel, last) = reads().await;
        let held = reads.permits.acquire().await.unwrap();
        let second = {
            let mut first = Box::pin(reads.read(&channel, below(last, 2)));
            let mut second = Box::pin(reads.read(&channel, below(last, 2)));
            tokio::select! {
                biased;
                _ = &mut first => unreachable!("no permit"),
                _ = &mut second => unreachable!("no permit"),
                () = std::future::ready(()) => {}
            }
            second
        };
        drop(held);
        assert_eq!(second.await.unwrap().events.len(), 10);
        assert_eq!(count(&reads), 1);
        let held = reads.permits.acquire().await.unwrap();
        tokio::select! {
            biased;
            _ = reads.read(&channel, below(last, 2)) => unreachable!("no permit"),
            () = std::future::ready(()) => {}
        }
        assert!(reads.flights.lock().is_empty());
        drop(held);
    }
}
