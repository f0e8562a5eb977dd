//! What a mapper makes of frames: events that are not rendered yet, so that a throttle can still drop them.

use akis_eventlog::Event;
use akis_model::{
    AuctionTick, Body, BodyError, Book, Candle, Channel, ChannelState, ChannelStatus, ErrorCode, MarketStatus, Origin,
    Outcome, PriceTick, Provenance, TimeSource, Trade,
};

/// A venue time further back than this is not believed: 1970 is the usual one.
const PAST_MS: i64 = 10 * 365 * 24 * 3_600_000;

/// How far a venue's time may lie ahead of the moment of receiving, unless its clock is known to be another one.
pub(crate) const BELIEVED_AHEAD_MS: i64 = 60_000;

/// Whether a venue's time can be true: it lies neither further ahead than `believed_ahead_ms` nor years back.
pub(crate) fn is_believable(time: i64, received_at: i64, believed_ahead_ms: i64) -> bool {
    time.saturating_sub(received_at) <= believed_ahead_ms && received_at.saturating_sub(time) <= PAST_MS
}

/// One event of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The channel.
    pub channel: Channel,
    /// When it happened, milliseconds since the epoch, by the clock that the payload's provenance names.
    pub ts: i64,
    /// Events of the channel that are known to be lost right before it.
    pub missing_before: u64,
    /// It was told before, and nobody may have heard it: no sign that the channel speaks.
    pub is_again: bool,
    /// What happened.
    pub payload: Payload,
}

/// The payload of an event, by what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// `price_tick`
    PriceTick(Box<PriceTick>),
    /// `price_tick` while an auction is on
    Auction(Box<AuctionTick>),
    /// `trade`
    Trade(Trade),
    /// `orderbook`
    Book(Book),
    /// `candle_update`
    Candle(Candle),
    /// `market_status`
    Market(MarketStatus),
    /// `channel_status`
    Status(ChannelStatus),
    /// `channel_status` of a channel that is silent for longer than is usual for it.
    Stale(ChannelStatus),
}

impl Payload {
    /// Whether it is about the channel, and no news of the market.
    pub(crate) fn is_status(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Stale(_))
    }

    /// Where the envelope's `ts` comes from.
    fn provenance(&self) -> Provenance {
        match self {
            Self::PriceTick(tick) => tick.provenance,
            Self::Trade(trade) => trade.provenance,
            Self::Book(book) => book.provenance,
            Self::Candle(candle) => candle.provenance,
            Self::Auction(auction) => auction.tick.provenance,
            Self::Market(status) => status.provenance,
            Self::Status(status) | Self::Stale(status) => status.provenance,
        }
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        match self {
            Self::PriceTick(tick) => &mut tick.provenance,
            Self::Trade(trade) => &mut trade.provenance,
            Self::Book(book) => &mut book.provenance,
            Self::Candle(candle) => &mut candle.provenance,
            Self::Auction(auction) => &mut auction.tick.provenance,
            Self::Market(status) => &mut status.provenance,
            Self::Status(status) | Self::Stale(status) => &mut status.provenance,
        }
    }
}

impl Update {
    /// What happened in a channel at `ts`, with nothing known to be lost before it.
    pub(crate) fn new(channel: &Channel, ts: i64, payload: Payload) -> Self {
        Self { channel: channel.clone(), ts, missing_before: 0, is_again: false, payload }
    }

    /// A `channel_status` of now.
    pub(crate) fn status(channel: Channel, state: ChannelState, since: i64, reason: &str, now_ms: i64) -> Self {
        let provenance = Provenance { ts_source: TimeSource::Received, received_at: now_ms };
        let status = ChannelStatus { state, since, reason: reason.to_owned(), provenance };
        Self { channel, ts: now_ms, missing_before: 0, is_again: false, payload: Payload::Status(status) }
    }

    /// A `channel_status` of now: silent since `since`, which is longer than usual.
    pub(crate) fn stale(channel: Channel, since: i64, reason: String, now_ms: i64) -> Self {
        let provenance = Provenance { ts_source: TimeSource::Received, received_at: now_ms };
        let status = ChannelStatus { state: ChannelState::Down, since, reason, provenance };
        Self { channel, ts: now_ms, missing_before: 0, is_again: false, payload: Payload::Stale(status) }
    }

    /// When it happened by the venue's clock, milliseconds since the epoch; `None` when the venue does not tell.
    pub(crate) fn venue_time(&self) -> Option<i64> {
        (self.payload.provenance().ts_source == TimeSource::Venue).then_some(self.ts)
    }

    /// When what it was made of was read, milliseconds since the epoch.
    pub(crate) fn received_at(&self) -> i64 {
        self.payload.provenance().received_at
    }

    /// Puts the moment of receiving in the place of a venue time that cannot be true; whether it did.
    pub(crate) fn distrust_time(&mut self, believed_ahead_ms: i64) -> bool {
        let ts = self.ts;
        let provenance = self.payload.provenance_mut();
        let is_ours = provenance.ts_source == TimeSource::Received;
        if is_ours || is_believable(ts, provenance.received_at, believed_ahead_ms) {
            return false;
        }
        provenance.ts_source = TimeSource::Received;
        self.ts = provenance.received_at;
        true
    }

    /// A candle of the past, closed since its last millisecond.
    pub(crate) fn past(channel: Channel, candle: Candle) -> Self {
        Self { channel, ts: candle.close_time, missing_before: 0, is_again: false, payload: Payload::Candle(candle) }
    }

    /// Renders it for the log.
    ///
    /// # Errors
    ///
    /// [`BodyError::Data`] when a payload does not serialise to a JSON object, which none does.
    pub fn into_event(self) -> Result<Event, BodyError> {
        let (ts, channel) = (self.ts, &self.channel);
        let body = match &self.payload {
            Payload::PriceTick(tick) => Body::render(ts, "price_tick", channel, Outcome::Ok, tick.as_ref()),
            Payload::Auction(tick) => Body::render(ts, "price_tick", channel, Outcome::Ok, tick.as_ref()),
            Payload::Trade(trade) => Body::render(ts, "trade", channel, Outcome::Ok, trade),
            Payload::Book(book) => Body::render(ts, "orderbook", channel, Outcome::Ok, book),
            Payload::Candle(candle) => Body::render(ts, "candle_update", channel, Outcome::Ok, candle),
            Payload::Market(status) => Body::render(ts, "market_status", channel, Outcome::Ok, status),
            Payload::Stale(status) => {
                let outcome = Outcome::Failed(ErrorCode::StalenessWarning);
                Body::render(ts, "channel_status", channel, outcome, status)
            }
            Payload::Status(status) => {
                let outcome = match status.state {
                    ChannelState::Up => Outcome::Ok,
                    ChannelState::Down | ChannelState::Resyncing => Outcome::Failed(ErrorCode::DataUnavailable),
                };
                Body::render(ts, "channel_status", channel, outcome, status)
            }
        }?;
        let body = body.with_origin(Origin { received_ms: Some(self.received_at()), trace: None });
        Ok(Event { channel: self.channel, body, missing_before: self.missing_before })
    }
}
