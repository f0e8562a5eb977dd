//! Where the feed comes from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use akis_service::backoff::Backoff;

use super::half_days::half_days;
use crate::registry::{Own, Settings};
use crate::symbols::is_symbol;

/// The addresses of a feed, and who asks for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// What carries the live messages.
    pub transport: Transport,
    /// `host:port` of the GLIMPSE server. Without it, what is lost stays unproven for the rest of the day.
    pub glimpse: Option<String>,
    /// For SoupBinTCP and GLIMPSE, at most 6 characters.
    pub user: String,
    /// For SoupBinTCP and GLIMPSE, at most 10 characters.
    pub password: String,
    /// How long to wait after failures.
    pub(super) backoff: Backoff,
}

/// Without the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("transport", &self.transport)
            .field("glimpse", &self.glimpse)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Every symbol of the feed.
const ALL: &str = "*";

/// What is wrong with the settings, a line each. What is not there is not wrong: a stand-in may take the exchange's place,
/// and [`missing`] says what is needed without one.
pub fn check(settings: &Settings) -> Vec<String> {
    let half_days = half_days(settings.own.get("half_days").unwrap_or_default());
    let (_, keys) = Keys::read(settings);
    // The feed brings all symbols, so none is looked up.
    let symbols = settings.symbols.iter().filter(|symbol| !is_symbol(symbol) && *symbol != ALL).map(|symbol| {
        format!("symbols: {symbol:?} is neither a symbol nor {ALL:?}, which is every symbol of the feed")
    });
    symbols.chain(half_days.err()).chain(keys.wrong).collect()
}

/// What the settings lack to lead to the exchange, a line each: nobody can have the feed without a licence.
pub fn missing(settings: &Settings) -> Vec<String> {
    Keys::read(settings).1.missing
}

impl Config {
    /// Reads the keys of `[venues.bist]`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, a line each.
    pub fn read(settings: &Settings) -> Result<Self, Vec<String>> {
        let (config, keys) = Keys::read(settings);
        config.ok_or_else(|| [keys.missing, keys.wrong].concat())
    }
}

/// The keys while they are read.
struct Keys<'a> {
    own: &'a Own,
    missing: Vec<String>,
    wrong: Vec<String>,
}

impl<'a> Keys<'a> {
    /// The configuration, when all its keys are sound, and what was found in them.
    fn read(settings: &'a Settings) -> (Option<Config>, Self) {
        let mut keys = Self { own: &settings.own, missing: Vec::new(), wrong: Vec::new() };
        let transport = match keys.own.get("transport").unwrap_or("moldudp64") {
            "moldudp64" => keys.lines().map(Transport::Mold),
            "soupbintcp" => keys.needed("soup").and_then(|()| keys.host("soup")).map(Transport::Soup),
            other => {
                keys.wrong.push(format!("transport: {other:?} is neither \"moldudp64\" nor \"soupbintcp\""));
                None
            }
        };
        let glimpse = keys.host("glimpse");
        let (user, password) = (keys.credential("username", 6), keys.credential("password", 10));
        let is_sound = keys.missing.is_empty() && keys.wrong.is_empty();
        let config = transport.filter(|_| is_sound);
        let config = config.map(|transport| Config { transport, glimpse, user, password, backoff: settings.backoff() });
        (config, keys)
    }

    fn lines(&mut self) -> Option<Lines> {
        let a = self.needed("line_a").and_then(|()| self.parsed("line_a", "an address like 233.0.0.1:21001"));
        let b = self.parsed("line_b", "an address like 233.0.0.1:21001");
        let interface = self.parsed("interface", "the address of a network interface").unwrap_or(Ipv4Addr::UNSPECIFIED);
        let rewinder = self.host("rewinder");
        Some(Lines { a: a?, b, interface, rewinder })
    }

    fn needed(&mut self, key: &str) -> Option<()> {
        let given = self.own.get(key).map(|_| ());
        if given.is_none() {
            self.missing.push(format!("{key}: must be set, there is no public address of the feed"));
        }
        given
    }

    fn parsed<T: FromStr>(&mut self, key: &str, what: &str) -> Option<T> {
        let text = self.own.get(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.wrong.push(format!("{key}: {text:?} is not {what}"));
        }
        parsed
    }

    /// `host:port`.
    fn host(&mut self, key: &str) -> Option<String> {
        let text = self.own.get(key)?;
        let is_sound =
            text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !is_sound {
            self.wrong.push(format!("{key}: {text:?} is not host:port"));
        }
        is_sound.then(|| text.to_owned())
    }

