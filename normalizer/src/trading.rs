//! Whether a symbol is traded, as the venue's list of symbols has it. It is read once a day, so a trade says too that it is.

use akis_model::{Channel, ChannelState};

use crate::mapper::Output;
use crate::update::Update;

/// What symbols that are traded have for a state, at every venue with such a list.
const TRADED: &str = "TRADING";

/// What is known of one symbol.
#[derive(Debug, Default)]
pub(crate) struct Trading {
    halted: Option<Halted>,
    is_delisted: bool,
}

/// It is not traded.
#[derive(Debug)]
struct Halted {
    /// The venue's word for it, where it has one.
    state: String,
    /// When the list came that said so first, milliseconds since the epoch.
    since: i64,
}

impl Trading {
    /// Takes the state that the list has; `None` when the symbol is not in it. A change is told on all of its channels, in the place of
    /// whatever was told of their states; whether there was one.
    pub(crate) fn on_listing(
        &mut self,
        state: Option<&str>,
        channels: impl IntoIterator<Item = Channel>,
        now_ms: i64,
        out: &mut Output,
    ) -> bool {
        self.is_delisted = state.is_none();
        let state = state.unwrap_or("DELISTED");
        let halted = (state != TRADED).then_some(state);
        if self.halted.as_ref().map(|halted| halted.state.as_str()) == halted {
            return false;
        }
        self.halted = halted.map(|state| Halted { state: state.to_owned(), since: now_ms });
        self.tell(channels, now_ms, out);
        true
    }

    /// Takes note of a trade, which happened at `traded_at` by the clock that `now_ms` is of; whether a change was told, as above.
    pub(crate) fn on_trade(
        &mut self,
        traded_at: i64,
        channels: impl IntoIterator<Item = Channel>,
        now_ms: i64,
        out: &mut Output,
    ) -> bool {
        let is_over = self.halted.as_ref().is_some_and(|halted| halted.since < traded_at);
        if is_over {
            (self.halted, self.is_delisted) = (None, false);
            self.tell(channels, now_ms, out);
        }
        is_over
    }

    fn tell(&self, channels: impl IntoIterator<Item = Channel>, now_ms: i64, out: &mut Output) {
        let (state, reason) = match &self.halted {
            Some(halted) => (ChannelState::Down, format!("the venue says {}", halted.state)),
            None => (ChannelState::Up, "traded again".to_owned()),
        };
        for channel in channels {
            out.updates.push(Update::status(channel, state, now_ms, &reason, now_ms));
        }
    }

    /// Whether it is not traded: nothing else is told of the states of its channels then.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.is_some()
    }

    /// Whether the venue does not know it any more, so that there is nothing to ask for.
    pub(crate) fn is_delisted(&self) -> bool {
        self.is_delisted
    }
}
