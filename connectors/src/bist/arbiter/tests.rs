use proptest::prelude::*;

use super::*;
use crate::bist::mold::Builder;

const SESSION: SessionId = SessionId(*b"TR26112401");

/// A packet of the messages from `first`; message `n` is the text of `n`.
fn packet(session: SessionId, first: u64, count: u64) -> Vec<u8> {
    let mut builder = Builder::new(session, first, usize::MAX);
    assert!((first..first + count).all(|n| builder.push(n.to_string().as_bytes())));
    builder.finish()
}

/// What was handed on, as numbers, and the losses between them.
#[derive(Debug, Default)]
struct Heard {
    numbers: Vec<u64>,
    lost: u64,
    heartbeats: u64,
    ended: bool,
    asked: Vec<Request>,
}

impl Heard {
    fn take(&mut self, arbiter: &mut Arbiter) {
        while let Some(step) = arbiter.step() {
            match step {
                Step::Packet(bytes) => {
                    let packet = Packet::parse(&bytes).unwrap();
                    self.heartbeats += u64::from(packet.kind == Kind::Heartbeat);
                    self.ended |= packet.kind == Kind::End;
                    for (message, n) in packet.messages().zip(packet.sequence..) {
                        assert_eq!(message, n.to_string().as_bytes(), "each message under its own number");
                        self.numbers.push(n);
                    }
                }
                Step::Ask(request) => self.asked.push(request),
                Step::Lost(count) => self.lost += count,
            }
        }
    }
}

struct Bed {
    arbiter: Arbiter,
    now: Instant,
    heard: Heard,
}

impl Bed {
    fn new(has_rewinder: bool) -> Self {
        Self { arbiter: Arbiter::new(has_rewinder), now: Instant::now(), heard: Heard::default() }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.arbiter.on_datagram(bytes, self.now).unwrap();
        self.heard.take(&mut self.arbiter);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.arbiter.on_time(self.now);
        self.heard.take(&mut self.arbiter);
    }
}

