//! CONNECT: who is let in, under which name, in which version.

use codec::mqtt::{Packet, QoS, ReasonCode};

use crate::node::{Node, V5, V31, V311, bytes_of, connect, lasting, packets, subscribe, to};
use crate::world::line;

/// The CONNACK of a refusal, or `None` for a close without a word.
fn refusal(node: &mut Node, connect: &codec::mqtt::Connect<'_>) -> Option<ReasonCode> {
    let at = node.dial(connect.version);
    node.send(at, &Packet::Connect(*connect));
    refused(node, at)
}

fn refused(node: &mut Node, at: usize) -> Option<ReasonCode> {
    assert!(node.conns[at].closed.is_some(), "a refusal closes");
    match node.read(at)[..] {
        [] => None,
        [Packet::ConnAck(connack)] => {
            // [MQTT-3.2.2-6] [MQTT3-3.2.2-4]
            assert!(!connack.session_present);
            Some(connack.reason)
        }
        ref other => panic!("CONNACK or nothing expected: {other:?}"),
    }
}

#[test]
fn first_packet_that_is_no_connect_closes_without_a_word() {
    // [MQTT-3.1.0-1] [MQTT3-3.1.0-1] [MQTT-3.14.0-1]
    for bytes in [
        &b"\xC0\0"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"\x30",
        b"\x00",
        b"\xE0\0",
    ] {
        let mut node = Node::new();
        let at = node.dial(V5);
        node.feed(at, bytes);
        assert!(node.conns[at].closed.is_some());
        assert!(node.conns[at].out.bytes.is_empty());
    }
}

#[test]
fn second_connect_closes_the_connection() {
    // [MQTT-3.1.0-2] [MQTT3-3.1.0-2]
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        let at = node.fresh(version);
        node.send(at, &Packet::Connect(connect(version, "one")));
        assert_eq!(node.conns[at].closed, Some(ReasonCode::PROTOCOL_ERROR));
    }
}

#[test]
fn refused_protocol_is_answered_in_the_form_of_its_version() {
    // [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT3-3.1.2-1] [MQTT3-3.1.2-2]
    let cases: [(&[u8], Option<&[u8]>); 6] = [
        (
            b"\x10\x0C\0\x04MQTT\x03\x02\0\x3C\0\0",
            Some(b"\x20\x02\0\x01"),
        ),
        (
            b"\x10\x0C\0\x04MQTT\x84\x02\0\x3C\0\0",
            Some(b"\x20\x02\0\x01"),
        ),
        (
            b"\x10\x0E\0\x06MQIsdp\x04\x02\0\x3C\0\0",
            Some(b"\x20\x02\0\x01"),
        ),
        (b"\x10\x0D\0\x04MQTT\x06\x02\0\x3C\0\0\0", None),
        (b"\x10\x0C\0\x04MQTX\x04\x02\0\x3C\0\0", Some(b"")),
        (b"\x10\x0C\0\x04mqtt\x05\x02\0\x3C\0\0", Some(b"")),
    ];
    for (bytes, answer) in cases {
        let mut node = Node::new();
        let at = node.dial(V5);
        node.feed(at, bytes);
        match answer {
            Some(answer) => assert_eq!(node.conns[at].out.bytes, answer),
            None => {
                let code = refused(&mut node, at);
                assert_eq!(code, Some(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION));
            }
        }
        assert!(node.conns[at].closed.is_some());
    }
}

#[test]
fn malformed_connect_closes_and_mqtt_5_is_told_why() {
    // [MQTT-3.1.4-1] [MQTT3-3.1.4-1]
    let mut node = Node::new();
    let at = node.dial(V311);
    node.feed(at, b"\x10\x0C\0\x04MQTT\x04\x03\0\x3C\0\0");
    assert_eq!(refused(&mut node, at), None, "no CONNACK before MQTT 5");
    let at = node.dial(V5);
    node.feed(at, b"\x10\x0D\0\x04MQTT\x05\x03\0\x3C\0\0\0");
    assert_eq!(refused(&mut node, at), Some(ReasonCode::MALFORMED_PACKET));
    let at = node.dial(V5);
    node.feed(
        at,
        b"\x10\x13\0\x04MQTT\x05\x02\0\x3C\x06\x21\0\x01\x21\0\x01\0\0",
    );
    assert_eq!(
        refused(&mut node, at),
        Some(ReasonCode::PROTOCOL_ERROR),
        "a property twice"
    );
}

