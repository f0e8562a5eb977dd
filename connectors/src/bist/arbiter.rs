//! Makes one feed of the lines of a MoldUDP64 channel: every sequence number once and in order, or told as lost.
//!
//! Both lines carry the same packets, so whichever brings a number first is taken. What neither brought is asked
//! for at the rewinder, after a moment in which the other line may still bring it. A gap that cannot be closed is
//! given up: the next packet that is handed on then begins above the number that was expected.
//!
//! Plain and synchronous: packets and the time in, [`Step`]s out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::mold::{self, Kind, MoldError, Packet, Request, SessionId};

/// How long the other line, or a packet that was overtaken, may take before a gap is a gap.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long an answer of the rewinder may take before it is asked again.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);

/// How often the rewinder is asked without any progress before a gap is given up.
const MOST_TRIES: u32 = 5;

/// The most that is asked for at once. A reply has at most 1440 bytes at Borsa Istanbul, and in these the smallest
/// message of ITCH, with its length, fits so often.
const MOST_ASKED: u64 = (1440 - mold::HEADER_BYTES as u64) / 7;

/// The longest gap that is worth asking for, in messages. On a real day the worst line lost 119,690.
const MOST_MISSING: u64 = 200_000;

/// How much may wait behind a gap, in bytes; then the gap is given up.
const MOST_PENDING: usize = 32 << 20;

/// What a packet that waits costs beside its bytes.
const PENDING_OVERHEAD: usize = 64;

/// A sequence so far ahead is believed when so many packets in a row agree on it: a single one may be damaged.
const FAR_PACKETS: usize = 3;

/// Another session is believed when the one before has ended, or has been silent for so long, three heartbeats, while the other
/// was heard: where all were silent, the first one that is heard again need not be the one that was followed.
const SESSION_SILENCE: Duration = Duration::from_secs(3);

/// So many packets of another session are needed beside: a single one may be damaged.
const OTHER_PACKETS: usize = 3;

/// How many sessions that have ended are remembered, so that a late packet of theirs does not bring them back.
const PAST_SESSIONS: usize = 8;

/// What the arbiter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A packet to hand on: the next messages, a heartbeat, or the end of the session.
    Packet(Vec<u8>),
    /// To be sent to the rewinder.
    Ask(Request),
    /// So many messages are lost for good.
    Lost(u64),
}

/// The state of one channel.
#[derive(Debug)]
pub(crate) struct Arbiter {
    has_rewinder: bool,
    session: Option<Running>,
    /// Heard since the one that is followed was heard last.
    other: Option<Other>,
    /// Those that have ended. One that only fell silent may come back.
    past: VecDeque<SessionId>,
    passed_over: PassedOver,
    steps: VecDeque<Step>,
}

/// The session that is followed.
#[derive(Debug)]
struct Running {
    id: SessionId,
    /// The next number to hand on.
    next: u64,
    /// One above the highest number that is known to exist.
    top: u64,
    /// Packets that lie ahead, by their first number.
    pending: BTreeMap<u64, Vec<u8>>,
    pending_bytes: usize,
    gap: Option<Gap>,
    far: Option<Far>,
    ended: bool,
    heard_at: Instant,
}

/// Numbers that are missing before the first pending packet, or before `top`.
#[derive(Debug)]
struct Gap {
    /// When to ask, or to ask again, or to give up.
    act_at: Instant,
    /// How often was asked since the last progress.
    tries: u32,
}

/// Packets that are too far ahead to be believed yet, fewer than [`FAR_PACKETS`].
#[derive(Debug)]
struct Far {
    /// Of the first of them.
    sequence: u64,
    packets: Vec<Vec<u8>>,
}

/// Another session, which may be followed next.
#[derive(Debug)]
struct Other {
    id: SessionId,
    since: Instant,
    heard_at: Instant,
    /// How many packets were heard, and those of them that are kept for the case that it is followed.
    count: usize,
    packets: Vec<Vec<u8>>,
    bytes: usize,
}

/// Packets of other sessions than the one that is followed: of another channel, most likely.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PassedOver {
    /// How many.
    pub(crate) packets: usize,
    /// What the last of them was of.
    pub(crate) session: Option<SessionId>,
}

impl PassedOver {
    fn add(&mut self, session: SessionId, packets: usize) {
        (self.packets, self.session) = (self.packets + packets, Some(session));
    }
}

impl Arbiter {
    pub(crate) fn new(has_rewinder: bool) -> Self {
        let (past, steps, passed_over) = (VecDeque::new(), VecDeque::new(), PassedOver::default());
        Self { has_rewinder, session: None, other: None, past, steps, passed_over }
    }

