//! A scripted client of `/live`.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::inflating::Inflating;

/// One message from the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope(pub Value);

impl Envelope {
    /// What happened.
    pub fn event(&self) -> &str {
        self.0["event"].as_str().unwrap_or_default()
    }

    /// The channel; `system` for messages about the connection.
    pub fn channel(&self) -> &str {
        self.0["channel"].as_str().unwrap_or_default()
    }

    /// The position.
    pub fn seq(&self) -> u64 {
        self.0["seq"].as_u64().unwrap_or_default()
    }

    /// The payload.
    pub fn data(&self) -> &Value {
        &self.0["data"]
    }

    /// The error code; empty when all is well.
    pub fn error_code(&self) -> &str {
        self.0["errorCode"].as_str().unwrap_or_default()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered without upgrading.
    #[error("refused with {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem document.
        body: String,
    },
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// A connection that remembers everything it received.
pub struct LiveClient {
    socket: WebSocketStream<Inflating>,
    received: Vec<Envelope>,
    /// Envelopes of a batch that were not asked for yet.
    waiting: VecDeque<Envelope>,
    close_code: Option<u16>,
}

impl LiveClient {
    /// Connects to `url` (`ws://…/live`) with a token in the `Authorization` header, or without any.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Refused`] with what the server said, [`ConnectError::Failed`] when it said nothing.
    pub async fn connect(url: &str, token: Option<&str>) -> Result<Self, ConnectError> {
        Self::connect_with(url, token, &[]).await
    }