    /// What is wrong with a credential is told without showing it.
    fn credential(&mut self, key: &str, longest: usize) -> String {
        let text = self.own.get(key).unwrap_or_default();
        if !text.is_ascii() || text.len() > longest {
            self.wrong.push(format!("{key}: must be at most {longest} ASCII characters"));
        }
        text.to_owned()
    }
}

/// What carries the live messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// MoldUDP64.
    Mold(Lines),
    /// SoupBinTCP, `host:port`.
    Soup(String),
}

/// Where the datagrams of MoldUDP64 come in: those of one channel. The exchange has several, each a series of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// Line A: a multicast group, which is joined, or an address of this machine.
    pub a: SocketAddr,
    /// Line B, the same datagrams a second time. Without it only the rewinder helps.
    pub b: Option<SocketAddr>,
    /// Where groups are joined, by the address of the network interface; unspecified: where the system routes them.
    pub interface: Ipv4Addr,
    /// `host:port` of the rewinder. Without it, what no line brought is lost.
    pub rewinder: Option<String>,
}

impl Lines {
    /// Lines on addresses of this machine.
    pub fn unicast(a: SocketAddr, b: Option<SocketAddr>, rewinder: Option<String>) -> Self {
        Self { a, b, interface: Ipv4Addr::UNSPECIFIED, rewinder }
    }

    /// Whether any of the lines is a group. Only addresses of version 4 can be.
    pub fn is_multicast(&self) -> bool {
        [Some(self.a), self.b]
            .into_iter()
            .flatten()
            .any(|line| matches!(line.ip(), IpAddr::V4(ip) if ip.is_multicast()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(keys: &[(&str, &str)]) -> Settings {
        let own = Own(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        Settings { own, ..Settings::default() }
    }

    #[test]
    fn keys_make_a_feed() {
        let config = Config::read(&settings(&[
            ("line_a", "233.113.216.1:21001"),
            ("line_b", "127.0.0.1:21002"),
            ("rewinder", "rewinder.example:24001"),
            ("glimpse", "127.0.0.1:21801"),
            ("username", "USER"),
            ("password", "secret"),
        ]));
        let config = config.unwrap();
        let Transport::Mold(lines) = &config.transport else { panic!("{config:?}") };
        assert!(lines.is_multicast());
        assert_eq!(lines.rewinder.as_deref(), Some("rewinder.example:24001"));
        assert!(!format!("{config:?}").contains("secret"), "a password is never shown");
        let soup = Config::read(&settings(&[("transport", "soupbintcp"), ("soup", "127.0.0.1:1")])).unwrap();
        assert_eq!((soup.transport, soup.glimpse), (Transport::Soup("127.0.0.1:1".into()), None));
    }

    #[test]
    fn all_mistakes_are_told_together_and_no_credential_is() {
        let wrong = check(&settings(&[
            ("line_a", "nonsense"),
            ("rewinder", "noport"),
            ("glimpse", ":5"),
            ("username", "toolongname"),
            ("password", "muchtoolongpassword"),
        ]));
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert!(!wrong.join(" ").contains("muchtoolong"));
        assert_eq!(check(&settings(&[("transport", "tcp")])).len(), 1);
        assert_eq!(check(&settings(&[("password", "muchtoolongpassword")])).len(), 1, "also for a stand-in");
    }

    #[test]
    fn symbols_are_names_or_all_of_the_feed() {
        let wrong = |symbol: &str| check(&Settings { symbols: vec![symbol.to_owned()], ..Settings::default() });
        for symbol in ["THYAO", "thyao.e", "F_ASELS0426", "*"] {
            assert_eq!(wrong(symbol), [""; 0], "{symbol}");
        }
        for symbol in ["A*", "*.E", "top:50", "**"] {
            assert!(matches!(&wrong(symbol)[..], [why] if why.contains(symbol)), "{symbol}");
        }
    }

    #[test]
    fn what_is_missing_is_wrong_only_for_the_exchange_itself() {
        for (keys, needed) in [
            (&[][..], "line_a"),
            (&[("line_b", "127.0.0.1:21002")], "line_a"),
            (&[("transport", "soupbintcp"), ("line_a", "127.0.0.1:21001")], "soup"),
        ] {
            let settings = settings(keys);
            assert!(check(&settings).is_empty(), "{keys:?}");
            let missing = missing(&settings);
            assert!(missing.len() == 1 && missing[0].starts_with(needed), "{keys:?}: {missing:?}");
            assert_eq!(Config::read(&settings).unwrap_err(), missing);
        }
        assert!(missing(&settings(&[("line_a", "127.0.0.1:21001")])).is_empty());
    }
}
