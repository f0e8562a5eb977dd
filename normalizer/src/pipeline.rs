//! A mapper with what stands behind it: the watch over the venue, the throttle, rendering. Synchronous.

use std::collections::{HashMap, HashSet};

use akis_connectors::recording::Header;
use akis_connectors::{Part, RawFrame, Request, is_symbol};
use akis_eventlog::{Event, Hearing};
use akis_model::{Body, Channel, ChannelState, ChannelStatus, Kind};
use foldhash::fast::RandomState;

use crate::feed::{Feed, Turn};
use crate::mapper::{History, Mapper, Output, Reason, Resync};
use crate::rhythm::{Rhythms, Silent};
use crate::throttle::Throttle;
use crate::update::{Payload, Update};

/// After so long without an outage nobody waits any longer for what is still to be built. Longer than 500 books of Binance take at the
/// venue's limits, and well below the ten minutes that Kubernetes gives a roll.
const LONGEST_WARMING_MS: i64 = 300_000;

/// How often [`Pipeline::on_tick`] is called, at least.
pub(crate) const TICK_MS: i64 = 50;

/// What happened longer ago says nothing of how often its channel speaks: a session that is joined late is replayed from its beginning.
const PAST_MS: i64 = 60_000;

/// What a frame or a tick led to.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// How channels are where whoever published before may have told otherwise, to be told in front of `events`.
    pub(crate) states: Vec<Event>,
    /// To be published, in this order.
    pub(crate) events: Vec<Event>,
    /// Of those whose time is the venue's.
    pub(crate) times: Vec<Times>,
    /// Candles of the past, to be kept for charts.
    pub(crate) history: Vec<(Channel, Vec<Body>)>,
    /// To be asked of the venue.
    pub(crate) requests: Vec<Request>,
    pub(crate) skipped: Vec<Reason>,
    pub(crate) resyncs: Vec<Resync>,
    pub(crate) lost_trades: u64,
    /// Whether the venue has just gone or come.
    pub(crate) turn: Option<Turn>,
}

/// When an event happened, and when it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) kind: Kind,
    /// Milliseconds since the epoch by the venue's clock.
    pub(crate) venue_ms: i64,
    /// Milliseconds since the epoch by this machine's clock.
    pub(crate) received_ms: i64,
}

/// Frames in, events out.
pub(crate) struct Pipeline {
    mapper: Box<dyn Mapper>,
    feed: Feed,
    rhythms: Rhythms,
    throttle: Option<Throttle>,
    /// Those that are told when the venue is down.
    channels: HashSet<Channel, RandomState>,
    /// What the mapper said last of channels that are not up, which a venue that comes back does not mend.
    troubles: HashMap<Channel, ChannelStatus, RandomState>,
    /// Whether what comes is published.
    is_active: bool,
    /// Those of which whoever published before may have told otherwise than how they are.
    owed: HashSet<Channel, RandomState>,
    output: Output,
    passed: Vec<Update>,
    now_ms: i64,
}

impl Pipeline {
    pub(crate) fn new(mut mapper: Box<dyn Mapper>, throttled: bool) -> Self {
        if throttled {
            mapper.pace();
        }
        let throttle = throttled.then(Throttle::default);
        let (feed, channels, output) = (Feed::default(), HashSet::default(), Output::default());
        let (rhythms, troubles, owed) = (Rhythms::default(), HashMap::default(), HashSet::default());
        let (is_active, passed, now_ms) = (false, Vec::new(), i64::MIN);
        Self { mapper, feed, rhythms, throttle, channels, troubles, is_active, owed, output, passed, now_ms }
    }

    /// See [`Mapper::admit`].
    pub(crate) fn admit(&mut self, symbols: Option<&[String]>, part: Option<Part>, kinds: &[Kind]) {
        // What is no name is looked up by the session, which then asks for its part, or left to the mapper.
        if let Some(part) = part {
            self.mapper.take_part(part);
        }
        let is_wanted = |symbol: &&String| !is_symbol(symbol) || part.is_none_or(|part| part.has(symbol));
        let of_part = |symbols: &[String]| -> Vec<String> { symbols.iter().filter(is_wanted).cloned().collect() };
        self.mapper.admit(symbols.map(of_part).as_deref(), kinds);
        self.channels.extend(self.mapper.channels());
    }

    /// See [`Mapper::on_header`].
    pub(crate) fn on_header(&mut self, header: &Header) {
        self.mapper.on_header(header);
    }

