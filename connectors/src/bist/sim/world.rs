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

/// A message of a type that no specification has.
const UNKNOWN: &[u8] = b"q\0\0\0\0what is this";

/// Where messages come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Days of an exchange, one after the other.
    Generated { symbols: Vec<String>, rate: u32, seed: u64, day: Day, exchange: Box<Exchange> },
    /// One recording, once.
    Recorded(Box<Playback>),
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
    /// How often connections were cut, and whether in the middle of a message.
    pub(super) cuts: (u64, bool),
}

impl World {
    pub(super) fn generated(symbols: Vec<String>, rate: u32, seed: u64, day: Day, now: Instant) -> Self {
        let (exchange, tape, start) = begin(&symbols, rate, seed, day, 0);
        let origin = Origin::Generated { symbols, rate, seed, day, exchange: Box::new(exchange) };
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
        if let Origin::Generated { symbols, rate, seed, day, exchange } = &mut self.origin {
            let (next, tape, start) = begin(symbols, *rate, *seed, *day, self.sessions);
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

    /// The messages of a snapshot, and after how many of them it dies; `None`: a recording has no state to tell.
    pub(super) fn snapshot(&mut self) -> Option<(Vec<Vec<u8>>, Option<usize>)> {
        let Origin::Generated { exchange, .. } = &self.origin else { return None };
        let messages = exchange.snapshot(self.tape.next());
        let dies = take(&mut self.glimpse_dies.0).then_some(self.glimpse_dies.1);
        Some((messages, dies))
    }

    /// Makes a fault happen.
    pub(super) fn fault(&mut self, fault: Fault, now: Instant) {
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
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A day's exchange, its tape, and the time at which it begins.
fn begin(symbols: &[String], rate: u32, seed: u64, day: Day, number: u64) -> (Exchange, Tape, u64) {
    let now = Duration::from_millis(u64::try_from(crate::outlet::now_ms()).unwrap_or_default());
    let today = now.as_secs() / DAY;
    let (start, plans, date) = match day {
        Day::Present => (now, day::continuous(), today),
        Day::Whole { .. } => {
            let date = trading_day(today.saturating_sub(DAYS_BACK), number);
            (Duration::from_secs(date * DAY) + OPENING, day::whole(), date)
        }
    };
    let every = Duration::from_secs(1).mul_f64(day.speed() / f64::from(rate.max(1)));
    let start = nanoseconds(start);
    let exchange = Exchange::new(symbols, seed.wrapping_add(number), start, nanoseconds(every), &plans);
    let session = SessionId::new(&format!("TR{:06}{:02}", date % 1_000_000, number % 100));
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
    use super::*;

    #[test]
    fn trading_days_leave_weekends_out() {
        // 2 January 1970 was a Friday.
        assert_eq!((0..4).map(|number| trading_day(1, number)).collect::<Vec<_>>(), [1, 4, 5, 6]);
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
}
