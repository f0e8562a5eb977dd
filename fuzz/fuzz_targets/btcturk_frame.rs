//! What BtcTurk sends: any lines of text are frames or replies, end nothing, and publish no book that cannot be.

#![no_main]

use akis_connectors::{Content, RawFrame};
use akis_normalizer::{Output, Payload, mapper};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Some(mut mapper) = mapper(("btcturk", "spot")) else { return };
    mapper.admit(None, &[]);
    let (mut out, mut now) = (Output::default(), 1_790_133_600_000);
    for line in text.lines() {
        now += 700;
        let content = match line.split_once(' ') {
            Some(("candles", body)) => Content::Reply {
                target: "/v1/klines/history?symbol=BTCTRY&resolution=1&from=0&to=1".to_owned(),
                status: 200,
                body: body.to_owned(),
            },
            Some(("info", body)) => Content::Reply {
                target: "/api/v2/server/exchangeinfo".to_owned(),
                status: 200,
                body: body.to_owned(),
            },
            Some(("closed", _)) => Content::Closed { connection: 1, code: 1000 },
            _ => Content::Text { connection: 1, text: line.to_owned() },
        };
        mapper.on_frame(&RawFrame { received_at: now, content }, &mut out);
        mapper.on_tick(now, &mut out);
        for update in out.updates.drain(..) {
            if let Payload::Book(book) = &update.payload {
                assert!(book.bids.windows(2).all(|pair| pair[0].0 > pair[1].0));
                assert!(book.asks.windows(2).all(|pair| pair[0].0 < pair[1].0));
                assert!(book.bids.iter().chain(&book.asks).all(|level| !level.1.is_zero() && !level.1.is_negative()));
                if let (Some(bid), Some(ask)) = (book.bids.first(), book.asks.first()) {
                    assert!(bid.0 < ask.0);
                }
            }
        }
        out = Output::default();
    }
});
