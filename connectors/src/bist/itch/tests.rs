use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/fixtures/bist/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn a_real_message_is_read() {
    let bytes = fixture("bist_real_L_message_2017.bin");
    let (length, message) = bytes.split_at(2);
    assert_eq!(length, [0, 25]);
    let tick = TickSize { ns: 310_726_040, book: 70_616, tick: 100, from: Price(100_000), to: Price(999_999_999) };
    assert_eq!(Message::decode(message), Ok(Message::TickSize(tick)));
    assert_eq!(encoded(&Message::TickSize(tick)), message);
}

/// Looks at the numbers that the fixture tells of a message, by the names that it gives them.
fn fields_of(message: &Message<'_>) -> Vec<(&'static str, String)> {
    let price = |price: Price| price.0.to_string();
    let letter = |side: Side| char::from(side.letter()).to_string();
    let yes = |yes: bool| if yes { "Y" } else { "N" }.to_owned();
    let order = |order: OrderKey| {
        vec![
            ("order_id", order.id.to_string()),
            ("order_book_id", order.book.to_string()),
            ("side", letter(order.side)),
        ]
    };
    match *message {
        Message::Seconds(m) => vec![("second", m.second.to_string())],
        Message::SystemEvent(m) => vec![("ns", m.ns.to_string()), ("event", char::from(m.code).to_string())],
        Message::Directory(m) => vec![
            ("order_book_id", m.book.to_string()),
            ("symbol", m.symbol.to_string()),
            ("long_name", m.long_name.to_string()),
            ("isin", m.isin.to_string()),
            ("financial_product", m.product.to_string()),
            ("currency", m.currency.to_string()),
            ("price_decimals", m.price_decimals.to_string()),
            ("round_lot", m.round_lot.to_string()),
            ("nominal_value", m.nominal_value.to_string()),
            ("ranking_type", m.ranking.to_string()),
        ],
        Message::TickSize(m) => vec![
            ("order_book_id", m.book.to_string()),
            ("tick_size", m.tick.to_string()),
            ("price_from", price(m.from)),
            ("price_to", price(m.to)),
        ],
        Message::ShortSell(m) => {
            vec![("order_book_id", m.book.to_string()), ("restriction", m.restriction.to_string())]
        }
        Message::BookState(m) => vec![("ns", m.ns.to_string()), ("state", m.state.to_string())],
        Message::Add(m) => {
            let Rank::Time { sequence, time } = m.rank else { panic!("old layout") };
            let mut fields = order(m.order);
            fields.extend([
                ("ranking_seq", sequence.to_string()),
                ("qty", m.quantity.to_string()),
                ("price", price(m.price)),
                ("attributes", m.attributes.to_string()),
                ("lot_type", m.lot_type.to_string()),
                ("ranking_time", time.to_string()),
            ]);
            fields
        }
        Message::Executed(m) => {
            let mut fields = order(m.order);
            fields.extend([("qty", m.quantity.to_string()), ("match_id", m.match_id.to_string())]);
            fields
        }
        Message::ExecutedAtPrice(m) => {
            let mut fields = order(m.order);
            fields.extend([
                ("qty", m.quantity.to_string()),
                ("match_id", m.match_id.to_string()),
                ("price", price(m.price)),
                ("at_cross", yes(m.at_cross)),
                ("printable", yes(m.printable)),
            ]);
            fields
        }
        Message::Delete(m) => order(m.order),
        Message::Flush(m) => vec![("ns", m.ns.to_string()), ("order_book_id", m.book.to_string())],
        Message::Trade(m) => vec![
            ("match_id", m.match_id.to_string()),
            ("side", m.side.map_or(" ".into(), letter)),
            ("qty", m.quantity.to_string()),
            ("order_book_id", m.book.to_string()),
            ("price", price(m.price)),
            ("printable", yes(m.printable)),
            ("at_cross", yes(m.at_cross)),
        ],
        Message::Equilibrium(m) => vec![
            ("order_book_id", m.book.to_string()),
            ("bid_qty_at_eq", m.bid_quantity.to_string()),
            ("ask_qty_at_eq", m.ask_quantity.to_string()),
            ("eq_price", price(m.price)),
            ("best_bid", price(m.best_bid)),
            ("best_ask", price(m.best_ask)),
            ("best_bid_qty", m.best_bid_quantity.to_string()),
            ("best_ask_qty", m.best_ask_quantity.to_string()),
        ],
        _ => panic!("not in the fixture: {message:?}"),
    }
}

