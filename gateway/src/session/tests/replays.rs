//! Long replays of many channels: bounded together, and each of them comes to its end.

use super::*;
use crate::session::requests::MAX_JOINS;

/// Events of each channel, and how many of them one join gives.
const EVENTS: u64 = 25;
const PART: u64 = 10;

/// Bytes of one event at most.
const EVENT_BYTES: usize = 160;

/// What a log gives that has events 1 to [`EVENTS`] of a channel.
fn part(name: &str, from: From) -> Joined {
    let From::After(after) = from else { panic!("{from:?}") };
    let after = after.get();
    let last = EVENTS.min(after + PART);
    let events: Vec<_> = (after + 1..=last).map(|n| event(name, n, None)).collect();
    assert!(events.iter().all(|event| event.envelope.len() <= EVENT_BYTES));
    Joined { recovered: after > 0, live: last == EVENTS, replayed: (EVENTS - after) as usize, ..joined(after, events) }
}

impl Bench {
    fn answer_part(&mut self) {
        let (channel, from, _) = self.joins.front().expect("a join").clone();
        self.answer(Ok(part(channel.as_str(), from)));
    }
}

fn subscribe(names: &[String], more: &Value) -> Value {
    let wish = |name: &String| {
        let mut wish = json!({ "channel": name, "after": 0 });
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wish
    };
    json!({ "type": "subscribe", "channels": names.iter().map(wish).collect::<Vec<_>>() })
}

#[test]
fn what_waits_of_all_replays_is_bounded_and_each_comes_to_its_end() {
    let queue_bytes = 3 * EVENT_BYTES;
    let mut bench = Bench::new(Limits { queue_bytes, ..Limits::default() }, 3600);
    let names: Vec<String> = (0..40).map(|n| format!("a:{n}:trades")).collect();
    bench.solo.session.on_text(&subscribe(&names, &json!({})).to_string(), bench.now);
    let mut told = bench.take_bytes(0);
    assert_eq!(bench.joins.len(), MAX_JOINS);
    let mut most = 0;
    while !bench.joins.is_empty() || bench.solo.session.has_output() {
        while !bench.joins.is_empty() {
            bench.answer_part();
            told.extend(bench.take_bytes(0));
            let session = &bench.solo.session;
            most = most.max(session.replay_bytes);
            assert_eq!(session.waiting_bytes(), session.control_bytes + session.replay_bytes, "all of it is counted");
        }
        // The client reads slowly.
        told.extend(bench.take_bytes(1));
        assert!(bench.joins.len() <= MAX_JOINS + 1);
    }
    assert!(most <= queue_bytes + PART as usize * EVENT_BYTES, "{most} bytes waited");
    assert_eq!(told.iter().filter(|told| told["event"] == "subscribed").count(), names.len());
    told.retain(|told| told["event"] != "subscribed");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let from: Vec<(&str, u64)> = names.iter().map(|name| (*name, 0)).collect();
    check_followed(&told, &from);
    assert_eq!(told.len(), names.len() * EVENTS as usize);
    for name in names {
        bench.publish(name, EVENTS + 1);
        expect(&bench.take(), &[("price_tick", EVENTS + 1)]);
    }
}

#[test]
fn the_newest_events_of_replays_with_an_interval_do_not_wait_for_each_other() {
    // Less than two of them.
    let mut bench = Bench::new(Limits { queue_bytes: 256, ..Limits::default() }, 3600);
    let names: Vec<String> = (0..5).map(|n| format!("a:{n}:ticker")).collect();
    let mut told = bench.say(&subscribe(&names, &json!({ "interval": 1000 })));
    while !bench.joins.is_empty() {
        bench.answer_part();
        told.extend(bench.take());
    }
    let newest = |name: &String| told.iter().rfind(|told| told["channel"] == name.as_str()).unwrap()["seq"].clone();
    assert!(names.iter().all(|name| newest(name) == EVENTS), "{told:?}");
}

#[test]
fn whoever_leaves_during_a_part_holds_up_no_other() {
    let mut bench = Bench::usual();
    let names = ["a:1".to_owned(), "a:2".to_owned()];
    bench.say(&subscribe(&names, &json!({})));
    (0..2).for_each(|_| bench.answer_part());
    bench.take();
    assert_eq!(bench.joins.len(), 1, "one part at a time");
    let (channel, _, token) = bench.joins.pop_front().unwrap();
    bench.say(&json!({ "type": "unsubscribe", "channels": [channel.as_str()] }));
    assert_eq!(bench.joins.len(), 1, "it is the other's turn");
    bench.solo.session.on_joined(&channel, token, Ok(part(channel.as_str(), From::After(seq(PART)))), bench.now);
    let other = names.iter().find(|name| name.as_str() != channel.as_str()).unwrap().clone();
    while !bench.joins.is_empty() {
        bench.answer_part();
        bench.take();
    }
    bench.publish(&other, EVENTS + 1);
    expect(&bench.take(), &[("price_tick", EVENTS + 1)]);
}

#[test]
fn a_channel_that_begins_while_notices_are_missed_tells_its_term_and_no_gap() {
    for (previous, told) in [(Some(0), "term"), (Some(7), "gap"), (None, "gap")] {
        let mut bench = Bench::usual();
        bench.subscribe("a:b", 0);
        let slot = bench.solo.session.slot(&channel("a:b")).unwrap();
        bench.solo.session.on_missed(slot);
        bench.take();
        let events = vec![event("a:b", TERM, previous), event("a:b", TERM + 1, None)];
        assert_eq!(bench.answer(Ok(joined(TERM - 1, events))), From::After(seq(0)));
        expect(&bench.take(), &[(told, TERM - 1), ("price_tick", TERM), ("price_tick", TERM + 1)]);
    }
}
