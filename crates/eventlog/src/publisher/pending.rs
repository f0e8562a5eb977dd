//! What waits to be published in one partition.

use std::collections::{HashSet, VecDeque};

use akis_model::{Body, Channel};
use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::Event;
use super::state::is_status;
use super::trade::Trade;
use super::warm::Warm;
use crate::ByChannel;
use crate::listing::StoredCandle;

/// Most positions that one hole leaves out.
const MAX_HOLE: u64 = 1 << 16;

/// Events of a newest-wins channel that wait at most. Not just one: a closed candle and the one that follows it, or a
/// status and the event after it, come in one go.
const NEWEST: usize = 4;

/// Channels whose past waits to be kept at most.
const MAX_FILLS: usize = 1024;

/// A bounded queue for each channel, which loses its oldest: newest-wins kinds without a word, the others leave a hole. How the channel is
/// does not get lost.
pub(super) struct Pending {
    queue_per_channel: usize,
    queues: ByChannel<Queue>,
    /// Channels with something waiting, the longest waiting first.
    order: VecDeque<Channel>,
    /// Every channel ever offered or declared.
    known: HashSet<Channel, RandomState>,
    /// Known channels that the lane has not asked for yet.
    declared: Vec<Channel>,
    /// Whether events wait to be written: not on standby.
    open: bool,
    /// How channels are, to be compared with what the log says: the newest of each.
    states: ByChannel<Event>,
    /// Candles of the past that wait to be kept, by channel.
    candles: VecDeque<(Channel, Vec<StoredCandle>)>,
    /// What a standby has seen.
    warm: Warm,
}

/// Events in order, each with how many were lost right before it.
type Queue = VecDeque<(u64, Body)>;

impl Pending {
    pub(super) fn new(queue_per_channel: usize) -> Self {
        Self {
            queue_per_channel,
            queues: ByChannel::default(),
            order: VecDeque::new(),
            known: HashSet::default(),
            declared: Vec::new(),
            open: false,
            states: ByChannel::default(),
            candles: VecDeque::new(),
            warm: Warm::default(),
        }
    }

    /// Takes an event in. Returns how many events that must not be replaced were dropped for it.
    pub(super) fn offer(&mut self, event: Event) -> u64 {
        self.declare(&event.channel);
        if !self.open {
            self.warm.note(event, Instant::now());
            return 0;
        }
        let newest_wins = event.channel.kind().is_newest_wins();
        let queue = self.queues.entry(event.channel.clone()).or_default();
        if queue.is_empty() {
            self.order.push_back(event.channel);
        }
        queue.push_back((event.missing_before, event.body));
        if queue.len() <= if newest_wins { NEWEST } else { self.queue_per_channel } {
            return 0;
        }
        let (at, lost) = drop_oldest(queue);
        if newest_wins {
            return 0;
        }
        if let Some((missing, _)) = queue.get_mut(at) {
            *missing += lost;
        }
        1
    }

    pub(super) fn declare(&mut self, channel: &Channel) {
        if !self.known.contains(channel) {
            self.known.insert(channel.clone());
            self.declared.push(channel.clone());
        }
    }

    /// Names a channel again that was taken and could not be opened.
    pub(super) fn redeclare(&mut self, channel: &Channel) {
        self.declared.push(channel.clone());
    }

    /// The channels that were named since the last call.
    pub(super) fn take_declared(&mut self) -> Vec<Channel> {
        std::mem::take(&mut self.declared)
    }

    /// Every channel ever named; [`Pending::take_declared`] then starts anew.
    pub(super) fn known(&mut self) -> Vec<Channel> {
        self.declared.clear();
        self.known.iter().cloned().collect()
    }

