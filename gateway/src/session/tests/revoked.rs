//! The token is revoked while the session lasts.

use super::*;
use crate::auth::Revocation;

fn revoke(bench: &Bench, data: &Value) {
    let revocation = Revocation::parse("revoke", &data.to_string()).unwrap().unwrap();
    bench.solo.session.surroundings.auth.revocations().add(revocation, bench.now.unix_ms);
}

fn named(jti: &str) -> String {
    let claims = json!({ "sub": "alice", "exp": START_MS / 1000 + 3600, "channels": ["*"], "jti": jti });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn auth(bench: &mut Bench, jti: &str) -> Value {
    bench.say(&json!({ "type": "auth", "token": named(jti) })).remove(0)
}

#[test]
fn all_channels_end_and_after_a_while_the_socket() {
    let mut bench = Bench::usual();
    bench.subscribe("a:1", 5);
    bench.subscribe("a:2", 5);
    bench.say(&json!({ "type": "subscribe", "channels": ["a:3"] }));
    bench.publish("a:1", 6);
    revoke(&bench, &json!({ "sub": "alice", "until": START_MS + 60_000 }));
    let told = bench.pass(Duration::ZERO);
    let ended: Vec<_> =
        told.iter().map(|e| (e["channel"].as_str().unwrap(), e["errorCode"].as_str().unwrap())).collect();
    assert_eq!(ended, [("a:1", "TOKEN_INVALID"), ("a:2", "TOKEN_INVALID"), ("a:3", "TOKEN_INVALID")], "{told:?}");
    assert_eq!(bench.left.len(), 3);
    let refused = bench.say(&json!({ "type": "subscribe", "channels": ["a:1"] }));
    assert_eq!((&refused[0]["event"], &refused[0]["errorCode"]), (&json!("subscribe_error"), &json!("TOKEN_INVALID")));
    bench.pass(Duration::from_millis(9_999));
    assert_eq!(bench.solo.session.closing(), None);
    assert!(bench.solo.session.deadline(bench.now) <= bench.now.instant + Duration::from_millis(1));
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.solo.session.closing(), Some(CloseCode::Token));
}

#[test]
fn another_token_of_the_subject_saves_the_session() {
    let mut bench = Bench::usual();
    assert_eq!(auth(&mut bench, "t1")["event"], "authenticated");
    bench.subscribe("a:1", 5);
    revoke(&bench, &json!({ "jti": "t0", "until": START_MS + 60_000 }));
    assert_eq!(bench.pass(Duration::ZERO), Vec::<Value>::new(), "another token is meant");
    revoke(&bench, &json!({ "jti": "t1", "until": START_MS + 60_000 }));
    expect(&bench.pass(Duration::ZERO), &[("unsubscribed", 0)]);
    assert_eq!(auth(&mut bench, "t1")["errorCode"], "TOKEN_INVALID");
    assert_eq!(auth(&mut bench, "t2")["event"], "authenticated");
    bench.subscribe("a:1", 6);
    bench.pass(Duration::from_secs(4));
    bench.pass(Duration::from_secs(11));
    assert_eq!(bench.solo.session.closing(), None);
}

#[test]
fn a_session_that_begins_between_check_and_revocation_ends_too() {
    let mut bench = Bench::usual();
    revoke(&bench, &json!({ "sub": "alice", "until": START_MS + 60_000 }));
    let (surroundings, grant) = (Arc::clone(&bench.solo.session.surroundings), bench.solo.session.grant.clone());
    bench.solo.session = Session::new(surroundings, grant, "r-2", bench.now);
    assert_eq!(bench.take().remove(0)["event"], "welcome");
    let refused = bench.say(&json!({ "type": "subscribe", "channels": ["a:1"] }));
    assert_eq!(refused[0]["errorCode"], "TOKEN_INVALID");
}
