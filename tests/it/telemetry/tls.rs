//! Collectors over TLS: the authorities that count are the system's, here a file of the test's own.

use akis_testkit::{Collector, tls_fixture, wait_until};

use super::{TRADES, pushing_to};
use crate::follower::Follower;
use crate::system::{Gateway, Options, Role, SOON, System, token};

/// A system whose gateway knows one authority and pushes everything to a collector, and a client of it.
async fn start(collector: &Collector) -> (System, Gateway, Follower) {
    // The normalizer traces all that it writes, and reaches no collector.
    let system = System::start(Options { gateways: 0, ..pushing_to("http://127.0.0.1:9", 1) }).await;
    let (url, authority) = (collector.url(), tls_fixture("known-ca.pem"));
    let env = [("AKIS_TELEMETRY__OTLP", url.as_str()), ("SSL_CERT_FILE", authority.to_str().unwrap())];
    let gateway = system.start_gateway_with(&env).await;
    let follower = Follower::start(vec![gateway.door.clone()], token("a", &["binance:*"], &[]), &[TRADES]);
    (system, gateway, follower)
}

async fn exports(role: &Role, result: &str, signal: &str) -> f64 {
    let (_, text) = role.ask("/metrics").await;
    let name = format!("akis_telemetry_exports_total{{result=\"{result}\",signal=\"{signal}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_collector_whose_authority_the_system_knows_gets_everything() {
    let collector = Collector::start_tls("known").unwrap();
    let (_system, gateway, _follower) = start(&collector).await;
    let is_there = |collector: &Collector| !collector.spans().is_empty() && collector.metrics("akis-gateway").is_some();
    collector.wait_for(SOON, "spans and metrics come over TLS", is_there).await.unwrap();
    assert_eq!(exports(&gateway.role, "failed", "traces").await, 0.0);
}

#[tokio::test]
async fn a_collector_that_nobody_vouches_for_gets_nothing_and_is_told_of_once() {
    let collector = Collector::start_tls("unknown").unwrap();
    let (_system, mut gateway, _follower) = start(&collector).await;
    let has_failed = async || exports(&gateway.role, "failed", "traces").await >= 3.0;
    wait_until(SOON, "pushes of spans are refused again and again", has_failed).await.unwrap();
    gateway.role.process.terminate().unwrap();
    assert!(gateway.role.process.wait(SOON).await.unwrap().success());
    let lines = gateway.role.process.lines();
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("telemetry cannot be pushed")).collect();
    let of_spans = told.iter().filter(|line| line.contains("\"signal\":\"traces\"")).count();
    assert_eq!(of_spans, 1, "{told:#?}");
    assert!(told.iter().all(|line| line.contains("invalid peer certificate")), "{told:#?}");
    assert!(collector.spans().is_empty() && collector.metrics("akis-gateway").is_none());
}
