//! What a request may ask for and what it is granted, and what a fresh token changes at once.

use super::*;

#[test]
fn intervals_are_raised_to_what_the_server_grants_and_the_grant_is_told() {
    for (name, asked, granted) in [
        ("a:ticker", 0, 0),
        ("a:ticker", 1, 10),
        ("a:book", 250, 250),
        ("a:1m", 260, 300),
        ("a:session", 1001, 2000),
        ("a:4h", 60_001, 120_000),
        ("a:ticker", 86_400_000, 86_400_000),
        ("a:trades", 250, 0),
        ("job:1", 250, 0),
    ] {
        let mut bench = Bench::usual();
        bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": name, "interval": asked }] }));
        bench.answer(Ok(joined(5, Vec::new())));
        let told = bench.take();
        assert_eq!(told[0]["data"]["interval"], granted, "{name} {asked}");
        // The grant is what is kept: nothing before it is over.
        bench.publish(name, 6);
        bench.take();
        bench.publish(name, 7);
        assert_eq!(bench.take().len(), usize::from(granted == 0), "{name} {asked}");
        if granted > 0 && granted < 5000 {
            expect(&bench.pass(Duration::from_millis(granted - 1)), &[]);
            expect(&bench.pass(Duration::from_millis(1)), &[("price_tick", 7)]);
        }
    }
}

#[test]
fn bad_requests_count_towards_the_rate() {
    let mut bench = Bench::new(Limits { messages_per_second: 1, burst: 3, ..Limits::default() }, 3600);
    for _ in 0..3 {
        assert_eq!(bench.say(&json!({ "type": "nope" }))[0]["errorCode"], "UNKNOWN_TYPE");
    }
    assert_eq!(bench.say(&json!({ "type": "nope" }))[0]["errorCode"], "RATE_LIMITED");
    assert_eq!(bench.say(&json!({ "type": "ping" }))[0]["errorCode"], "RATE_LIMITED");
}

#[test]
fn a_request_that_is_refused_as_a_whole_has_one_answer_and_no_effect() {
    let mut bench = Bench::usual();
    bench.subscribe("a:0", 5);
    let many: Vec<String> = (0..201).map(|n| format!("a:{n}")).collect();
    for request in [
        json!({ "type": "subscribe", "id": 1, "channels": many }),
        json!({ "type": "unsubscribe", "id": 1, "channels": many }),
        json!({ "type": "subscribe", "id": 1, "channels": ["a:1", 7] }),
        json!({ "type": "unsubscribe", "id": 1, "channels": ["a:0", null] }),
    ] {
        let told = bench.say(&request);
        assert_eq!((told.len(), &told[0]["event"]), (1, &json!("error")), "{told:?}");
        assert_eq!((&told[0]["errorCode"], &told[0]["data"]["id"]), (&json!("BAD_REQUEST"), &json!(1)));
        assert!(bench.joins.is_empty() && bench.left.is_empty());
    }
    bench.publish("a:0", 6);
    expect(&bench.take(), &[("price_tick", 6)]);
    let named_twice = json!({ "type": "subscribe", "channels": vec!["a:1"; 500] });
    bench.say(&named_twice);
    bench.answer(Ok(joined(1, Vec::new())));
    expect(&bench.take(), &[("subscribed", 1)]);
}

/// A fresh token of alice.
fn auth(bench: &mut Bench, claims: &Value) -> Vec<Value> {
    let mut all = json!({ "sub": "alice", "exp": START_MS / 1000 + 3600, "channels": ["*"] });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let token = encode(&Header::default(), &all, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    bench.say(&json!({ "type": "auth", "token": token }))
}

#[test]
fn a_fresh_token_narrows_whatever_state_a_subscription_is_in() {
    let mut bench = Bench::usual();
    // One whose newest event waits for its interval.
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:ticker", "interval": 250 }] }));
    bench.answer(Ok(joined(5, vec![event("a:ticker", 6, None)])));
    bench.take();
    bench.publish("a:ticker", 7);
    // One whose client is slow, one that is being subscribed again, and one in the middle of a replay.
    bench.subscribe("a:trades", 5);
    bench.subscribe("a:again", 5);
    bench.say(&json!({ "type": "subscribe", "channels": [{ "channel": "a:replay", "after": 5 }] }));
    bench.answer(Ok(Joined { recovered: true, live: false, ..joined(5, vec![event("a:replay", 6, None)]) }));
    bench.take_bytes(1);
    bench.solo.session.set_blocked(true);
    for n in 6..500 {
        bench.publish("a:trades", n);
    }
    bench.solo.session.on_text(r#"{"type":"subscribe","id":3,"channels":["a:again","b:1"]}"#, bench.now);
    let told = auth(&mut bench, &json!({ "channels": ["b:*"] }));
    let is_forbidden = |e: &&Value| e["errorCode"] == "CHANNEL_FORBIDDEN" && e["event"] == "unsubscribed";
    let ended: Vec<_> = told.iter().filter(is_forbidden).map(|e| e["channel"].as_str().unwrap()).collect();
    assert_eq!(ended, ["a:again", "a:replay", "a:ticker", "a:trades"]);
    for channel in ended {
        let last = told.iter().rposition(|e| e["channel"] == channel).unwrap();
        let is_answer = told[last]["event"] == "subscribe_error" && told[last]["data"]["id"] == 3;
        assert!(is_answer || told[last]["event"] == "unsubscribed", "nothing comes after its end: {told:?}");
    }
    while bench.joins.front().is_some_and(|(channel, ..)| channel.as_str() != "b:1") {
        bench.answer(Ok(joined(9, vec![event("a:again", 10, None)])));
    }
    bench.publish("a:again", 11);
    bench.answer(Ok(joined(1, Vec::new())));
    expect(&bench.pass(Duration::from_secs(1)), &[("subscribed", 1)]);
    assert_eq!(bench.solo.session.queued_bytes, 0);
}

#[test]
fn a_fresh_token_gives_no_burst_anew() {
    let mut bench = Bench::new(Limits { messages_per_second: 1, burst: 3, ..Limits::default() }, 3600);
    for channels in [7, 8] {
        assert_eq!(auth(&mut bench, &json!({ "limits": { "channels": channels } }))[0]["event"], "authenticated");
    }
    assert_eq!(bench.say(&json!({ "type": "ping" }))[0]["event"], "pong");
    assert_eq!(bench.say(&json!({ "type": "ping" }))[0]["errorCode"], "RATE_LIMITED");
}

#[test]
fn a_fresh_token_changes_limits_at_once() {
    let mut bench = Bench::usual();
    bench.subscribe("a:1", 5);
    bench.subscribe("a:2", 5);
    auth(&mut bench, &json!({ "limits": { "channels": 2, "messagesPerSecond": 1 } }));
    let refused = bench.say(&json!({ "type": "subscribe", "channels": ["a:3"] }));
    assert_eq!(refused[0]["errorCode"], "CHANNEL_LIMIT");
    for _ in 0..3 {
        assert_eq!(bench.say(&json!({ "type": "ping" }))[0]["event"], "pong");
    }
    assert_eq!(
        bench.say(&json!({ "type": "ping" }))[0]["errorCode"],
        "RATE_LIMITED",
        "5 at once, a twentieth of the rate, less what was taken"
    );
    bench.publish("a:1", 6);
    expect(&bench.take(), &[("price_tick", 6)]);
}
