//! Subscribing by a pattern: to what there is at that moment.

use akis_eventlog::ChannelHead;

use super::*;
use crate::listing::Listed;

pub(super) fn listed(names: &[&str]) -> Listed {
    let head = |name: &&str| ChannelHead { channel: channel(name), seq: seq(7), ts_ms: 1, event: "x".to_owned() };
    names.iter().map(head).collect()
}

impl Bench {
    /// Answers who asked for the channels that there are, and gives what is told.
    fn list(&mut self, listed: Result<Listed, Refusal>) -> Vec<Value> {
        let token = self.lists.pop_front().expect("a request for a list");
        self.solo.session.on_listed(token, listed, self.now);
        self.take()
    }

    /// Answers all joins, and gives what is told.
    fn answer_all(&mut self) -> Vec<Value> {
        let mut told = self.take();
        while !self.joins.is_empty() {
            self.answer(Ok(joined(7, Vec::new())));
            told.extend(self.take());
        }
        told
    }
}

/// What is told: events with their channels and their requests.
fn answers(told: &[Value]) -> Vec<(&str, &str, u64)> {
    told.iter()
        .map(|told| {
            let id = told["data"]["id"].as_u64().unwrap_or_default();
            (told["event"].as_str().unwrap(), told["channel"].as_str().unwrap(), id)
        })
        .collect()
}

#[test]
fn a_pattern_stands_for_the_channels_that_there_are_and_that_the_token_allows() {
    let mut bench = Bench::usual();
    let fresh = token("alice", &["a:*", "b:*"], 3000);
    bench.say(&json!({ "type": "auth", "token": fresh }));
    bench.say(&json!({ "type": "subscribe", "id": 1, "channels": ["b:1", { "channel": "*:ticker", "interval": 500 }, "b:2"] }));
    assert!(bench.lists.is_empty(), "what comes before it comes first");
    assert_eq!(answers(&bench.answer_all()), [("subscribed", "b:1", 1)]);
    assert!(bench.joins.is_empty(), "what comes after it waits");
    let there =
        listed(&["b:2:ticker", "c:1:ticker", "a:1:ticker", "a:1:trades", "b:ticker", "akis:ticker", "a:ticker"]);
    bench.list(Ok(there));
    let told = bench.answer_all();
    assert_eq!(
        answers(&told),
        [("subscribed", "a:ticker", 1), ("subscribed", "b:ticker", 1), ("subscribed", "b:2", 1)],
        "in the order of their names, and where the pattern stood"
    );
    assert_eq!(told[0]["data"]["interval"], 500, "on its terms");
    bench.publish("a:ticker", 8);
    assert_eq!(answers(&bench.take()), [("price_tick", "a:ticker", 0)]);
}

