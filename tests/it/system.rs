//! A whole system of real processes for one test: Redis, the stand-in, normalizers, gateways.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_eventlog::{Partition, RedisStore};
use akis_model::Channel;
use akis_testkit::{ConnectError, LiveClient, Process, Proxy, RedisOptions, RedisServer, wait_until};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{SECRET, akis};

/// Generous, because all tests share few cores.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Few, so that many processes side by side stay cheap.
const PARTITIONS: u16 = 4;

/// What a system consists of.
pub(crate) struct Options {
    /// How many gateways to start.
    pub(crate) gateways: usize,
    /// How many normalizers to start; the first has the lease when the system has started.
    pub(crate) normalizers: usize,
    /// The venue, as the configuration names it.
    pub(crate) venue: &'static str,
    /// Symbols of the venue, in its spelling.
    pub(crate) symbols: &'static [&'static str],
    /// What is normalized of each symbol.
    pub(crate) kinds: &'static [&'static str],
    /// Events a second of the venue.
    pub(crate) rate: u32,
    /// A Redis that is set up already; otherwise one is started.
    pub(crate) redis: Option<RedisServer>,
    /// Whether Redis keeps what it has on disk.
    pub(crate) appendonly: bool,
    /// Whether the clock of Redis can be set.
    pub(crate) has_clock: bool,
    /// Whether gateways and normalizers reach Redis through [`System::proxy`].
    pub(crate) proxied: bool,
    /// More of the configuration of every role: whole tables, in TOML.
    pub(crate) config: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            gateways: 1,
            normalizers: 1,
            venue: "binance",
            symbols: &["BTCUSDT", "ETHUSDT"],
            kinds: &["ticker", "trades"],
            rate: 100,
            redis: None,
            appendonly: false,
            has_clock: false,
            proxied: false,
            config: String::new(),
        }
    }
}

/// A running role with its admin port.
pub(crate) struct Role {
    pub(crate) process: Process,
    pub(crate) admin: SocketAddr,
    http: reqwest::Client,
}

impl Role {
    /// Waits until `/readyz` says yes.
    pub(crate) async fn wait_ready(&self) {
        wait_until(SOON, "the role is ready", async || self.is_ready().await).await.unwrap();
    }

    /// What `/readyz` says now.
    pub(crate) async fn is_ready(&self) -> bool {
        self.ask("/readyz").await.0 == 200
    }

    /// What the admin port answers: status and text; 0 when it does not.
    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        match self.http.get(format!("http://{}{path}", self.admin)).timeout(SOON).send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }

    /// What `/metrics` says of a metric, all labels together.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.http.get(format!("http://{}/metrics", self.admin)).timeout(SOON).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let values = text.lines().filter_map(|line| line.rsplit_once(' '));
        let values = values.filter(|(key, _)| key.split('{').next() == Some(name));
        values.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }
}

/// A running replica.
pub(crate) struct Gateway {
    pub(crate) role: Role,
    pub(crate) door: Door,
}

/// Where clients and publishers of a replica come, whether it still runs or not.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    http: reqwest::Client,
}

/// How a client takes what it is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taking {
    /// Several envelopes in a frame.
    pub(crate) batches: bool,
    /// Compressed.
    pub(crate) deflate: bool,
}

impl Door {
    /// Connects a client with a token.
    pub(crate) async fn connect(&self, token: &str) -> Result<LiveClient, ConnectError> {
        LiveClient::connect(&format!("ws://{}/live", self.address), Some(token)).await
    }

    /// The same, taking what is said in one of the ways that clients may choose.
    pub(crate) async fn connect_as(&self, token: &str, taking: Taking) -> Result<LiveClient, ConnectError> {
        let query = if taking.batches { "?batch=1" } else { "" };
        let deflate = [("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")];
        let headers: &[_] = if taking.deflate { &deflate } else { &[] };
        LiveClient::connect_with(&format!("ws://{}/live{query}", self.address), Some(token), headers).await
    }

    /// Asks for one event to be published: HTTP status and body.
    pub(crate) async fn publish(&self, token: &str, item: &Value) -> anyhow::Result<(u16, Value)> {
        let request = self.http.post(format!("http://{}/v1/publish", self.address)).bearer_auth(token);
        let request = request.header("content-type", "application/json").timeout(SOON);
        let response = request.body(item.to_string()).send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&response.bytes().await?)?))
    }
}

