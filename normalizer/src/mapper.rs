//! What every venue's mapper is: frames in, updates out, with no I/O and no clock of its own.

use akis_connectors::recording::Header;
use akis_connectors::{Own, Part, RawFrame, Request};
use akis_model::{Candle, Channel, Kind};

use crate::update::{BELIEVED_AHEAD_MS, Update};
use crate::{binance, bist, btcturk};

/// Turns the frames of one venue into updates.
///
/// Pure: the same frames and ticks give the same output. Time is only what frames and ticks say. Nothing that
/// comes in makes it fail; what cannot be used is skipped with a reason.
pub trait Mapper: Send {
    /// Lets in the symbols that were asked for, in the venue's spelling; `None`: every symbol that comes.
    fn admit(&mut self, symbols: Option<&[String]>, kinds: &[Kind]);

    /// Of the symbols that it lets in by no name, only those of this part are ours. A mapper whose session looks them up,
    /// and asks for its part of them, leaves it as it is.
    fn take_part(&mut self, _part: Part) {}

    /// Takes what only this venue is configured with.
    fn configure(&mut self, _own: &Own) {}

    /// Takes note of the header of the recording whose frames come next; live frames have none.
    fn on_header(&mut self, _header: &Header) {}

    /// The channels of the symbols that were let in by name.
    fn channels(&self) -> Vec<Channel>;

    /// Takes a frame.
    fn on_frame(&mut self, frame: &RawFrame, out: &mut Output);

    /// Takes note of the time, milliseconds since the epoch; never before the last frame's.
    fn on_tick(&mut self, now_ms: i64, out: &mut Output);

    /// The clock of frames and ticks was set forward by this much: no venue's went along. A mapper that does not reckon with how the two
    /// differ leaves it as it is.
    fn on_clock_set(&mut self, _by_ms: i64) {}

    /// A throttle stands behind it: what that would not let through need not be told. A mapper whose events take less
    /// time than asking whether they are wanted leaves it as it is.
    fn pace(&mut self) {}

    /// How far a venue time may lie ahead of the moment of receiving and still be believed, in milliseconds.
    fn believed_ahead_ms(&self) -> i64 {
        BELIEVED_AHEAD_MS
    }

    /// What is published from now on is ours and what was told until now may not have been, or the channels were told to be down and
    /// are up again: asks for the candles of the past that charts begin with, and tells again what would not be told soon.
    fn backfill(&mut self, _out: &mut Output) {}

    /// Whether a channel may be silent for as long as it likes, because its market is in a break, in an auction or closed. A
    /// mapper whose venue never rests leaves it as it is.
    fn rests(&self, _channel: &Channel) -> bool {
        false
    }

    /// Whether what it has begun to build is there and it knows which symbols are traded, so that nothing would stand still, and nothing be
    /// told wrong, if it published from now on. A mapper that has all with its first frames leaves it as it is.
    fn is_whole(&self) -> bool {
        true
    }

    /// Nothing more will come: lets go of what is held back. A mapper that holds nothing back leaves it as it is.
    fn finish(&mut self, _out: &mut Output) {}
}

/// What a mapper says. Emptied by whoever takes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// In the order of their channels.
    pub updates: Vec<Update>,
    /// Candles of the past, all closed.
    pub history: Vec<History>,
    /// What is wanted from the venue.
    pub requests: Vec<Request>,
    /// Why something was skipped.
    pub skipped: Vec<Reason>,
    /// Why a book is being built anew.
    pub resyncs: Vec<Resync>,
    /// Trades that are known to be lost.
    pub lost_trades: u64,
    /// Whether market data came, of use or not: the venue is there.
    pub data: bool,
    /// The venue has ended in order, and until this moment nothing need come, milliseconds since the epoch.
    pub rests_until: Option<i64>,
}

impl Output {
    /// The updates from the one at `from` on were told before, and nobody may have heard them.
    pub(crate) fn mark_again(&mut self, from: usize) {
        self.updates.iter_mut().skip(from).for_each(|update| update.is_again = true);
    }

    /// Takes note of a book that is being built anew; why something is of no use is the caller's to tell.
    pub(crate) fn note(&mut self, done: Result<(), Hitch>) -> Result<(), Reason> {
        match done {
            Ok(()) => Ok(()),
            Err(Hitch::Skipped(reason)) => Err(reason),
            Err(Hitch::Resync(why)) => {
                self.resyncs.push(why);
                Ok(())
            }
        }
    }
}

/// What did not go straight on in a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hitch {
    /// What came is of no use; the book stays as it is.
    Skipped(Reason),
    /// The book could no longer be trusted and is being built anew.
    Resync(Resync),
}

