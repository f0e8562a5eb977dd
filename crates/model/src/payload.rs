//! Payloads of the market events, section 8 of the protocol. A field that a venue does not give is absent.

use serde::{Deserialize, Serialize};

use crate::body::Data;
use crate::decimal::Decimal;

/// Where the envelope's `ts` comes from, and when the connector read the frame. Part of every market event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// Which clock `ts` was taken from.
    pub ts_source: TimeSource,
    /// When the connector read the frame, milliseconds since the epoch.
    pub received_at: i64,
}

/// The clock that an envelope's `ts` was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeSource {
    /// The venue's event time.
    Venue,
    /// The receive time, corrected by the measured clock offset.
    Received,
}

/// `price_tick`: best prices, the last price, and the rolling 24 hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceTick {
    /// The common form, `BTC/USDT`.
    pub symbol: String,
    /// Price of the last trade.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Decimal>,
    /// Best bid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bid: Option<Decimal>,
    /// Quantity at the best bid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bid_qty: Option<Decimal>,
    /// Best ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<Decimal>,
    /// Quantity at the best ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_qty: Option<Decimal>,
    /// Price 24 hours ago.
    #[serde(rename = "open24h", skip_serializing_if = "Option::is_none")]
    pub open_24h: Option<Decimal>,
    /// Highest price of the last 24 hours.
    #[serde(rename = "high24h", skip_serializing_if = "Option::is_none")]
    pub high_24h: Option<Decimal>,
    /// Lowest price of the last 24 hours.
    #[serde(rename = "low24h", skip_serializing_if = "Option::is_none")]
    pub low_24h: Option<Decimal>,
    /// Volume of the last 24 hours in the base asset.
    #[serde(rename = "volume24h", skip_serializing_if = "Option::is_none")]
    pub volume_24h: Option<Decimal>,
    /// Volume of the last 24 hours in the quote asset.
    #[serde(rename = "quoteVolume24h", skip_serializing_if = "Option::is_none")]
    pub quote_volume_24h: Option<Decimal>,
    /// Change over the last 24 hours, in percent.
    #[serde(rename = "change24hPct", skip_serializing_if = "Option::is_none")]
    pub change_24h_pct: Option<Decimal>,
    /// Clocks.
    #[serde(flatten)]
    pub provenance: Provenance,
}

/// `price_tick` of an auction: where it would meet now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuctionTick {
    /// What every tick has; best prices that cross are left out.
    #[serde(flatten)]
    pub tick: PriceTick,
    /// The equilibrium price; absent while the sides do not meet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equilibrium: Option<Decimal>,
    /// Bid at the equilibrium price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equilibrium_bid_qty: Option<Decimal>,
    /// Offered at the equilibrium price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equilibrium_ask_qty: Option<Decimal>,
}

/// `trade`: one trade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trade {
    /// The common form, `BTC/USDT`.
    pub symbol: String,
    /// The venue's id of the trade.
    pub id: String,
    /// Price.
    pub price: Decimal,
    /// Quantity in the base asset.
    pub qty: Decimal,
    /// The taker's side, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// Clocks.
    #[serde(flatten)]
    pub provenance: Provenance,
}

/// Who took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The taker bought.
    Buy,
    /// The taker sold.
    Sell,
}

/// One level of a book: price and quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Level(pub Decimal, pub Decimal);

/// `orderbook`: the whole book, best first, at most 20 levels a side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// The common form, `BTC/USDT`.
    pub symbol: String,
    /// Highest first.
    pub bids: Vec<Level>,
    /// Lowest first.
    pub asks: Vec<Level>,
    /// The venue's own number of the state shown.
    pub venue_seq: String,
    /// Clocks.
    pub provenance: Provenance,
}

