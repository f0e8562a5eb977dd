mod lane;
mod life;
mod patterns;
mod replays;
mod revoked;
mod terms;

use std::collections::{HashMap, VecDeque};

use akis_eventlog::LogEvent;
use akis_model::{Body, Outcome as EventOutcome, Seq};
use akis_service::config::{AuthConfig, Limits, Secret};
use jsonwebtoken::{EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::solo::Solo;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const START_MS: i64 = 1_700_000_000_000;

/// A session with a clock that only tests move, and joins that they answer.
struct Bench {
    solo: Solo,
    now: Now,
    joins: VecDeque<(Channel, From, u64)>,
    /// Requests for the channels that there are.
    lists: VecDeque<u64>,
    left: Vec<Channel>,
}

fn seq(n: u64) -> Seq {
    Seq::new(n).unwrap()
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn token(sub: &str, channels: &[&str], ttl_s: i64) -> String {
    let claims = json!({ "sub": sub, "exp": START_MS / 1000 + ttl_s, "channels": channels });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn event(name: &str, n: u64, previous: Option<u64>) -> Arc<LogEvent> {
    let channel = channel(name);
    let body = Body::render(1, "price_tick", &channel, EventOutcome::Ok, &json!({ "n": n })).unwrap();
    Arc::new(LogEvent {
        seq: seq(n),
        previous: previous.map(seq),
        ts_ms: 1,
        envelope: body.envelope(seq(n)).into(),
        channel,
        trace: None,
    })
}

/// A join that gives `events` and goes on live behind the last of them.
fn joined(position: u64, events: Vec<Arc<LogEvent>>) -> Joined {
    Joined {
        position: seq(position),
        recovered: false,
        oldest: Some(seq(1)),
        replayed: events.len(),
        events,
        live: true,
        epoch: 0,
    }
}

impl Bench {
    fn new(limits: Limits, ttl_s: i64) -> Self {
        Self::with(GatewayConfig { limits, patterns: true, ..GatewayConfig::default() }, ttl_s)
    }

    fn with(config: GatewayConfig, ttl_s: i64) -> Self {
        let config = GatewayConfig { replica: "r".to_owned(), ..config };
        let auth_config = AuthConfig { secret: Some(Secret::new(SECRET)), ..AuthConfig::default() };
        let auth = Authenticator::new(&auth_config, &config.limits).unwrap();
        let grant = auth.check(&token("alice", &["*"], ttl_s), START_MS).unwrap();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let now = Now { instant: Instant::now(), unix_ms: START_MS };
        let session = Session::new(Arc::new(Surroundings { config, auth, metrics }), grant, "r-1", now);
        let (joins, lists) = (VecDeque::new(), VecDeque::new());
        let mut bench = Self { solo: Solo::new(session), now, joins, lists, left: Vec::new() };
        assert_eq!(bench.take().remove(0)["event"], "welcome");
        bench
    }

    fn usual() -> Self {
        Self::new(Limits::default(), 3600)
    }

    fn pass(&mut self, time: Duration) -> Vec<Value> {
        self.now.instant += time;
        self.now.unix_ms += time.as_millis() as i64;
        let now = self.now;
        self.solo.on_tick(now, || wire::heartbeat(Duration::from_millis(3), now.unix_ms));
        self.take()
    }

    fn say(&mut self, request: &Value) -> Vec<Value> {
        self.solo.session.on_text(&request.to_string(), self.now);
        self.take()
    }

    fn take(&mut self) -> Vec<Value> {
        self.take_bytes(usize::MAX)
    }

    fn take_bytes(&mut self, max_bytes: usize) -> Vec<Value> {
        let mut out = Vec::new();
        self.solo.session.take(max_bytes, &mut out, self.now);
        for action in self.solo.actions() {
            match action {
                Action::Channel { channel, kind: ActionKind::Join { from, token }, .. } => {
                    self.joins.push_back((channel, from, token));
                }
                Action::Channel { kind: ActionKind::Pace { .. }, .. } => {}
                Action::Channel { channel, kind: ActionKind::Leave, .. } => self.left.push(channel),
                Action::List { token } => self.lists.push_back(token),
            }
        }
        out.iter().map(|envelope| serde_json::from_slice(envelope).unwrap()).collect()
    }

    fn answer(&mut self, result: Result<Joined, JoinError>) -> From {
        let (channel, from, token) = self.joins.pop_front().expect("a join");
        self.solo.session.on_joined(&channel, token, result, self.now);
        from
    }

    /// Subscribes, at position `position`.
    fn subscribe(&mut self, name: &str, position: u64) {
        self.say(&json!({ "type": "subscribe", "channels": [name] }));
        self.answer(Ok(joined(position, Vec::new())));
        let told = self.take();
        assert_eq!(told[0]["event"], "subscribed", "{told:?}");
        assert_eq!(told[0]["seq"], position);
    }

    fn publish(&mut self, name: &str, n: u64) {
        self.notice(name, &Notice::Event(event(name, n, None)));
    }

    fn notice(&mut self, name: &str, notice: &Notice) {
        self.solo.on_notice(&channel(name), notice, self.now);
    }
}

fn words(told: &[Value]) -> Vec<(String, u64)> {
    told.iter().map(|e| (e["event"].as_str().unwrap().to_owned(), e["seq"].as_u64().unwrap())).collect()
}

fn expect(told: &[Value], expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected.iter().map(|(word, seq)| ((*word).to_owned(), *seq)).collect();
    assert_eq!(words(told), expected, "{told:?}");
}

#[test]
fn answers_come_in_the_order_of_the_request() {
    let mut bench = Bench::usual();
    let request = json!({ "type": "subscribe", "id": 7, "channels": ["a:1", "nope", "a:2", "a:3"] });
    assert_eq!(bench.say(&request), Vec::<Value>::new());
    let [first, second, third] = [0, 1, 2].map(|i| bench.joins[i].clone());
    for (which, at) in [(&third, 30), (&second, 20)] {
        bench.solo.session.on_joined(
            &which.0,
            which.2,
            Ok(joined(at, vec![event(which.0.as_str(), at + 1, None)])),
            bench.now,
        );
    }
    bench.publish("a:3", 32);
    expect(&bench.take(), &[]);
    bench.solo.session.on_joined(&first.0, first.2, Ok(joined(10, Vec::new())), bench.now);
    let told = bench.take();
    expect(
        &told,
        &[
            ("subscribed", 10),
            ("subscribe_error", 0),
            ("subscribed", 20),
            ("subscribed", 30),
            ("price_tick", 21),
            ("price_tick", 31),
            ("price_tick", 32),
        ],
    );
    assert_eq!(told[1]["errorCode"], "BAD_CHANNEL");
    assert!(told[..4].iter().all(|answer| answer["data"]["id"] == 7));
}

#[test]
fn a_snapshot_and_live_events_follow_subscribed() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": ["a:b:ticker"] }));
    assert_eq!(bench.joins[0].1, From::Live { snapshot: true });
    bench.publish("a:b:ticker", 6);
    bench.answer(Ok(joined(5, vec![event("a:b:ticker", 6, None)])));
    bench.publish("a:b:ticker", 6);
    bench.publish("a:b:ticker", 7);
    let told = bench.take();
    expect(&told, &[("subscribed", 5), ("price_tick", 6), ("price_tick", 7)]);
    assert_eq!(told[0]["data"], json!({ "replayed": 1, "interval": 0, "oldest": 1 }));
}

#[test]
fn what_does_not_follow_is_told_as_term_or_gap() {
    let mut bench = Bench::usual();
    bench.subscribe("a:b", 5);
    bench.publish("a:b", 8);
    let jump = 3 * TERM;
    bench.notice("a:b", &Notice::Event(event("a:b", jump, Some(8))));
    bench.notice("a:b", &Notice::Marker { channel: channel("a:b"), seq: seq(2 * jump), previous: Some(seq(jump)) });
    bench.publish("a:b", 2 * jump + 1);
    bench.publish("a:b", 4 * jump);
    bench.notice("a:b", &Notice::Malformed { channel: channel("a:b"), seq: seq(4 * jump + 1) });
    bench.notice("a:b", &Notice::Unproven { channel: channel("a:b"), since: seq(5 * jump) });
    let told = bench.take();
    expect(
        &told,
        &[
            ("gap", 7),
            ("price_tick", 8),
            ("term", jump - 1),
            ("price_tick", jump),
            ("term", 2 * jump),
            ("price_tick", 2 * jump + 1),
            ("gap", 4 * jump - 1),
            ("price_tick", 4 * jump),
            ("gap", 4 * jump + 1),
            ("gap", 5 * jump - 1),
        ],
    );
    assert_eq!(told[0]["data"], json!({ "from": 6, "to": 7, "reason": "lost" }));
    assert_eq!(told[2]["data"], json!({ "previous": 8 }));
    assert_eq!(told[6]["data"]["reason"], "unproven");
    assert_eq!(told[8]["errorCode"], "INTERNAL_ERROR");
    assert_eq!(told[9]["data"], json!({ "from": 4 * jump + 2, "to": 5 * jump - 1, "reason": "unproven" }));
}

/// Wider than any hole inside a term.
const TERM: u64 = akis_eventlog::TERM_JUMP;

#[test]
fn a_log_that_went_back_begins_the_subscription_anew() {
    let mut bench = Bench::usual();
    bench.subscribe("a:b", 5);
    bench.publish("a:b", 6);
    bench.publish("a:b", 7);
    expect(&bench.take_bytes(1), &[("price_tick", 6)]);
    bench.notice("a:b", &Notice::Rewound { channel: channel("a:b"), seq: seq(6), epoch: 1 });
    bench.publish("a:b", 6);
    let told = bench.take();
    expect(&told, &[("subscribed", 5), ("price_tick", 6)]);
    assert_eq!(told[0]["data"]["recovered"], false);
}

#[test]
fn a_long_replay_is_written_in_parts_and_live_events_follow() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:b", "after": 5 }] }));
    let part = Joined {
        recovered: true,
        live: false,
        replayed: 3,
        ..joined(5, vec![event("a:b", 6, None), event("a:b", 7, None)])
    };
    assert_eq!(bench.answer(Ok(part)), From::After(seq(5)));
    bench.publish("a:b", 8);
    let told = bench.take();
    expect(&told, &[("subscribed", 5), ("price_tick", 6), ("price_tick", 7)]);
    assert_eq!(told[0]["data"], json!({ "recovered": true, "replayed": 3, "interval": 0, "oldest": 1 }));
    let rest = Joined { recovered: true, ..joined(7, vec![event("a:b", 8, None)]) };
    assert_eq!(bench.answer(Ok(rest)), From::After(seq(7)));
    bench.publish("a:b", 9);
    expect(&bench.take(), &[("price_tick", 8), ("price_tick", 9)]);
}

#[test]
fn who_subscribes_again_during_a_replay_is_told_what_is_left_of_it() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:b", "after": 5 }] }));
    let events = vec![event("a:b", 6, None), event("a:b", 7, None)];
    bench.answer(Ok(Joined { recovered: true, live: false, replayed: 9, ..joined(5, events) }));
    // `subscribed` and one event.
    bench.take_bytes(1);
    bench.take_bytes(1);
    bench.solo.session.on_text(r#"{"type":"subscribe","channels":["a:b"]}"#, bench.now);
    bench.take_bytes(0);
    bench.answer(Ok(joined(14, Vec::new())));
    let told = bench.take();
    expect(&told, &[("subscribed", 6), ("price_tick", 7)]);
    assert_eq!(told[0]["data"]["replayed"], 8, "one that waits, and seven more");
}

#[test]
fn a_part_of_a_replay_with_nothing_to_write_is_followed_by_the_next_one() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:b", "after": 5 }] }));
    let nothing = |position| Joined { recovered: true, live: false, ..joined(position, Vec::new()) };
    bench.answer(Ok(nothing(5)));
    expect(&bench.take(), &[("subscribed", 5)]);
    assert_eq!(bench.answer(Ok(nothing(5))), From::After(seq(5)));
    bench.take();
    assert_eq!(
        bench.answer(Ok(Joined { recovered: true, ..joined(5, vec![event("a:b", 6, None)]) })),
        From::After(seq(5))
    );
    bench.publish("a:b", 7);
    expect(&bench.take(), &[("price_tick", 6), ("price_tick", 7)]);
}

