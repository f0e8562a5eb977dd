//! Where the trades of the log end, so that none of them is published a second time, and none is told to be missing that never was.
//!
//! A venue's connection may go back: what was missed on standby is fetched once it is there again, and a session of Borsa
//! Istanbul that is joined late is replayed from its first message. The log's holder has written that meanwhile.
//!
//! Of what came before the first trade that it hears a process knows nothing, so its mapper counts one more as missing, unless it has heard a
//! session from its start. Where the log ends right before that trade, or never had any, there is none.

use akis_model::Channel;

use super::Event;
use super::trade::Trade;
use crate::ByChannel;

/// The log's last trade of each channel whose next one has not come yet, if it has any. Lives as long as one reign.
#[derive(Debug, Default)]
pub(super) struct Floors {
    last: ByChannel<Option<Trade>>,
}

impl Floors {
    /// Takes note that the log's trades of a channel end with `last`.
    pub(super) fn set(&mut self, channel: Channel, last: Option<Trade>) {
        self.last.insert(channel, last);
    }

    /// Takes out what the log has. Up to the first trade of a channel that lies above; from there on ids are the mapper's
    /// matter.
    pub(super) fn drop_known(&mut self, events: &mut Vec<Event>) {
        if !self.last.is_empty() {
            events.retain_mut(|event| !self.is_known(event));
        }
    }

    fn is_known(&mut self, event: &mut Event) -> bool {
        let Some(last) = self.last.get(&event.channel) else { return false };
        let Some(trade) = Trade::of(event.body.text()) else { return false };
        let is_known = last.as_ref().is_some_and(|last| trade.is_up_to(last));
        if !is_known {
            event.missing_before = match last {
                Some(last) if trade.follows(last) => 0,
                Some(_) => event.missing_before,
                None => event.missing_before.saturating_sub(1),
            };
        }
        if !is_known || last.as_ref().is_some_and(|last| trade.id == last.id) {
            self.last.remove(&event.channel);
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use akis_model::{Body, Outcome};
    use serde_json::json;

    use super::*;

    fn trade(id: u64, missing_before: u64) -> Event {
        let channel = Channel::parse("v:S:trades").unwrap();
        let body = Body::render(0, "trade", &channel, Outcome::Ok, &json!({ "id": id.to_string() })).unwrap();
        Event { channel, body, missing_before }
    }

    /// What is left of how many are missing before the first trade of a process, and before its second.
    fn missing(last: Option<u64>, first: (u64, u64), second: (u64, u64)) -> Vec<u64> {
        let mut floors = Floors::default();
        let last = last.and_then(|id| Trade::of(trade(id, 0).body.text()));
        floors.set(trade(0, 0).channel, last);
        let mut events = vec![trade(first.0, first.1), trade(second.0, second.1)];
        floors.drop_known(&mut events);
        events.into_iter().map(|event| event.missing_before).collect()
    }

    #[test]
    fn nothing_is_missing_between_a_trade_and_the_next_id() {
        assert_eq!(missing(Some(7), (8, 1), (9, 0)), [0, 0], "it goes on where the log ends");
        assert_eq!(missing(Some(7), (9, 1), (10, 0)), [1, 0], "8 may have been");
        assert_eq!(missing(Some(7), (7, 1), (10, 2)), [2], "the log's last one was heard");
        assert_eq!(missing(Some(7), (6, 1), (8, 1)), [0]);
        assert_eq!(missing(None, (8, 1), (10, 1)), [0, 1], "nobody was ever told of one before");
        assert_eq!(missing(None, (8, 4), (9, 0)), [3, 0], "three were dropped");
    }
}