/// Closed candles of the past of one channel, in order: they are kept for charts, and no event comes of them.
#[derive(Debug, PartialEq, Eq)]
pub struct History {
    /// The channel.
    pub channel: Channel,
    /// What happened in it.
    pub candles: Vec<Candle>,
}

/// Why something that came in was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A line of a recording that is none.
    BadLine,
    /// A binary frame where the venue sends text.
    NotText,
    /// A text frame where the venue sends bytes.
    NotBinary,
    /// Cut or broken JSON.
    NotJson,
    /// A field is missing or has the wrong type.
    BadShape,
    /// An event that is not mapped.
    UnknownEvent,
    /// A trade that did not come from the book.
    OffBook,
    /// A symbol that nobody asked for, or that cannot be one.
    UnknownSymbol,
    /// A price or quantity that is no exact decimal.
    BadNumber,
    /// A price or quantity below what it can be, or a position far from all others.
    OutOfRange,
    /// The best bid is not below the best ask.
    Crossed,
    /// A change of an order that the book does not have, or has already, or has less of.
    Misfit,
    /// Seen before.
    Duplicate,
    /// Older than what was seen before.
    Stale,
    /// A venue time from the future or from long ago: the event is told with the moment of receiving instead.
    BadTime,
    /// A snapshot that nobody waits for, or that is too old to be joined.
    UnusedSnapshot,
    /// A packet of another session than the one that is followed.
    OtherSession,
    /// The venue refused a request.
    Refused,
}

impl Reason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 18] = [
        Self::BadLine,
        Self::NotText,
        Self::NotBinary,
        Self::NotJson,
        Self::BadShape,
        Self::UnknownEvent,
        Self::OffBook,
        Self::UnknownSymbol,
        Self::BadNumber,
        Self::OutOfRange,
        Self::Crossed,
        Self::Misfit,
        Self::Duplicate,
        Self::Stale,
        Self::BadTime,
        Self::UnusedSnapshot,
        Self::OtherSession,
        Self::Refused,
    ];

    /// The name in metrics and counts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadLine => "bad_line",
            Self::NotText => "not_text",
            Self::NotBinary => "not_binary",
            Self::NotJson => "not_json",
            Self::BadShape => "bad_shape",
            Self::UnknownEvent => "unknown_event",
            Self::OffBook => "off_book",
            Self::UnknownSymbol => "unknown_symbol",
            Self::BadNumber => "bad_number",
            Self::OutOfRange => "out_of_range",
            Self::Crossed => "crossed",
            Self::Misfit => "misfit",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::BadTime => "bad_time",
            Self::UnusedSnapshot => "unused_snapshot",
            Self::OtherSession => "other_session",
            Self::Refused => "refused",
        }
    }

    /// Whether it belongs to the normal course of things, so that nobody need be told.
    pub fn is_expected(self) -> bool {
        matches!(self, Self::OffBook | Self::Duplicate | Self::Stale | Self::UnusedSnapshot)
    }
}

/// A book that is rebuilt within this time is not worth a message.
pub(crate) const RESYNC_TOLD_MS: i64 = 1_000;

/// Why a book is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resync {
    /// Diffs are missing.
    Gap,
    /// The best bid came to be not below the best ask.
    Crossed,
    /// More diffs came than are kept while a snapshot is awaited.
    Overflow,
    /// The connection ended, so whether diffs are missing is unknown.
    Connection,
    /// A change did not fit the book.
    Misfit,
    /// The price went to where levels are that no snapshot has told.
    Range,
    /// There has been none yet.
    Start,
}

impl Resync {
    /// Every cause for which one is built anew, for metrics.
    pub const ALL: [Self; 6] = [Self::Gap, Self::Crossed, Self::Overflow, Self::Connection, Self::Misfit, Self::Range];

    /// The name in metrics and in `channel_status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Crossed => "crossed",
            Self::Overflow => "overflow",
            Self::Connection => "connection",
            Self::Misfit => "misfit",
            Self::Range => "range",
            Self::Start => "start",
        }
    }
}

/// A new mapper for a market of a venue, as [recordings name them](akis_connectors::Venue::recorded_as); `None` when
/// there is none.
pub fn mapper(recorded_as: (&str, &str)) -> Option<Box<dyn Mapper>> {
    match recorded_as {
        ("binance", "spot") => Some(Box::new(binance::Binance::new(binance::Market::SPOT))),
        ("binance", "usdm") => Some(Box::new(binance::Binance::new(binance::Market::USDM))),
        ("bist", "equities") => Some(Box::<bist::Bist>::default()),
        ("btcturk", "spot") => Some(Box::<btcturk::BtcTurk>::default()),
        _ => None,
    }
}
