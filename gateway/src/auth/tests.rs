use akis_model::Channel;
use akis_service::config::{KeyConfig, KeySource, RoleLimits, Secret};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, encode};
use serde_json::{Value, json};

use super::revoked::{Revocation, parse_entry};
use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW_MS: i64 = 1_000_000_000;

const RSA: &str = include_str!("../../fixtures/keys/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../fixtures/keys/rsa.pub.pem");
const RSA_OTHER: &str = include_str!("../../fixtures/keys/rsa-other.pem");
const EC: &str = include_str!("../../fixtures/keys/ec.pem");
const EC_OTHER: &str = include_str!("../../fixtures/keys/ec-other.pem");
const ED: &str = include_str!("../../fixtures/keys/ed.pem");

fn sign(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn private(alg: Algorithm, pem: &str) -> EncodingKey {
    match alg {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
    }
    .unwrap()
}

/// A good token of `kid`.
fn signed(alg: Algorithm, pem: &str, kid: Option<&str>) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(alg) };
    encode(&header, &claims(), &private(alg, pem)).unwrap()
}

/// A token whose head is this very text, signed all the same.
fn with_head(head: &str, alg: Algorithm, key: &EncodingKey) -> String {
    let message = format!("{}.{}", encoded(head), encoded(&claims().to_string()));
    let signature = crypto::sign(message.as_bytes(), key, alg).unwrap();
    format!("{message}.{signature}")
}

