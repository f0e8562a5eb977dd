//! The configuration as plain data: read once at the start, validated whole, all mistakes reported together.
//!
//! One TOML file, overridden by `AKIS_…` variables (two underscores between levels), overridden by flags.
//! The contract is section 3 of `docs/cli.md`.

mod build;
mod read;
mod render;
mod schema;
mod secret;
mod source;
mod units;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use akis_model::Kind;
use ipnet::IpNet;

pub use build::MIN_SECRET_BYTES;
pub use read::Mistake;
pub use secret::{Secret, ServerUrl};
pub use source::{Flag, Sources};
pub use units::parse_duration;

/// The whole configuration of a process.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where Redis is.
    pub redis: RedisConfig,
    /// The layout of the log.
    pub log: LogConfig,
    /// The gateway role.
    pub gateway: GatewayConfig,
    /// The admin port.
    pub admin: AdminConfig,
    /// Who may connect.
    pub auth: AuthConfig,
    /// The venues that a normalizer publishes.
    pub venues: Venues,
    /// Where metrics, traces and logs are pushed.
    pub telemetry: TelemetryConfig,
    /// `log_format`, `AKIS_LOG_FORMAT`. Default: text on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Reads and validates the configuration, and says everything that is wrong with it, in all sources together. A key, a
    /// venue or a signing key with a mistake is left out, or has its default: whoever calls may look at the rest before all
    /// is told.
    pub fn read(sources: &Sources) -> (Self, Vec<Mistake>) {
        build::build(sources)
    }

    /// The effective configuration as TOML, secrets and passwords hidden.
    pub fn to_toml(&self) -> String {
        render::render(self)
    }
}

/// `[redis]`: where Redis is.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis.url`, `AKIS_REDIS__URL`: `redis://`, `rediss://`, `redis-sentinel://` or `redis-cluster://`.
    /// Default: `redis://127.0.0.1:6379`.
    pub url: ServerUrl,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self { url: ServerUrl::new("redis://127.0.0.1:6379") }
    }
}

/// `[log]`: the layout of the log. The same for every process that shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `log.prefix`, `AKIS_LOG__PREFIX`: what every key begins with. Default: `akis`.
    pub prefix: String,
    /// `log.partitions`, `AKIS_LOG__PARTITIONS`: 1 to 256. Default: 16.
    pub partitions: u16,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { prefix: "akis".to_owned(), partitions: 16 }
    }
}

/// `[gateway]`: one replica.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// `gateway.listen`, `AKIS_GATEWAY__LISTEN`: where clients come. Default: `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// `gateway.replica`, `AKIS_GATEWAY__REPLICA`: this replica's id. Default: host name and a random end.
    pub replica: String,
    /// `gateway.origins`, `AKIS_GATEWAY__ORIGINS`: browser origins that may connect, as in the `Origin` header.
    /// Default: none, which means the same origin only.
    pub origins: Vec<String>,
    /// `gateway.patterns`, `AKIS_GATEWAY__PATTERNS`: whether a `subscribe` may name channels by a pattern. Default: no.
    pub patterns: bool,
    /// `gateway.trusted_proxies`, `AKIS_GATEWAY__TRUSTED_PROXIES`: networks of the proxies whose `X-Forwarded-For` tells from where a client
    /// comes. Default: none, and whoever connects is the client.
    pub trusted_proxies: Vec<IpNet>,
    /// `gateway.limits`.
    pub limits: Limits,
    /// `gateway.coalesce`, `AKIS_GATEWAY__COALESCE`: how long a busy connection's writes are gathered; 0 turns it
    /// off. Default: 5 ms.
    pub coalesce: Duration,
    /// `gateway.coalesce_max`, `AKIS_GATEWAY__COALESCE_MAX`: how far that may grow on a core at its limit.
    /// Default: 40 ms.
    pub coalesce_max: Duration,
    /// `gateway.heartbeat`, `AKIS_GATEWAY__HEARTBEAT`: time between two heartbeats. Default: 5 s.
    pub heartbeat: Duration,
    /// `gateway.drain`, `AKIS_GATEWAY__DRAIN`: over how long clients are sent away. Default: 20 s.
    pub drain: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            replica: source::replica_name(),
            origins: Vec::new(),
            patterns: false,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
            coalesce: Duration::from_millis(5),
            coalesce_max: Duration::from_millis(40),
            heartbeat: Duration::from_secs(5),
            drain: Duration::from_secs(20),
        }
    }
}

