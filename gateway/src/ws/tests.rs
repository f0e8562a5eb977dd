use bytes::Bytes;
use proptest::prelude::*;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};

use super::*;
use crate::fuzzing::Came;

/// A client's frame, masked, with its length in the shortest form.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let mask = [7, 11, 13, 17];
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

const MAX_MESSAGE: usize = 1000;

fn rules(max_message: usize) -> Rules<'static> {
    Rules { max_message, inflater: None }
}

/// Decodes bytes that come in pieces.
fn decode_pieces(pieces: &[&[u8]], mut rules: Rules<'_>) -> Result<(Vec<Came>, Decoder), FrameError> {
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for piece in pieces {
        decoder.feed(&mut piece.to_vec(), &mut rules, &mut |incoming| {
            all.push(incoming.into());
            true
        })?;
    }
    Ok((all, decoder))
}

fn decode_all(bytes: &[u8], step: usize) -> Result<Vec<Came>, FrameError> {
    decode_pieces(&bytes.chunks(step).collect::<Vec<_>>(), rules(MAX_MESSAGE)).map(|(all, _)| all)
}

#[test]
fn broken_frames_have_their_code() {
    let long = [vec![0x81, 0xFF], 1001_u64.to_be_bytes().to_vec()].concat();
    for (bytes, code, what) in [
        (frame(0xC1, b"x"), 1002, "a reserved bit"),
        (frame(0xA1, b"x"), 1002, "another reserved bit"),
        (frame(0x91, b"x"), 1002, "the third reserved bit"),
        (frame(0x83, b"x"), 1002, "a reserved opcode"),
        (frame(0x8B, b""), 1002, "a reserved control opcode"),
        (vec![0x81, 0x01, b'x'], 1002, "not masked"),
        (vec![0x81, 0xFE, 0, 5, 1, 2, 3, 4], 1002, "16 bits for 5"),
        (long, 1002, "64 bits for 1001"),
        (vec![0x81, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0], 1002, "the highest bit of a length"),
        (frame(0x80, b"x"), 1002, "continuation of nothing"),
        ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), 1002, "a message inside another one"),
        ([frame(0x01, b"x"), frame(0x82, b"y")].concat(), 1002, "a binary message inside another one"),
        (frame(0x09, b"x"), 1002, "a split ping"),
        (frame(0x89, &[0; 126]), 1002, "a long ping"),
        (vec![0x88, 0xFE], 1002, "a long close, before its length is there"),
        (frame(0x88, &[3]), 1002, "half a close code"),
        (frame(0x88, &1004_u16.to_be_bytes()), 1002, "1004"),
        (frame(0x88, &1005_u16.to_be_bytes()), 1002, "1005 in a frame"),
        (frame(0x88, &1006_u16.to_be_bytes()), 1002, "1006 in a frame"),
        (frame(0x88, &1015_u16.to_be_bytes()), 1002, "1015 in a frame"),
        (frame(0x88, &999_u16.to_be_bytes()), 1002, "999"),
        (frame(0x88, &5000_u16.to_be_bytes()), 1002, "5000"),
        (frame(0x88, &[0x03, 0xE8, 0xFF]), 1007, "a reason that is not UTF-8"),
        (frame(0x81, b"\xff"), 1007, "a text that is not UTF-8"),
        (frame(0x81, b"\xed\xa0\x80"), 1007, "half of a pair"),
        ([frame(0x01, b"\xce"), frame(0x80, b"x")].concat(), 1007, "half a character before another one"),
        ([frame(0x01, b"x"), frame(0x80, b"\xce")].concat(), 1007, "half a character at the end"),
        (frame(0x01, b"\xf4\x90"), 1007, "a first part that cannot become UTF-8"),
        (frame(0x81, &[b'x'; 1001]), 1009, "one frame too large"),
        (vec![0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4], 1009, "2^63 bytes"),
        ([frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 401])].concat(), 1009, "two frames"),
        ([frame(0x01, b""), frame(0x00, b"").repeat(1000)].concat(), 1009, "frames without a byte and without end"),
    ] {
        for step in [1, 2, 1000] {
            let error = decode_all(&bytes, step).expect_err(what);
            assert_eq!(error.close_code(), code, "{what}, {step} bytes at a time");
        }
    }
}

#[test]
fn what_is_wrong_is_said_before_the_frame_is_there() {
    for (bytes, cut, code, what) in [
        (frame(0x81, b"abc\xffdefgh"), 10, 1007, "a byte that is in no text"),
        (frame(0x81, b"\xf4\x90\x80\x80 and more"), 8, 1007, "beyond the last character"),
        ([frame(0x01, b"\xce"), frame(0x80, b"\xff and more")].concat(), 14, 1007, "in the second frame"),
        ([frame(0x01, b"x"), frame(0x81, &[b'x'; 99])].concat(), 13, 1002, "a message inside another one"),
        (frame(0x80, &[b'x'; 99]), 6, 1002, "continuation of nothing"),
        (frame(0x82, &[b'x'; 1001]), 8, 1009, "too large"),
    ] {
        for step in 1..=cut {
            let error = decode_all(&bytes[..cut], step).expect_err(what);
            assert_eq!(error.close_code(), code, "{what}, {step} bytes at a time");
            assert!(decode_all(&bytes[..cut - 1], step).is_ok(), "{what}: not known one byte earlier");
        }
    }
}

