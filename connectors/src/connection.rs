//! One connection to a venue, from the handshake to the last frame.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message, protocol::CloseFrame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::dialog::{Dialog, Reading};
use crate::frame::Content;
use crate::http;
use crate::outlet::{Outlet, Stopped};
use crate::rhythm::Rhythms;

/// A handshake that takes longer has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Saying goodbye takes no longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// No venue sends larger messages.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The close code of a connection that ended without one. Source: RFC 6455 section 7.1.5.
const ABNORMAL: u16 = 1006;

/// How many of the silent streams a log line names.
const NAMED_IN_LOG: usize = 5;

/// How many messages may wait to be sent behind those that the dialog begins with; more stay in the channel.
const MOST_WAITING: usize = 1024;

/// How often streams that have stopped are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a connection tells its session.
#[derive(Debug)]
pub(crate) enum News {
    /// Data has come on every stream, or on some of them when the time for it was over.
    Ready(u32),
    /// It will end soon; another one should take its place.
    Leaving(u32),
}

/// How a connection went.
#[derive(Debug)]
pub(crate) struct Life {
    /// Why it ended.
    pub(crate) end: End,
    /// Since its first data, `None` when none came.
    pub(crate) flowed: Option<Duration>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("stopped")]
    Stopped,
    #[error("closed by the venue with {0}")]
    Closed(u16),
    #[error("no frame for longer than a living connection is silent")]
    Silent,
    #[error("not connected within {CONNECT_TIMEOUT:?}")]
    Timeout,
    #[error("refused with HTTP {status}: too many connections were tried")]
    Refused {
        status: u16,
        /// How long the venue wants none, when it says so.
        hold: Option<Duration>,
    },
    #[error("{0}")]
    Socket(#[from] tungstenite::Error),
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Connects, speaks the dialog, then what comes over `said`, and hands on every frame until the connection ends or
/// `stop` is cancelled.
pub(crate) async fn drive(
    dialog: &Dialog,
    number: u32,
    outlet: &Outlet,
    news: &mpsc::Sender<News>,
    said: &mut mpsc::Receiver<Vec<String>>,
    stop: &CancellationToken,
) -> Life {
    let mut socket = match connect(&dialog.url, stop).await {
        Ok(socket) => socket,
        Err(end) => return Life { end, flowed: None },
    };
    info!(venue = dialog.venue, connection = number, streams = dialog.streams.len(), "connected");
    outlet.stats().open.add(1);
    outlet.stats().opened.add(1);
    let mut connection = Connection::new(dialog, number, outlet, news);
    let end = connection.listen(&mut socket, said, stop).await;
    outlet.stats().open.less(1);
    let code = match &end {
        End::Closed(code) => *code,
        End::Stopped => {
            let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            // It is left alone either way; whether the venue heard the goodbye does not matter.
            let _ = timeout(CLOSE_TIMEOUT, socket.close(Some(goodbye))).await;
            CloseCode::Normal.into()
        }
        End::Silent | End::Timeout | End::Refused { .. } | End::Socket(_) => ABNORMAL,
    };
    // When nobody takes frames any more, nobody needs this one.
    let _ = outlet.send(Content::Closed { connection: number, code }).await;
    Life { end, flowed: connection.first_data.map(|at| at.elapsed()) }
}

async fn connect(url: &str, stop: &CancellationToken) -> Result<Socket, End> {
    let config = WebSocketConfig::default()
        .read_buffer_size(64 << 10)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    tokio::select! {
        () = stop.cancelled() => Err(End::Stopped),
        connected = timeout(CONNECT_TIMEOUT, Box::pin(connect_async_with_config(url, Some(config), true))) => match connected {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(tungstenite::Error::Http(response))) if is_refusal(response.status().as_u16()) => {
                Err(refused(&response))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(End::Timeout),
        },
    }
}

/// Statuses that say that there were too many, from the venue or from what stands before it.
fn is_refusal(status: u16) -> bool {
    matches!(status, 403 | 418 | 429)
}

fn refused<T>(response: &tungstenite::http::Response<T>) -> End {
    End::Refused { status: response.status().as_u16(), hold: http::retry_after(response.headers()) }
}

struct Connection<'a> {
    dialog: &'a Dialog,
    number: u32,
    outlet: &'a Outlet,
    news: &'a mpsc::Sender<News>,
    /// Streams from which nothing has come yet.
    awaited: HashSet<&'a str>,
    rhythms: Rhythms<'a>,
    first_data: Option<Instant>,
    /// The time for first data is over.
    waited: bool,
    ready: bool,
    leaving: bool,
}

impl<'a> Connection<'a> {
    fn new(dialog: &'a Dialog, number: u32, outlet: &'a Outlet, news: &'a mpsc::Sender<News>) -> Self {
        let awaited = dialog.streams.iter().map(String::as_str).collect();
        let rhythms = Rhythms::new(dialog.streams.iter().map(String::as_str), Instant::now());
        let (first_data, waited, ready, leaving) = (None, false, false, false);
        Self { dialog, number, outlet, news, awaited, rhythms, first_data, waited, ready, leaving }
    }