#[test]
fn the_other_line_closes_a_gap_without_the_rewinder() {
    let mut bed = Bed::new(true);
    bed.hear(&packet(SESSION, 1, 3));
    bed.hear(&packet(SESSION, 6, 2));
    assert_eq!(bed.heard.numbers, [1, 2, 3]);
    bed.hear(&packet(SESSION, 3, 3));
    bed.hear(&packet(SESSION, 6, 2));
    bed.wait(PATIENCE * 2);
    assert_eq!(bed.heard.numbers, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((bed.heard.asked.len(), bed.heard.lost), (0, 0));
}

#[test]
fn the_rewinder_is_asked_for_what_no_line_brought_and_again_for_what_did_not_fit() {
    let mut bed = Bed::new(true);
    bed.hear(&packet(SESSION, 1, 1));
    bed.hear(&packet(SESSION, 901, 1));
    assert!(bed.heard.asked.is_empty(), "not before the other line had its moment");
    bed.wait(PATIENCE);
    assert_eq!(bed.heard.asked, [Request { session: SESSION, sequence: 2, count: 202 }]);
    bed.hear(&packet(SESSION, 2, 100));
    assert_eq!(bed.heard.asked[1..], [Request { session: SESSION, sequence: 102, count: 202 }], "at once");
    bed.wait(ANSWER_WITHIN);
    assert_eq!(bed.heard.asked.len(), 3, "an answer that is lost is asked for again");
    bed.hear(&packet(SESSION, 102, 799));
    assert_eq!(bed.heard.numbers, (1..=901).collect::<Vec<_>>());
    assert_eq!(bed.heard.lost, 0);
}

#[test]
fn a_gap_at_the_end_shows_in_the_heartbeat() {
    let mut bed = Bed::new(true);
    bed.hear(&packet(SESSION, 1, 1));
    bed.hear(&mold::heartbeat(SESSION, 4));
    bed.wait(PATIENCE);
    assert_eq!(bed.heard.asked, [Request { session: SESSION, sequence: 2, count: 2 }]);
    bed.hear(&packet(SESSION, 2, 2));
    bed.hear(&mold::end_of_session(SESSION, 4));
    assert_eq!(bed.heard.numbers, [1, 2, 3]);
    assert!(bed.heard.ended);
}

#[test]
fn what_nobody_has_is_told_as_lost() {
    for has_rewinder in [true, false] {
        let mut bed = Bed::new(has_rewinder);
        bed.hear(&packet(SESSION, 1, 1));
        bed.hear(&packet(SESSION, 4, 1));
        for _ in 0..10 {
            bed.wait(ANSWER_WITHIN);
        }
        assert_eq!(bed.heard.numbers, [1, 4]);
        assert_eq!(bed.heard.lost, 2);
        assert_eq!(bed.heard.asked.len(), if has_rewinder { 5 } else { 0 });
    }
}

#[test]
fn a_late_beginning_is_a_loss_that_nobody_asks_for() {
    let mut bed = Bed::new(true);
    // The second packet was overtaken, and comes once more on the other line.
    for first in [5_000_001, 5_000_000, 5_000_000, 5_000_002] {
        assert_eq!(
            bed.heard.numbers.len(),
            if first == 5_000_002 { 2 } else { 0 },
            "believed when three packets agree"
        );
        bed.hear(&packet(SESSION, first, 1));
    }
    assert_eq!(bed.heard.numbers, [5_000_000, 5_000_001, 5_000_002], "what was not believed at first is handed on too");
    assert_eq!((bed.heard.lost, bed.heard.asked.len()), (4_999_999, 0));
}

#[test]
fn a_first_packet_with_a_wrong_number_changes_nothing() {
    let mut bed = Bed::new(true);
    bed.hear(&packet(SESSION, 1 << 40, 2));
    for first in [5_000_000, 5_000_002, 5_000_004] {
        bed.hear(&packet(SESSION, first, 2));
    }
    assert_eq!(bed.heard.numbers, (5_000_000..5_000_006).collect::<Vec<_>>());
}

#[test]
fn a_single_packet_with_a_wrong_number_changes_nothing() {
    let mut bed = Bed::new(true);
    bed.hear(&packet(SESSION, 1, 2));
    bed.hear(&packet(SESSION, 1 << 40, 2));
    for first in [3, 5, 7] {
        bed.hear(&packet(SESSION, first, 2));
        bed.hear(&packet(SESSION, (1 << 41) + first, 1));
    }
    assert_eq!(bed.heard.numbers, (1..=8).collect::<Vec<_>>());
    assert_eq!(bed.heard.lost, 0);
}

#[test]
fn another_session_takes_over_when_the_first_one_is_over() {
    let next = SessionId(*b"TR26112501");
    let mut bed = Bed::new(true);
    bed.hear(&packet(SESSION, 1, 2));
    beside(&mut bed, &packet(next, 1, 1));
    bed.hear(&packet(SESSION, 3, 1));
    assert_eq!(bed.heard.numbers, [1, 2, 3], "the running session goes on beside it");
    bed.hear(&mold::end_of_session(SESSION, 4));
    bed.hear(&packet(next, 1, 1));
    bed.hear(&packet(SESSION, 1, 3));
    bed.hear(&mold::end_of_session(SESSION, 4));
    bed.hear(&packet(next, 2, 1));
    assert_eq!(bed.heard.numbers, [1, 2, 3, 1, 2], "what is late of the old one is ignored");
}

/// What is heard of a session beside the one that is followed.
fn beside(bed: &mut Bed, bytes: &[u8]) {
    let before = bed.heard.numbers.len();
    bed.hear(bytes);
    assert_eq!(bed.heard.numbers.len(), before, "nothing is handed on");
}

/// How many packets were passed over, all of this session.
#[track_caller]
fn assert_passed_over(bed: &mut Bed, packets: usize, session: Option<SessionId>) {
    assert_eq!(bed.arbiter.take_passed_over(), PassedOver { packets, session });
}

#[test]
fn a_session_that_is_heard_while_the_one_before_is_silent_takes_over_and_loses_nothing() {
    let again = SessionId(*b"TR26112402");
    let mut bed = Bed::new(false);
    bed.hear(&packet(SESSION, 1, 3));
    bed.now += SESSION_SILENCE * 2;
    for first in 1..4 {
        beside(&mut bed, &packet(again, first, 1));
        bed.now += SESSION_SILENCE / 3;
    }
    bed.hear(&packet(again, 4, 1));
    assert_eq!((&bed.heard.numbers[..], bed.heard.lost), (&[1, 2, 3, 1, 2, 3, 4][..], 0));
    assert_passed_over(&mut bed, 0, None);
}

#[test]
fn a_session_that_fell_silent_is_followed_on_whatever_is_heard_first_after_it() {
    let other = SessionId(*b"TR26112499");
    let mut bed = Bed::new(true);
    bed.hear(&packet(SESSION, 1, 1));
    bed.now += SESSION_SILENCE * 2;
    (1..9).for_each(|n| beside(&mut bed, &packet(other, n, 1)));
    bed.hear(&packet(SESSION, 2, 1));
    bed.now += SESSION_SILENCE * 2;
    beside(&mut bed, &packet(other, 9, 1));
    bed.hear(&packet(SESSION, 3, 1));
    assert_eq!((&bed.heard.numbers[..], bed.heard.lost), (&[1, 2, 3][..], 0));
    assert_passed_over(&mut bed, 9, Some(other));
    beside(&mut bed, &packet(other, 10, 1));
    assert_passed_over(&mut bed, 0, None);
    bed.arbiter.end();
    assert_passed_over(&mut bed, 1, Some(other));
}

#[test]
fn a_session_that_was_followed_by_mistake_gives_the_line_back() {
    let wrong = SessionId(*b"WRONGWRONG");
    let mut bed = Bed::new(true);
    for (from, to) in [(SESSION, wrong), (wrong, SESSION)] {
        bed.hear(&packet(from, 1, 1));
        for n in 1..4 {
            beside(&mut bed, &packet(to, n, 1));
        }
        bed.now += SESSION_SILENCE;
        bed.hear(&packet(to, 4, 1));
        assert_eq!(bed.arbiter.session(), Some(to));
    }
}

#[test]
fn a_session_beside_does_not_fill_the_memory() {
    let mut bed = Bed::new(true);
    bed.hear(&packet(SESSION, 1, 1));
    let mut big = Builder::new(SessionId(*b"TR26112499"), 1, usize::MAX);
    (0..30).for_each(|_| assert!(big.push(&[0; 50_000])));
    let bytes = big.finish();
    (0..60).for_each(|_| beside(&mut bed, &bytes));
    let kept = bed.arbiter.other.as_ref().unwrap().packets.iter().map(Vec::len).sum::<usize>();
    assert!((1..=MOST_PENDING).contains(&kept), "{kept}");
}

#[test]
fn a_flood_behind_a_gap_does_not_fill_the_memory() {
    let mut bed = Bed::new(true);
    let mut big = Builder::new(SESSION, 0, usize::MAX);
    (0..30).for_each(|_| assert!(big.push(&[0; 50_000])));
    let mut bytes = big.finish();
    for n in 0..60u64 {
        bytes[10..18].copy_from_slice(&(2 + n * 30).to_be_bytes());
        bed.arbiter.on_datagram(&bytes, bed.now).unwrap();
    }
    assert!(bed.arbiter.session.as_ref().unwrap().pending_bytes <= MOST_PENDING);
    assert!(bed.arbiter.steps.contains(&Step::Lost(1)));
}

/// What the network does to one copy of a packet.
#[derive(Debug, Clone)]
enum Fate {
    Lost,
    /// Arrives after so many later ones have.
    Late(u8),
    Twice(u8),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Late(0)),
        2 => Just(Fate::Lost),
        1 => (1u8..9).prop_map(Fate::Late),
        1 => (0u8..9).prop_map(Fate::Twice),
    ]
}

