//! What Binance sends, spot and futures: any lines of text are frames or replies, end nothing, and publish no book that cannot
//! be. The session and the stand-in read the same lines.

#![no_main]

mod book;

use akis_connectors::{Content, RawFrame, fuzzing};
use akis_normalizer::{Output, mapper};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for (market, rest) in [("spot", "/api/v3"), ("usdm", "/fapi/v1")] {
        let Some(mut mapper) = mapper(("binance", market)) else { return };
        mapper.admit(Some(&["*".to_owned()]), &[akis_model::Kind::Book, akis_model::Kind::Candles]);
        let (mut out, mut now) = (Output::default(), 1_790_133_600_000);
        mapper.backfill(&mut out);
        for line in text.lines() {
            now += 700;
            let (word, body) = line.split_once(' ').unwrap_or((line, ""));
            let reply = |target: &str| Content::Reply {
                target: format!("{rest}/{target}"),
                status: 200,
                body: body.to_owned(),
            };
            let content = match word {
                "depth" => reply("depth?symbol=BTCUSDT&limit=1000"),
                "klines" => reply("klines?symbol=BTCUSDT&interval=1m&limit=500"),
                "trades" => reply("aggTrades?symbol=BTCUSDT&fromId=7&limit=1000"),
                "info" => reply("exchangeInfo"),
                "target" => reply(body),
                "closed" => Content::Closed { connection: 1, code: 1006 },
                _ => Content::Text { connection: 1, text: line.to_owned() },
            };
            mapper.on_frame(&RawFrame { received_at: now, content }, &mut out);
            mapper.on_tick(now, &mut out);
            book::check_books(&mut out.updates);
            out = Output::default();
        }
        mapper.finish(&mut out);
    }
    text.lines().for_each(fuzzing::binance_line);
});