    /// What to do next; to be asked until there is nothing.
    pub(crate) fn step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// When [`Arbiter::on_time`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        Some(self.session.as_ref()?.gap.as_ref()?.act_at)
    }

    /// The number that is handed on next.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.session.as_ref().map_or(1, |running| running.next)
    }

    /// The session that is followed.
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|running| running.id)
    }

    /// What was passed over since this was asked last. Packets that are kept, for the case that their session is followed, are not.
    pub(crate) fn take_passed_over(&mut self) -> PassedOver {
        std::mem::take(&mut self.passed_over)
    }

    /// Takes a datagram of any line or of the rewinder. One that is late of a session that has ended is of no use to anybody.
    pub(crate) fn on_datagram(&mut self, bytes: &[u8], now: Instant) -> Result<(), MoldError> {
        let packet = Packet::parse(bytes)?;
        let id = packet.session;
        if self.past.contains(&id) {
            return Ok(());
        }
        match &self.session {
            Some(running) if running.id == id => self.pass_over_other(),
            Some(running) if !running.ended => {
                if !self.hear_other(&packet, bytes, now) {
                    return Ok(());
                }
                self.begin(id, now);
            }
            Some(_) | None => self.begin(id, now),
        }
        self.take(&packet, bytes, now);
        Ok(())
    }

    /// Nothing more comes.
    pub(crate) fn end(&mut self) {
        self.pass_over_other();
    }

    /// Asks, asks again, or gives up, whatever is due.
    pub(crate) fn on_time(&mut self, now: Instant) {
        if let Some(running) = &mut self.session {
            running.look_at_gap(now, self.has_rewinder, &mut self.steps);
        }
    }

    /// Follows a session from its first message on, with what was kept of it.
    fn begin(&mut self, id: SessionId, now: Instant) {
        let kept = self.other.take_if(|other| other.id == id);
        self.pass_over_other();
        if let Some(old) = self.session.replace(Running::new(id, now))
            && old.ended
        {
            if self.past.len() == PAST_SESSIONS {
                self.past.pop_front();
            }
            self.past.push_back(old.id);
        }
        for bytes in kept.into_iter().flat_map(|other| other.packets) {
            // It was a packet when it was kept.
            if let Ok(packet) = Packet::parse(&bytes) {
                self.take(&packet, &bytes, now);
            }
        }
    }

    /// The session that may have been the next one is not.
    fn pass_over_other(&mut self) {
        if let Some(other) = self.other.take() {
            self.passed_over.add(other.id, other.count);
        }
    }

    /// Takes a packet of the session that is followed.
    fn take(&mut self, packet: &Packet<'_>, bytes: &[u8], now: Instant) {
        if let Some(running) = &mut self.session {
            running.heard_at = now;
            running.take(packet, bytes, now, self.has_rewinder, &mut self.steps);
        }
    }

    /// Takes a packet of another session than the one that is followed; whether it is to be followed now.
    fn hear_other(&mut self, packet: &Packet<'_>, bytes: &[u8], now: Instant) -> bool {
        let id = packet.session;
        // Of several the first is heard out, until it is silent itself.
        let is_free = |other: &mut Other| other.id != id && now.duration_since(other.heard_at) >= SESSION_SILENCE;
        if let Some(silent) = self.other.take_if(is_free) {
            self.passed_over.add(silent.id, silent.count);
        }
        let new = || Other { id, since: now, heard_at: now, count: 0, packets: Vec::new(), bytes: 0 };
        let other = self.other.get_or_insert_with(new);
        if other.id != id {
            self.passed_over.add(id, 1);
            return false;
        }
        (other.count, other.heard_at) = (other.count + 1, now);
        if other.count >= OTHER_PACKETS && now.duration_since(other.since) >= SESSION_SILENCE {
            return true;
        }
        // What does not fit is asked for later.
        other.bytes += bytes.len() + PENDING_OVERHEAD;
        if other.bytes <= MOST_PENDING {
            other.packets.push(bytes.to_vec());
        }
        false
    }
}

impl Running {
    fn new(id: SessionId, now: Instant) -> Self {
        Self {
            id,
            next: 1,
            top: 1,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            gap: None,
            far: None,
            ended: false,
            heard_at: now,
        }
    }

    fn take(
        &mut self,
        packet: &Packet<'_>,
        bytes: &[u8],
        now: Instant,
        has_rewinder: bool,
        steps: &mut VecDeque<Step>,
    ) {
        let Some(confirmed) = self.believe(packet, bytes) else { return };
        for bytes in confirmed {
            // It was a packet when it was kept.
            if let Ok(packet) = Packet::parse(&bytes) {
                self.put(&packet, &bytes, steps);
            }
        }
        self.put(packet, bytes, steps);
        self.drain(steps);
        if self.pending_bytes > MOST_PENDING {
            self.give_up(steps);
        }
        self.look_at_gap(now, has_rewinder, steps);
        if packet.kind == Kind::End && packet.sequence == self.next {
            steps.push_back(Step::Packet(bytes.to_vec()));
        }
    }

    /// Whether the sequence can be true: not far ahead of everything known, or confirmed by packets before it. Those are
    /// given, because what is joined late begins with them. `None`: the packet is kept until others confirm it.
    fn believe(&mut self, packet: &Packet<'_>, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let far = self.far.take();
        if packet.sequence <= self.top.saturating_add(MOST_MISSING) {
            return Some(Vec::new());
        }
        let mut far = far
            .filter(|far| packet.sequence.abs_diff(far.sequence) <= MOST_MISSING)
            .unwrap_or(Far { sequence: packet.sequence, packets: Vec::new() });
        if far.packets.len() + 1 >= FAR_PACKETS {
            return Some(far.packets);
        }
        far.packets.push(bytes.to_vec());
        self.far = Some(far);
        None
    }

