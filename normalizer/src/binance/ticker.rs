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
}

/// The latest of `bookTicker`.
#[derive(Debug, Default)]
struct Quote {
    /// The newest connection that one came from.
    connection: u32,
    update_id: u64,
    bid: Option<(Decimal, Decimal)>,
    ask: Option<(Decimal, Decimal)>,
}

/// The latest of `24hrTicker`.
#[derive(Debug, Default)]
struct Statistics {
    /// The newest connection that one came from.
    connection: u32,
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
        Self { channel, quote, statistics, pace: Pace::default(), waits: None }
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
        let connection = self.quote.connection.max(origin.connection);
        self.quote.connection = connection;
        if ticker.update_id < self.quote.update_id {
            return Err(Reason::Stale);
        }
        self.quote = Quote { connection, update_id: ticker.update_id, bid, ask };
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
        let connection = self.statistics.connection.max(origin.connection);
        self.statistics.connection = connection;
        // A time that lies far ahead would hold up all that follow.
        let is_believable = is_believable(ticker.event_time, origin.received_at, believed_ahead_ms);
        let event_time = if is_believable { ticker.event_time } else { self.statistics.event_time };
        if event_time < self.statistics.event_time {
            return Err(Reason::Stale);
        }
        self.statistics = Statistics {
            connection,
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

    /// A connection ended: what no other one brings up to date is not known any more. The venue's numbers and times are compared
    /// within what is connected now.
    pub(super) fn on_closed(&mut self, connection: u32) {
        if self.quote.connection == connection {
            self.quote = Quote::default();
        }
        if self.statistics.connection == connection {
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
        let waiting = self.waits.take();
        out.updates.extend(waiting.map(|(ts, provenance)| self.tick(ts, provenance, teller)));
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
