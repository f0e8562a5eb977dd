//! Candles of longer intervals out of those of a minute, and those of a minute out of trades. Plain and exact.
//!
//! ```text
//! trades ──▶ Minutes ──▶ RollUp ──▶ 5m 15m 1h 4h 1d
//!            (or the venue's own minutes)
//! ```
//!
//! A candle is only told when everything since its beginning is known: [`RollUp`] begins with the first span that
//! opens while it looks on, or that [`RollUp::begin`] was told the state of.

mod calendar;
mod minutes;

use akis_model::{Decimal, DecimalError};

pub(crate) use calendar::{Calendar, Interval, Span, Utc};
pub(crate) use minutes::{Minutes, Trade};

/// Prices and volume over a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bar {
    /// First price.
    pub(crate) open: Decimal,
    /// Highest price.
    pub(crate) high: Decimal,
    /// Lowest price.
    pub(crate) low: Decimal,
    /// Last price.
    pub(crate) close: Decimal,
    /// Volume in the base asset.
    pub(crate) volume: Decimal,
    /// How many trades, where the venue tells.
    pub(crate) trades: Option<u64>,
}

impl Bar {
    /// This bar and what came right after it.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] when the volume has more digits than can be held exactly.
    pub(crate) fn then(&self, later: &Self) -> Result<Self, DecimalError> {
        // A bar without trades says the price before it, which need not lie in this one.
        if later.volume.is_zero() {
            return Ok(*self);
        }
        if self.volume.is_zero() {
            return Ok(*later);
        }
        Ok(Self {
            open: self.open,
            high: self.high.max(later.high),
            low: self.low.min(later.low),
            close: later.close,
            volume: self.volume.checked_add(later.volume)?,
            trades: self.trades.zip(later.trades).map(|(before, after)| before + after),
        })
    }
}

/// A candle as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Of which length.
    pub(crate) interval: Interval,
    /// When it begins and ends.
    pub(crate) span: Span,
    /// What is in it.
    pub(crate) bar: Bar,
    /// Whether nothing more will change.
    pub(crate) closed: bool,
}

/// Rolls minutes up into every longer interval.
#[derive(Debug)]
pub(crate) struct RollUp<C> {
    calendar: C,
    /// Of the intervals beyond a minute, in their order.
    levels: [Level; Interval::LONGER.len()],
    /// The end of the minute that was taken last and is closed; minutes before it are not taken again.
    settled_until: i64,
    /// Since when nothing has been missed; `None` before the first minute and after a hole.
    known_since: Option<i64>,
}

/// One interval.
#[derive(Debug, Default)]
struct Level {
    /// The span that is open and known from its beginning.
    span: Option<Span>,
    /// What its closed minutes hold; `None` while there is none.
    settled: Option<Bar>,
}

impl<C: Calendar> RollUp<C> {
    /// Nothing is known yet.
    pub(crate) fn new(calendar: C) -> Self {
        Self { calendar, levels: Default::default(), settled_until: i64::MIN, known_since: None }
    }

    /// Tells what is in the candle of `interval` that opened at `open_time`, up to the end of its last closed minute:
    /// what comes next is the minute that begins at `until`.
    pub(crate) fn begin(&mut self, interval: Interval, open_time: i64, settled: Option<Bar>, until: i64) {
        let span = self.calendar.span(interval, open_time);
        let at = Interval::LONGER.iter().position(|&longer| longer == interval);
        if let (Some(span), Some(level)) = (span, at.and_then(|at| self.levels.get_mut(at))) {
            *level = Level { span: Some(span), settled };
            self.settled_until = self.settled_until.max(until);
            self.known_since.get_or_insert(until);
        }
    }

    /// Nothing is missed from `since` on, also before the first minute that has a trade.
    pub(crate) fn look_on(&mut self, since: i64) {
        self.known_since.get_or_insert(since);
    }

    /// Takes the minute that opened at `open_time`, as it is now or closed; what it changes is added to `out`, shorter
    /// intervals first. Minutes come in order; those that are left out had no trades.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] as for [`Bar::then`]; the candle that could not be added up is given up.
    pub(crate) fn take(
        &mut self,
        open_time: i64,
        minute: &Bar,
        closed: bool,
        out: &mut Vec<Shown>,
    ) -> Result<(), DecimalError> {
        let Some(own) = self.calendar.span(Interval::M1, open_time) else { return Ok(()) };
        if open_time < self.settled_until {
            return Ok(());
        }
        self.on_time(open_time, out);
        let known_since = *self.known_since.get_or_insert(own.open_time);
        let mut outcome = Ok(());
        for (level, interval) in self.levels.iter_mut().zip(Interval::LONGER) {
            let Some(span) = self.calendar.span(interval, open_time) else { continue };
            if level.span != Some(span) {
                let is_known = known_since <= span.open_time;
                *level = Level { span: is_known.then_some(span), settled: None };
            }
            if level.span.is_none() {
                continue;
            }
            let bar = level.settled.map_or(Ok(*minute), |settled| settled.then(minute));
            let bar = match bar {
                Ok(bar) => bar,
                Err(error) => {
                    *level = Level::default();
                    outcome = Err(error);
                    continue;
                }
            };
            let ends = closed && own.end >= span.end;
            out.push(Shown { interval, span, bar, closed: ends });
            match (closed, ends) {
                (_, true) => *level = Level::default(),
                (true, false) => level.settled = Some(bar),
                (false, false) => {}
            }
        }
        if closed {
            self.settled_until = own.end;
        }
        outcome
    }

    /// Closes the candles whose time is over at `now_ms`: after it no minute of theirs will come. Those that have no
    /// trade end without a word.
    pub(crate) fn on_time(&mut self, now_ms: i64, out: &mut Vec<Shown>) {
        for (level, interval) in self.levels.iter_mut().zip(Interval::LONGER) {
            if let Some(span) = level.span.filter(|span| span.end <= now_ms) {
                let settled = level.settled;
                *level = Level::default();
                out.extend(settled.map(|bar| Shown { interval, span, bar, closed: true }));
            }
        }
    }
}

#[cfg(test)]
mod tests;
