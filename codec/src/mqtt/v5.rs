//! What only MQTT 5 has: the Reason Codes listed for each packet. MQTT 5, 2.4.

use super::{PacketType, ReasonCode};
use crate::error::ProtocolError;

const CONNACK: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
const PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL: &[u8] = &[0x00, 0x92];
const SUBACK: &[u8] = &[
    0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
];
const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
const DISCONNECT: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
    0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];
const AUTH: &[u8] = &[0x00, 0x18, 0x19];

/// The code, if it is listed for the packet, whoever sends it.
pub(crate) fn listed(packet: PacketType, code: u8) -> Result<ReasonCode, ProtocolError> {
    check(packet, &[code])?;
    Ok(ReasonCode::new(code))
}

/// Checks that each code is listed for the packet.
pub(crate) fn check(packet: PacketType, codes: &[u8]) -> Result<(), ProtocolError> {
    let list = match packet {
        PacketType::ConnAck => CONNACK,                     // [MQTT-3.2.2-8]
        PacketType::PubAck | PacketType::PubRec => PUBACK,  // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
        PacketType::PubRel | PacketType::PubComp => PUBREL, // [MQTT-3.6.2-1] [MQTT-3.7.2-1]
        PacketType::SubAck => SUBACK,                       // [MQTT-3.9.3-2]
        PacketType::UnsubAck => UNSUBACK,                   // [MQTT-3.11.3-2]
        PacketType::Disconnect => DISCONNECT,               // [MQTT-3.14.2-1]
        PacketType::Auth => AUTH,                           // [MQTT-3.15.2-1]
        PacketType::Connect
        | PacketType::Publish
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq
        | PacketType::PingResp => &[],
    };
    match codes.iter().find(|code| !list.contains(code)) {
        Some(code) => Err(ProtocolError::CodeNotListed {
            packet: packet.name(),
            code: *code,
        }),
        None => Ok(()),
    }
}
