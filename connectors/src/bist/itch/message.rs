//! The fields of each message. `ns` is always the nanoseconds since the last [`Seconds`].

use super::field::{Price, Side, Text};

/// `T`: the second that the messages behind it belong to. Sent in each second that has a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds {
    /// Since the epoch.
    pub second: u32,
}

/// `S`: the day begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemEvent {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// `O` first message of the day, `C` last one.
    pub code: u8,
}

/// `R`: what a book is. Sent for all books when the day begins, and for new and changed ones during it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory<'a> {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The book; a number may come back after it has expired.
    pub book: u32,
    /// `THYAO.E`, `F_ASELS0426`; 32 bytes.
    pub symbol: Text<'a>,
    /// 32 bytes.
    pub long_name: Text<'a>,
    /// 12 bytes.
    pub isin: Text<'a>,
    /// 1 option, 2 forward, 3 future, 4 FRA, 5 cash, 6 payment, 7 exchange rate, 8 swap, 9 repo, 10 synthetic box leg,
    /// 11 standard combination, 12 guarantee, 13 OTC general, 14 warrant, 15 security lending, 18 certificate.
    pub product: u8,
    /// `TRY`; 3 bytes.
    pub currency: Text<'a>,
    /// Digits behind the point of this book's prices; 256: prices are in 1/256.
    pub price_decimals: u16,
    /// Digits behind the point of the nominal value.
    pub nominal_decimals: u16,
    /// 0: undefined.
    pub odd_lot: u32,
    /// The lot that quantities come in.
    pub round_lot: u32,
    /// 0: undefined.
    pub block_lot: u32,
    /// With `nominal_decimals`.
    pub nominal_value: u64,
    /// How many legs a combination has.
    pub legs: u8,
    /// The book of what a derivative is derived from.
    pub underlying: u32,
    /// With `strike_decimals`.
    pub strike: Price,
    /// `YYYYMMDD`.
    pub expiration: u32,
    /// Digits behind the point of the strike.
    pub strike_decimals: u16,
    /// 1 call, 2 put, 0 neither.
    pub put_or_call: u8,
    /// 1: by price, then time.
    pub ranking: u8,
}

/// `M`: a leg of a combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CombinationLeg {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The book of the combination.
    pub combination: u32,
    /// The book of the leg.
    pub leg: u32,
    /// `B` as defined, `C` opposite.
    pub side: u8,
    /// How many of the leg there are in one.
    pub ratio: u32,
}

/// `L`: the tick size between two prices. All of a book's make up its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickSize {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The book.
    pub book: u32,
    /// In units of the book's prices.
    pub tick: u64,
    /// The lowest price it holds for.
    pub from: Price,
    /// The highest price it holds for; 0: no end.
    pub to: Price,
}

/// `V`: whether an equity may be sold short. A book without one has no such rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortSell {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The book.
    pub book: u32,
    /// 0 free, 1 forbidden, 2 only above the last price.
    pub restriction: u8,
}

/// `O`: the state that a book has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookState<'a> {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The book.
    pub book: u32,
    /// The name of the state, `P_SUREKLI_ISLEM`; 20 bytes, an open set.
    pub state: Text<'a>,
}

/// What an order is known by. The same id can live on both sides and in several books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrderKey {
    /// Unique in a side of a book.
    pub id: u64,
    /// The book.
    pub book: u32,
    /// The side.
    pub side: Side,
}

/// What decides between orders of one price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Since January 2025: the earlier time, then the smaller sequence.
    Time {
        /// From 1; decides only between equal times.
        sequence: u32,
        /// Nanoseconds since the epoch.
        time: u64,
    },
    /// Before: the position in the book; those from it on move down by one.
    Position(u32),
}

/// `A`: a new order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Add {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The order.
    pub order: OrderKey,
    /// Its place among those of its price; also says which layout the message has.
    pub rank: Rank,
    /// What is shown; 0 when it is not disclosed.
    pub quantity: u64,
    /// [`Price::NONE`]: a market order.
    pub price: Price,
    /// 0, or 8192 for an implied order.
    pub attributes: u16,
    /// 2: round lot.
    pub lot_type: u8,
}

/// `F`: a new order with the name of who placed it. Not used by the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddByParticipant {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The order.
    pub order: OrderKey,
    /// The position in the book.
    pub position: u32,
    /// What is shown.
    pub quantity: u64,
    /// [`Price::NONE`]: a market order.
    pub price: Price,
    /// 0, or 8192 for an implied order.
    pub attributes: u16,
    /// 2: round lot.
    pub lot_type: u8,
    /// Who placed it.
    pub participant: [u8; 7],
}

/// `E`: an order was matched at its own price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executed {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The order that rested.
    pub order: OrderKey,
    /// What was matched.
    pub quantity: u64,
    /// The trade's number.
    pub match_id: u64,
    /// Links the trades of a combination; comes back over time.
    pub combo_group: u32,
}

/// `C`: an order was matched at another price than its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutedAtPrice {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The order that rested.
    pub order: OrderKey,
    /// What was matched.
    pub quantity: u64,
    /// The trade's number.
    pub match_id: u64,
    /// Links the trades of a combination; comes back over time.
    pub combo_group: u32,
    /// What it was matched at.
    pub price: Price,
    /// Whether it happened in an auction.
    pub at_cross: bool,
    /// Whether it counts as a trade; when not, another message tells of the same one.
    pub printable: bool,
}

/// `U`: an order got another rank, quantity and price. Not used by the exchange, which deletes and adds instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replace {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The order.
    pub order: OrderKey,
    /// Its new position.
    pub position: u32,
    /// Its new quantity.
    pub quantity: u64,
    /// Its new price.
    pub price: Price,
    /// Its new attributes.
    pub attributes: u16,
}

/// `D`: an order is gone. Not sent for one that was filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delete {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The order.
    pub order: OrderKey,
}

/// `Y`: all orders of a book are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The book.
    pub book: u32,
}

/// `P`: a trade that touches no order in the book: hidden quantity, an auction without orders shown, a combination's leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trade {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The trade's number.
    pub match_id: u64,
    /// Links the trades of a combination; comes back over time.
    pub combo_group: u32,
    /// `None` when it is not told.
    pub side: Option<Side>,
    /// What was traded.
    pub quantity: u64,
    /// The book.
    pub book: u32,
    /// What it was traded at.
    pub price: Price,
    /// Whether it counts as a trade.
    pub printable: bool,
    /// Whether it happened in an auction.
    pub at_cross: bool,
}

/// `Z`: where an auction would meet now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Equilibrium {
    /// Nanoseconds in the second.
    pub ns: u32,
    /// The book.
    pub book: u32,
    /// Bid at the equilibrium price.
    pub bid_quantity: u64,
    /// Offered at the equilibrium price.
    pub ask_quantity: u64,
    /// The equilibrium price.
    pub price: Price,
    /// The best bid.
    pub best_bid: Price,
    /// The best ask.
    pub best_ask: Price,
    /// Bid at the best bid.
    pub best_bid_quantity: u64,
    /// Offered at the best ask.
    pub best_ask_quantity: u64,
}

/// `G`: the snapshot is whole. Only GLIMPSE sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfSnapshot {
    /// The sequence number of the first live message that the snapshot does not hold.
    pub next_sequence: u64,
}