#[test]
fn with_an_interval_only_the_newest_of_a_long_replay_is_written() {
    let mut bench = Bench::usual();
    let wish = json!({ "channel": "a:1m", "after": 5, "interval": 1000 });
    bench.say(&json!({ "type": "subscribe", "channels": [wish] }));
    let part = |position, first| Joined {
        recovered: true,
        live: false,
        ..joined(position, vec![event("a:1m", first, None), event("a:1m", first + 1, None)])
    };
    bench.answer(Ok(part(5, 6)));
    let told = bench.take();
    expect(&told, &[("subscribed", 6)]);
    assert_eq!(told[0]["data"]["replayed"], 1);
    assert_eq!(bench.answer(Ok(part(7, 8))), From::After(seq(7)));
    expect(&bench.take(), &[]);
    let last = Joined { recovered: true, ..joined(9, Vec::new()) };
    assert_eq!(bench.answer(Ok(last)), From::After(seq(9)));
    expect(&bench.take(), &[("price_tick", 9)]);
}

#[test]
fn a_replay_that_cannot_go_on_is_tried_again_and_what_was_trimmed_is_told() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:b", "after": 5 }] }));
    bench.answer(Ok(Joined { recovered: true, live: false, ..joined(5, vec![event("a:b", 6, None)]) }));
    bench.take();
    bench.answer(Err(away()));
    assert!(bench.take().is_empty() && bench.joins.is_empty());
    bench.pass(JOIN_RETRY);
    assert_eq!(bench.answer(Ok(joined(9, vec![event("a:b", 10, None)]))), From::After(seq(6)));
    let told = bench.take();
    expect(&told, &[("gap", 9), ("price_tick", 10)]);
    assert_eq!(told[0]["data"], json!({ "from": 7, "to": 9, "reason": "trimmed" }));
}