    /// Whether no event waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes up to `max` events out, each channel's in order.
    pub(super) fn take(&mut self, max: usize) -> Vec<Event> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some(channel) = self.order.pop_front() else { break };
            let Some(queue) = self.queues.get_mut(&channel) else { continue };
            while taken.len() < max {
                let Some((missing, body)) = queue.pop_front() else { break };
                taken.push(Event { channel: channel.clone(), body, missing_before: missing.min(MAX_HOLE) });
            }
            if !queue.is_empty() {
                self.order.push_front(channel);
            }
        }
        taken
    }

    /// Puts events in front of everything that waits: they were taken, and are known not to be in the log. Not where another publisher
    /// has the channels by now.
    pub(super) fn put_back(&mut self, events: Vec<Event>) {
        if !self.open {
            return;
        }
        for event in events.into_iter().rev() {
            let queue = self.queues.entry(event.channel.clone()).or_default();
            if queue.is_empty() {
                self.order.push_front(event.channel.clone());
            }
            queue.push_front((event.missing_before, event.body));
            if event.channel.kind().is_newest_wins() && queue.len() > NEWEST {
                drop_oldest(queue);
            }
        }
    }

    /// Takes in how a channel is.
    pub(super) fn offer_state(&mut self, state: Event) {
        self.declare(&state.channel);
        if self.open {
            self.states.insert(state.channel.clone(), state);
        }
    }

    /// Takes out how up to `max` channels are.
    pub(super) fn take_states(&mut self, max: usize) -> Vec<Event> {
        let channels: Vec<Channel> = self.states.keys().take(max).cloned().collect();
        channels.iter().filter_map(|channel| self.states.remove(channel)).collect()
    }

    /// Takes candles of the past in, unless too many wait.
    pub(super) fn keep_candles(&mut self, channel: &Channel, candles: Vec<StoredCandle>) {
        if self.open && self.candles.len() < MAX_FILLS {
            self.candles.push_back((channel.clone(), candles));
        }
    }

    /// Takes out candles of the past of one channel.
    pub(super) fn take_candles(&mut self) -> Option<(Channel, Vec<StoredCandle>)> {
        self.candles.pop_front()
    }

    /// Puts candles that were taken and not kept back in front, unless another publisher has the channels by now.
    pub(super) fn put_candles_back(&mut self, channel: Channel, candles: Vec<StoredCandle>) {
        if self.open {
            self.candles.push_front((channel, candles));
        }
    }

    /// Puts in front of a channel's events what was seen of it on standby and is not in the log, whose last trade is `last`.
    /// Returns whether nothing lies between the two, and how many of the channel's events the log had.
    pub(super) fn join_warm(&mut self, channel: &Channel, last: Option<&Trade>) -> (bool, usize) {
        let queue = self.queues.remove(channel).unwrap_or_default();
        let offered = queue.len();
        self.order.retain(|waiting| waiting != channel);
        let event = |(missing_before, body)| Event { channel: channel.clone(), body, missing_before };
        let joined = self.warm.join(channel, last, queue.into_iter().map(event).collect());
        let repeated = offered.saturating_sub(joined.missing.len());
        if !joined.missing.is_empty() {
            self.order.push_back(channel.clone());
            let queue = joined.missing.into_iter().map(|event| (event.missing_before, event.body)).collect();
            self.queues.insert(channel.clone(), queue);
        }
        (joined.proven, repeated)
    }

    /// Forgets what was seen on standby: it is in the log, or can no longer be joined with it.
    pub(super) fn cool(&mut self) {
        self.warm.clear();
    }

    /// Keeps what is offered from now on.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// Drops everything and keeps nothing more: another publisher has the channels. Returns how many trades and
    /// application events that were. Its term begins without proof, so their loss has been told.
    pub(super) fn close(&mut self) -> u64 {
        self.open = false;
        self.states.clear();
        self.candles.clear();
        self.order.clear();
        let queues = self.queues.drain();
        queues.filter(|(channel, _)| !channel.kind().is_newest_wins()).map(|(_, queue)| queue.len() as u64).sum()
    }
}