#[test]
fn a_channel_that_is_named_beside_its_pattern_counts_once_and_on_its_own_terms() {
    let mut bench = Bench::usual();
    let (exact, paced) = (json!({ "channel": "a:1", "after": 5 }), json!({ "channel": "a:ticker", "interval": 1000 }));
    for (named, resumed) in [(json!(["a:*", exact]), "a:1"), (json!([paced, "a:*", "*:ticker"]), "a:ticker")] {
        bench.say(&json!({ "type": "subscribe", "id": 1, "channels": named }));
        let mut told = bench.answer_all();
        while !bench.lists.is_empty() {
            told.extend(bench.list(Ok(listed(&["a:1", "a:ticker"]))));
            told.extend(bench.answer_all());
        }
        let mut names: Vec<&str> = answers(&told).into_iter().map(|(_, name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["a:1", "a:ticker"], "each once");
        let own = told.iter().find(|told| told["channel"] == resumed).unwrap();
        assert_eq!(own["data"]["recovered"].is_boolean(), resumed == "a:1");
        assert_eq!(own["data"]["interval"], if resumed == "a:1" { 0 } else { 1000 });
        bench.say(&json!({ "type": "unsubscribe", "channels": ["a:1", "a:ticker"] }));
    }
}

#[test]
fn a_pattern_that_stands_for_nothing_or_for_too_much_is_refused_as_a_whole() {
    let limits = Limits { channels: 3, ..Limits::default() };
    let mut bench = Bench::new(limits, 3600);
    bench.subscribe("a:1", 5);
    let subscribe = json!({ "type": "subscribe", "id": 1, "channels": ["a:*"] });
    for (there, code) in [(listed(&["b:1"]), "BAD_CHANNEL"), (listed(&["a:1", "a:2", "a:3", "a:4"]), "CHANNEL_LIMIT")] {
        bench.say(&subscribe);
        let told = bench.list(Ok(there));
        assert_eq!(answers(&told), [("subscribe_error", "a:*", 1)]);
        assert_eq!(told[0]["errorCode"], code);
    }
    bench.say(&subscribe);
    let refusal = Refusal::new(ErrorCode::ReplayUnavailable, "away");
    assert_eq!(bench.list(Err(refusal))[0]["errorCode"], "REPLAY_UNAVAILABLE");
    bench.say(&subscribe);
    bench.list(Ok(listed(&["a:1", "a:2", "a:3"])));
    assert_eq!(bench.answer_all().len(), 3, "one of them was there already");
}

#[test]
fn a_pattern_that_is_refused_takes_nothing_from_those_behind_it() {
    let mut bench = Bench::new(Limits { channels: 2, ..Limits::default() }, 3600);
    bench.say(&json!({ "type": "subscribe", "id": 1, "channels": ["a:*", "a:1:*", "*:*:book"] }));
    let there = || Ok(listed(&["a:1:book", "a:1:ticker", "a:2:ticker"]));
    let mut told = bench.list(there());
    assert_eq!(told[0]["errorCode"], "CHANNEL_LIMIT");
    while !bench.lists.is_empty() || !bench.joins.is_empty() {
        told.extend(bench.answer_all());
        if !bench.lists.is_empty() {
            told.extend(bench.list(there()));
        }
    }
    let subscribed = [("subscribed", "a:1:book", 1), ("subscribed", "a:1:ticker", 1)];
    assert_eq!(answers(&told[1..]), subscribed, "each once, though the third covers one of them too");
}

#[test]
fn each_pattern_counts_as_a_message() {
    let mut bench = Bench::new(Limits { messages_per_second: 1, burst: 3, ..Limits::default() }, 3600);
    bench.say(&json!({ "type": "subscribe", "channels": ["a:*", "b:*", "c:*", "d:*"] }));
    let mut codes = Vec::new();
    while !bench.lists.is_empty() {
        codes.extend(bench.list(Ok(listed(&["x:1"]))).into_iter().map(|told| told["errorCode"].clone()));
    }
    assert_eq!(
        codes,
        ["BAD_CHANNEL", "BAD_CHANNEL", "RATE_LIMITED", "RATE_LIMITED"],
        "the message was the first of three"
    );
}

#[test]
fn a_pattern_ends_the_subscriptions_that_it_covers() {
    let mut bench = Bench::usual();
    for name in ["a:2", "b:1", "a:1"] {
        bench.subscribe(name, 5);
    }
    let told = bench.say(&json!({ "type": "unsubscribe", "id": 3, "channels": ["a:*", "a:*:b"] }));
    let expected = [("unsubscribed", "a:1", 3), ("unsubscribed", "a:2", 3), ("subscribe_error", "a:*:b", 3)];
    assert_eq!(answers(&told), expected);
    bench.take();
    assert_eq!(bench.left, [channel("a:1"), channel("a:2")]);
}

#[test]
fn a_token_that_is_narrowed_meanwhile_counts() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": ["*:1"] }));
    bench.say(&json!({ "type": "auth", "token": token("alice", &["b:*"], 3000) }));
    bench.list(Ok(listed(&["a:1", "b:1"])));
    assert_eq!(answers(&bench.answer_all()), [("subscribed", "b:1", 0)]);
}

#[test]
fn an_answer_for_a_client_that_was_sent_away_is_nothing() {
    let mut bench = Bench::usual();
    bench.say(&json!({ "type": "subscribe", "channels": ["*"] }));
    bench.solo.session.leave_all();
    assert_eq!(bench.list(Ok(listed(&["a:1"]))), Vec::<Value>::new());
    assert!(bench.joins.is_empty());
}

#[test]
fn where_patterns_are_not_allowed_they_are_no_channels() {
    let mut bench = Bench::with(GatewayConfig::default(), 3600);
    for kind in ["subscribe", "unsubscribe"] {
        let told = bench.say(&json!({ "type": kind, "id": 2, "channels": ["a:*"] }));
        assert_eq!(answers(&told), [("subscribe_error", "a:*", 2)]);
        assert_eq!(told[0]["errorCode"], "BAD_CHANNEL");
    }
    assert!(bench.lists.is_empty());
}
