//! Tokens that are signed with keys of somebody else: key files, and key sets that are fetched.

use akis_service::config::{AuthConfig, GatewayConfig, KeyConfig, KeySource};
use akis_testkit::{ConnectError, LiveClient, wait_until};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::bench::{Bench, SOON, ask, next, now_ms, shared_secret, subscribe};
use crate::key_server::{Answer, KeyServer};

/// A token for an hour, signed with a key of `fixtures/keys`.
fn token(kid: &str, pem: &str) -> String {
    let pem = std::fs::read(format!("{}/fixtures/keys/{pem}.pem", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let claims = json!({ "sub": "alice", "exp": now_ms() / 1000 + 3600, "channels": ["*"], "publish": ["*"] });
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
    encode(&header, &claims, &EncodingKey::from_rsa_pem(&pem).unwrap()).unwrap()
}

fn auth(url: &str) -> AuthConfig {
    let source = KeySource::Jwks(url.to_owned());
    let key = KeyConfig { id: "idp".to_owned(), alg: "RS256".to_owned(), source };
    AuthConfig { keys: vec![key], ..AuthConfig::default() }
}

async fn bench(server: &KeyServer) -> Bench {
    Bench::with_auth(auth(&server.url())).await
}

async fn connects(bench: &Bench, token: &str) -> bool {
    match timeout(SOON, LiveClient::connect(&bench.url(), Some(token))).await.unwrap() {
        Ok(_) => true,
        Err(ConnectError::Refused { status: 401, body }) => {
            assert!(body.contains("TOKEN_INVALID"), "{body}");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_made_up_ones_cost_one_fetch() {
    let server = KeyServer::start(Answer::Keys(vec![("k1", "rsa")])).await;
    let bench = bench(&server).await;
    assert!(connects(&bench, &token("k1", "rsa")).await);
    assert!(!connects(&bench, &token("k1", "rsa-other")).await, "a known kid, another key");
    assert_eq!(server.asked(), 1);
    server.answer(Answer::Keys(vec![("k1", "rsa"), ("k2", "rsa-other")]));
    assert!(connects(&bench, &token("k2", "rsa-other")).await, "the new key, at the first try");
    assert!(connects(&bench, &token("k1", "rsa")).await, "the old one as well");
    for n in 0..50 {
        assert!(!connects(&bench, &token(&format!("made up {n}"), "rsa")).await);
    }
    assert_eq!(server.asked(), 2, "within the cool-down nothing more is fetched");
}

#[tokio::test]
async fn an_auth_waits_for_the_key_that_it_names() {
    let server = KeyServer::start(Answer::Keys(vec![("k1", "rsa")])).await;
    let bench = bench(&server).await;
    let mut client = bench.client_with(&token("k1", "rsa")).await;
    server.answer(Answer::Keys(vec![("k2", "rsa-other")]));
    ask(&mut client, json!({ "type": "auth", "id": 1, "token": token("k2", "rsa-other") })).await;
    let answer = next(&mut client).await;
    assert_eq!((answer.event(), answer.data()["id"].as_u64()), ("authenticated", Some(1)), "{answer:?}");
    ask(&mut client, json!({ "type": "auth", "id": 2, "token": token("k3", "rsa") })).await;
    let answer = next(&mut client).await;
    assert_eq!(
        (answer.event(), answer.error_code(), answer.data()["id"].as_u64()),
        ("error", "TOKEN_INVALID", Some(2))
    );
    assert!(!connects(&bench, &token("k1", "rsa")).await, "a key that was taken out is believed no longer");
    subscribe(&mut client, json!("a:b")).await;
}

#[tokio::test]
async fn an_auth_waits_for_the_key_that_it_names_also_where_another_set_was_never_fetched() {
    let broken = KeyServer::start(Answer::Status(503)).await;
    let well = KeyServer::start(Answer::Keys(vec![("k1", "rsa")])).await;
    let mut config = auth(&broken.url());
    config.keys.push(KeyConfig { id: "partner".to_owned(), ..auth(&well.url()).keys.remove(0) });
    let bench = Bench::with_auth(config).await;
    let mut client = bench.client_with(&token("k1", "rsa")).await;
    well.answer(Answer::Keys(vec![("k2", "rsa-other")]));
    ask(&mut client, json!({ "type": "auth", "id": 1, "token": token("k2", "rsa-other") })).await;
    let answer = next(&mut client).await;
    assert_eq!((answer.event(), answer.data()["id"].as_u64()), ("authenticated", Some(1)), "{answer:?}");
    ask(&mut client, json!({ "type": "auth", "id": 2, "token": token("k3", "rsa") })).await;
    let answer = next(&mut client).await;
    assert_eq!((answer.event(), answer.error_code()), ("error", "UPSTREAM_UNAVAILABLE"), "it may be in the other set");
}

#[tokio::test]
async fn the_keys_known_before_stay_good_whatever_the_server_says() {
    let cases = [
        ("redirect", Answer::Redirect),
        ("error", Answer::Status(500)),
        ("created", Answer::Status(201)),
        ("type", Answer::WrongType),
        ("no set", Answer::Bytes(b"{}".to_vec())),
        ("no json", Answer::Bytes(b"<html>".to_vec())),
        ("deep", Answer::Bytes([b"{\"keys\":".to_vec(), vec![b'['; 100_000]].concat())),
        ("huge", Answer::Bytes(vec![b' '; 10 << 20])),
        ("slow", Answer::Hang),
    ];
    let all = cases.map(|(name, answer)| async move {
        let server = KeyServer::start(Answer::Keys(vec![("k1", "rsa")])).await;
        let bench = bench(&server).await;
        server.answer(answer);
        assert!(!connects(&bench, &token("k2", "rsa-other")).await, "{name}");
        assert!(server.asked() >= 2, "{name}");
        assert_eq!(server.followed(), 0, "{name}");
        assert!(connects(&bench, &token("k1", "rsa")).await, "{name}");
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn the_keys_known_before_stay_good_while_the_server_is_away() {
    let server = KeyServer::start(Answer::Keys(vec![("k1", "rsa")])).await;
    let bench = bench(&server).await;
    server.stop().await;
    assert!(!connects(&bench, &token("k2", "rsa-other")).await);
    assert!(connects(&bench, &token("k1", "rsa")).await);
}

#[tokio::test]
async fn a_replica_without_any_key_is_not_ready_and_tries_again() {
    let server = KeyServer::start(Answer::Status(503)).await;
    let bench = Bench::not_ready(GatewayConfig::default(), auth(&server.url())).await;
    let waits = async || bench.gateway.readiness().is_err_and(|why| why.contains("key set"));
    wait_until(SOON, "the missing key set is the reason", waits).await.unwrap();
    let token = token("k1", "rsa");
    let client = reqwest::Client::new();
    for (method, path) in
        [(Method::GET, "/v1/channels"), (Method::GET, "/live/sse?channels=a:b"), (Method::POST, "/v1/publish")]
    {
        let answer = client.request(method, bench.http(path)).bearer_auth(&token).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true), "{path}");
        assert!(answer.text().await.unwrap().contains("UPSTREAM_UNAVAILABLE"), "{path}");
    }
    let refused = LiveClient::connect(&bench.url(), Some(&token)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { status: 503, .. })), "a good token is not at fault");
    server.answer(Answer::Keys(vec![("k1", "rsa")]));
    wait_until(SOON, "the gateway is ready", async || bench.gateway.readiness().is_ok()).await.unwrap();
    assert!(connects(&bench, &token).await);
}

#[tokio::test]
async fn a_token_is_not_at_fault_for_a_set_that_could_not_be_fetched_beside_other_keys() {
    let server = KeyServer::start(Answer::Status(503)).await;
    let auth = AuthConfig { secret: shared_secret().secret, ..auth(&server.url()) };
    let mut config = GatewayConfig::default();
    config.limits.bad_requests = 1;
    let bench = Bench::not_ready(config, auth).await;
    wait_until(SOON, "the secret is enough", async || bench.gateway.readiness().is_ok()).await.unwrap();
    let token = token("k1", "rsa");
    let refused = LiveClient::connect(&bench.url(), Some(&token)).await;
    assert!(matches!(refused, Err(ConnectError::Refused { status: 503, .. })));
    let mut client = bench.client().await;
    for id in 1..=2 {
        ask(&mut client, json!({ "type": "auth", "id": id, "token": token })).await;
        let answer = next(&mut client).await;
        assert_eq!((answer.event(), answer.error_code()), ("error", "UPSTREAM_UNAVAILABLE"), "{answer:?}");
    }
    server.answer(Answer::Keys(vec![("k1", "rsa")]));
    let is_served = async || LiveClient::connect(&bench.url(), Some(&token)).await.is_ok();
    wait_until(SOON, "the set is fetched", is_served).await.unwrap();
    assert!(!connects(&bench, &self::token("k2", "rsa")).await, "from here on a key that is not in it is wrong");
}

#[tokio::test]
async fn fetches_of_each_key_set_are_counted_by_themselves() {
    let broken = KeyServer::start(Answer::Status(503)).await;
    let well = KeyServer::start(Answer::Keys(vec![("k1", "rsa")])).await;
    let mut config = auth(&broken.url());
    config.keys.push(KeyConfig { id: "partner".to_owned(), ..auth(&well.url()).keys.remove(0) });
    let bench = Bench::with_auth(config).await;
    let count = |word: &'static str| bench.metric("key_fetches_total", |label| label == word);
    let both = async || count("idp") >= 1.0 && count("partner") >= 1.0;
    wait_until(SOON, "both have been fetched", both).await.unwrap();
    assert_eq!((count("failed"), count("ok")), (count("idp"), count("partner")));
}

#[tokio::test]
async fn a_handshake_waits_for_the_first_fetch() {
    let server = KeyServer::start(Answer::Hang).await;
    let bench = Bench::not_ready(GatewayConfig::default(), auth(&server.url())).await;
    let (url, token) = (bench.url(), token("k1", "rsa"));
    let connecting = tokio::spawn(async move { LiveClient::connect(&url, Some(&token)).await.is_ok() });
    wait_until(SOON, "the first fetch hangs", async || server.asked() == 1).await.unwrap();
    // The one that hangs is given up after a while; the next one, which the token causes, succeeds.
    server.answer(Answer::Keys(vec![("k1", "rsa")]));
    assert!(connecting.await.unwrap());
}
