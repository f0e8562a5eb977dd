//! A gateway on a port of its own, its log, and clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_eventlog::{Append, MemoryStore, Partition, Store};
use akis_gateway::Gateway;
use akis_model::{Body, Channel, Outcome, Seq};
use akis_service::config::{AuthConfig, GatewayConfig, Role, Secret};
use akis_service::telemetry::Telemetry;
use akis_testkit::{Envelope, LiveClient, wait_until};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Longer than anything here takes on a slow machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Bench {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) address: SocketAddr,
    pub(crate) drain: CancellationToken,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
    registry: prometheus::Registry,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut GatewayConfig)) -> Self {
        let store = MemoryStore::new(4);
        Self::on(Arc::clone(&store), store, configure).await
    }

    /// A gateway that sees `store` only through `seen`.
    pub(crate) async fn on(
        store: Arc<MemoryStore>,
        seen: Arc<dyn Store>,
        configure: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let mut config = GatewayConfig { replica: "test".to_owned(), ..GatewayConfig::default() };
        configure(&mut config);
        let bench = Self::begin(store, seen, config, shared_secret()).await;
        bench.wait_until_ready().await;
        bench
    }

    /// A gateway with these keys.
    pub(crate) async fn with_auth(auth: AuthConfig) -> Self {
        let bench = Self::not_ready(GatewayConfig::default(), auth).await;
        bench.wait_until_ready().await;
        bench
    }

    /// The same, without waiting for anything.
    pub(crate) async fn not_ready(config: GatewayConfig, auth: AuthConfig) -> Self {
        let store = MemoryStore::new(4);
        Self::begin(Arc::clone(&store), store, config, auth).await
    }

    async fn begin(store: Arc<MemoryStore>, seen: Arc<dyn Store>, config: GatewayConfig, auth: AuthConfig) -> Self {
        let telemetry = Telemetry::default();
        let gateway = Gateway::new(seen, config, &auth, &telemetry, Some("<p>page</p>")).unwrap();
        let registry = telemetry.registry;
        let gateway = Arc::new(gateway);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let served = {
            let (gateway, drain, stop) = (Arc::clone(&gateway), drain.clone(), stop.clone());
            tokio::spawn(async move { gateway.serve(listener, drain, stop).await })
        };
        Self { store, gateway, address, drain, stop, served, registry }
    }

    pub(crate) async fn wait_until_ready(&self) {
        wait_until(SOON, "the gateway is ready", async || self.gateway.readiness().is_ok()).await.unwrap();
    }

    /// The sum of a metric over those of its labels that `is_wanted` says yes to.
    pub(crate) fn metric(&self, name: &str, is_wanted: impl Fn(&str) -> bool) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().filter(|family| family.name() == format!("akis_gateway_{name}"));
        let metrics = family.flat_map(|family| family.get_metric());
        let wanted = metrics.filter(|m| m.get_label().is_empty() || m.get_label().iter().any(|l| is_wanted(l.value())));
        wanted.map(|m| m.get_gauge().get_value() + m.get_counter().get_value()).sum()
    }

    /// How many WebSockets were closed by the gateway with a code.
    pub(crate) fn closes(&self, code: u16) -> f64 {
        self.metric("closes_total", |label| label == code.to_string())
    }

    /// How many requests were refused for a reason.
    pub(crate) fn refusals(&self, reason: &str) -> f64 {
        self.metric("refusals_total", |label| label == reason)
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/live", self.address)
    }

    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A client that may read and publish everything and has been welcomed.
    pub(crate) async fn client(&self) -> LiveClient {
        self.client_with(&token(json!({}))).await
    }

    pub(crate) async fn client_with(&self, token: &str) -> LiveClient {
        let mut client = LiveClient::connect(&self.url(), Some(token)).await.unwrap();
        client.next_event("welcome", SOON).await.unwrap();
        client
    }

    /// Appends an event whose data is `{"n": n}` to an application channel.
    pub(crate) async fn append(&self, name: &str, n: usize) -> u64 {
        self.append_data(name, &json!({ "n": n })).await
    }

    pub(crate) async fn append_data(&self, name: &str, data: &Value) -> u64 {
        self.append_all(name, std::slice::from_ref(data)).await
    }

    /// Appends events in one batch; gives the position of the last one.
    pub(crate) async fn append_all(&self, name: &str, data: &[Value]) -> u64 {
        self.append_named(name, "test_event", data).await
    }

    /// Appends an event that is called something else.
    pub(crate) async fn append_event(&self, name: &str, event: &str, data: &Value) -> u64 {
        self.append_named(name, event, std::slice::from_ref(data)).await
    }

    async fn append_named(&self, name: &str, event: &str, data: &[Value]) -> u64 {
        let channel = Channel::parse(name).unwrap();
        let body = |data| Body::render(now_ms(), event, &channel, Outcome::Ok, data).unwrap().text().clone();
        let events: Vec<_> = data
            .iter()
            .map(|data| Append { channel: channel.clone(), id: None, body: body(data), trace: None })
            .collect();
        let partition = Partition::of(&channel, self.store.partitions());
        self.store.append(partition, &events, Seq::ZERO).await.unwrap().last().unwrap().get()
    }
}

pub(crate) fn shared_secret() -> AuthConfig {
    let role = Role { channels: vec!["desk:*".to_owned()], ..Role::default() };
    let roles = [("desk".to_owned(), role)].into();
    AuthConfig { secret: Some(Secret::new(SECRET)), roles, ..AuthConfig::default() }
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A token of `alice` for everything and an hour, `changes` applied; `null` removes a claim.
pub(crate) fn token(changes: Value) -> String {
    let mut claims = json!({ "sub": "alice", "exp": now_ms() / 1000 + 3600, "channels": ["*"], "publish": ["*"] });
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

pub(crate) async fn ask(client: &mut LiveClient, request: Value) {
    client.send(&request).await.unwrap();
}

pub(crate) async fn subscribe(client: &mut LiveClient, channel: Value) -> Envelope {
    ask(client, json!({ "type": "subscribe", "channels": [channel] })).await;
    client.next_event("subscribed", SOON).await.unwrap()
}

/// The next envelope that is no heartbeat.
pub(crate) async fn next(client: &mut LiveClient) -> Envelope {
    client.find(SOON, |envelope| envelope.event() != "heartbeat").await.unwrap()
}
