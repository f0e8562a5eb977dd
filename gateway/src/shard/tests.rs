//! A shard whose clock is moved by hand, and a client at the other end of a real socket.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::AtomicU64;

use akis_eventlog::{Append, MemoryStore, Partition, Replica, ReplicaConfig, Sink, Store};
use akis_model::{Body, Channel, Outcome, Seq};
use akis_service::config::{AuthConfig, GatewayConfig, Limits, Secret};
use akis_testkit::wait_until;
use bytes::Bytes;
use jsonwebtoken::{EncodingKey, Header, encode};
use mio::Waker;
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::auth::Authenticator;
use crate::context::Context;
use crate::hub::Hub;
use crate::listing::Listing;
use crate::metrics::Metrics;
use crate::server::Seat;
use crate::session::Surroundings;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// Longer than anything takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// One shard, its log, and one client.
struct Scene {
    shard: Shard,
    events: Events,
    now: Now,
    store: Arc<MemoryStore>,
    registry: prometheus::Registry,
    end: CancellationToken,
    client: TcpStream,
    /// What the client has read and not been asked for.
    unread: Vec<u8>,
    /// How often it had been written to when something was last expected.
    written: u64,
}

/// What the client is sent.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Envelope(Value),
    Ping,
    Close(u16),
}