fn away() -> JoinError {
    JoinError::Unavailable(StoreError::Broken("away".to_owned()))
}

#[test]
fn history_that_cannot_be_read_refuses_the_channel_alone() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": ["a:b", "a:c"] }));
    bench.answer(Err(away()));
    bench.answer(Ok(joined(1, Vec::new())));
    let told = bench.take();
    expect(&told, &[("subscribe_error", 0), ("subscribed", 1)]);
    assert_eq!(told[0]["errorCode"], "REPLAY_UNAVAILABLE");
    assert_eq!(bench.left, [channel("a:b")]);
}

#[test]
fn a_snapshot_may_be_asked_for_beside_a_position() {
    // An event, or a position that was told without one, above the latest event.
    for (after, latest) in [(5, 5), (3 * TERM - 1, 5)] {
        let mut bench = Bench::usual();
        bench
            .say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:b", "after": after, "snapshot": true }] }));
        bench.answer(Ok(Joined { recovered: true, ..joined(after, Vec::new()) }));
        bench.take();
        let snapshot = joined(latest - 1, vec![event("a:b", latest, None)]);
        assert_eq!(bench.answer(Ok(snapshot)), From::Live { snapshot: true });
        let told = bench.take();
        expect(&told, &[("subscribed", latest - 1), ("price_tick", latest)]);
        assert_eq!(told[0]["data"]["recovered"], true, "{after}");
        bench.notice("a:b", &Notice::Event(event("a:b", 3 * TERM, Some(latest))));
        expect(&bench.take(), &[("term", 3 * TERM - 1), ("price_tick", 3 * TERM)]);
    }
}

