//! The words of the live protocol as types: channels and patterns, positions, envelopes, payloads, codes.
//!
//! Everything here is plain data: no I/O, no clock, no async. Parsers are total: any input gives a
//! value or a named error. The protocol itself is written down in `docs/protocol.md`.

mod body;
mod candle;
mod channel;
mod code;
mod decimal;
mod pattern;
mod payload;
mod seq;
mod trace;

pub use body::{Body, BodyError, Data, Outcome};
pub use candle::{CANDLE_EVENT, CandleView};
pub use channel::{Channel, ChannelError, Kind, MAX_CHANNEL_BYTES, is_segment};
pub use code::{CloseCode, ErrorCode};
pub use decimal::{Decimal, DecimalError};
pub use pattern::{Allowlist, Pattern, PatternError};
pub use payload::{
    AuctionTick, Book, Candle, ChannelState, ChannelStatus, Level, MarketState, MarketStatus, PriceTick, Provenance,
    Side, TimeSource, Trade,
};
pub use seq::{MAX_SEQ, Seq, SeqError};
pub use trace::{Origin, TraceContext};
