//! A TCP proxy that does on purpose what networks do by accident.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
    /// Both ways.
    Both,
}

#[derive(Debug, Clone)]
struct Faults {
    target: SocketAddr,
    /// Rises with every cut; connections of an older one end.
    cuts: u64,
    is_to_server_held: bool,
    is_to_client_held: bool,
    delay: Duration,
}

/// A running proxy. It ends with the value, and so do its connections.
pub struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own and forwards to `target`.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("bind the proxy")?;
        let address = listener.local_addr()?;
        let faults = watch::Sender::new(Faults {
            target,
            cuts: 0,
            is_to_server_held: false,
            is_to_client_held: false,
            delay: Duration::ZERO,
        });
        let task = tokio::spawn(accept(listener, faults.subscribe()));
        Ok(Self { address, faults, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards connections that come from now on to another server.
    pub fn set_target(&self, target: SocketAddr) {
        self.faults.send_modify(|faults| faults.target = target);
    }

    /// Closes all connections; new ones are accepted.
    pub fn cut(&self) {
        self.faults.send_modify(|faults| faults.cuts += 1);
    }

    /// Holds everything that goes this way while `on`, as a network does that loses every packet: nobody is told, and
    /// what was sent arrives later, unless the connection is cut.
    pub fn blackhole(&self, direction: Direction, on: bool) {
        self.faults.send_modify(|faults| {
            if direction != Direction::ToClient {
                faults.is_to_server_held = on;
            }
            if direction != Direction::ToServer {
                faults.is_to_client_held = on;
            }
        });
    }

    /// Lets everything arrive so much later.
    pub fn delay(&self, delay: Duration) {
        self.faults.send_modify(|faults| faults.delay = delay);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, faults: watch::Receiver<Faults>) {
    // Dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let faults = faults.clone();
        connections.spawn(async move {
            let cuts = faults.borrow().cuts;
            let mut until_cut = faults.clone();
            tokio::select! {
                _ = until_cut.wait_for(|faults| faults.cuts != cuts) => {}
                // However it ends, both sockets are closed.
                _ = forward(client, faults) => {}
            }
        });
    }
}

async fn forward(client: TcpStream, faults: watch::Receiver<Faults>) -> io::Result<()> {
    let target = faults.borrow().target;
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // One side's end is the end of both: nothing that is tested here works half-closed.
    tokio::select! {
        result = pump(from_client, to_server, faults.clone(), |faults| !faults.is_to_server_held) => result,
        result = pump(from_server, to_client, faults, |faults| !faults.is_to_client_held) => result,
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Faults>,
    is_open: fn(&Faults) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let delay = faults.wait_for(is_open).await.map_err(io::Error::other)?.delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn what_is_held_arrives_later_and_what_is_cut_ends() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let mut byte = [0; 1];
        stream.write_all(b"a").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        proxy.blackhole(Direction::ToClient, true);
        stream.write_all(b"b").await.unwrap();
        assert!(timeout(Duration::from_millis(100), stream.read_exact(&mut byte)).await.is_err());
        proxy.blackhole(Direction::Both, false);
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"b");
        proxy.cut();
        assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0);
    }
}
