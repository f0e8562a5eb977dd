//! What everything in the stand-in looks at: the exchange or the recording, the tape, and the faults.

use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::fault::{Fault, Faulty, RefusalReason, take};
use super::playback::Playback;
use super::tape::Tape;
use super::{Day, day};
use crate::bist::mold::{self, SessionId};

/// The most bytes of a packet on a line: what fits into an Ethernet frame.
const PACKET_BYTES: usize = 1400;

/// The most bytes of the rewinder's answers.
const REWIND_BYTES: usize = 1440;

/// How often a line without messages says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the end of a session is told before the next one begins.
const BETWEEN_SESSIONS: Duration = Duration::from_secs(3);

/// How many days before the present the first of the whole days lies, so that none of a long run is in the future.
const DAYS_BACK: u64 = 60;

/// 09:40 in Istanbul, as time of the day in UTC.
const OPENING: Duration = Duration::from_secs(6 * 3600 + 40 * 60);

const DAY: u64 = 24 * 3600;

/// Most instruments that are listed; the exchange has some thousands.
const MOST_SYMBOLS: usize = 5_000;

/// A message of a type that no specification has.
const UNKNOWN: &[u8] = b"q\0\0\0\0what is this";

/// Where messages come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Days of an exchange, one after the other.
    Generated { symbols: Vec<String>, rate: u32, seed: u64, day: Day, started: Duration, exchange: Box<Exchange> },
    /// One recording, once.
    Recorded(Box<Playback>),
}

/// A snapshot, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) messages: Vec<Vec<u8>>,
    /// After how many messages it dies.
    pub(super) dies_after: Option<usize>,
    /// Whether it comes byte by byte.
    pub(super) drips: bool,
}

/// The state of the stand-in.
#[derive(Debug)]
pub(super) struct World {
    origin: Origin,
    pub(super) tape: Tape,
    /// When the session began, and the time in the exchange then: nanoseconds since the epoch.
    began: (Instant, u64),
    /// How many sessions there were before.
    sessions: u64,
    ended_at: Option<Instant>,
    pub(super) lines: [Faulty; 2],
    /// The number that the lines send next.
    sent: u64,
    said_at: Instant,
    pub(super) silent_until: Option<Instant>,
    rewinder_loss: u32,
    refuse: (u32, RefusalReason),
    glimpse_dies: (u32, usize),
    slow_loris: u32,
    /// How often connections were cut, and whether in the middle of a message.
    pub(super) cuts: (u64, bool),
}

impl World {
    pub(super) fn generated(symbols: Vec<String>, rate: u32, seed: u64, day: Day, now: Instant) -> Self {
        let started = since_epoch();
        let (exchange, tape, start) = begin(&symbols, rate, seed, day, session_name(started, 0), 0);
        let origin = Origin::Generated { symbols, rate, seed, day, started, exchange: Box::new(exchange) };
        Self::new(origin, tape, (now, start))
    }

    pub(super) fn recorded(playback: Playback, now: Instant) -> Self {
        Self::new(Origin::Recorded(Box::new(playback)), Tape::new(SessionId::new("")), (now, 0))
    }

    fn new(origin: Origin, tape: Tape, began: (Instant, u64)) -> Self {
        Self {
            origin,
            tape,
            began,
            sessions: 0,
            ended_at: None,
            lines: [Faulty::default(), Faulty::default()],
            sent: 1,
            said_at: began.0,
            silent_until: None,
            rewinder_loss: 0,
            refuse: (0, RefusalReason::NotAuthorised),
            glimpse_dies: (0, 0),
            slow_loris: 0,
            cuts: (0, false),
        }
    }

