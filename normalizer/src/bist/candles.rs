//! Candles of one instrument, made of its trades: the feed has none.

use akis_model::DecimalError;

use super::calendar::Hours;
use crate::candles::{Calendar as _, Interval, Minutes, RollUp, Shown, Trade};

/// The candles of one instrument. What has changed is gathered, so that many trades are told at once; until then only the
/// minute that is open follows each of them.
#[derive(Debug)]
pub(super) struct Candles {
    hours: Hours,
    minutes: Minutes<Hours>,
    longer: RollUp<Hours>,
    /// By interval: the open candle, when it has changed since it was told.
    news: [Option<Shown>; Interval::ALL.len()],
    /// By interval: the end of the open candle.
    ends: [Option<i64>; Interval::ALL.len()],
    /// By interval: the open candle as it was told last.
    told: [Option<Shown>; Interval::ALL.len()],
    /// By interval: the candle that was closed last.
    closed: [Option<Shown>; Interval::ALL.len()],
    scratch: Vec<Shown>,
    /// The minute that is open has trades that the longer candles do not have yet.
    is_behind: bool,
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
            told: Default::default(),
            closed: Default::default(),
            scratch: Vec::new(),
            is_behind: false,
            known_from: i64::MIN,
        }
    }

    /// The day begins: every trade of what is open at `ts` will come.
    pub(super) fn begin(&mut self, ts: i64) {
        self.known_from = i64::MIN;
        for interval in Interval::LONGER {
            if let (Some(span), Some(minute)) = (self.hours.span(interval, ts), self.hours.span(Interval::M1, ts)) {
                self.longer.begin(interval, span.open_time, None, minute.open_time);
            }
        }
    }

    /// Trades may be missing: what is open is given up, and nothing is taken until [`Candles::resume`].
    pub(super) fn forget(&mut self) {
        *self = Self { known_from: i64::MAX, closed: self.closed, ..Self::new(self.hours.clone()) };
    }

    /// From `ts` on nothing is missing: the next minute is the first that is known.
    pub(super) fn resume(&mut self, ts: i64) {
        if self.known_from == i64::MAX {
            self.known_from = self.end_of(Interval::M1, ts).unwrap_or(ts);
            self.longer.look_on(self.known_from);
        }
    }

    /// When the span that `ts` lies in is over.
    pub(super) fn end_of(&self, interval: Interval, ts: i64) -> Option<i64> {
        self.hours.span(interval, ts).map(|span| span.end)
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
        if self.minutes.add(trade)? {
            self.is_behind = true;
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
            self.is_behind = false;
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
                (self.news[at], self.ends[at], self.told[at]) = (None, None, None);
                self.closed[at] = Some(shown);
                closed(&shown);
            } else {
                (self.news[at], self.ends[at]) = (Some(shown), Some(shown.span.end));
            }
        }
    }

    /// Tells the open candles that have changed since they were told.
    ///
    /// # Errors
    ///
    /// As for [`Candles::on_trade`]; the others are told.
    pub(super) fn tell_news(&mut self, mut tell: impl FnMut(&Shown)) -> Result<(), DecimalError> {
        let behind = self.minutes.open().filter(|_| self.is_behind);
        let done = match behind {
            Some(minute) => self.roll_up(&[minute], &mut tell),
            None => Ok(()),
        };
        for (news, told) in self.news.iter_mut().zip(&mut self.told) {
            if let Some(shown) = news.take() {
                tell(&shown);
                *told = Some(shown);
            }
        }
        done
    }

    /// The open candles are to be told again.
    pub(super) fn tell_again(&mut self) {
        for (news, told) in self.news.iter_mut().zip(self.told) {
            *news = news.or(told);
        }
    }

    /// The candle of each interval that was closed last.
    pub(super) fn closed(&self) -> impl Iterator<Item = &Shown> {
        self.closed.iter().flatten()
    }

    /// The end of the open candle that ends first.
    pub(super) fn next_end(&self) -> Option<i64> {
        self.ends.iter().flatten().copied().min()
    }
}

#[cfg(test)]
mod tests {
    use akis_model::Decimal;

    use super::*;

    /// 2026-10-28 10:00 in Istanbul.
    const MORNING: i64 = 1_793_170_800_000;

    fn trade(time: i64, hundredths: i64) -> Trade {
        let decimal = |value: i64, scale| Decimal::from_parts(value.into(), scale).unwrap();
        Trade { time, price: decimal(hundredths, 2), qty: decimal(1, 0) }
    }

    /// What is told now: each interval with its close, in hundredths, and how many trades it has.
    fn told(candles: &mut Candles) -> Vec<(Interval, String, Option<u64>)> {
        let mut told = Vec::new();
        candles.tell_news(|shown| told.push((shown.interval, shown.bar.close.to_string(), shown.bar.trades))).unwrap();
        told
    }

    #[test]
    fn trades_of_a_minute_are_told_together_in_every_interval() {
        let mut candles = Candles::new(Hours::Other);
        candles.begin(MORNING);
        let expected = |close: &str, trades| Interval::ALL.map(|interval| (interval, close.to_owned(), Some(trades)));
        for second in 0..3 {
            candles.on_trade(&trade(MORNING + second * 1_000, 100 + second), |_| panic!("nothing has ended")).unwrap();
        }
        candles.on_time(MORNING + 30_000, |_| panic!("nothing has ended")).unwrap();
        assert_eq!(told(&mut candles), expected("1.02", 3));
        assert_eq!(told(&mut candles), [], "it was told");
        candles.on_trade(&trade(MORNING + 40_000, 107), |_| panic!("nothing has ended")).unwrap();
        let mut ended = Vec::new();
        candles
            .on_trade(&trade(MORNING + 60_000, 109), |shown| ended.push((shown.interval, shown.bar.trades)))
            .unwrap();
        assert_eq!(ended, [(Interval::M1, Some(4))], "with the trade that was not told yet");
        let mut expected = expected("1.09", 5);
        expected[0].2 = Some(1);
        assert_eq!(told(&mut candles), expected);
    }
}
