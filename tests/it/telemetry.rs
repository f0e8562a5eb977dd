//! What processes tell about themselves: metrics by pull and by push, traces across processes, and collectors that do not
//! answer.

mod openmetrics;
mod publish;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use akis_service::otlp::otlp_name;
use akis_testkit::Collector;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;

use crate::follower::{Follower, finish_all, wait_for_all};
use crate::system::{Options, Role, SOON, System, token};

const TRADES: &str = "binance:BTCUSDT:trades";

fn pushing_to(url: &str, sample_one_in: u32) -> Options {
    let config = format!(
        "[telemetry]\notlp = \"{url}\"\nsample_one_in = {sample_one_in}\nlogs = true\n[gateway]\ndrain = \"1s\"\n"
    );
    Options { config, ..Options::default() }
}

/// The values of a metric in OTLP, all attributes together.
fn total(metrics: &[Metric], name: &str) -> f64 {
    let metric = metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} was not pushed"));
    let points = match &metric.data {
        Some(metric::Data::Sum(sum)) => &sum.data_points,
        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
        other => panic!("{name}: {other:?}"),
    };
    let value = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => *value,
        other => panic!("{name}: {other:?}"),
    };
    points.iter().map(|point| value(&point.value)).sum()
}

/// The names of the families on `/metrics`.
async fn families(role: &Role) -> BTreeSet<String> {
    let (status, text) = role.ask("/metrics").await;
    assert_eq!(status, 200);
    text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect()
}

/// The spans of one trace, by name.
fn trace_of(spans: &[(String, Span)], trace_id: &[u8]) -> BTreeMap<String, (String, Span)> {
    let of_trace = spans.iter().filter(|(_, span)| span.trace_id == trace_id);
    of_trace.map(|(service, span)| (span.name.clone(), (service.clone(), span.clone()))).collect()
}

#[tokio::test]
async fn one_trace_follows_an_event_from_its_frame_to_a_socket() {
    let collector = Collector::start().unwrap();
    let mut system = System::start(pushing_to(&collector.url(), 1)).await;
    let follower = Follower::start(system.doors(), token("a", &["binance:*"], &[]), &[TRADES]);
    let written = |spans: &[(String, Span)]| {
        let mut writes = spans.iter().filter(|(_, span)| span.name == "socket write");
        writes.find_map(|(_, span)| Some(trace_of(spans, &span.trace_id)).filter(|trace| trace.len() == 5))
    };
    let is_there = |collector: &Collector| written(&collector.spans()).is_some();
    collector.wait_for(SOON, "a whole trace has come", is_there).await.unwrap();

    let trace = written(&collector.spans()).unwrap();
    let parents = [
        ("venue frame", "", "akis-normalizer"),
        ("normalize", "venue frame", "akis-normalizer"),
        ("append", "normalize", "akis-normalizer"),
        ("replica read", "normalize", "akis-gateway"),
        ("socket write", "replica read", "akis-gateway"),
    ];
    for (name, parent, service) in parents {
        let (of, span) = &trace[name];
        let expected = trace.get(parent).map(|(_, parent)| parent.span_id.clone()).unwrap_or_default();
        assert_eq!((of.as_str(), &span.parent_span_id), (service, &expected), "{name}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name}");
        assert!(span.attributes.iter().any(|attribute| attribute.key == "akis.channel"), "{name}");
    }
    let subscribed = |collector: &Collector| collector.spans().iter().any(|(_, span)| span.name == "subscribe");
    collector.wait_for(SOON, "the subscription is traced too", subscribed).await.unwrap();
    let says = |word: &str| {
        let body = format!("{word:?}");
        move |collector: &Collector| {
            collector.logs().iter().any(|(_, record)| format!("{:?}", record.body).contains(&body))
        }
    };
    collector.wait_for(SOON, "what is logged has come too", says("gateway listens")).await.unwrap();
    // Most of what is read by a process that knows nothing of traces stays as it was: the log has one field more.
    let feeds = system.feed_keys();
    let mut entries = String::new();
    for feed in &feeds {
        entries += &system.redis.command(&["XRANGE", feed, "-", "+"]).await.unwrap();
    }
    assert!(entries.contains("traceparent\n00-"), "no entry of a feed has a trace");

    // The last push has everything that is counted until the end, and it is what `/metrics` shows.
    let shown = families(&system.gateways[0].role).await;
    let opened = system.gateways[0].role.metric("akis_gateway_opened_total").await;
    let mut gateway = system.gateways.remove(0);
    gateway.role.process.terminate().unwrap();
    assert!(gateway.role.process.wait(SOON).await.unwrap().success());
    let pushed = collector.metrics("akis-gateway").unwrap();
    let names: BTreeSet<&str> = pushed.iter().map(|metric| metric.name.as_str()).collect();
    for family in &shown {
        let (name, _) = otlp_name(family);
        assert!(names.contains(name.as_str()), "{family} is not pushed as {name}");
    }
    assert_eq!(names.len(), shown.len(), "{names:?} and {shown:?}");
    assert!(opened >= 1.0 && total(&pushed, "akis.gateway.opened") >= opened);
    assert_eq!(total(&pushed, "akis.gateway.connections"), 0.0, "the last push is of the end");
    drop(follower);
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_neither_events_nor_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let hanging = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    let mut system = System::start(pushing_to(&url, 1)).await;
    let followers = vec![Follower::start(system.doors(), token("a", &["binance:*"], &[]), &[TRADES])];
    wait_for_all(&followers, "events flow", |record| record.events(TRADES).count() >= 50).await;
    let failed = async |role: &Role| {
        let (_, text) = role.ask("/metrics").await;
        let failed = text.lines().filter(|line| line.starts_with("akis_telemetry_exports_total{result=\"failed\""));
        failed.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() > 0.0
    };
    akis_testkit::wait_until(SOON, "a push has been given up", async || failed(&system.normalizers[0]).await)
        .await
        .unwrap();
    finish_all(followers).await;
    let began = Instant::now();
    let normalizer = &mut system.normalizers[0].process;
    normalizer.terminate().unwrap();
    assert!(normalizer.wait(SOON).await.unwrap().success());
    let gateway = &mut system.gateways[0].role.process;
    gateway.terminate().unwrap();
    assert!(gateway.wait(SOON).await.unwrap().success());
    // A second each for the last push, and what else an end takes.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    hanging.abort();
}

