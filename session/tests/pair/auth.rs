//! Enhanced authentication (MQTT 5, 4.12).

use codec::mqtt::{Auth, Connect, Delivery, Packet, ReasonCode, UserProperties};
use session::{IdentifyOutcome, Now, Refusal};

use crate::node::{Node, V5, V311, bytes_of, connect, publish};
use crate::world::line;

const PLAIN: &[u8] = b"\0dev\0secret";
const BEARER: &[u8] = b"n,,\x01auth=Bearer dev\x01\x01";

fn with_method<'a>(method: &'a str, data: Option<&'a [u8]>) -> Connect<'a> {
    let mut connect = connect(V5, "one");
    (connect.username, connect.password) = (None, None);
    connect.properties.authentication_method = Some(method);
    connect.properties.authentication_data = data;
    connect
}

fn auth<'a>(code: u8, method: Option<&'a str>, data: Option<&'a [u8]>) -> Packet<'a> {
    Packet::Auth(Auth {
        reason: ReasonCode::new(code),
        method,
        data,
        ..Auth::default()
    })
}

/// CONNACK's code, and the connection.
fn answer(node: &mut Node, connect: &Connect<'_>) -> (usize, ReasonCode) {
    let at = node.dial(V5);
    node.send(at, &Packet::Connect(*connect));
    let Packet::ConnAck(connack) = node.read_one(at) else {
        panic!()
    };
    if connack.reason == ReasonCode::SUCCESS {
        // [MQTT-4.12.0-5]
        let method = connect.properties.authentication_method;
        assert_eq!(connack.properties.authentication_method, method);
    }
    (at, connack.reason)
}

#[test]
fn data_in_connect_is_enough() {
    for (method, data) in [("PLAIN", PLAIN), ("OAUTHBEARER", BEARER)] {
        let (at, code) = answer(&mut Node::new(), &with_method(method, Some(data)));
        assert_eq!((at, code), (0, ReasonCode::SUCCESS));
    }
}

#[test]
fn unknown_method_is_refused() {
    // [MQTT-4.12.0-1]
    for method in ["SCRAM-SHA-1", "plain", ""] {
        let (_, code) = answer(&mut Node::new(), &with_method(method, Some(PLAIN)));
        assert_eq!(code, ReasonCode::BAD_AUTHENTICATION_METHOD);
    }
}

#[test]
fn wrong_data_is_refused_and_closes() {
    // [MQTT-4.12.0-4]
    for (method, data) in [
        ("PLAIN", &b"\0dev\0guess"[..]),
        ("PLAIN", b"dev\0secret"),
        ("PLAIN", b""),
        ("OAUTHBEARER", b"n,,\x01auth=Bearer nobody\x01\x01"),
        ("OAUTHBEARER", b"dev"),
    ] {
        let mut node = Node::new();
        let (at, code) = answer(&mut node, &with_method(method, Some(data)));
        assert_eq!(code, ReasonCode::BAD_USER_NAME_OR_PASSWORD);
        assert!(node.conns[at].closed.is_some());
    }
}

#[test]
fn missing_data_is_asked_for() {
    // [MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-3.15.2-1] [MQTT-3.15.2-2] [MQTT-3.2.0-1]
    for (method, data) in [("PLAIN", PLAIN), ("OAUTHBEARER", BEARER)] {
        let mut node = Node::new();
        let at = node.dial(V5);
        node.send(at, &Packet::Connect(with_method(method, None)));
        let Packet::Auth(asked) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(asked.reason, ReasonCode::CONTINUE_AUTHENTICATION);
        assert_eq!((asked.method, asked.reason_string), (Some(method), None));
        node.send(at, &auth(0x18, Some(method), Some(data)));
        let Packet::ConnAck(connack) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(connack.reason, ReasonCode::SUCCESS);
        assert_eq!(connack.properties.authentication_method, Some(method));
    }
}

#[test]
fn anything_but_the_asked_for_auth_before_connack_is_refused() {
    // [MQTT-4.12.0-5] [MQTT-3.14.0-1]
    let mut block = Vec::new();
    for _ in 0..65 {
        UserProperties::put(&mut block, "a", "b");
    }
    let topic = line("t");
    let cases = [
        (
            bytes_of(&auth(0x18, Some("OAUTHBEARER"), Some(BEARER)), V5),
            0x82,
        ),
        (bytes_of(&auth(0x19, Some("PLAIN"), Some(PLAIN)), V5), 0x82),
        (bytes_of(&auth(0x18, Some("PLAIN"), None), V5), 0x86),
        (b"\xF0\0".to_vec(), 0x82),
        (b"\xF0\x02\x18\0".to_vec(), 0x82),
        (b"\xC0\0".to_vec(), 0x82),
        (b"\xF1\0".to_vec(), 0x81),
        (
            bytes_of(
                &Packet::Publish(publish(&topic, Delivery::AtMostOnce, b"x")),
                V5,
            ),
            0x82,
        ),
    ];
    for (bytes, code) in cases {
        let mut node = Node::new();
        let at = node.dial(V5);
        node.send(at, &Packet::Connect(with_method("PLAIN", None)));
        node.read(at);
        node.feed(at, &bytes);
        let Packet::ConnAck(connack) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(connack.reason.get(), code, "{bytes:x?}");
        assert!(node.conns[at].closed.is_some() && node.routed.is_empty());
    }
    let mut node = Node::new();
    let at = node.dial(V5);
    node.send(at, &Packet::Connect(with_method("PLAIN", None)));
    node.read(at);
    node.feed(at, b"\xE0\0");
    assert!(node.conns[at].closed.is_some() && node.conns[at].out.bytes.is_empty());
}