#[test]
fn t_frm_2_connect_over_its_limit_is_closed_from_its_header() {
    let mut node = Node::new();
    let at = node.dial(V5);
    node.feed(at, b"\x10\xFF\xFF\xFF\x7F");
    assert!(node.conns[at].closed.is_some());
    assert!(node.conns[at].out.bytes.is_empty());
}

#[test]
fn wrong_credentials_are_refused_in_each_version() {
    // [MQTT-3.1.4-2] [MQTT-3.2.2-7] [MQTT3-3.2.2-5] [MQTT-3.2.2-8] [MQTT3-3.1.4-5]
    for (version, code) in [(V31, 4), (V311, 4), (V5, 0x86)] {
        let mut node = Node::new();
        let mut wrong = connect(version, "one");
        wrong.password = Some(b"guess");
        assert_eq!(refusal(&mut node, &wrong), Some(ReasonCode::new(code)));
    }
}

#[test]
fn nothing_behind_a_refused_connect_is_processed() {
    // [MQTT-3.1.4-6] [MQTT3-3.1.4-5]
    let mut node = Node::new();
    let at = node.dial(V5);
    let mut wrong = connect(V5, "one");
    wrong.username = Some("nobody");
    let mut bytes = bytes_of(&Packet::Connect(wrong), V5);
    bytes.extend_from_slice(b"\xC0\0");
    node.feed(at, &bytes);
    assert_eq!(
        refused(&mut node, at),
        Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD)
    );
    node.feed(at, b"\xC0\0");
    assert!(node.conns[at].out.bytes.is_empty());
}

#[test]
fn packets_behind_connect_wait_for_the_connack() {
    // [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT3-3.1.4-4] [MQTT3-3.2.0-1]
    for version in [V311, V5] {
        let mut node = Node::new();
        node.hold_identity = true;
        let at = node.dial(version);
        let mut bytes = bytes_of(&Packet::Connect(connect(version, "one")), version);
        bytes.extend(subscribe(
            version,
            1,
            None,
            &[to(&line("t"), QoS::AtMostOnce)],
        ));
        bytes.extend_from_slice(b"\xC0\0");
        node.feed(at, &bytes);
        assert!(node.conns[at].out.bytes.is_empty());
        let dev = node.world.dev;
        node.identify(at, session::IdentifyOutcome::Known(dev, None));
        node.feed(at, &[]);
        let got = node.read(at);
        assert!(
            matches!(
                got[..],
                [Packet::ConnAck(_), Packet::SubAck(_), Packet::PingResp]
            ),
            "{got:?}"
        );
    }
}

#[test]
fn client_identifiers_of_1_to_23_letters_and_digits_are_accepted() {
    // [MQTT-3.1.3-5] [MQTT3-3.1.3-5]
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        for client_id in ["a", "0123456789ABCDEFGHIJKLM", "nopqrstuvwxyzNOPQRSTUVW"] {
            node.connect(&connect(version, client_id));
        }
    }
}

#[test]
fn client_identifier_of_length_zero_depends_on_the_version() {
    // [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.1.3-8] [MQTT-3.2.2-16] [MQTT3-3.1.3-6]
    // [MQTT3-3.1.3-8] [MQTT3-3.1.3-9]
    let mut node = Node::new();
    let mut assigned = Vec::new();
    for clean_start in [true, false, true] {
        let at = node.dial(V5);
        let mut connect = connect(V5, "");
        connect.clean_start = clean_start;
        node.send(at, &Packet::Connect(connect));
        let Packet::ConnAck(connack) = node.read_one(at) else {
            panic!()
        };
        let name = connack
            .properties
            .assigned_client_identifier
            .expect("one is assigned");
        assert!(!name.is_empty() && !assigned.contains(&name));
        assigned.push(name);
    }
    node.connect(&connect(V311, ""));
    let mut kept = connect(V311, "");
    kept.clean_start = false;
    assert_eq!(refusal(&mut node, &kept), Some(ReasonCode::new(2)));
    assert_eq!(
        refusal(&mut node, &connect(V31, "")),
        Some(ReasonCode::new(2))
    );
}

