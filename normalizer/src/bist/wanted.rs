//! Which kinds of channels are wanted.

use akis_model::Kind;

/// The kinds that this venue has, and whether each is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) ticker: bool,
    pub(super) trades: bool,
    pub(super) book: bool,
    pub(super) session: bool,
    pub(super) candles: bool,
}

impl Wanted {
    /// No kinds: all that come.
    pub(super) fn new(kinds: &[Kind]) -> Self {
        let is = |kind| kinds.is_empty() || kinds.contains(&kind);
        Self {
            ticker: is(Kind::Ticker),
            trades: is(Kind::Trades),
            book: is(Kind::Book),
            session: is(Kind::Session),
            candles: is(Kind::Candles),
        }
    }

    /// Those that are wanted.
    pub(super) fn kinds(self) -> impl Iterator<Item = Kind> {
        let all = [
            (self.ticker, Kind::Ticker),
            (self.trades, Kind::Trades),
            (self.book, Kind::Book),
            (self.session, Kind::Session),
            (self.candles, Kind::Candles),
        ];
        all.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, kind)| kind)
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self::new(&[])
    }
}
