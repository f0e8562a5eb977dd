//! The candles of one symbol: the venue's own. They can be repeated where connections change over, but never go back, and what a
//! cut connection has missed is asked for. One that was told while it was open is told closed as soon as that is known, and what has
//! begun since is told again behind it.

use std::cmp::Ordering;

use akis_connectors::Request;
use akis_model::{Candle, Channel, Provenance, TimeSource};

use super::instrument::{Origin, Teller};
use super::wire;
use crate::candles::Interval;
use crate::mapper::{History, Output, Reason};
use crate::update::{Payload, Update, is_believable};

/// The most candles that are asked for at once.
const MOST_CANDLES: u32 = 500;

/// So long after its end a candle is closed, though the reply was made before it came.
const CLOSED_FOR_SURE_MS: i64 = 5_000;

/// So many candles of a series may be known as open while others have begun; the oldest give way.
const MOST_UNCLOSED: usize = 8;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Candles {
    series: [Series; Interval::ALL.len()],
}

/// Those of one interval.
#[derive(Debug)]
struct Series {
    interval: Interval,
    channel: Channel,
    end: SeriesEnd,
    /// The open time of the newest one, and whether it is known how it closed.
    reached: Option<(i64, bool)>,
    /// The open times of those that were told open, and behind which others were told before they were told closed.
    unclosed: Vec<i64>,
    /// The one that was told last.
    last: Option<Update>,
    /// The newest one that was told closed.
    closed: Option<Update>,
}

/// How far a series has come on the present connections.
#[derive(Debug, Default)]
struct SeriesEnd {
    last: Option<CandleEnd>,
}

#[derive(Debug)]
struct CandleEnd {
    open_time: i64,
    closed: bool,
    event_time: i64,
    connection: u32,
}

impl Candles {
    /// `channels` in the order of [`Interval::ALL`].
    pub(super) fn new(channels: &[Channel; Interval::ALL.len()]) -> Self {
        let series = Interval::ALL.map(|interval| {
            // That order is the one of the variants.
            let channel = channels[interval as usize].clone();
            let (end, reached, unclosed) = (SeriesEnd::default(), None, Vec::new());
            Series { interval, channel, end, reached, unclosed, last: None, closed: None }
        });
        Self { series }
    }

    /// Takes a candle; `symbol` is asked for what was missed, `None` when nobody wants it.
    pub(super) fn on_kline(
        &mut self,
        event: &wire::KlineEvent<'_>,
        origin: Origin,
        believed_ahead_ms: i64,
        teller: Teller<'_>,
        symbol: Option<&str>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let kline = &event.kline;
        let series = self.series.iter_mut().find(|series| series.interval.as_str() == kline.interval);
        let series = series.ok_or(Reason::UnknownEvent)?;
        if kline.close_time < kline.open_time {
            return Err(Reason::OutOfRange);
        }
        // One that lies far ahead would hold up all that follow.
        if !is_believable(kline.open_time, origin.received_at, believed_ahead_ms) {
            return Err(Reason::BadTime);
        }
        let candle = Candle {
            symbol: teller.common.to_owned(),
            interval: series.interval.as_str().to_owned(),
            open_time: kline.open_time,
            close_time: kline.close_time,
            open: kline.open.unsigned()?,
            high: kline.high.unsigned()?,
            low: kline.low.unsigned()?,
            close: kline.close.unsigned()?,
            volume: kline.volume.unsigned()?,
            trades: Some(kline.trades),
            closed: kline.closed,
            provenance: origin.venue(),
        };
        if candle.low > candle.high {
            return Err(Reason::OutOfRange);
        }
        out.data = true;
        let update = Update::new(&series.channel, event.event_time, Payload::Candle(candle));
        if !series.end.advance(kline.open_time, kline.closed, event.event_time, origin.connection) {
            let is_last_word = kline.closed && series.closes(kline.open_time);
            if !is_last_word {
                return Err(Reason::Stale);
            }
            series.tell_late([update], out);
            return Ok(());
        }
        let missed = series.missed(kline.open_time, kline.closed);
        if let (Some(symbol), Some(count)) = (symbol, missed) {
            out.requests.push(request(symbol, series.interval, count));
        }
        if kline.closed {
            series.closes(kline.open_time);
        }
        series.last = Some(update.clone());
        series.note_closed(&update);
        out.updates.push(update);
        Ok(())
    }