#[test]
fn assigned_identifier_resumes_its_session() {
    // [MQTT-3.1.3-2] [MQTT-3.1.3-7]
    let mut node = Node::new();
    let at = node.dial(V5);
    node.send(at, &Packet::Connect(lasting(V5, "")));
    let Packet::ConnAck(connack) = node.read_one(at) else {
        panic!()
    };
    let name = connack.properties.assigned_client_identifier.unwrap();
    node.close(at, ReasonCode::SUCCESS);
    assert!(node.connect(&lasting(V5, name)).1);
}

#[test]
fn t_top_11_control_characters_and_overlong_names_are_refused() {
    // [MQTT-3.1.3-8] [MQTT3-3.1.3-9]
    let long = "x".repeat(257);
    for (version, code) in [(V311, 2), (V5, 0x85)] {
        for client_id in ["a\r\nb", "a\u{7f}", &long] {
            let code = Some(ReasonCode::new(code));
            assert_eq!(
                refusal(&mut Node::new(), &connect(version, client_id)),
                code
            );
        }
    }
    let mut wrong = connect(V5, "one");
    wrong.username = Some("dev\n");
    let code = refusal(&mut Node::new(), &wrong);
    assert_eq!(code, Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD));
}

#[test]
fn t_ses_6_another_principal_has_another_session_of_the_same_name() {
    // [MQTT-3.1.3-2] [MQTT3-3.1.3-2]
    let mut node = Node::new();
    let (mine, _) = node.connect(&lasting(V311, "name"));
    let mut other = lasting(V311, "name");
    other.username = Some("other");
    let (_, present) = node.connect(&other);
    assert!(!present);
    assert_eq!(node.conns[mine].closed, None);
}

#[test]
fn takeover_closes_the_old_connection_and_keeps_the_session() {
    for version in [V311, V5] {
        let mut node = Node::new();
        let (old, _) = node.connect(&lasting(version, "one"));
        let (new, present) = node.connect(&lasting(version, "one"));
        assert!(present);
        assert_eq!(node.conns[old].closed, Some(ReasonCode::SESSION_TAKEN_OVER));
        match (version.is_v5(), &node.read(old)[..]) {
            (true, [Packet::Disconnect(told)]) => {
                assert_eq!(told.reason, ReasonCode::SESSION_TAKEN_OVER);
            }
            (false, []) => {}
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!(node.conns[new].closed, None);
    }
}

#[test]
fn connack_before_mqtt_5_has_a_code_or_is_not_sent() {
    // [MQTT3-3.2.2-6]
    let will = codec::mqtt::Will {
        topic: "outside",
        payload: b"",
        qos: QoS::AtMostOnce,
        retain: false,
        delay: 0,
        properties: Default::default(),
    };
    for (version, code) in [(V311, None), (V5, Some(ReasonCode::TOPIC_NAME_INVALID))] {
        let mut connect = connect(version, "one");
        connect.will = Some(will);
        assert_eq!(refusal(&mut Node::new(), &connect), code);
    }
}

#[test]
fn reason_codes_that_connack_does_not_list_are_not_sent_in_it() {
    // [MQTT-3.2.2-8]
    for (code, sent) in [
        (
            ReasonCode::SERVER_SHUTTING_DOWN,
            ReasonCode::SERVER_UNAVAILABLE,
        ),
        (
            ReasonCode::ADMINISTRATIVE_ACTION,
            ReasonCode::NOT_AUTHORIZED,
        ),
        (ReasonCode::SERVER_BUSY, ReasonCode::SERVER_BUSY),
    ] {
        let mut node = Node::new();
        node.hold_identity = true;
        let at = node.dial(V5);
        node.send(at, &Packet::Connect(connect(V5, "one")));
        node.fail(at, code);
        let [Packet::ConnAck(connack)] = packets(node.conns[at].out.bytes.clone(), V5)[..] else {
            panic!()
        };
        assert_eq!(connack.reason, sent);
    }
}

#[test]
fn mqtt_3_1_speaks_its_own_name_and_has_no_session_present() {
    let mut node = Node::new();
    let (at, present) = node.connect(&lasting(V31, "one"));
    assert!(!present);
    node.close(at, ReasonCode::SUCCESS);
    let (_, present) = node.connect(&lasting(V31, "one"));
    assert!(!present, "the session is there, but 3.1 cannot be told");
}
