//! Traces of what applications publish over HTTP.

use akis_model::TraceContext;
use akis_testkit::Collector;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span, status};
use serde_json::json;

use super::{pushing_to, trace_of};
use crate::follower::{Follower, Record, wait_for_all};
use crate::system::{SOON, System, token};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Publishes one event and gives the status.
async fn publish(system: &System, channel: &str, parent: Option<&str>) -> u16 {
    let url = format!("http://{}/v1/publish", system.gateways[0].door.address);
    let item = json!({"channel": channel, "event": "e", "data": {}});
    let mut request = reqwest::Client::new().post(url).bearer_auth(token("a", &[], &["job:*"])).timeout(SOON);
    if let Some(parent) = parent {
        request = request.header("traceparent", parent);
    }
    let request = request.header("content-type", "application/json").body(item.to_string());
    request.send().await.unwrap().status().as_u16()
}

fn published(collector: &Collector) -> Vec<Span> {
    let spans = collector.spans().into_iter().map(|(_, span)| span);
    spans.filter(|span| span.name == "publish").collect()
}

fn status_code(span: &Span) -> String {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == "http.response.status_code").unwrap();
    match attribute.value.clone().unwrap().value {
        Some(Value::StringValue(code)) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_published_is_followed_to_a_socket() {
    let collector = Collector::start().unwrap();
    let system = System::start(pushing_to(&collector.url(), 1)).await;
    let follower = Follower::start(system.doors(), token("a", &["job:*"], &[]), &["job:1"]);
    let is_subscribed = |record: &Record| record.of("job:1").next().is_some();
    wait_for_all(std::slice::from_ref(&follower), "the answer to the subscription", is_subscribed).await;
    assert_eq!(publish(&system, "job:1", Some(PARENT)).await, 200);
    let trace_id = TraceContext::parse(PARENT.as_bytes()).unwrap().trace_id;
    let is_whole = |collector: &Collector| trace_of(&collector.spans(), &trace_id).len() == 3;
    collector.wait_for(SOON, "the whole trace has come", is_whole).await.unwrap();

    let trace = trace_of(&collector.spans(), &trace_id);
    for (name, parent) in [("replica read", "publish"), ("socket write", "replica read")] {
        assert_eq!(trace[name].1.parent_span_id, trace[parent].1.span_id, "{name}");
    }
    follower.finish().await;
}

#[tokio::test]
async fn a_request_to_publish_is_a_span_that_hangs_from_its_callers() {
    let collector = Collector::start().unwrap();
    let system = System::start(pushing_to(&collector.url(), 1)).await;
    assert_eq!(publish(&system, "job:1", Some(PARENT)).await, 200);
    assert_eq!(publish(&system, "job:1", None).await, 200);
    assert_eq!(publish(&system, "binance:BTCUSDT:trades", None).await, 403);
    let are_there = |collector: &Collector| published(collector).len() == 3;
    collector.wait_for(SOON, "the spans have come", are_there).await.unwrap();

    let spans = published(&collector);
    let codes: Vec<String> = spans.iter().map(status_code).collect();
    assert_eq!(codes, ["200", "200", "403"], "in the order of the answers");
    let parent = TraceContext::parse(PARENT.as_bytes()).unwrap();
    assert_eq!(spans[0].trace_id, parent.trace_id);
    assert_eq!(spans[0].parent_span_id, parent.span_id);
    for span in &spans {
        assert_eq!(span.kind(), span::SpanKind::Server);
        assert_eq!(
            span.status.as_ref().unwrap().code(),
            status::StatusCode::Unset,
            "a client's mistake is none of ours"
        );
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    for alone in &spans[1..] {
        assert!(alone.parent_span_id.is_empty() && alone.trace_id != parent.trace_id);
    }
}
