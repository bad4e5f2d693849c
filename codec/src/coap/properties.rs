//! What holds for any message, with another implementation as the second opinion.

use coap_lite::{CoapOption, MessageClass, MessageType, Packet};
use proptest::prelude::*;

use crate::coap::{Block, Code, Kind, Message, MessageId, OptionNumber, Token, Writer};

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Con),
        Just(Kind::Non),
        Just(Kind::Ack),
        Just(Kind::Rst)
    ]
}

fn options() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let number = prop_oneof![0u16..60, 240u16..300, any::<u16>()];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..16),
        prop::collection::vec(any::<u8>(), 250..300),
    ];
    prop::collection::vec((number, value), 0..8).prop_map(|mut options| {
        options.sort_by_key(|(number, _)| *number);
        options
    })
}

fn written(
    kind: Kind,
    code: u8,
    id: u16,
    token: &[u8],
    options: &[(u16, Vec<u8>)],
    payload: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let token = Token::new(token).unwrap();
    let mut writer = Writer::new(&mut out, kind, Code::new(code), MessageId(id), token);
    for (number, value) in options {
        writer = writer.option(OptionNumber(*number), value);
    }
    writer.payload(payload);
    out
}

fn second_kind(kind: Kind) -> MessageType {
    match kind {
        Kind::Con => MessageType::Confirmable,
        Kind::Non => MessageType::NonConfirmable,
        Kind::Ack => MessageType::Acknowledgement,
        Kind::Rst => MessageType::Reset,
    }
}

proptest! {
    #[test]
    fn messages_are_read_as_they_were_written(
        kind in kind(),
        code in 1u8..,
        id: u16,
        token in prop::collection::vec(any::<u8>(), 0..=8),
        options in options(),
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = written(kind, code, id, &token, &options, &payload);
        let read = Message::parse(&bytes).unwrap();
        prop_assert_eq!((read.kind, read.code.get(), read.id.0), (kind, code, id));
        prop_assert_eq!(read.token.as_bytes(), &token[..]);
        prop_assert_eq!(read.payload, &payload[..]);
        let seen: Vec<_> = read.options().map(|o| (o.number.0, o.value.to_vec())).collect();
        prop_assert_eq!(&seen, &options);
        for (number, _) in &options {
            let values: Vec<_> = read.values(OptionNumber(*number)).collect();
            let expected: Vec<_> = options.iter().filter(|o| o.0 == *number).map(|o| &o.1[..]).collect();
            prop_assert_eq!(values, expected);
        }
    }

    #[test]
    fn another_reader_sees_the_same(
        kind in kind(),
        method in 1u8..=4,
        id: u16,
        token in prop::collection::vec(any::<u8>(), 0..=8),
        options in options(),
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = written(kind, method, id, &token, &options, &payload);
        let other = Packet::from_bytes(&bytes).unwrap();
        prop_assert_eq!(other.header.get_type(), second_kind(kind));
        prop_assert_eq!(u8::from(other.header.code), method);
        prop_assert_eq!(other.header.message_id, id);
        prop_assert_eq!(other.get_token(), &token[..]);
        prop_assert_eq!(&other.payload, &payload);
        let mut seen = Vec::new();
        for (number, values) in other.options() {
            seen.extend(values.iter().map(|value| (*number, value.clone())));
        }
        prop_assert_eq!(seen, options);
    }

    #[test]
    fn what_another_writer_writes_is_read(
        kind in kind(),
        id: u16,
        token in prop::collection::vec(any::<u8>(), 0..=8),
        path in prop::collection::vec("[a-z]{0,300}", 0..4),
        block in 0u32..1 << 20,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut other = Packet::new();
        other.header.set_type(second_kind(kind));
        other.header.code = MessageClass::from(2);
        other.header.message_id = id;
        other.set_token(token.clone());
        for part in &path {
            other.add_option(CoapOption::UriPath, part.clone().into_bytes());
        }
        let value = Block { number: block, more: true, exponent: 6 }.value();
        other.add_option(CoapOption::Block1, value.to_be_bytes()[1..].to_vec());
        other.payload = payload.clone();
        let bytes = other.to_bytes().unwrap();
        let read = Message::parse(&bytes).unwrap();
        prop_assert_eq!((read.kind, read.code, read.id.0), (kind, Code::POST, id));
        prop_assert_eq!(read.token.as_bytes(), &token[..]);
        let seen: Vec<_> = read.values(OptionNumber::URI_PATH).collect();
        prop_assert_eq!(seen, path.iter().map(String::as_bytes).collect::<Vec<_>>());
        prop_assert_eq!(read.block(OptionNumber::BLOCK1).unwrap().unwrap().number, block);
        prop_assert_eq!(read.payload, &payload[..]);
    }

    #[test]
    fn any_datagram_is_read_or_refused_and_what_is_read_is_written_again(
        head in prop_oneof![Just(0x40u8), 0x40u8..0x50, any::<u8>()],
        rest in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let bytes = [&[head], &rest[..]].concat();
        // The other reader is laxer in places; where both read, both see the same.
        if let Ok(read) = Message::parse(&bytes) {
            let options: Vec<_> = read.options().map(|o| (o.number.0, o.value.to_vec())).collect();
            let again = written(
                read.kind, read.code.get(), read.id.0, read.token.as_bytes(), &options, read.payload,
            );
            let back = Message::parse(&again).unwrap();
            prop_assert_eq!(back.payload, read.payload);
            let _ = read.unacceptable_option();
            if let Ok(other) = Packet::from_bytes(&bytes) {
                prop_assert_eq!(&other.payload[..], read.payload);
                prop_assert_eq!(other.get_token(), read.token.as_bytes());
            }
        }
    }
}