    async fn listen(
        &mut self,
        socket: &mut Socket,
        said: &mut mpsc::Receiver<Vec<String>>,
        stop: &CancellationToken,
    ) -> End {
        let mut messages: VecDeque<Cow<'_, str>> = self.dialog.messages.iter().map(Cow::from).collect();
        let opened = Instant::now();
        let (mut send_at, mut silent_at) = (opened, opened + self.dialog.silence);
        let mut look_at = opened + LOOK_EVERY;
        loop {
            // In this order: what has come in is read before its absence is judged.
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => Err(End::Stopped),
                () = sleep_until(send_at), if !messages.is_empty() => {
                    send_at = Instant::now() + self.dialog.pace;
                    match messages.pop_front() {
                        Some(message) => socket.send(Message::text(message.into_owned())).await.map_err(End::from),
                        None => Ok(()),
                    }
                }
                Some(more) = said.recv(), if messages.len() < MOST_WAITING => {
                    messages.extend(more.into_iter().map(Cow::from));
                    Ok(())
                }
                frame = socket.next() => {
                    let step = match frame {
                        Some(Ok(frame)) => self.on_message(frame, socket).await,
                        Some(Err(error)) => Err(error.into()),
                        None => Err(End::Closed(ABNORMAL)),
                    };
                    // Handing a frame on may have waited: a slow reader is not a silent venue.
                    silent_at = Instant::now() + self.dialog.silence;
                    step
                }
                () = sleep_until(silent_at) => Err(End::Silent),
                () = sleep_until(look_at), if self.dialog.again.is_some() => {
                    look_at = Instant::now() + LOOK_EVERY;
                    messages.extend(self.ask_again().into_iter().map(Cow::from));
                    Ok(())
                }
                () = sleep_until(opened + self.dialog.first_data), if !self.waited => {
                    self.on_waited().await;
                    Ok(())
                }
                () = sleep_until(opened + self.dialog.lifetime), if !self.leaving => {
                    self.leave().await;
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn on_message(&mut self, message: Message, socket: &mut Socket) -> Result<(), End> {
        match message {
            Message::Text(text) => {
                self.on_text(&text).await;
                let text = text.as_str().to_owned();
                Ok(self.outlet.send(Content::Text { connection: self.number, text }).await?)
            }
            Message::Binary(bytes) => {
                let bytes = bytes.to_vec();
                Ok(self.outlet.send(Content::Binary { connection: self.number, bytes }).await?)
            }
            // The library has queued the pong; without this it would leave with the next read.
            Message::Ping(_) => Ok(socket.flush().await?),
            Message::Close(frame) => Err(End::Closed(frame.map_or(ABNORMAL, |frame| frame.code.into()))),
            Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    async fn on_text(&mut self, text: &str) {
        match (self.dialog.read)(text) {
            Reading::Data(stream) => {
                let now = Instant::now();
                self.first_data.get_or_insert(now);
                self.rhythms.note(&stream, now);
                if !self.ready {
                    self.awaited.remove(&*stream);
                    if self.waited || self.awaited.is_empty() {
                        self.tell_ready().await;
                    }
                }
            }
            Reading::Refusal => {
                let sample: String = text.chars().take(200).collect();
                warn!(venue = self.dialog.venue, connection = self.number, sample, "the venue refused a request");
            }
            Reading::Leaving => self.leave().await,
            Reading::Other => {}
        }
    }

    /// What to say so that streams that have stopped go on.
    fn ask_again(&mut self) -> Vec<String> {
        let stopped = self.rhythms.stopped(Instant::now());
        let Some(again) = self.dialog.again.filter(|_| !stopped.is_empty()) else { return Vec::new() };
        self.outlet.stats().stopped_streams.add(stopped.len() as u64);
        warn!(
            venue = self.dialog.venue,
            connection = self.number,
            stopped = stopped.len(),
            names = stopped[..stopped.len().min(NAMED_IN_LOG)].join(" "),
            "streams have stopped while others go on, asking for them again"
        );
        again(&stopped)
    }

    async fn on_waited(&mut self) {
        self.waited = true;
        if !self.awaited.is_empty() {
            let mut names: Vec<&str> = self.awaited.iter().copied().collect();
            names.sort_unstable();
            self.outlet.stats().silent_streams.add(names.len() as u64);
            warn!(
                venue = self.dialog.venue,
                connection = self.number,
                silent = names.len(),
                of = self.dialog.streams.len(),
                names = names[..names.len().min(NAMED_IN_LOG)].join(" "),
                "streams without any data yet"
            );
        }
        if self.first_data.is_some() && !self.ready {
            self.tell_ready().await;
        }
    }

    async fn tell_ready(&mut self) {
        self.ready = true;
        self.awaited = HashSet::new();
        debug!(venue = self.dialog.venue, connection = self.number, "data flows");
        // The session outlives its connections, unless it is being stopped.
        let _ = self.news.send(News::Ready(self.number)).await;
    }

    async fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            info!(venue = self.dialog.venue, connection = self.number, "the connection ends soon, opening another one");
            // As above.
            let _ = self.news.send(News::Leaving(self.number)).await;
        }
    }
}