/// By hand: most of what is rendered are levels, and through serde each of their texts is looked through twice.
impl Data for Book {
    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        out.extend_from_slice(b"{\"symbol\":");
        serde_json::to_writer(&mut *out, &self.symbol)?;
        for (name, levels) in [(&b",\"bids\":["[..], &self.bids), (b",\"asks\":[", &self.asks)] {
            out.extend_from_slice(name);
            for (number, Level(price, qty)) in levels.iter().enumerate() {
                out.extend_from_slice(if number == 0 { b"[" } else { b",[" });
                price.push_quoted(out);
                out.push(b',');
                qty.push_quoted(out);
                out.push(b']');
            }
            out.push(b']');
        }
        out.extend_from_slice(b",\"venueSeq\":");
        serde_json::to_writer(&mut *out, &self.venue_seq)?;
        // The rest is one object, whose members are this one's too.
        let at = out.len();
        serde_json::to_writer(&mut *out, &self.provenance)?;
        out[at] = b',';
        Ok(())
    }
}

/// `candle_update`: one candle, running or closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candle {
    /// The common form, `BTC/USDT`.
    pub symbol: String,
    /// `1m`, `5m`, `15m`, `1h`, `4h` or `1d`.
    pub interval: String,
    /// First millisecond that belongs to it, since the epoch.
    pub open_time: i64,
    /// Last millisecond that belongs to it, since the epoch.
    pub close_time: i64,
    /// First price.
    pub open: Decimal,
    /// Highest price.
    pub high: Decimal,
    /// Lowest price.
    pub low: Decimal,
    /// Last price.
    pub close: Decimal,
    /// Volume in the base asset.
    pub volume: Decimal,
    /// How many trades, where the venue tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trades: Option<u64>,
    /// Whether nothing more will change.
    pub closed: bool,
    /// Clocks.
    #[serde(flatten)]
    pub provenance: Provenance,
}

/// `market_status`: the session of an instrument, as the venue tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MarketStatus {
    /// The common form, `THYAO`.
    pub symbol: String,
    /// What it means; absent when the venue's name for it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<MarketState>,
    /// The venue's own name of it.
    pub venue_state: String,
    /// The day's tick sizes, where the venue tells them: from which price on, and the tick, by rising price.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ticks: Vec<Level>,
    /// Clocks.
    #[serde(flatten)]
    pub provenance: Provenance,
}

/// What an instrument's session is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarketState {
    /// Before the first auction.
    PreOpen,
    /// Orders are collected and matched for the opening price.
    OpeningAuction,
    /// Orders meet at once.
    Continuous,
    /// Between two phases.
    Break,
    /// Orders are collected and matched for the closing price.
    ClosingAuction,
    /// Trades at the closing price.
    AtClose,
    /// The day is over.
    Closed,
    /// Stopped.
    Halted,
    /// Orders are collected and matched for one price after a circuit breaker.
    SinglePrice,
}

/// `channel_status`: whether a market channel can be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelStatus {
    /// The state now.
    pub state: ChannelState,
    /// Since when, milliseconds since the epoch.
    pub since: i64,
    /// Why, in a few words.
    pub reason: String,
    /// Clocks.
    #[serde(flatten)]
    pub provenance: Provenance,
}

/// The state of a market channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelState {
    /// Data flows.
    Up,
    /// Its venue cannot be reached.
    Down,
    /// The book is being rebuilt.
    Resyncing,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_book_is_written_as_serde_would() {
        let level = |price: &str, qty: &str| Level(price.parse().unwrap(), qty.parse().unwrap());
        let provenance = Provenance { ts_source: TimeSource::Venue, received_at: 7 };
        for (bids, asks) in
            [(vec![], vec![]), (vec![level("10.50", "1"), level("9", "0.00000001")], vec![level("11", "-2")])]
        {
            let book = Book { symbol: "A\"B/C".into(), bids, asks, venue_seq: "5".into(), provenance };
            let mut text = Vec::new();
            book.write_json(&mut text).unwrap();
            let expected = json!({"symbol": "A\"B/C", "bids": book.bids, "asks": book.asks, "venueSeq": "5",
                "tsSource": "venue", "receivedAt": 7});
            assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
        }
    }
}
