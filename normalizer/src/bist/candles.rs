//! Candles of one instrument, made of its trades: the feed has none.

use akis_model::DecimalError;

use super::calendar::Hours;
use crate::candles::{Calendar as _, Interval, Minutes, RollUp, Shown, Trade};

/// The candles of one instrument. What has changed is gathered, so that a packet with many trades is told once.
#[derive(Debug)]
pub(super) struct Candles {
    hours: Hours,
    minutes: Minutes<Hours>,
    longer: RollUp<Hours>,
    /// By interval: the open candle, when it has changed since it was told.
    news: [Option<Shown>; Interval::ALL.len()],
    /// By interval: the end of the open candle.
    ends: [Option<i64>; Interval::ALL.len()],
    scratch: Vec<Shown>,
    /// Trades before this moment are left out: not all of their minute may be known.
    known_from: i64,
}

impl Candles {
    /// Nothing is known yet.
    pub(super) fn new(hours: Hours) -> Self {
        Self {
            minutes: Minutes::new(hours.clone()),
            longer: RollUp::new(hours.clone()),
            hours,
            news: Default::default(),
            ends: Default::default(),
            scratch: Vec::new(),
            known_from: i64::MIN,
        }
    }

    /// The day begins: every trade of what is open at `ts` will come.
    pub(super) fn begin(&mut self, ts: i64) {
        for interval in Interval::LONGER {
            if let (Some(span), Some(minute)) = (self.hours.span(interval, ts), self.hours.span(Interval::M1, ts)) {
                self.longer.begin(interval, span.open_time, None, minute.open_time);
            }
        }
    }

    /// Trades may be missing: what is open is given up, and nothing is taken until [`Candles::resume`]. Says which
    /// intervals had an open candle.
    pub(super) fn forget(&mut self) -> Vec<Interval> {
        let open = Interval::ALL.into_iter().zip(self.ends).filter_map(|(interval, end)| end.map(|_| interval));
        let open = open.collect();
        *self = Self { known_from: i64::MAX, ..Self::new(self.hours.clone()) };
        open
    }

    /// From `ts` on nothing is missing: the next minute is the first that is known.
    pub(super) fn resume(&mut self, ts: i64) {
        if self.known_from == i64::MAX {
            self.known_from = self.hours.span(Interval::M1, ts).map_or(ts, |minute| minute.end);
        }
    }

    /// Takes a trade; `closed` is called with each candle that it ends.
    ///
    /// # Errors
    ///
    /// [`DecimalError`] when a volume becomes larger than a decimal can be.
    pub(super) fn on_trade(&mut self, trade: &Trade, closed: impl FnMut(&Shown)) -> Result<(), DecimalError> {
        if trade.time < self.known_from {
            return Ok(());
        }
        let mut minutes = Vec::new();
        self.minutes.take(trade, &mut minutes)?;
        self.roll_up(&minutes, closed)
    }

    /// Closes the candles whose time is over.
    pub(super) fn on_time(&mut self, ts: i64, mut closed: impl FnMut(&Shown)) -> Result<(), DecimalError> {
        let mut minutes = Vec::new();
        self.minutes.on_time(ts, &mut minutes);
        let done = self.roll_up(&minutes, &mut closed);
        self.longer.on_time(ts, &mut self.scratch);
        self.take_scratch(closed);
        done
    }

    fn roll_up(&mut self, minutes: &[Shown], closed: impl FnMut(&Shown)) -> Result<(), DecimalError> {
        let mut done = Ok(());
        for minute in minutes {
            self.scratch.push(*minute);
            done = done.and(self.longer.take(minute.span.open_time, &minute.bar, minute.closed, &mut self.scratch));
        }
        self.take_scratch(closed);
        done
    }

    fn take_scratch(&mut self, mut closed: impl FnMut(&Shown)) {
        for shown in self.scratch.drain(..) {
            // The order of `Interval::ALL` is that of the variants.
            let at = shown.interval as usize;
            if shown.closed {
                (self.news[at], self.ends[at]) = (None, None);
                closed(&shown);
            } else {
                (self.news[at], self.ends[at]) = (Some(shown), Some(shown.span.end));
            }
        }
    }

    /// The open candles that have changed since they were told.
    pub(super) fn news(&mut self) -> impl Iterator<Item = Shown> {
        self.news.iter_mut().filter_map(Option::take)
    }

    /// The end of the open candle that ends first.
    pub(super) fn next_end(&self) -> Option<i64> {
        self.ends.iter().flatten().copied().min()
    }
}
