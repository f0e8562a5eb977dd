//! Listening, with an error that says what to do about it.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::anyhow;
use tokio::net::TcpListener;

/// Binds `address`. `flag` is the one that would choose another.
pub(crate) async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            anyhow!("port {} is in use ({address}): choose another with {flag} or end what uses it", address.port())
        }
        ErrorKind::PermissionDenied => {
            anyhow!("port {} needs more rights ({address}): choose another with {flag}", address.port())
        }
        _ => anyhow!("cannot listen on {address}: {error}: choose another with {flag}"),
    })
}

/// The address under which this machine reaches a listener: loopback where it listens everywhere.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
