//! `POST /v1/publish`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::bench::{Bench, next, subscribe, token};

async fn post(bench: &Bench, token: &str, body: &Value) -> (StatusCode, Value) {
    post_text(bench, token, "application/json", body.to_string()).await
}

async fn post_text(bench: &Bench, token: &str, content_type: &str, body: String) -> (StatusCode, Value) {
    let request = reqwest::Client::new().post(bench.http("/v1/publish"));
    let request = request.bearer_auth(token).header("content-type", content_type).body(body);
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

fn item(channel: &str) -> Value {
    json!({ "channel": channel, "event": "job_progress", "data": { "progress": 5 } })
}

#[tokio::test]
async fn one_event_reaches_subscribers_once_however_often_it_is_sent() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    subscribe(&mut client, json!("job:1")).await;
    let token = token(json!({}));
    let sent = json!({ "channel": "job:1", "event": "job_progress", "data": { "progress": 5 }, "ts": 77, "id": "x" });
    let (status, answer) = post(&bench, &token, &sent).await;
    assert_eq!(status, 200);
    let (_, again) = post(&bench, &token, &sent).await;
    assert_eq!(again, answer, "the first seq, and nothing is added");
    let (_, other) = post(&bench, &token, &item("job:1")).await;
    assert_eq!(next(&mut client).await.event(), "term");
    let event = next(&mut client).await;
    assert_eq!(event.0["seq"], answer["seq"]);
    assert_eq!(event.0["ts"], 77);
    assert_eq!(event.data(), &json!({ "progress": 5 }));
    assert_eq!(next(&mut client).await.0["seq"], other["seq"]);
}

#[tokio::test]
async fn many_events_have_a_result_each() {
    let bench = Bench::start().await;
    let token = token(json!({ "publish": ["job:*", "*", "akis:control:revoke"] }));
    let sent = json!([
        item("job:1"),
        item("binance:BTCUSDT:ticker"),
        item("nope"),
        { "channel": "job:1", "event": "gap", "data": {} },
        { "channel": "job:1", "event": "x", "data": [] },
        { "channel": "job:1", "event": "x", "data": {}, "ts": -1 },
        { "channel": "job:1", "event": "", "data": {} },
        7,
        ["job:1", "e", {}, 5, "k"],
        item("akis:control:other"),
        item("akis:control:revoke"),
        { "channel": "job:1", "event": "x", "data": { "big": "x".repeat(64 << 10) } },
        item("job:1"),
    ]);
    let (status, answer) = post(&bench, &token, &sent).await;
    assert_eq!(status, 200);
    let codes: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|r| r["errorCode"].as_str().unwrap_or("")).collect();
    let expected = [
        "",
        "CHANNEL_FORBIDDEN",
        "BAD_CHANNEL",
        "BAD_REQUEST",
        "BAD_REQUEST",
        "BAD_REQUEST",
        "BAD_REQUEST",
        "BAD_REQUEST",
        "BAD_REQUEST",
        "CHANNEL_FORBIDDEN",
        "",
        "BAD_REQUEST",
        "",
    ];
    assert_eq!(codes, expected, "{answer}");
    let seq = |i: usize| answer["results"][i]["seq"].as_u64().unwrap();
    assert_eq!(seq(12), seq(0) + 1);
    assert_eq!(answer["results"][1]["channel"], "binance:BTCUSDT:ticker");
}

