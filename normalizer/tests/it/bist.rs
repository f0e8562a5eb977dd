//! The constructed day of Borsa Istanbul as a recording of each transport: what carries the messages makes no difference.

use std::fmt::Write as _;
use std::fs;

use akis_connectors::bist::mold::{Builder, SessionId, end_of_session};
use akis_normalizer::{Reason, Summary, replay};
use serde_json::{Value, json};

/// When the first frame was read.
const START: i64 = 1_767_247_200_000;

fn day() -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../connectors/fixtures/bist/synthetic_itch_v2112_day.jsonl");
    let hex = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let hex = line["hex"].as_str().unwrap().to_owned();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    fs::read_to_string(path).unwrap().lines().map(hex).collect()
}

/// A recording, line by line.
struct Recording(String);

impl Recording {
    fn new(more: &Value) -> Self {
        let mut header =
            json!({"akis": "recording", "v": 1, "venue": "bist", "market": "equities", "startedAt": START});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self(format!("{header}\n"))
    }

    fn frame(&mut self, second: usize, connection: u32, bytes: &[u8]) {
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let at = START + i64::try_from(second).unwrap() * 1_000;
        writeln!(self.0, "{}", json!({"at": at, "conn": connection, "hex": hex})).unwrap();
    }

    fn play(&self) -> (Vec<Value>, Summary) {
        let mut out = Vec::new();
        let summary = replay([self.0.as_bytes()], false, &mut out).unwrap();
        let lines = String::from_utf8(out).unwrap();
        (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), summary)
    }
}

fn packet(sequence: usize, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = Builder::new(SessionId::new("TR29620650"), sequence as u64, usize::MAX);
    messages.iter().for_each(|message| assert!(builder.push(message)));
    builder.finish()
}

fn soup(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 1).unwrap();
    [&length.to_be_bytes(), &[kind][..], payload].concat()
}

/// The events without what depends on when a frame was read.
fn told(events: &[Value]) -> Vec<Value> {
    let strip = |event: &Value| {
        let mut event = event.clone();
        event["data"].as_object_mut().unwrap().remove("receivedAt");
        event
    };
    events.iter().map(strip).collect()
}

fn of<'a>(events: &'a [Value], channel: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["channel"] == channel).map(|event| &event["data"]).collect()
}

/// Messages without a transport: the reference for the others.
fn plain() -> (Vec<Value>, Summary) {
    let mut recording = Recording::new(&json!({"transport": "itch"}));
    day().iter().enumerate().for_each(|(at, message)| recording.frame(at, 1, message));
    recording.play()
}

#[test]
fn the_day_is_told() {
    let (events, summary) = plain();
    assert_eq!(summary.skipped, [].into());
    let prices: Vec<&Value> = of(&events, "bist:TESTA:trades").iter().map(|trade| &trade["price"]).collect();
    assert_eq!(prices, ["100.5", "100.8", "100.8", "100.8", "100.4"]);
    let states: Vec<&Value> = of(&events, "bist:TESTA:session").iter().map(|status| &status["state"]).collect();
    assert_eq!(states, ["opening_auction", "opening_auction", "continuous", "break", "closed"]);
    let book = of(&events, "bist:TESTA:book").pop().unwrap();
    assert_eq!((&book["bids"], &book["asks"]), (&json!([["100.5", "500"]]), &json!([["101", "700"]])));
    let day = of(&events, "bist:TESTA:1d").pop().unwrap();
    assert_eq!((&day["closed"], &day["volume"], &day["trades"]), (&json!(true), &json!("1000"), &json!(5)));
    assert_eq!(day["closeTime"], json!(1_767_280_499_999_i64), "18:15 in Istanbul");
}

#[test]
fn lines_with_losses_and_a_rewinder_are_the_same_day() {
    let notes = json!({"2": {"line": "B"}, "3": {"line": "R"}});
    let mut recording = Recording::new(&json!({"transport": "moldudp64", "conns": notes}));
    let day = day();
    for (at, message) in day.iter().enumerate() {
        let packet_of = |at: usize| packet(at + 1, &day[at..=at]);
        assert_eq!(packet_of(at), packet(at + 1, std::slice::from_ref(message)));
        if at % 3 != 1 {
            recording.frame(at, 1, &packet_of(at));
        }
        if at % 4 != 1 {
            recording.frame(at, 2, &packet_of(at));
        }
        if at % 12 == 2 {
            recording.frame(at, 3, &packet_of(at - 1));
        }
    }
    recording.frame(day.len(), 1, &end_of_session(SessionId::new("TR29620650"), day.len() as u64 + 1));
    let (events, summary) = recording.play();
    assert_eq!(told(&events), told(&plain().0));
    assert_eq!((summary.skipped, summary.resyncs), ([].into(), [].into()));
}

#[test]
fn after_the_end_of_a_session_the_venue_is_up_until_the_next_one_is_due() {
    let mut recording = Recording::new(&json!({"transport": "moldudp64", "symbols": ["TESTA"]}));
    recording.frame(0, 1, &packet(1, &day()[..9]));
    let end = end_of_session(SessionId::new("TR29620650"), 10);
    recording.frame(1, 1, &end);
    // 09:28, and 09:40; it is due at 09:30.
    recording.frame(28 * 60, 1, b"no packet");
    recording.frame(40 * 60, 1, &end);
    let (events, _) = recording.play();
    let statuses: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "channel_status" && event["channel"] == "bist:TESTA:book")
        .map(|event| (event["data"]["state"].as_str(), event["data"]["since"].as_i64()))
        .collect();
    let [due_at, back_at] = [30, 40].map(|minute| Some(START + minute * 60_000));
    assert_eq!(statuses, [(Some("down"), due_at), (Some("up"), back_at)]);
}

