//! A client that says what no library would, and reads frames by hand.

use std::net::SocketAddr;

use akis_gateway::ws::deflate::Inflater;
use akis_testkit::raw::{self, HANDSHAKE, upgrade};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bench::{SOON, token};

/// A request that is let in.
pub(crate) fn good_upgrade(headers: &str) -> String {
    upgrade(&format!("{HANDSHAKE}Authorization: Bearer {}\r\n{headers}", token(json!({}))))
}

/// A client's frame. A mask of zeros leaves the payload as it is.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// Opens a connection from 127.0.0.`host`.
pub(crate) async fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    timeout(SOON, raw::connect_from(host, to)).await.unwrap().unwrap()
}

/// Everything that was answered until the other side ended the connection.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// The head of the answer to the request.
    pub(crate) head: String,
    /// Text messages.
    pub(crate) texts: Vec<String>,
    /// How many pongs.
    pub(crate) pongs: usize,
    /// The code of the close frame.
    pub(crate) code: Option<u16>,
}

impl Answered {
    /// Reads the answer to a request, and the frames behind it.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let (head, mut rest) = bytes.split_at(head_len);
        let mut answered = Self { head: String::from_utf8_lossy(head).into_owned(), ..Self::default() };
        if !answered.head.starts_with("HTTP/1.1 101") {
            return answered;
        }
        while let [first, length, ..] = *rest {
            let (head_len, len) = match length {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                127 => (10, u64::from_be_bytes(rest[2..10].try_into().unwrap()) as usize),
                len => (2, usize::from(len)),
            };
            let Some(payload) = rest.get(head_len..head_len + len) else { break };
            rest = &rest[head_len + len..];
            match first {
                0x81 => answered.texts.push(String::from_utf8(payload.to_vec()).unwrap()),
                0xC1 => {
                    let text = Inflater::default().inflate(payload, 1 << 20).unwrap().to_vec();
                    answered.texts.push(String::from_utf8(text).unwrap());
                }
                0x88 => answered.code = Some(u16::from_be_bytes([payload[0], payload[1]])),
                0x89 => {}
                0x8A => answered.pongs += 1,
                other => panic!("unexpected frame {other:x}"),
            }
        }
        answered
    }

    /// How many messages have this in them.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.texts.iter().filter(|text| text.contains(part)).count()
    }
}

/// Says something, and then something else again and again up to `times`, until the other side ends the connection. Reads all the while.
pub(crate) async fn insist(stream: TcpStream, first: &[u8], again: &[u8], times: usize) -> Answered {
    let (mut reader, mut writer) = stream.into_split();
    let writing = async move {
        // The other side may end the connection at any time.
        if writer.write_all(first).await.is_ok() {
            for _ in 0..times {
                if writer.write_all(again).await.is_err() {
                    break;
                }
            }
        }
        writer
    };
    let mut bytes = Vec::new();
    let reading = async {
        let mut chunk = vec![0; 64 << 10];
        loop {
            match reader.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            }
        }
    };
    let both = async {
        tokio::pin!(reading);
        tokio::select! {
            () = &mut reading => {}
            // Its half stays open until the answer is there.
            writer = writing => {
                reading.await;
                drop(writer);
            }
        }
    };
    timeout(SOON * 3, both).await.expect("the connection should have been ended");
    Answered::read(&bytes)
}

/// Says something and reads until the other side ends the connection.
pub(crate) async fn say(address: SocketAddr, bytes: &[u8]) -> Answered {
    insist(connect_from(1, address).await, bytes, &[], 0).await
}
