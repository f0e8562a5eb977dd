//! What is measured: a Redis of its own and gateways, as real processes, with limits that are not in the way.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_eventlog::RedisStore;
use akis_testkit::{Process, RedisServer, wait_until};
use anyhow::{Context, Result, bail};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Stamp, Target};
use crate::usage;

/// How long a process may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

const SECRET: &str = "a secret for benchmarks on loopback";
/// What the log's keys begin with, and its partitions: the defaults of `log.prefix` and `log.partitions`.
pub(crate) const PREFIX: &str = "akis";
pub(crate) const PARTITIONS: u16 = 16;

/// Limits that protect a replica from its clients are raised: here all clients are one subject at one address.
const LIMITS: [(&str, &str); 4] = [
    ("AKIS_GATEWAY__LIMITS__CONNECTIONS", "20000"),
    ("AKIS_GATEWAY__LIMITS__CONNECTIONS_PER_SUBJECT", "20000"),
    ("AKIS_GATEWAY__LIMITS__CONNECTIONS_PER_ADDRESS", "20000"),
    ("AKIS_GATEWAY__LIMITS__HANDSHAKES_PER_SECOND", "20000"),
];

/// A running Redis and gateways that are ready. All end with the value.
pub(crate) struct Bed {
    akis: PathBuf,
    redis: RedisServer,
    redis_pid: u32,
    gateways: Vec<(Role, SocketAddr)>,
}

/// Where a gateway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// On one core, so that it makes one shard, and the rest is for the clients: figures of different servers compare.
    One,
    /// Wherever there is room.
    Any,
}

/// A process of the binary under test, with its admin port.
pub(crate) struct Role {
    process: Process,
    admin: SocketAddr,
}

impl Bed {
    /// Starts Redis and one gateway on a core of its own, and waits until the gateway is ready.
    ///
    /// # Errors
    ///
    /// When one of them does not start.
    pub(crate) async fn start(akis: PathBuf) -> Result<Self> {
        Self::with_replicas(akis, 1, Cores::One).await
    }

    /// Starts Redis and several gateways, and waits until they are ready.
    ///
    /// # Errors
    ///
    /// When one of them does not start.
    pub(crate) async fn with_replicas(akis: PathBuf, replicas: usize, cores: Cores) -> Result<Self> {
        let redis = RedisServer::start().await?;
        let info = redis.command(&["INFO", "server"]).await?;
        let redis_pid =
            info.lines().find_map(|line| line.trim().strip_prefix("process_id:")).and_then(|id| id.parse().ok());
        let redis_pid = redis_pid.context("Redis does not tell its process id")?;
        let url = redis.url();
        let mut env = vec![
            ("AKIS_REDIS__URL", url.as_str()),
            ("AKIS_GATEWAY__LISTEN", "127.0.0.1:0"),
            ("AKIS_AUTH__SECRET", SECRET),
        ];
        env.extend(LIMITS);
        let mut gateways = Vec::with_capacity(replicas);
        for _ in 0..replicas {
            let mut gateway = Role::start(&akis, "gateway", &env, cores).await?;
            let address = gateway.address("gateway listens").await?;
            gateway.wait_ready().await?;
            gateways.push((gateway, address));
        }
        Ok(Self { akis, redis, redis_pid, gateways })
    }

    /// The first gateway, and the only one unless more were asked for.
    pub(crate) fn gateway(&self) -> &Role {
        &self.gateways[0].0
    }

    /// All gateways.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = &Role> {
        self.gateways.iter().map(|(gateway, _)| gateway)
    }

    /// The process id of Redis.
    pub(crate) fn redis_pid(&self) -> u32 {
        self.redis_pid
    }

    /// The URL of Redis.
    pub(crate) fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// The binary under test.
    pub(crate) fn akis(&self) -> &Path {
        &self.akis
    }

    /// Where clients of the first gateway go.
    pub(crate) fn target(&self, stamp: Stamp) -> Target {
        self.target_of(0, stamp)
    }

    /// Where clients of a gateway go.
    pub(crate) fn target_of(&self, replica: usize, stamp: Stamp) -> Target {
        Target { address: self.gateways[replica].1, stamp, has_positions: true, is_traced: false }
    }

    /// How often Redis has carried out which command, those inside scripts included.
    ///
    /// # Errors
    ///
    /// When Redis does not answer.
    pub(crate) async fn commands(&self) -> Result<BTreeMap<String, u64>> {
        Ok(calls(&self.redis.command(&["INFO", "commandstats"]).await?))
    }

    /// A connection of our own to the log.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub(crate) async fn log(&self) -> Result<Arc<RedisStore>> {
        Ok(RedisStore::connect(&self.redis.url(), PREFIX, PARTITIONS).await?)
    }
}

