//! The subscriptions of one session: found by name when the client speaks, by number when the log does.

use std::collections::HashMap;

use akis_model::Channel;
use slab::Slab;

use super::subscription::Subscription;

/// See the module's documentation. Numbers are dense, and given out again after a subscription has ended.
#[derive(Debug, Default)]
pub(super) struct Roster {
    slots: Slab<(Channel, Subscription)>,
    by_name: HashMap<Channel, u32, foldhash::fast::RandomState>,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slot(&self, channel: &Channel) -> Option<u32> {
        self.by_name.get(channel).copied()
    }

    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Subscription> {
        self.slots.get_mut(slot as usize).map(|(_, subscription)| subscription)
    }

    pub(super) fn named(&mut self, slot: u32) -> Option<(&Channel, &mut Subscription)> {
        self.slots.get_mut(slot as usize).map(|(channel, subscription)| (&*channel, subscription))
    }

    pub(super) fn get(&mut self, channel: &Channel) -> Option<&mut Subscription> {
        self.slot(channel).and_then(|slot| self.at(slot))
    }

    pub(super) fn insert(&mut self, channel: Channel, subscription: Subscription) -> u32 {
        let slot = self.slots.insert((channel.clone(), subscription)) as u32;
        self.by_name.insert(channel, slot);
        slot
    }

    pub(super) fn remove(&mut self, channel: &Channel) -> Option<(u32, Subscription)> {
        let slot = self.by_name.remove(channel)?;
        self.slots.try_remove(slot as usize).map(|(_, subscription)| (slot, subscription))
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.slots.iter().map(|(_, (channel, _))| channel)
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.slots.iter_mut().map(|(_, (_, subscription))| subscription)
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (u32, Channel)> + use<> {
        let all = std::mem::take(self).slots;
        all.into_iter().map(|(slot, (channel, _))| (slot as u32, channel))
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<(Channel, Subscription)>()
            + self.by_name.capacity() * size_of::<(Channel, u32)>()
    }
}
