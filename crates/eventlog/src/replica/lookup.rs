//! Reading the log for those who do not stay: what is kept, without following what comes.
//!
//! Always asks the log itself, so whoever was told that an event is in the log finds it here.

use akis_model::{Body, Channel, Seq};

use super::{From, Replica};
use crate::listing::{ChannelHead, StoredCandle};
use crate::store::{Range, Select, StoreError};
use crate::tail::links;

/// Most entries that one read looks through for a moment in time: somewhat more than any kind keeps.
const HISTORY: usize = 8192;

/// Part of a channel's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Excerpt {
    /// Envelopes with their positions, in order. Entries that are no events are left out.
    pub events: Vec<(Seq, String)>,
    /// Position of the oldest event kept.
    pub oldest: Option<Seq>,
    /// Nothing between the position or time asked for and the events that follow is missing.
    pub recovered: bool,
}

/// One entry that is an event.
struct Kept {
    seq: Seq,
    previous: Option<Seq>,
    body: Body,
}

impl Replica {
    /// Reads at most `limit` events: the oldest ones above a position or from a time on, or the newest ones.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn excerpt(&self, channel: &Channel, from: From, limit: usize) -> Result<Excerpt, StoreError> {
        let mut range = match from {
            From::Live { .. } => self.store.range(channel, Select::Newest { limit }).await?,
            From::After(after) => self.store.range(channel, Select::Above { after, limit }).await?,
            From::Since(ts_ms) => self.since(channel, ts_ms, limit).await?,
        };
        if let From::After(after) = from
            && range.entries.is_empty()
            && range.last.is_some_and(|last| last != after)
            && !range.ends_at(after)
        {
            // A position that cannot be resumed from begins with the latest event.
            range.entries = self.store.range(channel, Select::Newest { limit: 1 }).await?.entries;
        }
        Ok(judge(channel, from, limit, range))
    }

    /// Reads at least what begins with the first event from a moment on, `limit` of it where one read gives so many, and the event before it
    /// where there is one.
    async fn since(&self, channel: &Channel, ts_ms: i64, limit: usize) -> Result<Range, StoreError> {
        let is_before = |event: &Kept| event.body.ts_ms() < ts_ms;
        let mut range = self.store.range(channel, Select::Newest { limit: HISTORY }).await?;
        while let Some(oldest) = range.entries.first().map(|entry| entry.seq)
            && range.first.is_some_and(|first| first < oldest)
            && !kept(channel, &range).next().as_ref().is_some_and(is_before)
        {
            let below = self.store.range(channel, Select::Below { before: oldest, limit: HISTORY }).await?;
            if below.entries.is_empty() {
                return Ok(range);
            }
            range = below;
        }
        if range.entries.last().map(|entry| entry.seq) == range.last {
            return Ok(range);
        }
        let before = kept(channel, &range).take_while(is_before).last().map(|event| event.seq);
        let after = before.or(range.first).unwrap_or_default().before();
        self.store.range(channel, Select::Above { after, limit: limit.saturating_add(1) }).await
    }

    /// The newest `limit` closed candles that opened before `before_ms`, in order.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn candles(
        &self,
        channel: &Channel,
        before_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredCandle>, StoreError> {
        self.store.candles(channel, before_ms, limit).await
    }

    /// All channels that have an event, in order.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn channels(&self) -> Result<Vec<ChannelHead>, StoreError> {
        self.store.channels("").await
    }
}

/// Those entries that are events, in order.
fn kept(channel: &Channel, range: &Range) -> impl Iterator<Item = Kept> {
    range.entries.iter().filter_map(|entry| {
        let body = Body::parse(entry.body.clone(), channel).ok()?;
        Some(Kept { seq: entry.seq, previous: entry.previous, body })
    })
}

