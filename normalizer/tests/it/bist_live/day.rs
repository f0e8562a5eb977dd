//! A whole generated day, with its auctions and its halt: what its lines lose changes nothing.

use std::collections::BTreeMap;

use akis_connectors::bist::mold::{Kind, Packet};
use akis_connectors::recording::{Header, Writer};
use akis_connectors::{Content, venue};
use akis_model::Seq;
use akis_normalizer::{Summary, observe, replay};
use anyhow::Context;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::live::{assert_books, trade_ids};

/// How long a day is, which is from 09:40 to 18:10.
const DAY_S: f64 = 8.0;

/// How often something is lost, in packets.
const LOST_EVERY: usize = 25;

/// A day with what is told of it.
struct Told {
    events: Vec<(Seq, Value)>,
    summary: Summary,
}

impl Told {
    /// Of one channel, without what depends on when a frame was read.
    fn of(&self, channel: &str) -> Vec<(Seq, Value)> {
        let mut events: Vec<_> = self.events.iter().filter(|(_, event)| event["channel"] == channel).cloned().collect();
        events.iter_mut().for_each(|(_, event)| _ = event["data"].as_object_mut().unwrap().remove("receivedAt"));
        events
    }
}

/// Follows the first day to its end. `lose` is asked for a fault now and then.
async fn day(exchange: &Venue, settings: Settings, mut lose: impl FnMut() -> Option<Value>) -> Result<Told> {
    let header = Header {
        venue: "bist".to_owned(),
        market: "equities".to_owned(),
        started_at: 0,
        symbols: Some(vec!["THYAO".to_owned(), "GARAN".to_owned()]),
        transport: None,
        connections: BTreeMap::default(),
    };
    let mut writer = Writer::create(Vec::new(), &header)?;
    let (sender, mut frames) = mpsc::channel(64);
    let bist = venue("bist").context("the venue is there")?;
    let session = tokio::spawn(observe(bist, settings, sender, CancellationToken::new()));
    for number in 0.. {
        let frame = timeout(WITHIN, frames.recv()).await?.context("the session goes on")?;
        writer.write(&frame)?;
        let Content::Binary { bytes, .. } = &frame.content else { continue };
        if Packet::parse(bytes).is_ok_and(|packet| packet.kind == Kind::End) {
            break;
        }
        if number % LOST_EVERY == 0
            && let Some(fault) = lose()
        {
            exchange.fault(fault).await?;
        }
    }
    drop(frames);
    timeout(WITHIN, session).await???;
    let mut out = Vec::new();
    let summary = replay([&writer.into_inner()[..]], false, &mut out)?;
    let event = |line: &str| -> Result<(Seq, Value)> {
        let event: Value = serde_json::from_str(line)?;
        let seq = event["seq"].as_u64().and_then(|seq| Seq::new(seq).ok()).context("a position")?;
        Ok((seq, event))
    };
    let events = String::from_utf8(out)?.lines().map(event).collect::<Result<_>>()?;
    Ok(Told { events, summary })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_with_losses_on_its_lines_is_told_as_one_without() -> Result<()> {
    let exchange = Venue::playing(Day::Whole { speed: 30_600.0 / DAY_S }).await?;
    let mut lines = ["a", "b", "both"].into_iter().cycle();
    let mut faults = 0;
    let lose = || {
        faults += 1;
        lines.next().map(|line| json!({"fault": "loss", "line": line, "packets": 2}))
    };
    let (whole, lossy) =
        tokio::try_join!(day(&exchange, exchange.soup(), || None), day(&exchange, exchange.mold(), lose))?;
    assert!(faults > 10, "{faults}");
    for symbol in ["THYAO", "GARAN"] {
        let trades = lossy.of(&format!("bist:{symbol}:trades"));
        assert!(trades.len() > 20, "{symbol}: {}", trades.len());
        assert_eq!(trades, whole.of(&format!("bist:{symbol}:trades")));
        assert_eq!(trade_ids(&trades).len(), trades.len(), "no gap, no status");
        for interval in ["1m", "5m", "15m", "1h", "4h", "1d"] {
            let channel = format!("bist:{symbol}:{interval}");
            // How many come before one is closed is up to the packets.
            let closed = |told: &Told| -> Vec<Value> {
                let candles = told.of(&channel).into_iter().map(|(_, event)| event["data"].clone());
                candles.filter(|candle| candle["closed"] == true).collect()
            };
            assert_eq!(closed(&lossy), closed(&whole), "{channel}");
            assert!(!closed(&lossy).is_empty(), "{channel}");
        }
        let session = format!("bist:{symbol}:session");
        assert_eq!(lossy.of(&session), whole.of(&session));
    }
    let states: Vec<_> =
        lossy.of("bist:THYAO:session").into_iter().map(|(_, event)| event["data"]["state"].clone()).collect();
    for state in ["opening_auction", "continuous", "single_price", "closing_auction", "at_close", "closed"] {
        assert!(states.contains(&json!(state)), "{state} of {states:?}");
    }
    assert_books(&lossy.of(BOOK));
    assert_eq!(lossy.summary.lost_trades, 0);
    Ok(())
}
