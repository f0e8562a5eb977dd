//! Puts more into the feeds than the log's own scripts can: plain `XADD`s of finished entries, many in a write.
//!
//! Only what a replica's readers see: no histories, no term. It must be the only writer of its log, because it counts
//! entries and positions itself.

use std::fmt::Write as _;
use std::ops::Range;

use akis_eventlog::Partition;
use akis_model::{Body, Channel, Outcome};
use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::DATA_BYTES;

/// Entries that a feed keeps, so that Redis stays small.
const FEED_ENTRIES: usize = 20_000;

/// A channel with the feed that it is told in, and what its next entry counts from.
struct Lane {
    channel: Channel,
    feed: String,
    partition: usize,
    seq: u64,
    body: Vec<u8>,
}

/// A connection to Redis and everything that it writes.
pub(crate) struct Flood {
    redis: TcpStream,
    lanes: Vec<Lane>,
    /// The number of the last entry of each partition's feed.
    numbers: Vec<u64>,
}

impl Flood {
    /// Writes to the channels of these names.
    ///
    /// # Errors
    ///
    /// When Redis cannot be reached, or one of them is no channel.
    pub(crate) async fn start(redis_url: &str, prefix: &str, partitions: u16, names: &[String]) -> Result<Self> {
        let address = redis_url.trim_start_matches("redis://").trim_end_matches('/');
        let redis = TcpStream::connect(address).await.context("connect to Redis")?;
        let lane = |name: &String| {
            let channel = Channel::parse(name).with_context(|| format!("{name:?} is no channel"))?;
            let partition = Partition::of(&channel, partitions);
            let body = Body::render(0, "bench", &channel, Outcome::Ok, &json!({ "pad": "x".repeat(DATA_BYTES) }))?;
            let (feed, body) = (format!("{prefix}:{{{partition}}}:feed"), body.text().to_vec());
            Ok(Lane { channel, feed, partition: usize::from(partition.0), seq: 0, body })
        };
        let lanes = names.iter().map(lane).collect::<Result<_>>()?;
        Ok(Self { redis, lanes, numbers: vec![0; usize::from(partitions)] })
    }

    /// Adds `at_once` entries to each channel at `places`, and waits until Redis has them all.
    ///
    /// # Errors
    ///
    /// When Redis refuses one or goes away.
    pub(crate) async fn put(&mut self, places: Range<usize>, at_once: usize) -> Result<()> {
        let mut commands = Vec::new();
        let mut missing = 0;
        for lane in &mut self.lanes[places] {
            for _ in 0..at_once {
                let (number, length) = (&mut self.numbers[lane.partition], FEED_ENTRIES.to_string());
                (*number, lane.seq, missing) = (*number + 1, lane.seq + 1, missing + 1);
                let (number, seq) = (number.to_string(), lane.seq.to_string());
                let [number, seq, length] = [&number, &seq, &length].map(String::as_bytes);
                let (feed, channel) = (lane.feed.as_bytes(), lane.channel.as_str().as_bytes());
                let mut words: Vec<&[u8]> = vec![b"XADD", feed, b"MAXLEN", b"~", length, b"*"];
                words.extend([b"n", number, b"c", channel, b"s", seq, b"d", lane.body.as_slice()]);
                if lane.seq == 1 {
                    words.extend([b"p".as_slice(), b"0"]);
                }
                encode(&mut commands, &words)?;
            }
        }
        let (mut replies, mut requests) = self.redis.split();
        let sending = async { requests.write_all(&commands).await.context("write to Redis") };
        let receiving = async {
            let mut chunk = vec![0; 64 << 10];
            while missing > 0 {
                let length = replies.read(&mut chunk).await.context("read from Redis")?;
                let chunk = &chunk[..length];
                if length == 0 || chunk.starts_with(b"-") {
                    bail!("Redis does not take an entry: {}", String::from_utf8_lossy(chunk));
                }
                // An answer is the id as a string: `$15`, and the id on a line of its own.
                missing -= chunk.iter().filter(|byte| **byte == b'$').count().min(missing);
            }
            Ok(())
        };
        tokio::try_join!(sending, receiving)?;
        Ok(())
    }
}

/// A command as Redis reads it. Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
fn encode(out: &mut Vec<u8>, words: &[&[u8]]) -> Result<()> {
    let mut head = String::new();
    write!(head, "*{}\r\n", words.len())?;
    out.extend_from_slice(head.as_bytes());
    for word in words {
        head.clear();
        write!(head, "${}\r\n", word.len())?;
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}
