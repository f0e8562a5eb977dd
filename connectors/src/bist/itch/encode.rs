//! Messages to bytes, for the stand-in and for tests.

use super::field::{Price, Text};
use super::{Message, OrderKey, Rank};

impl Message<'_> {
    /// Appends the message to `out`. A text that is longer than its field is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = Put(out);
        match self {
            Self::Seconds(m) => put.u8(b'T').u32(m.second),
            Self::SystemEvent(m) => put.head(b'S', m.ns).u8(m.code),
            Self::Directory(m) => directory(&mut put, m),
            Self::CombinationLeg(m) => put.head(b'M', m.ns).u32(m.combination).u32(m.leg).u8(m.side).u32(m.ratio),
            Self::TickSize(m) => put.head(b'L', m.ns).u32(m.book).u64(m.tick).price(m.from).price(m.to),
            Self::ShortSell(m) => put.head(b'V', m.ns).u32(m.book).u8(m.restriction),
            Self::BookState(m) => put.head(b'O', m.ns).u32(m.book).text(m.state, 20),
            Self::Add(m) => {
                let (place, time) = match m.rank {
                    Rank::Time { sequence, time } => (sequence, Some(time)),
                    Rank::Position(position) => (position, None),
                };
                put.head(b'A', m.ns).order(m.order).u32(place).u64(m.quantity).price(m.price);
                put.u16(m.attributes).u8(m.lot_type);
                match time {
                    Some(time) => put.u64(time),
                    None => &mut put,
                }
            }
            Self::AddByParticipant(m) => {
                put.head(b'F', m.ns).order(m.order).u32(m.position).u64(m.quantity).price(m.price);
                put.u16(m.attributes).u8(m.lot_type).bytes(&m.participant)
            }
            Self::Executed(m) => {
                put.head(b'E', m.ns).order(m.order).u64(m.quantity).u64(m.match_id).u32(m.combo_group).spaces(14)
            }
            Self::ExecutedAtPrice(m) => {
                put.head(b'C', m.ns).order(m.order).u64(m.quantity).u64(m.match_id).u32(m.combo_group).spaces(14);
                put.price(m.price).yes_no(m.at_cross).yes_no(m.printable)
            }
            Self::Replace(m) => {
                put.head(b'U', m.ns).order(m.order).u32(m.position).u64(m.quantity).price(m.price).u16(m.attributes)
            }
            Self::Delete(m) => put.head(b'D', m.ns).order(m.order),
            Self::Flush(m) => put.head(b'Y', m.ns).u32(m.book),
            Self::Trade(m) => {
                let side = m.side.map_or(b' ', |side| side.letter());
                put.head(b'P', m.ns).u64(m.match_id).u32(m.combo_group).u8(side).u64(m.quantity).u32(m.book);
                put.price(m.price).spaces(14).yes_no(m.printable).yes_no(m.at_cross)
            }
            Self::Equilibrium(m) => {
                put.head(b'Z', m.ns).u32(m.book).u64(m.bid_quantity).u64(m.ask_quantity).price(m.price);
                put.price(m.best_bid).price(m.best_ask).u64(m.best_bid_quantity).u64(m.best_ask_quantity)
            }
            Self::EndOfSnapshot(m) => put.u8(b'G').bytes(format!("{:>20}", m.next_sequence).as_bytes()),
        };
    }
}

fn directory<'p, 'b>(put: &'p mut Put<'b>, m: &super::Directory<'_>) -> &'p mut Put<'b> {
    put.head(b'R', m.ns).u32(m.book).text(m.symbol, 32).text(m.long_name, 32).text(m.isin, 12).u8(m.product);
    put.text(m.currency, 3).u16(m.price_decimals).u16(m.nominal_decimals);
    put.u32(m.odd_lot).u32(m.round_lot).u32(m.block_lot).u64(m.nominal_value).u8(m.legs).u32(m.underlying);
    put.price(m.strike).u32(m.expiration).u16(m.strike_decimals).u8(m.put_or_call).u8(m.ranking)
}

/// Appends fields, one behind the other.
struct Put<'a>(&'a mut Vec<u8>);

impl Put<'_> {
    fn head(&mut self, kind: u8, ns: u32) -> &mut Self {
        self.u8(kind).u32(ns)
    }

    fn order(&mut self, order: OrderKey) -> &mut Self {
        self.u64(order.id).u32(order.book).u8(order.side.letter())
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn price(&mut self, price: Price) -> &mut Self {
        self.bytes(&price.0.to_be_bytes())
    }

    fn yes_no(&mut self, yes: bool) -> &mut Self {
        self.u8(if yes { b'Y' } else { b'N' })
    }

    fn text(&mut self, text: Text<'_>, length: usize) -> &mut Self {
        let bytes = text.as_bytes();
        let kept = &bytes[..bytes.len().min(length)];
        self.bytes(kept).spaces(length - kept.len())
    }

    fn spaces(&mut self, length: usize) -> &mut Self {
        self.0.resize(self.0.len() + length, b' ');
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}
