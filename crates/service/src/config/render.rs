//! The effective configuration as TOML, for people: secrets hidden, absent options left out.

use ipnet::IpNet;
use toml::{Table, Value};

use super::secret::{HIDDEN, hide_passwords};
use super::units::{render_duration, render_size};
use super::{
    AuthConfig, Config, GatewayConfig, KeyConfig, KeySource, Limits, LogFormat, Role, TelemetryConfig, VenueConfig,
};

pub(super) fn render(config: &Config) -> String {
    let mut root = Table::new();
    if let Some(format) = config.log_format {
        let name = match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        root.insert("log_format".to_owned(), name.into());
    }
    root.insert("redis".to_owned(), table([("url", config.redis.url.to_string().into())]));
    let prefix = config.log.prefix.clone().into();
    root.insert("log".to_owned(), table([("prefix", prefix), ("partitions", count(config.log.partitions.into()))]));
    root.insert("gateway".to_owned(), gateway(&config.gateway));
    root.insert("admin".to_owned(), table([("listen", config.admin.listen.to_string().into())]));
    root.insert("telemetry".to_owned(), telemetry(&config.telemetry));
    root.insert("auth".to_owned(), auth(&config.auth));
    root.insert("venues".to_owned(), table(config.venues.0.iter().map(|(&name, config)| (name, venue(config)))));
    root.to_string()
}

fn gateway(gateway: &GatewayConfig) -> Value {
    table([
        ("listen", gateway.listen.to_string().into()),
        ("replica", gateway.replica.clone().into()),
        ("origins", gateway.origins.clone().into()),
        ("patterns", gateway.patterns.into()),
        ("trusted_proxies", gateway.trusted_proxies.iter().map(IpNet::to_string).collect::<Vec<_>>().into()),
        ("coalesce", render_duration(gateway.coalesce).into()),
        ("coalesce_max", render_duration(gateway.coalesce_max).into()),
        ("heartbeat", render_duration(gateway.heartbeat).into()),
        ("drain", render_duration(gateway.drain).into()),
        ("limits", limits(&gateway.limits)),
    ])
}

fn limits(limits: &Limits) -> Value {
    table([
        ("channels", count(limits.channels)),
        ("messages_per_second", limits.messages_per_second.into()),
        ("burst", limits.burst.into()),
        ("bad_requests", limits.bad_requests.into()),
        ("message_bytes", render_size(limits.message_bytes).into()),
        ("header_timeout", render_duration(limits.header_timeout).into()),
        ("publish_per_second", limits.publish_per_second.into()),
        ("publish_bytes", render_size(limits.publish_bytes).into()),
        ("event_bytes", render_size(limits.event_bytes).into()),
        ("connections", count(limits.connections)),
        ("connections_per_subject", count(limits.connections_per_subject)),
        ("connections_per_address", count(limits.connections_per_address)),
        ("handshakes_per_second", limits.handshakes_per_second.into()),
        ("queue_per_channel", count(limits.queue_per_channel)),
        ("queue_bytes", render_size(limits.queue_bytes).into()),
        ("queue_bytes_total", render_size(limits.queue_bytes_total).into()),
    ])
}

fn telemetry(telemetry: &TelemetryConfig) -> Value {
    let otlp = telemetry.otlp.as_ref().map(|url| ("otlp", url.to_string().into()));
    table(otlp.into_iter().chain([("sample_one_in", telemetry.sample_one_in.into()), ("logs", telemetry.logs.into())]))
}

fn auth(auth: &AuthConfig) -> Value {
    let keys: Vec<Value> = auth.keys.iter().map(key).collect();
    let roles = auth.roles.iter().map(|(name, r)| (name.as_str(), role(r)));
    let options = [
        ("secret", auth.secret.as_ref().map(|_| HIDDEN.into())),
        ("issuer", auth.issuer.clone().map(Value::from)),
        ("audience", auth.audience.clone().map(Value::from)),
        ("keys", (!keys.is_empty()).then(|| keys.into())),
        ("roles", (!auth.roles.is_empty()).then(|| table(roles))),
    ];
    table(options.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn key(key: &KeyConfig) -> Value {
    let source = match &key.source {
        KeySource::Pem(path) => ("pem", path.display().to_string().into()),
        KeySource::Jwks(url) => ("jwks", hide_passwords(url).into()),
    };
    table([("id", key.id.clone().into()), ("alg", key.alg.clone().into()), source])
}

fn role(role: &Role) -> Value {
    let limits = [
        ("channels", role.limits.channels.map(count)),
        ("messages_per_second", role.limits.messages_per_second.map(Value::from)),
    ];
    let limits = table(limits.into_iter().filter_map(|(name, value)| Some((name, value?))));
    table([("channels", role.channels.clone().into()), ("publish", role.publish.clone().into()), ("limits", limits)])
}

fn venue(venue: &VenueConfig) -> Value {
    let kinds: Vec<&str> = venue.kinds.iter().map(|kind| kind.as_str()).collect();
    let options = [
        ("enabled", Some(venue.enabled.into())),
        ("symbols", Some(venue.symbols.clone().into())),
        ("kinds", Some(kinds.into())),
        ("part", venue.part.map(|(number, of)| format!("{number}/{of}").into())),
        ("ws_url", venue.ws_url.as_deref().map(|url| hide_passwords(url).into())),
        ("rest_url", venue.rest_url.as_deref().map(|url| hide_passwords(url).into())),
    ];
    let own = venue.own.iter().map(|(name, value)| (name.as_str(), shown(name, value.expose()).into()));
    table(options.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(own))
}

/// The value of a key that only one venue has: a password is hidden, an address of any kind only where it holds one.
fn shown(name: &str, value: &str) -> String {
    match name {
        "password" => HIDDEN.to_owned(),
        _ if value.contains("://") => hide_passwords(value),
        _ => value.to_owned(),
    }
}

fn table<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Table(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// TOML's numbers are signed; no count comes near their end.
fn count(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
