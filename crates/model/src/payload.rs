//! Payloads of the market events, section 8 of the protocol. A field that a venue does not give is absent.

use serde::{Deserialize, Serialize};

use crate::body::Data;
use crate::decimal::{Decimal, Pen};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceTick {
    /// The common form, `BTC/USDT`.
    pub symbol: String,
    /// Price of the last trade.
    pub last: Option<Decimal>,
    /// Best bid.
    pub bid: Option<Decimal>,
    /// Quantity at the best bid.
    pub bid_qty: Option<Decimal>,
    /// Best ask.
    pub ask: Option<Decimal>,
    /// Quantity at the best ask.
    pub ask_qty: Option<Decimal>,
    /// Price 24 hours ago.
    pub open_24h: Option<Decimal>,
    /// Highest price of the last 24 hours.
    pub high_24h: Option<Decimal>,
    /// Lowest price of the last 24 hours.
    pub low_24h: Option<Decimal>,
    /// Volume of the last 24 hours in the base asset.
    pub volume_24h: Option<Decimal>,
    /// Volume of the last 24 hours in the quote asset.
    pub quote_volume_24h: Option<Decimal>,
    /// Change over the last 24 hours, in percent.
    pub change_24h_pct: Option<Decimal>,
    /// Clocks.
    pub provenance: Provenance,
}

impl PriceTick {
    fn write_members(&self, object: &mut Object<'_>) -> Result<(), serde_json::Error> {
        object.text("symbol", &self.symbol)?;
        for (name, value) in [
            ("last", self.last),
            ("bid", self.bid),
            ("bidQty", self.bid_qty),
            ("ask", self.ask),
            ("askQty", self.ask_qty),
            ("open24h", self.open_24h),
            ("high24h", self.high_24h),
            ("low24h", self.low_24h),
            ("volume24h", self.volume_24h),
            ("quoteVolume24h", self.quote_volume_24h),
            ("change24hPct", self.change_24h_pct),
        ] {
            object.given(name, value);
        }
        Ok(())
    }
}

impl Data for PriceTick {
    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut object = Object::new(out);
        self.write_members(&mut object)?;
        object.end(self.provenance)
    }
}

/// `price_tick` of an auction: where it would meet now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuctionTick {
    /// What every tick has; best prices that cross are left out.
    pub tick: PriceTick,
    /// The equilibrium price; absent while the sides do not meet.
    pub equilibrium: Option<Decimal>,
    /// Bid at the equilibrium price.
    pub equilibrium_bid_qty: Option<Decimal>,
    /// Offered at the equilibrium price.
    pub equilibrium_ask_qty: Option<Decimal>,
}

impl Data for AuctionTick {
    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut object = Object::new(out);
        self.tick.write_members(&mut object)?;
        object.given("equilibrium", self.equilibrium);
        object.given("equilibriumBidQty", self.equilibrium_bid_qty);
        object.given("equilibriumAskQty", self.equilibrium_ask_qty);
        object.end(self.tick.provenance)
    }
}

/// `trade`: one trade.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub side: Option<Side>,
    /// Clocks.
    pub provenance: Provenance,
}

impl Data for Trade {
    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut object = Object::new(out);
        object.text("symbol", &self.symbol)?;
        object.text("id", &self.id)?;
        object.decimal("price", self.price);
        object.decimal("qty", self.qty);
        if let Some(side) = self.side {
            object.json("side", &side)?;
        }
        object.end(self.provenance)
    }
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

impl Data for Book {
    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut object = Object::new(out);
        object.text("symbol", &self.symbol)?;
        object.levels("bids", &self.bids);
        object.levels("asks", &self.asks);
        object.text("venueSeq", &self.venue_seq)?;
        object.end(self.provenance)
    }
}

/// `candle_update`: one candle, running or closed.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub trades: Option<u64>,
    /// Whether nothing more will change.
    pub closed: bool,
    /// Clocks.
    pub provenance: Provenance,
}

impl Data for Candle {
    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut object = Object::new(out);
        object.text("symbol", &self.symbol)?;
        object.text("interval", &self.interval)?;
        object.json("openTime", &self.open_time)?;
        object.json("closeTime", &self.close_time)?;
        object.decimal("open", self.open);
        object.decimal("high", self.high);
        object.decimal("low", self.low);
        object.decimal("close", self.close);
        object.decimal("volume", self.volume);
        if let Some(trades) = self.trades {
            object.json("trades", &trades)?;
        }
        object.json("closed", &self.closed)?;
        object.end(self.provenance)
    }
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

