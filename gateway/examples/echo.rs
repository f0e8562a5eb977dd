//! An echo server over the gateway's own framing, for conformance suites: `cargo run --release --example echo -- 127.0.0.1:9001`.
//!
//! Answers every message with itself, every ping with its pong, and a close with a close. One thread for each connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use akis_gateway::ws::deflate::{self, Deflater, Inflater};
use akis_gateway::ws::{
    Decoder, Incoming, Rules, put_binary, put_close, put_compressed_text, put_ping, put_pong, put_text,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// As large as conformance suites go.
const MAX_MESSAGE: usize = 64 << 20;

/// Head of a request, at most.
const MAX_HEAD: usize = 16 << 10;

/// A client that says nothing for so long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(30);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(&address)?;
    println!("echo: ws://{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut rest, takes_compressed) = shake_hands(&mut stream)?;
    let (mut inflater, mut deflater) = (Inflater::default(), Deflater::default());
    stream.set_read_timeout(Some(PING_AFTER))?;
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 << 10];
    let mut read = rest.len();
    loop {
        let mut out = Vec::new();
        let mut is_closed = false;
        let bytes = if rest.is_empty() { buffer.get_mut(..read).unwrap_or_default() } else { rest.as_mut_slice() };
        let inflater = takes_compressed.then_some(&mut inflater);
        let mut rules = Rules { max_message: MAX_MESSAGE, inflater };
        let decoded = decoder.feed(bytes, &mut rules, &mut |incoming| {
            match incoming {
                Incoming::Text(text) => match deflater.deflate(text.as_bytes()).filter(|_| takes_compressed) {
                    Some(payload) => put_compressed_text(&mut out, payload),
                    None => put_text(&mut out, text.as_bytes()),
                },
                Incoming::Binary(bytes) => put_binary(&mut out, bytes),
                Incoming::Ping(payload) => put_pong(&mut out, payload),
                Incoming::Pong => {}
                Incoming::Close(code) => {
                    put_close(&mut out, code.unwrap_or(1000), "");
                    is_closed = true;
                }
            }
            !is_closed
        });
        rest = Vec::new();
        if let Err(error) = decoded {
            put_close(&mut out, error.close_code(), "");
            is_closed = true;
        }
        stream.write_all(&out)?;
        if is_closed {
            return linger(stream);
        }
        read = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let mut ping = Vec::new();
                put_ping(&mut ping);
                stream.write_all(&ping)?;
                0
            }
            Err(error) => return Err(error),
        };
    }
}

/// Waits for the client's end: closing a socket with unread bytes in it would take the close frame back.
fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// Reads the request and answers it. Gives what came behind it, and whether compressed messages were agreed on.
fn shake_hands(stream: &mut TcpStream) -> io::Result<(Vec<u8>, bool)> {
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    let end = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read(&mut chunk)?;
        if read == 0 || head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(chunk.get(..read).unwrap_or_default());
    };
    let rest = head.split_off(end);
    let text = String::from_utf8_lossy(&head);
    let header = |wanted: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    let accept = derive_accept_key(header("sec-websocket-key").ok_or(io::ErrorKind::InvalidData)?.as_bytes());
    let takes_compressed = header("sec-websocket-extensions").is_some_and(deflate::is_acceptable);
    let extensions =
        if takes_compressed { format!("Sec-WebSocket-Extensions: {}\r\n", deflate::ACCEPTED) } else { String::new() };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{extensions}\r\n"
    );
    stream.write_all(answer.as_bytes())?;
    Ok((rest, takes_compressed))
}
