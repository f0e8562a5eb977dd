//! Recordings: what came in from a venue as JSON lines, so that a day can be kept and played again.
//!
//! The first line is the [`Header`], each further line one [`RawFrame`](crate::RawFrame); section 9 of the
//! protocol has the format. Reading is total: a bad line is an error of its own and the next one is read on.

mod line;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

pub use reader::Reader;
pub use writer::Writer;

/// The longest line that is read: a reply with all symbols of a venue has about 20 MiB.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// What a recording says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// `binance`, `btcturk` or `bist`.
    pub venue: String,
    /// `spot`, `usdm` or `equities`.
    pub market: String,
    /// When the recording began: milliseconds since the epoch.
    pub started_at: i64,
    /// What was asked for, in the venue's spelling; `None`: every symbol that the recording names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbols: Option<Vec<String>>,
    /// BIST only: what carries the messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// BIST only: the connections that differ from the rest.
    #[serde(default, rename = "conns", skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<u32, ConnectionNote>,
}

/// What carries the messages of a BIST recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams of MoldUDP64.
    MoldUdp64,
    /// The bytes of SoupBinTCP.
    SoupBinTcp,
    /// A snapshot over SoupBinTCP.
    Glimpse,
    /// Messages without a transport.
    Itch,
}

/// How one connection of a BIST recording differs from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionNote {
    /// What carries its messages, where it is not the header's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Which line of the feed it listens to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<FeedLine>,
}

/// The lines of a feed that is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedLine {
    /// The first copy.
    A,
    /// The second copy.
    B,
    /// The rewinder, which sends again what was asked for.
    R,
}

