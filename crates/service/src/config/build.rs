//! From the merged tree to [`Config`]: which rule each key has to keep.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use akis_model::{Kind, is_segment};
use ipnet::IpNet;
use url::{Host, Url};

use super::read::{Mistake, Reader};
use super::schema;
use super::source::{self, Node, Sources, Value};
use super::{
    AdminConfig, AuthConfig, Config, GatewayConfig, KeyConfig, KeySource, Limits, LogConfig, LogFormat, RedisConfig,
    Role, RoleLimits, Secret, ServerUrl, TelemetryConfig, VenueConfig, Venues,
};

/// The shortest HS256 secret. RFC 7518 section 3.2: a key of the size of the hash output, 256 bits, must be used.
pub const MIN_SECRET_BYTES: usize = 32;

/// More would make every replica read more streams than one process can follow.
const MAX_PARTITIONS: u16 = 256;

/// Parts that a venue may be split into.
const MAX_PARTS: u32 = 64;

/// A bound for every number that bounds memory, so that a slip of the pen cannot ask for all of it.
const MAX_COUNT: usize = 10_000_000;

/// The same for sizes.
const MAX_BYTES: usize = 1 << 30;

/// Largest size of what all clients share.
const MAX_TOTAL_BYTES: usize = 1 << 40;

const REDIS_SCHEMES: [&str; 6] =
    ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"];

/// Algorithms with a public key. A shared secret belongs to `auth.secret`.
const KEY_ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// What an entry of `[[auth.keys]]` has.
const KEY_FIELDS: [&str; 4] = ["id", "alg", "pem", "jwks"];

pub(super) fn build(sources: &Sources) -> (Config, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    let root = source::read(sources, &mut mistakes);
    let mut reader = Reader::new(root, mistakes);
    let r = &mut reader;
    let config = Config {
        redis: redis(r),
        log: log(r),
        gateway: gateway(r),
        admin: AdminConfig { listen: r.address("admin.listen").unwrap_or(AdminConfig::default().listen) },
        auth: auth(r),
        venues: venues(r),
        telemetry: telemetry(r),
        log_format: log_format(r),
    };
    (config, reader.mistakes)
}

fn redis(r: &mut Reader) -> RedisConfig {
    r.url("redis.url", &REDIS_SCHEMES).map_or_else(RedisConfig::default, |url| RedisConfig { url: ServerUrl::new(url) })
}

fn log(r: &mut Reader) -> LogConfig {
    let default = LogConfig::default();
    let prefix = r.text("log.prefix");
    if prefix.as_deref().is_some_and(|prefix| !is_segment(prefix) || prefix.len() > 64) {
        r.refuse("log.prefix", "must be 1 to 64 of A-Z a-z 0-9 _ . -");
    }
    LogConfig {
        prefix: prefix.unwrap_or(default.prefix),
        partitions: r.number("log.partitions", 1..=MAX_PARTITIONS).unwrap_or(default.partitions),
    }
}

fn gateway(r: &mut Reader) -> GatewayConfig {
    let default = GatewayConfig::default();
    let ms = Duration::from_millis;
    let config = GatewayConfig {
        listen: r.address("gateway.listen").unwrap_or(default.listen),
        replica: replica(r).unwrap_or(default.replica),
        origins: origins(r),
        patterns: r.boolean("gateway.patterns").unwrap_or(default.patterns),
        trusted_proxies: networks(r, "gateway.trusted_proxies"),
        limits: limits(r),
        coalesce: r.duration("gateway.coalesce", ms(0)..=ms(1000)).unwrap_or(default.coalesce),
        coalesce_max: r.duration("gateway.coalesce_max", ms(0)..=ms(1000)).unwrap_or(default.coalesce_max),
        heartbeat: r.duration("gateway.heartbeat", ms(100)..=ms(60_000)).unwrap_or(default.heartbeat),
        drain: r.duration("gateway.drain", ms(0)..=ms(3_600_000)).unwrap_or(default.drain),
    };
    if config.coalesce > config.coalesce_max {
        let key = if r.has("gateway.coalesce") { "gateway.coalesce" } else { "gateway.coalesce_max" };
        r.refuse(key, "gateway.coalesce must not be longer than gateway.coalesce_max");
    }
    config
}

