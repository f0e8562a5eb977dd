//! One client: connects, subscribes, and counts what it is told.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::ready;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::tally::{Batch, Tally};
use crate::wire::{Frame, next_frame, pong_frame, scan, sent_us, text_frame};

/// What one read takes at most. All clients of a thread share one buffer of this size.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// From which moment on an event is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Delays are not measured.
    None,
    /// The publisher's own clock, in the data.
    Sent,
    /// The envelope's `ts` of trades: when the venue says that it happened, to the millisecond.
    Trade,
}

/// Where a client goes and who it is.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) stamp: Stamp,
}

/// One client's connection.
pub(crate) struct Client {
    stream: TcpStream,
    stamp: Stamp,
    tally: Arc<Tally>,
    /// Where each channel is; `None` until its subscription has been answered.
    positions: Vec<(Vec<u8>, Option<u64>)>,
    missing_answers: usize,
    /// The beginning of a frame whose end has not come.
    begun: Vec<u8>,
    batch: Batch,
}

impl Client {
    /// Connects and asks for the channels.
    ///
    /// # Errors
    ///
    /// When the connection is refused.
    pub(crate) async fn connect(target: &Target, channels: &[String], tally: Arc<Tally>) -> Result<Self> {
        let mut stream = TcpStream::connect(target.address).await.context("connect")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let Target { address, token, .. } = target;
        let request = format!(
            "GET /live HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.context("ask for the upgrade")?;
        let begun = read_upgrade(&mut stream).await?;
        // No snapshots, so that every event that is counted was published after the subscription.
        let wanted: Vec<_> = channels.iter().map(|name| json!({ "channel": name, "snapshot": false })).collect();
        let subscribe = json!({ "type": "subscribe", "channels": wanted }).to_string();
        stream.write_all(&text_frame(subscribe.as_bytes())).await.context("subscribe")?;
        Ok(Self {
            stream,
            stamp: target.stamp,
            tally,
            positions: channels.iter().map(|name| (name.clone().into_bytes(), None)).collect(),
            missing_answers: channels.len(),
            begun,
            batch: Batch::default(),
        })
    }

    /// Reads until the connection ends.
    ///
    /// # Errors
    ///
    /// Always: why it ended.
    pub(crate) async fn run(mut self, scratch: Rc<RefCell<Vec<u8>>>) -> Result<()> {
        let mut answers = Vec::new();
        loop {
            // Not held across a wait: the buffer belongs to whoever has something to read.
            poll_fn(|cx| {
                let mut scratch = scratch.borrow_mut();
                let mut buffer = ReadBuf::new(&mut scratch);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Err(anyhow::anyhow!("the gateway closed the connection")).into();
                }
                self.take(buffer.filled(), &mut answers).into()
            })
            .await?;
            if !answers.is_empty() {
                self.stream.write_all(&answers).await.context("answer a ping")?;
                answers.clear();
            }
        }
    }

    fn take(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> Result<()> {
        let now_us = now_us();
        if self.begun.is_empty() {
            let used = self.take_frames(bytes, now_us, answers)?;
            self.begun.extend_from_slice(&bytes[used..]);
        } else {
            let mut begun = std::mem::take(&mut self.begun);
            begun.extend_from_slice(bytes);
            let used = self.take_frames(&begun, now_us, answers)?;
            begun.drain(..used);
            self.begun = begun;
        }
        self.tally.add(&mut self.batch);
        Ok(())
    }

    /// Takes the whole frames and gives how many bytes they were.
    fn take_frames(&mut self, bytes: &[u8], now_us: u64, answers: &mut Vec<u8>) -> Result<usize> {
        let mut used = 0;
        while let Some((frame, length)) = next_frame(&bytes[used..]).ok().context("the gateway sent a bad frame")? {
            match frame {
                Frame::Text(text) => self.on_envelope(text, now_us)?,
                Frame::Ping(payload) => answers.extend(pong_frame(payload)),
                Frame::Close(code) => bail!("the gateway closed the connection with {code}"),
                Frame::Other => {}
            }
            used += length;
        }
        Ok(used)
    }

    fn on_envelope(&mut self, text: &[u8], now_us: u64) -> Result<()> {
        let envelope = scan(text).with_context(|| format!("no envelope: {}", String::from_utf8_lossy(text)))?;
        if envelope.channel == b"system" {
            return Ok(());
        }
        let Some((_, position)) = self.positions.iter_mut().find(|(name, _)| name == envelope.channel) else {
            bail!("told of another channel: {}", String::from_utf8_lossy(text));
        };
        let before = position.replace(envelope.seq);
        match envelope.event {
            b"subscribed" => {
                if before.is_none() {
                    self.missing_answers -= 1;
                    if self.missing_answers == 0 {
                        self.tally.add_ready();
                    }
                }
            }
            b"term" => {}
            b"gap" | b"backpressure_drop" => self.batch.losses += 1,
            b"subscribe_error" | b"unsubscribed" => bail!("refused: {}", String::from_utf8_lossy(text)),
            event => {
                self.batch.events += 1;
                // A channel without events is at 0, and its first event has any position.
                if before.is_none_or(|before| before != 0 && before + 1 != envelope.seq) {
                    self.batch.losses += 1;
                }
                let sent_us = match self.stamp {
                    Stamp::None => None,
                    Stamp::Sent => sent_us(envelope.rest),
                    Stamp::Trade => (event == b"trade").then(|| envelope.ts_ms * 1000),
                };
                if let Some(sent_us) = sent_us {
                    let delay = now_us.saturating_sub(sent_us);
                    self.batch.delays_us.push(u32::try_from(delay).unwrap_or(u32::MAX));
                }
            }
        }
        Ok(())
    }
}

/// Reads the answer to the upgrade, and gives what came behind it.
async fn read_upgrade(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.context("read the answer to the upgrade")? == 0 {
            bail!("the gateway closed the connection before the upgrade");
        }
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            if !answer.starts_with(b"HTTP/1.1 101") {
                bail!("not upgraded: {}", String::from_utf8_lossy(&answer));
            }
            answer.drain(..end + 4);
            return Ok(answer);
        }
    }
}

/// Microseconds since the epoch: publishers and clients run on one machine and share its clock.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
