//! Serves WebSockets: one thread for each core, which owns its connections outright.
//!
//! A shard is a loop over its sockets, its inbox and its timers. Everything that concerns a connection happens on its thread, so nothing on
//! the way of a delivery is locked or shared. There is no task for a connection: the loop walks those that something happened to, and writes to
//! each of them once.
//!
//! The loop waits with `mio` itself and not inside a runtime: one wake brings all sockets with their places, where tasks would need one
//! each to be woken by. What has to wait for the log runs as a task on the runtime and answers through the inbox.

mod conn;
mod desk;
mod gather;
mod inbox;
mod liveness;
mod news;
mod pace;
mod pool;
mod topics;
mod weight;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use akis_model::CloseCode;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tracing::{error, warn};

use self::conn::{Conn, End, NO_TOPIC, Progress};
use self::desk::Desk;
use self::gather::Style;
pub(crate) use self::inbox::Inbox;
use self::inbox::{ConnKey, Message};
pub(crate) use self::pool::{Newcomer, Seed, Shards};
use crate::clock::Now;
use crate::session::{Action, ActionKind, Session};

/// Socket events of one turn.
const EVENTS: usize = 1024;

/// See the module's documentation.
struct Shard {
    poll: Poll,
    conns: Slab<Box<Conn>>,
    desk: Desk,
    /// Connections of this shard and on their way to it.
    load: Arc<AtomicUsize>,
    messages: Vec<Message>,
    /// Places of connections that something happened to in this turn.
    touched: Vec<u32>,
    /// Connections that have more to read or write than one turn takes.
    again: Vec<ConnKey>,
    /// Connections that gather, in the order in which they may be written.
    gathering: VecDeque<(Instant, ConnKey)>,
    timers: BinaryHeap<Reverse<(Instant, ConnKey)>>,
    is_upstream_away: bool,
    is_draining: bool,
    measure_at: Instant,
}

