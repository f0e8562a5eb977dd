//! The best prices and the rolling 24 hours of one symbol: the latest of `bookTicker` and of `24hrTicker` in one state.

use akis_model::{Channel, Decimal, Kind, PriceTick, Provenance};

use super::instrument::{Origin, Teller};
use super::wire;
use crate::mapper::{Output, Reason};
use crate::throttle::Pace;
use crate::update::{Payload, Update, is_believable};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Ticker {
    channel: Channel,
    quote: Quote,
    statistics: Statistics,
    pace: Pace,
    /// The time of the latest change, when it has not been told.
    waits: Option<(i64, Provenance)>,
    /// That of the change that was told last, while all of what was told is known.
    told: Option<(i64, Provenance)>,
}

/// Over which connections something comes.
#[derive(Debug, Default, Clone, Copy)]
struct Source {
    /// The one that it came over last.
    connection: u32,
    /// The newest one that carries it, for what the venue has in the same place came over that one.
    carrier: u32,
}

/// The latest of `bookTicker`.
#[derive(Debug, Default)]
struct Quote {
    source: Source,
    update_id: u64,
    bid: Option<(Decimal, Decimal)>,
    ask: Option<(Decimal, Decimal)>,
}

/// The latest of `24hrTicker`.
#[derive(Debug, Default)]
struct Statistics {
    source: Source,
    event_time: i64,
    last: Option<Decimal>,
    open: Option<Decimal>,
    high: Option<Decimal>,
    low: Option<Decimal>,
    volume: Option<Decimal>,
    quote_volume: Option<Decimal>,
    change_pct: Option<Decimal>,
}

impl Ticker {
    pub(super) fn new(channel: Channel) -> Self {
        let (quote, statistics) = (Quote::default(), Statistics::default());
        Self { channel, quote, statistics, pace: Pace::default(), waits: None, told: None }
    }

