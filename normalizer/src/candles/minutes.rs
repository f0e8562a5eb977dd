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

impl Trade {
    fn bar(&self) -> Bar {
        let Self { price, qty, .. } = *self;
        Bar { open: price, high: price, low: price, close: price, volume: qty, trades: Some(1) }
    }
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
        if !self.add(trade)? {
            let Some(span) = self.calendar.span(Interval::M1, trade.time) else { return Ok(()) };
            if self.open.is_some_and(|(open, _)| span.open_time < open.open_time) {
                return Ok(());
            }
            self.on_time(span.open_time, out);
            self.open = Some((span, trade.bar()));
        }
        out.extend(self.open());
        Ok(())
    }

    /// Takes a trade of the minute that is open; `false` when it is not in that one, and was left out.
    ///
    /// # Errors
    ///
    /// As for [`Minutes::take`].
    pub(crate) fn add(&mut self, trade: &Trade) -> Result<bool, DecimalError> {
        match &mut self.open {
            Some((span, bar)) if (span.open_time..span.end).contains(&trade.time) => {
                *bar = bar.then(&trade.bar())?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// The minute that is open, as it is now.
    pub(crate) fn open(&self) -> Option<Shown> {
        self.open.map(|(span, bar)| Shown { interval: Interval::M1, span, bar, closed: false })
    }

    /// Closes the minute whose time is over at `now_ms`: no trade of it will come any more.
    pub(crate) fn on_time(&mut self, now_ms: i64, out: &mut Vec<Shown>) {
        if let Some((span, bar)) = self.open.take_if(|(span, _)| span.end <= now_ms) {
            out.push(Shown { interval: Interval::M1, span, bar, closed: true });
        }
    }
}
