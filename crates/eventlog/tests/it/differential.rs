//! Random calls to both stores give the same answers, but for the clock and the random part of positions.

use std::collections::HashMap;
use std::fmt::Write as _;

use akis_eventlog::{Claim, Fence, Identity, Marker, MemoryStore, RedisStore, Select, Store, StoreError, Write};
use akis_model::{Origin, Seq};
use akis_testkit::RedisServer;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::log::{P, append, channel, feed, fence};

const LEASED: [&str; 2] = ["v:a:trades", "v:b:ticker"];
const APPS: [&str; 2] = ["job:1", "job:2"];

/// One call, with positions relative to what is known when it is made.
#[derive(Debug, Clone)]
enum Call {
    /// Reads the ends and begins a term in one leased channel.
    Begin(usize),
    /// Publishes so many events in a leased channel, the first with `p` where it begins a term.
    Publish(usize, usize),
    /// Publishes the last batch again.
    Repeat,
    /// Marks a leased channel: without proof, with 0, or with its last position, minus something.
    Mark(usize, Option<u64>),
    /// Appends to applications' channels: channel and idempotency id of each event.
    Append(Vec<(usize, Option<u8>)>),
    /// Reads history: channel, kind of read, and a number.
    Range(usize, u8, u64),
    /// Sets the next fence, or one over a wrong one.
    Fence(bool),
    /// Publishes under a wrong fence or identity.
    Intrude(bool),
    /// Reads the ends, having seen something far above the top, or the top itself.
    See(bool),
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => (0..2_usize).prop_map(Call::Begin),
        4 => (0..2_usize, 1..4_usize).prop_map(|(channel, count)| Call::Publish(channel, count)),
        1 => Just(Call::Repeat),
        2 => (0..2_usize, prop::option::of(0..3_u64)).prop_map(|(channel, previous)| Call::Mark(channel, previous)),
        4 => prop::collection::vec((0..2_usize, prop::option::of(0..3_u8)), 1..4).prop_map(Call::Append),
        3 => (0..4_usize, 0..3_u8, 0..5_u64).prop_map(|(channel, read, number)| Call::Range(channel, read, number)),
        1 => any::<bool>().prop_map(Call::Fence),
        1 => any::<bool>().prop_map(Call::Intrude),
        1 => any::<bool>().prop_map(Call::See),
    ]
}

/// Plays calls to one store, and writes down the answers with positions by name.
struct Player<'a> {
    store: &'a dyn Store,
    claim: Claim,
    next: HashMap<usize, (Seq, Option<Seq>)>,
    last_batch: Vec<Write>,
    /// Names of positions: the number of their term, in the order in which they were met, and the place in it.
    names: HashMap<u64, (usize, i64)>,
    terms: usize,
    /// How often something was seen above the top, each time higher.
    sights: u64,
    trace: String,
}

impl<'a> Player<'a> {
    async fn play(store: &'a dyn Store, calls: &[Call]) -> String {
        let ends = store.ends(P, &[], None, Seq::ZERO).await.unwrap();
        let claim = Claim { publisher: "v".into(), fence: fence(1), identity: ends.identity, seen: Seq::ZERO };
        store.set_fence(P, "v", None, &claim.fence, Seq::ZERO).await.unwrap();
        let mut player = Self {
            store,
            claim,
            next: HashMap::new(),
            last_batch: Vec::new(),
            names: HashMap::new(),
            terms: 0,
            sights: 0,
            trace: String::new(),
        };
        for call in calls {
            player.call(call).await;
            player.trace.push('\n');
        }
        for entry in feed(store).await {
            let (seq, previous) = (player.name(Some(entry.seq)), player.name(entry.previous));
            let _ = writeln!(player.trace, "{} {:?} {seq} {previous} {:?}", entry.number, entry.channel, entry.body);
        }
        player.trace
    }

    /// A position by name: one beside a known position belongs to its term.
    fn name(&mut self, seq: Option<Seq>) -> String {
        let Some(seq) = seq.map(Seq::get) else { return "none".to_owned() };
        if seq == 0 {
            return "zero".to_owned();
        }
        let known = |names: &HashMap<u64, (usize, i64)>, at: u64, offset: i64| {
            names.get(&at).map(|(term, place)| (*term, place + offset))
        };
        let name = known(&self.names, seq, 0)
            .or_else(|| known(&self.names, seq - 1, 1))
            .or_else(|| known(&self.names, seq + 1, -1))
            .unwrap_or_else(|| {
                self.terms += 1;
                (self.terms, 0)
            });
        self.names.insert(seq, name);
        format!("t{}{:+}", name.0, name.1)
    }

