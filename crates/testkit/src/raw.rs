//! What a client writes that no library would let it write: a handshake by hand, from an address of its choice.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::net::{TcpSocket, TcpStream};

/// Headers of a good handshake.
pub const HANDSHAKE: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A request for `/live` with an upgrade and these headers, each with its line end.
pub fn upgrade(headers: &str) -> String {
    format!(
        "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n{headers}\r\n"
    )
}

/// Opens a connection from 127.0.0.`host`.
///
/// # Errors
///
/// When nobody listens, or the address is taken.
pub async fn connect_from(host: u8, to: SocketAddr) -> Result<TcpStream> {
    let from = Ipv4Addr::new(127, 0, 0, host);
    let socket = TcpSocket::new_v4().context("open a socket")?;
    socket.bind((from, 0).into()).with_context(|| format!("bind {from}"))?;
    socket.connect(to).await.with_context(|| format!("connect to {to} from {from}"))
}
