//! What BtcTurk sends: any lines of text are frames or replies, end nothing, and publish no book that cannot be.

#![no_main]

mod book;

use akis_connectors::{Content, RawFrame};
use akis_normalizer::{Output, mapper};

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
        book::check_books(&mut out.updates);
        out = Output::default();
    }
});