#[test]
fn what_comes_while_a_snapshot_is_fetched_is_not_missed() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:b", "after": 5, "snapshot": true }] }));
    bench.answer(Ok(Joined { recovered: true, ..joined(5, Vec::new()) }));
    bench.take();
    assert_eq!(bench.answer(Ok(joined(7, vec![event("a:b", 8, None)]))), From::Live { snapshot: true });
    bench.take();
    let all = Joined { recovered: true, ..joined(5, (6..=8).map(|n| event("a:b", n, None)).collect()) };
    assert_eq!(bench.answer(Ok(all)), From::After(seq(5)));
    let told = bench.take();
    expect(&told, &[("subscribed", 5), ("price_tick", 6), ("price_tick", 7), ("price_tick", 8)]);
    assert_eq!(told[0]["data"]["recovered"], true);
}

#[test]
fn a_snapshot_of_a_channel_whose_history_is_gone_leaves_who_resumes_where_it_is() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:b", "after": 5, "snapshot": true }] }));
    bench.answer(Ok(Joined { recovered: true, ..joined(5, Vec::new()) }));
    bench.take();
    bench.answer(Ok(joined(0, Vec::new())));
    let told = bench.take();
    expect(&told, &[("subscribed", 5)]);
    assert_eq!(told[0]["data"]["recovered"], true);
}

#[test]
fn an_interval_lets_the_newest_through_and_holds_the_last_one_no_longer() {
    let mut bench = Bench::usual();
    let subscribe = json!({ "type": "subscribe", "channels": [{ "channel": "a:ticker", "interval": 250 }] });
    bench.say(&subscribe);
    bench.answer(Ok(joined(5, vec![event("a:ticker", 6, None)])));
    let told = bench.take();
    expect(&told, &[("subscribed", 5), ("price_tick", 6)]);
    assert_eq!(told[0]["data"]["interval"], 250);
    bench.publish("a:ticker", 7);
    bench.publish("a:ticker", 8);
    expect(&bench.pass(Duration::from_millis(100)), &[]);
    assert_eq!(bench.solo.deadline(bench.now), bench.now.instant + Duration::from_millis(150));
    bench.publish("a:ticker", 9);
    expect(&bench.pass(Duration::from_millis(150)), &[("price_tick", 9)]);
    bench.pass(Duration::from_millis(250));
    bench.publish("a:ticker", 10);
    expect(&bench.take(), &[("price_tick", 10)]);
}