/// Why a recording, or a line of it, could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file could not be read or written; nothing follows.
    #[error("read or write the recording")]
    Io(#[from] io::Error),
    /// The first line is not the header of a recording in a version that is known here.
    #[error("read the header of the recording: {0}")]
    Header(String),
    /// A line is longer than [`MAX_LINE_BYTES`].
    #[error("line {line} of the recording is longer than {MAX_LINE_BYTES} bytes")]
    TooLong {
        /// Counts from 1, the header included.
        line: u64,
    },
    /// A line is not one of the shapes of the format.
    #[error("line {line} of the recording: {reason}")]
    Malformed {
        /// Counts from 1, the header included.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A frame came before the one ahead of it.
    #[error("line {line} of the recording is at {at}, before {before} of the line ahead of it")]
    Backwards {
        /// Counts from 1, the header included.
        line: u64,
        /// Its moment.
        at: i64,
        /// The moment that was reached already.
        before: i64,
    },
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::{Content, RawFrame};

    fn header() -> Header {
        Header {
            venue: "binance".into(),
            market: "spot".into(),
            started_at: 5,
            symbols: Some(vec!["BTCUSDT".into()]),
            transport: None,
            connections: BTreeMap::new(),
        }
    }

    fn read(text: &[u8]) -> (Header, Vec<Result<RawFrame, RecordingError>>) {
        let (header, reader) = Reader::open(text).unwrap();
        (header, reader.collect())
    }

    #[test]
    fn lines_are_those_of_the_protocol() {
        let text = concat!(
            r#"{"akis":"recording","v":1,"venue":"binance","market":"spot","startedAt":5,"symbols":["BTCUSDT"]}"#,
            "\n",
            r#"{"at":7,"conn":1,"text":"{\"e\":\"ş\"}"}"#,
            "\n",
            r#"{"at":7,"conn":1,"text":""}"#,
            "\n",
            r#"{"at":8,"conn":2,"hex":"54ff00"}"#,
            "\n",
            r#"{"at":9,"http":"/api/v3/depth?symbol=BTCUSDT","status":200,"text":"{}"}"#,
            "\n",
            r#"{"at":9,"conn":1,"closed":1006}"#,
            "\n",
        );
        let (found, frames) = read(text.as_bytes());
        assert_eq!(found, header());
        let mut written = Vec::new();
        let mut writer = Writer::create(&mut written, &found).unwrap();
        for frame in frames {
            writer.write(&frame.unwrap()).unwrap();
        }
        assert_eq!(String::from_utf8(written).unwrap(), text);
    }

    #[test]
    fn a_bist_header_keeps_its_connections() {
        let text = concat!(
            r#"{"akis":"recording","v":1,"venue":"bist","market":"equities","startedAt":5,"transport":"moldudp64","#,
            r#""conns":{"2":{"line":"B"},"4":{"transport":"glimpse"}}}"#,
            "\n",
        );
        let (found, _) = read(text.as_bytes());
        assert_eq!(found.transport, Some(Transport::MoldUdp64));
        let mut written = Vec::new();
        Writer::create(&mut written, &found).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), text);
    }

    #[test]
    fn a_bad_line_is_an_error_and_the_next_one_is_read() {
        let good = r#"{"at":7,"conn":1,"text":"x","later":[1]}"#;
        for bad in [
            "nonsense",
            "[]",
            r#"{"at":7}"#,
            r#"{"at":7,"text":"without a connection"}"#,
            r#"{"at":7,"conn":1,"text":"x","hex":"00"}"#,
            r#"{"at":7,"conn":1,"hex":"0"}"#,
            r#"{"at":7,"conn":1,"hex":"zz"}"#,
            r#"{"at":7,"http":"/x","status":200}"#,
            r#"{"at":7.5,"conn":1,"text":"x"}"#,
            r#"{"at":6,"conn":1,"text":"before"}"#,
            "\u{0}",
        ] {
            let head = r#"{"akis":"recording","v":1,"venue":"v","market":"m","startedAt":1,"unknown":{}}"#;
            let (_, frames) = read(format!("{head}\n{good}\n{bad}\n\n{good}").as_bytes());
            let outcomes: Vec<bool> = frames.iter().map(Result::is_ok).collect();
            assert_eq!(outcomes, [true, false, true], "{bad}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        for head in
            ["", "{}", r#"{"akis":"recording","v":2,"venue":"v","market":"m","startedAt":1}"#, "\u{feff}", "[1]"]
        {
            assert!(matches!(Reader::open(head.as_bytes()), Err(RecordingError::Header(_))), "{head}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_skipped() {
        let head = r#"{"akis":"recording","v":1,"venue":"v","market":"m","startedAt":1}"#;
        let endless = io::repeat(b'x').take(MAX_LINE_BYTES as u64 + 5);
        let next = &b"\n{\"at\":1,\"conn\":1,\"text\":\"\"}"[..];
        let text = head.as_bytes().chain(&b"\n"[..]).chain(endless).chain(next);
        let (_, reader) = Reader::open(io::BufReader::new(text)).unwrap();
        let outcomes: Vec<bool> = reader.map(|line| line.is_ok()).collect();
        assert_eq!(outcomes, [false, true]);
    }

    #[test]
    fn the_fixtures_are_recordings() {
        for (name, frames) in [
            ("spot_2021-10-12", 269),
            ("trbinance_2023-04-10", 142),
            ("binanceus_2021-10-12", 480),
            ("usdm_2021-07-22", 1539),
        ] {
            let path = format!("{}/fixtures/binance/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
            let (header, reader) = Reader::open(io::BufReader::new(std::fs::File::open(path).unwrap())).unwrap();
            assert_eq!((header.venue.as_str(), header.symbols.map(|s| s.len())), ("binance", Some(4)), "{name}");
            assert_eq!(reader.map(Result::unwrap).count(), frames, "{name}");
        }
    }

    #[test]
    fn a_frame_that_goes_back_is_not_written() {
        let mut writer = Writer::create(Vec::new(), &header()).unwrap();
        let frame = |at| RawFrame { received_at: at, content: Content::Closed { connection: 1, code: 1000 } };
        writer.write(&frame(8)).unwrap();
        assert!(matches!(writer.write(&frame(7)), Err(RecordingError::Backwards { at: 7, before: 8, .. })));
    }

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![
            (any::<u32>(), any::<String>()).prop_map(|(connection, text)| Content::Text { connection, text }),
            (any::<u32>(), any::<Vec<u8>>()).prop_map(|(connection, bytes)| Content::Binary { connection, bytes }),
            (any::<String>(), any::<u16>(), any::<String>()).prop_map(|(target, status, body)| Content::Reply {
                target,
                status,
                body
            }),
            (any::<u32>(), any::<u16>()).prop_map(|(connection, code)| Content::Closed { connection, code }),
        ]
    }

    proptest! {
        #[test]
        fn comes_out_as_it_went_in(contents in proptest::collection::vec((0i64..9, content()), 0..20)) {
            let mut at = 0;
            let frames: Vec<RawFrame> = contents
                .into_iter()
                .map(|(later, content)| {
                    at += later;
                    RawFrame { received_at: at, content }
                })
                .collect();
            let mut writer = Writer::create(Vec::new(), &header()).unwrap();
            for frame in &frames {
                writer.write(frame).unwrap();
            }
            let (found, read) = read(&writer.into_inner());
            prop_assert_eq!(found, header());
            prop_assert_eq!(read.into_iter().map(Result::unwrap).collect::<Vec<_>>(), frames);
        }

        #[test]
        fn any_bytes_end_without_a_panic(bytes in any::<Vec<u8>>()) {
            if let Ok((_, reader)) = Reader::open(&bytes[..]) {
                reader.for_each(drop);
            }
        }
    }
}