/// Every word of a text that can only be the name of one of our metrics.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = words.filter(|word| word.starts_with("akis_") || word.starts_with("process_"));
    let family = |word: &str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
    };
    ours.map(family).collect()
}

/// The first column of the tables under a heading of `docs/METRICS.md`.
fn documented(text: &str, heading: &str) -> BTreeSet<String> {
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    let rows = section.unwrap_or_else(|| panic!("no section {heading}")).lines();
    rows.filter_map(|row| Some(row.strip_prefix("| `")?.split('`').next()?.to_owned())).collect()
}

#[tokio::test]
async fn metrics_that_are_named_exist_and_those_that_exist_are_documented() {
    // Nobody listens there: what is told about pushing and about key sets shows without a collector and a provider.
    let mut options = pushing_to("http://127.0.0.1:9", 0);
    options.config += "[[auth.keys]]\nid = \"idp\"\nalg = \"RS256\"\njwks = \"http://127.0.0.1:9/keys\"\n";
    let system = System::start(options).await;
    // Some gauges are of shards that have clients.
    let _follower = Follower::start(system.doors(), token("a", &["binance:*"], &[]), &[TRADES]);
    let has_measured = async || families(&system.gateways[0].role).await.contains("akis_gateway_interval_groups");
    akis_testkit::wait_until(SOON, "a shard has measured its clients", has_measured).await.unwrap();
    let (gateway, normalizer) = (families(&system.gateways[0].role).await, families(&system.normalizers[0]).await);
    let all: BTreeSet<String> = gateway.union(&normalizer).cloned().collect();

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("helm/akis/files/rules.yaml")];
    for dir in ["helm/akis/files/dashboards", "deploy/runbooks"] {
        files.extend(std::fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().path()));
    }
    for file in files {
        let missing: Vec<String> = named(&std::fs::read_to_string(&file).unwrap()).difference(&all).cloned().collect();
        assert!(missing.is_empty(), "{}: no process has {missing:?}", file.display());
    }

    let text = std::fs::read_to_string(root.join("docs/METRICS.md")).unwrap();
    let common = documented(&text, "Every process");
    for (heading, role) in [("The gateway", gateway), ("The normalizer", normalizer)] {
        let mut known = documented(&text, heading);
        known.extend(common.iter().cloned());
        assert_eq!(known, role, "left: docs/METRICS.md, {heading}; right: /metrics");
    }
}
