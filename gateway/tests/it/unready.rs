//! What clients are told while the gateway waits for its log.

use akis_gateway::turn_away;
use akis_service::config::GatewayConfig;
use reqwest::{Client, Method};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::bench::SOON;

#[tokio::test]
async fn a_large_publish_and_a_page_see_why_they_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/publish", listener.local_addr().unwrap());
    let config = GatewayConfig { origins: vec!["https://desk.example".to_owned()], ..GatewayConfig::default() };
    let clients = async {
        let client = Client::new();
        let page = client.post(&url).header("origin", "https://desk.example").body(vec![b' '; 8 << 20]);
        let answer = page.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://desk.example");
        assert!(answer.text().await.unwrap().contains("UPSTREAM_UNAVAILABLE"));
        for (origin, status) in [("https://desk.example", 204), ("https://evil.example", 403)] {
            let beforehand = client.request(Method::OPTIONS, &url).header("access-control-request-method", "POST");
            assert_eq!(beforehand.header("origin", origin).send().await.unwrap().status(), status, "{origin}");
        }
    };
    tokio::select! {
        never = turn_away(&listener, &config, "not yet") => match never {},
        done = timeout(SOON, clients) => done.unwrap(),
    }
}