/// All processes of one test. They end with the value.
pub(crate) struct System {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) normalizers: Vec<Role>,
    pub(crate) redis: RedisServer,
    /// What lies between the roles and Redis, when it was asked for.
    pub(crate) proxy: Option<Proxy>,
    http: reqwest::Client,
    /// Where the stand-in serves its data: at Borsa Istanbul over SoupBinTCP.
    pub(crate) venue: String,
    _sim: Process,
    dir: TempDir,
}

impl System {
    /// Starts everything, and waits until gateways are ready and the venue's events are in the log.
    pub(crate) async fn start(mut options: Options) -> Self {
        let keeping =
            RedisOptions { appendonly: options.appendonly, has_clock: options.has_clock, ..RedisOptions::default() };
        let redis = match options.redis.take() {
            Some(redis) => redis,
            None => RedisServer::start_with(keeping).await.unwrap(),
        };
        let proxy = if options.proxied { Some(Proxy::start(redis.address()).await.unwrap()) } else { None };
        let dir = tempfile::tempdir().unwrap();
        let is_bist = options.venue == "bist";
        // The last one of Borsa Istanbul's is listed in the middle of the day.
        let symbols = options.symbols.join(",") + if is_bist { ",ASELS" } else { "" };
        let rate = options.rate.to_string();
        let args = ["sim", options.venue, "--listen", "127.0.0.1:0", "--symbols", &symbols, "--rate", &rate];
        let mut sim = Process::start(akis(dir.path()).args(args)).unwrap();
        let what = if is_bist { "soup: " } else { "rest_url: http://" };
        let venue = sim.wait_for_line(what, SOON).await.unwrap().trim_start_matches(what).to_owned();
        let log = proxy.as_ref().map_or(redis.address(), Proxy::address);
        std::fs::write(dir.path().join("akis.toml"), config(&options, &venue, log)).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (gateways, normalizers) = (Vec::new(), Vec::new());
        let mut system = Self { gateways, normalizers, redis, proxy, http, venue, _sim: sim, dir };
        for number in 0..options.normalizers {
            let mut normalizer = system.start_normalizer().await;
            if number == 0 {
                normalizer.process.wait_for_line("lease taken", SOON).await.unwrap();
            }
            system.normalizers.push(normalizer);
        }
        for _ in 0..options.gateways {
            let gateway = system.start_gateway().await;
            system.gateways.push(gateway);
        }
        for symbol in options.symbols {
            // A candle channel is not named after its kind, and comes whenever the venue says so.
            for kind in options.kinds.iter().filter(|kind| **kind != "candles") {
                system.wait_for_events(&format!("{}:{symbol}:{kind}", options.venue), 1).await;
            }
        }
        system
    }

    /// Starts one more normalizer, which is the caller's.
    pub(crate) async fn start_normalizer(&self) -> Role {
        self.start_role(&["normalizer"], &[]).await
    }

    /// Starts one more gateway, which is the caller's, and waits until it is ready.
    pub(crate) async fn start_gateway(&self) -> Gateway {
        self.start_gateway_with(&[]).await
    }

    /// As [`System::start_gateway`], with more variables in its environment.
    pub(crate) async fn start_gateway_with(&self, env: &[(&str, &str)]) -> Gateway {
        let role = self.start_role(&["gateway", "--listen", "127.0.0.1:0"], env).await;
        self.open(role).await
    }

    /// As [`System::start_gateway`], at an address of the loopback network that nobody else uses, and the ports 8080 and 9090.
    pub(crate) async fn start_gateway_at(&self, ip: Ipv4Addr) -> Gateway {
        let role = self.start_at(&["gateway", "--listen", &format!("{ip}:8080")], &format!("{ip}:9090"), &[]).await;
        self.open(role).await
    }

    async fn open(&self, mut role: Role) -> Gateway {
        let line = role.process.wait_for_line("gateway listens", SOON).await.unwrap();
        let gateway = Gateway { role, door: self.door(address(&line)) };
        gateway.role.wait_ready().await;
        gateway
    }

    /// Ends a normalizer in order.
    pub(crate) async fn stop_normalizer(&mut self, number: usize) {
        let process = &mut self.normalizers[number].process;
        process.terminate().unwrap();
        assert!(process.wait(SOON).await.unwrap().success());
    }

