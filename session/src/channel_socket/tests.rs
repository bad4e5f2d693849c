use codec::mqtt::PublishOut;

use super::*;

/// What was told, in short.
#[derive(Debug, Eq, PartialEq)]
enum Said {
    Accepted,
    Refused(u16),
    Text(String),
    Binary(Vec<u8>),
    Closed(u16),
}

fn tell(socket: &mut ChannelSocket, packets: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    socket.packets(packets, |told| {
        said.push(match told {
            Told::Accept => Said::Accepted,
            Told::Refuse(error) => Said::Refused(error.status().0),
            Told::Text(text) => Said::Text(String::from_utf8(text.to_vec()).unwrap()),
            Told::Binary(bytes) => Said::Binary(bytes.to_vec()),
            Told::Close(code) => Said::Closed(code.get()),
        });
    });
    said
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PublishOut {
        dup: false,
        retain: false,
        delivery: Delivery::AtMostOnce,
        topic: &[topic],
        topic_alias: None,
        message_expiry: None,
        subscription_identifiers: &[],
        forwarded: &[],
        payload,
    }
    .encode(VERSION, &mut out);
    out
}

fn suback(code: u8) -> Vec<u8> {
    vec![0x90, 4, 0, 1, 0, code]
}

fn puback(code: u8) -> Vec<u8> {
    vec![0x40, 3, 0, 1, code]
}

fn socket(path: &str, envelopes: bool) -> ChannelSocket {
    let path = ChannelPath::parse(path).unwrap().unwrap();
    let login = Login {
        username: "u".into(),
        password: "p".into(),
    };
    let request = ChannelRequest {
        path: &path,
        login: Some(&login),
        envelopes,
        binary: false,
    };
    let mut opening = Vec::new();
    let socket = ChannelSocket::open(&request, &mut opening);
    let connect = split_frame(&opening, 1000).unwrap().unwrap();
    let Packet::Connect(read) = decode(&connect, VERSION).unwrap() else {
        panic!("no CONNECT");
    };
    assert_eq!((read.username, read.password), (Some("u"), Some(&b"p"[..])));
    let subscribe = split_frame(&opening[connect.bytes.len()..], 1000)
        .unwrap()
        .unwrap();
    let Packet::Subscribe(read) = decode(&subscribe, VERSION).unwrap() else {
        panic!("no SUBSCRIBE");
    };
    let filter = read.filters.iter().next().unwrap();
    assert_eq!(filter.filter, path.topic());
    assert!(filter.no_local);
    socket
}

fn open(path: &str, envelopes: bool) -> ChannelSocket {
    let mut socket = socket(path, envelopes);
    assert_eq!(tell(&mut socket, &suback(0)), [Said::Accepted]);
    assert!(socket.is_open());
    socket
}

/// Topic, payload and text mark of the PUBLISH that a message became.
fn sent(mqtt: &[u8]) -> (String, Vec<u8>, bool, bool) {
    let frame = split_frame(mqtt, u32::MAX).unwrap().unwrap();
    assert_eq!(frame.bytes.len(), mqtt.len());
    let Packet::Publish(publish) = decode(&frame, VERSION).unwrap() else {
        panic!("no PUBLISH");
    };
    (
        publish.topic.to_owned(),
        publish.payload.to_vec(),
        publish.properties.payload_format.is_some(),
        publish.retain,
    )
}

#[test]
fn messages_pass_both_ways_as_they_are() {
    let mut socket = open("/m/d/c/x/a", false);
    let mut mqtt = Vec::new();
    socket.message(true, b"text", &mut mqtt).unwrap();
    assert_eq!(
        sent(&mqtt),
        ("m/d/c/x/a".into(), b"text".to_vec(), true, false)
    );
    mqtt.clear();
    socket.message(false, &[0, 255], &mut mqtt).unwrap();
    assert_eq!(
        sent(&mqtt),
        ("m/d/c/x/a".into(), vec![0, 255], false, false)
    );
    let packets = [
        publish("m/d/c/x/a", b"{}"),
        puback(0),
        publish("m/d/c/x/a", &[0xFF]),
    ]
    .concat();
    let said = tell(&mut socket, &packets);
    assert_eq!(said, [Said::Text("{}".into()), Said::Binary(vec![0xFF])]);
}

#[test]
fn refusals_are_http_statuses_before_the_socket_opens() {
    for (code, status) in [
        (0x86, 401),
        (0x87, 403),
        (0x9F, 429),
        (0x97, 429),
        (0x88, 503),
    ] {
        let mut refused = socket("/m/d/c/x", false);
        let connack = [0x20, 3, 0, code, 0];
        assert_eq!(tell(&mut refused, &connack), [Said::Refused(status)]);
        assert!(refused.is_over());
    }
    for (code, status) in [(0x87, 403), (0x8F, 400)] {
        let mut refused = socket("/m/d/c/x", false);
        let packets = [&[0x20, 3, 0, 0, 0][..], &suback(code)].concat();
        assert_eq!(tell(&mut refused, &packets), [Said::Refused(status)]);
        let mut mqtt = Vec::new();
        assert!(refused.message(true, b"x", &mut mqtt).is_err());
    }
}

