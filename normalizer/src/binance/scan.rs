//! The frames of which there are most, in the plain form in which the venue writes them: read in one pass, without a parser of
//! all that JSON may be.
//!
//! What is read here is what [`super::wire`] reads. `None`: something about it is unusual, which is left to that.

use std::borrow::Cow;

use akis_model::{Decimal, Level};

use super::wire::{BookTicker, DepthUpdate, Levels, Number, Trade, USUAL_LEVELS};

/// `<symbol>@depth@100ms`.
pub(super) fn depth_update(text: &str) -> Option<DepthUpdate<'_>> {
    let (mut symbol, mut event_time, mut bids, mut asks) = (None, None, None, None);
    let (mut first_id, mut last_id, mut previous_id) = (None, None, None);
    Scanner::read(text, |scanner, key| match key {
        b"s" => set(&mut symbol, scanner.text()?),
        b"E" => set(&mut event_time, scanner.time()?),
        b"U" => set(&mut first_id, scanner.number()?),
        b"u" => set(&mut last_id, scanner.number()?),
        b"pu" => set(&mut previous_id, scanner.number()?),
        b"b" => set(&mut bids, scanner.levels()?),
        b"a" => set(&mut asks, scanner.levels()?),
        _ => scanner.skip(),
    })?;
    Some(DepthUpdate {
        symbol: Cow::Borrowed(symbol?),
        event_time: event_time?,
        first_id: first_id?,
        last_id: last_id?,
        previous_id,
        bids: Levels(Ok(bids?)),
        asks: Levels(Ok(asks?)),
    })
}

/// `<symbol>@aggTrade` and `<symbol>@trade`.
pub(super) fn trade(text: &str) -> Option<Trade<'_>> {
    let (mut symbol, mut aggregate_id, mut id, mut origin) = (None, None, None, None);
    let (mut price, mut qty, mut time, mut buyer_is_maker) = (None, None, None, None);
    Scanner::read(text, |scanner, key| match key {
        b"s" => set(&mut symbol, scanner.text()?),
        b"a" => set(&mut aggregate_id, scanner.number()?),
        b"t" => set(&mut id, scanner.number()?),
        b"p" => set(&mut price, scanner.text()?),
        b"q" => set(&mut qty, scanner.text()?),
        b"T" => set(&mut time, scanner.time()?),
        b"m" => set(&mut buyer_is_maker, scanner.truth()?),
        b"X" => set(&mut origin, scanner.text()?),
        _ => scanner.skip(),
    })?;
    Some(Trade {
        symbol: Cow::Borrowed(symbol?),
        aggregate_id,
        id,
        price: Number::Text(price?),
        qty: Number::Text(qty?),
        time: time?,
        buyer_is_maker: buyer_is_maker?,
        origin: origin.map(Cow::Borrowed),
    })
}

/// `<symbol>@bookTicker`.
pub(super) fn book_ticker(text: &str) -> Option<BookTicker<'_>> {
    let (mut symbol, mut update_id, mut event_time) = (None, None, None);
    let (mut bid, mut bid_qty, mut ask, mut ask_qty) = (None, None, None, None);
    Scanner::read(text, |scanner, key| match key {
        b"s" => set(&mut symbol, scanner.text()?),
        b"u" => set(&mut update_id, scanner.number()?),
        b"E" => set(&mut event_time, scanner.time()?),
        b"b" => set(&mut bid, scanner.text()?),
        b"B" => set(&mut bid_qty, scanner.text()?),
        b"a" => set(&mut ask, scanner.text()?),
        b"A" => set(&mut ask_qty, scanner.text()?),
        _ => scanner.skip(),
    })?;
    Some(BookTicker {
        symbol: Cow::Borrowed(symbol?),
        update_id: update_id?,
        event_time,
        bid: Number::Text(bid?),
        bid_qty: Number::Text(bid_qty?),
        ask: Number::Text(ask?),
        ask_qty: Number::Text(ask_qty?),
    })
}

