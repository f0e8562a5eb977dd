use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use akis_model::{Body, Channel, Outcome, Seq};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn event(n: u64) -> Arc<LogEvent> {
    let channel = Channel::parse("a:ticker").unwrap();
    let seq = Seq::new(n).unwrap();
    let body = Body::render(1, "price_tick", &channel, Outcome::Ok, &json!({})).unwrap();
    Arc::new(LogEvent { seq, previous: None, ts_ms: 1, envelope: body.envelope(seq).into(), channel, trace: None })
}

#[test]
fn a_thousand_members_share_a_timer_and_a_frame() {
    let start = Instant::now();
    let mut groups = Groups::default();
    for who in 0..1000 {
        groups.join(7, 250 * MS, who, start);
    }
    let mut given: Vec<Arc<Run>> = Vec::new();
    for n in 1..=1000 {
        // An event each millisecond, and a look at the clock as often.
        let now = start + MS * n as u32;
        groups.on_time(now, |_, run| given.push(Arc::clone(run)));
        groups.on_event(7, &event(n), now, |_, run| given.push(Arc::clone(run)));
        assert!(groups.ticks.len() <= 1 && groups.len() == 1);
    }
    assert_eq!(given.len(), 4 * 1000, "at 1, 251, 501 and 751 ms");
    let mut frames: Vec<_> = given.iter().map(|run| run.frames().as_ptr()).collect();
    frames.dedup();
    assert_eq!(frames.len(), 4, "each event is framed once");
}

#[test]
fn members_that_came_at_different_moments_fall_into_step() {
    let start = Instant::now();
    let mut groups = Groups::default();
    for who in 0..100_u32 {
        groups.join(7, 100 * MS, who, start + MS * who);
    }
    let mut moments = std::collections::BTreeSet::new();
    for n in 1..=1000 {
        let now = start + MS * n;
        let mut note = |_, _: &Arc<Run>| {
            if n > 400 {
                moments.insert(n);
            }
        };
        groups.on_time(now, &mut note);
        groups.on_event(7, &event(u64::from(n)), now, &mut note);
    }
    assert!(moments.len() <= 6, "one moment for all in each interval: {moments:?}");
}

#[test]
fn whoever_leaves_is_handed_what_waits_and_leaves_nothing_behind() {
    let start = Instant::now();
    let mut groups = Groups::default();
    groups.join(7, 100 * MS, 1, start);
    groups.on_event(7, &event(5), start, |_, _| {});
    assert_eq!(groups.leave(7, 1), None, "it has what there is");
    groups.join(7, 100 * MS, 1, start + 100 * MS);
    groups.on_event(7, &event(6), start, |_, _| panic!("not before it is ready"));
    assert_eq!(groups.next_at(), Some(start + 100 * MS));
    assert_eq!(groups.leave(7, 1).map(|run| run.last().get()), Some(6));
    assert!(!groups.has(7) && groups.next_at().is_none());
    assert_eq!(groups.leave(7, 1), None);
}

#[test]
fn what_waits_can_be_had_before_its_time() {
    let start = Instant::now();
    let mut groups = Groups::default();
    groups.join(7, 100 * MS, 1, start + 50 * MS);
    groups.on_event(7, &event(6), start, |_, _| panic!("not before it is ready"));
    let mut given = Vec::new();
    groups.flush(7, start + MS, |who, run| given.push((who, run.last().get())));
    assert_eq!(given, [(1, 6)]);
    assert_eq!(groups.next_at(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Event,
    Pass(u32),
    Join(u8),
    Leave(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Event),
        6 => (1..60_u32).prop_map(Step::Pass),
        2 => (0..6_u8).prop_map(Step::Join),
        1 => (0..6_u8).prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 0..200)
}

/// What one member has been through.
struct Record {
    interval: Duration,
    ready_at: Instant,
    seq: u64,
    /// The newest event that it has not been given, and when that came.
    waiting: Option<(u64, Instant)>,
}

proptest! {
    #[test]
    fn nobody_is_given_too_much_and_nothing_waits_too_long(steps in steps()) {
        let intervals = [100 * MS, 250 * MS];
        let mut now = Instant::now();
        let mut groups = Groups::default();
        let mut records: BTreeMap<u8, Record> = BTreeMap::new();
        let mut seq = 0;
        let settle = |records: &mut BTreeMap<u8, Record>, given: Vec<(u8, u64)>, now: Instant| {
            for (who, seq) in given {
                let record = records.get_mut(&who).unwrap();
                assert!(now >= record.ready_at, "{who} is given {seq} too early");
                assert!(seq > record.seq, "{who} is given {seq} twice");
                record.ready_at = now + record.interval;
                record.seq = seq;
                record.waiting = None;
            }
            for (who, record) in records {
                if let Some((seq, at)) = record.waiting {
                    assert!(now < at + record.interval, "{who} waits for {seq} for too long");
                }
            }
        };
        for step in steps {
            match step {
                Step::Event => {
                    seq += 1;
                    // The newest restarts the patience: what it replaced is never wanted again.
                    records.values_mut().for_each(|record| record.waiting = Some((seq, now)));
                    let mut given = Vec::new();
                    groups.on_event(7, &event(seq), now, |who, run| given.push((who, run.last().get())));
                    settle(&mut records, given, now);
                }
                Step::Pass(ms) => for _ in 0..ms {
                    now += MS;
                    let mut given = Vec::new();
                    groups.on_time(now, |who, run| given.push((who, run.last().get())));
                    settle(&mut records, given, now);
                },
                Step::Join(who) => {
                    let interval = intervals[usize::from(who % 2)];
                    if let Entry::Vacant(record) = records.entry(who) {
                        // It has just been shown the newest event.
                        groups.join(7, interval, who, now + interval);
                        record.insert(Record { interval, ready_at: now + interval, seq, waiting: None });
                    }
                }
                Step::Leave(who) => {
                    let owed = groups.leave(7, who).map(|run| run.last().get());
                    if let Some((wanted, _)) = records.remove(&who).and_then(|record| record.waiting) {
                        prop_assert_eq!(owed, Some(wanted));
                    }
                }
            }
            prop_assert!(groups.len() <= 2 && groups.ticks.len() <= 2);
        }
    }
}