    /// The channels that are known, in order.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<Channel> = self.channels.iter().cloned().collect();
        channels.sort_unstable();
        channels
    }

    /// Since when the oldest connection that is open has been, milliseconds since the epoch.
    pub(crate) fn connected_since(&self) -> Option<i64> {
        self.feed.connected_since()
    }

    /// Whether it is known if the venue's data flows.
    pub(crate) fn is_judged(&self) -> bool {
        self.feed.is_judged()
    }

    /// Whether the venue's data flows, as far as that is known.
    pub(crate) fn is_up(&self) -> bool {
        self.feed.is_judged() && self.feed.down().is_none()
    }

    /// What is heard of the venue at `now_ms`.
    pub(crate) fn hearing(&self, now_ms: i64) -> Hearing {
        self.feed.hearing(now_ms)
    }

    /// Whether all would go on if this process published from now on, as far as the venue lets it.
    pub(crate) fn is_warm(&self) -> bool {
        match self.feed.hearing(self.now_ms) {
            Hearing::Unknown => false,
            Hearing::Hears(_) => self.mapper.is_whole() || self.feed.heard_for(self.now_ms) > LONGEST_WARMING_MS,
            Hearing::Deaf(_) => true,
        }
    }

    /// Our clock was set forward by this much, to `now_ms`.
    pub(crate) fn on_clock_set(&mut self, by_ms: i64, now_ms: i64) {
        self.mapper.on_clock_set(by_ms);
        self.feed.on_clock_set(by_ms, now_ms);
        self.rhythms.on_clock_set(by_ms, now_ms);
    }

    /// What comes is published from now on, or is not. How channels are is told where whoever published before may have told otherwise:
    /// of each with its first event, and of those that do not speak once this process is warm. Before that it may not know yet what
    /// the one before knew of them.
    pub(crate) fn set_active(&mut self, is_active: bool, step: &mut Step) {
        self.is_active = is_active;
        self.owed.clear();
        if is_active {
            self.owed.clone_from(&self.channels);
            self.tell_owed(step);
        }
    }

    fn tell_owed(&mut self, step: &mut Step) {
        if self.owed.is_empty() || !self.is_warm() {
            return;
        }
        let mut owed: Vec<Channel> = self.owed.drain().collect();
        owed.sort_unstable();
        step.states.extend(owed.into_iter().filter_map(|channel| self.state(channel).into_event().ok()));
    }

    /// How a channel is now.
    fn state(&self, channel: Channel) -> Update {
        let now = self.now_ms;
        if let Some((since, reason)) = self.feed.down() {
            Update::status(channel, ChannelState::Down, since, reason, now)
        } else if let Some(trouble) = self.troubles.get(&channel) {
            Update::status(channel, trouble.state, trouble.since, &trouble.reason, now)
        } else if let Some(silent) = self.rhythms.told(&channel) {
            stale(silent, now)
        } else {
            Update::status(channel, ChannelState::Up, now, "data flows again", now)
        }
    }

    /// Takes a frame; what it leads to is added to `step`.
    pub(crate) fn on_frame(&mut self, frame: &RawFrame, step: &mut Step) {
        self.now_ms = self.now_ms.max(frame.received_at);
        self.mapper.on_frame(frame, &mut self.output);
        let data = std::mem::take(&mut self.output.data);
        if let Some(turn) = self.feed.on_frame(frame, data) {
            self.tell(turn, step);
        }
        self.take(step);
    }

    /// Takes note of the time; what it leads to is added to `step`.
    pub(crate) fn on_tick(&mut self, now_ms: i64, step: &mut Step) {
        self.now_ms = self.now_ms.max(now_ms);
        if let Some(turn) = self.feed.on_tick(self.now_ms) {
            self.tell(turn, step);
        }
        self.mapper.on_tick(self.now_ms, &mut self.output);
        self.take(step);
        self.tell_silent();
        self.tell_owed(step);
        if let Some(throttle) = &mut self.throttle {
            throttle.on_tick(self.now_ms, &mut self.passed);
        }
        self.render(step);
    }

    /// See [`Mapper::backfill`]. While the venue is down nothing is told again: it is asked for this once more when it is back.
    pub(crate) fn backfill(&mut self, step: &mut Step) {
        if self.feed.down().is_some() {
            return;
        }
        self.mapper.backfill(&mut self.output);
        self.take(step);
    }

    /// Lets go what mapper and throttle hold.
    pub(crate) fn finish(&mut self, step: &mut Step) {
        self.mapper.finish(&mut self.output);
        self.take(step);
        if let Some(throttle) = &mut self.throttle {
            throttle.flush(self.now_ms, &mut self.passed);
        }
        self.render(step);
    }

    /// Tells every channel of a turn.
    fn tell(&mut self, turn: Turn, step: &mut Step) {
        self.rhythms.clear();
        self.owed.clear();
        for channel in self.channels() {
            let status = self.state(channel);
            pass(&mut self.throttle, status, self.now_ms, &mut self.passed);
        }
        step.turn = Some(turn);
        self.render(step);
    }

    /// Tells the channels that are silent for longer than is usual for them.
    fn tell_silent(&mut self) {
        if self.feed.down().is_some() {
            return;
        }
        let now = self.now_ms;
        for silent in self.rhythms.silent(now, |channel| self.mapper.rests(channel)) {
            pass(&mut self.throttle, stale(silent, now), now, &mut self.passed);
        }
    }

    /// Takes over what the mapper said.
    fn take(&mut self, step: &mut Step) {
        if let Some(due_at) = self.output.rests_until.take() {
            self.feed.rest(due_at);
        }
        let believed_ahead_ms = self.mapper.believed_ahead_ms();
        let mut updates = std::mem::take(&mut self.output.updates);
        for mut update in updates.drain(..) {
            if update.distrust_time(believed_ahead_ms) {
                step.skipped.push(Reason::BadTime);
            }
            if let Payload::Status(status) = &update.payload {
                match status.state {
                    ChannelState::Up => self.troubles.remove(&update.channel),
                    ChannelState::Down | ChannelState::Resyncing => {
                        self.troubles.insert(update.channel.clone(), status.clone())
                    }
                };
            }
            if !self.channels.contains(&update.channel) {
                self.channels.insert(update.channel.clone());
                if self.is_active {
                    self.owed.insert(update.channel.clone());
                }
            }
            if self.is_told(&update, step) {
                pass(&mut self.throttle, update, self.now_ms, &mut self.passed);
            }
        }
        self.output.updates = updates;
        for History { channel, candles } in self.output.history.drain(..) {
            let past = candles.into_iter().map(|candle| Update::past(channel.clone(), candle).into_event());
            let bodies = past.filter_map(|event| event.ok().map(|event| event.body)).collect();
            step.history.push((channel, bodies));
        }
        step.requests.append(&mut self.output.requests);
        step.skipped.append(&mut self.output.skipped);
        step.resyncs.append(&mut self.output.resyncs);
        step.lost_trades += std::mem::take(&mut self.output.lost_trades);
        self.render(step);
    }

    /// Whether an update is to be told; what it means for its channel is told before it.
    fn is_told(&mut self, update: &Update, step: &mut Step) -> bool {
        let channel = &update.channel;
        if update.payload.is_status() {
            self.owed.remove(channel);
            // All are told to be down then, and how each is when the venue is back.
            return self.feed.down().is_none();
        }
        // Of one that is silent here others may have heard more.
        if update.is_again && self.rhythms.told(channel).is_some() {
            return false;
        }
        let is_past = self.now_ms.saturating_sub(update.ts) > PAST_MS;
        let was_silent = !update.is_again && self.rhythms.note(channel, self.now_ms, is_past);
        if !self.owed.is_empty() && self.is_judged() && self.owed.remove(channel) {
            step.states.extend(self.state(channel.clone()).into_event());
        } else if was_silent {
            let state = self.state(channel.clone());
            pass(&mut self.throttle, state, self.now_ms, &mut self.passed);
        }
        true
    }

    fn render(&mut self, step: &mut Step) {
        for update in self.passed.drain(..) {
            let (kind, received_ms) = (update.channel.kind(), update.received_at());
            step.times.extend(update.venue_time().map(|venue_ms| Times { kind, venue_ms, received_ms }));
            match update.into_event() {
                Ok(event) => step.events.push(event),
                Err(_) => step.skipped.push(Reason::BadShape),
            }
        }
    }
}

/// That a channel is silent for longer than is usual for it.
fn stale(silent: Silent, now_ms: i64) -> Update {
    let Silent { channel, since, usual_ms } = silent;
    let seconds = now_ms.saturating_sub(since) / 1000;
    let reason = format!("no event for {seconds} s, where its longest pause was {usual_ms} ms");
    Update::stale(channel, since, reason, now_ms)
}

fn pass(throttle: &mut Option<Throttle>, update: Update, now_ms: i64, passed: &mut Vec<Update>) {
    match throttle {
        Some(throttle) => throttle.offer(update, now_ms, passed),
        None => passed.push(update),
    }
}

#[cfg(test)]
mod tests;
