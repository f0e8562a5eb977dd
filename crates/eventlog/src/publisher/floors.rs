//! Where the trades of the log end, so that none of them is published a second time.
//!
//! A venue's connection may go back: what was missed on standby is fetched once it is there again, and a session of Borsa
//! Istanbul that is joined late is replayed from its first message. The log's holder has written that meanwhile.

use akis_model::Channel;

use super::Event;
use super::trade::Trade;
use crate::ByChannel;

/// The log's last trade of each channel whose next one has not come yet. Lives as long as one reign.
#[derive(Debug, Default)]
pub(super) struct Floors {
    last: ByChannel<Trade>,
}

impl Floors {
    /// Takes note that the log's trades of a channel end with `last`.
    pub(super) fn set(&mut self, channel: Channel, last: Trade) {
        self.last.insert(channel, last);
    }

    /// Takes out what the log has. Up to the first trade of a channel that lies above; from there on ids are the mapper's
    /// matter.
    pub(super) fn drop_known(&mut self, events: &mut Vec<Event>) {
        if !self.last.is_empty() {
            events.retain(|event| !self.is_known(event));
        }
    }

    fn is_known(&mut self, event: &Event) -> bool {
        let Some(last) = self.last.get(&event.channel) else { return false };
        let Some(trade) = Trade::of(event.body.text()) else { return false };
        let is_known = trade.is_up_to(last);
        if !is_known || trade.id == last.id {
            self.last.remove(&event.channel);
        }
        is_known
    }
}
