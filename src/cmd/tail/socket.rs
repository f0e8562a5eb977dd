//! The WebSocket of `tail`: how it is opened, and whether coming back helps when it ends.

use std::time::Duration;

use akis_model::CloseCode;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response, header};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::cli::Target;
use crate::http;

/// How long opening may take, TLS and the upgrade included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the other side may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Close codes after which coming back helps. 4401 is left out: this client has no fresh token.
const COME_BACK: [CloseCode; 5] =
    [CloseCode::GoingAway, CloseCode::Silent, CloseCode::Slow, CloseCode::RateLimit, CloseCode::Unavailable];

/// A connection that could not be had, or has ended.
#[derive(Debug)]
pub(super) enum Lost {
    /// Coming back may help.
    ComeBack {
        /// How long to wait at least, where the server said so.
        least: Option<Duration>,
        /// What happened.
        why: String,
    },
    /// It will not.
    ForGood(String),
}

/// An open connection.
pub(super) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Opens a connection.
    pub(super) async fn connect(target: &Target) -> Result<Self, Lost> {
        // `http` becomes `ws`, `https` becomes `wss`.
        let url = format!("ws{}/live", target.url.trim_start_matches("http"));
        let mut request =
            url.as_str().into_client_request().map_err(|error| Lost::ForGood(format!("bad --url: {error}")))?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", target.token))
            .map_err(|_| Lost::ForGood("the token holds characters that no token has".to_owned()))?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        match timeout(OPEN_TIMEOUT, connect_async(request)).await {
            Ok(Ok((socket, _))) => Ok(Self(socket)),
            Ok(Err(Error::Http(response))) => Err(refused(&response)),
            Ok(Err(error)) => Err(come_back(format!("cannot connect to {}: {error}", target.shown))),
            Err(_) => Err(come_back(format!("no answer from {}", target.shown))),
        }
    }

    /// Sends a text.
    pub(super) async fn send(&mut self, text: String) -> Result<(), Lost> {
        let sent = self.0.send(Message::text(text)).await;
        sent.map_err(|error| come_back(format!("the connection was lost: {error}")))
    }

    /// The next text.
    ///
    /// # Cancel safety
    ///
    /// Safe: a frame that was read in part stays in the socket's buffer.
    pub(super) async fn text(&mut self) -> Result<Utf8Bytes, Lost> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(frame))) => {
                    let Some(frame) = frame else { return Err(come_back("the connection was closed".to_owned())) };
                    return Err(closed(frame.code.into(), &frame.reason));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(come_back(format!("the connection was lost: {error}"))),
                None => return Err(come_back("the connection was lost".to_owned())),
            }
        }
    }

    /// Closes in order, without waiting long for the other side.
    pub(super) async fn close(mut self) {
        // Either it worked or there is nothing left to close.
        let _ = timeout(CLOSE_TIMEOUT, self.0.close(None)).await;
    }
}

fn come_back(why: String) -> Lost {
    Lost::ComeBack { least: None, why }
}

/// Section 6 of the protocol: what each close code means for a client.
fn closed(code: u16, reason: &str) -> Lost {
    let why = format!("closed by the gateway: {code} {reason}").trim_end().to_owned();
    if COME_BACK.iter().any(|known| known.number() == code) { come_back(why) } else { Lost::ForGood(why) }
}

/// What an HTTP answer instead of a WebSocket means: 429 and 5xx are worth another try.
fn refused(response: &Response<Option<Vec<u8>>>) -> Lost {
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let why = format!("refused by the gateway: {}", http::explain(status.as_u16(), body));
    if status.as_u16() != 429 && !status.is_server_error() {
        return Lost::ForGood(why);
    }
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Lost::ComeBack { least: seconds.map(Duration::from_secs), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_follow_the_table_of_the_protocol() {
        for code in [1001, 4408, 4413, 4429, 4503] {
            assert!(matches!(closed(code, ""), Lost::ComeBack { .. }), "{code}");
        }
        for code in [1000, 1002, 1007, 1009, 4400, 4401] {
            assert!(matches!(closed(code, ""), Lost::ForGood(_)), "{code}");
        }
    }

    #[test]
    fn refusals_of_the_upgrade() {
        let answer = |status: u16| Response::builder().status(status).header("retry-after", "3").body(None).unwrap();
        for status in [429, 502, 503] {
            let lost = refused(&answer(status));
            assert!(matches!(lost, Lost::ComeBack { least: Some(least), .. } if least.as_secs() == 3), "{status}");
        }
        for status in [400, 401, 403, 404, 426] {
            assert!(matches!(refused(&answer(status)), Lost::ForGood(_)), "{status}");
        }
    }
}