/// Drops the oldest event, but for a status that none follows: whoever knows of it only from here would never be told. Gives where that was, and how
/// many are lost there.
fn drop_oldest(queue: &mut Queue) -> (usize, u64) {
    let is_status = |at| queue.get(at).is_some_and(|(_, body): &(u64, Body)| is_status(body.text()));
    let at = usize::from(is_status(0) && !is_status(1));
    (at, queue.remove(at).map_or(0, |(missing, _)| missing + 1))
}

#[cfg(test)]
mod tests {
    use akis_model::Outcome;
    use serde_json::json;

    use super::*;

    fn event(channel: &str, n: i64) -> Event {
        let channel = Channel::parse(channel).unwrap();
        let body = Body::render(n, "e", &channel, Outcome::Ok, &json!({})).unwrap();
        Event { channel, body, missing_before: 0 }
    }

    fn drained(pending: &mut Pending) -> Vec<(String, i64, u64)> {
        let taken = pending.take(100);
        taken.into_iter().map(|e| (e.channel.to_string(), e.body.ts_ms(), e.missing_before)).collect()
    }

    #[test]
    fn newest_wins_kinds_keep_the_newest_and_others_lose_their_oldest() {
        let mut pending = Pending::new(2);
        pending.open();
        for n in 1..=6 {
            pending.offer(event("v:S:ticker", n));
            pending.offer(event("v:S:trades", n));
        }
        let ticker = (3..=6).map(|n| ("v:S:ticker".to_owned(), n, 0));
        let trades = [("v:S:trades".to_owned(), 5, 4), ("v:S:trades".to_owned(), 6, 0)];
        assert_eq!(drained(&mut pending), ticker.chain(trades).collect::<Vec<_>>());
        assert_eq!(pending.take_declared().len(), 2);
    }

    #[test]
    fn how_a_channel_is_does_not_get_lost_among_what_comes_after() {
        let status = |channel: &str, n| {
            let event = event(channel, n);
            let body = Body::render(n, "channel_status", &event.channel, Outcome::Ok, &json!({})).unwrap();
            Event { body, ..event }
        };
        let mut pending = Pending::new(3);
        pending.open();
        for name in ["v:S:ticker", "v:S:trades"] {
            for n in 1..=9 {
                pending.offer(if [2, 5].contains(&n) { status(name, n) } else { event(name, n) });
            }
        }
        let told = drained(&mut pending);
        let of = |name| told.iter().filter(|e| e.0 == name).map(|e| (e.1, e.2)).collect::<Vec<_>>();
        assert_eq!(of("v:S:ticker"), [(5, 0), (7, 0), (8, 0), (9, 0)]);
        assert_eq!(of("v:S:trades"), [(5, 4), (8, 2), (9, 0)]);

        for n in 1..=4 {
            pending.offer(event("v:S:ticker", n));
        }
        pending.put_back(vec![status("v:S:ticker", 0), event("v:S:ticker", 0)]);
        assert_eq!(drained(&mut pending).iter().map(|e| e.1).collect::<Vec<_>>(), [0, 2, 3, 4]);
        pending.close();
        pending.put_back(vec![event("v:S:trades", 1)]);
        assert_eq!(drained(&mut pending), [], "another publisher has them");
    }

    #[test]
    fn what_is_put_back_comes_first() {
        let mut pending = Pending::new(10);
        pending.open();
        for n in 1..=3 {
            pending.offer(event("v:S:trades", n));
        }
        let taken = pending.take(2);
        pending.put_back(taken);
        assert_eq!(drained(&mut pending).iter().map(|e| e.1).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn standby_keeps_nothing() {
        let mut pending = Pending::new(10);
        pending.offer(event("v:S:trades", 1));
        assert_eq!(drained(&mut pending), []);
        pending.open();
        pending.offer(event("v:S:trades", 2));
        pending.offer(event("v:S:trades", 3));
        assert_eq!(pending.close(), 2);
        pending.open();
        pending.offer(event("v:S:trades", 4));
        assert_eq!(drained(&mut pending), [("v:S:trades".into(), 4, 0)]);
    }
}
