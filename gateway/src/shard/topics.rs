//! Who on one shard subscribes to what.

use std::collections::HashMap;

use akis_eventlog::Partition;
use akis_model::Channel;

use crate::batch::TopicId;

/// A subscription: the connection's place, and the number of the channel in its session.
pub(super) type Subscriber = (u32, u32);

/// A channel with subscribers on this shard.
#[derive(Debug)]
pub(super) struct Topic {
    generation: u32,
    channel: Channel,
    partition: Partition,
    subscribers: Vec<Subscriber>,
}

/// The topics of a shard, by their number.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Vec<Option<Topic>>,
    by_name: HashMap<Channel, u32, foldhash::fast::RandomState>,
}

impl Topics {
    /// The subscribers of a channel, unless the number belongs to another one by now.
    pub(super) fn subscribers(&self, id: TopicId) -> &[Subscriber] {
        match self.topics.get(id.index as usize) {
            Some(Some(topic)) if topic.generation == id.generation => &topic.subscribers,
            _ => &[],
        }
    }

    /// The subscribers of all channels of a partition.
    pub(super) fn of_partition(&self, partition: Partition) -> impl Iterator<Item = Subscriber> {
        let topics = self.topics.iter().flatten().filter(move |topic| topic.partition == partition);
        topics.flat_map(|topic| topic.subscribers.iter().copied())
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

    /// Removes a subscriber. Gives the channel when it was the last one; its place is gone then.
    pub(super) fn remove(&mut self, index: u32, subscriber: Subscriber) -> Option<Channel> {
        let place = self.topics.get_mut(index as usize)?;
        let topic = place.as_mut()?;
        let at = topic.subscribers.iter().position(|other| *other == subscriber)?;
        topic.subscribers.swap_remove(at);
        if !topic.subscribers.is_empty() {
            return None;
        }
        let topic = place.take()?;
        self.by_name.remove(&topic.channel);
        Some(topic.channel)
    }
}
