//! Random schedules of faults against real publishers and replicas, over the in-memory log and with the clock paused.
//!
//! Fail-overs that lose a tail, restarts that lose everything, clocks that disagree, requests and answers that are lost
//! or late, publishers that are paused or die, subscribers that move between replicas. After each schedule the
//! faults stop, one more event comes on each channel, and what every subscriber was told is held against what was
//! acknowledged: nothing is lost in silence, no position names two contents, no fenced publisher writes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::{
    Append, ChannelHead, Claim, Ends, Event, Feed, FeedStart, Fence, From, Hearing, Joined, Lease, Marker, MemoryStore,
    Notice, Partition, Publisher, PublisherConfig, PublisherHandle, Range, Replica, ReplicaConfig, Select, Sink,
    Snapshot, Store, StoreError, StoredCandle, Unavailable, Write, links,
};
use akis_model::{Body, Channel, Outcome, Seq};
use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const SCHEDULES: u64 = 150;
const STEPS: usize = 60;

/// Everything that was ever written, and what is wrong with it.
#[derive(Default)]
struct Truth {
    /// Content by channel and position, of every write that any log carried out.
    written: HashMap<Channel, BTreeMap<Seq, Bytes>>,
    /// When each event was acknowledged to its publisher, or first seen by a subscriber.
    known: HashMap<(Channel, Seq), u64>,
    /// Fences in the order in which they were set, and the one that wrote each event.
    fences: Vec<Fence>,
    writers: HashMap<(Channel, Seq), usize>,
    now: u64,
    wrong: Vec<String>,
}

impl Truth {
    fn write(&mut self, channel: &Channel, seq: Seq, body: &Bytes) {
        let before = self.written.entry(channel.clone()).or_default().insert(seq, body.clone());
        if before.is_some_and(|before| before != *body) {
            self.wrong.push(format!("{channel} {seq} names two contents"));
        }
    }

    fn know(&mut self, channel: &Channel, seq: Seq) {
        self.now += 1;
        let now = self.now;
        self.known.entry((channel.clone(), seq)).or_insert(now);
    }

    /// Events between two positions, both not included, that were known after `base`.
    fn hidden(&self, channel: &Channel, above: Seq, below: Seq, base: u64) -> Vec<Seq> {
        let known = self.known.iter();
        known
            .filter(|((c, seq), when)| c == channel && above < *seq && *seq < below && **when > base)
            .map(|((_, seq), _)| *seq)
            .collect()
    }
}

/// One process' way to the log, with faults on it.
struct Link {
    store: Arc<MemoryStore>,
    truth: Arc<Mutex<Truth>>,
    faults: Arc<Mutex<Faults>>,
}

struct Faults {
    rng: Rng,
    /// Of 100 calls so many go wrong.
    rate: u32,
    paused_until: Option<tokio::time::Instant>,
}

enum Fate {
    Fine,
    RequestLost,
    AnswerLost,
    Late(Duration),
}

fn lost<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable(Unavailable { kind: "timeout", message: "lost".into() }))
}

impl Link {
    async fn fate(&self) -> Fate {
        let paused = self.faults.lock().paused_until;
        if let Some(until) = paused {
            tokio::time::sleep_until(until).await;
        }
        let mut faults = self.faults.lock();
        if faults.rng.u32(..100) >= faults.rate {
            return Fate::Fine;
        }
        match faults.rng.u8(..3) {
            0 => Fate::RequestLost,
            1 => Fate::AnswerLost,
            _ => Fate::Late(Duration::from_millis(faults.rng.u64(..8000))),
        }
    }

    fn apart(&self) -> Self {
        Self { store: Arc::clone(&self.store), truth: Arc::clone(&self.truth), faults: Arc::clone(&self.faults) }
    }

    async fn fence(
        &self,
        partition: Partition,
        publisher: &str,
        expected: Option<&Fence>,
        fence: &Fence,
        seen: Seq,
    ) -> Result<(), StoreError> {
        self.store.set_fence(partition, publisher, expected, fence, seen).await?;
        self.truth.lock().fences.push(fence.clone());
        Ok(())
    }