    /// Waits until the channel's history holds this many events.
    pub(crate) async fn wait_for_events(&self, channel: &str, count: usize) {
        let what = format!("{channel} has {count} events");
        let key = self.history_key(channel);
        wait_until(SOON, &what, async || {
            let length = self.redis.command(&["XLEN", &key]).await;
            length.is_ok_and(|length| length.parse::<usize>().is_ok_and(|length| length >= count))
        })
        .await
        .unwrap();
    }

    /// What Redis has of a channel: whole envelopes by position, as clients should have seen them.
    pub(crate) async fn history(&self, channel: &str) -> BTreeMap<u64, Value> {
        let entries = self.redis.command(&["XRANGE", &self.history_key(channel), "-", "+"]).await.unwrap();
        let mut history = BTreeMap::new();
        let mut seq = 0;
        let mut lines = entries.lines();
        while let Some(line) = lines.next() {
            match line {
                "d" => {
                    let envelope = format!("{{\"v\":1,\"seq\":{seq},{}", lines.next().unwrap());
                    history.insert(seq, serde_json::from_str(&envelope).unwrap());
                }
                // How the first entry of a term is linked; not for clients.
                "p" => _ = lines.next(),
                id => seq = id.trim_end_matches("-0").parse().unwrap(),
            }
        }
        history
    }

    /// What stands before gateways.
    pub(crate) fn door(&self, address: SocketAddr) -> Door {
        Door { address, http: self.http.clone() }
    }

    /// Where clients and publishers may come, in the order of the gateways.
    pub(crate) fn doors(&self) -> Vec<Door> {
        self.gateways.iter().map(|gateway| gateway.door.clone()).collect()
    }

    /// A connection of the test's own to the log, past the proxy.
    pub(crate) async fn log(&self) -> Arc<RedisStore> {
        RedisStore::connect(&self.redis.url(), "akis", PARTITIONS).await.unwrap()
    }

    /// Starts a role with more variables in its environment.
    pub(crate) async fn start_role(&self, args: &[&str], env: &[(&str, &str)]) -> Role {
        self.start_at(args, "127.0.0.1:0", env).await
    }

    async fn start_at(&self, args: &[&str], admin: &str, env: &[(&str, &str)]) -> Role {
        let mut command = akis(self.dir.path());
        command.args(args).args(["--admin", admin]).envs(env.iter().copied());
        let mut process = Process::start(&mut command).unwrap();
        let line = process.wait_for_line("admin port", SOON).await.unwrap();
        Role { process, admin: address(&line), http: self.http.clone() }
    }

    /// The keys of all feeds in Redis.
    pub(crate) fn feed_keys(&self) -> Vec<String> {
        Partition::all(PARTITIONS).map(|partition| format!("akis:{{{partition}}}:feed")).collect()
    }

    /// The key of a channel's history in Redis.
    pub(crate) fn history_key(&self, channel: &str) -> String {
        let partition = Partition::of(&Channel::parse(channel).unwrap(), PARTITIONS);
        format!("akis:{{{partition}}}:ch:{channel}")
    }
}

impl Drop for System {
    /// A test that failed shows what the roles said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let gateways = self.gateways.iter().map(|gateway| &gateway.role);
            for role in self.normalizers.iter().chain(gateways) {
                println!("{}\n", role.process.lines().join("\n"));
            }
        }
    }
}

/// A token that is good for an hour.
pub(crate) fn token(subject: &str, channels: &[&str], publish: &[&str]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"sub": subject, "exp": now + 3600, "channels": channels, "publish": publish});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

fn config(options: &Options, venue: &str, log: SocketAddr) -> String {
    let reached = if options.venue == "bist" {
        format!("transport = \"soupbintcp\"\nsoup = \"{venue}\"")
    } else {
        format!("ws_url = \"ws://{venue}\"\nrest_url = \"http://{venue}\"")
    };
    format!(
        r#"log_format = "json"
[redis]
url = "redis://{log}"
[log]
partitions = {PARTITIONS}
[auth]
secret = "{SECRET}"
[venues.{}]
enabled = true
symbols = {:?}
kinds = {:?}
{reached}
{}
"#,
        options.venue, options.symbols, options.kinds, options.config
    )
}

/// The address that a line of the log names.
pub(crate) fn address(line: &str) -> SocketAddr {
    let line: Value = serde_json::from_str(line).unwrap();
    let address = line["address"].as_str().or_else(|| line["fields"]["address"].as_str());
    address.unwrap().parse().unwrap()
}
