//! Borsa Istanbul: what the messages of ITCH mean.
//!
//! | messages | event |
//! |---|---|
//! | `A F E C U D Y`, `G` snapshots | `orderbook`: orders added up by price |
//! | `E`, and `C` and `P` that are printable | `trade`, `candle_update` |
//! | the best levels, trades, `Z` in auctions | `price_tick` |
//! | `O`, with the table of `L` | `market_status` |
//! | `R` | instruments and their decimals, for a day |
//!
//! A packet is what happens at once: what its messages change is told when it is over, trades one by one. What frames look
//! like is said in [`akis_connectors::bist`].

mod calendar;
mod candles;
mod catch_up;
mod clock;
mod instrument;
mod market;
mod names;
mod orders;
mod pile;
mod scale;
mod snapshot;
mod state;
mod stream;
mod table;
mod wanted;

use akis_connectors::bist::mold::Packet;
use akis_connectors::bist::{Recorded, half_days};
use akis_connectors::recording::Header;
use akis_connectors::{Content, Own, Part, RawFrame};
use akis_model::{Channel, Kind};

use self::catch_up::hold_back;
use self::market::Market;
use self::snapshot::Snapshots;
use self::stream::Stream;
use crate::mapper::{Mapper, Output, Reason};

/// The first segment of the channels.
const SOURCE: &str = "bist";

/// The mapper of the feed.
#[derive(Debug, Default)]
pub(crate) struct Bist {
    market: Market,
    stream: Stream,
    snapshots: Snapshots,
    /// Between a recording and the rest; a session hands on what is needed as it is.
    recorded: Option<Recorded>,
    /// The last moment that was told.
    now_ms: i64,
}

impl Mapper for Bist {
    fn believed_ahead_ms(&self) -> i64 {
        self.market.believed_ahead_ms()
    }

    fn pace(&mut self) {
        self.market.pace();
    }

    fn admit(&mut self, symbols: Option<&[String]>, kinds: &[Kind]) {
        self.market.admit(symbols, kinds);
    }

    fn take_part(&mut self, part: Part) {
        self.market.take_part(part);
    }

    fn configure(&mut self, own: &Own) {
        // Whoever starts a session has checked them.
        self.market.set_half_days(half_days(own.get("half_days").unwrap_or_default()).unwrap_or_default());
    }

    fn on_header(&mut self, header: &Header) {
        self.market.set_recorded();
        self.recorded.get_or_insert_default().on_header(header);
    }

    fn channels(&self) -> Vec<Channel> {
        self.market.channels()
    }

    fn on_frame(&mut self, frame: &RawFrame, out: &mut Output) {
        self.now_ms = frame.received_at;
        self.unless_behind(out, |this, out| match &mut this.recorded {
            Some(recorded) => {
                let mut given = Vec::new();
                recorded.on_frame(frame, &mut given);
                out.skipped.extend(std::iter::repeat_n(Reason::OtherSession, recorded.take_passed_over()));
                given.iter().for_each(|frame| this.take(frame, out));
            }
            None => this.take(frame, out),
        });
    }

    fn on_tick(&mut self, now_ms: i64, out: &mut Output) {
        self.now_ms = now_ms;
        self.unless_behind(out, |this, out| {
            let mut given = Vec::new();
            if let Some(recorded) = &mut this.recorded {
                recorded.on_tick(now_ms, &mut given);
            }
            given.iter().for_each(|frame| this.take(frame, out));
            this.stream.on_tick(now_ms, &mut this.market, out);
            this.market.on_tick(now_ms, out);
            this.market.tell_held(now_ms, out);
        });
    }

    fn on_clock_set(&mut self, by_ms: i64) {
        self.market.on_clock_set(by_ms);
    }

    fn backfill(&mut self, out: &mut Output) {
        self.unless_behind(out, |this, out| this.market.tell_again(this.now_ms, out));
    }

    fn rests(&self, channel: &Channel) -> bool {
        self.stream.rests(self.now_ms) || self.market.rests(channel)
    }

    fn is_whole(&self) -> bool {
        !self.market.catch_up.is_behind()
    }

    fn finish(&mut self, out: &mut Output) {
        self.unless_behind(out, |this, out| {
            let mut given = Vec::new();
            if let Some(recorded) = &mut this.recorded {
                recorded.on_end(this.now_ms, &mut given);
                out.skipped.extend(std::iter::repeat_n(Reason::OtherSession, recorded.take_passed_over()));
            }
            given.iter().for_each(|frame| this.take(frame, out));
            this.stream.on_end(this.now_ms, &mut this.market, out);
            // Nothing is held back any longer.
            this.market.tell_held(i64::MAX, out);
        });
    }
}

impl Bist {
    /// Does what adds updates. Of a session that is replayed only its past is told; how things are follows once it has come
    /// to now.
    fn unless_behind(&mut self, out: &mut Output, add: impl FnOnce(&mut Self, &mut Output)) {
        let (from, was_behind) = (out.updates.len(), self.market.catch_up.is_behind());
        add(self, out);
        let is_behind = self.market.catch_up.is_behind();
        if was_behind || is_behind {
            hold_back(from, out);
        }
        if was_behind && !is_behind {
            self.market.tell_again(self.now_ms, out);
        }
    }

    /// Takes a frame as a session hands it on.
    fn take(&mut self, frame: &RawFrame, out: &mut Output) {
        let taken = match &frame.content {
            Content::Binary { connection, bytes } => self.on_bytes(*connection, bytes, frame.received_at, out),
            Content::Closed { connection, .. } => {
                self.snapshots.on_closed(*connection);
                Ok(())
            }
            Content::Text { .. } => Err(Reason::NotBinary),
            Content::Reply { .. } => Err(Reason::UnknownEvent),
        };
        if let Err(reason) = taken {
            out.skipped.push(reason);
        }
        self.market.tell_news(frame.received_at, out);
    }

    fn on_bytes(&mut self, connection: u32, bytes: &[u8], received_at: i64, out: &mut Output) -> Result<(), Reason> {
        // SoupBinTCP begins with the high byte of a small length, MoldUDP64 with a letter.
        if self.snapshots.has(connection) || bytes.first() == Some(&0) {
            return match self.snapshots.on_bytes(connection, bytes, received_at)? {
                Some(snapshot) => self.stream.on_snapshot(snapshot, &mut self.market, out),
                None => Ok(()),
            };
        }
        let packet = Packet::parse(bytes).map_err(|_| Reason::BadShape)?;
        // Heartbeats too: the feed is there.
        out.data = true;
        if self.stream.is_another(packet.session) {
            self.snapshots.on_session();
        }
        self.stream.on_packet(&packet, received_at, &mut self.market, out)
    }
}

#[cfg(test)]
mod tests;