#[test]
fn the_constructed_day_is_read_and_written_byte_for_byte() {
    let day = fixture("synthetic_itch_v2112_day.jsonl");
    let lines: Vec<Value> = day.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines.len(), 37);
    for line in lines {
        let bytes = hex(line["hex"].as_str().unwrap());
        let message = Message::decode(&bytes).unwrap();
        for (name, found) in fields_of(&message) {
            let told = line["fields"][name].as_str().map_or_else(|| line["fields"][name].to_string(), str::to_owned);
            assert_eq!(found, told, "{name} of {line}");
        }
        assert_eq!(encoded(&message), bytes, "{line}");
    }
}

#[test]
fn the_end_of_a_snapshot_is_read_with_spaces_on_either_side() {
    for (text, next_sequence) in
        [("                  27", 27), ("27                  ", 27), ("00000000000000000005", 5)]
    {
        let bytes = [b"G", text.as_bytes()].concat();
        assert_eq!(Message::decode(&bytes), Ok(Message::EndOfSnapshot(EndOfSnapshot { next_sequence })), "{text:?}");
    }
    for text in ["                    ", "                 +27", "99999999999999999999", "               2 7  "] {
        let bytes = [b"G", text.as_bytes()].concat();
        let field = "sequence number";
        assert_eq!(Message::decode(&bytes), Err(DecodeError::Value { kind: 'G', field }), "{text:?}");
    }
}

#[test]
fn bad_bytes_are_told_apart() {
    assert_eq!(Message::decode(b""), Err(DecodeError::Empty));
    assert_eq!(Message::decode(b"q123"), Err(DecodeError::UnknownType(b'q')));
    assert_eq!(Message::decode(b"T123"), Err(DecodeError::Length { kind: 'T', length: 4 }));
    assert_eq!(Message::decode(&[b'A'; 38]), Err(DecodeError::Length { kind: 'A', length: 38 }));
    let key = OrderKey { id: 1, book: 2, side: Side::Buy };
    let mut bytes = encoded(&Message::Delete(Delete { ns: 0, order: key }));
    bytes[17] = b'X';
    assert_eq!(Message::decode(&bytes), Err(DecodeError::Value { kind: 'D', field: "side" }));
}

fn price() -> impl Strategy<Value = Price> {
    prop_oneof![any::<i32>().prop_map(Price), Just(Price::NONE)]
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Buy), Just(Side::Sell)]
}

fn order() -> impl Strategy<Value = OrderKey> {
    (any::<u64>(), any::<u32>(), side()).prop_map(|(id, book, side)| OrderKey { id, book, side })
}

fn rank() -> impl Strategy<Value = Rank> {
    prop_oneof![
        (any::<u32>(), any::<u64>()).prop_map(|(sequence, time)| Rank::Time { sequence, time }),
        any::<u32>().prop_map(Rank::Position),
    ]
}

/// Text of at most `length` bytes of ISO-8859-1 that lives as long as the tests do.
fn text(length: usize) -> impl Strategy<Value = Text<'static>> {
    prop::collection::vec(0x21u8.., 0..=length).prop_map(|bytes| Text::new(bytes.leak()))
}

fn reference() -> impl Strategy<Value = Message<'static>> {
    let texts = (text(32), text(32), text(12), text(3));
    let lots = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>());
    let codes = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>());
    let decimals = (any::<u16>(), any::<u16>(), any::<u16>());
    (any::<(u32, u32, u32)>(), texts, lots, codes, decimals, price()).prop_map(
        |((ns, book, expiration), (symbol, long_name, isin, currency), lots, codes, decimals, strike)| {
            let (odd_lot, round_lot, block_lot, nominal_value, underlying) = lots;
            let (product, legs, put_or_call, ranking) = codes;
            let (price_decimals, nominal_decimals, strike_decimals) = decimals;
            Message::Directory(Directory {
                ns,
                book,
                symbol,
                long_name,
                isin,
                product,
                currency,
                price_decimals,
                nominal_decimals,
                odd_lot,
                round_lot,
                block_lot,
                nominal_value,
                legs,
                underlying,
                strike,
                expiration,
                strike_decimals,
                put_or_call,
                ranking,
            })
        },
    )
}

