//! The names of the log's keys. The hash tag keeps all keys of a partition in one slot.

use akis_model::Channel;

use crate::store::Partition;

/// Makes key names under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// `prefix` is `akis` unless several logs share a Redis.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Stream: every event of a partition, in order.
    pub(super) fn feed(&self, partition: Partition) -> String {
        format!("{}:{{{partition}}}:feed", self.prefix)
    }

    /// Set: the names of a partition's channels. May still hold those that have expired.
    pub(super) fn index(&self, partition: Partition) -> String {
        format!("{}:{{{partition}}}:channels", self.prefix)
    }

    /// Stream: the closed candles of a channel, by open time.
    pub(super) fn candles(&self, partition: Partition, channel: &Channel) -> String {
        format!("{}:{{{partition}}}:candles:{channel}", self.prefix)
    }

    /// Hash: what the scripts check.
    pub(super) fn term(&self, partition: Partition) -> String {
        format!("{}:{{{partition}}}:term", self.prefix)
    }

    /// Stream: the history of a channel.
    pub(super) fn history(&self, partition: Partition, channel: &Channel) -> String {
        format!("{}{channel}", self.histories(partition))
    }

    /// What the names of a partition's histories begin with.
    pub(super) fn histories(&self, partition: Partition) -> String {
        format!("{}:{{{partition}}}:ch:", self.prefix)
    }

    /// String: the position that an idempotency id was given. No two pairs share a name: no channel has a `/`, and an id
    /// without one and without a colon is what stands behind the last colon. Builds of all ages agree on the names of those.
    pub(super) fn idempotency(&self, partition: Partition, channel: &Channel, id: &str) -> String {
        let between = if id.contains([':', '/']) { '/' } else { ':' };
        format!("{}:{{{partition}}}:idem:{channel}{between}{id}", self.prefix)
    }

    /// String: who publishes now.
    pub(super) fn lease(&self, publisher: &str) -> String {
        format!("{}:lease:{publisher}", self.prefix)
    }

    /// Hash: what is remembered of a lease, in the slot of [`Keys::lease`].
    pub(super) fn lease_term(&self, publisher: &str) -> String {
        format!("{{{}:lease:{publisher}}}:term", self.prefix)
    }

    /// Sharded channel that the holder of a lease is subscribed to, in the slot of [`Keys::lease`]. Ends with the owner.
    pub(super) fn presence(&self, publisher: &str, owner: &str) -> String {
        format!("{{{}:lease:{publisher}}}:owner:{owner}", self.prefix)
    }

    /// String: a replica is alive.
    pub(super) fn replica(&self, replica: &str) -> String {
        format!("{}:replica:{replica}", self.prefix)
    }

    /// String: how many partitions the log has.
    pub(super) fn partitions(&self) -> String {
        format!("{}:partitions", self.prefix)
    }

    /// String that is written to find out whether the log can be.
    pub(super) fn ping(&self) -> String {
        format!("{}:ping", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same parts, with the line between channel and id at another place.
        #[test]
        fn no_two_ids_share_a_key(
            parts in prop::collection::vec("[ab]", 3..6),
            cuts in (2usize..6, 2usize..6),
            between in ("[:/]", "[:/]"),
        ) {
            let pair = |cut: usize, between: &str| {
                let (channel, id) = parts.split_at(cut.min(parts.len()));
                (channel.join(":"), id.join(between))
            };
            let key = |(channel, id): &(String, String)| {
                Keys::new("akis").idempotency(Partition(0), &Channel::parse(channel).unwrap(), id)
            };
            let (one, other) = (pair(cuts.0, &between.0), pair(cuts.1, &between.1));
            prop_assert_eq!(key(&one) == key(&other), one == other);
        }
    }

    #[test]
    fn keys_of_a_partition_share_a_hash_tag() {
        let keys = Keys::new("akis");
        let channel = Channel::parse("job:1").unwrap();
        let partition = Partition(7);
        assert_eq!(keys.feed(partition), "akis:{p07}:feed");
        assert_eq!(keys.term(partition), "akis:{p07}:term");
        assert_eq!(keys.index(partition), "akis:{p07}:channels");
        assert_eq!(keys.candles(partition, &channel), "akis:{p07}:candles:job:1");
        assert_eq!(keys.history(partition, &channel), "akis:{p07}:ch:job:1");
        assert_eq!(keys.idempotency(partition, &channel, "x"), "akis:{p07}:idem:job:1:x");
        assert_eq!(keys.idempotency(partition, &channel, "x:y"), "akis:{p07}:idem:job:1/x:y");
        let slot = |key: String| fred::util::redis_keyslot(key.as_bytes());
        let lease = slot(keys.lease("binance"));
        assert_eq!([slot(keys.lease_term("binance")), slot(keys.presence("binance", "me"))], [lease; 2]);
    }
}