fn replica(r: &mut Reader) -> Option<String> {
    let name = r.text("gateway.replica")?;
    if !is_segment(&name) || name.len() > 64 {
        r.refuse("gateway.replica", "must be 1 to 64 of A-Z a-z 0-9 _ . -");
    }
    Some(name)
}

fn origins(r: &mut Reader) -> Vec<String> {
    let origins = r.list("gateway.origins").unwrap_or_default();
    for origin in &origins {
        let exact = Url::parse(origin).is_ok_and(|url| url.has_host() && url.origin().ascii_serialization() == *origin);
        if !exact {
            r.refuse("gateway.origins", format!("{origin:?} is no origin: write it like \"https://app.example.com\""));
        }
    }
    origins
}

/// Networks, or single addresses.
fn networks(r: &mut Reader, key: &str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in r.list(key).unwrap_or_default() {
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => r.refuse(key, format!("{text:?} is no network: write it like \"10.0.0.0/8\", or as an address")),
        }
    }
    networks
}

fn limits(r: &mut Reader) -> Limits {
    let default = Limits::default();
    let second = Duration::from_secs(1);
    let mut count =
        |name: &str, default: usize| r.number(&format!("gateway.limits.{name}"), 1..=MAX_COUNT).unwrap_or(default);
    let channels = count("channels", default.channels);
    let connections = count("connections", default.connections);
    let connections_per_subject = count("connections_per_subject", default.connections_per_subject);
    let connections_per_address = count("connections_per_address", default.connections_per_address);
    let queue_per_channel = count("queue_per_channel", default.queue_per_channel);
    let mut rate =
        |name: &str, default: u32| r.number(&format!("gateway.limits.{name}"), 1..=MAX_COUNT as u32).unwrap_or(default);
    let messages_per_second = rate("messages_per_second", default.messages_per_second);
    let burst = rate("burst", default.burst);
    let bad_requests = rate("bad_requests", default.bad_requests);
    let publish_per_second = rate("publish_per_second", default.publish_per_second);
    let handshakes_per_second = rate("handshakes_per_second", default.handshakes_per_second);
    let mut bytes =
        |name: &str, default: usize| r.size(&format!("gateway.limits.{name}"), 256..=MAX_BYTES).unwrap_or(default);
    let message_bytes = bytes("message_bytes", default.message_bytes);
    let publish_bytes = bytes("publish_bytes", default.publish_bytes);
    let event_bytes = bytes("event_bytes", default.event_bytes);
    let queue_bytes = bytes("queue_bytes", default.queue_bytes);
    let total = "gateway.limits.queue_bytes_total";
    let header_timeout = "gateway.limits.header_timeout";
    Limits {
        channels,
        messages_per_second,
        burst,
        bad_requests,
        message_bytes,
        header_timeout: r.duration(header_timeout, second / 10..=second * 300).unwrap_or(default.header_timeout),
        publish_per_second,
        publish_bytes,
        event_bytes,
        connections,
        connections_per_subject,
        connections_per_address,
        handshakes_per_second,
        queue_per_channel,
        queue_bytes,
        queue_bytes_total: r.size(total, 256..=MAX_TOTAL_BYTES).unwrap_or(default.queue_bytes_total),
    }
}

fn auth(r: &mut Reader) -> AuthConfig {
    let secret = r.text("auth.secret");
    if secret.as_ref().is_some_and(|secret| secret.len() < MIN_SECRET_BYTES) {
        r.refuse("auth.secret", format!("must have {MIN_SECRET_BYTES} bytes or more"));
    }
    AuthConfig {
        secret: secret.map(Secret::new),
        keys: keys(r),
        issuer: r.text("auth.issuer"),
        audience: r.text("auth.audience"),
        roles: r.names("auth.roles").into_iter().map(|name| role(r, name)).collect(),
    }
}