impl Shard {
    fn new(poll: Poll, desk: Desk, load: Arc<AtomicUsize>) -> Self {
        desk.context.surroundings.metrics.set_coalesce(desk.number, desk.pace.current());
        Self {
            poll,
            conns: Slab::new(),
            desk,
            load,
            messages: Vec::new(),
            touched: Vec::new(),
            again: Vec::new(),
            gathering: VecDeque::new(),
            timers: BinaryHeap::new(),
            is_upstream_away: false,
            is_draining: false,
            measure_at: Instant::now(),
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                error!(%error, "a shard cannot wait for its sockets and ends");
                return;
            }
            let now = Now::read();
            if !self.turn(&events, now) {
                return;
            }
            if let Some(coalesce) = self.desk.pace.worked(now.instant, Instant::now()) {
                self.desk.context.surroundings.metrics.set_coalesce(self.desk.number, coalesce);
            }
        }
    }

    /// Does everything that there is to do at this moment. Gives whether the shard goes on.
    fn turn(&mut self, events: &Events, now: Now) -> bool {
        if !self.take_messages(now) {
            return false;
        }
        self.run_again(now);
        self.run_intervals(now);
        events.iter().for_each(|event| self.on_event(event, now));
        self.run_timers(now);
        self.settle_touched(now);
        self.desk.report();
        self.relieve(now);
        self.measure(now);
        true
    }

    /// How long there is nothing to do; `None` without an end.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.desk.inbox.fall_asleep() {
            return Some(Duration::ZERO);
        }
        let gathered = self.gathering.front().map(|(at, _)| *at);
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let interval = self.desk.topics.groups.next_at();
        let next = [gathered, timer, interval].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Gives whether the shard goes on.
    fn take_messages(&mut self, now: Now) -> bool {
        let mut messages = std::mem::take(&mut self.messages);
        let missed = self.desk.inbox.drain(&mut messages);
        for message in messages.drain(..) {
            match message {
                Message::Batch(batch) => self.on_batch(&batch, now),
                Message::Joined { conn, channel, token, joined } => self.on_joined(conn, &channel, token, joined, now),
                Message::Listed { conn, token, listed } => self.on_listed(conn, token, listed, now),
                Message::Adopt(newcomer) => self.adopt(*newcomer, now),
                Message::Upstream(is_reachable) => {
                    self.is_upstream_away = !is_reachable;
                    self.for_all(|conn| conn.session.on_upstream(is_reachable, now));
                }
                Message::Revoked => {
                    let heartbeat = self.desk.heartbeat(now);
                    self.for_all(|conn| conn.session.on_tick(now, || heartbeat.clone()));
                }
                Message::Drain => {
                    self.is_draining = true;
                    let period = self.desk.context.surroundings.config.drain;
                    self.for_all(|conn| conn.drain(period, now));
                }
                Message::Stop => self.stop(now),
                Message::End => return false,
            }
        }
        self.messages = messages;
        missed.into_iter().for_each(|partition| self.on_missed(partition));
        true
    }

    fn for_all(&mut self, mut act: impl FnMut(&mut Conn)) {
        for (place, conn) in &mut self.conns {
            act(conn);
            touch(&mut self.touched, place as u32, conn);
        }
    }

    fn adopt(&mut self, newcomer: Newcomer, now: Now) {
        let Newcomer { stream, greeting, already_read, grant, takes_batches, takes_compressed, seat } = newcomer;
        let context = &self.desk.context;
        let (id, name) = context.new_connection();
        let mut session = Session::new(Arc::clone(&context.surroundings), grant, &name, now);
        if self.is_upstream_away {
            session.on_upstream(false, now);
        }
        let style = Style { is_packed: takes_batches, is_deflated: takes_compressed };
        let entry = self.conns.vacant_entry();
        let key = ConnKey { place: entry.key() as u32, id };
        let stream = mio::net::TcpStream::from_std(stream);
        let mut conn = Box::new(Conn::new(key, stream, session, style, seat, now));
        // Both for good: a socket that was full says so once when it takes bytes again.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(conn.stream(), Token(entry.key()), interest) {
            warn!(%error, "failed to wait for a new socket");
            self.load.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        context.surroundings.metrics.connections.inc();
        context.surroundings.metrics.opened.inc();
        if self.is_draining {
            conn.drain(context.surroundings.config.drain, now);
        }
        let begun = conn
            .greet(&greeting, &mut self.desk, now)
            .and_then(|()| conn.decode(&mut already_read.to_vec(), &mut self.desk, now));
        touch(&mut self.touched, key.place, &mut conn);
        entry.insert(conn);
        if let Err(end) = begun {
            self.end(key.place, end, now);
        }
    }

    fn stop(&mut self, now: Now) {
        let places: Vec<u32> = self.conns.iter().map(|(place, _)| place as u32).collect();
        for place in places {
            self.end(place, End::Close(CloseCode::GoingAway), now);
        }
    }

    fn on_event(&mut self, event: &Event, now: Now) {
        let Some(conn) = self.conns.get_mut(event.token().0) else { return };
        let key = conn.key;
        touch(&mut self.touched, key.place, conn);
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let is_closing = event.is_read_closed() || event.is_error();
            self.read(key, is_closing, now);
        }
    }

    fn read(&mut self, key: ConnKey, is_closing: bool, now: Now) {
        let Some(conn) = find(&mut self.conns, key) else { return };
        match conn.read(&mut self.desk, is_closing, now) {
            Ok(Progress::Done) => {}
            Ok(Progress::More) => self.again.push(key),
            Err(end) => self.end(key.place, end, now),
        }
    }

    fn run_again(&mut self, now: Now) {
        for key in std::mem::take(&mut self.again) {
            if let Some(conn) = find(&mut self.conns, key) {
                touch(&mut self.touched, key.place, conn);
                self.read(key, true, now);
            }
        }
    }

    fn run_timers(&mut self, now: Now) {
        while let Some((_, key)) = self.gathering.pop_front_if(|(at, _)| *at <= now.instant) {
            if let Some(conn) = find(&mut self.conns, key) {
                conn.is_gathering = false;
                touch(&mut self.touched, key.place, conn);
            }
        }
        while let Some(Reverse((at, key))) = self.timers.peek().copied()
            && at <= now.instant
        {
            self.timers.pop();
            // One that was set again for an earlier moment has been told then.
            let Some(conn) = find(&mut self.conns, key).filter(|conn| conn.timer_at == Some(at)) else { continue };
            conn.timer_at = None;
            touch(&mut self.touched, key.place, conn);
            if let Err(end) = conn.on_time(&mut self.desk, now) {
                self.end(key.place, end, now);
            }
        }
    }

    fn settle_touched(&mut self, now: Now) {
        let mut touched = std::mem::take(&mut self.touched);
        for place in touched.drain(..) {
            self.settle(place, now);
        }
        self.touched = touched;
    }

    /// Does for a connection everything that can be done without waiting.
    fn settle(&mut self, place: u32, now: Now) {
        let Some(conn) = self.conns.get_mut(place as usize).filter(|conn| conn.is_touched) else { return };
        conn.is_touched = false;
        let key = conn.key;
        match advance(conn, &mut self.desk, now) {
            Ok(None) => {}
            Ok(Some(at)) if at <= now.instant => self.again.push(key),
            Ok(Some(at)) => {
                if !std::mem::replace(&mut conn.is_gathering, true) {
                    self.gathering.push_back((at, key));
                }
            }
            Err(end) => return self.end(place, end, now),
        }
        if conn.resumes() {
            self.again.push(key);
            if let Err(end) = conn.decode(&mut [], &mut self.desk, now) {
                return self.end(place, end, now);
            }
        }
        self.arm(place, now);
    }

    fn arm(&mut self, place: u32, now: Now) {
        let Some(conn) = self.conns.get_mut(place as usize) else { return };
        let at = conn.wake_at(now);
        if conn.timer_at.is_none_or(|armed| at < armed) {
            conn.timer_at = Some(at);
            self.timers.push(Reverse((at, conn.key)));
        }
    }

    /// Ends a connection: at once, or by saying why first.
    fn end(&mut self, place: u32, end: End, now: Now) {
        let Some(conn) = self.conns.get_mut(place as usize) else { return };
        if let End::Cut(code) = end {
            self.desk.context.surroundings.metrics.closed(code);
        }
        if let End::Close(code) = end {
            if conn.is_leaving() {
                return;
            }
            self.desk.context.surroundings.metrics.closed(code);
            let said = conn.say_goodbye(code, &mut self.desk, now);
            conn.session.leave_all();
            carry_out(conn, &mut self.desk);
            // Its queues are gone: nobody has to give way for them while it leaves.
            add_tally(conn, &mut self.desk);
            if said.is_ok() {
                // What was read before its end is no longer looked at, but it has to be taken from the socket.
                self.again.push(conn.key);
                return self.arm(place, now);
            }
        }
        let mut conn = self.conns.remove(place as usize);
        conn.give_up();
        carry_out(&mut conn, &mut self.desk);
        add_tally(&mut conn, &mut self.desk);
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.desk.context.surroundings.metrics.connections.dec();
    }
}