#[test]
fn client_without_method_gets_and_sends_no_auth() {
    // [MQTT-4.12.0-6]
    for packet in [
        auth(0x19, Some("PLAIN"), Some(PLAIN)),
        auth(0x00, None, None),
    ] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        node.send(at, &packet);
        let Packet::Disconnect(told) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(told.reason, ReasonCode::PROTOCOL_ERROR);
    }
    let mut node = Node::new();
    let at = node.fresh(V311);
    node.feed(at, b"\xF0\0");
    assert_eq!(node.conns[at].closed, Some(ReasonCode::MALFORMED_PACKET));
}

#[test]
fn re_authentication_holds_input_until_it_is_judged() {
    let mut node = Node::new();
    let (at, _) = answer(&mut node, &with_method("PLAIN", Some(PLAIN)));
    node.hold_identity = true;
    let topic = line("t");
    node.send(at, &auth(0x19, Some("PLAIN"), Some(PLAIN)));
    // Neither on the fast path nor off it.
    node.send(
        at,
        &Packet::Publish(publish(&topic, Delivery::AtMostOnce, b"x")),
    );
    node.send(at, &Packet::PingReq);
    assert!(node.routed.is_empty() && node.conns[at].out.bytes.is_empty());
    let until = Now::from_millis(2_000_000);
    let dev = node.world.dev;
    node.identify(at, IdentifyOutcome::Known(dev, Some(until)));
    node.feed(at, &[]);
    let got = node.read(at);
    let [Packet::Auth(done), Packet::PingResp] = &got[..] else {
        panic!("{got:?}")
    };
    assert_eq!(
        (done.reason, done.method),
        (ReasonCode::SUCCESS, Some("PLAIN"))
    );
    assert_eq!(node.routed.len(), 1);
    assert_eq!(node.conns[at].machine().credentials_end(), Some(until));
}

#[test]
fn re_authentication_may_be_asked_for_its_data() {
    let mut node = Node::new();
    let (at, _) = answer(&mut node, &with_method("PLAIN", Some(PLAIN)));
    node.send(at, &auth(0x19, Some("PLAIN"), None));
    let Packet::Auth(asked) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(asked.reason, ReasonCode::CONTINUE_AUTHENTICATION);
    // The connection goes on meanwhile.
    node.send(at, &Packet::PingReq);
    assert_eq!(node.read_one(at), Packet::PingResp);
    node.send(at, &auth(0x18, Some("PLAIN"), Some(PLAIN)));
    let Packet::Auth(done) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(done.reason, ReasonCode::SUCCESS);
    node.send(at, &auth(0x18, Some("PLAIN"), Some(PLAIN)));
    assert_eq!(
        node.conns[at].closed,
        Some(ReasonCode::PROTOCOL_ERROR),
        "nobody asked"
    );
}

#[test]
fn failed_re_authentication_closes() {
    // [MQTT-4.12.1-2] [MQTT-4.12.0-5]
    let cases: [(Packet<'_>, u8); 6] = [
        (auth(0x19, Some("PLAIN"), Some(b"\0dev\0guess")), 0x87),
        (auth(0x19, Some("PLAIN"), Some(b"\0other\0secret")), 0x87),
        (auth(0x19, Some("PLAIN"), Some(b"x")), 0x87),
        (auth(0x19, Some("OAUTHBEARER"), Some(BEARER)), 0x82),
        (auth(0x18, Some("PLAIN"), Some(PLAIN)), 0x82),
        (auth(0x00, None, None), 0x82),
    ];
    for (packet, code) in cases {
        let mut node = Node::new();
        let (at, _) = answer(&mut node, &with_method("PLAIN", Some(PLAIN)));
        node.send(at, &packet);
        let Packet::Disconnect(told) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(told.reason.get(), code, "{packet:?}");
    }
}

#[test]
fn identification_that_fails_says_why_in_each_version() {
    for (refusal, v5, v3) in [
        (Refusal::BadCredentials, 0x86, 4),
        (Refusal::NotAuthorized, 0x87, 5),
        (Refusal::Throttled, 0x9F, 3),
        (Refusal::Unavailable, 0x88, 3),
        (Refusal::Quota, 0x97, 3),
    ] {
        for (version, code) in [(V5, v5), (V311, v3)] {
            let mut node = Node::new();
            node.hold_identity = true;
            let at = node.dial(version);
            node.send(at, &Packet::Connect(connect(version, "one")));
            node.identify(at, IdentifyOutcome::Refused(refusal));
            let Packet::ConnAck(connack) = node.read_one(at) else {
                panic!()
            };
            assert_eq!(connack.reason.get(), code);
        }
    }
}