fn role(r: &mut Reader, name: String) -> (String, Role) {
    let key = |field: &str| format!("auth.roles.{name}.{field}");
    let role = Role {
        channels: r.patterns(&key("channels")).unwrap_or_default(),
        publish: r.patterns(&key("publish")).unwrap_or_default(),
        limits: RoleLimits {
            channels: r.number(&key("limits.channels"), 1..=MAX_COUNT),
            messages_per_second: r.number(&key("limits.messages_per_second"), 1..=MAX_COUNT as u32),
        },
    };
    (name, role)
}

fn keys(r: &mut Reader) -> Vec<KeyConfig> {
    let mut keys: Vec<KeyConfig> = Vec::new();
    for (place, table) in r.tables("auth.keys") {
        match key(&table) {
            Ok(key) if keys.iter().any(|other| other.id == key.id) => {
                r.mistakes.push(Mistake::new(place, format!("id {:?} is used twice", key.id)));
            }
            Ok(key) => keys.push(key),
            Err(messages) => {
                r.mistakes.extend(messages.into_iter().map(|message| Mistake::new(&place, message)));
            }
        }
    }
    keys
}

/// Reads one entry of `[[auth.keys]]`, or says all that is wrong with it.
fn key(table: &BTreeMap<String, Node>) -> Result<KeyConfig, Vec<String>> {
    let mut wrong = Vec::new();
    for name in table.keys().filter(|name| !KEY_FIELDS.contains(&name.as_str())) {
        let near = schema::nearest_name(name, &KEY_FIELDS);
        wrong.push(format!("unknown key {name:?}, did you mean {near}? Known are {}", KEY_FIELDS.join(", ")));
    }
    let mut text = |name: &str| match table.get(name).map(|node| &node.value) {
        Some(Value::Text(text)) => Some(text.clone()),
        Some(_) => {
            wrong.push(format!("{name} must be text in quotes"));
            None
        }
        None => None,
    };
    let (id, alg, pem, jwks) = (text("id"), text("alg"), text("pem"), text("jwks"));
    if id.as_deref().is_none_or(str::is_empty) {
        wrong.push("id is missing: the kid that tokens name".to_owned());
    }
    if !alg.as_deref().is_some_and(|alg| KEY_ALGORITHMS.contains(&alg)) {
        wrong.push(format!("alg must be one of {}", KEY_ALGORITHMS.join(", ")));
    }
    let source = match (pem, jwks) {
        (Some(pem), None) => check_pem(&pem).map(|()| KeySource::Pem(PathBuf::from(pem))),
        (None, Some(jwks)) => check_jwks(&jwks).map(|()| KeySource::Jwks(jwks)),
        _ => Err("exactly one of pem and jwks must be there".to_owned()),
    };
    match (id, alg, source) {
        (Some(id), Some(alg), Ok(source)) if wrong.is_empty() => Ok(KeyConfig { id, alg, source }),
        (_, _, source) => {
            wrong.extend(source.err());
            Err(wrong)
        }
    }
}

fn check_pem(path: &str) -> Result<(), String> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") => {
            Err(format!("pem {path:?} is a private key: the gateway needs the public one only"))
        }
        Ok(text) if text.contains("-----BEGIN ") => Ok(()),
        Ok(_) => Err(format!("pem {path:?} holds no PEM")),
        Err(error) => Err(format!("pem {path:?} cannot be read: {error}")),
    }
}

/// Whoever can change a key set on its way can make tokens, so only this machine is asked without TLS.
fn check_jwks(url: &str) -> Result<(), String> {
    let Ok(url) = Url::parse(url) else { return Err("jwks must be an https:// URL".to_owned()) };
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_here => Ok(()),
        _ => Err("jwks must be an https:// URL; http:// only on a loopback address".to_owned()),
    }
}