/// Marks a connection as one that something happened to.
fn touch(touched: &mut Vec<u32>, place: u32, conn: &mut Conn) {
    if !std::mem::replace(&mut conn.is_touched, true) {
        touched.push(place);
    }
}

fn find(conns: &mut Slab<Box<Conn>>, key: ConnKey) -> Option<&mut Conn> {
    conns.get_mut(key.place as usize).map(Box::as_mut).filter(|conn| conn.key == key)
}

/// Gives the moment at which the rest may be written, when it has to wait for it.
fn advance(conn: &mut Conn, desk: &mut Desk, now: Now) -> Result<Option<Instant>, End> {
    carry_out(conn, desk);
    if conn.is_leaving() {
        conn.flush(desk, now)?;
        add_tally(conn, desk);
        return Ok(None);
    }
    let rest_at = conn.write(desk, now)?;
    add_tally(conn, desk);
    // Writing may have asked for the next part of a replay, or made room for the next request.
    carry_out(conn, desk);
    match conn.session.closing() {
        Some(code) => Err(End::Close(code)),
        None if rest_at.is_none() && conn.can_write() => Ok(Some(now.instant)),
        None => Ok(rest_at),
    }
}

fn add_tally(conn: &mut Conn, desk: &mut Desk) {
    let tally = conn.tally();
    desk.tally.delivered += tally.delivered;
    desk.tally.queued_change += tally.queued_change;
}

/// Does what the session wants done outside.
fn carry_out(conn: &mut Conn, desk: &mut Desk) {
    for action in conn.session.actions() {
        let (channel, slot, kind) = match action {
            Action::Channel { channel, slot, kind } => (channel, slot, kind),
            Action::List { token } => {
                conn.wait_for(desk.list(conn.key, token));
                continue;
            }
        };
        let at = slot as usize;
        match kind {
            ActionKind::Join { from, token } => {
                if conn.topics.len() <= at {
                    conn.topics.resize(at + 1, NO_TOPIC);
                }
                if let Some(topic) = conn.topics.get_mut(at)
                    && *topic == NO_TOPIC
                {
                    *topic = desk.subscribe(&channel, (conn.key.place, slot)).unwrap_or(NO_TOPIC);
                }
                if let Some(joining) = desk.join(conn.key, channel, from, token) {
                    conn.wait_for(joining);
                }
            }
            ActionKind::Pace { interval, ready_at } => {
                if let Some(topic) = conn.topics.get(at)
                    && let Some(owed) = desk.topics.pace(*topic, (conn.key.place, slot), interval, ready_at)
                {
                    conn.session.on_newest(slot, &owed);
                }
            }
            ActionKind::Leave => {
                if let Some(topic) = conn.topics.get_mut(at)
                    && *topic != NO_TOPIC
                {
                    desk.unsubscribe(std::mem::replace(topic, NO_TOPIC), (conn.key.place, slot));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
