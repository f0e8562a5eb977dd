//! The messages of BISTECH ITCH: bytes in, messages out, and back.
//!
//! Source: Borsa Istanbul, "BISTECH ITCH Protocol Specification" v2112 of 28 February 2025, and "BISTECH GLIMPSE" 2.7 of
//! 17 January 2025 for `G`. [`Replace`] and [`AddByParticipant`] are in the specification but not used by the exchange;
//! the layout of the first is that of the same message at ASX (ASX Trade ITCH).
//!
//! | type | message | bytes |
//! |---|---|---|
//! | `T` | [`Seconds`] | 5 |
//! | `S` | [`SystemEvent`] | 6 |
//! | `R` | [`Directory`] | 130 |
//! | `M` | [`CombinationLeg`] | 18 |
//! | `L` | [`TickSize`] | 25 |
//! | `V` | [`ShortSell`] | 10 |
//! | `O` | [`BookState`] | 29 |
//! | `A` | [`Add`] | 45, and 37 before January 2025 |
//! | `F` | [`AddByParticipant`] | 44 |
//! | `E` | [`Executed`] | 52 |
//! | `C` | [`ExecutedAtPrice`] | 58 |
//! | `U` | [`Replace`] | 36 |
//! | `D` | [`Delete`] | 18 |
//! | `Y` | [`Flush`] | 9 |
//! | `P` | [`Trade`] | 50 |
//! | `Z` | [`Equilibrium`] | 53 |
//! | `G` | [`EndOfSnapshot`] | 21 |
//!
//! Numbers are big-endian and unsigned, but for prices. Reserved bytes are passed over when read and written as spaces.

mod decode;
mod encode;
mod field;
mod message;
#[cfg(test)]
mod tests;

pub use decode::order_of;
pub use field::{Price, Side, Text};
pub use message::{
    Add, AddByParticipant, BookState, CombinationLeg, Delete, Directory, EndOfSnapshot, Equilibrium, Executed,
    ExecutedAtPrice, Flush, OrderKey, Rank, Replace, Seconds, ShortSell, SystemEvent, TickSize, Trade,
};

/// The longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 130;

/// One message. Borrows its texts from the bytes that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// `T`
    Seconds(Seconds),
    /// `S`
    SystemEvent(SystemEvent),
    /// `R`
    Directory(Directory<'a>),
    /// `M`
    CombinationLeg(CombinationLeg),
    /// `L`
    TickSize(TickSize),
    /// `V`
    ShortSell(ShortSell),
    /// `O`
    BookState(BookState<'a>),
    /// `A`
    Add(Add),
    /// `F`
    AddByParticipant(AddByParticipant),
    /// `E`
    Executed(Executed),
    /// `C`
    ExecutedAtPrice(ExecutedAtPrice),
    /// `U`
    Replace(Replace),
    /// `D`
    Delete(Delete),
    /// `Y`
    Flush(Flush),
    /// `P`
    Trade(Trade),
    /// `Z`
    Equilibrium(Equilibrium),
    /// `G`
    EndOfSnapshot(EndOfSnapshot),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not even a type.
    #[error("message without a byte")]
    Empty,
    /// A type that is not known here. The exchange may add some at any time; they are passed over.
    #[error("message of unknown type {0:#04x}")]
    UnknownType(u8),
    /// A known type with a length that no layout of it has.
    #[error("message of type {kind:?} with {length} bytes")]
    Length {
        /// The type.
        kind: char,
        /// How many bytes there are.
        length: usize,
    },
    /// A field that holds none of its values.
    #[error("message of type {kind:?} with a bad {field}")]
    Value {
        /// The type.
        kind: char,
        /// The field.
        field: &'static str,
    },
}