#[test]
fn packets_of_another_channel_are_counted() {
    let mut recording = Recording::new(&json!({"transport": "moldudp64"}));
    let day = day();
    for at in 0..day.len() {
        recording.frame(at, 1, &packet(at + 1, &day[at..=at]));
        let mut other = Builder::new(SessionId::new("TR29620651"), at as u64 + 1, usize::MAX);
        assert!(other.push(&day[at]));
        recording.frame(at, 2, &other.finish());
    }
    let (events, summary) = recording.play();
    assert_eq!(told(&events), told(&plain().0), "they do not disturb");
    assert_eq!(summary.skipped, [(Reason::OtherSession, day.len() as u64)].into());
}

#[test]
fn soupbintcp_in_pieces_is_the_same_day() {
    let mut stream = soup(b'A', b"TR29620650                   1");
    day().iter().for_each(|message| stream.extend(soup(b'S', message)));
    stream.extend(soup(b'H', b""));
    stream.extend(soup(b'Z', b""));
    let mut recording = Recording::new(&json!({"transport": "soupbintcp"}));
    stream.chunks(41).enumerate().for_each(|(at, piece)| recording.frame(at, 1, piece));
    let (events, summary) = recording.play();
    assert_eq!((summary.skipped, summary.resyncs), ([].into(), [].into()));
    let (plain, _) = plain();
    let (events, plain) = (told(&events), told(&plain));
    for channel in ["bist:TESTA:trades", "bist:TESTA:session"] {
        assert_eq!(of(&events, channel), of(&plain, channel));
    }
    assert_eq!(of(&events, "bist:TESTA:book").last(), of(&plain, "bist:TESTA:book").last());
    assert_eq!(of(&events, "bist:TESTA:1d").last(), of(&plain, "bist:TESTA:1d").last());
}

#[test]
fn a_recording_that_begins_late_is_joined_with_a_snapshot() {
    let day = day();
    let notes = json!({"9": {"transport": "glimpse"}});
    let mut recording = Recording::new(&json!({"transport": "moldudp64", "conns": notes}));
    // From the 25th message on, when two orders are in the book.
    for at in 24..28 {
        recording.frame(at, 1, &packet(at + 1, &day[at..=at]));
    }
    let mut snapshot = soup(b'A', b"GLIMPSE                      1");
    for at in [0, 2, 20, 21, 22, 23] {
        snapshot.extend(soup(b'S', &day[at]));
    }
    snapshot.extend(soup(b'S', b"G25                  "));
    snapshot.chunks(100).for_each(|piece| recording.frame(28, 9, piece));
    for at in 28..day.len() {
        recording.frame(at, 1, &packet(at + 1, &day[at..=at]));
    }
    let (events, summary) = recording.play();
    assert_eq!(summary.resyncs, [].into(), "there was no book yet that could have been lost");
    let (plain, _) = plain();
    let trades = of(&events, "bist:TESTA:trades");
    let ids: Vec<&Value> = trades.iter().map(|trade| &trade["id"]).collect();
    assert_eq!(ids, ["9002", "9003", "9004", "9005"]);
    let last = |events: &[Value], field: &str| of(events, "bist:TESTA:book").last().unwrap()[field].clone();
    for field in ["bids", "asks", "venueSeq"] {
        assert_eq!(last(&events, field), last(&plain, field));
    }
}

#[test]
fn a_recording_that_begins_millions_of_messages_late_is_joined_too() {
    let (day, before) = (day(), 5_000_000);
    let mut snapshot = soup(b'A', b"GLIMPSE                      1");
    for at in [0, 2, 20, 21, 22, 23] {
        snapshot.extend(soup(b'S', &day[at]));
    }
    // It ends right before the first packet.
    snapshot.extend(soup(b'S', format!("G{:<20}", before + 25).as_bytes()));
    for live_before in [0, 1, 2, 4] {
        let notes = json!({"9": {"transport": "glimpse"}});
        let mut recording = Recording::new(&json!({"transport": "moldudp64", "conns": notes}));
        for at in 24..day.len() {
            if at == 24 + live_before {
                recording.frame(at, 9, &snapshot);
            }
            recording.frame(at, 1, &packet(before + at + 1, &day[at..=at]));
        }
        let (events, summary) = recording.play();
        assert_eq!((summary.skipped, summary.resyncs), ([].into(), [].into()), "{live_before}");
        let ids: Vec<&Value> = of(&events, "bist:TESTA:trades").iter().map(|trade| &trade["id"]).collect();
        assert_eq!(ids, ["9002", "9003", "9004", "9005"], "{live_before}");
        let book = of(&events, "bist:TESTA:book").pop().unwrap();
        assert_eq!((&book["bids"], &book["asks"]), (&json!([["100.5", "500"]]), &json!([["101", "700"]])));
    }
}

#[test]
fn a_snapshot_alone_shows_the_books() {
    let day = day();
    let mut recording = Recording::new(&json!({"transport": "glimpse"}));
    let mut snapshot = soup(b'A', b"GLIMPSE                      1");
    for at in [0, 2, 20, 21, 22, 23] {
        snapshot.extend(soup(b'S', &day[at]));
    }
    snapshot.extend(soup(b'S', b"G                  25"));
    recording.frame(0, 1, &snapshot);
    let (events, _) = recording.play();
    let book = of(&events, "bist:TESTA:book").pop().unwrap();
    assert_eq!((&book["bids"], &book["asks"]), (&json!([["100.5", "400"]]), &json!([["100.9", "1000"]])));
    assert_eq!(book["venueSeq"], "24");
}
