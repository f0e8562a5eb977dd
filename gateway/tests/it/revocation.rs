//! Tokens that are revoked: by their own id or by their subject, on every replica, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_eventlog::{MemoryStore, Store};
use akis_testkit::{ConnectError, Envelope, LiveClient};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::bench::{Bench, SOON, ask, next, now_ms, subscribe, token};

/// The promise: from the answer to the publisher to the client's end.
const WITHIN: Duration = Duration::from_secs(1);

async fn replica(store: &Arc<MemoryStore>) -> Bench {
    Bench::on(Arc::clone(store), Arc::clone(store) as Arc<dyn Store>, |_| {}).await
}

async fn publish(bench: &Bench, token: &str, data: &Value) -> StatusCode {
    let event = json!({ "channel": "akis:control:revoke", "event": "revoke", "data": data });
    let request = reqwest::Client::new().post(bench.http("/v1/publish")).bearer_auth(token).json_text(&event);
    request.send().await.unwrap().status()
}

trait JsonText {
    fn json_text(self, value: &Value) -> Self;
}

impl JsonText for reqwest::RequestBuilder {
    fn json_text(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }
}

fn admin() -> String {
    token(json!({ "sub": "admin", "publish": ["akis:control:revoke"] }))
}

/// Checks that everything of the client ends in time, in whatever order.
async fn all_end(client: &mut LiveClient, channels: &[&str], since: Instant) {
    let mut left: Vec<&str> = channels.to_vec();
    while !left.is_empty() {
        let ended: Envelope = next(client).await;
        assert_eq!((ended.event(), ended.error_code()), ("unsubscribed", "TOKEN_INVALID"), "{ended:?}");
        left.retain(|channel| *channel != ended.channel());
    }
    assert!(since.elapsed() < WITHIN, "{:?}", since.elapsed());
}

async fn refusal(bench: &Bench, token: &str) -> String {
    match LiveClient::connect(&bench.url(), Some(token)).await {
        Err(ConnectError::Refused { status: 401, body }) => body,
        other => panic!("{:?}", other.map(|_| "connected")),
    }
}

#[tokio::test]
async fn a_revoked_token_ends_on_every_replica_and_no_other() {
    let store = MemoryStore::new(4);
    let (here, there) = (replica(&store).await, replica(&store).await);
    let named = token(json!({ "jti": "t1" }));
    let other = token(json!({ "jti": "t2" }));
    let mut on_here = here.client_with(&named).await;
    let mut on_there = there.client_with(&named).await;
    let mut stays = there.client_with(&other).await;
    for client in [&mut on_here, &mut on_there, &mut stays] {
        subscribe(client, json!("a:1")).await;
        subscribe(client, json!("a:2")).await;
    }
    let began = Instant::now();
    assert_eq!(publish(&here, &admin(), &json!({ "jti": "t1", "until": now_ms() + 60_000 })).await, 200);
    all_end(&mut on_here, &["a:1", "a:2"], began).await;
    all_end(&mut on_there, &["a:1", "a:2"], began).await;
    here.append("a:1", 1).await;
    while next(&mut stays).await.event() != "test_event" {}

    ask(&mut on_there, json!({ "type": "subscribe", "channels": ["a:1"] })).await;
    assert_eq!(next(&mut on_there).await.error_code(), "TOKEN_INVALID", "and no event came");
    ask(&mut on_there, json!({ "type": "auth", "token": named })).await;
    let answer = next(&mut on_there).await;
    assert_eq!((answer.event(), answer.error_code()), ("error", "TOKEN_INVALID"));
    ask(&mut on_there, json!({ "type": "auth", "token": other })).await;
    assert_eq!(next(&mut on_there).await.event(), "authenticated", "within the time that the socket stays");
    subscribe(&mut on_there, json!("a:1")).await;

    let late = replica(&store).await;
    for bench in [&here, &there, &late] {
        let body = refusal(bench, &named).await;
        assert!(body.contains("TOKEN_INVALID") && body.contains("revoked"), "{body}");
        assert_eq!(publish(bench, &named, &json!({})).await, 401);
        bench.client_with(&other).await;
    }
}

#[tokio::test]
async fn a_revoked_subject_loses_all_its_tokens_until_the_moment_named() {
    let bench = Bench::start().await;
    let (first, second) = (token(json!({ "sub": "bob", "jti": "x" })), token(json!({ "sub": "bob" })));
    let mut clients = [bench.client_with(&first).await, bench.client_with(&second).await];
    let mut stays = bench.client_with(&token(json!({ "sub": "bobby", "jti": "bob" }))).await;
    for client in &mut clients {
        subscribe(client, json!("a:1")).await;
    }
    subscribe(&mut stays, json!("a:1")).await;
    let began = Instant::now();
    let until = now_ms() + 2000;
    assert_eq!(publish(&bench, &admin(), &json!({ "sub": "bob", "until": until })).await, 200);
    for client in &mut clients {
        all_end(client, &["a:1"], began).await;
    }
    assert!(refusal(&bench, &second).await.contains("revoked"));
    bench.append("a:1", 1).await;
    while next(&mut stays).await.event() != "test_event" {}
    let good_again = async || now_ms() >= until && LiveClient::connect(&bench.url(), Some(&second)).await.is_ok();
    akis_testkit::wait_until(SOON, "the revocation is over", good_again).await.unwrap();
}

#[tokio::test]
async fn only_who_may_revokes_and_only_what_can_be_understood() {
    let bench = Bench::start().await;
    let wide = token(json!({ "publish": ["*", "akis:*", "akis:control:*"] }));
    let good = json!({ "jti": "t1", "until": now_ms() + 60_000 });
    assert_eq!(publish(&bench, &wide, &good).await, 403, "wildcards do not reach the reserved channel");
    for bad in [
        json!({}),
        json!({ "jti": "t1" }),
        json!({ "jti": "t1", "sub": "a", "until": 5 }),
        json!({ "jti": 1, "until": 5 }),
    ] {
        assert_eq!(publish(&bench, &admin(), &bad).await, 400, "{bad}");
    }
    // What came into the log by another way is skipped.
    bench.append_data("akis:control:revoke", &json!({ "until": "x" })).await;
    assert_eq!(publish(&bench, &admin(), &good).await, 200);
    let ended = async || LiveClient::connect(&bench.url(), Some(&token(json!({ "jti": "t1" })))).await.is_err();
    akis_testkit::wait_until(SOON, "the good one counts", ended).await.unwrap();
}