#[test]
fn subscribing_again_ends_the_interval_and_sends_nothing_twice() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:ticker", "interval": 250 }] }));
    bench.answer(Ok(joined(5, vec![event("a:ticker", 6, None)])));
    bench.take();
    bench.publish("a:ticker", 7);
    bench.publish("a:ticker", 8);
    bench.say(&json!({ "type": "subscribe", "id": 2, "channels": ["a:ticker"] }));
    assert_eq!(bench.answer(Ok(joined(8, Vec::new()))), From::Live { snapshot: false });
    let told = bench.take();
    expect(&told, &[("subscribed", 7), ("price_tick", 8)]);
    assert_eq!(told[0]["data"]["interval"], 0);
    bench.publish("a:ticker", 9);
    bench.publish("a:ticker", 10);
    expect(&bench.take(), &[("price_tick", 9), ("price_tick", 10)]);
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:ticker", "after": 9 }] }));
    bench.answer(Ok(joined(10, Vec::new())));
    let told = bench.take();
    expect(&told, &[("subscribed", 10)]);
    assert_eq!(told[0]["data"]["recovered"], true, "everything above 9 was sent on this subscription");
}

#[test]
fn intervals_are_ignored_where_every_event_counts() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:trades", "interval": 250 }] }));
    bench.answer(Ok(joined(5, Vec::new())));
    assert_eq!(bench.take()[0]["data"]["interval"], 0);
}

#[test]
fn unsubscribe_waits_for_the_subscribe_before_it() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "id": 1, "channels": ["a:b"] }));
    expect(&bench.say(&json!({ "type": "unsubscribe", "id": 2, "channels": ["a:b", "a:c"] })), &[]);
    expect(&bench.say(&json!({ "type": "ping" })), &[("pong", 0)]);
    bench.answer(Ok(joined(5, vec![event("a:b", 6, None)])));
    let told = bench.take();
    expect(&told, &[("subscribed", 5), ("unsubscribed", 0), ("unsubscribed", 0)]);
    assert_eq!(bench.left, [channel("a:b")]);
    bench.publish("a:b", 7);
    expect(&bench.take(), &[]);
}

#[test]
fn limits_refuse_channels_alone() {
    let mut bench = Bench::new(Limits { channels: 1, ..Limits::default() }, 3600);
    bench.say(&json!({ "type": "subscribe", "channels": ["a:b", "a:c"] }));
    bench.answer(Ok(joined(1, Vec::new())));
    let told = bench.take();
    expect(&told, &[("subscribed", 1), ("subscribe_error", 0)]);
    assert_eq!(told[1]["errorCode"], "CHANNEL_LIMIT");
}

#[test]
fn bad_requests_are_answered_and_then_closed() {
    let mut bench = Bench::new(Limits { bad_requests: 3, ..Limits::default() }, 3600);
    for _ in 0..2 {
        assert_eq!(bench.say(&json!({ "type": "nope" }))[0]["errorCode"], "UNKNOWN_TYPE");
    }
    bench.solo.session.on_binary(bench.now);
    assert_eq!(bench.take()[0]["errorCode"], "BAD_REQUEST");
    assert_eq!(bench.solo.session.closing(), Some(CloseCode::BadRequests));
    expect(&bench.say(&json!({ "type": "ping" })), &[]);
}

#[test]
fn a_flood_is_refused_and_then_closed() {
    let mut bench = Bench::new(Limits { messages_per_second: 1, burst: 3, ..Limits::default() }, 3600);
    for _ in 0..3 {
        assert_eq!(bench.say(&json!({ "type": "ping" }))[0]["event"], "pong");
    }
    let refused = bench.say(&json!({ "type": "ping", "id": 4 }));
    assert_eq!(refused[0]["errorCode"], "RATE_LIMITED");
    assert_eq!(refused[0]["data"]["id"], 4);
    assert_eq!(refused[0]["data"]["retryAfterMs"], 1000);
    assert!(!bench.solo.session.on_control_frame(bench.now));
    assert_eq!(bench.solo.session.closing(), None);
    bench.say(&json!({ "type": "subscribe", "channels": ["a:b"] }));
    assert_eq!(bench.solo.session.closing(), Some(CloseCode::RateLimit));
    assert!(bench.joins.is_empty(), "a message that is refused is not carried out");
}

