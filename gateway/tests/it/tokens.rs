//! Tokens that end, are renewed and are narrowed while a client is connected.

use akis_service::config::{AuthConfig, GatewayConfig, Role, RoleLimits, Secret};
use serde_json::json;

use crate::bench::{Bench, SECRET, SOON, ask, next, now_ms, subscribe, token};

#[tokio::test]
async fn an_expired_token_ends_channels_and_a_fresh_one_is_taken() {
    let bench = Bench::start().await;
    let short = token(json!({ "exp": now_ms() / 1000 + 2 }));
    let mut client = bench.client_with(&short).await;
    assert_eq!(next(&mut client).await.event(), "token_expiring");
    subscribe(&mut client, json!("a:b")).await;
    let ended = next(&mut client).await;
    assert_eq!((ended.event(), ended.error_code(), ended.channel()), ("unsubscribed", "TOKEN_EXPIRED", "a:b"));
    bench.append("a:b", 1).await;
    ask(&mut client, json!({ "type": "subscribe", "channels": ["a:b"] })).await;
    assert_eq!(next(&mut client).await.error_code(), "TOKEN_EXPIRED", "and no event came");
    let fresh = now_ms() / 1000 + 3600;
    ask(&mut client, json!({ "type": "auth", "id": 1, "token": token(json!({ "exp": fresh })) })).await;
    let answer = next(&mut client).await;
    assert_eq!(answer.event(), "authenticated");
    assert_eq!(answer.data(), &json!({ "id": 1, "tokenExpiresAt": fresh * 1000, "ended": [] }));
    subscribe(&mut client, json!("a:b")).await;
}

#[tokio::test]
async fn without_a_fresh_token_the_socket_closes() {
    let bench = Bench::start().await;
    let mut client = bench.client_with(&token(json!({ "exp": now_ms() / 1000 + 1 }))).await;
    assert_eq!(client.closed(SOON).await.unwrap(), 4401);
    assert!(client.received().iter().any(|e| e.event() == "token_expiring"));
}

#[tokio::test]
async fn a_narrower_token_ends_exactly_what_it_no_longer_allows() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    for name in ["a:1", "a:2", "b:1"] {
        subscribe(&mut client, json!(name)).await;
    }
    ask(&mut client, json!({ "type": "auth", "token": token(json!({ "channels": ["b:*", "a:2"] })) })).await;
    let ended = next(&mut client).await;
    assert_eq!((ended.channel(), ended.error_code()), ("a:1", "CHANNEL_FORBIDDEN"));
    assert_eq!(next(&mut client).await.data()["ended"], json!(["a:1"]));
    bench.append("a:1", 1).await;
    bench.append("a:2", 1).await;
    bench.append("b:1", 1).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let envelope = next(&mut client).await;
        assert_ne!(envelope.channel(), "a:1");
        if envelope.event() == "test_event" {
            seen.push(envelope.channel().to_owned());
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["a:2", "b:1"]);
    for (bad, code) in [
        (token(json!({ "sub": "bob" })), "TOKEN_INVALID"),
        (token(json!({ "exp": 1 })), "TOKEN_EXPIRED"),
        ("nonsense".to_owned(), "TOKEN_INVALID"),
    ] {
        ask(&mut client, json!({ "type": "auth", "id": 5, "token": bad })).await;
        let error = next(&mut client).await;
        assert_eq!((error.event(), error.error_code()), ("error", code));
        assert_eq!(error.data()["id"], 5);
    }
    bench.append("b:1", 2).await;
    assert_eq!(next(&mut client).await.channel(), "b:1", "the old token is still in force");
}

#[tokio::test]
async fn limits_of_a_token_are_announced_and_kept() {
    let bench = Bench::start().await;
    let lowered = token(json!({ "limits": { "channels": 1, "messagesPerSecond": 2 } }));
    let mut client = bench.client_with(&lowered).await;
    let limits = client.received()[0].data()["limits"].clone();
    assert_eq!((&limits["channels"], &limits["messagesPerSecond"]), (&json!(1), &json!(2)));
    ask(&mut client, json!({ "type": "subscribe", "channels": ["a:1", "a:2"] })).await;
    assert_eq!(next(&mut client).await.event(), "subscribed");
    assert_eq!(next(&mut client).await.error_code(), "CHANNEL_LIMIT");
}

#[tokio::test]
async fn limits_of_configuration_role_and_token_only_lower() {
    let mut config = GatewayConfig::default();
    config.limits.channels = 4;
    let role = |channels| Role {
        limits: RoleLimits { channels: Some(channels), messages_per_second: None },
        ..Role::default()
    };
    let roles = [("small".to_owned(), role(3)), ("large".to_owned(), role(400))].into();
    let auth = AuthConfig { secret: Some(Secret::new(SECRET)), roles, ..AuthConfig::default() };
    let bench = Bench::not_ready(config, auth).await;
    bench.wait_until_ready().await;
    for (roles, claimed, expected) in
        [(json!([]), 9, 4), (json!(["large"]), 500, 4), (json!(["small"]), 9, 3), (json!(["small"]), 2, 2)]
    {
        let lowered = token(json!({ "roles": roles, "limits": { "channels": claimed } }));
        let mut client = bench.client_with(&lowered).await;
        assert_eq!(client.received()[0].data()["limits"]["channels"], expected, "{roles} {claimed}");
        let channels: Vec<String> = (0..=expected).map(|n| format!("a:{n}")).collect();
        ask(&mut client, json!({ "type": "subscribe", "channels": channels })).await;
        for _ in 0..expected {
            assert_eq!(next(&mut client).await.event(), "subscribed", "{roles} {claimed}");
        }
        assert_eq!(next(&mut client).await.error_code(), "CHANNEL_LIMIT", "{roles} {claimed}");
    }
}

#[tokio::test]
async fn a_huge_token_is_refused_wherever_it_comes_and_harms_nobody() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    ask(&mut client, json!({ "type": "auth", "id": 1, "token": "x".repeat(60 << 10) })).await;
    assert_eq!(next(&mut client).await.error_code(), "TOKEN_INVALID");
    let http = reqwest::Client::new();
    let in_header = http.post(bench.http("/v1/publish")).bearer_auth("x".repeat(12 << 10)).send().await.unwrap();
    assert_eq!(in_header.status(), 401);
    for size in [60 << 10, 1 << 20] {
        let url = bench.http(&format!("/v1/publish?token={}", "x".repeat(size)));
        // A head of this size is refused before it is read to its end, so the answer may get lost on the way.
        if let Ok(answer) = http.post(url).send().await {
            assert!([414, 431].contains(&answer.status().as_u16()), "{}", answer.status());
        }
    }
    subscribe(&mut client, json!("a:b")).await;
}