fn judge(channel: &Channel, from: From, limit: usize, range: Range) -> Excerpt {
    let is_at_end = |after| range.entries.is_empty() && range.ends_at(after);
    let mut kept: Vec<Kept> = kept(channel, &range).collect();
    let recovered = match from {
        From::Live { .. } => false,
        From::After(after) if kept.is_empty() => after > Seq::ZERO && is_at_end(after),
        From::After(after) => range.proven && after > Seq::ZERO && is_chain(after, &kept),
        From::Since(ts_ms) => {
            let first = kept.iter().position(|event| event.body.ts_ms() >= ts_ms).unwrap_or(kept.len());
            let before = first.checked_sub(1).and_then(|before| kept.get(before)).map(|event| event.seq);
            kept.drain(..first);
            kept.truncate(limit);
            let is_whole = match before {
                Some(before) => is_chain(before, &kept),
                // The whole of the channel was read when its first event is the one that began it.
                None => {
                    kept.first().is_some_and(|first| first.previous == Some(Seq::ZERO)) && is_chain(Seq::ZERO, &kept)
                }
            };
            range.proven && is_whole
        }
    };
    Excerpt {
        events: kept.into_iter().map(|event| (event.seq, event.body.envelope(event.seq))).collect(),
        oldest: range.first,
        recovered,
    }
}

/// Whether each event follows the one before it, the first one `position`.
fn is_chain(mut position: Seq, events: &[Kept]) -> bool {
    events.iter().all(|event| {
        let linked = links(position, event.seq, event.previous);
        position = event.seq;
        linked
    })
}

#[cfg(test)]
mod tests {
    use akis_model::Outcome;
    use serde_json::json;

    use super::*;
    use crate::store::Entry;

    fn range(entries: &[(u64, Option<u64>, i64)], proven: bool) -> Range {
        let channel = Channel::parse("job:1").unwrap();
        let seq = |position| Seq::new(position).unwrap();
        let entries: Vec<Entry> = entries
            .iter()
            .map(|(position, previous, ts_ms)| Entry {
                seq: seq(*position),
                previous: previous.map(seq),
                body: Body::render(*ts_ms, "e", &channel, Outcome::Ok, &json!({})).unwrap().text().clone(),
            })
            .collect();
        let (first, last) = (entries.first().map(|entry| entry.seq), entries.last().map(|entry| entry.seq));
        Range { entries, first, last, proven, since: Seq::ZERO, told: None, rest: 0, length: 0 }
    }

    #[test]
    fn what_was_asked_for_is_judged() {
        let channel = Channel::parse("job:1").unwrap();
        let all = [(10, Some(0), 1), (11, None, 2), (20, Some(11), 3), (30, None, 4)];
        let after = |position| From::After(Seq::new(position).unwrap());
        for (from, entries, proven, positions, recovered) in [
            (after(10), &all[1..3], true, vec![11, 20], true),
            (after(10), &all[1..3], false, vec![11, 20], false),
            (after(9), &all[1..3], true, vec![11, 20], false),
            (after(11), &all[2..4], true, vec![20, 30], false),
            (after(0), &all[..3], true, vec![10, 11, 20], false),
            (From::Since(2), &all[..3], true, vec![11, 20], true),
            (From::Since(0), &all[..3], true, vec![10, 11, 20], true),
            (From::Since(0), &all[1..3], true, vec![11, 20], false),
            (From::Since(4), &all[..4], true, vec![30], false),
            (From::Live { snapshot: true }, &all[2..3], true, vec![20], false),
        ] {
            let excerpt = judge(&channel, from, 100, range(entries, proven));
            let found: Vec<_> = excerpt.events.iter().map(|(seq, _)| seq.get()).collect();
            assert_eq!((found, excerpt.recovered), (positions, recovered), "{from:?}");
        }
        let at_end = Range { last: Some(Seq::new(30).unwrap()), ..range(&[], true) };
        assert!(judge(&channel, after(30), 100, at_end.clone()).recovered, "nothing came since");
        assert!(!judge(&channel, after(31), 100, at_end).recovered);
        let broken = Entry { body: "no body".into(), seq: Seq::new(11).unwrap(), previous: None };
        let mut with_broken = range(&all[..3], true);
        with_broken.entries[1] = broken;
        let excerpt = judge(&channel, after(10), 100, with_broken);
        assert!(!excerpt.recovered, "what is no event is missing");
        assert_eq!(judge(&channel, From::Since(0), 2, range(&all, true)).events.len(), 2);
    }
}
