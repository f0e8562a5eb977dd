//! Events that take the short way are told as those that do not.

use super::*;
use crate::run::{Run, RunBuilder};

const NAMES: [&str; 3] = ["a:ticker", "a:trades", "job:1"];

#[derive(Debug, Clone)]
enum Step {
    Events { channel: usize, count: u64 },
    Hole { channel: usize },
    Write,
    Block(bool),
    Again { channel: usize },
    Leave { channel: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        12 => (0..3_usize, 1..4_u64).prop_map(|(channel, count)| Step::Events { channel, count }),
        1 => (0..3_usize).prop_map(|channel| Step::Hole { channel }),
        2 => Just(Step::Write),
        1 => any::<bool>().prop_map(Step::Block),
        1 => (0..3_usize).prop_map(|channel| Step::Again { channel }),
        1 => (0..3_usize).prop_map(|channel| Step::Leave { channel }),
    ];
    prop::collection::vec(one, 0..200)
}

fn run(events: &[Arc<LogEvent>]) -> Arc<Run> {
    let (first, others) = events.split_first().unwrap();
    let mut builder = RunBuilder::new(first);
    assert!(others.iter().all(|event| builder.push(event)));
    Arc::new(builder.finish())
}

/// A session and what each of its channels was told.
struct Client {
    bench: Bench,
    takes_runs: bool,
    told: HashMap<String, Vec<Value>>,
}

impl Client {
    fn new(takes_runs: bool) -> Self {
        let limits = Limits { queue_per_channel: 4, ..Limits::default() };
        let mut client = Self { bench: Bench::new(limits, 3600), takes_runs, told: HashMap::new() };
        NAMES.into_iter().for_each(|name| client.bench.subscribe(name, 10));
        client
    }

    fn write(&mut self) {
        let told = self.bench.take();
        self.note(told);
    }

    fn note(&mut self, told: Vec<Value>) {
        for envelope in told {
            self.told.entry(envelope["channel"].as_str().unwrap().to_owned()).or_default().push(envelope);
        }
    }

    fn step(&mut self, step: &Step, ends: &[u64; 3]) {
        match step {
            Step::Events { channel, count } => {
                let (name, end) = (NAMES[*channel], ends[*channel]);
                let events: Vec<_> = (1..=*count).map(|n| event(name, end + n, None)).collect();
                let Some(slot) = self.bench.solo.session.slot(&super::channel(name)) else { return };
                if self.takes_runs {
                    self.bench.solo.session.on_run(slot, &run(&events));
                } else {
                    for event in &events {
                        self.bench.notice(name, &Notice::Event(Arc::clone(event)));
                    }
                }
            }
            Step::Hole { channel } => {
                self.bench.notice(NAMES[*channel], &Notice::Event(event(NAMES[*channel], ends[*channel] + 3, None)));
            }
            Step::Write => self.write(),
            Step::Block(is_blocked) => self.bench.solo.session.set_blocked(*is_blocked),
            Step::Again { channel } => {
                let (name, end) = (NAMES[*channel], ends[*channel]);
                let wish = json!({ "channel": name, "after": end });
                let told = self.bench.say(&json!({ "type": "subscribe", "channels": [wish] }));
                self.note(told);
                while !self.bench.joins.is_empty() {
                    self.bench.answer(Ok(Joined { recovered: true, ..joined(end, Vec::new()) }));
                }
            }
            Step::Leave { channel } => {
                let told = self.bench.say(&json!({ "type": "unsubscribe", "channels": [NAMES[*channel]] }));
                self.note(told);
            }
        }
    }
}

proptest! {
    #[test]
    fn runs_are_told_as_their_events_are(steps in steps()) {
        let mut clients = [Client::new(true), Client::new(false)];
        let mut ends = [10_u64; 3];
        for step in &steps {
            for client in &mut clients {
                client.step(step, &ends);
            }
            match step {
                Step::Events { channel, count } => ends[*channel] += count,
                Step::Hole { channel } => ends[*channel] += 3,
                _ => {}
            }
            let [one, other] = clients.each_ref().map(|client| &client.bench.solo.session);
            prop_assert_eq!(one.queued_bytes, other.queued_bytes);
            prop_assert_eq!(one.closing(), other.closing());
        }
        clients.iter_mut().for_each(Client::write);
        prop_assert_eq!(&clients[0].told, &clients[1].told);
        prop_assert_eq!(clients[0].bench.solo.session.queued_bytes, 0);
    }
}

#[test]
fn a_small_write_takes_the_oldest_of_all_channels_first() {
    let mut bench = Bench::usual();
    bench.subscribe("a:ticker", 0);
    bench.subscribe("a:trades", 0);
    for n in 1..=3 {
        for name in ["a:ticker", "a:trades"] {
            let slot = bench.solo.session.slot(&channel(name)).unwrap();
            assert!(bench.solo.session.on_run(slot, &run(&[event(name, n, None)])));
        }
    }
    assert_eq!(words(&bench.take_bytes(1)), [("price_tick".to_owned(), 1)]);
    bench.notice("a:ticker", &Notice::Event(event("a:ticker", 9, None)));
    let told = bench.take();
    check_followed(&told, &[("a:ticker", 1), ("a:trades", 0)]);
    assert_eq!(told.len(), 7, "five events, a gap, and the event behind it");
    assert!(!bench.solo.session.has_output());
}
