//! The process: one thread that waits for its sockets and writes what it is told.
//!
//! It is told over a socket of its own. First come the prepared bytes behind their length; then commands: a count, and
//! as many pairs of a connection, numbered as they were accepted, and how many of the prepared bytes it is written.
//! All numbers are four bytes, the least significant one first.

use std::io::{ErrorKind, Read, Write, stdout};
use std::net::{Ipv4Addr, TcpListener as StdListener};

use anyhow::{Context, Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{CHANNEL, CLIENTS_LINE, CONTROL_LINE};
use crate::wire::server_frame;

const LISTENER: Token = Token(usize::MAX - 1);
const CONTROL: Token = Token(usize::MAX - 2);

/// Longer than any request of a client here, so that each comes with one read.
const READ_BYTES: usize = 16 << 10;

/// Clients send one key, so there is one answer. Source: RFC 6455, section 4.2.2.
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";

struct Conn {
    stream: TcpStream,
    is_upgraded: bool,
    is_subscribed: bool,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    control: TcpStream,
    /// By the order in which they were accepted; `None` when they have left.
    conns: Vec<Option<Conn>>,
    prepared: Vec<u8>,
    /// Commands that have not been carried out.
    told: Vec<u8>,
    subscribed: Vec<u8>,
    scratch: Vec<u8>,
}

/// Runs until the one that tells it what to write has gone.
///
/// # Errors
///
/// When a socket fails, or a client does not take what it is written at once.
pub(crate) fn run() -> Result<()> {
    let mut server = Server::start()?;
    let mut events = Events::with_capacity(1024);
    loop {
        if let Err(error) = server.poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error).context("wait for sockets");
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept()?,
                CONTROL => {
                    if !server.listen_to_control()? {
                        return Ok(());
                    }
                }
                Token(number) => server.on_readable(number),
            }
        }
    }
}

impl Server {
    /// Says where it listens, and waits for the one that tells it what to write.
    fn start() -> Result<Self> {
        let [clients, control] = [(); 2].map(|()| StdListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let (clients, control) = (clients.context("bind")?, control.context("bind")?);
        let mut out = stdout();
        writeln!(out, "{CLIENTS_LINE} {}", clients.local_addr()?).context("write to stdout")?;
        writeln!(out, "{CONTROL_LINE} {}", control.local_addr()?).context("write to stdout")?;
        let (mut control, _) = control.accept().context("accept the one that tells what to write")?;
        let mut length = [0; 4];
        control.read_exact(&mut length).context("read the prepared bytes")?;
        let mut prepared = vec![0; u32::from_le_bytes(length) as usize];
        control.read_exact(&mut prepared).context("read the prepared bytes")?;
        control.set_nonblocking(true).context("prepare a socket")?;
        clients.set_nonblocking(true).context("prepare a socket")?;

        let poll = Poll::new().context("wait for sockets")?;
        let (mut listener, mut control) = (TcpListener::from_std(clients), TcpStream::from_std(control));
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).context("wait for clients")?;
        poll.registry().register(&mut control, CONTROL, Interest::READABLE).context("wait for commands")?;
        let subscribed = format!(
            r#"{{"v":1,"seq":0,"ts":0,"event":"subscribed","channel":"{CHANNEL}","ok":true,"data":{{"replayed":0}}}}"#
        );
        let subscribed = server_frame(subscribed.as_bytes());
        let (conns, told, scratch) = (Vec::new(), Vec::new(), vec![0; READ_BYTES]);
        Ok(Self { poll, listener, control, conns, prepared, told, subscribed, scratch })
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept a client"),
            };
            stream.set_nodelay(true).context("set TCP_NODELAY")?;
            let token = Token(self.conns.len());
            self.poll.registry().register(&mut stream, token, Interest::READABLE).context("wait for a client")?;
            self.conns.push(Some(Conn { stream, is_upgraded: false, is_subscribed: false }));
        }
    }

    fn on_readable(&mut self, number: usize) {
        let Some(place) = self.conns.get_mut(number) else { return };
        let Some(conn) = place else { return };
        // What a client sends is shorter than the buffer, so one read empties the socket.
        let is_alive = match conn.stream.read(&mut self.scratch) {
            Ok(0) => false,
            Ok(length) => conn.answer(&self.scratch[..length], &self.subscribed).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if !is_alive {
            *place = None;
        }
    }

    /// Carries out whole commands. Gives whether there may be more.
    fn listen_to_control(&mut self) -> Result<bool> {
        loop {
            match self.control.read(&mut self.scratch) {
                Ok(0) => return Ok(false),
                Ok(length) => self.told.extend_from_slice(&self.scratch[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error).context("read commands"),
            }
            self.obey()?;
        }
    }

    fn obey(&mut self) -> Result<()> {
        let told = std::mem::take(&mut self.told);
        let mut rest = told.as_slice();
        while let Some((count, behind)) = rest.split_first_chunk() {
            let Some((pairs, behind)) = behind.split_at_checked(u32::from_le_bytes(*count) as usize * 8) else { break };
            for &[a, b, c, d, e, f, g, h] in pairs.as_chunks().0 {
                self.write(u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize)?;
            }
            rest = behind;
        }
        self.told.extend_from_slice(rest);
        Ok(())
    }

    fn write(&mut self, number: usize, length: usize) -> Result<()> {
        let bytes = self.prepared.get(..length).context("more is to be written than was prepared")?;
        let Some(Some(conn)) = self.conns.get_mut(number) else { bail!("client {number} has left") };
        match conn.stream.write(bytes) {
            Ok(written) if written == length => Ok(()),
            _ => bail!("client {number} does not keep up"),
        }
    }
}

impl Conn {
    /// Upgrades first, then says that the subscription is there, then ignores what comes.
    fn answer(&mut self, request: &[u8], subscribed: &[u8]) -> std::io::Result<()> {
        if !self.is_upgraded {
            self.is_upgraded = request.ends_with(b"\r\n\r\n");
            return if self.is_upgraded { self.stream.write_all(UPGRADED) } else { Ok(()) };
        }
        if !self.is_subscribed {
            self.is_subscribed = true;
            return self.stream.write_all(subscribed);
        }
        Ok(())
    }
}