    /// Takes the reply to a call for candles. The running one, which comes last, is left out. They are kept for charts, and those that were
    /// told open are told closed.
    pub(super) fn on_past(
        &mut self,
        interval: Interval,
        rows: &[wire::KlineRow<'_>],
        received_at: i64,
        teller: Teller<'_>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let provenance = Provenance { ts_source: TimeSource::Venue, received_at };
        let candle = |row: &wire::KlineRow<'_>| {
            let wire::KlineRow(open_time, open, high, low, close, volume, close_time, _, trades, ..) = *row;
            Ok(Candle {
                symbol: teller.common.to_owned(),
                interval: interval.as_str().to_owned(),
                open_time,
                close_time,
                open: open.unsigned()?,
                high: high.unsigned()?,
                low: low.unsigned()?,
                close: close.unsigned()?,
                volume: volume.unsigned()?,
                trades: Some(trades),
                closed: true,
                provenance,
            })
        };
        let venue_ms = received_at.saturating_add(teller.clock_offset_ms);
        let closed = match rows.split_last() {
            Some((last, before)) if last.6.saturating_add(CLOSED_FOR_SURE_MS) >= venue_ms => before,
            _ => rows,
        };
        let candles = closed.iter().map(candle).collect::<Result<Vec<_>, Reason>>()?;
        if candles.is_empty() {
            return Ok(());
        }
        let series = &mut self.series[interval as usize];
        let channel = series.channel.clone();
        let late: Vec<Update> = candles
            .iter()
            .filter(|candle| series.closes(candle.open_time))
            .map(|candle| Update::past(channel.clone(), candle.clone()))
            .collect();
        series.tell_late(late, out);
        out.history.push(History { channel, candles });
        Ok(())
    }

    /// Tells how the newest candle closed, and what has come since: who published before may not have come to it.
    pub(super) fn tell_again(&self, out: &mut Output) {
        for Series { last, closed, .. } in &self.series {
            out.updates.extend(closed.iter().filter(|closed| last.as_ref() != Some(closed)).cloned());
            out.updates.extend(last.clone());
        }
    }

    /// A connection ended: times are compared within what is connected now, for one bad frame must not silence a series for
    /// longer than its connection lasts.
    pub(super) fn on_closed(&mut self) {
        self.series.iter_mut().for_each(|series| series.end = SeriesEnd::default());
    }
}

/// The request for the latest candles.
pub(super) fn request(symbol: &str, interval: Interval, count: u32) -> Request {
    Request::Candles { symbol: symbol.to_owned(), interval: interval.as_str(), count }
}

impl Series {
    /// How many candles to ask for, when there are some between the one that was seen last and this one, or when it is not
    /// known how that one closed.
    fn missed(&mut self, open_time: i64, closed: bool) -> Option<u32> {
        let before = self.reached.replace((open_time, closed));
        let (last, was_closed) = before.filter(|(last, _)| *last < open_time)?;
        if !was_closed {
            if self.unclosed.len() == MOST_UNCLOSED {
                self.unclosed.remove(0);
            }
            self.unclosed.push(last);
        }
        let passed = (open_time - last) / self.interval.length_ms();
        // One more than are missing, for meanwhile another may begin.
        let count = u32::try_from(passed + 2).unwrap_or(MOST_CANDLES).min(MOST_CANDLES);
        (passed > 1 || !was_closed).then_some(count)
    }

    /// Whether the candle that opened then still has to be told closed. Says so once.
    fn closes(&mut self, open_time: i64) -> bool {
        let at = self.unclosed.iter().position(|&unclosed| unclosed == open_time);
        at.map(|at| self.unclosed.remove(at)).is_some()
    }

    /// Tells how candles closed that others have followed, and the newest one again, so that it stays the newest.
    fn tell_late(&mut self, closed: impl IntoIterator<Item = Update>, out: &mut Output) {
        let before = out.updates.len();
        for update in closed {
            self.note_closed(&update);
            out.updates.push(update);
        }
        if out.updates.len() > before {
            out.updates.extend(self.last.clone());
        }
    }

    fn note_closed(&mut self, update: &Update) {
        let open_time = |update: &Update| match &update.payload {
            Payload::Candle(candle) if candle.closed => Some(candle.open_time),
            _ => None,
        };
        if open_time(update) > self.closed.as_ref().and_then(open_time) {
            self.closed = Some(update.clone());
        }
    }
}

impl SeriesEnd {
    /// Whether a candle in this state does not go back behind what was seen. Takes note of it when so.
    ///
    /// Over one connection they come in the order in which they were sent, whatever the venue's clock does.
    fn advance(&mut self, open_time: i64, closed: bool, event_time: i64, connection: u32) -> bool {
        let goes_on = self.last.as_ref().is_none_or(|last| {
            // A closed candle changes no more.
            let is_final = last.closed && last.open_time == open_time;
            let is_in_order = || last.connection == connection || last.event_time <= event_time;
            !is_final
                && match (last.open_time, last.closed).cmp(&(open_time, closed)) {
                    Ordering::Less => true,
                    Ordering::Equal => is_in_order(),
                    Ordering::Greater => false,
                }
        });
        if goes_on {
            self.last = Some(CandleEnd { open_time, closed, event_time, connection });
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candles_do_not_go_back() {
        let mut candles = SeriesEnd::default();
        for (open_time, closed, event_time, connection, goes_on) in [
            (60, false, 61, 1, true),
            (60, false, 62, 1, true),
            (60, false, 62, 2, true),
            (60, false, 61, 1, false),
            (60, false, 61, 2, true),
            (60, true, 120, 1, true),
            (60, false, 119, 1, false),
            (60, true, 120, 1, false),
            (120, false, 110, 2, true),
            (60, true, 122, 2, false),
        ] {
            let told = candles.advance(open_time, closed, event_time, connection);
            assert_eq!(told, goes_on, "{open_time} {closed} {event_time} {connection}");
        }
    }
}
