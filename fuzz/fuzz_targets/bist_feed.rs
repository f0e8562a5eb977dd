//! Borsa Istanbul's feed in any transport: MoldUDP64, SoupBinTCP, GLIMPSE, single messages. Nothing that comes ends anything,
//! and no book is published that cannot be.
//!
//! The first byte says what carries the messages; then come pieces: a byte for what happens, one for the length, and the bytes.

#![no_main]

mod book;

use akis_connectors::recording::{Header, Transport};
use akis_connectors::{Content, RawFrame, fuzzing};
use akis_normalizer::{Output, mapper};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (Some((&transport, mut rest)), Some(mut mapper)) = (data.split_first(), mapper(("bist", "equities"))) else {
        return;
    };
    mapper.admit(None, &[]);
    let carried = [None, Some(Transport::MoldUdp64), Some(Transport::SoupBinTcp), Some(Transport::Itch)];
    let header = |transport| Header {
        venue: "bist".to_owned(),
        market: "equities".to_owned(),
        started_at: 0,
        symbols: None,
        transport: Some(transport),
        connections: [].into(),
    };
    if let Some(transport) = carried[usize::from(transport) % carried.len()] {
        mapper.on_header(&header(transport));
    }
    let (mut out, mut now, mut pieces) = (Output::default(), 1_790_133_600_000, Vec::new());
    while let [what, length, after @ ..] = rest {
        let (bytes, later) = after.split_at(usize::from(*length).min(after.len()));
        rest = later;
        pieces.push(bytes);
        // Five bits of pause, one for the end of a connection, two for which one.
        now += i64::from(what >> 3) * 1_000;
        let connection = u32::from(what & 3);
        let content = match what & 4 {
            0 => Content::Binary { connection, bytes: bytes.to_vec() },
            _ => Content::Closed { connection, code: 1006 },
        };
        mapper.on_frame(&RawFrame { received_at: now, content }, &mut out);
        mapper.on_tick(now, &mut out);
        book::check_books(&mut out.updates);
        out = Output::default();
    }
    mapper.finish(&mut out);
    book::check_books(&mut out.updates);
    fuzzing::bist_pieces(&pieces);
});