    /// The same with more headers. `permessage-deflate` may be offered, as long as the server compresses each message on its own.
    ///
    /// # Errors
    ///
    /// As [`LiveClient::connect`].
    pub async fn connect_with(
        url: &str,
        token: Option<&str>,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Self, ConnectError> {
        let mut request = url.into_client_request().context("parse the URL")?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).context("put the token into a header")?;
            request.headers_mut().insert("authorization", value);
        }
        let address = request.uri().authority().context("find the address in the URL")?.to_string();
        let socket = TcpStream::connect(address).await.context("connect")?;
        socket.set_nodelay(true).context("set up the socket")?;
        match client_async(request, Inflating::new(socket)).await {
            Ok((socket, _)) => Ok(Self { socket, received: Vec::new(), waiting: VecDeque::new(), close_code: None }),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body = String::from_utf8_lossy(body).into_owned();
                Err(ConnectError::Refused { status: response.status().as_u16(), body })
            }
            Err(error) => Err(ConnectError::Failed(error.into())),
        }
    }

    /// Sends one request.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send(&mut self, request: &Value) -> Result<()> {
        self.send_raw(Message::text(request.to_string())).await
    }

    /// Sends a frame as it is, also one that is no request.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send_raw(&mut self, frame: Message) -> Result<()> {
        self.socket.send(frame).await.context("send a frame")
    }

    /// The next envelope.
    ///
    /// # Errors
    ///
    /// When none comes in time, the connection ends ([`LiveClient::close_code`] says how), or a frame is no envelope.
    pub async fn next(&mut self, within: Duration) -> Result<Envelope> {
        self.next_before(Instant::now() + within).await
    }

    /// The next envelope that is named `event`; those before it are only remembered.
    ///
    /// # Errors
    ///
    /// As [`LiveClient::next`].
    pub async fn next_event(&mut self, event: &str, within: Duration) -> Result<Envelope> {
        self.find(within, |envelope| envelope.event() == event).await.with_context(|| format!("wait for {event:?}"))
    }

    /// The next envelope that `wanted` says yes to; those before it are only remembered.
    ///
    /// # Errors
    ///
    /// As [`LiveClient::next`].
    pub async fn find(&mut self, within: Duration, wanted: impl Fn(&Envelope) -> bool) -> Result<Envelope> {
        let deadline = Instant::now() + within;
        loop {
            let envelope = self.next_before(deadline).await?;
            if wanted(&envelope) {
                return Ok(envelope);
            }
        }
    }

    /// Reads until the server closes, and gives its code: 1005 when it said none, 1006 when it just went away.
    ///
    /// # Errors
    ///
    /// When it does not close in time.
    pub async fn closed(&mut self, within: Duration) -> Result<u16> {
        let deadline = Instant::now() + within;
        while self.close_code.is_none() {
            if let Err(error) = self.next_before(deadline).await
                && self.close_code.is_none()
            {
                return Err(error.context("wait for the close"));
            }
        }
        self.close_code.context("no close code")
    }

    /// Closes the connection in order.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub async fn close(&mut self) -> Result<()> {
        self.socket.close(None).await.context("close the connection")
    }

    /// Everything that was read so far, in order.
    pub fn received(&self) -> &[Envelope] {
        &self.received
    }

    /// The last position of a channel that was read, of whatever envelope carries one: where to resume.
    pub fn position(&self, channel: &str) -> Option<u64> {
        let mut of_channel = self.received.iter().rev().filter(|envelope| envelope.channel() == channel);
        of_channel.find(|envelope| !matches!(envelope.event(), "unsubscribed" | "subscribe_error")).map(Envelope::seq)
    }

    /// How the connection ended, when it has.
    pub fn close_code(&self) -> Option<u16> {
        self.close_code
    }

    async fn next_before(&mut self, deadline: Instant) -> Result<Envelope> {
        loop {
            if let Some(envelope) = self.waiting.pop_front() {
                self.received.push(envelope.clone());
                return Ok(envelope);
            }
            if let Some(code) = self.close_code {
                bail!("the connection was closed with {code}");
            }
            let frame = timeout_at(deadline, self.socket.next()).await.context("nothing came in time")?;
            match frame {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).context("a frame is no JSON")? {
                    Value::Array(batch) => self.waiting.extend(batch.into_iter().map(Envelope)),
                    single => self.waiting.push_back(Envelope(single)),
                },
                Some(Ok(Message::Close(frame))) => {
                    self.close_code = Some(frame.map_or(1005, |frame| frame.code.into()))
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.close_code = Some(1006),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_async;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;

    use super::*;

    const SECONDS: Duration = Duration::from_secs(5);

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/live", listener.local_addr().unwrap());
        (listener, url)
    }

    #[tokio::test]
    async fn single_and_batched_envelopes_come_in_order_and_the_close_code_is_kept() {
        let (listener, url) = listen().await;
        let server = tokio::spawn(async move {
            let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
            let request = socket.next().await.unwrap().unwrap();
            let envelope = |event: &str, seq: u64| json!({"event": event, "channel": "job:1", "seq": seq});
            let batch = json!([envelope("e", 5), envelope("gap", 7)]);
            socket.send(Message::text(envelope("subscribed", 4).to_string())).await.unwrap();
            socket.send(Message::text(batch.to_string())).await.unwrap();
            let close = CloseFrame { code: 4413.into(), reason: "slow".into() };
            socket.close(Some(close)).await.unwrap();
            request
        });
        let mut client = LiveClient::connect(&url, Some("token")).await.unwrap();
        client.send(&json!({"type": "ping"})).await.unwrap();
        assert_eq!(client.next_event("gap", SECONDS).await.unwrap().seq(), 7);
        assert_eq!(client.received().iter().map(Envelope::seq).collect::<Vec<_>>(), vec![4, 5, 7]);
        assert_eq!(client.position("job:1"), Some(7));
        assert_eq!(client.closed(SECONDS).await.unwrap(), 4413);
        assert_eq!(server.await.unwrap().to_text().unwrap(), r#"{"type":"ping"}"#);
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_body() {
        let (listener, url) = listen().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
            // Kept open: the client reads no further than the length.
            std::future::pending::<()>().await;
        });
        let refused = LiveClient::connect(&url, None).await.err().unwrap();
        assert!(matches!(&refused, ConnectError::Refused { status: 401, body } if body == "{}"), "{refused}");
    }
}
