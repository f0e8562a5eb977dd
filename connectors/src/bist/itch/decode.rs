//! Bytes to messages. Nothing is copied but numbers.

use super::field::Bytes;
use super::{
    Add, AddByParticipant, BookState, CombinationLeg, DecodeError, Delete, Directory, EndOfSnapshot, Equilibrium,
    Executed, ExecutedAtPrice, Flush, Message, OrderKey, Rank, Replace, Seconds, ShortSell, SystemEvent, TickSize,
    Trade,
};

impl<'a> Message<'a> {
    /// Reads one message, which is all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownType`] for a type that is not known here, [`DecodeError::Length`] for one that is too short or
    /// too long, [`DecodeError::Value`] when a side, a flag or a number in digits is none, [`DecodeError::Empty`].
    // Inlined, so that the fields go to whoever asks without a message being put together.
    #[inline(always)]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let &kind = bytes.first().ok_or(DecodeError::Empty)?;
        Ok(match kind {
            b'A' => Self::Add(add(bytes)?),
            b'D' => Self::Delete(delete(sized(bytes)?)?),
            b'E' => Self::Executed(executed(sized(bytes)?)?),
            b'C' => Self::ExecutedAtPrice(executed_at_price(sized(bytes)?)?),
            b'T' => Self::Seconds(Seconds { second: sized::<5>(bytes)?.u32(1) }),
            b'P' => Self::Trade(trade(sized(bytes)?)?),
            b'Z' => Self::Equilibrium(equilibrium(sized(bytes)?)),
            b'Y' => Self::Flush(flush(sized(bytes)?)),
            b'O' => Self::BookState(book_state(sized(bytes)?)),
            b'R' => Self::Directory(directory(sized(bytes)?)),
            b'L' => Self::TickSize(tick_size(sized(bytes)?)),
            b'M' => Self::CombinationLeg(combination_leg(sized(bytes)?)),
            b'V' => Self::ShortSell(short_sell(sized(bytes)?)),
            b'S' => Self::SystemEvent(system_event(sized(bytes)?)),
            b'U' => Self::Replace(replace(sized(bytes)?)?),
            b'F' => Self::AddByParticipant(add_by_participant(sized(bytes)?)?),
            b'G' => Self::EndOfSnapshot(end_of_snapshot(sized(bytes)?)?),
            other => return Err(DecodeError::UnknownType(other)),
        })
    }
}

/// The order that a message is about, without reading the rest of it; `None` for one that is about none, or is cut.
#[inline]
pub fn order_of(bytes: &[u8]) -> Option<OrderKey> {
    match bytes.first()? {
        b'A' | b'F' | b'E' | b'C' | b'U' | b'D' => order(Bytes(bytes.first_chunk::<18>()?)).ok(),
        _ => None,
    }
}

#[inline]
fn sized<const N: usize>(bytes: &[u8]) -> Result<Bytes<'_, N>, DecodeError> {
    <&[u8; N]>::try_from(bytes).map(Bytes).map_err(|_| wrong_length(bytes))
}

#[cold]
fn wrong_length(bytes: &[u8]) -> DecodeError {
    DecodeError::Length { kind: char::from(bytes.first().copied().unwrap_or_default()), length: bytes.len() }
}

/// The order that `A`, `F`, `E`, `C`, `U` and `D` all name at the same place.
#[inline]
fn order<const N: usize>(b: Bytes<'_, N>) -> Result<OrderKey, DecodeError> {
    Ok(OrderKey { id: b.u64(5), book: b.u32(13), side: b.side(17)? })
}

#[inline]
fn add(bytes: &[u8]) -> Result<Add, DecodeError> {
    const NOW: usize = 45;
    const BEFORE_2025: usize = 37;
    if bytes.len() == NOW {
        let b: Bytes<'_, NOW> = sized(bytes)?;
        add_of(b, Rank::Time { sequence: b.u32(18), time: b.u64(37) })
    } else {
        let b: Bytes<'_, BEFORE_2025> = sized(bytes)?;
        add_of(b, Rank::Position(b.u32(18)))
    }
}

#[inline]
fn add_of<const N: usize>(b: Bytes<'_, N>, rank: Rank) -> Result<Add, DecodeError> {
    Ok(Add {
        ns: b.u32(1),
        order: order(b)?,
        rank,
        quantity: b.u64(22),
        price: b.price(30),
        attributes: b.u16(34),
        lot_type: b.u8(36),
    })
}

#[inline]
fn delete(b: Bytes<'_, 18>) -> Result<Delete, DecodeError> {
    Ok(Delete { ns: b.u32(1), order: order(b)? })
}