    /// Lets everything happen until now.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.ended_at.is_some_and(|ended| now >= ended + BETWEEN_SESSIONS) {
            self.next_session(now);
        }
        if self.tape.is_over() {
            return;
        }
        let (began, start) = self.began;
        let elapsed = now.duration_since(began);
        let is_over = match &mut self.origin {
            Origin::Generated { day, exchange, .. } => {
                let passed = elapsed.mul_f64(day.speed());
                exchange.advance(start + nanoseconds(passed), &mut self.tape);
                exchange.is_over()
            }
            Origin::Recorded(playback) => {
                let skipped = playback.advance(elapsed, &mut self.tape);
                self.sent = if skipped { self.tape.first() } else { self.sent };
                playback.is_over()
            }
        };
        if is_over {
            self.end_session(now);
        }
    }

    fn end_session(&mut self, now: Instant) {
        self.tape.end();
        // A recording is played once.
        self.ended_at = matches!(self.origin, Origin::Generated { .. }).then_some(now);
    }

    fn next_session(&mut self, now: Instant) {
        self.ended_at = None;
        self.sessions += 1;
        if let Origin::Generated { symbols, rate, seed, day, started, exchange } = &mut self.origin {
            let session = session_name(*started, self.sessions);
            let (mut next, tape, start) = begin(symbols, *rate, *seed, *day, session, self.sessions);
            next.skew_clock(exchange.clock_skew_ms());
            **exchange = next;
            self.tape = tape;
            self.began = (now, start);
            self.sent = 1;
        }
    }

    /// What the lines send now, each with the place of its line.
    pub(super) fn packets(&mut self, now: Instant) -> Vec<(usize, Vec<u8>)> {
        let mut out: Vec<(usize, Vec<u8>)> = Vec::new();
        let send = |packet: &[u8], lines: &mut [Faulty; 2], out: &mut Vec<(usize, Vec<u8>)>| {
            for (place, line) in lines.iter_mut().enumerate() {
                out.extend(line.pass(packet.to_vec(), now).into_iter().map(|packet| (place, packet)));
            }
        };
        while self.sent < self.tape.next() {
            let packet = self.tape.packet(self.sent, u64::MAX, PACKET_BYTES);
            let count = mold::Packet::parse(&packet).map_or(0, |packet| packet.count());
            if count == 0 {
                // The tape has forgotten it already.
                self.sent = self.tape.first().max(self.sent + 1);
                continue;
            }
            self.sent += u64::from(count);
            self.said_at = now;
            send(&packet, &mut self.lines, &mut out);
        }
        if now >= self.said_at + HEARTBEAT && !self.tape.session().trimmed().is_empty() {
            self.said_at = now;
            let (session, next) = (self.tape.session(), self.tape.next());
            let packet =
                if self.tape.is_over() { mold::end_of_session(session, next) } else { mold::heartbeat(session, next) };
            send(&packet, &mut self.lines, &mut out);
        }
        for (place, line) in self.lines.iter_mut().enumerate() {
            out.extend(line.late(now).into_iter().map(|packet| (place, packet)));
        }
        if self.is_silent(now) { Vec::new() } else { out }
    }

    /// Whether nothing is sent at all.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_until.is_some_and(|until| now < until)
    }

    /// The rewinder's answer, if it gives one.
    pub(super) fn rewind(&mut self, request: &mold::Request, now: Instant) -> Option<Vec<u8>> {
        if take(&mut self.rewinder_loss) || self.is_silent(now) || request.session != self.tape.session() {
            return None;
        }
        self.tape.get(request.sequence)?;
        Some(self.tape.packet(request.sequence, request.count.into(), REWIND_BYTES))
    }

    /// Whether the next login is refused.
    pub(super) fn refusal(&mut self) -> Option<RefusalReason> {
        take(&mut self.refuse.0).then_some(self.refuse.1)
    }

    /// A snapshot of now; `None`: a recording has no state to tell.
    pub(super) fn snapshot(&mut self) -> Option<Snapshot> {
        let Origin::Generated { exchange, .. } = &self.origin else { return None };
        let messages = exchange.snapshot(self.tape.next());
        let dies_after = take(&mut self.glimpse_dies.0).then_some(self.glimpse_dies.1);
        Some(Snapshot { messages, dies_after, drips: take(&mut self.slow_loris) })
    }

    /// Makes a fault happen. An error says why it cannot.
    pub(super) fn fault(&mut self, fault: Fault, now: Instant) -> Result<(), String> {
        let until = |ms: u64| Some(now + Duration::from_millis(ms));
        let mut on = |line: super::Line, change: &dyn Fn(&mut Faulty)| {
            line.places().iter().for_each(|&place| change(&mut self.lines[place]));
        };
        match fault {
            Fault::Loss { line, packets } => on(line, &|faulty| faulty.loss = packets),
            Fault::Duplicate { line, packets } => on(line, &|faulty| faulty.duplicate = packets),
            Fault::Reorder { line, packets } => on(line, &|faulty| faulty.reorder = packets),
            Fault::Delay { line, packets, ms } => {
                on(line, &|faulty| faulty.delay = (packets, Duration::from_millis(ms)));
            }
            Fault::HalfPacket { line } => on(line, &|faulty| faulty.half = true),
            Fault::WrongSequence { line } => on(line, &|faulty| faulty.wrong_sequence = true),
            Fault::WrongSession { line } => on(line, &|faulty| faulty.wrong_session = true),
            Fault::Silence { line: Some(line), ms } => on(line, &|faulty| faulty.silent_until = until(ms)),
            Fault::Silence { line: None, ms } => self.silent_until = until(ms),
            Fault::RewinderLoss { requests } => self.rewinder_loss = requests,
            Fault::RefuseLogin { times, reason } => self.refuse = (times, reason),
            Fault::GlimpseDies { times, messages } => self.glimpse_dies = (times, messages),
            Fault::Cut {} => self.cuts = (self.cuts.0 + 1, false),
            Fault::HalfMessage {} => self.cuts = (self.cuts.0 + 1, true),
            Fault::UnknownMessage {} => {
                if matches!(self.origin, Origin::Generated { .. }) {
                    self.tape.push(UNKNOWN);
                }
            }
            Fault::NewSession {} => self.end_session(now),
            Fault::SlowLoris { times } => self.slow_loris = times,
            Fault::ClockSkew { ms } => self.running()?.1.skew_clock(ms),
            Fault::NewSymbols { count } => {
                let (symbols, exchange, tape) = self.running()?;
                let known = symbols.len();
                if known.saturating_add(count) > MOST_SYMBOLS {
                    return Err(format!("more than {MOST_SYMBOLS} instruments are too many"));
                }
                let new: Vec<String> = (known..known + count).map(|number| format!("NEW{number}.E")).collect();
                if !tape.is_over() {
                    exchange.list(&new, tape);
                }
                symbols.extend(new);
            }
        }
        Ok(())
    }

    fn running(&mut self) -> Result<(&mut Vec<String>, &mut Exchange, &mut Tape), String> {
        match &mut self.origin {
            Origin::Generated { symbols, exchange, .. } => Ok((symbols, exchange, &mut self.tape)),
            Origin::Recorded(_) => Err("a recording is played as it is".into()),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn since_epoch() -> Duration {
    Duration::from_millis(u64::try_from(crate::outlet::now_ms()).unwrap_or_default())
}

/// The name of a session. It has the moment of the start, in tenths of a second: a stand-in that is started anew counts from 1
/// again, which who followed the one before would take for messages that it has. No session is shorter than a tenth.
fn session_name(started: Duration, number: u64) -> SessionId {
    let tenths = u64::try_from(started.as_millis() / 100).unwrap_or_default();
    SessionId::new(&format!("TR{:08}", tenths.wrapping_add(number) % 100_000_000))
}

/// A day's exchange, its tape, and the time at which it begins.
fn begin(symbols: &[String], rate: u32, seed: u64, day: Day, session: SessionId, number: u64) -> (Exchange, Tape, u64) {
    let now = since_epoch();
    let (start, plans) = match day {
        Day::Present => (now, day::continuous()),
        Day::Whole { .. } => {
            let date = trading_day((now.as_secs() / DAY).saturating_sub(DAYS_BACK), number);
            (Duration::from_secs(date * DAY) + OPENING, day::whole())
        }
    };
    let every = Duration::from_secs(1).mul_f64(day.speed() / f64::from(rate.max(1)));
    let start = nanoseconds(start);
    let exchange = Exchange::new(symbols, seed.wrapping_add(number), start, nanoseconds(every), &plans);
    (exchange, Tape::new(session), start)
}

/// The trading day that comes so many after the first one on or after `from`; all in days since the epoch.
fn trading_day(from: u64, number: u64) -> u64 {
    // The epoch was a Thursday.
    let is_weekday = |date: &u64| (date + 3) % 7 < 5;
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    (from..).filter(is_weekday).nth(number).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::bist::itch::Message;

    #[test]
    fn trading_days_leave_weekends_out() {
        // 2 January 1970 was a Friday.
        assert_eq!((0..4).map(|number| trading_day(1, number)).collect::<Vec<_>>(), [1, 4, 5, 6]);
    }

    #[test]
    fn a_stand_in_that_is_started_anew_has_another_session() {
        let started = Duration::from_millis(1_793_170_800_123);
        let names = [(started, 0), (started, 1), (started + Duration::from_secs(1), 0)];
        assert_eq!(
            names.map(|(started, number)| session_name(started, number).to_string()),
            ["TR31708001", "TR31708002", "TR31708011"]
        );
    }

    #[test]
    fn a_day_follows_the_one_before_and_the_end_is_told_between() {
        let start = Instant::now();
        let day = Day::Whole { speed: 30_600.0 };
        let mut world = World::generated(vec!["A.E".into(), "B.E".into()], 2_000, 7, day, start);
        let first = world.tape.session();
        world.advance(start + Duration::from_secs(2));
        assert!(world.tape.is_over());
        let packets = world.packets(start + Duration::from_secs(2));
        let numbers: u64 = packets
            .iter()
            .filter(|(line, _)| *line == 0)
            .map(|(_, packet)| u64::from(mold::Packet::parse(packet).unwrap().count()))
            .sum();
        assert_eq!(numbers + 1, world.tape.next(), "every message goes out on each line");
        let end = world.packets(start + Duration::from_secs(3));
        assert_eq!(end[0].1, mold::end_of_session(first, world.tape.next()));
        world.advance(start + Duration::from_secs(5));
        assert_ne!(world.tape.session(), first);
        assert!(!world.tape.is_over());
    }

    #[test]
    fn instruments_are_added_and_the_clock_is_wrong_until_it_is_set_right() {
        let start = Instant::now();
        let mut world = World::generated(vec!["A.E".into(), "B.E".into()], 100, 7, Day::Present, start);
        world.advance(start);
        let said = |world: &World, from: u64| -> (Vec<u32>, HashSet<String>) {
            let (mut seconds, mut symbols) = (Vec::new(), HashSet::new());
            for number in from..world.tape.next() {
                match Message::decode(world.tape.get(number).unwrap()).unwrap() {
                    Message::Seconds(m) => seconds.push(m.second),
                    Message::Directory(m) => _ = symbols.insert(m.symbol.to_string()),
                    _ => {}
                }
            }
            (seconds, symbols)
        };
        let (first, next) = (said(&world, 1).0[0], world.tape.next());
        world.fault(Fault::ClockSkew { ms: -3_600_000 }, start).unwrap();
        world.fault(Fault::NewSymbols { count: 1_000 }, start).unwrap();
        let (seconds, symbols) = said(&world, next);
        assert_eq!((seconds, symbols.len()), (vec![first - 3_600], 1_000));
        assert!(symbols.contains("NEW1001.E"));
        assert!(world.fault(Fault::NewSymbols { count: 5_000 }, start).is_err());
        // The next session has both.
        world.fault(Fault::NewSession {}, start).unwrap();
        world.advance(start + BETWEEN_SESSIONS);
        world.advance(start + BETWEEN_SESSIONS);
        let (seconds, symbols) = said(&world, 1);
        assert!(seconds[0] < first && symbols.len() > 1_000, "{seconds:?}");
        world.fault(Fault::ClockSkew { ms: 0 }, start).unwrap();
        let next = world.tape.next();
        world.advance(start + BETWEEN_SESSIONS + Duration::from_secs(2));
        assert!(said(&world, next).0[0] >= first);
    }
}
