//! A connection of a watching client: opened at a URL, read and written without knowing what is said.

use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::read_answer;
use crate::wire::{BadFrame, Frame, client_frame, next_frame, pong_frame, text_frame, upgrade_request};

/// How long opening may take, the upgrade included.
const OPENS_WITHIN: Duration = Duration::from_secs(10);

/// How long a write may take; requests are small, so one that takes longer shows a connection that is dead.
const WRITES_WITHIN: Duration = Duration::from_secs(10);

/// Close codes after which coming back helps. Source: `docs/protocol.md`, section 6.
const COME_BACK: [u16; 5] = [1001, 4408, 4413, 4429, 4503];

/// Where a gateway, or what stands before several, is reached: `ws://HOST:PORT/live`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Host and port; the name is looked up anew for each connection.
    authority: String,
    target: String,
}

/// A connection that could not be had, or has ended.
#[derive(Debug)]
pub(crate) enum Lost {
    /// Coming back may help, but not before this much time has passed, where the server said so.
    ComeBack(Option<Duration>),
    /// It will not.
    ForGood(Error),
}

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    /// What was read and not yet taken.
    begun: Vec<u8>,
}

impl Url {
    /// Reads `ws://HOST[:PORT][/PATH]`; without a path it is `/live`.
    ///
    /// # Errors
    ///
    /// When it is anything else. TLS is left to what stands before a gateway.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix("ws://") else { bail!("not ws://HOST:PORT/live: {text:?}") };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "live"));
        if authority.is_empty() {
            bail!("no host in {text:?}");
        }
        let port = if authority.rsplit(']').next().is_some_and(|end| end.contains(':')) { "" } else { ":80" };
        Ok(Self { authority: format!("{authority}{port}"), target: format!("/{path}") })
    }
}

impl Connection {
    /// Opens a connection with a token.
    ///
    /// # Errors
    ///
    /// [`Lost`].
    pub(crate) async fn open(url: &Url, token: &str) -> Result<Self, Lost> {
        timeout(OPENS_WITHIN, Self::upgrade(url, token)).await.unwrap_or(Err(Lost::ComeBack(None)))
    }

    async fn upgrade(url: &Url, token: &str) -> Result<Self, Lost> {
        let mut stream = TcpStream::connect(url.authority.as_str()).await.map_err(|_| Lost::ComeBack(None))?;
        // Without it, small requests only leave later.
        _ = stream.set_nodelay(true);
        let authorization = format!("Authorization: Bearer {token}\r\n");
        let request = upgrade_request(&url.authority, &url.target, &authorization);
        stream.write_all(request.as_bytes()).await.map_err(|_| Lost::ComeBack(None))?;
        let (head, begun) = read_answer(&mut stream).await.map_err(|_| Lost::ComeBack(None))?;
        match status(&head) {
            101 => Ok(Self { stream, begun }),
            429 | 500.. => Err(Lost::ComeBack(retry_after(&head))),
            _ => Err(Lost::ForGood(anyhow!("not upgraded: {}", head.trim_end()))),
        }
    }

    /// Reads more bytes.
    ///
    /// # Errors
    ///
    /// [`Lost`] when the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was read is kept.
    pub(crate) async fn read(&mut self) -> Result<(), Lost> {
        match self.stream.read_buf(&mut self.begun).await {
            Ok(0) | Err(_) => Err(Lost::ComeBack(None)),
            Ok(_) => Ok(()),
        }
    }

    /// Hands on every text that is whole, and answers pings.
    ///
    /// # Errors
    ///
    /// [`Lost`] when the server closed the connection, or what `on_text` fails with, for good.
    pub(crate) async fn take(&mut self, mut on_text: impl FnMut(&[u8]) -> Result<()>) -> Result<(), Lost> {
        let (mut used, mut answers) = (0, Vec::new());
        loop {
            let next = next_frame(&self.begun[used..]);
            let Some((frame, length)) =
                next.map_err(|BadFrame| Lost::ForGood(anyhow!("the server sent a bad frame")))?
            else {
                break;
            };
            match frame {
                Frame::Text(text) => on_text(text).map_err(Lost::ForGood)?,
                Frame::Ping(payload) => answers.extend(pong_frame(payload)),
                Frame::Close(code) if code == 0 || COME_BACK.contains(&code) => return Err(Lost::ComeBack(None)),
                Frame::Close(code) => {
                    return Err(Lost::ForGood(anyhow!("the server closed the connection with {code}")));
                }
                Frame::Other => {}
            }
            used += length;
        }
        self.begun.drain(..used);
        if answers.is_empty() { Ok(()) } else { self.write(&answers).await }
    }

    /// Sends texts.
    ///
    /// # Errors
    ///
    /// [`Lost`] when the connection has ended.
    pub(crate) async fn send(&mut self, texts: &[String]) -> Result<(), Lost> {
        for text in texts {
            self.write(&text_frame(text.as_bytes())).await?;
        }
        Ok(())
    }

    /// Says that it goes, and goes.
    pub(crate) async fn close(mut self) {
        // One that has ended already needs no goodbye.
        _ = self.write(&client_frame(0x88, &1000_u16.to_be_bytes())).await;
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        match timeout(WRITES_WITHIN, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Lost::ComeBack(None)),
        }
    }
}

/// The status of an HTTP answer, 0 when it is none.
fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn retry_after(head: &str) -> Option<Duration> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, seconds) = fields.find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_answers_are_read() {
        let url = |authority: &str, target: &str| Url { authority: authority.to_owned(), target: target.to_owned() };
        assert_eq!(Url::parse("ws://gateway.akis:8080/live").unwrap(), url("gateway.akis:8080", "/live"));
        assert_eq!(Url::parse("ws://gateway").unwrap(), url("gateway:80", "/live"));
        assert_eq!(Url::parse("ws://[::1]/x").unwrap(), url("[::1]:80", "/x"));
        for bad in ["http://a", "ws://", "a:8080"] {
            Url::parse(bad).unwrap_err();
        }
        let head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\n\r\n";
        assert_eq!((status(head), retry_after(head)), (503, Some(Duration::from_secs(3))));
        assert_eq!((status("nonsense"), retry_after("nonsense")), (0, None));
    }
}