/// The packets of a session as they arrive on both lines.
fn arrivals(sizes: &[u64], fates: &[(Fate, Fate)]) -> (Vec<Vec<u8>>, u64) {
    let (mut first, mut arriving) = (1, Vec::new());
    for (at, (&size, (a, b))) in (0usize..).zip(sizes.iter().zip(fates)) {
        let bytes = packet(SESSION, first, size);
        first += size;
        for fate in [a, b] {
            match fate {
                Fate::Lost => {}
                Fate::Late(by) => arriving.push((at + usize::from(*by), bytes.clone())),
                Fate::Twice(by) => {
                    arriving.push((at, bytes.clone()));
                    arriving.push((at + usize::from(*by), bytes.clone()));
                }
            }
        }
    }
    arriving.sort_by_key(|(at, _)| *at);
    (arriving.into_iter().map(|(_, bytes)| bytes).collect(), first)
}

proptest! {
    #[test]
    fn every_number_comes_once_and_in_order_or_is_told_as_lost(
        packets in proptest::collection::vec((1u64..20, (fate(), fate()), any::<bool>()), 1..60),
        answers in proptest::collection::vec(any::<bool>(), 1..400),
        has_rewinder in any::<bool>(),
        answers_all in any::<bool>(),
    ) {
        let sizes: Vec<u64> = packets.iter().map(|(size, ..)| *size).collect();
        let fates: Vec<(Fate, Fate)> = packets.iter().map(|(_, fates, _)| fates.clone()).collect();
        let (arriving, end) = arrivals(&sizes, &fates);
        let mut answers = answers.into_iter().cycle();
        let mut bed = Bed::new(has_rewinder);
        let mut answered = 0;
        let mut pauses = packets.iter().map(|(_, _, pause)| *pause).cycle();
        let last = mold::end_of_session(SESSION, end).to_vec();
        for bytes in arriving.into_iter().chain((0..2_000).map(|_| last.clone())) {
            bed.hear(&bytes);
            if pauses.next() == Some(true) || bytes == last {
                bed.wait(PATIENCE);
            }
            while let Some(request) = bed.heard.asked.get(answered).copied() {
                answered += 1;
                if answers_all || answers.next() == Some(true) {
                    let most = u64::from(request.count).min(7).min(end - request.sequence);
                    bed.hear(&packet(SESSION, request.sequence, most));
                }
            }
            if bed.heard.ended {
                break;
            }
        }
        let Heard { numbers, lost, ended, .. } = bed.heard;
        prop_assert!(ended, "it comes to its end");
        prop_assert!(numbers.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(numbers.len() as u64 + lost, end - 1);
        if has_rewinder && answers_all {
            prop_assert_eq!(lost, 0);
        }
    }

    #[test]
    fn any_bytes_survive(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut arbiter = Arbiter::new(true);
        for mut bytes in datagrams {
            // Half of them with a session that repeats and a count that can be true.
            if bytes.len() >= 20 && bytes[0] % 2 == 0 {
                bytes[..18].fill(0);
                bytes[17] = bytes[19];
                bytes[18] = 0;
            }
            // The outcome does not matter here.
            let _ = arbiter.on_datagram(&bytes, Instant::now());
            arbiter.on_time(Instant::now() + ANSWER_WITHIN);
            while arbiter.step().is_some() {}
        }
    }
}