/// Takes a member; not twice.
fn set<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}

/// Goes over a text.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Reads one object that is all of `text`; `member` is given each key and reads the value.
    fn read(text: &'a str, mut member: impl FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        let mut scanner = Self { text, at: 0 };
        scanner.byte(b'{')?;
        loop {
            let key = scanner.text()?;
            scanner.byte(b':')?;
            member(&mut scanner, key.as_bytes())?;
            if !scanner.goes_on(b'}')? {
                return (scanner.at == text.len()).then_some(());
            }
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// Goes over this byte.
    fn byte(&mut self, byte: u8) -> Option<()> {
        let is_there = self.text.as_bytes().get(self.at) == Some(&byte);
        self.at += 1;
        is_there.then_some(())
    }

    /// Goes over these bytes.
    fn bytes<const N: usize>(&mut self, bytes: &[u8; N]) -> Option<()> {
        let is_there = self.rest().first_chunk() == Some(bytes);
        self.at += N;
        is_there.then_some(())
    }

    /// Goes over a comma, or over `end`: whether another one follows.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        if byte == b',' { Some(true) } else { (byte == end).then_some(false) }
    }

    /// A string without escapes.
    fn text(&mut self) -> Option<&'a str> {
        self.byte(b'"')?;
        let from = self.at;
        loop {
            match self.text.as_bytes().get(self.at)? {
                b'"' => break,
                b'\\' | ..b' ' => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(from..self.at - 1)
    }

    /// A whole number of at most 18 digits.
    fn number(&mut self) -> Option<u64> {
        let (mut number, from) = (0, self.at);
        while let Some(digit @ b'0'..=b'9') = self.text.as_bytes().get(self.at) {
            number = number * 10 + u64::from(digit - b'0');
            self.at += 1;
            if self.at - from > 18 {
                return None;
            }
        }
        let begins_with_zero = self.text.as_bytes().get(from) == Some(&b'0');
        let is_number = self.at > from && (!begins_with_zero || self.at == from + 1);
        is_number.then_some(number)
    }

    fn time(&mut self) -> Option<i64> {
        self.number()?.try_into().ok()
    }

    fn truth(&mut self) -> Option<bool> {
        if self.rest().starts_with(b"true") {
            self.at += 4;
            return Some(true);
        }
        self.bytes(b"false").map(|()| false)
    }

    /// Goes over a member that is not mapped.
    fn skip(&mut self) -> Option<()> {
        match self.text.as_bytes().get(self.at)? {
            b'"' => self.text().map(drop),
            b'0'..=b'9' => self.number().map(drop),
            _ => self.truth().map(drop),
        }
    }

    fn levels(&mut self) -> Option<Vec<Level>> {
        let mut levels = Vec::with_capacity(USUAL_LEVELS);
        self.byte(b'[')?;
        if self.rest().first() == Some(&b']') {
            self.at += 1;
            return Some(levels);
        }
        loop {
            self.bytes(b"[\"")?;
            let price = self.decimal().filter(|price| !price.is_zero())?;
            self.bytes(b"\",\"")?;
            let qty = self.decimal()?;
            self.bytes(b"\"]")?;
            levels.push(Level(price, qty));
            if !self.goes_on(b']')? {
                return Some(levels);
            }
        }
    }

    fn decimal(&mut self) -> Option<Decimal> {
        let (decimal, used) = Decimal::scan(self.rest())?;
        self.at += used;
        Some(decimal)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde::Deserialize;

    use super::*;
    use crate::wire::parse;

    const DEPTH: [&str; 2] = [
        r#"{"e":"depthUpdate","E":1790000000123,"s":"BTCUSDT","U":157,"u":160,"b":[["0.0024","10"],["61999.99000000","1.23456789"]],"a":[]}"#,
        r#"{"e":"depthUpdate","E":1791383688548,"T":1791383688545,"s":"BTCUSDT","ps":"BTCUSDT","U":11757187938558,"u":11757187950786,"pu":11757187938557,"b":[["83135.50","2.699"]],"a":[["83135.60","0"]],"st":1}"#,
    ];

    const TRADES: [&str; 2] = [
        r#"{"e":"aggTrade","E":1790000000123,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1790000000120,"m":true,"M":true}"#,
        r#"{"e":"trade","E":1790000000123,"T":1790000000120,"s":"BTCUSDT","t":5,"p":"83143.00","q":"0.035","X":"MARKET","m":false}"#,
    ];

    const TICKERS: [&str; 2] = [
        r#"{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}"#,
        r#"{"e":"bookTicker","u":11757187949652,"s":"BTCUSDT","ps":"BTCUSDT","b":"83135.50","B":"2.699","a":"83135.60","A":"7.556","T":1791383688531,"E":1791383688531,"st":1}"#,
    ];

    /// Whether it was read, and then as a parser reads it.
    fn agrees<'a, T: Debug + Deserialize<'a>>(text: &'a str, scan: fn(&'a str) -> Option<T>) -> bool {
        let scanned = scan(text);
        if let Some(scanned) = &scanned {
            assert_eq!(
                format!("{:?}", Ok::<_, ()>(scanned)),
                format!("{:?}", parse::<T>(text).as_ref().map_err(drop)),
                "{text}"
            );
        }
        scanned.is_some()
    }

    #[test]
    fn reads_what_the_venue_writes() {
        assert!(DEPTH.iter().all(|text| agrees(text, depth_update)));
        assert!(TRADES.iter().all(|text| agrees(text, trade)));
        assert!(TICKERS.iter().all(|text| agrees(text, book_ticker)));
    }

    #[test]
    fn leaves_what_is_unusual() {
        for text in [
            r#"{"E":1,"s":"B","U":1,"u":2,"b":[["0","1"]],"a":[]}"#,
            r#"{"E":1,"s":"B","U":1,"u":2,"b":[["-1","1"]],"a":[]}"#,
            r#"{"E":1,"s":"B","U":1,"u":2,"b":[["1e1","1"]],"a":[]}"#,
            r#"{"E":1,"s":"B","U":1,"u":2,"b":[["1.123456789","1"]],"a":[]}"#,
            r#"{"E":1,"s":"B","U":1,"u":2,"b":[],"a":[],"a":[]}"#,
            r#"{"E":1,"s":"B","U":01,"u":2,"b":[],"a":[]}"#,
            r#"{"E":1,"s":"B","U":1.0,"u":2,"b":[],"a":[]}"#,
            r#"{"E":1,"s":"\u0042","U":1,"u":2,"b":[],"a":[]}"#,
            r#"{"E":1,"s":"B","U":1,"u":2,"b":[],"a":[],"x":{}}"#,
            r#"{"E":1,"s":"B","U":1,"u":2,"b":[],"a":[]} "#,
            r#"{"E":1,"s":"B","U":1,"u":2,"b":[]}"#,
            "{}",
            "{",
            "",
        ] {
            assert!(depth_update(text).is_none(), "{text}");
        }
    }

    proptest! {
        /// Whatever happens to a frame, what is read of it is what a parser reads.
        #[test]
        fn never_reads_what_a_parser_does_not(
            which in any::<Index>(),
            changes in prop::collection::vec((any::<Index>(), "[-0-9a-zA-Z\"\\\\\\[\\]{}:,. \u{1}ş]", 0usize..3), 0..4)
        ) {
            let frames = [&DEPTH[..], &TRADES, &TICKERS].concat();
            let mut text: Vec<char> = which.get(&frames).chars().collect();
            for (at, with, gone) in changes {
                let at = at.index(text.len());
                let gone = at..(at + gone).min(text.len());
                text.splice(gone, with.chars());
            }
            let text = String::from_iter(text);
            agrees(&text, depth_update);
            agrees(&text, trade);
            agrees(&text, book_ticker);
        }
    }
}