fn venues(r: &mut Reader) -> Venues {
    const CRYPTO: [Kind; 4] = [Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles];
    let mut venues = Venues::default();
    for (name, kinds) in [
        ("binance", CRYPTO.as_slice()),
        ("binancef", &CRYPTO),
        ("btcturk", &CRYPTO),
        ("bist", &[Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles, Kind::Session]),
    ] {
        if let Some(venue) = venue(r, name, kinds) {
            venues.add(name, venue);
        }
    }
    venues
}

fn venue(r: &mut Reader, name: &str, all: &[Kind]) -> Option<VenueConfig> {
    let section = format!("venues.{name}");
    if !r.has(&section) {
        return None;
    }
    let before = r.mistakes.len();
    let key = |field: &str| format!("{section}.{field}");
    let config = VenueConfig {
        enabled: r.boolean(&key("enabled")).unwrap_or(true),
        symbols: symbols(r, &key("symbols")),
        kinds: kinds(r, &key("kinds"), all),
        ws_url: r.url(&key("ws_url"), &["ws", "wss"]),
        rest_url: r.url(&key("rest_url"), &["http", "https"]),
        part: part(r, &key("part")),
        own: schema::own_keys(&section)
            .filter_map(|field| Some((field.to_owned(), Secret::new(r.text(&key(field))?))))
            .collect(),
    };
    if config.enabled && config.symbols.is_empty() {
        let place = if r.has(&key("symbols")) { key("symbols") } else { section };
        r.refuse(&place, "an enabled venue needs symbols");
    }
    (r.mistakes.len() == before).then_some(config)
}

/// `2/3`: the second of three.
fn part(r: &mut Reader, key: &str) -> Option<(u32, u32)> {
    let text = r.text(key)?;
    let part = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
    match part {
        Some((number, of)) if (1..=of).contains(&number) && of <= MAX_PARTS => Some((number, of)),
        _ => {
            r.refuse(key, format!("must be a part and their number, like \"1/3\", of at most {MAX_PARTS}"));
            None
        }
    }
}

/// Symbols stay in the venue's own spelling; some of them are not ASCII.
fn symbols(r: &mut Reader, key: &str) -> Vec<String> {
    let mut symbols = r.list(key).unwrap_or_default();
    for symbol in &symbols {
        if symbol.is_empty() || symbol.chars().any(|c| c.is_whitespace() || c.is_control()) {
            r.refuse(key, format!("{symbol:?} is no symbol"));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    symbols.retain(|symbol| seen.insert(symbol.clone()));
    symbols
}

fn kinds(r: &mut Reader, key: &str, all: &[Kind]) -> Vec<Kind> {
    let Some(names) = r.list(key) else { return all.to_vec() };
    let mut kinds = Vec::new();
    for name in names {
        // Candles are also known by the interval that is taken from the venue.
        let wanted = if name == "1m" { "candles" } else { &name };
        match all.iter().find(|kind| kind.as_str() == wanted) {
            Some(kind) if kinds.contains(kind) => {}
            Some(kind) => kinds.push(*kind),
            None => {
                let known: Vec<&str> = all.iter().map(|kind| kind.as_str()).collect();
                r.refuse(key, format!("{name:?} is no kind of this venue, known are {}", known.join(", ")));
            }
        }
    }
    kinds
}

fn telemetry(r: &mut Reader) -> TelemetryConfig {
    let default = TelemetryConfig::default();
    let config = TelemetryConfig {
        otlp: r.url("telemetry.otlp", &["http", "https"]).map(ServerUrl::new),
        sample_one_in: r.number("telemetry.sample_one_in", 0..=u32::MAX).unwrap_or(default.sample_one_in),
        logs: r.boolean("telemetry.logs").unwrap_or(default.logs),
    };
    if config.logs && !r.has("telemetry.otlp") {
        r.refuse("telemetry.logs", "needs telemetry.otlp: log records are pushed there");
    }
    config
}

fn log_format(r: &mut Reader) -> Option<LogFormat> {
    match r.text("log_format")?.as_str() {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        other => {
            r.refuse("log_format", format!("must be \"text\" or \"json\", not {other:?}"));
            None
        }
    }
}
