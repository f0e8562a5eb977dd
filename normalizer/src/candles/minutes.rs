//! Minutes out of trades, for venues that send none.

use akis_model::{Decimal, DecimalError};

use super::{Bar, Calendar, Interval, Shown, Span};

/// What a candle needs to know of a trade.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trade {
    /// When, milliseconds since the epoch.
    pub(crate) time: i64,
    /// Above zero.
    pub(crate) price: Decimal,
    /// Above zero.
    pub(crate) qty: Decimal,
}

/// Builds the candles of a minute from trades that come in order. A minute without trades has no candle.
#[derive(Debug)]
pub(crate) struct Minutes<C> {
    calendar: C,
    open: Option<(Span, Bar)>,
}

impl<C: Calendar> Minutes<C> {
    /// Without any trade yet.
    pub(crate) fn new(calendar: C) -> Self {
        Self { calendar, open: None }
    }

    /// Takes a trade; the minute that it ends, if any, and the one that it is in are added to `out`. A trade whose
    /// minute is over, or at a time when the market is closed, is left out.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] as for [`Bar::then`]; the trade is left out.
    pub(crate) fn take(&mut self, trade: &Trade, out: &mut Vec<Shown>) -> Result<(), DecimalError> {
        let Some(span) = self.calendar.span(Interval::M1, trade.time) else { return Ok(()) };
        let own = Bar {
            open: trade.price,
            high: trade.price,
            low: trade.price,
            close: trade.price,
            volume: trade.qty,
            trades: Some(1),
        };
        let bar = match self.open {
            Some((open, _)) if span.open_time < open.open_time => return Ok(()),
            Some((open, bar)) if span == open => bar.then(&own)?,
            Some(_) | None => {
                self.on_time(span.open_time, out);
                own
            }
        };
        self.open = Some((span, bar));
        out.push(Shown { interval: Interval::M1, span, bar, closed: false });
        Ok(())
    }

    /// Closes the minute whose time is over at `now_ms`: no trade of it will come any more.
    pub(crate) fn on_time(&mut self, now_ms: i64, out: &mut Vec<Shown>) {
        if let Some((span, bar)) = self.open.take_if(|(span, _)| span.end <= now_ms) {
            out.push(Shown { interval: Interval::M1, span, bar, closed: true });
        }
    }
}