#[test]
fn a_token_is_warned_of_ends_all_channels_and_then_the_socket() {
    let mut bench = Bench::new(Limits::default(), 70);
    bench.subscribe("a:b", 5);
    let is_warning = |told: &[Value]| told.iter().any(|e| e["event"] == "token_expiring");
    assert!(!is_warning(&bench.pass(Duration::from_millis(9_999))));
    assert!(is_warning(&bench.pass(Duration::from_millis(1))));
    assert!(is_warning(&bench.pass(Duration::from_secs(45))));
    bench.publish("a:b", 6);
    bench.now.instant += Duration::from_secs(15);
    bench.now.unix_ms += 15_000;
    bench.solo.on_tick(bench.now, || wire::heartbeat(Duration::ZERO, bench.now.unix_ms));
    let told: Vec<_> = bench.take().into_iter().filter(|e| e["event"] != "heartbeat").collect();
    expect(&told, &[("unsubscribed", 0)]);
    assert_eq!(told[0]["errorCode"], "TOKEN_EXPIRED");
    let told = bench.say(&json!({ "type": "subscribe", "channels": ["a:b"] }));
    assert_eq!(told[0]["errorCode"], "TOKEN_EXPIRED");
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.solo.session.closing(), None);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.solo.session.closing(), Some(CloseCode::Token));
}

#[test]
fn a_short_token_is_warned_of_once_right_after_welcome() {
    let auth = AuthConfig { secret: Some(Secret::new(SECRET)), ..AuthConfig::default() };
    let auth = Authenticator::new(&auth, &Limits::default()).unwrap();
    let grant = auth.check(&token("alice", &["*"], 10), START_MS).unwrap();
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let surroundings = Surroundings { config: GatewayConfig::default(), auth, metrics };
    let now = Now { instant: Instant::now(), unix_ms: START_MS };
    let mut session = Session::new(Arc::new(surroundings), grant, "r-1", now);
    let mut out = Vec::new();
    session.take(usize::MAX, &mut out, now);
    let told: Vec<Value> = out.iter().map(|e| serde_json::from_slice(e).unwrap()).collect();
    expect(&told, &[("welcome", 0), ("token_expiring", 0)]);
}

#[test]
fn a_fresh_token_narrows_exactly_what_it_no_longer_allows() {
    let mut bench = Bench::new(Limits::default(), 30);
    for name in ["a:1", "a:2", "b:1"] {
        bench.subscribe(name, 5);
    }
    bench.publish("a:1", 6);
    bench.say(&json!({ "type": "subscribe", "id": 1, "channels": ["a:3"] }));
    bench.publish("a:2", 6);
    let told = bench.say(&json!({ "type": "auth", "id": 9, "token": token("alice", &["b:*", "a:2"], 3600) }));
    expect(&told, &[("unsubscribed", 0), ("authenticated", 0), ("subscribe_error", 0), ("price_tick", 6)]);
    assert_eq!(told[0]["channel"], "a:1");
    assert_eq!(told[0]["errorCode"], "CHANNEL_FORBIDDEN");
    assert_eq!(told[1]["data"]["ended"], json!(["a:1"]));
    assert_eq!(told[2]["channel"], "a:3");
    assert_eq!(told[3]["channel"], "a:2");
    bench.publish("a:1", 7);
    expect(&bench.take(), &[]);
    let told = bench.say(&json!({ "type": "auth", "token": token("bob", &["*"], 3600) }));
    assert_eq!(told[0]["errorCode"], "TOKEN_INVALID");
    let told = bench.say(&json!({ "type": "auth", "token": token("alice", &["*"], -5) }));
    assert_eq!(told[0]["errorCode"], "TOKEN_EXPIRED");
    bench.publish("b:1", 6);
    expect(&bench.take(), &[("price_tick", 6)]);
}

