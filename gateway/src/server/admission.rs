//! Who may come in: how many, from where, how fast.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use akis_model::ErrorCode;
use akis_service::config::Limits;
use axum::http::HeaderMap;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::proxies::Proxies;
use crate::limits::{Counts, Permit, TokenBucket};
use crate::problem::Problem;

/// Seconds after which a client that found this replica full may try again.
const RETRY_FULL_S: u64 = 5;

/// The same for one that found it draining: another replica takes it at once.
const RETRY_DRAINING_S: u64 = 1;

/// How many more sockets of an address may be plain HTTP than its connections, so that it can be told why it is refused.
const PLAIN_PER_ADDRESS: usize = 64;

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// This replica is going away.
    Draining,
    /// It has as many connections as it may have.
    Full,
    /// The address has.
    Address,
    /// The subject has.
    Subject,
    /// Too many new connections a second.
    Handshakes,
}

impl Denial {
    /// The word for metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Address => "address",
            Self::Subject => "subject",
            Self::Handshakes => "handshakes",
        }
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Draining => {
                Self::unavailable(ErrorCode::UpstreamUnavailable, "this replica is going away", RETRY_DRAINING_S)
            }
            Denial::Full => Self::unavailable(ErrorCode::RateLimited, "this replica is full", RETRY_FULL_S),
            Denial::Address => Self::too_many("too many connections from this address", RETRY_FULL_S),
            Denial::Subject => Self::too_many("too many connections of this subject", RETRY_FULL_S),
            Denial::Handshakes => Self::too_many("too many new connections", 1),
        }
    }
}

/// What an address counts as. One customer has at least a whole network of 64 bits in IPv6 (RFC 6177), so that is one address here.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Counts connections.
pub(super) struct Admissions {
    max_total: usize,
    max_per_address: usize,
    max_per_subject: usize,
    proxies: Proxies,
    total: Arc<Counts<()>>,
    addresses: Arc<Counts<IpAddr>>,
    subjects: Arc<Counts<Arc<str>>>,
    plain: Arc<Counts<IpAddr>>,
    handshakes: Mutex<TokenBucket>,
}

/// A place for one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _total: Permit<()>,
    _address: Permit<IpAddr>,
}

/// A place for a socket that is not, or not yet, a WebSocket. Those of a trusted proxy have none of its own, for they are of many clients.
pub(super) struct PlainPlace {
    _address: Option<Permit<IpAddr>>,
}

/// A place under a subject.
pub(super) type SubjectPlace = Permit<Arc<str>>;

/// What an upgraded socket holds until it has ended: its places, and a token of those that are waited for.
#[derive(Debug)]
pub(crate) struct Seat {
    _place: Place,
    _subject: SubjectPlace,
    _token: TaskTrackerToken,
}

impl Seat {
    /// Puts together what a socket holds.
    pub(super) fn new(place: Place, subject: SubjectPlace, token: TaskTrackerToken) -> Self {
        Self { _place: place, _subject: subject, _token: token }
    }
}

impl Admissions {
    /// Nobody is in yet. What proxies of `trusted_proxies` say of their clients' addresses is believed.
    pub(super) fn new(limits: &Limits, trusted_proxies: &[IpNet]) -> Self {
        let rate = limits.handshakes_per_second;
        Self {
            max_total: limits.connections,
            max_per_address: limits.connections_per_address,
            max_per_subject: limits.connections_per_subject,
            proxies: Proxies::new(trusted_proxies),
            total: Counts::new(),
            addresses: Counts::new(),
            subjects: Counts::new(),
            plain: Counts::new(),
            handshakes: Mutex::new(TokenBucket::new(rate, rate, Instant::now())),
        }
    }

    /// Takes a place for a connection that was received from `remote`, and whose token has not been looked at.
    pub(super) fn enter(&self, remote: IpAddr, headers: &HeaderMap, now: Instant) -> Result<Place, Denial> {
        self.handshakes.lock().take(1, now).map_err(|_| Denial::Handshakes)?;
        let total = self.total.acquire((), self.max_total).ok_or(Denial::Full)?;
        let client = counted_as(self.proxies.client(remote, headers));
        let address = self.addresses.acquire(client, self.max_per_address).ok_or(Denial::Address)?;
        Ok(Place { _total: total, _address: address })
    }

    /// Takes a place for a socket from `remote` that has said nothing yet; `None` when there are too many of them.
    pub(super) fn enter_plain(&self, remote: IpAddr) -> Option<PlainPlace> {
        if self.proxies.has(remote) {
            return Some(PlainPlace { _address: None });
        }
        let most = self.max_per_address.saturating_add(PLAIN_PER_ADDRESS);
        Some(PlainPlace { _address: Some(self.plain.acquire(counted_as(remote), most)?) })
    }

    /// Takes a place under the token's subject.
    pub(super) fn enter_subject(&self, subject: &Arc<str>) -> Result<SubjectPlace, Denial> {
        self.subjects.acquire(Arc::clone(subject), self.max_per_subject).ok_or(Denial::Subject)
    }
}

#[cfg(test)]
impl Seat {
    /// A place among nobody else's.
    pub(crate) fn for_tests() -> Self {
        let admissions = Admissions::new(&Limits::default(), &[]);
        let place = admissions.enter(IpAddr::from([127, 0, 0, 1]), &HeaderMap::new(), Instant::now()).unwrap();
        let subject = admissions.enter_subject(&Arc::from("alice")).unwrap();
        Self::new(place, subject, tokio_util::task::TaskTracker::new().token())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let limits = Limits { connections_per_address: 1, ..Limits::default() };
        let admissions = Admissions::new(&limits, &[]);
        let enter = |address: &str| admissions.enter(address.parse().unwrap(), &HeaderMap::new(), Instant::now());
        let places: Vec<Result<Place, Denial>> =
            ["2001:db8::1", "2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"].into_iter().map(enter).collect();
        assert!(places.iter().all(Result::is_ok), "{places:?}");
        for one_more in ["2001:db8::ffff:2", "::ffff:192.0.2.1"] {
            assert_eq!(enter(one_more).err(), Some(Denial::Address), "{one_more}");
        }
    }
}