impl Role {
    /// Starts `akis <name>` with a free admin port and no configuration but `env`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub(crate) async fn start(akis: &Path, name: &str, env: &[(&str, &str)], cores: Cores) -> Result<Self> {
        let mut env = env.to_vec();
        env.extend([("AKIS_ADMIN__LISTEN", "127.0.0.1:0"), ("AKIS_LOG_FORMAT", "json")]);
        // An empty file, so that no akis.toml of the working directory has a say.
        let args = [name, "--config", "/dev/null"];
        let process = match cores {
            Cores::One => pinned(akis.as_os_str(), &args, &env)?,
            Cores::Any => Process::spawn(akis, &args, &env)?,
        };
        let mut role = Self { process, admin: SocketAddr::from(([127, 0, 0, 1], 0)) };
        role.admin = role.address("admin port").await?;
        Ok(role)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to stop in order, and waits until it has.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        self.process.wait(STARTS_WITHIN).await?;
        Ok(())
    }

    /// The sum of a metric over all of its series whose labels contain `label`.
    ///
    /// # Errors
    ///
    /// When the admin port does not answer.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        Ok(sum(&get(self.admin, "/metrics").await?, name, label))
    }

    /// Waits until the gateway has no client any more.
    ///
    /// # Errors
    ///
    /// When time runs out.
    pub(crate) async fn wait_left(&self, within: Duration) -> Result<()> {
        let has_left = async || self.metric("akis_gateway_connections", "").await.is_ok_and(|count| count == 0.0);
        wait_until(within, "all clients have left", has_left).await
    }

    async fn wait_ready(&self) -> Result<()> {
        let is_ready = async || get(self.admin, "/readyz").await.is_ok();
        wait_until(STARTS_WITHIN, "the process is ready", is_ready).await
    }

    /// The loopback address in the first line that says `what`.
    async fn address(&mut self, what: &str) -> Result<SocketAddr> {
        let line = self.process.wait_for_line(what, STARTS_WITHIN).await?;
        loopback(&line).with_context(|| format!("no address in {line:?}"))
    }
}

/// A token for `subject` that may read everything.
///
/// # Errors
///
/// When it cannot be signed.
pub(crate) fn token(subject: &str) -> Result<Arc<str>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let claims = json!({ "sub": subject, "exp": now.as_secs() + 24 * 3600, "channels": ["*"] });
    Ok(encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))?.into())
}

/// Starts a program on the first core that this process may use.
///
/// # Errors
///
/// When `taskset` (of util-linux) or the program is not there.
pub(crate) fn pinned(program: &OsStr, args: &[&str], env: &[(&str, &str)]) -> Result<Process> {
    let core = usage::first_core()?;
    Process::start(Command::new("taskset").args(["-c", &core]).arg(program).args(args).envs(env.iter().copied()))
}

/// The first loopback address in a text.
pub(crate) fn loopback(text: &str) -> Option<SocketAddr> {
    let address = &text[text.find("127.0.0.1:")?..];
    let end = address.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(address.len());
    address[..end].parse().ok()
}

fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let series = lines.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, value| sum + value)
}

/// Lines are `cmdstat_xadd:calls=7,usec=…`.
fn calls(commandstats: &str) -> BTreeMap<String, u64> {
    let stats = commandstats.lines().filter_map(|line| line.trim().strip_prefix("cmdstat_")?.split_once(":calls="));
    stats.filter_map(|(name, rest)| Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))).collect()
}

/// The body of an answer 200.
async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.context("connect to the admin port")?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => bail!("{path} is answered with {answer:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_metrics_are_found() {
        assert_eq!(loopback(r#"{"address":"127.0.0.1:8080","x":1}"#), Some(SocketAddr::from(([127, 0, 0, 1], 8080))));
        assert_eq!(loopback("ws_url: ws://127.0.0.1:9443"), Some(SocketAddr::from(([127, 0, 0, 1], 9443))));
        assert_eq!(loopback("nothing"), None);
        assert_eq!(calls("# Commandstats\r\ncmdstat_xadd:calls=7,usec=9\r\n"), [("xadd".to_owned(), 7)].into());
        let metrics = "# HELP a_total x\na_total{what=\"x\"} 3\na_total{what=\"y\"} 4\na_total_more 9\n";
        assert_eq!((sum(metrics, "a_total", ""), sum(metrics, "a_total", "\"y\"")), (7.0, 4.0));
    }
}
