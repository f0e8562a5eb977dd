//! One client: connects, subscribes, and counts what it is told.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::ready;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::tally::{Batch, Read, Tally};
use crate::wire::{Frame, Scanned, next_frame, pong_frame, scan, sent_us, text_frame, upgrade_request};

/// What one read takes at most. All clients of a thread share one buffer of this size.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Clients come from this many addresses of the loopback network: ports of one address run out when thousands come and
/// go, because the kernel keeps each for a minute.
const ADDRESSES: u32 = 100;

/// The receive buffer of a client that does not read, so that what it is sent waits at its sender.
const STALLED_RECEIVE_BYTES: u32 = 4096;

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

/// Where clients go, and what is looked at there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) stamp: Stamp,
    /// Whether positions are checked. Not at the floor, which writes the same bytes again and again.
    pub(crate) has_positions: bool,
    /// Whether each read is kept, to be done again at the floor.
    pub(crate) is_traced: bool,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the next event, so that every event that is counted was published after the subscription.
    Now,
    /// With the latest event.
    Latest,
    /// Behind this position.
    After(u64),
}

/// One channel that a client wants.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) channel: Arc<str>,
    pub(crate) start: Start,
}

/// What one client does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) token: Arc<str>,
    pub(crate) wishes: Vec<Wish>,
    /// Whether it stops to read as soon as it is subscribed.
    pub(crate) stalls: bool,
}

/// One client's connection.
pub(crate) struct Client {
    stream: TcpStream,
    number: u32,
    target: Target,
    stalls: bool,
    tally: Arc<Tally>,
    channels: Vec<Subscription>,
    missing_answers: usize,
    /// Answers to unsubscribing that have not come.
    missing_ends: usize,
    /// The beginning of a frame whose end has not come.
    begun: Vec<u8>,
    batch: Batch,
    answers: Vec<u8>,
}

struct Subscription {
    wish: Wish,
    /// `None` until it has been answered.
    position: Option<u64>,
}

impl Target {
    /// Clients of the floor, whose address is still to be filled in.
    pub(crate) fn floor() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { address, stamp: Stamp::None, has_positions: false, is_traced: false }
    }
}

impl Wish {
    /// A channel by its name.
    pub(crate) fn new(channel: &str, start: Start) -> Self {
        Self { channel: channel.into(), start }
    }

    fn to_json(&self) -> serde_json::Value {
        match self.start {
            Start::Now => json!({ "channel": &*self.channel, "snapshot": false }),
            Start::Latest => json!({ "channel": &*self.channel }),
            Start::After(seq) => json!({ "channel": &*self.channel, "after": seq }),
        }
    }
}

impl Client {
    /// Connects and asks for the channels.
    ///
    /// # Errors
    ///
    /// When the connection is refused.
    pub(crate) async fn connect(target: Target, number: u32, plan: Plan, tally: Arc<Tally>) -> Result<Self> {
        let mut stream = open(target.address, number, plan.stalls).await.context("connect")?;
        let authorization = format!("Authorization: Bearer {}\r\n", plan.token);
        let request = upgrade_request(target.address, "/live", &authorization);
        stream.write_all(request.as_bytes()).await.context("ask for the upgrade")?;
        let begun = read_upgrade(&mut stream).await?;
        let wanted: Vec<_> = plan.wishes.iter().map(Wish::to_json).collect();
        let subscribe = json!({ "type": "subscribe", "channels": wanted }).to_string();
        stream.write_all(&text_frame(subscribe.as_bytes())).await.context("subscribe")?;
        Ok(Self {
            stream,
            number,
            target,
            stalls: plan.stalls,
            tally,
            missing_answers: plan.wishes.len(),
            missing_ends: plan.wishes.len(),
            channels: plan.wishes.into_iter().map(|wish| Subscription { wish, position: None }).collect(),
            begun,
            batch: Batch::default(),
            answers: Vec::new(),
        })
    }

    /// Reads until the connection ends, or no more once it is subscribed when that is the plan.
    ///
    /// # Errors
    ///
    /// Always: why it ended.
    pub(crate) async fn run(mut self, scratch: Rc<RefCell<Vec<u8>>>) -> Result<()> {
        loop {
            if self.stalls && self.missing_answers == 0 {
                pending::<()>().await;
            }
            self.read(&scratch).await?;
        }
    }

    /// Waits until it is subscribed, unsubscribes, waits for the answers and leaves.
    ///
    /// # Errors
    ///
    /// When the connection ends before.
    pub(crate) async fn visit(mut self, scratch: Rc<RefCell<Vec<u8>>>) -> Result<()> {
        while self.missing_answers > 0 {
            self.read(&scratch).await?;
        }
        let names: Vec<_> = self.channels.iter().map(|channel| &*channel.wish.channel).collect();
        let unsubscribe = json!({ "type": "unsubscribe", "channels": names }).to_string();
        self.stream.write_all(&text_frame(unsubscribe.as_bytes())).await.context("unsubscribe")?;
        while self.missing_ends > 0 {
            self.read(&scratch).await?;
        }
        Ok(())
    }

