//! Whether a symbol is traded, as the venue's list of symbols has it.

use akis_model::{Channel, ChannelState};

use crate::mapper::Output;
use crate::update::Update;

/// What symbols that are traded have for a state, at every venue with such a list.
const TRADED: &str = "TRADING";

/// What is known of one symbol.
#[derive(Debug, Default)]
pub(crate) struct Trading {
    /// Why it is not traded, in the venue's word where it has one.
    halted: Option<String>,
    is_delisted: bool,
}

impl Trading {
    /// Takes the state that the list has; `None` when the symbol is not in it. A change is told on all of its channels.
    pub(crate) fn on_listing(
        &mut self,
        state: Option<&str>,
        channels: impl IntoIterator<Item = Channel>,
        now_ms: i64,
        out: &mut Output,
    ) {
        self.is_delisted = state.is_none();
        let state = state.unwrap_or("DELISTED");
        let halted = (state != TRADED).then(|| state.to_owned());
        if self.halted == halted {
            return;
        }
        let (state, reason) = match &halted {
            Some(state) => (ChannelState::Down, format!("the venue says {state}")),
            None => (ChannelState::Up, "traded again".to_owned()),
        };
        self.halted = halted;
        for channel in channels {
            out.updates.push(Update::status(channel, state, now_ms, &reason, now_ms));
        }
    }

    /// Whether the venue does not know it any more, so that there is nothing to ask for.
    pub(crate) fn is_delisted(&self) -> bool {
        self.is_delisted
    }
}
