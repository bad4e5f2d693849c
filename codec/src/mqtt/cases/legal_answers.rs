//! Legal acknowledgements and packets without a message.

use super::legal::{id, user};
use super::{ALL, Legal, ONLY_V5, ONLY_V31, legal};
use crate::mqtt::{Ack, Auth, Disconnect, Packet, ReasonCode};

pub(super) fn acknowledgements() -> Vec<Legal> {
    let plain = |code| Ack::new(id(1), ReasonCode::new(code));
    let told = |code| Ack {
        reason_string: Some("no"),
        user_properties: user("26 ** 'k' ** 'v'"),
        ..plain(code)
    };
    vec![
        // [MQTT-2.2.1-5] [MQTT3-2.3.1-6] MQTT 5, 3.4.2.1: length 2 is success.
        legal("puback", ALL, "40 02 0001", Packet::PubAck(plain(0))),
        legal("pubrec", ALL, "50 02 0001", Packet::PubRec(plain(0))),
        legal("pubrel", ALL, "62 02 0001", Packet::PubRel(plain(0))),
        legal("pubcomp", ALL, "70 02 0001", Packet::PubComp(plain(0))),
        legal(
            "pubrel sent again in 3.1",
            ONLY_V31,
            "6A 02 0001",
            Packet::PubRel(plain(0)),
        )
        .written_as("62 02 0001"),
        // Length 3 is a Reason Code without properties.
        legal(
            "puback with code",
            ONLY_V5,
            "40 03 0001 10",
            Packet::PubAck(plain(0x10)),
        ),
        legal(
            "puback with code 0",
            ONLY_V5,
            "40 03 0001 00",
            Packet::PubAck(plain(0)),
        )
        .written_as("40 02 0001"),
        legal(
            "pubrec with code",
            ONLY_V5,
            "50 03 0001 97",
            Packet::PubRec(plain(0x97)),
        ),
        legal(
            "pubrel with code",
            ONLY_V5,
            "62 03 0001 92",
            Packet::PubRel(plain(0x92)),
        ),
        legal(
            "pubcomp with code",
            ONLY_V5,
            "70 03 0001 92",
            Packet::PubComp(plain(0x92)),
        ),
        legal(
            "puback with no properties",
            ONLY_V5,
            "40 04 0001 87 00",
            Packet::PubAck(plain(0x87)),
        )
        .written_as("40 03 0001 87"),
        legal(
            "puback with properties",
            ONLY_V5,
            "40 ## 0001 87 0C 1F ** 'no' 26 ** 'k' ** 'v'",
            Packet::PubAck(told(0x87)),
        ),
        legal(
            "pubrec with properties",
            ONLY_V5,
            "50 ## 0001 00 0C 1F ** 'no' 26 ** 'k' ** 'v'",
            Packet::PubRec(told(0)),
        ),
        legal(
            "pubrel with properties",
            ONLY_V5,
            "62 ## 0001 92 0C 1F ** 'no' 26 ** 'k' ** 'v'",
            Packet::PubRel(told(0x92)),
        ),
        legal(
            "pubcomp with properties",
            ONLY_V5,
            "70 ## 0001 00 0C 26 ** 'k' ** 'v' 1F ** 'no'",
            Packet::PubComp(told(0)),
        )
        .written_as("70 ## 0001 00 0C 1F ** 'no' 26 ** 'k' ** 'v'"),
    ]
}

pub(super) fn others() -> Vec<Legal> {
    let closed = |code| Disconnect {
        reason: ReasonCode::new(code),
        ..Disconnect::default()
    };
    let auth = |code| Auth {
        reason: ReasonCode::new(code),
        method: Some("M"),
        ..Auth::default()
    };
    vec![
        legal("pingreq", ALL, "C0 00", Packet::PingReq),
        legal("pingresp", ALL, "D0 00", Packet::PingResp),
        // MQTT 5, 3.14.2.1: length 0 is a normal disconnection.
        legal("disconnect", ALL, "E0 00", Packet::Disconnect(closed(0))),
        legal(
            "disconnect with code 0",
            ONLY_V5,
            "E0 01 00",
            Packet::Disconnect(closed(0)),
        )
        .written_as("E0 00"),
        legal(
            "disconnect with code",
            ONLY_V5,
            "E0 01 04",
            Packet::Disconnect(closed(4)),
        ),
        legal(
            "disconnect without properties",
            ONLY_V5,
            "E0 02 81 00",
            Packet::Disconnect(closed(0x81)),
        )
        .written_as("E0 01 81"),
        legal(
            "disconnect properties",
            ONLY_V5,
            "E0 ## 8E 15 11FFFFFFFF 1F ** 'no' 1C ** 's' 26 ** 'k' 0001 76",
            Packet::Disconnect(Disconnect {
                session_expiry: Some(u32::MAX),
                reason_string: Some("no"),
                server_reference: Some("s"),
                user_properties: user("26 ** 'k' ** 'v'"),
                ..closed(0x8E)
            }),
        ),
        legal(
            "auth of length 0",
            ONLY_V5,
            "F0 00",
            Packet::Auth(Auth::default()),
        ),
        legal(
            "auth continue",
            ONLY_V5,
            "F0 ## 18 04 15 ** 'M'",
            Packet::Auth(auth(0x18)),
        ),
        legal(
            "auth properties",
            ONLY_V5,
            "F0 ## 19 15 15 ** 'M' 16 0002 00FF 1F ** 'no' 26 ** 'k' ** 'v'",
            Packet::Auth(Auth {
                data: Some(b"\0\xFF"),
                reason_string: Some("no"),
                user_properties: user("26 ** 'k' ** 'v'"),
                ..auth(0x19)
            }),
        ),
    ]
}