#[test]
fn lost_rights_close_1008_and_other_ends_have_their_codes() {
    for (code, close) in [
        (0x87, 1008),
        (0x98, 1008),
        (0xA0, 1008),
        (0x8B, 1001),
        (0x95, 1009),
        (0x89, 1013),
    ] {
        let mut socket = open("/m/d/c/x", false);
        let packets = [&[0xE0, 2, code, 0][..], &publish("m/d/c/x", b"late")].concat();
        assert_eq!(tell(&mut socket, &packets), [Said::Closed(close)]);
    }
    let mut socket = open("/m/d/c/x", false);
    assert_eq!(
        tell(&mut socket, &puback(0x87)),
        [Said::Closed(1008)],
        "may not publish"
    );
    let mut wild = open("/m/d/c/x/%23", false);
    let mut mqtt = Vec::new();
    assert_eq!(
        wild.message(true, b"x", &mut mqtt),
        Err(CloseCode::POLICY_VIOLATION)
    );
}

#[test]
fn envelopes_carry_topic_and_payload_and_are_answered() {
    let mut socket = open("/m/d/c/x/%23", true);
    let mut send = |message: &str| {
        let mut mqtt = Vec::new();
        socket
            .message(true, message.as_bytes(), &mut mqtt)
            .map(|()| sent(&mqtt))
    };
    let simple = send(r#"{"topic":"m/d/c/x/a","payload":"hi","retain":true,"id":7}"#);
    assert_eq!(simple, Ok(("m/d/c/x/a".into(), b"hi".to_vec(), true, true)));
    let bytes = send(r#"{"topic":"m/d/c/x/a","payload":"AP8=","encoding":"base64"}"#);
    assert_eq!(bytes, Ok(("m/d/c/x/a".into(), vec![0, 255], false, false)));
    let json = send(r#"{"topic":"m/d/c/x/a","payload":{"t":[1,2]},"id":"z"}"#);
    assert_eq!(json.unwrap().1, br#"{"t":[1,2]}"#);
    for bad in [
        "no json",
        "[]",
        "{}",
        r#"{"payload":1,"topic":2}"#,
        r#"{"payload":"x","topic":"a/#"}"#,
        r#"{"payload":"x","topic":"a","retain":"yes"}"#,
        r#"{"payload":"x","topic":"a","qos":1}"#,
        r#"{"payload":"*","topic":"a","encoding":"base64"}"#,
        r#"{"payload":"x","topic":"a","id":{}}"#,
    ] {
        assert_eq!(send(bad), Err(CloseCode::INVALID_PAYLOAD), "{bad}");
    }
    assert_eq!(
        send(r#"{"payload":"x"}"#),
        Err(CloseCode::POLICY_VIOLATION),
        "no topic"
    );
    let packets = [
        puback(0),
        puback(0),
        puback(0x87),
        publish("m/d/c/x/b", b"text"),
        publish("m/d/c/x/b", &[0xFF]),
    ]
    .concat();
    let said = tell(&mut socket, &packets);
    let Said::Text(refused) = &said[1] else {
        panic!("{said:?}")
    };
    assert!(
        refused.contains(r#""code":135"#) && refused.contains(r#""id":"z""#),
        "{refused}"
    );
    assert_eq!(
        [&said[0], &said[2], &said[3]],
        [
            &Said::Text(r#"{"code":0,"id":7}"#.into()),
            &Said::Text(r#"{"payload":"text","topic":"m/d/c/x/b"}"#.into()),
            &Said::Text(r#"{"encoding":"base64","payload":"/w==","topic":"m/d/c/x/b"}"#.into()),
        ]
    );
}

proptest::proptest! {
    #[test]
    fn any_message_is_one_publish_or_an_end_and_any_packets_are_told_or_skipped(
        text: bool,
        envelopes: bool,
        message: Vec<u8>,
        packets: Vec<u8>,
    ) {
        let mut socket = open("/m/d/c/x/a", envelopes);
        let mut mqtt = Vec::new();
        if socket.message(text, &message, &mut mqtt).is_ok() {
            let (_, payload, ..) = sent(&mqtt);
            proptest::prop_assert!(envelopes || payload == message);
        }
        let said = tell(&mut socket, &packets);
        let closed = said.iter().filter(|said| matches!(said, Said::Closed(_) | Said::Refused(_)));
        proptest::prop_assert!(closed.count() <= 1);
    }

    #[test]
    fn any_payload_comes_back_out_of_its_envelope(payload: Vec<u8>) {
        let mut socket = open("/m/d/c/x/a", true);
        let said = tell(&mut socket, &publish("m/d/c/x/a", &payload));
        let [Said::Text(envelope)] = &said[..] else { panic!("{said:?}") };
        let mut other = open("/m/d/c/x/a", true);
        let mut mqtt = Vec::new();
        other.message(true, envelope.as_bytes(), &mut mqtt).unwrap();
        proptest::prop_assert_eq!(sent(&mqtt).1, payload);
    }
}