#[test]
fn a_slow_client_is_told_what_it_missed_by_kind() {
    let limits = Limits { queue_per_channel: 3, ..Limits::default() };
    let mut bench = Bench::new(limits.clone(), 3600);
    bench.subscribe("a:ticker", 0);
    bench.subscribe("a:trades", 0);
    for n in 1..=6 {
        bench.publish("a:ticker", n);
        bench.publish("a:trades", n);
    }
    assert_eq!(bench.take().len(), 12, "a burst is no slowness while the socket takes it");
    bench.solo.session.set_blocked(true);
    for n in 7..=12 {
        bench.publish("a:ticker", n);
        bench.publish("a:trades", n);
    }
    let told = bench.take();
    expect(
        &told,
        &[
            ("backpressure_drop", 11),
            ("price_tick", 12),
            ("backpressure_drop", 9),
            ("price_tick", 10),
            ("price_tick", 11),
            ("price_tick", 12),
        ],
    );
    assert_eq!(told[0]["data"], json!({ "from": 7, "to": 11, "count": 5, "reason": "conflated" }));
    assert_eq!(told[2]["data"], json!({ "from": 7, "to": 9, "count": 3, "reason": "dropped" }));

    let mut bench = Bench::new(limits, 3600);
    bench.subscribe("job:1", 0);
    bench.solo.session.set_blocked(true);
    for n in 1..=4 {
        bench.publish("job:1", n);
    }
    assert_eq!(bench.solo.session.closing(), Some(CloseCode::Slow), "applications' events are never thinned");
}

#[test]
fn terms_and_gaps_outlive_what_is_dropped_around_them() {
    let mut bench = Bench::new(Limits { queue_per_channel: 2, ..Limits::default() }, 3600);
    bench.subscribe("a:ticker", 0);
    bench.solo.session.set_blocked(true);
    bench.publish("a:ticker", 1);
    bench.notice("a:ticker", &Notice::Event(event("a:ticker", 3 * TERM, Some(1))));
    for n in 1..4 {
        bench.publish("a:ticker", 3 * TERM + n);
    }
    let told = bench.take();
    expect(
        &told,
        &[
            ("backpressure_drop", 1),
            ("term", 3 * TERM - 1),
            ("backpressure_drop", 3 * TERM + 2),
            ("price_tick", 3 * TERM + 3),
        ],
    );
}

#[test]
fn the_newest_event_outlives_a_full_queue_whatever_is_told_behind_it() {
    let mut bench = Bench::new(Limits { queue_bytes: 2000, ..Limits::default() }, 3600);
    bench.subscribe("a:ticker", 8);
    bench.subscribe("a:trades", 0);
    bench.solo.session.set_blocked(true);
    bench.publish("a:ticker", 9);
    bench.publish("a:ticker", 10);
    bench.notice("a:ticker", &Notice::Marker { channel: channel("a:ticker"), seq: seq(TERM), previous: Some(seq(10)) });
    for n in 1..40 {
        bench.publish("a:trades", n);
    }
    let told: Vec<Value> = bench.take().into_iter().filter(|told| told["channel"] == "a:ticker").collect();
    expect(&told, &[("backpressure_drop", 9), ("price_tick", 10), ("term", TERM)]);
}

#[test]
fn bytes_are_bounded_whatever_waits() {
    let mut bench = Bench::new(Limits { queue_bytes: 4000, ..Limits::default() }, 3600);
    bench.subscribe("a:ticker", 0);
    bench.subscribe("a:trades", 0);
    for n in 1..200 {
        bench.publish("a:ticker", n);
        bench.publish("a:trades", n);
        assert!(bench.solo.session.queued_bytes <= 4000);
    }
    assert_eq!(bench.solo.session.closing(), None);
    check_followed(&bench.take(), &[("a:ticker", 0), ("a:trades", 0)]);
    bench.subscribe("job:1", 0);
    for n in 1..200 {
        bench.publish("job:1", n);
    }
    assert_eq!(bench.solo.session.closing(), Some(CloseCode::Slow));
}

#[test]
fn reading_stops_while_answers_wait() {
    let mut bench = Bench::usual();
    let channels: Vec<String> = (0..200).map(|n| format!("a:{n}")).collect();
    for _ in 0..3 {
        assert!(bench.solo.session.wants_input());
        bench.solo.session.on_text(&json!({ "type": "unsubscribe", "channels": channels }).to_string(), bench.now);
    }
    bench.solo.session.on_text(&json!({ "type": "subscribe", "channels": channels }).to_string(), bench.now);
    for _ in 0..2 {
        bench.solo.session.on_text(&json!({ "type": "subscribe", "channels": channels }).to_string(), bench.now);
    }
    assert!(!bench.solo.session.wants_input(), "600 steps wait for 16 joins");
    bench.take();
    while !bench.joins.is_empty() {
        bench.answer(Ok(joined(0, Vec::new())));
        bench.take();
    }
    assert!(bench.solo.session.wants_input());
}

