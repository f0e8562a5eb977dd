//! Whose connection it is when a proxy stands in between.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The header to which each proxy adds, at the end, the address that it was asked from. Source: de facto standard, as HAProxy, nginx,
/// Envoy and the balancers of clouds write it.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies that are believed when they say from where they were asked.
#[derive(Debug)]
pub(super) struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Those in these networks.
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self(networks.to_vec())
    }

    /// Whether the other side of a socket is one of them.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// From where a request comes that was received from `remote`: the last address in what the proxies say that is none of theirs. What
    /// stands before it may be anybody's invention.
    pub(super) fn client(&self, remote: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = remote.to_canonical();
        let said =
            headers.get_all(FORWARDED_FOR).iter().rev().flat_map(|value| value.as_bytes().rsplit(|&b| b == b','));
        for said in said {
            if !self.has(client) {
                break;
            }
            let Some(before) = address(said) else { break };
            client = before;
        }
        client
    }
}

/// Reads an address, with a port or without one.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let plain = || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    plain().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(remote: &str, said: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for said in said {
            headers.append(FORWARDED_FOR, said.parse().unwrap());
        }
        Proxies::new(&networks).client(remote.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_proxies_are_believed() {
        for (remote, said, is) in [
            ("203.0.113.5", &["198.51.100.1"][..], "203.0.113.5"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            // What a client says of itself comes first.
            ("10.1.2.3", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            // Through two of them.
            ("10.1.2.3", &["1.1.1.1, 198.51.100.1,192.0.2.7"], "198.51.100.1"),
            ("10.1.2.3", &["198.51.100.1", "2001:db8::9"], "198.51.100.1"),
            // A client inside.
            ("10.1.2.3", &["10.9.9.9"], "10.9.9.9"),
            // Other ways to write an address.
            ("::ffff:10.1.2.3", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.1.2.3", &["2001:db9::1"], "2001:db9::1"),
            ("10.1.2.3", &["[2001:db9::1]:4711"], "2001:db9::1"),
            ("10.1.2.3", &["[2001:db9::1]"], "2001:db9::1"),
            // No address: the last one that is known stands for it.
            ("10.1.2.3", &["198.51.100.1, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1, _hidden, 10.4.4.4"], "10.4.4.4"),
            ("10.1.2.3", &[""], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.1,"], "10.1.2.3"),
        ] {
            assert_eq!(client(remote, said), is, "{remote} {said:?}");
        }
    }

    #[test]
    fn nobody_is_believed_by_default() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, "198.51.100.1".parse().unwrap());
        let nobody = Proxies::new(&[]);
        assert_eq!(nobody.client([10, 1, 2, 3].into(), &headers), IpAddr::from([10, 1, 2, 3]));
        assert!(!nobody.has([127, 0, 0, 1].into()));
    }
}
