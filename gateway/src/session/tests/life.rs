//! Random lives of a session, against what must always hold.

use super::*;
use crate::run::RunBuilder;

const NAMES: [&str; 4] = ["a:1:ticker", "a:1:trades", "b:1:ticker", "b:1:book"];

const PATTERNS: [&str; 3] = ["a:*", "*:1:ticker", "*"];

/// Events that one join gives at most.
const PART: u64 = 5;

const QUEUE_BYTES: usize = 4000;

#[derive(Debug, Clone)]
enum Step {
    /// As a run, as shards hand events over, or by itself.
    Publish {
        channel: usize,
        is_run: bool,
    },
    /// Events that the log has and the session is not told of, only that it missed some.
    Miss(usize, u64),
    Write(usize),
    Block(bool),
    /// `behind`: resume from so many positions before the end.
    Subscribe {
        channel: usize,
        interval: u64,
        behind: Option<u64>,
    },
    Unsubscribe(usize),
    /// By a pattern, which the channels are found for at the next answer.
    SubscribeEvery {
        pattern: usize,
        interval: u64,
    },
    UnsubscribeEvery(usize),
    /// A fresh token for the channels of `a`, of `b`, or both, and so many seconds.
    Auth {
        allowed: [bool; 2],
        ttl_s: i64,
    },
    Answer,
    Pass(u64),
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let interval = prop_oneof![2 => Just(0_u64), 1 => Just(100), 1 => Just(500)];
    let step = prop_oneof![
        20 => (0..NAMES.len(), any::<bool>()).prop_map(|(channel, is_run)| Step::Publish { channel, is_run }),
        1 => (0..NAMES.len(), 0..4_u64).prop_map(|(channel, count)| Step::Miss(channel, count)),
        5 => (1..1500_usize).prop_map(Step::Write),
        2 => any::<bool>().prop_map(Step::Block),
        5 => (0..NAMES.len(), interval, prop::option::of(0..20_u64))
            .prop_map(|(channel, interval, behind)| Step::Subscribe { channel, interval, behind }),
        2 => (0..NAMES.len()).prop_map(Step::Unsubscribe),
        2 => (0..PATTERNS.len(), prop_oneof![Just(0_u64), Just(100)])
            .prop_map(|(pattern, interval)| Step::SubscribeEvery { pattern, interval }),
        1 => (0..PATTERNS.len()).prop_map(Step::UnsubscribeEvery),
        2 => (any::<[bool; 2]>(), 1..30_i64).prop_map(|(allowed, ttl_s)| Step::Auth { allowed, ttl_s }),
        6 => Just(Step::Answer),
        4 => (1..400_u64).prop_map(Step::Pass),
        1 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 0..250)
}

/// What a client knows of a channel that it is subscribed to.
struct Told {
    position: u64,
    is_paced: bool,
}

/// A session, a log that keeps everything, and what the client knows.
struct Life {
    bench: Bench,
    ends: [u64; NAMES.len()],
    told: [Option<Told>; NAMES.len()],
    allowed: [bool; 2],
    expires_at_ms: i64,
}

impl Life {
    fn begin() -> Self {
        let limits = Limits {
            queue_per_channel: 5,
            queue_bytes: QUEUE_BYTES,
            messages_per_second: 100_000,
            burst: 100_000,
            ..Limits::default()
        };
        let told = [const { None }; NAMES.len()];
        let expires_at_ms = START_MS + 20_000;
        Self { bench: Bench::new(limits, 20), ends: [10; NAMES.len()], told, allowed: [true; 2], expires_at_ms }
    }

