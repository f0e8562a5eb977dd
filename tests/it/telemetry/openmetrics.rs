//! `/metrics` as OpenMetrics, which Prometheus asks for.

use akis_testkit::wait_until;

use super::{TRADES, families, pushing_to};
use crate::follower::Follower;
use crate::system::{Role, SOON, System, token};

/// What Prometheus 3 sends.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

async fn scrape(role: &Role) -> String {
    let request = reqwest::Client::new().get(format!("http://{}/metrics", role.admin)).header("accept", ACCEPT);
    let answer = request.timeout(SOON).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer.text().await.unwrap()
}

#[tokio::test]
async fn ages_have_the_traces_of_events_beside_them() {
    // Nobody listens there: traces show here without a collector.
    let system = System::start(pushing_to("http://127.0.0.1:9", 1)).await;
    let _follower = Follower::start(system.doors(), token("a", &["binance:*"], &[]), &[TRADES]);
    for (role, metric) in [
        (&system.gateways[0].role, "akis_gateway_delivery_age_seconds_bucket{"),
        (&system.normalizers[0], "akis_publisher_write_delay_seconds_bucket{"),
    ] {
        let is_traced = |line: &str| line.starts_with(metric) && line.contains(" # {trace_id=\"");
        let are_there = async || scrape(role).await.lines().any(is_traced);
        wait_until(SOON, "a bucket has a trace", are_there).await.unwrap();
        let text = scrape(role).await;
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        // The same metrics as in the other form, where the end of a counter is part of its name.
        for name in families(role).await {
            let name = name.strip_suffix("_total").unwrap_or(&name);
            assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing");
        }
    }
}
