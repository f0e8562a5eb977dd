//! What a standby has seen lately, so that nothing of it is missing when it takes over.
//!
//! A standby hears the same venue as the holder of the lease. When the holder vanishes, the standby looks for the log's
//! last trade among those that it has seen itself: what follows there is what the holder left unwritten, and nothing
//! lies between.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use akis_model::{Body, Channel, Kind};
use tokio::time::Instant;

use super::Event;
use super::trade::Trade;

/// How long trades are kept: until a lease has run out, and somewhat longer.
const KEPT: Duration = Duration::from_secs(15);

/// Most trades kept of a partition; the oldest are dropped, and what they would have filled is told as a gap.
const MOST: usize = 20_000;

/// The latest trades of a partition's channels.
#[derive(Debug, Default)]
pub(super) struct Warm {
    /// In the order in which they came.
    recent: VecDeque<(Instant, Event)>,
    /// The newest of each channel, however old it is.
    newest: HashMap<Channel, Body>,
}

/// How a standby's trades go on from the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// What the log does not have, in order.
    pub(super) missing: Vec<Event>,
    /// Whether nothing lies between the log's last trade and the first of those.
    pub(super) proven: bool,
}

impl Warm {
    /// Takes note of an event that is not published.
    pub(super) fn note(&mut self, event: Event, now: Instant) {
        if event.channel.kind() != Kind::Trades {
            return;
        }
        let is_stale = |(at, _): &(Instant, Event)| now.duration_since(*at) > KEPT;
        while self.recent.len() >= MOST || self.recent.front().is_some_and(is_stale) {
            self.recent.pop_front();
        }
        self.newest.insert(event.channel.clone(), event.body.clone());
        self.recent.push_back((now, event));
    }

    /// Gives out what was seen of a channel behind `last`, the log's last trade of it. Without one nothing is given out that
    /// the log could have.
    ///
    /// `later` is what was offered since: it is part of the same series, and the log may have some of it already.
    pub(super) fn join(&mut self, channel: &Channel, last: Option<&Trade>, later: Vec<Event>) -> Joined {
        let mut events: Vec<Event> = Vec::new();
        self.recent.retain_mut(|(_, event)| {
            let is_other = event.channel != *channel;
            if !is_other {
                events.push(event.clone());
            }
            is_other
        });
        let newest = self.newest.remove(channel);
        let Some(last) = last else {
            return Joined { missing: later, proven: false };
        };
        events.extend(later);
        let is_last = |body: &Body| Trade::of(body.text()).is_some_and(|trade| trade.is(last));
        if let Some(known) = events.iter().rposition(|event| is_last(&event.body)) {
            return Joined { missing: events.split_off(known + 1), proven: true };
        }
        let proven = newest.is_some_and(|newest| is_last(&newest));
        events.retain(|event| Trade::of(event.body.text()).is_none_or(|trade| !trade.is_up_to(last)));
        // Its first trade may be the log's next one.
        let first = events.iter_mut().find_map(|event| Some((Trade::of(event.body.text())?, event)));
        let next = first.filter(|(trade, _)| trade.follows(last)).map(|(_, event)| event.missing_before = 0);
        Joined { missing: events, proven: proven || next.is_some() }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.recent.clear();
        self.newest.clear();
    }
}

#[cfg(test)]
mod tests {
    use akis_model::Outcome;
    use serde_json::json;

    use super::*;

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    fn trade(id: u64) -> Event {
        let channel = channel("v:S:trades");
        let body = Body::render(0, "trade", &channel, Outcome::Ok, &json!({ "id": id.to_string() })).unwrap();
        Event { channel, body, missing_before: 0 }
    }

    fn warm(ids: std::ops::RangeInclusive<u64>) -> Warm {
        let mut warm = Warm::default();
        ids.for_each(|id| warm.note(trade(id), Instant::now()));
        warm
    }

    fn join(warm: &mut Warm, last: u64, later: &[u64]) -> (Vec<String>, bool) {
        let later = later.iter().map(|&id| trade(id)).collect();
        let last = Trade::of(trade(last).body.text());
        let joined = warm.join(&channel("v:S:trades"), last.as_ref(), later);
        (joined.missing.iter().map(|event| Trade::of(event.body.text()).unwrap().id).collect(), joined.proven)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_lacks_follows_its_last_trade() {
        assert_eq!(join(&mut warm(1..=5), 3, &[6]), (vec!["4".into(), "5".into(), "6".into()], true));
        assert_eq!(join(&mut warm(1..=5), 6, &[6, 7]), (vec!["7".into()], true), "the holder wrote one more");
        assert_eq!(
            join(&mut warm(4..=5), 2, &[]),
            (vec!["4".into(), "5".into()], false),
            "what lies between is unknown"
        );
        assert_eq!(join(&mut warm(1..=5), 7, &[9]), (vec!["9".into()], false), "nothing is told twice");
        assert_eq!(join(&mut warm(5..=6), 4, &[]), (vec!["5".into(), "6".into()], true), "nothing fits between");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_channel_is_whole_however_long_ago_its_last_trade_was() {
        let mut warm = warm(1..=3);
        tokio::time::advance(KEPT * 10).await;
        let other = Event { channel: channel("v:T:trades"), ..trade(9) };
        warm.note(other, Instant::now());
        assert_eq!(warm.recent.len(), 1, "what is old is dropped");
        assert_eq!(join(&mut warm, 3, &[4]), (vec!["4".into()], true));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let warm = warm(1..=MOST as u64 + 5);
        assert_eq!(warm.recent.len(), MOST);
    }
}