/// A market event's object, written member by member: through serde each text of a number is looked through twice, and numbers
/// are most of what there is.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    /// What comes before the next member.
    before: u8,
}

impl<'a> Object<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, before: b'{' }
    }

    fn key(&mut self, name: &str) {
        self.out.extend_from_slice(&[self.before, b'"']);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.before = b',';
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), serde_json::Error> {
        self.key(name);
        serde_json::to_writer(&mut *self.out, value)
    }

    fn text(&mut self, name: &str, text: &str) -> Result<(), serde_json::Error> {
        self.json(name, &text)
    }

    fn decimal(&mut self, name: &str, value: Decimal) {
        self.key(name);
        Pen::add(self.out, Pen::NUMBER_BYTES + 2, |pen| {
            pen.bytes(b"\"");
            pen.number(value);
            pen.bytes(b"\"");
        });
    }

    /// A member that is there when it is known.
    fn given(&mut self, name: &str, value: Option<Decimal>) {
        if let Some(value) = value {
            self.decimal(name, value);
        }
    }

    fn levels(&mut self, name: &str, levels: &[Level]) {
        /// `["…","…"],`
        const LEVEL_BYTES: usize = 2 * Pen::NUMBER_BYTES + 8;
        self.key(name);
        Pen::add(self.out, levels.len() * LEVEL_BYTES + 2, |pen| {
            pen.bytes(b"[");
            for (number, Level(price, qty)) in levels.iter().enumerate() {
                if number > 0 {
                    pen.bytes(b",");
                }
                pen.bytes(b"[\"");
                pen.number(*price);
                pen.bytes(b"\",\"");
                pen.number(*qty);
                pen.bytes(b"\"]");
            }
            pen.bytes(b"]");
        });
    }

    /// The last members of every one.
    fn end(mut self, provenance: Provenance) -> Result<(), serde_json::Error> {
        self.json("tsSource", &provenance.ts_source)?;
        self.json("receivedAt", &provenance.received_at)?;
        self.out.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PROVENANCE: Provenance = Provenance { ts_source: TimeSource::Venue, received_at: 7 };

    fn written(data: &impl Data) -> Value {
        let mut text = Vec::new();
        data.write_json(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn books_have_levels_of_texts() {
        let level = |price: &str, qty: &str| Level(decimal(price), decimal(qty));
        for (bids, asks) in
            [(vec![], vec![]), (vec![level("10.50", "1"), level("9", "0.00000001")], vec![level("11", "-2")])]
        {
            let (symbol, venue_seq) = ("A\"B/C".into(), "5".into());
            let book = Book { symbol, bids, asks, venue_seq, provenance: PROVENANCE };
            let expected = json!({"symbol": "A\"B/C", "bids": book.bids, "asks": book.asks, "venueSeq": "5",
                "tsSource": "venue", "receivedAt": 7});
            assert_eq!(written(&book), expected);
        }
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let tick = PriceTick {
            symbol: "A".into(),
            last: Some(decimal("1.50")),
            bid: None,
            bid_qty: None,
            ask: Some(decimal("2")),
            ask_qty: Some(decimal("0")),
            open_24h: None,
            high_24h: None,
            low_24h: None,
            volume_24h: Some(decimal("7")),
            quote_volume_24h: None,
            change_24h_pct: Some(decimal("-0.1")),
            provenance: PROVENANCE,
        };
        let mut expected = json!({"symbol": "A", "last": "1.5", "ask": "2", "askQty": "0", "volume24h": "7",
            "change24hPct": "-0.1", "tsSource": "venue", "receivedAt": 7});
        assert_eq!(written(&tick), expected);
        let price = Some(decimal("3"));
        let auction = AuctionTick { tick, equilibrium: price, equilibrium_bid_qty: None, equilibrium_ask_qty: None };
        expected["equilibrium"] = "3".into();
        assert_eq!(written(&auction), expected);
        let trade = Trade {
            symbol: "A".into(),
            id: "9".into(),
            price: decimal("1"),
            qty: decimal("2"),
            side: None,
            provenance: PROVENANCE,
        };
        let mut expected =
            json!({"symbol": "A", "id": "9", "price": "1", "qty": "2", "tsSource": "venue", "receivedAt": 7});
        assert_eq!(written(&trade), expected);
        expected["side"] = "sell".into();
        assert_eq!(written(&Trade { side: Some(Side::Sell), ..trade }), expected);
    }
}
