//! The names of all keys, and the nearest one to a name that is none.

/// Every key that holds a value. `*` stands for a name of the user's choice.
const KEYS: &[&str] = &[
    "log_format",
    "redis.url",
    "log.prefix",
    "log.partitions",
    "gateway.listen",
    "gateway.replica",
    "gateway.origins",
    "gateway.patterns",
    "gateway.trusted_proxies",
    "gateway.coalesce",
    "gateway.coalesce_max",
    "gateway.heartbeat",
    "gateway.drain",
    "gateway.limits.channels",
    "gateway.limits.messages_per_second",
    "gateway.limits.burst",
    "gateway.limits.bad_requests",
    "gateway.limits.message_bytes",
    "gateway.limits.header_timeout",
    "gateway.limits.publish_per_second",
    "gateway.limits.publish_bytes",
    "gateway.limits.event_bytes",
    "gateway.limits.connections",
    "gateway.limits.connections_per_subject",
    "gateway.limits.connections_per_address",
    "gateway.limits.handshakes_per_second",
    "gateway.limits.queue_per_channel",
    "gateway.limits.queue_bytes",
    "gateway.limits.queue_bytes_total",
    "admin.listen",
    "telemetry.otlp",
    "telemetry.sample_one_in",
    "telemetry.logs",
    "auth.secret",
    "auth.keys",
    "auth.issuer",
    "auth.audience",
    "auth.roles.*.channels",
    "auth.roles.*.publish",
    "auth.roles.*.limits.channels",
    "auth.roles.*.limits.messages_per_second",
    "venues.binance.enabled",
    "venues.binance.symbols",
    "venues.binance.kinds",
    "venues.binance.part",
    "venues.binance.ws_url",
    "venues.binance.rest_url",
    "venues.binancef.enabled",
    "venues.binancef.symbols",
    "venues.binancef.kinds",
    "venues.binancef.part",
    "venues.binancef.ws_url",
    "venues.binancef.rest_url",
    "venues.btcturk.enabled",
    "venues.btcturk.symbols",
    "venues.btcturk.kinds",
    "venues.btcturk.part",
    "venues.btcturk.ws_url",
    "venues.btcturk.rest_url",
    "venues.bist.enabled",
    "venues.bist.symbols",
    "venues.bist.kinds",
    "venues.bist.part",
    "venues.bist.ws_url",
    "venues.bist.rest_url",
    "venues.bist.transport",
    "venues.bist.line_a",
    "venues.bist.line_b",
    "venues.bist.rewinder",
    "venues.bist.soup",
    "venues.bist.glimpse",
    "venues.bist.interface",
    "venues.bist.username",
    "venues.bist.password",
    "venues.bist.half_days",
];

/// What every venue has.
const COMMON: [&str; 6] = ["enabled", "symbols", "kinds", "part", "ws_url", "rest_url"];

/// The keys of a venue's table that other venues do not have.
pub(super) fn own_keys(section: &str) -> impl Iterator<Item = &'static str> {
    let prefix = format!("{section}.");
    KEYS.iter().filter_map(move |key| key.strip_prefix(&prefix)).filter(|field| !COMMON.contains(field))
}

/// Whether the value of a key is never repeated: a secret, or an address that may hold a password.
pub(super) fn is_secret(key: &str) -> bool {
    const NAMES: [&str; 6] = ["secret", "password", "url", "ws_url", "rest_url", "otlp"];
    NAMES.contains(&key.rsplit('.').next().unwrap_or(key))
}

/// What a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A key with a value.
    Key,
    /// A table that keys lie in.
    Table,
    /// Nothing.
    Unknown,
}

/// Looks up a path such as `gateway.limits.burst`.
pub(super) fn place(path: &str) -> Place {
    let mut found = Place::Unknown;
    for key in KEYS {
        let mut names = key.split('.');
        let fits = path.split('.').all(|name| names.next().is_some_and(|known| known == "*" || known == name));
        if fits && names.next().is_none() {
            return Place::Key;
        }
        if fits {
            found = Place::Table;
        }
    }
    found
}

/// The known key or table that `path` most likely means.
pub(super) fn nearest(path: &str) -> String {
    nearest_of(path, |_, _| true)
}

/// The known key that a variable can set and that `path` most likely means.
pub(super) fn nearest_variable(path: &str) -> String {
    nearest_of(path, |key, end| end == key.len() && key != ["auth", "keys"])
}

/// The one of some names that `name` most likely means.
pub(super) fn nearest_name<'a>(name: &str, names: &[&'a str]) -> &'a str {
    names.iter().min_by_key(|known| distance(name, known)).copied().unwrap_or_default()
}

/// The nearest of all beginnings of keys that count: of a key, so many of its names.
fn nearest_of(path: &str, counts: impl Fn(&[&str], usize) -> bool) -> String {
    let last = path.rsplit('.').next().unwrap_or(path);
    let depth = path.split('.').count();
    let mut best = (usize::MAX, String::new());
    for key in KEYS {
        // A user's own name (of a role) is taken as it was written.
        let key: Vec<&str> = key
            .split('.')
            .zip(path.split('.').chain(std::iter::repeat("*")))
            .map(|(k, p)| if k == "*" { p } else { k })
            .collect();
        for end in (1..=key.len()).filter(|&end| counts(&key, end)) {
            let candidate = key[..end].join(".");
            let moved = key[end - 1] == last && end != depth;
            // A name that is right but stands in the wrong table is nearer than a similar one.
            let distance = if moved { 2 } else { 2 * distance(path, &candidate) };
            if distance < best.0 {
                best = (distance, candidate);
            }
        }
    }
    best.1
}

/// Levenshtein's edit distance, where `.` and `_` count as the same: `AKIS_REDIS_URL` is nearly right.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let same = |x: char, y: char| x == y || (matches!(x, '.' | '_') && matches!(y, '.' | '_'));
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(!same(x, *y));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_the_likely_one() {
        for (wrong, right) in [
            ("gateway.lisen", "gateway.listen"),
            ("gatewy", "gateway"),
            ("redis_url", "redis.url"),
            ("listen", "gateway.listen"),
            ("gateway.burst", "gateway.limits.burst"),
            ("gateway.limits.chanels", "gateway.limits.channels"),
            ("auth.roles.desk.chanels", "auth.roles.desk.channels"),
            ("venues.binanse", "venues.binance"),
            ("logformat", "log_format"),
        ] {
            assert_eq!(place(wrong), Place::Unknown, "{wrong}");
            assert_eq!(nearest(wrong), right, "{wrong}");
        }
    }

    #[test]
    fn a_variable_is_near_to_no_table() {
        for (wrong, right) in [
            ("gatewy", "gateway.drain"),
            ("gateway.lisen", "gateway.listen"),
            ("logformat", "log_format"),
            ("auth.roles.desk.chanels", "auth.roles.desk.channels"),
        ] {
            assert_eq!(nearest_variable(wrong), right, "{wrong}");
        }
        for wrong in ["foo", "port", "config", "log", "keys", "auth", "venues"] {
            assert_eq!(place(&nearest_variable(wrong)), Place::Key, "{wrong}");
        }
        assert_eq!(nearest_name("algo", &["id", "alg", "pem", "jwks"]), "alg");
    }

    #[test]
    fn places() {
        assert_eq!(place("auth.roles.desk.limits"), Place::Table);
        assert_eq!(place("auth.roles.desk.limits.channels"), Place::Key);
        assert_eq!(place("venues"), Place::Table);
        assert_eq!(place("venues.binance.symbols.x"), Place::Unknown);
    }
}