impl Scene {
    /// A client that has been welcomed, with a token for `ttl_s` seconds.
    async fn begin(ttl_s: i64, configure: impl FnOnce(&mut GatewayConfig)) -> Self {
        let store = MemoryStore::new(1);
        // Unless a test is about gathering, what there is to say is said at once, and nothing but that.
        let (coalesce, heartbeat) = (Duration::ZERO, 600 * S);
        let mut config = GatewayConfig { coalesce, heartbeat, ..GatewayConfig::default() };
        configure(&mut config);
        let registry = prometheus::Registry::new();
        let auth = AuthConfig { secret: Some(Secret::new(SECRET)), ..AuthConfig::default() };
        let auth = Authenticator::new(&auth, &Limits::default()).unwrap();
        let metrics = Metrics::register(&registry).unwrap();
        let surroundings = Arc::new(Surroundings { config, auth, metrics });
        let poll = Poll::new().unwrap();
        let inbox = Inbox::new(Waker::new(poll.registry(), Token(usize::MAX)).unwrap());
        let hub = Hub::new(store.partitions(), vec![Arc::clone(&inbox)], Arc::clone(&surroundings));
        let end = CancellationToken::new();
        let (log, sink) = (Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&hub) as Arc<dyn Sink>);
        let replica = Replica::start(log, ReplicaConfig::new("r"), sink, end.clone());
        wait_until(SOON, "the replica is warm", async || replica.is_warm()).await.unwrap();
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let listing = Listing::new(Arc::clone(&replica));
        let next_id = AtomicU64::new(1);
        let context = Arc::new(Context { surroundings, replica, listing, hub, drain, stop, next_id });
        let desk = Desk::new(0, context, inbox, Handle::current(), TaskTracker::new());
        let shard = Shard::new(poll, desk, Arc::new(AtomicUsize::new(1)));
        let (client, stream) = connect();
        let events = Events::with_capacity(EVENTS);
        let mut scene =
            Self { shard, events, now: Now::read(), store, registry, end, client, unread: Vec::new(), written: 0 };
        scene.adopt(stream, ttl_s);
        let first: &[&str] = if ttl_s > 60 { &["welcome"] } else { &["welcome", "token_expiring"] };
        scene.expect(first).await;
        scene
    }

    fn adopt(&mut self, stream: TcpStream, ttl_s: i64) {
        // To the second, so that a test knows to the millisecond when it expires.
        self.now.unix_ms -= self.now.unix_ms % 1000;
        let claims = json!({ "sub": "alice", "exp": self.now.unix_ms / 1000 + ttl_s, "channels": ["*"] });
        let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
        let grant = self.shard.desk.context.surroundings.auth.check(&token, self.now.unix_ms).unwrap();
        let (greeting, already_read, seat) = (Vec::new(), Bytes::new(), Seat::for_tests());
        let (takes_batches, takes_compressed) = (false, false);
        let newcomer = Newcomer { stream, greeting, already_read, grant, takes_batches, takes_compressed, seat };
        self.shard.desk.inbox.send(Message::Adopt(Box::new(newcomer)));
        self.turn();
    }

    /// Has a client ask for all that a channel of an application has, `count` events of 16 KiB, and read none of it.
    async fn replay_unread(&mut self, name: &str, count: usize) {
        self.write(name, count, 16 << 10).await;
        // So that the kernel takes what it takes at once.
        SockRef::from(&self.client).set_recv_buffer_size(16 << 10).unwrap();
        if let Some((_, conn)) = self.shard.conns.iter_mut().next_back() {
            SockRef::from(&*conn.stream()).set_send_buffer_size(16 << 10).unwrap();
        }
        self.send(&json!({ "type": "subscribe", "channels": [{ "channel": name, "after": 0 }] }).to_string());
        let blocked = async || {
            self.turn();
            self.shard.conns.iter().next_back().is_none_or(|(_, conn)| conn.state() == "blocked")
        };
        wait_until(SOON, "the socket takes nothing more", blocked).await.unwrap();
    }

    /// What the loop does once, at the moment that the clock shows.
    fn turn(&mut self) {
        self.shard.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        assert!(self.shard.turn(&self.events, self.now));
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += time.as_millis() as i64;
        self.turn();
    }

    fn send(&mut self, message: &str) {
        let mut frame = vec![0x81, 0x80 | message.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(message.as_bytes());
        std::io::Write::write_all(&mut self.client, &frame).unwrap();
    }

    /// Subscribes to a channel and waits for the answer. The clock stands meanwhile.
    async fn subscribe(&mut self, entry: Value) {
        self.send(&json!({ "type": "subscribe", "channels": [entry] }).to_string());
        self.expect(&["subscribed"]).await;
    }

    /// Appends events of so many bytes.
    async fn write(&self, name: &str, count: usize, bytes: usize) {
        let channel = Channel::parse(name).unwrap();
        let body = Body::render(1, "e", &channel, Outcome::Ok, &json!({ "pad": "x".repeat(bytes) })).unwrap();
        let event = Append { channel, id: None, body: body.text().clone(), trace: None };
        self.store.append(Partition(0), &vec![event; count], Seq::ZERO).await.unwrap();
    }

    /// Appends events of so many bytes, and waits until the shard has taken them.
    async fn append(&mut self, name: &str, count: usize, bytes: usize) {
        let before = self.seen();
        self.write(name, count, bytes).await;
        let came = async || {
            self.turn();
            self.seen() >= before + count as u64
        };
        wait_until(SOON, "the events have come", came).await.unwrap();
        self.turn();
    }

    fn seen(&self) -> u64 {
        self.shard.desk.context.surroundings.metrics.events.get()
    }

    /// What has been written to the client by now.
    fn told(&mut self) -> Vec<Told> {
        let mut chunk = vec![0; 64 << 10];
        // A closed socket ends the loop as one that has no more does.
        while let Ok(read @ 1..) = self.client.read(&mut chunk) {
            self.unread.extend_from_slice(&chunk[..read]);
        }
        let mut told = Vec::new();
        while let Some((message, length)) = first(&self.unread) {
            self.unread.drain(..length);
            told.push(message);
        }
        told
    }

    /// The events, pings and codes that the client has been told by now.
    fn words(&mut self) -> Vec<String> {
        let told = self.told().into_iter().map(|told| match told {
            Told::Envelope(envelope) => envelope["event"].as_str().unwrap().to_owned(),
            Told::Ping => "a ping".to_owned(),
            Told::Close(code) => code.to_string(),
        });
        told.collect()
    }

    /// Waits until the client has been told as many things, and checks that they are these. The clock stands meanwhile.
    async fn expect(&mut self, expected: &[&str]) {
        let mut words = Vec::new();
        let came = async || {
            self.turn();
            words.extend(self.words());
            words.len() >= expected.len()
        };
        let result = wait_until(SOON, "everything is told", came).await;
        assert_eq!(words, expected, "{result:?}");
        self.written = self.writes();
    }

    /// Nothing has been written since the last time that something was expected.
    #[track_caller]
    fn expect_nothing(&self) {
        assert_eq!(self.writes(), self.written, "it is too early for that");
    }

    fn writes(&self) -> u64 {
        self.shard.desk.context.surroundings.metrics.writes.get()
    }

    fn closes(&self, code: &str) -> u64 {
        let families = self.registry.gather();
        let closes = families.iter().filter(|family| family.name() == "akis_gateway_closes_total");
        let of_code = closes.flat_map(|family| family.get_metric()).filter(|m| m.get_label()[0].value() == code);
        of_code.map(|metric| metric.get_counter().get_value() as u64).sum()
    }
}

