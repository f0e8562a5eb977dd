//! Roles that may do in Redis what `deploy/users.acl` grants them, and nothing else.

use akis_testkit::{RedisOptions, RedisServer};
use serde_json::json;

use crate::system::{Options, SOON, System, token};

const RULES: &str = include_str!("../../deploy/users.acl");

const TRADES: &str = "binance:BTCUSDT:trades";
const JOB: &str = "job:1";

/// The passwords of the test, and what takes the place of their hashes in the file.
const PASSWORDS: [(&str, &str, &str); 2] = [
    ("gateway-password", "GATEWAY_PASSWORD_SHA256", "8f068f0be3b8cc910712eaf7360228c64d116616fdb87d0394c01d3435b680a0"),
    (
        "normalizer-password",
        "NORMALIZER_PASSWORD_SHA256",
        "e28c54cf659d1162b37bcc8a0ee57cb76a0d69dab4f72a9ad3d059f3379a5607",
    ),
];

/// Granted, and used only when something is wrong: memory that has run out, a group left by a reader of the same name,
/// channels that have expired.
const RARE: [&str; 3] = ["xread", "xinfo|consumers", "srem"];

/// What an intruder with the password of a role would want.
const REFUSED: [(&str, &[&str]); 15] = [
    ("akis-gateway", &["SET", "akis:lease:binance", "me"]),
    ("akis-gateway", &["HSET", "{akis:lease:binance}:term", "n", "9"]),
    ("akis-gateway", &["KEYS", "*"]),
    ("akis-gateway", &["FLUSHALL"]),
    ("akis-gateway", &["CONFIG", "GET", "*"]),
    ("akis-gateway", &["GET", "another:application"]),
    ("akis-gateway", &["XDEL", "akis:{p00}:ch:job:1", "1-0"]),
    ("akis-normalizer", &["SET", "akis:{p00}:idem:job:1/x", "1"]),
    ("akis-normalizer", &["SET", "akis:replica:a", "1"]),
    ("akis-normalizer", &["XGROUP", "CREATE", "akis:{p00}:feed", "g", "$"]),
    ("akis-normalizer", &["XREADGROUP", "GROUP", "g", "c", "STREAMS", "akis:{p00}:feed", ">"]),
    ("akis-normalizer", &["FLUSHALL"]),
    ("akis-normalizer", &["SUBSCRIBE", "x"]),
    ("akis-normalizer", &["SSUBSCRIBE", "x"]),
    ("akis-normalizer", &["ACL", "SETUSER", "me"]),
];

async fn redis(directory: &std::path::Path) -> RedisServer {
    let rules = PASSWORDS.iter().fold(RULES.to_owned(), |rules, (_, name, hash)| rules.replace(name, hash));
    let file = directory.join("users.acl");
    std::fs::write(&file, rules).unwrap();
    let args = vec!["--aclfile".to_owned(), file.to_str().unwrap().to_owned()];
    RedisServer::start_with(RedisOptions { args, ..RedisOptions::default() }).await.unwrap()
}

#[tokio::test]
async fn roles_do_all_their_work_with_what_the_file_grants_and_could_do_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let redis = redis(directory.path()).await;
    let url = |user: usize, name: &str| format!("redis://{name}:{}@{}", PASSWORDS[user].0, redis.address());
    let (gateway_url, normalizer_url) = (url(0, "akis-gateway"), url(1, "akis-normalizer"));
    let quiet = Options { gateways: 0, normalizers: 0, kinds: &["candles"], redis: Some(redis), ..Options::default() };
    let system = System::start(quiet).await;
    let publishes = [("AKIS_REDIS__URL", normalizer_url.as_str()), ("AKIS_VENUES__BINANCE__KINDS", "trades,candles")];
    let serves = [("AKIS_REDIS__URL", gateway_url.as_str()), ("AKIS_GATEWAY__DRAIN", "1s")];

    let mut first = system.start_role(&["normalizer"], &publishes).await;
    first.process.wait_for_line("lease taken", SOON).await.unwrap();
    let mut second = system.start_role(&["normalizer"], &publishes).await;
    let mut gateway = system.start_gateway_with(&serves).await;
    system.wait_for_events(TRADES, 10).await;
    let token = token("a", &["*"], &["job:*"]);
    let item = json!({"channel": JOB, "event": "e", "id": "once", "data": {}});
    for _ in 0..2 {
        assert_eq!(gateway.door.publish(&token, &item).await.unwrap().0, 200);
    }
    let mut client = gateway.door.connect(&token).await.unwrap();
    let channels = json!([{"channel": JOB, "after": 0}, {"channel": TRADES, "after": 0}]);
    client.send(&json!({"type": "subscribe", "channels": channels})).await.unwrap();
    client.find(SOON, |envelope| envelope.channel() == JOB && envelope.event() == "e").await.unwrap();
    client.find(SOON, |envelope| envelope.event() == "trade").await.unwrap();
    for path in ["snapshot?channels=job:1&", "history/job:1?", "candles/binance:BTCUSDT:1m?", "channels?prefix=b&"] {
        let url = format!("http://{}/v1/{path}token={token}", gateway.door.address);
        let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    // As a server that was started anew, or a replica that was promoted.
    system.redis.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    let item = json!({"channel": JOB, "event": "e", "data": {}});
    assert_eq!(gateway.door.publish(&token, &item).await.unwrap().0, 200);
    client.find(SOON, |envelope| envelope.event() == "trade").await.unwrap();
    first.process.terminate().unwrap();
    assert!(first.process.wait(SOON).await.unwrap().success());
    second.process.wait_for_line("lease taken", SOON).await.unwrap();
    gateway.role.process.terminate().unwrap();
    assert!(gateway.role.process.wait(SOON).await.unwrap().success());

    assert_eq!(system.redis.command(&["ACL", "LOG"]).await.unwrap().trim(), "", "something was refused");
    let stats = system.redis.command(&["INFO", "commandstats"]).await.unwrap();
    for granted in RULES.split_whitespace().filter_map(|word| word.strip_prefix('+')) {
        let is_used = stats.contains(&format!("cmdstat_{granted}:"));
        assert!(is_used || RARE.contains(&granted), "{granted} is granted, and nobody needs it");
    }
    for (user, command) in REFUSED {
        let asked: Vec<&str> = ["ACL", "DRYRUN", user].iter().chain(command).copied().collect();
        let answer = system.redis.command(&asked).await.unwrap();
        assert!(answer.contains("no permissions"), "{user} may {command:?}: {answer}");
    }
}
