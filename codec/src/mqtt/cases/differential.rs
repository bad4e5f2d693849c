//! A second opinion: mqttbytes 0.6, whose known faults are listed by name.
//!
//! It judges well-formed packets well and malformed ones poorly, so the two directions differ: a
//! legal packet has to be read alike, and an illegal one that it accepts has to be in the list.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::material::material;
use super::second_opinion::{second_opinion, summary};
use super::{all_legal, all_refused};
use crate::mqtt::ProtocolVersion::{self, V5, V31};
use crate::mqtt::{
    Connect, DecodeError, Disconnect, Frame, Malformed, Packet, ProtocolError, split_frame,
};

/// Legal packets of which mqttbytes loses a part.
fn misreads(packet: &Packet<'_>) -> bool {
    match packet {
        // It counts a byte too many for each and overlooks a short last property.
        Packet::Publish(publish) => publish.properties.subscription_identifiers.count() > 1,
        _ => false,
    }
}

/// Legal packets that mqttbytes refuses, and why it does.
fn refuses_wrongly(packet: &Packet<'_>, version: ProtocolVersion) -> bool {
    match packet {
        // It knows no AUTH packet.
        Packet::Auth(_) => true,
        // It wants Reason Code and Property Length.
        Packet::Disconnect(disconnect) => {
            let bare = Disconnect {
                reason: disconnect.reason,
                ..Disconnect::default()
            };
            version.is_v5() && *disconnect == bare
        }
        // It knows no `MQIsdp`, and its password is a string.
        Packet::Connect(connect) => {
            let password = connect.password.unwrap_or_default();
            connect.version == V31 || str::from_utf8(password).is_err()
        }
        _ => false,
    }
}

/// The name of what mqttbytes does not look at; `None` where it should refuse as we do.
fn overlooks(error: &DecodeError) -> Option<&'static str> {
    Some(match error {
        DecodeError::Malformed(malformed) => match malformed {
            Malformed::FixedHeaderFlags { .. } => "fixed header flags",
            Malformed::Topic { .. } => "rules of topic names and filters",
            Malformed::Nul { .. } => "U+0000",
            Malformed::ReservedSubscriptionOptions { .. } => "reserved subscription options",
            Malformed::ReservedConnectFlag => "reserved connect flag",
            Malformed::ReservedAcknowledgeFlags { .. } => "reserved acknowledge flags",
            Malformed::PasswordWithoutUserName => "password without user name",
            Malformed::VariableByteIntegerNotMinimal { .. } => "padded variable byte integers",
            Malformed::TrailingBytes { .. } => "bytes behind the last field",
            // It reads a property on into what follows the properties.
            Malformed::Truncated { .. } => "end of the properties",
            _ => return None,
        },
        DecodeError::ProtocolError(broken) => match broken {
            ProtocolError::DupAtQos0 => "DUP at QoS 0",
            ProtocolError::NoFilters { .. } => "no topic filter",
            ProtocolError::NoTopic => "no topic",
            ProtocolError::PacketIdZero { .. } => "packet identifier 0 outside PUBLISH",
            ProtocolError::PropertyTwice { .. } => "property twice",
            ProtocolError::PropertyIsZero { .. } => "property of value 0",
            ProtocolError::PropertyNotZeroOrOne { .. } => "property that is 0 or 1",
            ProtocolError::TopicAliasZero => "topic alias 0",
            ProtocolError::NoLocalOnShared => "No Local on a shared subscription",
            ProtocolError::AuthenticationDataWithoutMethod => "data without method",
            ProtocolError::SessionPresentOnRefusal => "Session Present on a refusal",
            _ => return None,
        },
        DecodeError::TooLarge { .. } | DecodeError::UnsupportedVersion { .. } => return None,
    })
}

/// A CONNECT is read by the codec of the version it names.
fn version_of(packet: &Packet<'_>, version: ProtocolVersion) -> ProtocolVersion {
    match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    }
}

#[track_caller]
fn check(bytes: &[u8], packet: &Packet<'_>, version: ProtocolVersion) {
    let Some(theirs) = second_opinion(bytes, version_of(packet, version)) else {
        return;
    };
    if refuses_wrongly(packet, version) || misreads(packet) {
        return;
    }
    assert_eq!(theirs, Ok(summary(packet)), "{bytes:02X?}");
}

#[test]
fn legal_packets_are_read_alike() {
    for case in all_legal() {
        for version in case.versions {
            check(&case.bytes, &case.packet, *version);
        }
    }
}

#[test]
fn what_mqttbytes_refuses_wrongly_is_still_refused() {
    let mut refused = 0;
    for case in all_legal()
        .into_iter()
        .filter(|case| case.versions.contains(&V5))
    {
        let version = version_of(&case.packet, V5);
        let shortest = case.written.as_ref().unwrap_or(&case.bytes);
        if version != V31 && refuses_wrongly(&case.packet, version) {
            assert!(
                matches!(second_opinion(shortest, version), Some(Err(_))),
                "{}",
                case.name
            );
            refused += 1;
        }
    }
    assert!(refused >= 5);
}

#[test]
fn what_mqttbytes_accepts_wrongly_is_known() {
    let mut overlooked = BTreeSet::new();
    for case in all_refused() {
        let own = Connect::version_of(&whole_or_empty(&case.bytes));
        for version in case
            .versions
            .iter()
            .filter(|version| own.is_none_or(|own| own == **version))
        {
            let Some(Ok(theirs)) = second_opinion(&case.bytes, *version) else {
                continue;
            };
            let fault = overlooks(&case.error);
            let name = fault.unwrap_or_else(|| panic!("{} was read as {theirs}", case.name));
            overlooked.insert(name);
        }
    }
    // All of `overlooks` is needed.
    assert_eq!(overlooked.len(), 21, "{overlooked:#?}");
}

/// The frame, or an empty one where the fixed header is the fault.
fn whole_or_empty(bytes: &[u8]) -> Frame<'_> {
    let frame = split_frame(bytes, u32::MAX).ok().flatten();
    frame.unwrap_or(Frame {
        first: 0,
        body: &[],
        bytes: &[],
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_alike(material in material()) {
        let mut out = Vec::new();
        material.packet().encode(material.version, &mut out);
        check(&out, &material.packet(), material.version);
    }
}