#[test]
fn half_a_frame_holds_what_came_of_it_and_no_more() {
    let mut bytes = frame(0x82, &[b'x'; 1000]);
    let mut decoder = Decoder::default();
    let mut on = |_: Incoming<'_>| true;
    // Behind half a head comes much at once.
    decoder.feed(&mut bytes[..1], &mut rules(MAX_MESSAGE), &mut on).unwrap();
    decoder.feed(&mut bytes[1..500], &mut rules(MAX_MESSAGE), &mut on).unwrap();
    assert!(decoder.held_bytes() < 700, "{}", decoder.held_bytes());
    decoder.feed(&mut bytes[500..], &mut rules(MAX_MESSAGE), &mut on).unwrap();
    assert_eq!((decoder.held_bytes(), decoder.frames()), (0, 1));
}

#[test]
fn what_is_allowed_at_the_edges_is_read() {
    for (bytes, expected) in [
        (frame(0x81, b""), vec![Came::Text(String::new())]),
        (frame(0x82, &[0xFF; 3]), vec![Came::Binary(vec![0xFF; 3])]),
        (frame(0x89, &[7; 125]), vec![Came::Ping(vec![7; 125])]),
        (frame(0x8A, b"x"), vec![Came::Pong]),
        (frame(0x88, b""), vec![Came::Close(None)]),
        (frame(0x88, b"\x0f\xa0bye"), vec![Came::Close(Some(4000))]),
        ([frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")].concat(), vec![Came::Text(String::new())]),
        (
            [frame(0x01, b"\xce"), frame(0x00, b"\xba"), frame(0x80, b"\xe1\xbd\xb9")].concat(),
            vec![Came::Text("\u{3ba}\u{1f79}".to_owned())],
        ),
        ([frame(0x02, &[1]), frame(0x80, &[2])].concat(), vec![Came::Binary(vec![1, 2])]),
        ([frame(0x02, &[7; 1000]), frame(0x80, b"")].concat(), vec![Came::Binary(vec![7; 1000])]),
    ] {
        for step in 1..=bytes.len() {
            assert_eq!(decode_all(&bytes, step), Ok(expected.clone()), "{step} bytes at a time");
        }
    }
}

#[test]
fn a_message_may_be_split_around_a_ping() {
    let bytes = [frame(0x01, "h\u{e9}".as_bytes()), frame(0x89, b"p"), frame(0x80, b"llo"), frame(0x88, &[])].concat();
    let expected = vec![Came::Ping(b"p".to_vec()), Came::Text("h\u{e9}llo".to_owned()), Came::Close(None)];
    for step in 1..bytes.len() {
        assert_eq!(decode_all(&bytes, step), Ok(expected.clone()), "{step} bytes at a time");
    }
}

#[test]
fn nothing_is_held_between_messages() {
    let bytes = [frame(0x01, b"x"), frame(0x80, b"y"), frame(0x89, b"z")].concat();
    let (_, decoder) = decode_pieces(&[&bytes[..9], &bytes[9..]], rules(MAX_MESSAGE)).unwrap();
    assert_eq!((decoder.held_bytes(), decoder.frames()), (0, 3));
}

#[test]
fn what_is_not_wanted_yet_is_kept() {
    let mut bytes = [frame(0x81, b"a"), frame(0x81, b"b"), frame(0x81, b"c")].concat();
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for expected in 1..=3 {
        let came = std::mem::take(&mut bytes);
        decoder
            .feed(&mut came.clone(), &mut rules(MAX_MESSAGE), &mut |incoming| {
                all.push(Came::from(incoming));
                false
            })
            .unwrap();
        assert_eq!(all.len(), expected, "one at a time");
    }
    assert_eq!(decoder.held_bytes(), 0);
}

/// Lets tungstenite read what we wrote.
fn read_by_client(bytes: Vec<u8>) -> Vec<Message> {
    let mut stream = std::io::Cursor::new(bytes);
    let mut client = WebSocketContext::new(Role::Client, Some(WebSocketConfig::default()));
    std::iter::from_fn(|| client.read(&mut stream).ok()).collect()
}

#[test]
fn control_frames_are_read_by_a_client() {
    let mut out = Vec::new();
    put_ping(&mut out);
    put_pong(&mut out, b"abc");
    put_close(&mut out, 4413, &"\u{e9}".repeat(100));
    let close = CloseFrame { code: 4413.into(), reason: "\u{e9}".repeat(61).into() };
    let expected = vec![Message::Ping(Bytes::new()), Message::Pong("abc".into()), Message::Close(Some(close))];
    assert_eq!(read_by_client(out), expected);
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        "\\PC{0,200}".prop_map(Message::text),
        prop::collection::vec(any::<u8>(), 0..70_000).prop_map(Message::binary),
        prop::collection::vec(any::<u8>(), 0..125).prop_map(|payload| Message::Ping(payload.into())),
    ]
}

fn came(message: &Message) -> Came {
    match message {
        Message::Text(text) => Came::Text(text.to_string()),
        Message::Binary(bytes) => Came::Binary(bytes.to_vec()),
        Message::Ping(payload) => Came::Ping(payload.to_vec()),
        other => panic!("{other} is not sent here"),
    }
}

proptest! {
    #[test]
    fn a_client_reads_what_was_written(messages in prop::collection::vec(message(), 1..6)) {
        let mut out = Vec::new();
        for message in &messages {
            match message {
                Message::Text(text) => put_text(&mut out, text.as_bytes()),
                Message::Binary(bytes) => put_binary(&mut out, bytes),
                other => put_pong(&mut out, other.clone().into_data().as_ref()),
            }
        }
        let read: Vec<_> = read_by_client(out).into_iter().map(|m| m.into_data()).collect();
        let sent: Vec<_> = messages.into_iter().map(|m| m.into_data()).collect();
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn any_bytes_give_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1..50_usize) {
        let _ = decode_all(&bytes, step);
    }

    #[test]
    fn what_a_client_writes_is_read_however_it_is_split(
        messages in prop::collection::vec(message(), 1..5),
        step in 1..5000_usize,
    ) {
        let mut stream = std::io::Cursor::new(Vec::new());
        let mut client = WebSocketContext::new(Role::Client, None);
        for message in &messages {
            client.write(&mut stream, message.clone()).unwrap();
        }
        client.flush(&mut stream).unwrap();
        let bytes = stream.into_inner();
        let (read, _) = decode_pieces(&bytes.chunks(step).collect::<Vec<_>>(), rules(1 << 20)).unwrap();
        let sent: Vec<_> = messages.iter().map(came).collect();
        prop_assert_eq!(read, sent);
    }
}

#[test]
fn every_cut_in_two_gives_the_same() {
    let bytes = [
        frame(0x01, "\u{3ba}\u{1f79}".as_bytes()),
        frame(0x89, b"ping"),
        frame(0x80, &[b'x'; 200]),
        frame(0x82, &[9; 130]),
        frame(0x88, b"\x03\xe8"),
    ]
    .concat();
    let whole = decode_pieces(&[&bytes], rules(MAX_MESSAGE)).unwrap().0;
    for cut in 0..=bytes.len() {
        let (left, right) = bytes.split_at(cut);
        assert_eq!(decode_pieces(&[left, right], rules(MAX_MESSAGE)).unwrap().0, whole, "cut at {cut}");
    }
}

#[test]
fn compressed_messages_are_expanded_where_that_was_agreed_on() {
    let text = "abc".repeat(100);
    let payload = deflate::Deflater::default().deflate(text.as_bytes()).unwrap().to_vec();
    let (head, tail) = payload.split_at(3);
    let split = [frame(0x41, head), frame(0x89, b"p"), frame(0x80, tail)].concat();
    let mut inflater = deflate::Inflater::default();
    for (bytes, expected) in [
        (frame(0xC1, &payload), Ok(vec![Came::Text(text.clone())])),
        (split, Ok(vec![Came::Ping(b"p".to_vec()), Came::Text(text.clone())])),
        (frame(0x81, b"plain"), Ok(vec![Came::Text("plain".to_owned())])),
        (frame(0xC9, b""), Err(1002)),
        ([frame(0x41, head), frame(0xC0, tail)].concat(), Err(1002)),
        (frame(0xE1, &payload), Err(1002)),
        (frame(0xC1, &[0xFF; 9]), Err(1002)),
    ] {
        for step in [1, 7, 1000] {
            let pieces: Vec<_> = bytes.chunks(step).collect();
            let rules = Rules { max_message: 300, inflater: Some(&mut inflater) };
            let read = decode_pieces(&pieces, rules).map(|(all, _)| all).map_err(FrameError::close_code);
            assert_eq!(read, expected, "{step} bytes at a time");
        }
    }
    let rules = Rules { max_message: 299, inflater: Some(&mut inflater) };
    assert_eq!(decode_pieces(&[&frame(0xC1, &payload)], rules).map(|(all, _)| all), Err(FrameError::TooLarge));
    assert_eq!(decode_all(&frame(0xC1, &payload), 1000), Err(FrameError::Protocol("reserved bit")));
}