fn with_secret(head: &str) -> String {
    with_head(head, Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn encoded(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

fn claims() -> Value {
    json!({ "sub": "a", "exp": 1_000_100 })
}

fn config() -> AuthConfig {
    AuthConfig { secret: Some(Secret::new(SECRET)), ..AuthConfig::default() }
}

fn pem(id: &str, alg: &str, file: &str) -> KeyConfig {
    let path = format!("{}/fixtures/keys/{file}", env!("CARGO_MANIFEST_DIR"));
    KeyConfig { id: id.to_owned(), alg: alg.to_owned(), source: KeySource::Pem(path.into()) }
}

/// The secret, and a key of each family.
fn all_keys() -> AuthConfig {
    let keys = vec![
        pem("r1", "RS256", "rsa.pub.pem"),
        pem("r2", "RS256", "rsa-other.pub.pem"),
        pem("e1", "ES256", "ec.pub.pem"),
        pem("d1", "EdDSA", "ed.pub.pem"),
    ];
    AuthConfig { keys, ..config() }
}

fn check(config: &AuthConfig, token: &str) -> Result<Grant, AuthError> {
    Authenticator::new(config, &Limits::default()).unwrap().check(token, NOW_MS)
}

#[track_caller]
fn refused(config: &AuthConfig, token: &str, expected: &str) {
    let error = check(config, token).expect_err(expected);
    assert!(error.to_string().contains(expected), "{error} should speak of {expected}");
    assert_eq!(error == AuthError::Expired, expected == "expired");
}

#[test]
fn says_what_is_wrong_with_a_token() {
    let good = sign(&claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let other =
        encode(&Header::new(Algorithm::HS512), &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    for (token, expected) in [
        (String::new(), "not a JWT"),
        ("a.b".to_owned(), "not a JWT"),
        (format!("{good}.x"), "not a JWT"),
        ("x".repeat(9000), "longer than 8 KiB"),
        ("x".repeat(1 << 20), "longer than 8 KiB"),
        (other, "only HS256 is"),
        (format!("{head}.{}", signature.chars().rev().collect::<String>()), "signature"),
        (format!("{head}."), "signature"),
        (sign(&json!({ "exp": 1_000_100 })), "no sub"),
        (sign(&json!({ "sub": "", "exp": 1_000_100 })), "no sub"),
        (sign(&json!({ "sub": "a" })), "no exp"),
        (sign(&json!({ "sub": "a", "exp": "soon" })), "claims"),
        (sign(&json!({ "sub": "a", "exp": -5 })), "exp is no time"),
        (sign(&json!({ "sub": "a", "exp": 1_000_000 })), "expired"),
        (sign(&json!({ "sub": "a", "exp": 1_000_100, "nbf": 1_000_002 })), "nbf"),
        (sign(&json!({ "sub": "a", "exp": 1_000_100, "channels": "a:*" })), "claims"),
        (sign(&json!({ "sub": "a", "exp": 1_000_100, "jti": 5 })), "claims"),
    ] {
        refused(&config(), &token, expected);
    }
    assert_eq!(check(&config(), &good).unwrap().expires_at_ms, 1_000_100_000);
    let fraction = sign(&json!({ "sub": "a", "exp": 1_000_000.5 }));
    assert_eq!(check(&config(), &fraction).unwrap().expires_at_ms, 1_000_000_500);
}

#[test]
fn claims_that_no_json_value_can_hold_are_refused() {
    for text in [
        r#"{"sub":"a","exp":1e400}"#.to_owned(),
        r#"{"sub":"a","sub":"b","exp":1000100}"#.to_owned(),
        r#"{"sub":"a","exp":1000100"#.to_owned(),
        "[".repeat(3000),
        format!("{}{}", "[".repeat(1500), "]".repeat(1500)),
        r#"{"sub":"a","exp":1000100,"aud":{"x":1}}"#.to_owned(),
    ] {
        let message = format!("{}.{}", encoded(r#"{"alg":"HS256"}"#), encoded(&text));
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        refused(&config(), &format!("{message}.{signature}"), "claims");
    }
    let deep = format!("{}.{}.", "[".repeat(100_000), "[".repeat(100_000));
    refused(&config(), &deep, "longer than 8 KiB");
}

#[test]
fn every_family_is_checked_with_the_key_that_the_token_names() {
    let config = all_keys();
    assert!(check(&config, &sign(&claims())).is_ok());
    for (alg, pem, kid) in [
        (Algorithm::RS256, RSA, Some("r1")),
        (Algorithm::RS256, RSA_OTHER, Some("r2")),
        (Algorithm::ES256, EC, Some("e1")),
        (Algorithm::EdDSA, ED, Some("d1")),
        // The only key of its algorithm need not be named.
        (Algorithm::ES256, EC, None),
        (Algorithm::EdDSA, ED, None),
    ] {
        assert_eq!(&*check(&config, &signed(alg, pem, kid)).unwrap().subject, "a", "{alg:?} {kid:?}");
    }
    for (alg, pem, kid, expected) in [
        (Algorithm::RS256, RSA, None, "several keys"),
        (Algorithm::RS256, RSA, Some("r2"), "signature"),
        (Algorithm::RS256, RSA, Some("r3"), "names no key"),
        (Algorithm::RS256, RSA, Some("e1"), "alg is not the one of the key"),
        (Algorithm::ES256, EC, Some("r1"), "alg is not the one of the key"),
        (Algorithm::ES256, EC_OTHER, Some("e1"), "signature"),
        (Algorithm::ES256, EC_OTHER, None, "signature"),
        (Algorithm::RS512, RSA, Some("r1"), "alg is not allowed"),
        (Algorithm::PS256, RSA, Some("r1"), "alg is not allowed"),
    ] {
        refused(&config, &signed(alg, pem, kid), expected);
    }
    let no_secret = AuthConfig { secret: None, ..all_keys() };
    refused(&no_secret, &sign(&claims()), "only ES256 or EdDSA or RS256 is");
}

#[test]
fn the_algorithm_is_never_the_token_s_choice() {
    let config = all_keys();
    for alg in ["none", "None", "nOnE", "NONE", "", "hs256", "RS256 "] {
        let head = encoded(&json!({ "alg": alg }).to_string());
        refused(&config, &format!("{head}.{}.", encoded(&claims().to_string())), "alg is not allowed");
        refused(&config, &with_secret(&json!({ "alg": alg }).to_string()), "alg is not allowed");
    }
    // The public key of RS256 is known to everybody, and must not become a secret of HS256.
    for secret in [RSA_PUBLIC, RSA_PUBLIC.trim_end()] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        for kid in ["\"kid\":\"r1\",", ""] {
            let head = format!("{{{kid}\"alg\":\"HS256\"}}");
            assert!(check(&config, &with_head(&head, Algorithm::HS256, &key)).is_err(), "{head}");
        }
        let no_secret = AuthConfig { secret: None, ..all_keys() };
        refused(&no_secret, &with_head(r#"{"alg":"HS256","kid":"r1"}"#, Algorithm::HS256, &key), "alg is not allowed");
    }
    refused(&config, &with_secret(r#"{"alg":"HS256","kid":"r1"}"#), "alg is not the one of the key");
    refused(&config, &with_secret(r#"{"alg":"RS256","kid":"r1"}"#), "signature");
}

#[test]
fn a_head_points_to_nothing_and_needs_nothing() {
    let config = all_keys();
    for head in [
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","b64":false}"#,
    ] {
        refused(&config, &with_secret(head), "extensions");
    }
    for head in [
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"alg":"HS256","kid":["r1"]}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"kid":"r1"}"#,
        "[]",
        "HS256",
    ] {
        refused(&config, &with_secret(head), "not a JWT");
    }
    // The attacker's own key, in or behind the head.
    let own = json!({ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA" });
    for (name, value) in [
        ("jwk", own),
        ("jku", json!("http://127.0.0.1:1/keys")),
        ("x5u", json!("http://127.0.0.1:1/cert")),
        ("x5c", json!(["MIIB"])),
    ] {
        for kid in [json!("e1"), json!("mine"), Value::Null] {
            let head = json!({ "alg": "ES256", "kid": kid, name: value }).to_string();
            let token = with_head(&head, Algorithm::ES256, &private(Algorithm::ES256, EC_OTHER));
            assert!(check(&config, &token).is_err(), "{head}");
        }
    }
    for kid in ["../../dev/null", "/dev/null", "r1\0", "\0", "", "r1'--", "http://127.0.0.1:1/"] {
        refused(&config, &signed(Algorithm::RS256, RSA, Some(kid)), "names no key");
        let empty = EncodingKey::from_secret(b"");
        let head = json!({ "alg": "HS256", "kid": kid }).to_string();
        refused(&config, &with_head(&head, Algorithm::HS256, &empty), "signature");
    }
    refused(&config, &signed(Algorithm::RS256, RSA, Some(&"k".repeat(1 << 20))), "longer than 8 KiB");
    let deep = format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000));
    assert!(check(&config, &with_secret(&deep)).is_ok(), "what is not needed is skipped, however deep it is");
}

#[test]
fn key_files_that_cannot_work_are_named_at_the_start() {
    for (alg, file, expected) in [
        ("ES256", "rsa.pub.pem", "is no key for ES256"),
        ("RS256", "ec.pub.pem", "is no key for RS256"),
        ("ES256", "ec-384.pub.pem", "of another curve"),
        ("EdDSA", "ec.pub.pem", "is no key for EdDSA"),
        ("RS256", "rsa-short.pub.pem", "fewer than 2048 bits"),
        ("RS256", "rsa.pem", "is no public key"),
        ("RS256", "nothing.pem", "cannot be read"),
    ] {
        let config = AuthConfig { keys: vec![pem("k", alg, file)], ..AuthConfig::default() };
        let mistakes = check_keys(&config);
        assert!(mistakes.len() == 1 && mistakes[0].contains(expected), "{mistakes:?} should speak of {expected}");
        assert!(matches!(Authenticator::new(&config, &Limits::default()), Err(GatewayError::Keys(_))));
    }
    assert!(check_keys(&all_keys()).is_empty());
}

#[test]
fn a_key_set_gives_what_fits_its_algorithm_and_nothing_else() {
    let known: Value = serde_json::from_str(include_str!("../../fixtures/keys/jwk.json")).unwrap();
    let with = |name: &str, changes: Value| {
        let mut jwk = known[name].clone();
        jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        jwk
    };
    let set = json!({ "keys": [
        with("rsa", json!({ "kid": "good" })),
        with("rsa-other", json!({ "kid": "also", "alg": "RS256", "use": "sig", "key_ops": ["verify"] })),
        with("rsa", json!({})),
        with("rsa-other", json!({ "kid": "good" })),
        with("rsa", json!({ "kid": "other alg", "alg": "RS512" })),
        with("rsa", json!({ "kid": "for encryption", "use": "enc" })),
        with("rsa", json!({ "kid": "for signing", "key_ops": ["sign"] })),
        with("rsa", json!({ "kid": "short", "n": "AQAB" })),
        with("rsa", json!({ "kid": "no number", "n": "!" })),
        with("ec", json!({ "kid": "ec", "alg": "RS256" })),
        with("ed", json!({ "kid": "ed" })),
        { "kty": "oct", "kid": "shared", "alg": "RS256", "k": "AAAA" },
        { "kty": "oct", "kid": "hs", "alg": "HS256", "k": "AAAA" },
        { "kty": "new", "kid": "new" },
        { "kid": 5 },
        "text",
    ]});
    let parsed = key::parse_set(Algorithm::RS256, "the id", set.to_string().as_bytes()).unwrap();
    let mut kids: Vec<&str> = parsed.keys.keys().map(String::as_str).collect();
    kids.sort_unstable();
    assert_eq!((kids, parsed.left_out), (vec!["also", "good", "the id"], 13));
    assert!(parsed.keys["good"].verify(&signed(Algorithm::RS256, RSA, None)).is_ok(), "the first of two");
    for (algorithm, name, pem) in [(Algorithm::ES256, "ec", EC), (Algorithm::EdDSA, "ed", ED)] {
        let text = json!({ "keys": [known[name]] }).to_string();
        let parsed = key::parse_set(algorithm, "k", text.as_bytes()).unwrap();
        assert!(parsed.keys["k"].verify(&signed(algorithm, pem, None)).is_ok());
    }
    let curve = json!({ "keys": [with("ec", json!({ "crv": "P-384" }))] }).to_string();
    assert!(key::parse_set(Algorithm::ES256, "k", curve.as_bytes()).unwrap().keys.is_empty());
    for text in ["", "{}", "[]", "null", r#"{"keys":{}}"#, "<html>"] {
        assert!(key::parse_set(Algorithm::RS256, "k", text.as_bytes()).is_err(), "{text}");
    }
    let many: Vec<Value> = (0..300).map(|n| with("ec", json!({ "kid": n.to_string() }))).collect();
    let parsed = key::parse_set(Algorithm::ES256, "k", json!({ "keys": many }).to_string().as_bytes()).unwrap();
    assert_eq!(parsed.keys.len(), 100);
}

fn revocation(data: &Value) -> Revocation {
    Revocation::parse("revoke", &data.to_string()).unwrap().unwrap()
}

#[test]
fn a_revocation_names_one_token_or_one_subject_and_ends() {
    let auth = Authenticator::new(&config(), &Limits::default()).unwrap();
    let token = |sub: &str, jti: Option<&str>| sign(&json!({ "sub": sub, "exp": 2_000_000, "jti": jti }));
    let is_revoked = |token: &str, now_ms| auth.check(token, now_ms).is_err_and(|error| error == AuthError::Revoked);
    auth.revocations().add(revocation(&json!({ "jti": "t1", "until": NOW_MS + 1000 })), NOW_MS);
    auth.revocations().add(revocation(&json!({ "sub": "bob", "until": NOW_MS + 1000 })), NOW_MS);
    auth.revocations().add(revocation(&json!({ "sub": "carol", "until": NOW_MS })), NOW_MS);
    for (sub, jti, expected) in [
        ("alice", Some("t1"), true),
        ("alice", Some("t2"), false),
        ("alice", None, false),
        ("t1", None, false),
        ("bob", Some("t3"), true),
        ("bob", None, true),
        ("bobby", None, false),
        ("alice", Some("bob"), false),
        ("carol", None, false),
    ] {
        assert_eq!(is_revoked(&token(sub, jti), NOW_MS), expected, "{sub} {jti:?}");
    }
    assert_eq!(AuthError::Revoked.code(), ErrorCode::TokenInvalid);
    assert!(!is_revoked(&token("bob", None), NOW_MS + 1000), "over, whether forgotten or not");
    assert_eq!(auth.revocations().version(), 2, "one that is over changes nothing");
    assert_eq!(auth.revocations().forget_past(NOW_MS + 999), 2);
    assert_eq!(auth.revocations().forget_past(NOW_MS + 1000), 0);
    // The longer of two holds.
    auth.revocations().add(revocation(&json!({ "sub": "bob", "until": NOW_MS + 500 })), NOW_MS);
    auth.revocations().add(revocation(&json!({ "sub": "bob", "until": NOW_MS + 100 })), NOW_MS);
    assert!(is_revoked(&token("bob", None), NOW_MS + 400));
}

#[test]
fn what_is_no_revocation_is_refused() {
    for data in [
        json!({}),
        json!({ "until": 5 }),
        json!({ "jti": "a" }),
        json!({ "jti": "a", "sub": "b", "until": 5 }),
        json!({ "jti": 5, "until": 5 }),
        json!({ "sub": "a", "until": "later" }),
        json!({ "sub": "a", "until": 1e300 }),
    ] {
        assert!(check_event("akis:control:revoke", "revoke", &data.to_string()).is_err(), "{data}");
        assert!(check_event("job:1", "revoke", &data.to_string()).is_ok(), "other channels are free");
        let body = format!(r#""ts":1,"event":"revoke","channel":"akis:control:revoke","ok":true,"data":{data}}}"#);
        assert!(parse_entry(body.as_bytes()).unwrap().is_err());
    }
    assert!(parse_entry(b"nonsense").unwrap().is_err());
    assert!(check_event("akis:control:revoke", "note", "{}").is_ok(), "other events mean nothing");
    assert!(parse_entry(br#""ts":1,"event":"note","channel":"a:b","ok":true,"data":{}}"#).is_none());
}

#[test]
fn revocations_take_bounded_memory_and_the_shortest_give_way() {
    let auth = Authenticator::new(&config(), &Limits::default()).unwrap();
    let name = |n: usize| format!("{n:060000}");
    let pushed_out: usize = (0..300_usize)
        .map(|n| {
            let until = NOW_MS + 1_000_000 - n as i64;
            auth.revocations().add(revocation(&json!({ "sub": name(n), "until": until })), NOW_MS)
        })
        .sum();
    let left = auth.revocations().forget_past(NOW_MS);
    assert_eq!(left + pushed_out, 300);
    assert!((200..280).contains(&left), "{left} of 60 KB each in 16 MiB");
    let first = sign(&json!({ "sub": "short", "exp": 2_000_000 }));
    assert!(auth.check(&first, NOW_MS).is_ok());
}

#[test]
fn issuer_and_audience_are_checked_where_configured() {
    let config = AuthConfig { issuer: Some("me".into()), audience: Some("you".into()), ..config() };
    let token = |iss: Value, aud: Value| sign(&json!({ "sub": "a", "exp": 2_000_000, "iss": iss, "aud": aud }));
    assert!(check(&config, &token(json!("me"), json!("you"))).is_ok());
    assert!(check(&config, &token(json!("me"), json!(["x", "you"]))).is_ok());
    assert!(check(&config, &token(json!("x"), json!("you"))).is_err());
    assert!(check(&config, &token(json!("me"), json!("x"))).is_err());
    assert!(check(&config, &sign(&json!({ "sub": "a", "exp": 2_000_000 }))).is_err());
}

#[test]
fn roles_add_patterns_and_a_token_lowers_limits() {
    let role = Role {
        channels: vec!["binance:*".into()],
        publish: vec!["job:{sub}:*".into()],
        limits: RoleLimits { channels: Some(50), messages_per_second: None },
    };
    let config = AuthConfig { roles: [("desk".to_owned(), role)].into(), ..config() };
    let grant = |limits: Value| {
        let claims =
            json!({ "sub": "a", "exp": 2_000_000, "channels": ["x:y"], "roles": ["desk", "?"], "limits": limits });
        check(&config, &sign(&claims)).unwrap()
    };
    let allowed = grant(json!({}));
    let channel = |name| Channel::parse(name).unwrap();
    assert!(allowed.channels.allows(&channel("binance:X:book")));
    assert!(allowed.channels.allows(&channel("x:y")));
    assert!(!allowed.channels.allows(&channel("x:z")));
    assert!(allowed.publish.allows(&channel("job:a:1")));
    assert!(!allowed.publish.allows(&channel("x:y")));
    assert_eq!(allowed.limits, GrantLimits { channels: 50, messages_per_second: 20, burst: 100 });
    let lowered = grant(json!({ "channels": 3, "messagesPerSecond": 2 })).limits;
    assert_eq!(lowered, GrantLimits { channels: 3, messages_per_second: 2, burst: 10 });
    let raised = grant(json!({ "channels": 300, "messagesPerSecond": 2000 })).limits;
    assert_eq!(raised, allowed.limits, "a token cannot raise what the server allows");
    assert_eq!(grant(json!({ "channels": 1_u64 << 40, "messagesPerSecond": u64::MAX })).limits, allowed.limits);
}

#[test]
fn limits_from_several_places_only_lower() {
    let role = |channels, messages_per_second| Role {
        limits: RoleLimits { channels, messages_per_second },
        ..Role::default()
    };
    let roles = [
        ("small".to_owned(), role(Some(3), Some(4))),
        ("middle".to_owned(), role(Some(30), None)),
        ("large".to_owned(), role(Some(5000), Some(5000))),
        ("plain".to_owned(), role(None, None)),
    ];
    let config = AuthConfig { roles: roles.into(), ..config() };
    for (roles, claimed, expected) in [
        (json!([]), json!({}), (200, 20, 100)),
        (json!(["plain"]), json!({}), (200, 20, 100)),
        (json!(["small"]), json!({}), (3, 4, 20)),
        (json!(["small", "plain"]), json!({}), (3, 4, 20)),
        (json!(["small", "middle"]), json!({}), (30, 4, 20)),
        (json!(["large"]), json!({}), (200, 20, 100)),
        (json!(["small", "large"]), json!({}), (200, 20, 100)),
        (json!(["small"]), json!({ "channels": 2, "messagesPerSecond": 1 }), (2, 1, 5)),
        (json!(["small"]), json!({ "channels": 100, "messagesPerSecond": 100 }), (3, 4, 20)),
        (json!(["large"]), json!({ "channels": 4000, "messagesPerSecond": 4000 }), (200, 20, 100)),
        (json!(["middle"]), json!({ "channels": 0, "messagesPerSecond": 0 }), (0, 1, 5)),
    ] {
        let claims = json!({ "sub": "a", "exp": 2_000_000, "roles": roles, "limits": claimed });
        let GrantLimits { channels, messages_per_second, burst } = check(&config, &sign(&claims)).unwrap().limits;
        assert_eq!((channels, messages_per_second, burst), expected, "{roles} {claimed}");
    }
}