    fn say(&mut self, request: &Value) {
        self.bench.solo.session.on_text(&request.to_string(), self.bench.now);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish { channel, is_run } => {
                self.ends[channel] += 1;
                let new = event(NAMES[channel], self.ends[channel], None);
                let solo = &mut self.bench.solo;
                let slot = solo.session.slot(&new.channel).filter(|slot| !solo.is_paced(*slot));
                match slot.filter(|_| is_run) {
                    Some(slot) => {
                        solo.session.on_run(slot, &Arc::new(RunBuilder::new(&new).finish()));
                    }
                    None => self.bench.notice(NAMES[channel], &Notice::Event(new)),
                }
            }
            Step::Miss(at, count) => {
                self.ends[at] += count;
                if let Some(slot) = self.bench.solo.session.slot(&channel(NAMES[at])) {
                    self.bench.solo.session.on_missed(slot);
                }
            }
            Step::Write(bytes) => self.write(bytes),
            Step::Block(is_blocked) => self.bench.solo.session.set_blocked(is_blocked),
            Step::Subscribe { channel, interval, behind } => {
                let mut entry = json!({ "channel": NAMES[channel], "interval": interval });
                let after = behind.map(|behind| self.ends[channel].saturating_sub(behind));
                if let Some(after) = after {
                    entry["after"] = after.into();
                }
                self.say(&json!({ "type": "subscribe", "id": after.unwrap_or(0), "channels": [entry] }));
            }
            Step::Unsubscribe(channel) => {
                self.say(&json!({ "type": "unsubscribe", "channels": [NAMES[channel]] }));
            }
            Step::SubscribeEvery { pattern, interval } => {
                let entry = json!({ "channel": PATTERNS[pattern], "interval": interval });
                self.say(&json!({ "type": "subscribe", "id": 0, "channels": [entry] }));
            }
            Step::UnsubscribeEvery(pattern) => {
                self.say(&json!({ "type": "unsubscribe", "channels": [PATTERNS[pattern]] }));
            }
            Step::Auth { allowed, ttl_s } => self.auth(allowed, ttl_s),
            Step::Answer => self.answer(),
            Step::Pass(ms) => {
                self.bench.now.instant += Duration::from_millis(ms);
                self.bench.now.unix_ms += ms as i64;
                self.bench.solo.on_tick(self.bench.now, || wire::heartbeat(Duration::ZERO, START_MS));
            }
            Step::Drain => self.bench.solo.session.drain(Duration::from_secs(20), self.bench.now),
        }
        // What the session wants done outside is done at once.
        self.write(0);
        assert!(self.bench.solo.session.queued_bytes <= QUEUE_BYTES);
    }

    fn auth(&mut self, allowed: [bool; 2], ttl_s: i64) {
        let patterns: Vec<&str> =
            ["a:*", "b:*"].into_iter().zip(allowed).filter_map(|(pattern, is)| is.then_some(pattern)).collect();
        let passed_s = (self.bench.now.unix_ms - START_MS) / 1000;
        let token = token("alice", &patterns, passed_s + ttl_s);
        let is_open = self.bench.solo.session.closing().is_none();
        self.say(&json!({ "type": "auth", "token": token }));
        // One that expires within this second may be too late.
        if is_open && ttl_s > 1 {
            (self.allowed, self.expires_at_ms) = (allowed, START_MS + 1000 * (passed_s + ttl_s));
        } else if is_open {
            let grant = &self.bench.solo.session.grant;
            self.expires_at_ms = grant.expires_at_ms;
            let allows = |name| grant.channels.allows(&channel(name));
            self.allowed = [allows(NAMES[0]), allows(NAMES[2])];
        }
    }

    /// Answers who asks for the channels that there are, or the join that waits for the longest time.
    fn answer(&mut self) {
        if let Some(token) = self.bench.lists.pop_front() {
            let listed = patterns::listed(&NAMES);
            return self.bench.solo.session.on_listed(token, Ok(listed), self.bench.now);
        }
        let Some((channel, from, token)) = self.bench.joins.pop_front() else { return };
        let name = channel.as_str().to_owned();
        let end = self.ends[NAMES.iter().position(|other| *other == name).unwrap()];
        let (position, is_resumed) = match from {
            From::Live { snapshot } => (end - u64::from(snapshot), false),
            From::After(after) => (after.get().min(end), after.get() <= end),
            From::Since(_) => (end, false),
        };
        let to = end.min(position + PART);
        let events: Vec<_> = (position + 1..=to).map(|n| event(&name, n, None)).collect();
        let replayed = (end - position) as usize;
        let joined = Joined { recovered: is_resumed, replayed, live: to == end, ..joined(position, events) };
        self.bench.solo.session.on_joined(&channel, token, Ok(joined), self.bench.now);
    }

    /// The client reads.
    fn write(&mut self, bytes: usize) {
        for envelope in self.bench.take_bytes(bytes) {
            if let Some(channel) = NAMES.iter().position(|name| envelope["channel"] == *name) {
                self.read(channel, &envelope);
            }
        }
    }

    fn read(&mut self, channel: usize, envelope: &Value) {
        let (seq, data) = (envelope["seq"].as_u64().unwrap(), &envelope["data"]);
        let told = &mut self.told[channel];
        match envelope["event"].as_str().unwrap() {
            "subscribed" => {
                match told {
                    Some(told) if told.is_paced => assert!(seq >= told.position, "{envelope}"),
                    Some(told) => assert_eq!(seq, told.position, "nothing twice and nothing left out: {envelope}"),
                    None if data["recovered"] == true && data["interval"] == 0 => {
                        assert_eq!(data["id"], seq, "nothing is missing behind the position: {envelope}");
                    }
                    None => {}
                }
                *told = Some(Told { position: seq, is_paced: data["interval"] != 0 });
            }
            "unsubscribed" => *told = None,
            "subscribe_error" => {}
            event => {
                assert!(self.allowed[channel / 2], "the token does not allow it: {envelope}");
                assert!(self.bench.now.unix_ms < self.expires_at_ms, "the token has expired: {envelope}");
                let told = told.as_mut().expect("a subscription");
                assert!(seq > told.position, "positions rise: {envelope}");
                match event {
                    "price_tick" => assert!(told.is_paced || seq == told.position + 1, "{envelope}"),
                    "backpressure_drop" => {
                        assert!(told.is_paced || data["from"] == told.position + 1, "{envelope}");
                        assert_eq!(data["to"], seq, "{envelope}");
                    }
                    other => panic!("unexpected {other}"),
                }
                told.position = seq;
            }
        }
    }

    /// Lets everything that waits come to its end.
    fn settle(&mut self) {
        self.take(Step::Auth { allowed: [true; 2], ttl_s: 20 });
        self.take(Step::Block(false));
        self.write(usize::MAX);
        while !(self.bench.joins.is_empty() && self.bench.lists.is_empty()) {
            self.take(Step::Answer);
            self.write(usize::MAX);
        }
        self.take(Step::Pass(600));
        self.write(usize::MAX);
    }
}

proptest! {
    #[test]
    fn what_must_always_hold_holds_whatever_happens(steps in steps()) {
        let mut life = Life::begin();
        for step in steps {
            life.take(step);
        }
        life.settle();
        if life.bench.solo.session.closing().is_some() {
            prop_assert!(life.bench.now.unix_ms >= life.expires_at_ms, "nothing but the token ends it");
            return Ok(());
        }
        for (told, end) in life.told.iter().zip(life.ends) {
            if let Some(told) = told {
                prop_assert_eq!(told.position, end, "the newest is never held back");
            }
        }
        for channel in 0..NAMES.len() {
            life.take(Step::Unsubscribe(channel));
        }
        life.write(usize::MAX);
        prop_assert!(life.told.iter().all(Option::is_none));
        let session = &life.bench.solo.session;
        prop_assert_eq!((session.queued_bytes, session.replay_bytes), (0, 0));
        prop_assert!(!session.has_output() && session.roster.len() == 0);
    }
}
