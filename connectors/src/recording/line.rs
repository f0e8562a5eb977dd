//! The lines of a recording as they stand in the file.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Header;
use crate::{Content, RawFrame};

/// The version of the format that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The first line.
#[derive(Serialize)]
pub(super) struct HeaderLine<'a> {
    #[serde(flatten)]
    mark: Mark<'static>,
    #[serde(flatten)]
    header: &'a Header,
}

/// What makes a file a recording.
#[derive(Serialize, Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    akis: Cow<'a, str>,
    v: u32,
}

impl<'a> HeaderLine<'a> {
    pub(super) fn new(header: &'a Header) -> Self {
        Self { mark: Mark { akis: "recording".into(), v: VERSION }, header }
    }
}

pub(super) fn parse_header(line: &[u8]) -> Result<Header, String> {
    let mark: Mark<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if mark.akis != "recording" {
        return Err(format!("{:?} is no recording", mark.akis));
    }
    if mark.v != VERSION {
        return Err(format!("version {} is not known, only {VERSION}", mark.v));
    }
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// Any further line: which fields are there says what it is.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct FrameLine<'a> {
    pub(super) at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conn: Option<u32>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    http: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    hex: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<u16>,
}

impl<'a> From<&'a RawFrame> for FrameLine<'a> {
    fn from(frame: &'a RawFrame) -> Self {
        let line = Self { at: frame.received_at, ..Self::default() };
        match &frame.content {
            Content::Text { connection, text } => {
                Self { conn: Some(*connection), text: Some(Cow::Borrowed(text)), ..line }
            }
            Content::Binary { connection, bytes } => {
                Self { conn: Some(*connection), hex: Some(encode_hex(bytes).into()), ..line }
            }
            Content::Reply { target, status, body } => Self {
                http: Some(Cow::Borrowed(target)),
                status: Some(*status),
                text: Some(Cow::Borrowed(body)),
                ..line
            },
            Content::Closed { connection, code } => Self { conn: Some(*connection), closed: Some(*code), ..line },
        }
    }
}

impl FrameLine<'_> {
    pub(super) fn into_frame(self) -> Result<RawFrame, &'static str> {
        let content = match (self.conn, self.http, self.status, self.text, self.hex, self.closed) {
            (Some(connection), None, None, Some(text), None, None) => {
                Content::Text { connection, text: text.into_owned() }
            }
            (Some(connection), None, None, None, Some(hex), None) => {
                Content::Binary { connection, bytes: decode_hex(&hex).ok_or("`hex` is not pairs of hex digits")? }
            }
            (None, Some(target), Some(status), Some(body), None, None) => {
                Content::Reply { target: target.into_owned(), status, body: body.into_owned() }
            }
            (Some(connection), None, None, None, None, Some(code)) => Content::Closed { connection, code },
            _ => return Err("neither a frame, nor a reply, nor the end of a connection"),
        };
        Ok(RawFrame { received_at: self.at, content })
    }
}

fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok()).collect()
}