/// `[gateway.limits]`: what one client, one subject, one address and one replica may take.
/// The variables are `AKIS_GATEWAY__LIMITS__…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Channels on one connection. Default: 200.
    pub channels: usize,
    /// Requests of one connection, per second. Default: 20.
    pub messages_per_second: u32,
    /// Requests of one connection at once. Default: 100.
    pub burst: u32,
    /// Bad requests after which a connection is closed. Default: 50.
    pub bad_requests: u32,
    /// Longest message of a client, in bytes. Default: 64 KiB.
    pub message_bytes: usize,
    /// How long the head of a request may take. Default: 10 s.
    pub header_timeout: Duration,
    /// Events published by one subject, per second; twice that at once. Default: 1000.
    pub publish_per_second: u32,
    /// Largest publish request, in bytes. Default: 1 MiB.
    pub publish_bytes: usize,
    /// Largest published event, in bytes. Default: 64 KiB.
    pub event_bytes: usize,
    /// Connections of this replica. Default: 20,000.
    pub connections: usize,
    /// Connections of one subject. Default: 50.
    pub connections_per_subject: usize,
    /// Connections from one address. Default: 1000.
    pub connections_per_address: usize,
    /// New connections of this replica, per second. Default: 2000.
    pub handshakes_per_second: u32,
    /// Events that wait for one client on one channel. Default: 128.
    pub queue_per_channel: usize,
    /// Bytes that wait for one client. Default: 1 MiB.
    pub queue_bytes: usize,
    /// Bytes that wait for all clients of this replica together. Default: 256 MiB.
    pub queue_bytes_total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels: 200,
            messages_per_second: 20,
            burst: 100,
            bad_requests: 50,
            message_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            publish_per_second: 1000,
            publish_bytes: 1 << 20,
            event_bytes: 64 << 10,
            connections: 20_000,
            connections_per_subject: 50,
            connections_per_address: 1000,
            handshakes_per_second: 2000,
            queue_per_channel: 128,
            queue_bytes: 1 << 20,
            queue_bytes_total: 256 << 20,
        }
    }
}

/// `[admin]`: liveness, readiness, metrics, drain.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// `admin.listen`, `AKIS_ADMIN__LISTEN`. Default: `127.0.0.1:9090`.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)) }
    }
}

/// `[telemetry]`: what is pushed by OTLP. `/metrics` on the admin port has the same metrics whatever this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// `telemetry.otlp`, `AKIS_TELEMETRY__OTLP`: where a collector takes OTLP over gRPC, `http://collector:4317` for
    /// example. Default: none, and nothing is pushed.
    pub otlp: Option<ServerUrl>,
    /// `telemetry.sample_one_in`, `AKIS_TELEMETRY__SAMPLE_ONE_IN`: one event, one subscription and one request to
    /// publish in so many are traced; 0 traces none. Default: 1000.
    pub sample_one_in: u32,
    /// `telemetry.logs`, `AKIS_TELEMETRY__LOGS`: whether log records are pushed as well; stderr has them either way.
    /// Default: false.
    pub logs: bool,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp: None, sample_one_in: 1000, logs: false }
    }
}