#[tokio::test]
async fn refusals_have_their_status() {
    let bench = Bench::with(|config| config.limits.publish_per_second = 10).await;
    let all = token(json!({}));
    let reader = token(json!({ "publish": null, "sub": "bob" }));
    let big = json!({ "channel": "job:1", "event": "x", "data": { "big": "x".repeat(64 << 10) } });
    for (token, body, status, code) in [
        (&reader, item("job:1"), 403, "CHANNEL_FORBIDDEN"),
        (&all, item("system"), 400, "BAD_CHANNEL"),
        (&all, item("bist:THYAO:book"), 403, "CHANNEL_FORBIDDEN"),
        (&all, json!({ "channel": "job:1" }), 400, "BAD_REQUEST"),
        (&all, big, 413, "BAD_REQUEST"),
    ] {
        let (answered, problem) = post(&bench, token, &body).await;
        assert_eq!((answered.as_u16(), problem["errorCode"].as_str()), (status, Some(code)), "{problem}");
    }
    for (content_type, body, status) in [
        ("text/plain", "{}".to_owned(), 415),
        ("application/cloudevents+json", "{}".to_owned(), 400),
        ("application/xml", "{}".to_owned(), 415),
        ("application/json; charset=utf-8", "{".to_owned(), 400),
        ("application/json", format!("\"{}\"", "x".repeat(2 << 20)), 413),
    ] {
        let (answered, problem) = post_text(&bench, &all, content_type, body).await;
        assert_eq!(answered.as_u16(), status, "{problem}");
    }
    let compressed = reqwest::Client::new().post(bench.http("/v1/publish")).bearer_auth(&all);
    let compressed = compressed.header("content-type", "application/json").header("content-encoding", "gzip");
    let answered = compressed.body(vec![0x1f, 0x8b, 0xff]).send().await.unwrap();
    assert_eq!(
        (answered.status().as_u16(), &answered.headers()["accept-encoding"]),
        (415, &"identity".parse().unwrap())
    );
    let carol = token(json!({ "sub": "carol" }));
    let fifteen = json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(post(&bench, &carol, &fifteen).await.0, 200);
    let (answered, problem) = post(&bench, &carol, &fifteen).await;
    assert_eq!(
        (answered.as_u16(), problem["errorCode"].as_str()),
        (429, Some("RATE_LIMITED")),
        "20 at once, 10 a second"
    );
    let (answered, problem) = post(&bench, "nonsense", &item("job:1")).await;
    assert_eq!((answered.as_u16(), problem["errorCode"].as_str()), (401, Some("TOKEN_INVALID")));
    let (answered, empty) = post(&bench, &all, &json!([])).await;
    assert_eq!((answered.as_u16(), empty), (200, json!({ "results": [] })));
}

#[tokio::test]
async fn numbers_and_space_in_data_are_kept_as_one_line() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    subscribe(&mut client, json!("job:1")).await;
    let body = "{\n \"channel\": \"job:1\",\n \"event\": \"x\",\n \"data\": {\n  \"n\": 12345678901234567890\n }\n}";
    let (status, answer) = post_text(&bench, &token(json!({})), "application/json", body.to_owned()).await;
    assert_eq!(status, 200, "{answer}");
    next(&mut client).await;
    assert_eq!(next(&mut client).await.data()["n"], 12_345_678_901_234_567_890_u64);
}

#[tokio::test]
async fn pages_of_other_origins_may_publish_only_when_configured() {
    let bench = Bench::with(|config| config.origins = vec!["https://desk.example".to_owned()]).await;
    let preflight = |origin: &'static str| {
        let request = reqwest::Client::new().request(reqwest::Method::OPTIONS, bench.http("/v1/publish"));
        request.header("origin", origin).header("access-control-request-method", "POST").send()
    };
    let allowed = preflight("https://desk.example").await.unwrap();
    assert_eq!(allowed.status(), 204);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://desk.example");
    assert_eq!(preflight("https://evil.example").await.unwrap().status(), 403);
}

#[tokio::test]
async fn cloud_events_come_in_three_forms() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    subscribe(&mut client, json!("job:1")).await;
    let all = token(json!({}));
    let event = |id: &str, subject: Value| {
        json!({ "specversion": "1.0", "id": id, "source": "/desk/7", "type": "job_progress", "subject": subject,
            "time": "2026-11-24T15:00:01.25Z", "datacontenttype": "application/json", "data": { "id": id } })
    };
    let structured = "application/cloudevents+json; charset=utf-8";
    let (status, first) = post_text(&bench, &all, structured, event("1", json!("job:1")).to_string()).await;
    assert_eq!((status.as_u16(), &first["channel"]), (200, &json!("job:1")));
    let (_, again) = post_text(&bench, &all, structured, event("1", json!("job:1")).to_string()).await;
    assert_eq!(again, first, "id and source make it idempotent");

    let batch = json!([event("1", json!("job:1")), event("2", json!("job:1")), event("3", json!(null)),
        event("4", json!("binance:BTCUSDT:ticker")), { "specversion": "1.0" }, 7,
        ["1.0", "8", "/desk/7", "x", "job:1", null, null, {}, null]]);
    let batched = "application/cloudevents-batch+json";
    let (status, answer) = post_text(&bench, &all, batched, batch.to_string()).await;
    assert_eq!(status, 200);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[0], first);
    assert_eq!(results[1]["seq"].as_u64(), first["seq"].as_u64().map(|seq| seq + 1));
    let codes: Vec<_> = results[2..].iter().map(|result| result["errorCode"].as_str().unwrap()).collect();
    assert_eq!(codes, ["BAD_REQUEST", "CHANNEL_FORBIDDEN", "BAD_REQUEST", "BAD_REQUEST", "BAD_REQUEST"]);
    assert_eq!(results[3]["channel"], "binance:BTCUSDT:ticker");
    assert_eq!(post_text(&bench, &all, batched, "{}".to_owned()).await.0, 400);

    let request = reqwest::Client::new().post(bench.http("/v1/publish")).bearer_auth(&all);
    let request = request.header("ce-specversion", "1.0").header("ce-id", "5").header("ce-source", "/desk/7");
    let request = request.header("ce-type", "job%5Fprogress").header("ce-subject", "\"job:1\"");
    let request = request.header("content-type", "application/json").body(r#"{ "n": 1.50 }"#);
    assert_eq!(request.send().await.unwrap().status(), 200);

    assert_eq!(next(&mut client).await.event(), "term");
    let told = next(&mut client).await;
    assert_eq!((told.event(), told.0["ts"].as_i64()), ("job_progress", Some(1_795_532_401_250)));
    assert_eq!(next(&mut client).await.data(), &json!({ "id": "2" }));
    let binary = next(&mut client).await;
    assert_eq!((binary.event(), binary.data()["n"].as_f64()), ("job_progress", Some(1.5)));
}