    pub(super) fn on_quote(
        &mut self,
        ticker: &wire::BookTicker<'_>,
        origin: Origin,
        teller: Teller<'_>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let side = |price: wire::Number<'_>, qty: wire::Number<'_>| {
            let (price, qty) = (price.unsigned()?, qty.unsigned()?);
            // The venue writes an empty side with zeros.
            Ok((!price.is_zero()).then_some((price, qty)))
        };
        let bid = side(ticker.bid, ticker.bid_qty)?;
        let ask = side(ticker.ask, ticker.ask_qty)?;
        out.data = true;
        if let (Some((bid, _)), Some((ask, _))) = (bid, ask)
            && bid >= ask
        {
            return Err(Reason::Crossed);
        }
        if ticker.update_id < self.quote.update_id {
            return Err(Reason::Stale);
        }
        let source = self.quote.source.over(origin.connection);
        self.quote = Quote { source, update_id: ticker.update_id, bid, ask };
        // The stream of spot tells no time.
        let (ts, provenance) = teller.placed(ticker.event_time, origin.received_at);
        self.changed(ts, provenance, teller, out);
        Ok(())
    }

    pub(super) fn on_statistics(
        &mut self,
        ticker: &wire::Ticker<'_>,
        origin: Origin,
        believed_ahead_ms: i64,
        teller: Teller<'_>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        // A time that lies far ahead would hold up all that follow.
        let is_believable = is_believable(ticker.event_time, origin.received_at, believed_ahead_ms);
        let event_time = if is_believable { ticker.event_time } else { self.statistics.event_time };
        // Over one connection they come in the order in which they were sent, whatever the venue's clock does.
        let is_other = self.statistics.source.connection != origin.connection;
        if is_other && event_time < self.statistics.event_time {
            return Err(Reason::Stale);
        }
        self.statistics = Statistics {
            source: self.statistics.source.over(origin.connection),
            event_time,
            last: Some(ticker.last.unsigned()?),
            open: Some(ticker.open.unsigned()?),
            high: Some(ticker.high.unsigned()?),
            low: Some(ticker.low.unsigned()?),
            volume: Some(ticker.volume.unsigned()?),
            quote_volume: Some(ticker.quote_volume.unsigned()?),
            change_pct: Some(ticker.change_pct.signed()?),
        };
        out.data = true;
        self.changed(ticker.event_time, origin.venue(), teller, out);
        Ok(())
    }

    /// A connection that best prices would come over, should they change.
    pub(super) fn on_quote_carrier(&mut self, connection: u32) {
        self.quote.source.note_carrier(connection);
    }

    /// A connection that the 24 hours would come over, should they change.
    pub(super) fn on_statistics_carrier(&mut self, connection: u32) {
        self.statistics.source.note_carrier(connection);
    }

    /// A connection ended: what no other one brings up to date is not known any more, and what waits is told before. The venue's
    /// numbers and times are compared within what is connected now.
    pub(super) fn on_closed(&mut self, connection: u32, teller: Teller<'_>, out: &mut Output) {
        let quote_ends = self.quote.source.ends(connection);
        let statistics_end = self.statistics.source.ends(connection);
        if quote_ends || statistics_end {
            // Told early, and left to the throttle.
            self.tell_waiting(teller, out);
            self.told = None;
        }
        if quote_ends {
            self.quote = Quote::default();
        }
        if statistics_end {
            self.statistics = Statistics::default();
        }
        (self.quote.update_id, self.statistics.event_time) = (0, 0);
    }

    /// Tells what is due.
    pub(super) fn on_tick(&mut self, teller: Teller<'_>, out: &mut Output) {
        if self.waits.is_some() && self.pace.is_due(teller.paced_ms) {
            self.pace.note(Kind::Ticker, teller.paced_ms);
            self.tell_waiting(teller, out);
        }
    }

    /// Tells what waits, due or not.
    pub(super) fn tell_waiting(&mut self, teller: Teller<'_>, out: &mut Output) {
        let Some((ts, provenance)) = self.waits.take() else { return };
        self.told = Some((ts, provenance));
        out.updates.push(self.tick(ts, provenance, teller));
    }

    /// Tells what is known, for nobody may have heard it.
    pub(super) fn tell_again(&mut self, teller: Teller<'_>, out: &mut Output) {
        self.waits = self.waits.or(self.told);
        self.tell_waiting(teller, out);
    }

    fn changed(&mut self, ts: i64, provenance: Provenance, teller: Teller<'_>, out: &mut Output) {
        self.waits = Some((ts, provenance));
        self.on_tick(teller, out);
    }

    fn tick(&self, ts: i64, provenance: Provenance, teller: Teller<'_>) -> Update {
        let (bid, bid_qty) = self.quote.bid.unzip();
        let (ask, ask_qty) = self.quote.ask.unzip();
        let tick = PriceTick {
            symbol: teller.common.to_owned(),
            last: self.statistics.last,
            bid,
            bid_qty,
            ask,
            ask_qty,
            open_24h: self.statistics.open,
            high_24h: self.statistics.high,
            low_24h: self.statistics.low,
            volume_24h: self.statistics.volume,
            quote_volume_24h: self.statistics.quote_volume,
            change_24h_pct: self.statistics.change_pct,
            provenance,
        };
        Update::new(&self.channel, ts, Payload::PriceTick(Box::new(tick)))
    }
}

impl Source {
    /// Something came over this connection.
    fn over(self, connection: u32) -> Self {
        Self { connection, ..self }
    }

    fn note_carrier(&mut self, connection: u32) {
        self.carrier = self.carrier.max(connection);
    }

    /// A connection ended; whether it was the last one that is known to carry this.
    fn ends(&mut self, connection: u32) -> bool {
        if self.carrier == connection {
            self.carrier = 0;
        }
        if self.connection != connection {
            return false;
        }
        self.connection = self.carrier;
        self.carrier == 0
    }
}