/// `[auth]`: whose tokens are believed, and what roles stand for.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    /// `auth.secret`, `AKIS_AUTH__SECRET`: HS256 secret, 32 bytes or more. Default: none.
    pub secret: Option<Secret>,
    /// `[[auth.keys]]`: public keys, the algorithm pinned to each. Default: none. In the file only.
    pub keys: Vec<KeyConfig>,
    /// `auth.issuer`, `AKIS_AUTH__ISSUER`: `iss` that a token must have. Default: not checked.
    pub issuer: Option<String>,
    /// `auth.audience`, `AKIS_AUTH__AUDIENCE`: `aud` that a token must have. Default: not checked.
    pub audience: Option<String>,
    /// `[auth.roles.NAME]`: what the names in a token's `roles` stand for. Default: none.
    pub roles: BTreeMap<String, Role>,
}

/// One entry of `[[auth.keys]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// `id`: the `kid` in the head of a token. Names a key set as a whole; in it each key has a `kid` of its own.
    pub id: String,
    /// `alg`: the only algorithm this key is used with, `RS256` for example.
    pub alg: String,
    /// Where the key is.
    pub source: KeySource,
}

/// Where a public key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `pem`: a file.
    Pem(PathBuf),
    /// `jwks`: the `https://` address of a key set, or an `http://` one on a loopback address.
    Jwks(String),
}

/// One `[auth.roles.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Role {
    /// Patterns of channels that it may subscribe to; each was checked to be a pattern.
    pub channels: Vec<String>,
    /// Patterns of channels that it may publish to; each was checked to be a pattern.
    pub publish: Vec<String>,
    /// Limits below those of `[gateway.limits]`; higher ones change nothing.
    pub limits: RoleLimits,
}

/// `limits` of a role. Absent: as for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoleLimits {
    /// See [`Limits::channels`].
    pub channels: Option<usize>,
    /// See [`Limits::messages_per_second`].
    pub messages_per_second: Option<u32>,
}

/// `[venues]`: what a normalizer publishes.
#[derive(Debug, Clone, Default)]
pub struct Venues(BTreeMap<&'static str, VenueConfig>);

impl Venues {
    /// The venue called `name`, when it is configured.
    pub fn get(&self, name: &str) -> Option<&VenueConfig> {
        self.0.get(name)
    }

    /// Adds a venue, or replaces it.
    pub fn add(&mut self, name: &'static str, venue: VenueConfig) {
        self.0.insert(name, venue);
    }

    /// The venues that are configured and enabled, with their names.
    pub fn enabled(&self) -> impl Iterator<Item = (&'static str, &VenueConfig)> {
        self.0.iter().filter(|(_, venue)| venue.enabled).map(|(&name, venue)| (name, venue))
    }
}

/// One venue, `[venues.binance]` for example. The variables are `AKIS_VENUES__BINANCE__…` and so on.
#[derive(Debug, Clone)]
pub struct VenueConfig {
    /// `enabled`. Default: true, once the section is there.
    pub enabled: bool,
    /// `symbols`, in the venue's spelling. Must be there when the venue is enabled.
    pub symbols: Vec<String>,
    /// `kinds`: `ticker`, `trades`, `book`, `candles` (or `1m`), `session`. Default: all that the venue has.
    pub kinds: Vec<Kind>,
    /// `ws_url`: where the venue's streams are. Default: the venue's public address.
    pub ws_url: Option<String>,
    /// `rest_url`: where the venue's REST is. Default: the venue's public address.
    pub rest_url: Option<String>,
    /// `part`: which part of the symbols, `"1/3"` for example: the number of the part and how many there are.
    /// Default: all symbols.
    pub part: Option<(u32, u32)>,
    /// Keys that only this venue has, as text by their names. Some may be passwords.
    pub own: BTreeMap<String, Secret>,
}

impl VenueConfig {
    /// An enabled venue with nothing said but its symbols.
    pub fn of_symbols(symbols: Vec<String>) -> Self {
        Self {
            enabled: true,
            symbols,
            kinds: Vec::new(),
            ws_url: None,
            rest_url: None,
            part: None,
            own: BTreeMap::new(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests;