/// Both ends of a connection, the client's first.
fn connect() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    client.set_nonblocking(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    (client, stream)
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// The first frame, and how long it is.
fn first(bytes: &[u8]) -> Option<(Told, usize)> {
    let (head, len) = match bytes {
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [_, len @ 0..126, ..] => (2, usize::from(*len)),
        _ => return None,
    };
    let payload = bytes.get(head..head + len)?;
    let told = match bytes[0] {
        0x81 => Told::Envelope(serde_json::from_slice(payload).unwrap()),
        0x88 => Told::Close(u16::from_be_bytes([payload[0], payload[1]])),
        0x89 => Told::Ping,
        other => panic!("unexpected frame {other:x}"),
    };
    Some((told, head + len))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_over_at_its_end_and_not_before() {
    let mut scene = Scene::begin(3600, |config| config.drain = 8 * S).await;
    scene.subscribe(json!("a:b")).await;
    scene.shard.desk.inbox.send(Message::Drain);
    scene.pass(10 * MS);
    scene.expect(&["draining"]).await;
    scene.pass(8 * S - MS);
    scene.expect_nothing();
    scene.append("a:b", 1, 10).await;
    scene.pass(MS);
    scene.expect(&["term", "e", "1001"]).await; // What waits is still said.
    assert_eq!(scene.closes("1001"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_connection_is_written_at_once_and_one_just_written_gathers() {
    let mut scene = Scene::begin(3600, |config| (config.coalesce, config.coalesce_max) = (50 * MS, 50 * MS)).await;
    scene.pass(S);
    scene.subscribe(json!("a:b")).await;
    scene.pass(S);
    scene.append("a:b", 1, 10).await;
    scene.expect(&["term", "e"]).await; // Nothing was written for a while.
    scene.append("a:b", 1, 10).await;
    scene.pass(30 * MS);
    scene.append("a:b", 2, 10).await;
    scene.pass(19 * MS);
    scene.expect_nothing();
    scene.pass(MS);
    scene.expect(&["e", "e", "e"]).await; // Everything that came meanwhile, together.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_to_the_second_and_the_socket_ten_seconds_later() {
    let mut scene = Scene::begin(16, |_| {}).await;
    scene.subscribe(json!("a:b")).await;
    scene.pass(S - MS);
    scene.expect_nothing();
    scene.pass(MS);
    scene.expect(&["token_expiring"]).await; // 15 s before.
    scene.pass(9 * S);
    scene.expect_nothing();
    scene.send(r#"{"type":"ping"}"#);
    scene.expect(&["pong"]).await;
    scene.pass(6 * S - MS);
    scene.expect_nothing();
    scene.pass(MS);
    scene.expect(&["unsubscribed"]).await;
    scene.pass(10 * S - MS);
    scene.expect(&["a ping"]).await;
    scene.pass(MS);
    scene.expect(&["4401"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_pinged_and_closed() {
    let mut scene = Scene::begin(3600, |_| {}).await;
    scene.pass(15 * S - 50 * MS);
    scene.expect_nothing();
    scene.pass(50 * MS);
    scene.expect(&["a ping"]).await;
    scene.pass(5 * S - 50 * MS);
    scene.expect_nothing();
    scene.pass(50 * MS);
    scene.expect(&["4408"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_gives_one_event_each_time_and_the_last_one_no_later() {
    let mut scene = Scene::begin(3600, |_| {}).await;
    scene.subscribe(json!({ "channel": "a:b:ticker", "interval": 250 })).await;
    scene.pass(S);
    scene.append("a:b:ticker", 1, 10).await;
    scene.expect(&["e"]).await;
    for _ in 0..10 {
        scene.append("a:b:ticker", 1, 10).await;
        scene.pass(20 * MS);
    }
    scene.expect_nothing();
    scene.pass(49 * MS);
    scene.expect_nothing();
    scene.pass(MS);
    scene.expect(&["e"]).await; // The newest, for all of them.
    scene.pass(S);
    scene.expect_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_takes_nothing_is_given_up_after_ten_seconds() {
    let mut scene = Scene::begin(3600, |_| {}).await;
    scene.subscribe(json!("a:b:trades")).await;
    while scene.shard.conns.iter().all(|(_, conn)| conn.state() == "open") {
        scene.append("a:b:trades", 20, 20_000).await;
        scene.pass(50 * MS);
    }
    assert!(scene.shard.desk.waiting > 0);
    // The kernel may still take a little, and every byte counts as a sign of life.
    let (began, mut before) = (scene.now.instant, 0);
    while scene.closes("4413") == 0 {
        assert!(scene.now.instant - began < 60 * S, "it is never given up");
        before = scene.now.instant.duration_since(began).as_secs();
        scene.pass(S);
    }
    assert!(before >= 8, "given up after {before} s");
    // The code is said when the socket takes it: what was half written comes before.
    let mut last = None;
    let read = async || {
        scene.turn();
        last = scene.told().pop().or(last.take());
        last == Some(Told::Close(4413))
    };
    wait_until(SOON, "the code arrives", read).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn long_replays_count_as_waiting_and_who_reads_none_of_it_gives_way_first() {
    let total = 10 << 20;
    let mut scene = Scene::begin(3600, |config| config.limits.queue_bytes_total = total).await;
    scene.replay_unread("job:1", 440).await;
    assert!((6 << 20..total as i64).contains(&scene.shard.desk.waiting), "{}", scene.shard.desk.waiting);
    let idle = scene.shard.conns.iter().next().unwrap().1.key;
    let stops = async || {
        scene.pass(100 * MS);
        find(&mut scene.shard.conns, idle).unwrap().is_idle(scene.now)
    };
    wait_until(SOON, "the kernel takes nothing more", stops).await.unwrap();
    assert_eq!(scene.closes("4413"), 0, "one alone is not too much");
    let (client, stream) = connect();
    let _idle_client = std::mem::replace(&mut scene.client, client);
    scene.adopt(stream, 3600);
    // More waits for this one, and it has only just come.
    scene.replay_unread("job:2", 600).await;
    assert_eq!(scene.closes("4413"), 1);
    assert!(find(&mut scene.shard.conns, idle).is_none());
    assert!((6 << 20..total as i64).contains(&scene.shard.desk.waiting), "{}", scene.shard.desk.waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_a_connection_that_leaves_is_counted_no_longer() {
    let mut scene = Scene::begin(3600, |_| {}).await;
    scene.replay_unread("job:1", 300).await;
    assert!(scene.shard.desk.waiting > 3 << 20, "{}", scene.shard.desk.waiting);
    scene.shard.end(0, End::Close(CloseCode::Slow), scene.now);
    scene.turn();
    assert!(scene.shard.conns.contains(0), "what was half written still leaves");
    assert!(scene.shard.desk.waiting <= 128 << 10, "its queues are gone: {}", scene.shard.desk.waiting);
    let mut last = None;
    let read = async || {
        scene.turn();
        last = scene.told().pop().or(last.take());
        last == Some(Told::Close(4413))
    };
    wait_until(SOON, "the code arrives", read).await.unwrap();
    scene.turn();
    assert!(scene.shard.conns.contains(0), "the client's end is waited for");
    assert_eq!(scene.shard.desk.waiting, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_way_who_would_make_no_room() {
    let total = 1 << 20;
    let mut scene = Scene::begin(3600, |config| config.limits.queue_bytes_total = total).await;
    // As if so much still waited for connections that leave.
    scene.shard.desk.tally.queued_change += 2 * total as i64;
    scene.turn();
    assert!(scene.shard.desk.waiting > total as i64);
    assert_eq!(scene.closes("4413"), 0, "nothing waits for the only client that stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_and_has_to_give_way_is_told_so() {
    let mut scene = Scene::begin(3600, |config| config.limits.queue_bytes_total = 1 << 20).await;
    scene.write("job:1", 150, 16 << 10).await;
    scene.send(&json!({ "type": "subscribe", "channels": [{ "channel": "job:1", "after": 0 }] }).to_string());
    let mut told = Vec::new();
    let is_closed = async || {
        scene.turn();
        told.extend(scene.words());
        told.last().is_some_and(|last| last == "4413")
    };
    wait_until(SOON, "the code arrives", is_closed).await.unwrap();
    assert_eq!((told[0].as_str(), scene.closes("4413")), ("subscribed", 1));
    assert_eq!(scene.shard.desk.waiting, 0);
}
