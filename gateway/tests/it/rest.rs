//! `GET /v1/…`.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::bench::{Bench, token};

async fn get(bench: &Bench, token: &str, path: &str) -> Response {
    reqwest::Client::new().get(bench.http(path)).bearer_auth(token).send().await.unwrap()
}

async fn read(bench: &Bench, path: &str) -> Value {
    let response = get(bench, &token(json!({})), path).await;
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn seqs(events: &Value) -> Vec<u64> {
    events.as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_snapshot_has_the_latest_event_of_each_channel_that_has_one() {
    let bench = Bench::start().await;
    bench.append("a:b", 1).await;
    let last = bench.append("a:b", 2).await;
    let ticker = bench.append("a:b:ticker", 3).await;
    let snapshot = read(&bench, "/v1/snapshot?channels=a:b:ticker,x:y,a:b").await;
    assert_eq!(seqs(&snapshot["events"]), vec![ticker, last], "in the order asked for");
    assert_eq!(snapshot["events"][1]["data"], json!({ "n": 2 }));
    for n in 4..20 {
        let ticker = bench.append("a:b:ticker", n).await;
        let snapshot = read(&bench, "/v1/snapshot?channels=a:b:ticker").await;
        assert_eq!(seqs(&snapshot["events"]), vec![ticker], "what was published is there, whatever the kind");
    }
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let bench = Bench::start().await;
    bench.append("a:b", 1).await;
    let all = token(json!({}));
    let first = get(&bench, &all, "/v1/snapshot?channels=a:b").await;
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(first.headers()["cache-control"], "private, no-cache");
    let again = async || {
        let request = reqwest::Client::new().get(bench.http("/v1/snapshot?channels=a:b")).bearer_auth(&all);
        request.header("if-none-match", &tag).send().await.unwrap()
    };
    let known = again().await;
    assert_eq!((known.status(), known.headers()["etag"].to_str().unwrap()), (StatusCode::NOT_MODIFIED, tag.as_str()));
    assert!(known.bytes().await.unwrap().is_empty());
    bench.append("a:b", 2).await;
    assert_eq!(again().await.status(), 200);
}

#[tokio::test]
async fn history_begins_where_it_is_asked_to() {
    let bench = Bench::start().await;
    let empty = read(&bench, "/v1/history/a:b").await;
    assert_eq!(empty, json!({ "channel": "a:b", "events": [], "oldest": null, "recovered": false }));
    let mut all = Vec::new();
    for n in 0..20 {
        all.push(bench.append("a:b", n).await);
    }
    let newest = read(&bench, "/v1/history/a:b?limit=5").await;
    assert_eq!(seqs(&newest["events"]), all[15..]);
    assert_eq!((newest["oldest"].as_u64(), &newest["channel"]), (Some(all[0]), &json!("a:b")));
    let after = read(&bench, &format!("/v1/history/a:b?after={}&limit=5", all[9])).await;
    assert_eq!((seqs(&after["events"]), &after["recovered"]), (all[10..15].to_vec(), &json!(true)));
    let whole = read(&bench, "/v1/history/a:b?after=0").await;
    assert_eq!((seqs(&whole["events"]), &whole["recovered"]), (all.clone(), &json!(false)));
    let at_end = read(&bench, &format!("/v1/history/a:b?after={}", all[19])).await;
    assert_eq!((seqs(&at_end["events"]), &at_end["recovered"]), (vec![], &json!(true)));
    let unknown = read(&bench, "/v1/history/a:b?after=7").await;
    assert_eq!((seqs(&unknown["events"]), &unknown["recovered"]), (all.clone(), &json!(false)));
    let beyond = read(&bench, &format!("/v1/history/a:b?after={}", all[19] + 9)).await;
    assert_eq!((seqs(&beyond["events"]), &beyond["recovered"]), (vec![all[19]], &json!(false)));
    let since = whole["events"][12]["ts"].as_i64().unwrap();
    let from = read(&bench, &format!("/v1/history/a:b?since={since}")).await;
    assert!(from["events"].as_array().unwrap().iter().all(|event| event["ts"].as_i64().unwrap() >= since));
    assert!(seqs(&from["events"]).ends_with(&all[12..]), "{from}");
}

#[tokio::test]
async fn candles_end_with_the_open_one() {
    let bench = Bench::start().await;
    let all = token(json!({}));
    let publish = async |open_ms: u64, closed: bool| {
        let data = json!({ "symbol": "X", "openTime": open_ms, "close": "1.50", "closed": closed });
        let event = json!({ "channel": "desk:X:1m", "event": "candle_update", "data": data });
        let request = reqwest::Client::new().post(bench.http("/v1/publish")).bearer_auth(&all);
        let request = request.header("content-type", "application/json").body(event.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    let opens = async |query: &str| {
        let answer = read(&bench, &format!("/v1/candles/desk:X:1m{query}")).await;
        let candles = answer["candles"].as_array().unwrap().clone();
        candles.iter().map(|c| (c["openTime"].as_u64().unwrap(), c["closed"] == true)).collect::<Vec<_>>()
    };
    assert_eq!(opens("").await, vec![]);
    publish(60, false).await;
    assert_eq!(opens("").await, vec![(60, false)]);
    for (open_ms, closed) in [(60, true), (120, false), (120, true), (180, true), (240, false), (240, false)] {
        publish(open_ms, closed).await;
    }
    assert_eq!(opens("").await, vec![(60, true), (120, true), (180, true), (240, false)]);
    assert_eq!(opens("?limit=2").await, vec![(180, true), (240, false)]);
    assert_eq!(opens("?before=180&limit=1").await, vec![(120, true)]);
    assert_eq!(opens("?before=181").await, vec![(60, true), (120, true), (180, true)]);
    let answer = read(&bench, "/v1/candles/desk:X:1m?limit=1").await;
    assert_eq!(answer["channel"], "desk:X:1m");
    assert_eq!(answer["candles"][0]["close"], "1.50", "as it was written");
}

#[tokio::test]
async fn channels_are_those_that_exist_and_that_the_token_allows() {
    let bench = Bench::start().await;
    let seq = bench.append("job:2", 1).await;
    for name in ["job:1", "job:3", "desk:1"] {
        bench.append(name, 1).await;
    }
    let names = async |token: &str, query: &str| {
        let answer: Value =
            serde_json::from_str(&get(&bench, token, &format!("/v1/channels{query}")).await.text().await.unwrap())
                .unwrap();
        answer["channels"].as_array().unwrap().clone()
    };
    let all = token(json!({}));
    let found = names(&all, "").await;
    let of = |list: &[Value]| list.iter().map(|c| c["channel"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(of(&found), ["desk:1", "job:1", "job:2", "job:3"]);
    assert_eq!((found[2]["seq"].as_u64(), found[2]["event"].as_str()), (Some(seq), Some("test_event")));
    assert!(found[2]["ts"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(of(&names(&all, "?prefix=job:").await).len(), 3);
    let narrow = token(json!({ "channels": ["job:1", "desk:*"] }));
    assert_eq!(of(&names(&narrow, "").await), ["desk:1", "job:1"]);
    assert!(names(&narrow, "?prefix=job:2").await.is_empty());
}

#[tokio::test]
async fn refusals_are_problem_documents() {
    let bench = Bench::with(|config| config.limits.connections_per_subject = 3).await;
    bench.append("a:b", 1).await;
    let narrow = token(json!({ "channels": ["a:b"] }));
    for (path, status, code) in [
        ("/v1/snapshot", 400, "BAD_REQUEST"),
        ("/v1/snapshot?channels=a", 400, "BAD_CHANNEL"),
        ("/v1/snapshot?channels=a:b,a:c", 403, "CHANNEL_FORBIDDEN"),
        ("/v1/history/a:c", 403, "CHANNEL_FORBIDDEN"),
        ("/v1/history/a", 400, "BAD_CHANNEL"),
        ("/v1/history/%ff", 400, "BAD_CHANNEL"),
        ("/v1/candles/%ff", 400, "BAD_CHANNEL"),
        ("/v1/history/a:b?after=-1", 400, "BAD_REQUEST"),
        ("/v1/history/a:b?after=9007199254740992", 400, "BAD_REQUEST"),
        ("/v1/history/a:b?after=1&since=1", 400, "BAD_REQUEST"),
        ("/v1/history/a:b?limit=0", 400, "BAD_REQUEST"),
        ("/v1/history/a:b?limit=1001", 400, "BAD_REQUEST"),
        ("/v1/history/a:b?since=-1", 400, "BAD_REQUEST"),
        ("/v1/candles/a:b?limit=0", 400, "BAD_REQUEST"),
        ("/v1/candles/a:b?limit=1501", 400, "BAD_REQUEST"),
        ("/v1/candles/a:b?before=x", 400, "BAD_REQUEST"),
        ("/v1/candles/a:c", 403, "CHANNEL_FORBIDDEN"),
        ("/v1/candles/a:b?limit=x", 400, "BAD_REQUEST"),
        ("/v1/nothing", 404, "BAD_REQUEST"),
        ("/live/sse", 400, "BAD_REQUEST"),
    ] {
        let response = get(&bench, &narrow, path).await;
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let (answered, problem) = (response.status().as_u16(), response.text().await.unwrap());
        assert_eq!(answered, status, "{path}: {problem}");
        assert!(problem.contains(&format!("\"errorCode\":\"{code}\"")), "{path}: {problem}");
    }
    for path in
        ["/v1/snapshot?channels=a:b", "/v1/history/a:b", "/v1/candles/a:b", "/v1/channels", "/live/sse?channels=a:b"]
    {
        assert_eq!(get(&bench, "nonsense", path).await.status(), 401, "{path}");
        let by_query =
            reqwest::get(bench.http(&format!("{path}{}token={narrow}", if path.contains('?') { '&' } else { '?' })));
        assert_eq!(by_query.await.unwrap().status(), 200, "{path}");
    }
    let open: Vec<_> = [(); 3].into_iter().map(|()| get(&bench, &narrow, "/live/sse?channels=a:b")).collect();
    let open = futures_util::future::join_all(open).await;
    assert!(open.iter().all(|stream| stream.status() == 200));
    let refused = get(&bench, &narrow, "/v1/channels").await;
    assert_eq!(refused.status(), 429, "streams and requests of a subject count together");
    assert!(refused.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn pages_may_read_only_where_configured() {
    let bench = Bench::with(|config| config.origins = vec!["https://desk.example".to_owned()]).await;
    let ask = async |origin: &str, path: &str| {
        let request = reqwest::Client::new().get(bench.http(path)).bearer_auth(token(json!({})));
        request.header("origin", origin).send().await.unwrap()
    };
    for path in ["/v1/channels", "/v1/history/a:b", "/live/sse?channels=a:b", "/v1/history/a"] {
        let allowed = ask("https://desk.example", path).await;
        assert_eq!(allowed.headers()["access-control-allow-origin"], "https://desk.example", "{path}");
        assert!(allowed.headers().get_all("vary").iter().any(|vary| vary == "origin"));
        let refused = ask("https://evil.example", path).await;
        assert_eq!(refused.status(), 403);
        assert!(!refused.headers().contains_key("access-control-allow-origin"));
    }
    let request = reqwest::Client::new().request(reqwest::Method::OPTIONS, bench.http("/v1/channels"));
    let request = request.header("access-control-request-method", "GET").header("origin", "https://desk.example");
    let preflight = request.send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("authorization") && allowed.contains("traceparent"), "{allowed}");
}