#[tokio::test]
async fn the_gateways_own_words_and_the_venues_channels_are_nobody_elses() {
    let bench = Bench::start().await;
    let all = token(json!({ "publish": ["*", "binance:*", "binancef:*", "btcturk:*", "bist:*", "system"] }));
    for event in [
        "welcome",
        "subscribed",
        "unsubscribed",
        "subscribe_error",
        "term",
        "gap",
        "backpressure_drop",
        "staleness",
        "heartbeat",
        "pong",
        "token_expiring",
        "authenticated",
        "draining",
        "upstream",
        "error",
    ] {
        let (status, problem) = post(&bench, &all, &json!({ "channel": "job:1", "event": event, "data": {} })).await;
        assert_eq!((status.as_u16(), &problem["errorCode"]), (400, &json!("BAD_REQUEST")), "{event}");
    }
    for channel in ["binance:X:book", "binancef:X:book", "btcturk:X:book", "bist:X:book"] {
        let (status, problem) = post(&bench, &all, &item(channel)).await;
        assert_eq!((status.as_u16(), &problem["errorCode"]), (403, &json!("CHANNEL_FORBIDDEN")), "{channel}");
    }
    let nothing = reqwest::get(bench.http("/v1/history/job:1?token=x")).await.unwrap();
    assert_eq!(nothing.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn an_id_counts_for_its_channel_alone_and_has_a_length() {
    let bench = Bench::start().await;
    let all = token(json!({}));
    let with_id = |channel: &str, id: &str| json!({ "channel": channel, "event": "x", "data": {}, "id": id });
    let (_, first) = post(&bench, &all, &with_id("job:1", "once")).await;
    let (_, elsewhere) = post(&bench, &all, &with_id("job:2", "once")).await;
    let (_, again) =
        post(&bench, &all, &json!([with_id("job:1", "once"), with_id("job:1", "twice"), with_id("job:1", "twice")]))
            .await;
    assert_ne!((&first["channel"], &first["seq"]), (&elsewhere["channel"], &elsewhere["seq"]));
    let seqs: Vec<_> =
        again["results"].as_array().unwrap().iter().map(|result| result["seq"].as_u64().unwrap()).collect();
    let seq = first["seq"].as_u64().unwrap();
    assert_eq!(seqs, [seq, seq + 1, seq + 1]);
    assert_eq!(post(&bench, &all, &with_id("job:1", &"x".repeat(128))).await.0, 200);
    for id in ["".to_owned(), "x".repeat(129)] {
        assert_eq!(post(&bench, &all, &with_id("job:1", &id)).await.0, 400, "{} bytes", id.len());
    }
    let cloud = |source: usize, id: usize| json!({ "specversion": "1.0", "id": "i".repeat(id), "source": "s".repeat(source), "type": "x", "subject": "job:1", "data": {} });
    for (source, id, status) in [(256, 128, 200), (257, 1, 400), (1, 129, 400)] {
        let (answered, problem) =
            post_text(&bench, &all, "application/cloudevents+json", cloud(source, id).to_string()).await;
        assert_eq!(answered.as_u16(), status, "{source} {id}: {problem}");
    }
}