    async fn write(&self, partition: Partition, claim: &Claim, writes: &[Write]) -> Result<(), StoreError> {
        // The store is asked what each channel's end is, because a position that is there already writes nothing.
        let mut new = Vec::new();
        for write in writes {
            if self
                .store
                .range(&write.channel, Select::Newest { limit: 1 })
                .await?
                .last
                .is_none_or(|last| write.seq > last)
            {
                new.push(write);
            }
        }
        self.store.publish(partition, claim, writes).await?;
        for write in new {
            let there = self.store.range(&write.channel, Select::Newest { limit: 1000 }).await?;
            let mut truth = self.truth.lock();
            truth.write(&write.channel, write.seq, &write.body);
            let writer = truth.fences.iter().position(|fence| *fence == claim.fence).unwrap_or(usize::MAX);
            truth.writers.insert((write.channel.clone(), write.seq), writer);
            let by = |seq| truth.writers.get(&(write.channel.clone(), seq)).copied().unwrap_or(0);
            if there.entries.iter().any(|entry| by(entry.seq) > writer) {
                truth.wrong.push(format!("{} {} was written by a fenced publisher", write.channel, write.seq));
            }
        }
        Ok(())
    }
}

/// Calls the store, unless fate has it otherwise. Late calls are carried out by a task of their own.
macro_rules! call {
    ($self:ident, |$link:ident| $call:expr) => {{
        match $self.fate().await {
            Fate::Fine => {
                let $link = $self;
                $call.await
            }
            Fate::RequestLost => lost(),
            Fate::AnswerLost => {
                let $link = $self;
                let _ = $call.await;
                lost()
            }
            Fate::Late(by) => {
                let $link = $self.apart();
                tokio::spawn(async move {
                    sleep(by).await;
                    let _ = $call.await;
                });
                lost()
            }
        }
    }};
}

#[async_trait]
impl Store for Link {
    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    async fn ends(
        &self,
        partition: Partition,
        channels: &[Channel],
        publisher: Option<&str>,
        seen: Seq,
    ) -> Result<Ends, StoreError> {
        let (channels, publisher) = (channels.to_vec(), publisher.map(str::to_owned));
        call!(self, |link| link.store.ends(partition, &channels, publisher.as_deref(), seen))
    }

    async fn set_fence(
        &self,
        partition: Partition,
        publisher: &str,
        expected: Option<&Fence>,
        fence: &Fence,
        seen: Seq,
    ) -> Result<(), StoreError> {
        let (publisher, expected, fence) = (publisher.to_owned(), expected.cloned(), fence.clone());
        call!(self, |link| link.fence(partition, &publisher, expected.as_ref(), &fence, seen))
    }

    async fn publish(&self, partition: Partition, claim: &Claim, writes: &[Write]) -> Result<(), StoreError> {
        let (claim, writes) = (claim.clone(), writes.to_vec());
        let acknowledged = writes.clone();
        let done: Result<(), StoreError> = call!(self, |link| link.write(partition, &claim, &writes));
        if done.is_ok() {
            let mut truth = self.truth.lock();
            acknowledged.iter().for_each(|write| truth.know(&write.channel, write.seq));
        }
        done
    }

    async fn mark(&self, partition: Partition, claim: &Claim, markers: &[Marker]) -> Result<(), StoreError> {
        let (claim, markers) = (claim.clone(), markers.to_vec());
        call!(self, |link| link.store.mark(partition, &claim, &markers))
    }

    async fn keep_candles(
        &self,
        partition: Partition,
        claim: &Claim,
        channel: &Channel,
        candles: &[StoredCandle],
    ) -> Result<(), StoreError> {
        let (claim, channel, candles) = (claim.clone(), channel.clone(), candles.to_vec());
        call!(self, |link| link.store.keep_candles(partition, &claim, &channel, &candles))
    }

    async fn append(&self, partition: Partition, events: &[Append], seen: Seq) -> Result<Vec<Seq>, StoreError> {
        let seqs = self.store.append(partition, events, seen).await?;
        let mut truth = self.truth.lock();
        for (event, seq) in events.iter().zip(&seqs) {
            truth.write(&event.channel, *seq, &event.body);
            truth.know(&event.channel, *seq);
        }
        Ok(seqs)
    }

    async fn range(&self, channel: &Channel, select: Select) -> Result<Range, StoreError> {
        let channel = channel.clone();
        call!(self, |link| link.store.range(&channel, select))
    }

