//! One SoupBinTCP connection: the socket around the [`Client`].

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::soup::{Client, Event, LoginRequest, Refusal, SoupError, packet};

/// A connection that is not there and logged in by then has failed.
const LOGIN_WITHIN: Duration = Duration::from_secs(5);

/// What is read at once.
const READ_BYTES: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("not logged in within {LOGIN_WITHIN:?}")]
    Timeout,
    #[error("the login is refused: {0:?}")]
    Refused(Refusal),
    #[error("nothing for longer than a living connection is silent")]
    Silent,
    #[error("closed by the server")]
    Closed,
    #[error(transparent)]
    Malformed(#[from] SoupError),
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// A connection that is logged in, or is about to be.
#[derive(Debug)]
pub(super) struct Link {
    socket: TcpStream,
    client: Client,
    buffer: Vec<u8>,
    /// How much of the buffer was read last.
    read: usize,
}

impl Link {
    /// Connects and sends the login. The first event tells how that went.
    pub(super) async fn open(address: &str, login: &LoginRequest) -> Result<Self, LinkError> {
        let opening = async {
            let mut socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            socket.write_all(&login.encode()).await?;
            io::Result::Ok(socket)
        };
        let socket = timeout(LOGIN_WITHIN, opening).await.map_err(|_| LinkError::Timeout)??;
        let client = Client::new(Instant::now().into_std());
        Ok(Self { socket, client, buffer: vec![0; READ_BYTES], read: 0 })
    }

    /// Waits for bytes, saying and expecting heartbeats meanwhile, and gives what was read. Afterwards
    /// [`Link::event`] has to be asked until it gives nothing.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop while it waits for bytes; a heartbeat may be cut, so the connection has to be dropped too.
    pub(super) async fn read(&mut self) -> Result<&[u8], LinkError> {
        loop {
            // At every read: while the server catches up there is always something to read, and it gives up a client that
            // says nothing.
            if let Some(heartbeat) = self.client.say(Instant::now().into_std()) {
                self.socket.write_all(&heartbeat).await?;
            }
            let due = Instant::from_std(self.client.due());
            tokio::select! {
                // In this order: what has come in is read before its absence is judged.
                biased;
                read = self.socket.read(&mut self.buffer) => {
                    self.read = read?;
                    if self.read == 0 {
                        return Err(LinkError::Closed);
                    }
                    self.client.on_bytes(&self.buffer[..self.read], Instant::now().into_std());
                    return Ok(&self.buffer[..self.read]);
                }
                () = sleep_until(due) => {
                    if self.client.is_silent(Instant::now().into_std()) {
                        return Err(LinkError::Silent);
                    }
                }
            }
        }
    }

    /// What happened, by what was read.
    pub(super) fn event(&mut self) -> Result<Option<Event>, LinkError> {
        match self.client.event()? {
            Some(Event::Refused(refusal)) => Err(LinkError::Refused(refusal)),
            event => Ok(event),
        }
    }

    /// To be called when handing on may have waited: a slow reader is not a silent server.
    pub(super) fn listened(&mut self) {
        self.client.listened(Instant::now().into_std());
    }

    /// Says goodbye. Whether it arrives does not matter: the server gives up a client that is silent.
    pub(super) async fn log_out(mut self) {
        let _ = timeout(Duration::from_secs(1), self.socket.write_all(&packet(b'O', &[]))).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::bist::mold::SessionId;

    #[tokio::test]
    async fn a_client_that_always_has_something_to_read_says_that_it_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let login = LoginRequest { user: String::new(), password: String::new(), session: SessionId::new(""), next: 1 };
        let mut link = Link::open(&listener.local_addr().unwrap().to_string(), &login).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.read_exact(&mut vec![0; login.encode().len()]).await.unwrap();
        server.write_all(&packet(b'H', &[])).await.unwrap();
        link.socket.readable().await.unwrap();
        // It has said nothing for long enough.
        link.client = Client::new(Instant::now().into_std() - Duration::from_secs(2));
        link.read().await.unwrap();
        let mut said = [0; 3];
        timeout(LOGIN_WITHIN, server.read_exact(&mut said)).await.expect("a heartbeat").unwrap();
        assert_eq!(said.as_slice(), packet(b'R', &[]));
    }
}
