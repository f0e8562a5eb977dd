//! Who on one shard subscribes to what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_eventlog::Partition;
use akis_model::Channel;

use crate::batch::TopicId;
use crate::interval::Groups;
use crate::run::Run;

/// A subscription: the connection's place, and the number of the channel in its session.
pub(super) type Subscriber = (u32, u32);

/// A channel with subscribers on this shard.
#[derive(Debug)]
pub(super) struct Topic {
    generation: u32,
    channel: Channel,
    partition: Partition,
    /// Those that get every event.
    pub(super) subscribers: Vec<Subscriber>,
}

/// The topics of a shard, by their number.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Vec<Option<Topic>>,
    by_name: HashMap<Channel, u32, foldhash::fast::RandomState>,
    /// Those that get the newest event once in an interval.
    pub(super) groups: Groups<Subscriber>,
}

impl Topics {
    /// The channel with this number, unless that belongs to another one by now.
    pub(super) fn get(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(id.index as usize)?.as_ref().filter(|topic| topic.generation == id.generation)
    }

    /// All subscribers of a channel.
    pub(super) fn all(&self, index: u32) -> impl Iterator<Item = Subscriber> {
        let topic = self.topics.get(index as usize).and_then(Option::as_ref);
        topic.into_iter().flat_map(|topic| &topic.subscribers).copied().chain(self.groups.members(index))
    }

    /// The subscribers of all channels of a partition.
    pub(super) fn of_partition(&self, partition: Partition) -> impl Iterator<Item = Subscriber> {
        let is_of_it = move |topic: &Topic| topic.partition == partition;
        let indices = self.topics.iter().zip(0..).filter(move |(topic, _)| topic.as_ref().is_some_and(is_of_it));
        indices.flat_map(|(_, index)| self.all(index))
    }

    /// The number of a channel that has subscribers here.
    pub(super) fn index_of(&self, channel: &Channel) -> Option<u32> {
        self.by_name.get(channel).copied()
    }

    /// Makes a place for a channel.
    pub(super) fn open(&mut self, id: TopicId, channel: &Channel, partition: Partition) {
        let at = id.index as usize;
        if self.topics.len() <= at {
            self.topics.resize_with(at + 1, || None);
        }
        let topic = Topic { generation: id.generation, channel: channel.clone(), partition, subscribers: Vec::new() };
        if let Some(place) = self.topics.get_mut(at) {
            *place = Some(topic);
        }
        self.by_name.insert(channel.clone(), id.index);
    }

    /// Adds a subscriber to a channel that has a place.
    pub(super) fn add(&mut self, index: u32, subscriber: Subscriber) {
        if let Some(Some(topic)) = self.topics.get_mut(index as usize) {
            topic.subscribers.push(subscriber);
        }
    }

    /// Gives a subscriber the channel's newest event once in each interval, beginning at `ready_at`; without an interval, every event as it
    /// comes. Gives the event that it was still to be given.
    pub(super) fn pace(
        &mut self,
        index: u32,
        subscriber: Subscriber,
        interval: Option<Duration>,
        ready_at: Instant,
    ) -> Option<Arc<Run>> {
        let topic = self.topics.get_mut(index as usize)?.as_mut()?;
        let owed = self.groups.leave(index, subscriber);
        topic.subscribers.retain(|other| *other != subscriber);
        match interval {
            Some(interval) => self.groups.join(index, interval, subscriber, ready_at),
            None => topic.subscribers.push(subscriber),
        }
        owed
    }

    /// Removes a subscriber. Gives the channel when it was the last one; its place is gone then.
    pub(super) fn remove(&mut self, index: u32, subscriber: Subscriber) -> Option<Channel> {
        let place = self.topics.get_mut(index as usize)?;
        let topic = place.as_mut()?;
        if let Some(at) = topic.subscribers.iter().position(|other| *other == subscriber) {
            topic.subscribers.swap_remove(at);
        } else {
            self.groups.leave(index, subscriber);
        }
        if !topic.subscribers.is_empty() || self.groups.has(index) {
            return None;
        }
        let topic = place.take()?;
        self.by_name.remove(&topic.channel);
        Some(topic.channel)
    }
}