    async fn candles(
        &self,
        channel: &Channel,
        before_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredCandle>, StoreError> {
        self.store.candles(channel, before_ms, limit).await
    }

    async fn channels(&self, prefix: &str) -> Result<Vec<ChannelHead>, StoreError> {
        self.store.channels(prefix).await
    }

    async fn take_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        let (publisher, owner) = (publisher.to_owned(), owner.to_owned());
        call!(self, |link| link.store.take_lease(&publisher, &owner, ttl, hearing))
    }

    async fn renew_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        let (publisher, owner) = (publisher.to_owned(), owner.to_owned());
        call!(self, |link| link.store.renew_lease(&publisher, &owner, ttl, hearing))
    }

    async fn release_lease(&self, publisher: &str, owner: &str) -> Result<(), StoreError> {
        self.store.release_lease(publisher, owner).await
    }

    async fn open_feed(
        &self,
        partition: Partition,
        replica: &str,
        generation: u64,
        start: FeedStart,
    ) -> Result<Box<dyn Feed>, StoreError> {
        match self.fate().await {
            Fate::Fine => self.store.open_feed(partition, replica, generation, start).await,
            Fate::RequestLost | Fate::AnswerLost | Fate::Late(_) => lost(),
        }
    }

    async fn announce_replica(&self, _: &str, _: Duration, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    async fn forget_replica(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// One subscription of one client, by the rules at [`Notice`].
struct Sub {
    position: Seq,
    epoch: u64,
    /// Losses known up to this moment are not this subscription's: they came before it, or it was told.
    base: u64,
    /// What it was told last of a loss.
    told: u64,
}

/// The subscribers of one replica: one client, which holds every channel.
struct Client {
    truth: Arc<Mutex<Truth>>,
    subs: Mutex<HashMap<Channel, Sub>>,
}

impl Client {
    fn activate(&self, channel: &Channel, from: From, joined: Joined) {
        let base = {
            let mut truth = self.truth.lock();
            truth.now += 1;
            truth.now
        };
        let mut subs = self.subs.lock();
        // A recovered subscription vouches for everything since its position; its base is that of the one before.
        let kept = subs.get(channel).map_or(0, |sub| sub.base);
        let told = subs.get(channel).map_or(0, |sub| sub.told);
        let vouches = joined.recovered && matches!(from, From::After(_));
        let base = if vouches { kept } else { base };
        let mut sub = Sub { position: joined.position, epoch: joined.epoch, base, told };
        for (i, event) in joined.events.iter().enumerate() {
            let was_told = sub.told;
            self.follow(&mut sub, channel, event.seq, event.previous, true);
            if vouches && i == 0 && sub.told != was_told {
                self.truth.lock().wrong.push(format!("{channel}: recovered, and then told of a gap"));
            }
        }
        subs.insert(channel.clone(), sub);
    }

    fn follow(&self, sub: &mut Sub, channel: &Channel, seq: Seq, previous: Option<Seq>, is_event: bool) {
        if seq <= sub.position {
            return;
        }
        let mut truth = self.truth.lock();
        if links(sub.position, seq, previous) && (is_event || previous.is_some()) {
            let end = if is_event { seq } else { seq.next() };
            let hidden = truth.hidden(channel, sub.position, end, sub.base);
            if !hidden.is_empty() {
                truth.wrong.push(format!("{channel}: {hidden:?} hidden between {} and {seq}", sub.position));
            }
        } else {
            truth.now += 1;
            sub.told = truth.now;
        }
        if is_event {
            truth.know(channel, seq);
        }
        sub.position = seq;
    }

    fn told(&self, sub: &mut Sub) {
        let mut truth = self.truth.lock();
        truth.now += 1;
        sub.told = truth.now;
        sub.base = truth.now;
    }
}

impl Sink for Client {
    fn deliver(&self, _partition: Partition, notices: &[Notice]) {
        let mut subs = self.subs.lock();
        for notice in notices {
            match notice {
                Notice::Event(event) => {
                    if let Some(sub) = subs.get_mut(&event.channel) {
                        self.follow(sub, &event.channel, event.seq, event.previous, true);
                    }
                }
                Notice::Marker { channel, seq, previous } => {
                    if let Some(sub) = subs.get_mut(channel) {
                        self.follow(sub, channel, *seq, *previous, false);
                    }
                }
                Notice::Unproven { channel, since } => {
                    if let Some(sub) = subs.get_mut(channel) {
                        if sub.position < since.before() {
                            sub.position = since.before();
                        }
                        self.told(sub);
                    }
                }
                Notice::Rewound { channel, seq, epoch } => {
                    if let Some(sub) = subs.get_mut(channel)
                        && sub.epoch < *epoch
                        && sub.position >= *seq
                    {
                        sub.position = seq.before();
                        self.told(sub);
                    }
                }
                Notice::Malformed { channel, seq } => panic!("{channel} {seq} is malformed"),
                // Nothing here is a venue's price.
                Notice::Staleness { .. } => {}
            }
        }
    }
}

struct Process<T> {
    handle: T,
    running: JoinHandle<()>,
    faults: Arc<Mutex<Faults>>,
}

type Gateway = (Arc<Replica>, Arc<Client>, Arc<Mutex<Faults>>);

struct World {
    rng: Rng,
    store: Arc<MemoryStore>,
    truth: Arc<Mutex<Truth>>,
    leased: Vec<Channel>,
    app: Channel,
    publishers: Vec<Process<PublisherHandle>>,
    replicas: Vec<Gateway>,
    snapshot: Snapshot,
    contents: i64,
    stop: CancellationToken,
    rate: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        fastrand::seed(seed);
        let store = MemoryStore::new(1);
        let name = |name: &str| Channel::parse(name).unwrap();
        let mut world = Self {
            rng: Rng::with_seed(seed),
            snapshot: store.snapshot(),
            store,
            truth: Arc::default(),
            leased: vec![name("v:A:trades"), name("v:B:trades")],
            app: name("app:x"),
            publishers: Vec::new(),
            replicas: Vec::new(),
            contents: 0,
            stop: CancellationToken::new(),
            rate: 4,
        };
        for _ in 0..2 {
            let publisher = world.start_publisher();
            world.publishers.push(publisher);
        }
        for _ in 0..2 {
            let (link, faults) = world.link();
            let client = Arc::new(Client { truth: Arc::clone(&world.truth), subs: Mutex::default() });
            let sink: Arc<dyn Sink> = Arc::<Client>::clone(&client);
            let replica = Replica::start(link, ReplicaConfig::new("g"), sink, world.stop.clone());
            world.replicas.push((replica, client, faults));
        }
        world
    }

    fn link(&mut self) -> (Arc<dyn Store>, Arc<Mutex<Faults>>) {
        let rng = Rng::with_seed(self.rng.u64(..));
        let faults = Arc::new(Mutex::new(Faults { rng, rate: self.rate, paused_until: None }));
        let (store, truth) = (Arc::clone(&self.store), Arc::clone(&self.truth));
        (Arc::new(Link { store, truth, faults: Arc::clone(&faults) }), faults)
    }

    fn start_publisher(&mut self) -> Process<PublisherHandle> {
        let (link, faults) = self.link();
        let (handle, running) = Publisher::start(link, PublisherConfig::new("v"), self.stop.clone());
        self.leased.iter().for_each(|channel| handle.declare(channel));
        Process { handle, running, faults }
    }

    fn body(&mut self, channel: &Channel) -> Body {
        self.contents += 1;
        Body::render(self.contents, "e", channel, Outcome::Ok, &json!({})).unwrap()
    }

    fn offer(&mut self, publisher: usize) {
        let channel = self.leased[self.rng.usize(..self.leased.len())].clone();
        let body = self.body(&channel);
        self.publishers[publisher].handle.offer(Event { channel, body, missing_before: 0 });
    }

    async fn append(&mut self) {
        let (channel, body) = (self.app.clone(), self.body(&self.app.clone()));
        let event = Append { channel, id: None, body: body.text().clone(), trace: None };
        let replica = self.rng.usize(..self.replicas.len());
        let _ = self.replicas[replica].0.append(vec![event]).await;
    }

    async fn subscribe(&mut self, replica: usize, from_other: bool) {
        let channels: Vec<Channel> = self.leased.iter().cloned().chain([self.app.clone()]).collect();
        let (joined_at, client) = (Arc::clone(&self.replicas[replica].0), Arc::clone(&self.replicas[replica].1));
        for channel in channels {
            if from_other {
                // The client moves over from the other replica with what it has.
                let there = self.replicas[1 - replica].1.subs.lock().remove(&channel);
                if let Some(sub) = there {
                    client.subs.lock().insert(channel.clone(), sub);
                }
            }
            let from = match client.subs.lock().get(&channel) {
                Some(sub) => From::After(sub.position),
                None => From::Live { snapshot: true },
            };
            // While it joins, the client ignores what is live: the subscription is taken out and put back by `activate`.
            let before = client.subs.lock().remove(&channel);
            let (activated, name) = (Arc::clone(&client), channel.clone());
            let kept = before.as_ref().map(|sub| (sub.position, sub.epoch, sub.base, sub.told));
            let joined = joined_at
                .join(&channel, from, move |joined| {
                    if let Some((position, epoch, base, told)) = kept {
                        activated.subs.lock().insert(name.clone(), Sub { position, epoch, base, told });
                    }
                    activated.activate(&name, from, joined);
                })
                .await;
            if joined.is_err()
                && let Some(before) = before
            {
                // It keeps its position and tries again later; until then it hears nothing.
                self.replicas[1 - replica].1.subs.lock().entry(channel).or_insert(before);
            }
        }
    }

    fn fail_over(&mut self) {
        let offset = [0, 0, -150_000_000, 150_000_000, -2_000_000][self.rng.usize(..5)];
        let data = match self.rng.u8(..5) {
            0 => Some(self.store.snapshot()),
            1..4 => Some(self.snapshot.clone()),
            _ => None,
        };
        self.store.fail_over(data, offset);
        self.snapshot = self.store.snapshot();
    }

    async fn step(&mut self) {
        let publisher = self.rng.usize(..2);
        match self.rng.u32(..100) {
            0..30 => self.offer(publisher),
            30..38 => self.append().await,
            38..70 => {
                let ms = [5, 20, 100, 700, 3000, 8000][self.rng.usize(..6)];
                sleep(Duration::from_millis(ms)).await;
            }
            70..78 => {
                let (replica, moved) = (self.rng.usize(..2), self.rng.bool());
                self.subscribe(replica, moved).await;
            }
            78..84 => self.snapshot = self.store.snapshot(),
            84..91 => self.fail_over(),
            91..95 => {
                let until = tokio::time::Instant::now() + Duration::from_millis(self.rng.u64(..9000));
                self.publishers[publisher].faults.lock().paused_until = Some(until);
            }
            _ => {
                self.publishers[publisher].running.abort();
                self.publishers[publisher] = self.start_publisher();
            }
        }
    }

    async fn settle(&mut self) {
        self.rate = 0;
        let faults = self.publishers.iter().map(|p| &p.faults).chain(self.replicas.iter().map(|r| &r.2));
        for faults in faults {
            let mut faults = faults.lock();
            faults.rate = 0;
            faults.paused_until = None;
        }
        sleep(Duration::from_secs(60)).await;
    }

    /// Every subscriber has what is there, or was told that it is not.
    fn check(&mut self, when: &str) {
        for (_, client, _) in &self.replicas {
            for (channel, sub) in client.subs.lock().iter() {
                let mut truth = self.truth.lock();
                let behind = truth.hidden(channel, sub.position, Seq::new(1 << 52).unwrap(), sub.base.max(sub.told));
                if !behind.is_empty() {
                    let wrong = format!("{when}: {channel} stays at {} and is never told of {behind:?}", sub.position);
                    truth.wrong.push(wrong);
                }
            }
        }
    }
}

async fn run(seed: u64) -> Vec<String> {
    let mut world = World::new(seed);
    sleep(Duration::from_secs(1)).await;
    world.subscribe(0, false).await;
    world.subscribe(1, false).await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.settle().await;
    world.check("idle");
    for publisher in 0..2 {
        for _ in 0..4 {
            world.offer(publisher);
        }
    }
    world.append().await;
    world.settle().await;
    world.check("after one more event");
    world.stop.cancel();
    let truth = world.truth.lock();
    truth.wrong.clone()
}

#[test]
fn nothing_is_lost_in_silence_under_any_schedule() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("AKIS_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AKIS_MODEL_SCHEDULES").unwrap_or(SCHEDULES),
    };
    let mut failed = Vec::new();
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let wrong = runtime.block_on(run(seed));
        if !wrong.is_empty() {
            failed.push(format!("AKIS_MODEL_SEED={seed}: {wrong:#?}"));
        }
    }
    assert!(failed.is_empty(), "{} schedules went wrong:\n{}", failed.len(), failed[..failed.len().min(3)].join("\n"));
}
