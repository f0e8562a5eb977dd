use proptest::prelude::*;

use super::*;
use crate::bist::fixtures::transport;

#[test]
fn the_vectors_are_read_and_written() {
    let vectors = transport("mold");
    let packet = |what: &str| {
        let (_, bytes) = vectors.iter().find(|(name, _)| name.starts_with(what)).unwrap();
        bytes.as_slice()
    };
    let session = SessionId::new("SYN0000001");
    let data = Packet::parse(packet("downstream packet, messages 1-3")).unwrap();
    assert_eq!((data.session, data.sequence, data.count(), data.next_sequence()), (session, 1, 3, 4));
    assert_eq!(
        data.messages().map(|message| (message[0], message.len())).collect::<Vec<_>>(),
        [(b'T', 5), (b'S', 6), (b'R', 130)]
    );
    assert_eq!(packet("heartbeat"), heartbeat(session, 4));
    assert_eq!(Packet::parse(packet("heartbeat")).unwrap().kind, Kind::Heartbeat);
    let request = Request { session, sequence: 10, count: 2 };
    assert_eq!(packet("request"), request.encode());
    assert_eq!(Request::parse(packet("request")), Ok(request));
    let reply = Packet::parse(packet("unicast reply")).unwrap();
    assert_eq!((reply.sequence, reply.kind), (10, Kind::Messages(2)));
    assert_eq!(packet("end of session"), end_of_session(session, 38));
    assert_eq!(Packet::parse(packet("end of session")).unwrap().kind, Kind::End);
}

#[test]
fn a_packet_is_cut_where_asked() {
    let session = SessionId::new("S");
    let mut builder = Builder::new(session, 10, 1440);
    assert!([&b"a"[..], b"bb", b"ccc"].iter().all(|message| builder.push(message)));
    let bytes = builder.finish();
    let packet = Packet::parse(&bytes).unwrap();
    let texts = |bytes: Option<Vec<u8>>| {
        bytes.map(|bytes| {
            let packet = Packet::parse(&bytes).unwrap();
            (packet.sequence, packet.messages().map(<[u8]>::to_vec).collect::<Vec<_>>().concat())
        })
    };
    assert_eq!(texts(packet.from_sequence(5)), Some((10, b"abbccc".to_vec())));
    assert_eq!(texts(packet.from_sequence(11)), Some((11, b"bbccc".to_vec())));
    assert_eq!(texts(packet.from_sequence(13)), None);
    assert_eq!(texts(packet.until_sequence(12)), Some((10, b"abb".to_vec())));
    assert_eq!(texts(packet.until_sequence(10)), None);
    assert_eq!(texts(packet.until_sequence(99)), Some((10, b"abbccc".to_vec())));
}

proptest! {
    #[test]
    fn what_is_built_is_read(
        sequence in 0..u64::MAX - 100,
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..60),
    ) {
        let session = SessionId::new("TR29620650");
        let mut builder = Builder::new(session, sequence, 1440);
        let taken = messages.iter().take_while(|message| builder.push(message)).count();
        let bytes = builder.finish();
        prop_assert!(bytes.len() <= 1440);
        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(packet.next_sequence(), sequence + taken as u64);
        prop_assert_eq!(packet.messages().collect::<Vec<_>>(), &messages[..taken]);
        for cut in 0..bytes.len() {
            prop_assert!(cut == 20 && taken == 0 || Packet::parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<u64>()) {
        if let Ok(packet) = Packet::parse(&bytes) {
            prop_assert_eq!(packet.messages().count(), usize::from(packet.count()));
            packet.from_sequence(at);
            packet.until_sequence(at);
        }
        // The outcome does not matter here.
        let _ = Request::parse(&bytes);
    }
}
