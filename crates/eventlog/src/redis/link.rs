//! A connection to Redis, with the client's settings in one place.

use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::interfaces::{ClientLike, ClusterInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectError, ReconnectPolicy, TcpConfig, UnresponsiveConfig,
};
use fred::types::{Builder, ClusterHash, ConnectHandle, CustomCommand, Resp3Frame, RespVersion, Value};
use fred::util::redis_keyslot;

use super::error::{ConnectError, from_client, from_reply};
use crate::store::Unavailable;

/// How long a command may take, the wait for a connection included; and how long it takes to give up connecting.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that has answered nothing for so long while something was asked is dropped.
const UNRESPONSIVE: Duration = Duration::from_secs(4);

/// Commands that wait for the connection at most; beyond it they fail at once.
const COMMAND_BUFFER: usize = 10_000;

/// What Redis is reached by; the client would take others for it.
const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

/// How servers are arranged, behind the scheme.
const TOPOLOGIES: [&str; 2] = ["-cluster", "-sentinel"];

/// The answer to one command.
pub(super) type Reply = Result<Resp3Frame, Unavailable>;

/// Which node of a cluster a command goes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    /// The owner of the key that is this argument, counted from 0.
    Argument(usize),
    /// The owner of this slot.
    Slot(u16),
    /// Any node.
    Anywhere,
}

/// Parses a URL.
pub(super) fn parse_url(url: &str) -> Result<Config, ConnectError> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let base = TOPOLOGIES.iter().find_map(|topology| scheme.strip_suffix(topology)).unwrap_or(scheme);
    if !SCHEMES.contains(&base) {
        return Err(ConnectError::Url("unknown scheme".to_owned()));
    }
    let mut config = Config::from_url(url).map_err(|error| ConnectError::Url(error.kind().to_str().to_owned()))?;
    // Stream replies are cheaper to read as RESP2 arrays than as RESP3 maps.
    config.version = RespVersion::RESP2;
    Ok(config)
}

/// A client and its task, which ends with it.
pub(super) struct Link {
    client: Client,
    task: ConnectHandle,
}

impl Link {
    /// Opens a connection that comes back by itself when it is lost. A command is never sent a second time.
    pub(super) async fn open_shared(config: &Config) -> Result<Self, Unavailable> {
        let mut builder = lasting(config);
        builder.with_connection_config(|connection| {
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(UNRESPONSIVE), interval: Duration::from_millis(500) };
        });
        builder.set_performance_config(PerformanceConfig {
            default_command_timeout: COMMAND_TIMEOUT,
            ..PerformanceConfig::default()
        });
        Self::open(&builder).await
    }

    /// Opens a connection for one blocking reader: it has no deadline but the reader's, and is not opened again.
    pub(super) async fn open_reader(config: &Config) -> Result<Self, Unavailable> {
        Self::open(&builder(config)).await
    }

    async fn open(builder: &Builder) -> Result<Self, Unavailable> {
        let client = builder.build().map_err(|error| from_client(&error))?;
        let task = client.init().await.map_err(|error| from_client(&error))?;
        Ok(Self { client, task })
    }

    /// Whether partitions may lie on different nodes.
    pub(super) fn is_clustered(&self) -> bool {
        self.client.is_clustered()
    }

    /// Every node that keys are written to.
    pub(super) fn primaries(&self) -> Vec<At> {
        match self.client.cached_cluster_state() {
            Some(cluster) => cluster.unique_hash_slots().into_iter().map(At::Slot).collect(),
            None => vec![At::Anywhere],
        }
    }

    /// Sends one command.
    pub(super) async fn call(&self, command: &'static str, at: At, args: Vec<Value>) -> Reply {
        // The client goes by no other hash of a custom command than this one.
        let hash = match at {
            At::Argument(index) if self.is_clustered() => {
                let key = args.get(index).and_then(Value::as_bytes).unwrap_or_default();
                ClusterHash::Custom(redis_keyslot(key))
            }
            At::Slot(slot) => ClusterHash::Custom(slot),
            At::Argument(_) | At::Anywhere => ClusterHash::Random,
        };
        let command = CustomCommand::new_static(command, hash, false);
        match self.client.custom_raw(command, args).await {
            Ok(Resp3Frame::SimpleError { data, .. }) => Err(from_reply(&data)),
            Ok(Resp3Frame::BlobError { data, .. }) => Err(from_reply(&String::from_utf8_lossy(&data))),
            Ok(frame) => Ok(frame),
            Err(error) => Err(from_client(&error)),
        }
    }
}

impl Drop for Link {
    /// Closes the connection without asking the server, which may not answer any more.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client for subscriptions, whose connection comes back by itself when it is lost. It is not connected yet.
pub(super) fn subscriber(config: &Config) -> Result<SubscriberClient, fred::error::Error> {
    lasting(config).build_subscriber_client()
}

/// Connections that come back by themselves when they are lost.
fn lasting(config: &Config) -> Builder {
    let mut builder = builder(config);
    builder.set_policy(ReconnectPolicy::new_exponential(0, 50, 1_000, 2));
    builder
}

fn builder(config: &Config) -> Builder {
    let mut builder = Builder::from_config(config.clone());
    builder.set_connection_config(ConnectionConfig {
        connection_timeout: COMMAND_TIMEOUT,
        internal_command_timeout: COMMAND_TIMEOUT,
        // A command whose answer was lost may have been done: whoever sent it decides what to do.
        max_command_attempts: 1,
        max_command_buffer_len: COMMAND_BUFFER,
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        // A demoted primary keeps its connections: the next one goes to the new primary.
        reconnect_errors: vec![ReconnectError::ReadOnly],
        ..ConnectionConfig::default()
    });
    builder
}