#[inline]
fn executed(b: Bytes<'_, 52>) -> Result<Executed, DecodeError> {
    Ok(Executed { ns: b.u32(1), order: order(b)?, quantity: b.u64(18), match_id: b.u64(26), combo_group: b.u32(34) })
}

fn executed_at_price(b: Bytes<'_, 58>) -> Result<ExecutedAtPrice, DecodeError> {
    Ok(ExecutedAtPrice {
        ns: b.u32(1),
        order: order(b)?,
        quantity: b.u64(18),
        match_id: b.u64(26),
        combo_group: b.u32(34),
        price: b.price(52),
        at_cross: b.yes_no(56, "at cross")?,
        printable: b.yes_no(57, "printable")?,
    })
}

fn trade(b: Bytes<'_, 50>) -> Result<Trade, DecodeError> {
    Ok(Trade {
        ns: b.u32(1),
        match_id: b.u64(5),
        combo_group: b.u32(13),
        side: if b.u8(17) == b' ' { None } else { Some(b.side(17)?) },
        quantity: b.u64(18),
        book: b.u32(26),
        price: b.price(30),
        printable: b.yes_no(48, "printable")?,
        at_cross: b.yes_no(49, "at cross")?,
    })
}

fn equilibrium(b: Bytes<'_, 53>) -> Equilibrium {
    Equilibrium {
        ns: b.u32(1),
        book: b.u32(5),
        bid_quantity: b.u64(9),
        ask_quantity: b.u64(17),
        price: b.price(25),
        best_bid: b.price(29),
        best_ask: b.price(33),
        best_bid_quantity: b.u64(37),
        best_ask_quantity: b.u64(45),
    }
}

fn flush(b: Bytes<'_, 9>) -> Flush {
    Flush { ns: b.u32(1), book: b.u32(5) }
}

fn book_state(b: Bytes<'_, 29>) -> BookState<'_> {
    BookState { ns: b.u32(1), book: b.u32(5), state: b.text(9, 20) }
}

fn directory(b: Bytes<'_, 130>) -> Directory<'_> {
    Directory {
        ns: b.u32(1),
        book: b.u32(5),
        symbol: b.text(9, 32),
        long_name: b.text(41, 32),
        isin: b.text(73, 12),
        product: b.u8(85),
        currency: b.text(86, 3),
        price_decimals: b.u16(89),
        nominal_decimals: b.u16(91),
        odd_lot: b.u32(93),
        round_lot: b.u32(97),
        block_lot: b.u32(101),
        nominal_value: b.u64(105),
        legs: b.u8(113),
        underlying: b.u32(114),
        strike: b.price(118),
        expiration: b.u32(122),
        strike_decimals: b.u16(126),
        put_or_call: b.u8(128),
        ranking: b.u8(129),
    }
}

fn tick_size(b: Bytes<'_, 25>) -> TickSize {
    TickSize { ns: b.u32(1), book: b.u32(5), tick: b.u64(9), from: b.price(17), to: b.price(21) }
}

fn combination_leg(b: Bytes<'_, 18>) -> CombinationLeg {
    CombinationLeg { ns: b.u32(1), combination: b.u32(5), leg: b.u32(9), side: b.u8(13), ratio: b.u32(14) }
}

fn short_sell(b: Bytes<'_, 10>) -> ShortSell {
    ShortSell { ns: b.u32(1), book: b.u32(5), restriction: b.u8(9) }
}

fn system_event(b: Bytes<'_, 6>) -> SystemEvent {
    SystemEvent { ns: b.u32(1), code: b.u8(5) }
}

fn replace(b: Bytes<'_, 36>) -> Result<Replace, DecodeError> {
    Ok(Replace {
        ns: b.u32(1),
        order: order(b)?,
        position: b.u32(18),
        quantity: b.u64(22),
        price: b.price(30),
        attributes: b.u16(34),
    })
}

fn add_by_participant(b: Bytes<'_, 44>) -> Result<AddByParticipant, DecodeError> {
    let mut participant = [0; 7];
    participant.copy_from_slice(&b.0[37..44]);
    Ok(AddByParticipant {
        ns: b.u32(1),
        order: order(b)?,
        position: b.u32(18),
        quantity: b.u64(22),
        price: b.price(30),
        attributes: b.u16(34),
        lot_type: b.u8(36),
        participant,
    })
}

fn end_of_snapshot(b: Bytes<'_, 21>) -> Result<EndOfSnapshot, DecodeError> {
    // Filled up with spaces on either side, as the numbers of SoupBinTCP are.
    let digits = b.0[1..].trim_ascii();
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    Ok(EndOfSnapshot { next_sequence: number.ok_or(b.bad("sequence number"))? })
}
