//! Properties of a PUBLISH that a broker hands on byte for byte, told without decoding them.

use super::property::id;
use crate::varint;

/// What a broker has to know of properties that it hands on as they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PassingProperties {
    /// Bytes of all properties, their length in front of them included.
    pub bytes: usize,
    /// How many User Properties there are.
    pub user_properties: usize,
    /// Bytes they take in the packet, identifiers and lengths included.
    pub user_property_bytes: usize,
}

/// Looks at the properties of an MQTT 5 PUBLISH at QoS 0, where `behind_topic` is
/// [`PublishHead::rest`](super::PublishHead::rest).
///
/// `None` when the packet needs [`decode`](super::decode): a property that is to be resolved,
/// counted down or left out (Topic Alias, Message Expiry Interval, Subscription Identifier), or to
/// be compared with the payload or the rules of topics (Payload Format Indicator 1, Response
/// Topic), text beyond ASCII, and everything malformed. Whatever is told to pass is well-formed.
#[inline]
pub fn passing_properties(behind_topic: &[u8]) -> Option<PassingProperties> {
    let (length, length_bytes) = varint::read(behind_topic, "Property Length").ok()??;
    let mut rest = behind_topic.get(length_bytes..)?.get(..length as usize)?;
    let mut passing = PassingProperties {
        bytes: length_bytes + rest.len(),
        ..Default::default()
    };
    // None but the User Property may appear twice. MQTT 5, 3.3.2.3.
    let mut once = [id::PAYLOAD_FORMAT, id::CONTENT_TYPE, id::CORRELATION_DATA].map(Some);
    while let [number, value @ ..] = rest {
        rest = if *number == id::USER_PROPERTY {
            let (name, behind) = prefixed(value)?;
            let (text, behind) = prefixed(behind)?;
            if !(is_plain_text(name) && is_plain_text(text)) {
                return None;
            }
            passing.user_properties += 1;
            passing.user_property_bytes += rest.len() - behind.len();
            behind
        } else {
            once.iter_mut()
                .find(|known| **known == Some(*number))?
                .take();
            match *number {
                id::PAYLOAD_FORMAT => value.strip_prefix(&[0])?,
                id::CONTENT_TYPE => {
                    let (text, behind) = prefixed(value)?;
                    is_plain_text(text).then_some(behind)?
                }
                _ => prefixed(value)?.1,
            }
        };
    }
    Some(passing)
}

/// Bytes behind their length, and what follows them.
#[inline]
fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, behind) = bytes.split_first_chunk::<2>()?;
    behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Whether all bytes are ASCII and none is U+0000.
///
/// Words of eight bytes, the last one overlapping: names and values are short.
#[inline]
fn is_plain_text(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const LOW: u64 = 0x0101_0101_0101_0101;
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().all(|byte| byte.cast_signed() > 0);
    };
    // The lowest byte of 0 borrows, and so gets its high bit.
    let special = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        word | word.wrapping_sub(LOW)
    };
    let words = bytes.as_chunks::<8>().0.iter();
    words.fold(special(last), |found, word| found | special(word)) & HIGH == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::{
        Delivery, Packet, PayloadFormat, ProtocolVersion, Publish, PublishProperties,
        UserProperties, decode, publish_head, split_frame,
    };

    /// Looks at the properties of a PUBLISH with `properties`.
    fn look(properties: PublishProperties<'_>) -> Option<PassingProperties> {
        let mut bytes = Vec::new();
        let publish = Publish {
            dup: false,
            retain: false,
            delivery: Delivery::AtMostOnce,
            topic: "t",
            properties,
            payload: b"payload",
        };
        publish.encode(ProtocolVersion::V5, &mut bytes);
        let frame = split_frame(&bytes, u32::MAX).unwrap().unwrap();
        passing_properties(publish_head(&frame).unwrap().rest)
    }

    fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in pairs {
            UserProperties::put(&mut block, name, value);
        }
        block
    }

    #[test]
    fn properties_that_leave_as_they_are_pass_and_are_counted() {
        let long = "a value longer than a word, and longer than its Property Length of one byte";
        let pairs = block(&[
            ("", ""),
            ("unit", "celsius"),
            ("site", long),
            ("more", long),
        ]);
        let passing = look(PublishProperties {
            payload_format: Some(PayloadFormat::Bytes),
            content_type: Some("application/json"),
            correlation_data: Some(b"\0\xFF"),
            user_properties: UserProperties::parse(&pairs).unwrap(),
            ..Default::default()
        });
        // Format 2, Content Type 3 + 16, Correlation Data 3 + 2, and a length of two bytes.
        let counted = PassingProperties {
            bytes: 2 + 2 + 19 + 5 + pairs.len(),
            user_properties: 4,
            user_property_bytes: pairs.len(),
        };
        assert_eq!(passing, Some(counted));
        let none = PassingProperties {
            bytes: 1,
            ..Default::default()
        };
        assert_eq!(look(PublishProperties::default()), Some(none));
    }

    #[test]
    fn properties_that_a_broker_reads_do_not_pass() {
        let accent = block(&[("name", "caf\u{E9}")]);
        for properties in [
            PublishProperties {
                topic_alias: Some(1),
                ..Default::default()
            },
            PublishProperties {
                message_expiry: Some(1),
                ..Default::default()
            },
            PublishProperties {
                payload_format: Some(PayloadFormat::Utf8),
                ..Default::default()
            },
            PublishProperties {
                response_topic: Some("t"),
                ..Default::default()
            },
            PublishProperties {
                user_properties: UserProperties::parse(&accent).unwrap(),
                ..Default::default()
            },
        ] {
            assert_eq!(look(properties), None, "{properties:?}");
        }
    }

    proptest! {
        /// Bytes near to properties: identifiers and short lengths are frequent.
        #[test]
        fn what_passes_is_well_formed_and_counted_as_decoding_does(
            mut rest in prop::collection::vec(
                prop_oneof![Just(0u8), Just(0x26), Just(3), Just(9), Just(1), Just(2), any::<u8>()],
                0..40,
            ),
            fits: bool,
        ) {
            if fits && !rest.is_empty() {
                rest[0] = (rest.len() - 1) as u8;
            }
            if let Some(passing) = passing_properties(&rest) {
                let mut bytes = vec![0x30, (3 + rest.len()) as u8, 0, 1, b't'];
                bytes.extend_from_slice(&rest);
                let frame = split_frame(&bytes, u32::MAX).unwrap().unwrap();
                let Ok(Packet::Publish(publish)) = decode(&frame, ProtocolVersion::V5) else {
                    panic!("{rest:?} is malformed");
                };
                let properties = publish.properties;
                prop_assert_eq!(rest.len() - passing.bytes, publish.payload.len());
                prop_assert_eq!(passing.user_properties, properties.user_properties.count());
                prop_assert_eq!(passing.user_property_bytes, properties.user_properties.len_bytes());
                prop_assert!(properties.topic_alias.is_none() && properties.message_expiry.is_none());
                prop_assert!(properties.subscription_identifiers.is_empty());
                prop_assert!(properties.payload_format != Some(PayloadFormat::Utf8));
            }
        }

        #[test]
        fn plain_text_is_ascii_without_nul(bytes in prop::collection::vec(
            prop_oneof![1..128u8, 1..128u8, 1..128u8, 1..128u8, 1..128u8, 1..128u8, any::<u8>()],
            0..40,
        )) {
            prop_assert_eq!(is_plain_text(&bytes), bytes.is_ascii() && !bytes.contains(&0));
        }
    }
}
