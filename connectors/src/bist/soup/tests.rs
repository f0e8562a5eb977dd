use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::bist::fixtures::transport;

fn vector(what: &str) -> Vec<u8> {
    transport("soup").into_iter().find(|(name, _)| name.starts_with(what)).unwrap().1
}

/// Everything that a client says happened.
fn events(client: &mut Client) -> Vec<Event> {
    std::iter::from_fn(|| client.event().unwrap()).collect()
}

#[test]
fn the_vectors_are_read_and_written() {
    let session = SessionId::new("SYN0000001");
    let login = LoginRequest { user: "USER".into(), password: "PASS".into(), session: SessionId::new(""), next: 1 };
    let bytes = vector("client login");
    let mut given = LoginRequest::parse(&bytes[3..]).unwrap();
    assert_eq!(given.encode(), bytes);
    (given.user, given.password) = (login.user.clone(), login.password.clone());
    assert_eq!(given, login);
    assert_eq!(accepted(session, 1), vector("login accepted"));
    assert_eq!(packet(b'J', b"A"), vector("login rejected, not authorised"));
    assert_eq!(packet(b'J', b"S"), vector("login rejected, session unavailable"));
    assert_eq!(packet(b'H', b""), vector("server heartbeat"));
    assert_eq!(packet(b'R', b""), vector("client heartbeat"));
    assert_eq!(packet(b'Z', b""), vector("end of session"));
    assert!(!format!("{login:?}").contains("PASS"), "a password is never shown");
}

#[test]
fn a_connection_is_followed_however_its_bytes_are_cut() {
    let bytes: Vec<u8> =
        ["login accepted", "debug", "sequenced data: R", "server heartbeat", "sequenced data: end", "end of session"]
            .iter()
            .flat_map(|what| vector(what))
            .collect();
    for step in [1, 2, 7, 50, 1000] {
        let now = Instant::now();
        let mut client = Client::new(now);
        let mut heard = Vec::new();
        for piece in bytes.chunks(step) {
            client.on_bytes(piece, now);
            heard.extend(events(&mut client));
        }
        assert_eq!(heard[0], Event::Accepted { session: SessionId::new("SYN0000001"), next: 1 });
        assert!(matches!(&heard[1], Event::Message(1, message) if message.len() == 130));
        assert_eq!(heard[2], Event::Heartbeat(2));
        assert!(matches!(&heard[3], Event::Message(2, message) if message[0] == b'G'));
        assert_eq!(heard[4], Event::End(3));
    }
}

#[test]
fn a_message_before_the_login_is_accepted_is_an_error() {
    let now = Instant::now();
    let mut client = Client::new(now);
    client.on_bytes(&packet(b'S', b"x"), now);
    assert_eq!(client.event(), Err(SoupError::Malformed(b'S')));
    let mut client = Client::new(now);
    client.on_bytes(&packet(b'J', b"?"), now);
    assert_eq!(client.event(), Err(SoupError::Malformed(b'J')));
    let mut client = Client::new(now);
    client.on_bytes(&[0, 0, b'H'], now);
    assert_eq!(client.event(), Err(SoupError::Empty));
}

#[test]
fn heartbeats_go_out_every_second_and_three_of_silence_are_too_many() {
    let start = Instant::now();
    let ms = |ms| start + Duration::from_millis(ms);
    let mut client = Client::new(start);
    assert_eq!(client.say(ms(999)), None);
    assert_eq!(client.due(), ms(1000));
    assert_eq!(client.say(ms(1000)), Some(vector("client heartbeat")));
    assert!(!client.is_silent(ms(2999)));
    assert!(client.is_silent(ms(3000)));
    client.on_bytes(&vector("server heartbeat"), ms(2999));
    assert!(!client.is_silent(ms(5998)));
}

proptest! {
    #[test]
    fn any_bytes_survive(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
        let now = Instant::now();
        let mut client = Client::new(now);
        client.on_bytes(&accepted(SessionId::new("S"), 1), now);
        for piece in pieces {
            client.on_bytes(&piece, now);
            while let Ok(Some(_)) = client.event() {}
        }
        // The outcome does not matter here.
        let _ = LoginRequest::parse(&[7; 46]);
    }

    #[test]
    fn what_is_written_is_read(kind in any::<u8>(), payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
        let mut splitter = Splitter::default();
        splitter.push(&payloads.iter().flat_map(|payload| packet(kind, payload)).collect::<Vec<_>>());
        for payload in &payloads {
            prop_assert_eq!(splitter.next_packet(), Ok(Some((kind, payload.as_slice()))));
        }
        prop_assert_eq!(splitter.next_packet(), Ok(None));
    }
}
