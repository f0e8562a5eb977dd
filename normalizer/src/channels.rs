//! The channels of one instrument.

use akis_model::{Channel, Kind};

use crate::candles::Interval;

/// One channel of each kind, and one of candles for each interval.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) ticker: Channel,
    pub(crate) trades: Channel,
    pub(crate) book: Channel,
    pub(crate) session: Channel,
    /// In the order of [`Interval::ALL`], which is that of its variants.
    pub(crate) candles: [Channel; Interval::ALL.len()],
}

impl Channels {
    /// Those of the symbol that is `segment` in a channel's name; `None` when no channel can hold it.
    pub(crate) fn new(source: &str, segment: &str) -> Option<Self> {
        let channel = |facet: &str| Channel::parse(&format!("{source}:{segment}:{facet}")).ok();
        let [a, b, c, d, e, f] = Interval::ALL.map(|interval| channel(interval.as_str()));
        Some(Self {
            ticker: channel("ticker")?,
            trades: channel("trades")?,
            book: channel("book")?,
            session: channel("session")?,
            candles: [a?, b?, c?, d?, e?, f?],
        })
    }

    /// Those of a kind.
    pub(crate) fn of(&self, kind: Kind) -> &[Channel] {
        match kind {
            Kind::Ticker => std::slice::from_ref(&self.ticker),
            Kind::Trades => std::slice::from_ref(&self.trades),
            Kind::Book => std::slice::from_ref(&self.book),
            Kind::Session => std::slice::from_ref(&self.session),
            Kind::Candles => &self.candles,
            Kind::App => &[],
        }
    }
}