    async fn call(&mut self, call: &Call) {
        let _ = write!(self.trace, "{call:?}: ");
        match call {
            Call::Begin(index) => {
                let ends = self.store.ends(P, &[channel(LEASED[*index])], Some("v"), Seq::ZERO).await.unwrap();
                let end = ends.channels[0];
                let _ = write!(self.trace, "fence {:?}, proven {} ", ends.fence, end.proven);
                self.next.insert(*index, (end.term, Some(end.last.unwrap_or(Seq::ZERO))));
                // Which of several terms has the top depends on their random parts.
                self.say(&[end.last, Some(ends.since), Some(end.term)]);
            }
            Call::Publish(index, count) => {
                let Some((first, mut previous)) = self.next.get(index).copied() else { return };
                let write = |n| Write {
                    channel: channel(LEASED[*index]),
                    seq: first.plus(n),
                    previous: previous.take(),
                    body: format!("{n}").into(),
                    origin: Origin::default(),
                };
                self.last_batch = (0..*count as u64).map(write).collect();
                self.next.insert(*index, (first.plus(*count as u64), None));
                let positions: Vec<_> = self.last_batch.iter().map(|write| Some(write.seq)).collect();
                self.say(&positions);
                self.publish(&self.claim.clone()).await;
            }
            Call::Repeat => self.publish(&self.claim.clone()).await,
            Call::Mark(index, back) => {
                let Some((first, _)) = self.next.get(index).copied() else { return };
                let end = self.store.range(&channel(LEASED[*index]), Select::Newest { limit: 1 }).await.unwrap().last;
                let previous = back.map(|back| if back == 2 { Seq::ZERO } else { end.unwrap_or_default().plus(back) });
                let marker = Marker { channel: channel(LEASED[*index]), seq: first.before(), previous };
                let result = self.store.mark(P, &self.claim, &[marker]).await;
                self.done(result);
            }
            Call::Append(events) => {
                let event = |(index, id): &(usize, Option<u8>)| {
                    append(APPS[*index], id.map(|id| id.to_string()).as_deref(), &format!("{id:?}"))
                };
                let events: Vec<_> = events.iter().map(event).collect();
                let given = self.store.append(P, &events, Seq::ZERO).await.unwrap();
                self.say(&given.into_iter().map(Some).collect::<Vec<_>>());
            }
            Call::Range(index, read, number) => self.range([LEASED, APPS].concat()[*index], *read, *number).await,
            Call::Fence(is_expected) => {
                let wrong = Fence { number: 0, ..self.claim.fence.clone() };
                let expected = if *is_expected { self.claim.fence.clone() } else { wrong };
                let next = fence(self.claim.fence.number + 1);
                let result = self.store.set_fence(P, "v", Some(&expected), &next, Seq::ZERO).await;
                if result.is_ok() {
                    self.claim.fence = next;
                }
                self.done(result);
            }
            Call::Intrude(has_fence) => {
                let mut claim = self.claim.clone();
                if *has_fence {
                    claim.identity = Identity("0".into());
                } else {
                    claim.fence.number += 1;
                }
                self.publish(&claim).await;
            }
            Call::See(is_above) => {
                self.sights += u64::from(*is_above);
                let above = if *is_above { self.sights << 31 } else { 0 };
                let ends = self.store.ends(P, &[], None, Seq::ZERO).await.unwrap();
                let ends = self.store.ends(P, &[], None, ends.top.plus(above)).await.unwrap();
                self.say(&[Some(ends.since)]);
            }
        }
    }

    async fn publish(&mut self, claim: &Claim) {
        let result = self.store.publish(P, claim, &self.last_batch).await;
        self.done(result);
    }

    async fn range(&mut self, name: &str, read: u8, number: u64) {
        let channel = channel(name);
        let first = self.store.range(&channel, Select::Newest { limit: 1 }).await.unwrap().first.unwrap_or_default();
        let select = match read {
            0 => Select::Above { after: first.plus(number), limit: 3 },
            1 => Select::Newest { limit: number as usize },
            _ => Select::At(first.plus(number)),
        };
        let range = self.store.range(&channel, select).await.unwrap();
        let _ = write!(self.trace, "proven {} ", range.proven);
        let told = range.told.unwrap();
        self.say(&[range.first, range.last, Some(range.since), Some(*told.start()), Some(*told.end())]);
        for entry in range.entries {
            let _ = write!(self.trace, "{:?} ", entry.body);
            self.say(&[Some(entry.seq), entry.previous]);
        }
    }

    fn done(&mut self, result: Result<(), StoreError>) {
        let _ = write!(self.trace, "{result:?}");
    }

    fn say(&mut self, positions: &[Option<Seq>]) {
        for position in positions {
            let name = self.name(*position);
            let _ = write!(self.trace, "{name} ");
        }
    }
}

#[test]
fn both_stores_give_the_same_answers() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(RedisServer::start()).unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let cases = std::cell::Cell::new(0);
    let result = runner.run(&prop::collection::vec(call(), 1..40), |calls| {
        cases.set(cases.get() + 1);
        let (memory, redis) = runtime.block_on(async {
            let prefix = format!("case{}", cases.get());
            let redis = RedisStore::connect(&server.url(), &prefix, 1).await.unwrap();
            (Player::play(&*MemoryStore::new(1), &calls).await, Player::play(&*redis, &calls).await)
        });
        prop_assert_eq!(memory, redis);
        Ok(())
    });
    result.unwrap();
}