    async fn read(&mut self, scratch: &RefCell<Vec<u8>>) -> Result<()> {
        // Not held across a wait: the buffer belongs to whoever has something to read.
        poll_fn(|cx| {
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Err(anyhow::anyhow!("the server closed the connection")).into();
            }
            self.take(buffer.filled()).into()
        })
        .await?;
        if !self.answers.is_empty() {
            self.stream.write_all(&self.answers).await.context("answer a ping")?;
            self.answers.clear();
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let now_us = now_us();
        if self.begun.is_empty() {
            let used = self.take_frames(bytes, now_us)?;
            self.begun.extend_from_slice(&bytes[used..]);
        } else {
            let mut begun = std::mem::take(&mut self.begun);
            begun.extend_from_slice(bytes);
            let used = self.take_frames(&begun, now_us)?;
            begun.drain(..used);
            self.begun = begun;
        }
        if self.target.is_traced && self.batch.events > 0 {
            self.batch.read = Some(Read { at_us: now_us, client: self.number, events: self.batch.events as u32 });
        }
        self.tally.add(&mut self.batch);
        Ok(())
    }

    /// Takes the whole frames and gives how many bytes they were.
    fn take_frames(&mut self, bytes: &[u8], now_us: u64) -> Result<usize> {
        let mut used = 0;
        while let Some((frame, length)) = next_frame(&bytes[used..]).ok().context("the server sent a bad frame")? {
            match frame {
                Frame::Text(text) => self.on_envelope(text, now_us)?,
                Frame::Ping(payload) => self.answers.extend(pong_frame(payload)),
                Frame::Close(code) => bail!("the server closed the connection with {code}"),
                Frame::Other => {}
            }
            used += length;
        }
        Ok(used)
    }

    fn on_envelope(&mut self, text: &[u8], now_us: u64) -> Result<()> {
        let envelope = scan(text).with_context(|| format!("no envelope: {}", String::from_utf8_lossy(text)))?;
        if !self.target.has_positions && envelope.event != b"subscribed" {
            self.batch.events += 1;
            return Ok(());
        }
        if envelope.channel == b"system" {
            return Ok(());
        }
        let Some(channel) = self.channels.iter_mut().find(|one| one.wish.channel.as_bytes() == envelope.channel) else {
            bail!("told of another channel: {}", String::from_utf8_lossy(text));
        };
        match envelope.event {
            b"subscribed" => {
                if channel.position.replace(envelope.seq).is_none() {
                    self.missing_answers -= 1;
                    if self.missing_answers == 0 {
                        self.tally.add_ready();
                    }
                }
                if let Start::After(seq) = channel.wish.start
                    && seq != envelope.seq
                {
                    self.batch.losses += 1;
                }
            }
            b"unsubscribed" => self.missing_ends = self.missing_ends.saturating_sub(1),
            b"term" => channel.position = Some(envelope.seq),
            b"gap" | b"backpressure_drop" => {
                channel.position = Some(envelope.seq);
                self.batch.losses += 1;
            }
            b"subscribe_error" => bail!("refused: {}", String::from_utf8_lossy(text)),
            _ => {
                let before = channel.position.replace(envelope.seq);
                self.on_event(&envelope, before, now_us);
            }
        }
        Ok(())
    }

    fn on_event(&mut self, envelope: &Scanned<'_>, before: Option<u64>, now_us: u64) {
        self.batch.events += 1;
        match before {
            // A channel without events is at 0, and its first event has any position.
            Some(0) => {}
            Some(before) if envelope.seq <= before => self.batch.duplicates += 1,
            Some(before) if envelope.seq == before + 1 => {}
            Some(_) | None => self.batch.losses += 1,
        }
        let sent_us = match self.target.stamp {
            Stamp::None => None,
            Stamp::Sent => sent_us(envelope.rest),
            Stamp::Trade => (envelope.event == b"trade").then(|| envelope.ts_ms * 1000),
        };
        self.batch.delays_us.extend(sent_us.map(|sent_us| now_us.saturating_sub(sent_us)));
    }
}

/// A socket from one of [`ADDRESSES`] addresses of this machine.
///
/// # Errors
///
/// When the connection is refused.
pub(crate) async fn open(target: SocketAddr, number: u32, stalls: bool) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if stalls {
        socket.set_recv_buffer_size(STALLED_RECEIVE_BYTES)?;
    }
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + 1 + number % ADDRESSES);
    socket.bind(SocketAddr::from((source, 0)))?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads the answer to the upgrade, and gives what came behind it.
///
/// # Errors
///
/// When it is refused.
pub(crate) async fn read_upgrade(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let (head, rest) = read_answer(stream).await?;
    if !head.starts_with("HTTP/1.1 101") {
        bail!("not upgraded: {head}{}", String::from_utf8_lossy(&rest));
    }
    Ok(rest)
}

/// Reads the head of an answer, its blank line included, and what came behind it.
///
/// # Errors
///
/// When the connection ends before.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.context("read the answer to the upgrade")? == 0 {
            bail!("the server closed the connection before the upgrade");
        }
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = answer.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&answer).into_owned(), rest));
        }
    }
}

/// Microseconds since the epoch: publishers and clients run on one machine and share its clock.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