fn rare() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        any::<u32>().prop_map(|second| Message::Seconds(Seconds { second })),
        any::<(u32, u8)>().prop_map(|(ns, code)| Message::SystemEvent(SystemEvent { ns, code })),
        any::<(u32, u32, u32, u8, u32)>().prop_map(|(ns, combination, leg, side, ratio)| {
            Message::CombinationLeg(CombinationLeg { ns, combination, leg, side, ratio })
        }),
        (any::<(u32, u32, u64)>(), price(), price())
            .prop_map(|((ns, book, tick), from, to)| Message::TickSize(TickSize { ns, book, tick, from, to })),
        any::<(u32, u32, u8)>().prop_map(|(ns, book, restriction)| Message::ShortSell(ShortSell {
            ns,
            book,
            restriction
        })),
        (any::<(u32, u32)>(), text(20)).prop_map(|((ns, book), state)| Message::BookState(BookState {
            ns,
            book,
            state
        })),
        any::<(u32, u32)>().prop_map(|(ns, book)| Message::Flush(Flush { ns, book })),
        (any::<(u32, u32, u64, u64, u64, u64)>(), price(), price(), price()).prop_map(
            |(n, price, best_bid, best_ask)| {
                let (ns, book, bid_quantity, ask_quantity, best_bid_quantity, best_ask_quantity) = n;
                Message::Equilibrium(Equilibrium {
                    ns,
                    book,
                    bid_quantity,
                    ask_quantity,
                    price,
                    best_bid,
                    best_ask,
                    best_bid_quantity,
                    best_ask_quantity,
                })
            }
        ),
        any::<u64>().prop_map(|next_sequence| Message::EndOfSnapshot(EndOfSnapshot { next_sequence })),
    ]
}

fn orders() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        (any::<(u32, u64, u16, u8)>(), order(), rank(), price()).prop_map(|(n, order, rank, price)| {
            let (ns, quantity, attributes, lot_type) = n;
            Message::Add(Add { ns, order, rank, quantity, price, attributes, lot_type })
        }),
        (any::<(u32, u32, u64, u16, u8, [u8; 7])>(), order(), price()).prop_map(|(n, order, price)| {
            let (ns, position, quantity, attributes, lot_type, participant) = n;
            Message::AddByParticipant(AddByParticipant {
                ns,
                order,
                position,
                quantity,
                price,
                attributes,
                lot_type,
                participant,
            })
        }),
        (any::<(u32, u64, u64, u32)>(), order()).prop_map(|((ns, quantity, match_id, combo_group), order)| {
            Message::Executed(Executed { ns, order, quantity, match_id, combo_group })
        }),
        (any::<(u32, u64, u64, u32, bool, bool)>(), order(), price()).prop_map(|(n, order, price)| {
            let (ns, quantity, match_id, combo_group, at_cross, printable) = n;
            Message::ExecutedAtPrice(ExecutedAtPrice {
                ns,
                order,
                quantity,
                match_id,
                combo_group,
                price,
                at_cross,
                printable,
            })
        }),
        (any::<(u32, u32, u64, u16)>(), order(), price()).prop_map(|(n, order, price)| {
            let (ns, position, quantity, attributes) = n;
            Message::Replace(Replace { ns, order, position, quantity, price, attributes })
        }),
        (any::<u32>(), order()).prop_map(|(ns, order)| Message::Delete(Delete { ns, order })),
        (any::<(u32, u64, u32, u64, u32, bool, bool)>(), prop::option::of(side()), price()).prop_map(
            |(n, side, price)| {
                let (ns, match_id, combo_group, quantity, book, printable, at_cross) = n;
                Message::Trade(Trade { ns, match_id, combo_group, side, quantity, book, price, printable, at_cross })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn comes_out_as_it_went_in(message in prop_oneof![orders(), rare(), reference()]) {
        let bytes = encoded(&message);
        prop_assert!(bytes.len() <= MAX_MESSAGE_BYTES);
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(kind in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..140)) {
        let bytes = [&[kind][..], &rest].concat();
        if let Ok(message) = Message::decode(&bytes) {
            let again = encoded(&message);
            prop_assert_eq!(again.len(), bytes.len());
            prop_assert_eq!(Message::decode(&again), Ok(message));
        }
    }

    #[test]
    fn a_message_that_is_cut_or_longer_is_refused(message in prop_oneof![orders(), rare()], cut in 1usize..130) {
        let bytes = encoded(&message);
        // The two layouts of `A` are told apart by their length: cut at the right place the new one is the old one.
        if cut < bytes.len() && !(bytes[0] == b'A' && cut == 37) {
            prop_assert!(Message::decode(&bytes[..cut]).is_err());
        }
        if !(bytes[0] == b'A' && bytes.len() + cut == 45) {
            prop_assert!(Message::decode(&[&bytes[..], &vec![b' '; cut]].concat()).is_err());
        }
    }
}