    /// Takes a packet whose sequence is believed.
    fn put(&mut self, packet: &Packet<'_>, bytes: &[u8], steps: &mut VecDeque<Step>) {
        self.top = self.top.max(packet.next_sequence());
        match packet.kind {
            Kind::Messages(_) if packet.sequence <= self.next => self.hand_on(packet, bytes, steps),
            Kind::Messages(_) => self.keep(packet, bytes),
            Kind::Heartbeat if packet.sequence == self.next => steps.push_back(Step::Packet(bytes.to_vec())),
            Kind::Heartbeat => {}
            Kind::End => self.ended = true,
        }
    }

    /// Hands on what is new of a packet that begins at or below the next number.
    fn hand_on(&mut self, packet: &Packet<'_>, bytes: &[u8], steps: &mut VecDeque<Step>) {
        let news = if packet.sequence == self.next { Some(bytes.to_vec()) } else { packet.from_sequence(self.next) };
        if let Some(news) = news {
            self.next = packet.next_sequence();
            // What the rewinder brings is not all of it when much is missing: the rest is asked for at once. Where it
            // was not asked yet, what is missing now is another gap, with a moment of its own.
            self.gap = self.gap.take().filter(|gap| gap.tries > 0).map(|_| Gap { act_at: self.heard_at, tries: 0 });
            steps.push_back(Step::Packet(news));
        }
    }

    fn keep(&mut self, packet: &Packet<'_>, bytes: &[u8]) {
        let before = self.pending.get(&packet.sequence).map_or(0, |kept| kept.len() + PENDING_OVERHEAD);
        let weight = bytes.len() + PENDING_OVERHEAD;
        if before < weight {
            self.pending_bytes += weight - before;
            self.pending.insert(packet.sequence, bytes.to_vec());
        }
    }

    /// Hands on what has become next.
    fn drain(&mut self, steps: &mut VecDeque<Step>) {
        while let Some(first) = self.pending.first_entry().filter(|first| *first.key() <= self.next) {
            let bytes = first.remove();
            self.pending_bytes -= bytes.len() + PENDING_OVERHEAD;
            // It was a packet when it was kept.
            if let Ok(packet) = Packet::parse(&bytes) {
                self.hand_on(&packet, &bytes, steps);
            }
        }
    }

    /// One above the last number that is missing.
    fn gap_end(&self) -> u64 {
        self.pending.first_key_value().map_or(self.top, |(&first, _)| first)
    }

    fn look_at_gap(&mut self, now: Instant, has_rewinder: bool, steps: &mut VecDeque<Step>) {
        let missing = self.gap_end() - self.next;
        if missing == 0 {
            self.gap = None;
            return;
        }
        if missing > MOST_MISSING {
            return self.give_up(steps);
        }
        let (id, sequence) = (self.id, self.next);
        let gap = self.gap.get_or_insert(Gap { act_at: now + PATIENCE, tries: 0 });
        if now < gap.act_at {
            return;
        }
        if !has_rewinder || gap.tries == MOST_TRIES {
            return self.give_up(steps);
        }
        gap.tries += 1;
        gap.act_at = now + ANSWER_WITHIN;
        let count = u16::try_from(missing.min(MOST_ASKED)).unwrap_or(mold::MOST_MESSAGES);
        steps.push_back(Step::Ask(Request { session: id, sequence, count }));
    }

    /// Goes on behind the gap.
    fn give_up(&mut self, steps: &mut VecDeque<Step>) {
        let end = self.gap_end();
        steps.push_back(Step::Lost(end - self.next));
        self.next = end;
        self.gap = None;
        self.drain(steps);
    }
}

/// Takes pieces as datagrams, a moment apart from each other, with and without a rewinder.
///
/// # Panics
///
/// When what is handed on of a session goes back or leaves something out without a word.
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz_lines(pieces: &[&[u8]]) {
    for has_rewinder in [false, true] {
        let (mut arbiter, mut now) = (Arbiter::new(has_rewinder), Instant::now());
        let (mut session, mut next) = (None, 1);
        for piece in pieces {
            now += PATIENCE;
            let _ = arbiter.on_datagram(piece, now);
            arbiter.on_time(now);
            while let Some(step) = arbiter.step() {
                match step {
                    Step::Packet(bytes) => {
                        let packet = Packet::parse(&bytes).ok();
                        let Some(packet) = packet else { unreachable!("what is handed on is a packet") };
                        if session.replace(packet.session) != Some(packet.session) {
                            next = 1;
                        }
                        assert!(packet.sequence >= next, "{} after {next}", packet.sequence);
                        next = packet.next_sequence();
                    }
                    Step::Ask(request) => assert!(request.count > 0),
                    Step::Lost(lost) => assert!(lost > 0),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