#[test]
fn heartbeats_and_news_of_the_connection() {
    let mut bench = Bench::usual();
    let told = bench.pass(Duration::from_secs(5));
    assert_eq!(told[0]["event"], "heartbeat");
    assert_eq!(told[0]["data"], json!({ "serverTs": START_MS + 5000, "tailAgeMs": 3 }));
    bench.solo.session.on_upstream(false, bench.now);
    bench.solo.session.on_upstream(true, bench.now);
    bench.solo.session.drain(Duration::from_secs(20), bench.now);
    let told = bench.take();
    assert_eq!(told[0]["errorCode"], "UPSTREAM_UNAVAILABLE");
    assert_eq!(told[1]["ok"], true);
    assert_eq!(told[2]["event"], "draining");
    assert_eq!(told[2]["data"]["deadlineMs"], 20_000);
}

#[test]
fn a_drain_spreads_its_clients_over_the_first_part_of_its_time() {
    let mut bench = Bench::usual();
    let mut eighths = [0; 8];
    for _ in 0..400 {
        bench.solo.session.drain(Duration::from_secs(20), bench.now);
        let after_ms = bench.take()[0]["data"]["reconnectAfterMs"].as_u64().unwrap();
        assert!(after_ms <= 16_000, "the last fifth is for those that are slow to leave");
        eighths[(after_ms as usize * 8 / 16_001).min(7)] += 1;
    }
    assert!(eighths.iter().all(|count| *count > 0), "{eighths:?}");
}

/// What every client relies on: positions rise, and nothing is skipped without a word.
#[track_caller]
fn check_followed(told: &[Value], from: &[(&str, u64)]) {
    let mut positions: HashMap<String, u64> = from.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
    for envelope in told {
        let Some(position) = positions.get_mut(envelope["channel"].as_str().unwrap()) else { continue };
        let seq = envelope["seq"].as_u64().unwrap();
        let data = &envelope["data"];
        match envelope["event"].as_str().unwrap() {
            "price_tick" => assert_eq!(seq, *position + 1, "{envelope}"),
            "gap" | "backpressure_drop" => {
                assert_eq!(data["from"], *position + 1, "{envelope}");
                assert_eq!(data["to"], seq, "{envelope}");
            }
            "term" => {
                assert!(data["previous"].as_u64().unwrap() <= *position && seq > *position, "{envelope}");
            }
            other => panic!("unexpected {other}"),
        }
        *position = seq;
    }
}

#[derive(Debug, Clone)]
enum Move {
    Publish { channel: usize, skipped: u64, begins_term: bool },
    Write(usize),
    Block(bool),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        12 => (0..3_usize, prop_oneof![20 => Just(0_u64), 1 => 1..5_u64], prop::bool::weighted(0.05))
            .prop_map(|(channel, skipped, begins_term)| Move::Publish { channel, skipped, begins_term }),
        2 => (1..2000_usize).prop_map(Move::Write),
        1 => any::<bool>().prop_map(Move::Block),
    ];
    prop::collection::vec(one, 0..300)
}

proptest! {
    #[test]
    fn nothing_is_skipped_without_a_word_and_what_waits_is_bounded(moves in moves()) {
        let limits = Limits { queue_per_channel: 5, queue_bytes: 3000, ..Limits::default() };
        let mut bench = Bench::new(limits, 3600);
        let names = ["a:ticker", "a:trades", "a:book"];
        let mut ends = [10_u64; 3];
        for name in names {
            bench.subscribe(name, 10);
        }
        let mut told = Vec::new();
        for next in moves {
            match next {
                Move::Publish { channel, skipped, begins_term } => {
                    let end = ends[channel];
                    let n = end + 1 + skipped + if begins_term { TERM } else { 0 };
                    let previous = (begins_term && skipped == 0).then_some(end);
                    bench.notice(names[channel], &Notice::Event(event(names[channel], n, previous)));
                    ends[channel] = n;
                }
                Move::Write(bytes) => told.extend(bench.take_bytes(bytes)),
                Move::Block(is_blocked) => bench.solo.session.set_blocked(is_blocked),
            }
            prop_assert!(bench.solo.session.queued_bytes <= 3000);
            prop_assert_eq!(bench.solo.session.closing(), None);
        }
        told.extend(bench.take());
        check_followed(&told, &names.map(|name| (name, 10)));
        for (name, end) in names.iter().zip(ends) {
            let last = told.iter().rev().find(|e| e["channel"] == *name).map_or(10, |e| e["seq"].as_u64().unwrap());
            prop_assert_eq!(last, end, "the newest is never held back");
        }
        prop_assert_eq!(bench.solo.session.queued_bytes, 0);
    }
}
