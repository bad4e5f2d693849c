//! Topic Names and Topic Filters. MQTT 5, 4.7; MQTT 3.1.1, 4.7.

use thiserror::Error;

use super::ProtocolVersion;
use crate::error::Malformed;
use crate::text;

/// Which rule of section 4.7 a Topic Name or Topic Filter breaks. Reads as the end of a sentence.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TopicFault {
    /// No character at all.
    #[error("is empty, at least one character expected")]
    Empty,
    /// More bytes than a string can have.
    #[error("is longer than 65535 bytes")]
    TooLong,
    /// The character U+0000.
    #[error("contains U+0000, which no string may contain")]
    Nul,
    /// A wildcard in a Topic Name.
    #[error("contains a wildcard, none expected in a topic name")]
    WildcardInTopicName,
    /// `#` with something behind it.
    #[error("has # before its end, expected as the last level only")]
    MultiLevelWildcardNotLast,
    /// `#` with something else in its level.
    #[error("has # inside a level, expected alone in its level")]
    MultiLevelWildcardNotAlone,
    /// `+` with something else in its level.
    #[error("has + inside a level, expected alone in its level")]
    SingleLevelWildcardNotAlone,
}

/// Checks a Topic Name: at least one character, no wildcard, no U+0000, at most 65 535 bytes.
///
/// # Errors
/// The first rule that is broken.
pub fn check_topic_name(topic: &str) -> Result<(), TopicFault> {
    check_length(topic)?;
    // [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-2] [MQTT3-3.3.2-2]
    match memchr::memchr3(b'+', b'#', 0, topic.as_bytes()).map(|at| topic.as_bytes()[at]) {
        None => Ok(()),
        Some(0) => Err(TopicFault::Nul),
        Some(_) => Err(TopicFault::WildcardInTopicName),
    }
}

/// Checks a Topic Filter: at least one character, wildcards alone in their level, `#` only last,
/// no U+0000, at most 65 535 bytes. `$share/…` is an ordinary first level here.
///
/// # Errors
/// The first rule that is broken.
pub fn check_topic_filter(filter: &str) -> Result<(), TopicFault> {
    check_length(filter)?;
    let bytes = filter.as_bytes();
    for at in memchr::memchr3_iter(b'+', b'#', 0, bytes) {
        let level_starts = at == 0 || bytes[at - 1] == b'/';
        let level_ends = bytes.get(at + 1).is_none_or(|next| *next == b'/');
        match bytes[at] {
            // [MQTT-4.7.3-2]
            0 => return Err(TopicFault::Nul),
            // [MQTT-4.7.1-2]
            b'+' if !(level_starts && level_ends) => {
                return Err(TopicFault::SingleLevelWildcardNotAlone);
            }
            // [MQTT-4.7.1-1]
            b'#' if !level_starts => return Err(TopicFault::MultiLevelWildcardNotAlone),
            b'#' if at + 1 != bytes.len() => return Err(TopicFault::MultiLevelWildcardNotLast),
            _ => {}
        }
    }
    Ok(())
}

fn check_length(text: &str) -> Result<(), TopicFault> {
    // [MQTT-4.7.3-1]
    if text.is_empty() {
        return Err(TopicFault::Empty);
    }
    // [MQTT-4.7.3-3]
    if text.len() > usize::from(u16::MAX) {
        return Err(TopicFault::TooLong);
    }
    Ok(())
}

/// The Topic Name in `bytes`, as it is: [MQTT-4.7.3-4].
#[inline]
pub(crate) fn topic_name<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, Malformed> {
    // Without a byte above 0x7F the standard library is faster than vectors at these lengths.
    if is_plain(bytes)
        && let Ok(topic) = std::str::from_utf8(bytes)
    {
        return Ok(topic);
    }
    checked_topic_name(bytes, field)
}

/// One pass for UTF-8, one for wildcards and U+0000.
#[cold]
fn checked_topic_name<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, Malformed> {
    let topic = text::utf8(bytes, field)?;
    check_topic_name(topic).map_err(|fault| malformed(field, fault))?;
    Ok(topic)
}

/// Whether there is at least one byte, and all are ASCII, neither a wildcard nor U+0000.
///
/// A fold over blocks of 32 bytes, the last one overlapping, which compilers turn into vector
/// instructions: topics are short, and to look for the place of a fault costs more than to see
/// that there is none.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<32>() else {
        return !bytes.is_empty() && !has_special(bytes);
    };
    let mut special = has_special(last);
    for block in bytes.as_chunks::<32>().0 {
        special |= has_special(block);
    }
    !special
}

#[inline(always)]
fn has_special(block: &[u8]) -> bool {
    let mut special = false;
    for byte in block {
        special |= is_special(*byte);
    }
    special
}

/// Whether a byte is a wildcard, U+0000 or not ASCII.
#[inline]
const fn is_special(byte: u8) -> bool {
    // Nothing else gives this: the two differ in one bit.
    const WILDCARD: u8 = b'+' | b'#';
    (byte | (b'+' ^ b'#') == WILDCARD) | (byte.cast_signed() <= 0)
}

/// The Topic Filter in `bytes`.
///
/// A ShareName has rules of its own, which MQTT 5 does not count among those of a Topic Filter
/// (4.8.2): a wildcard in it does not make the packet malformed, but the subscription invalid, and
/// that is said of this subscription alone. Before MQTT 5 there are no ShareNames.
#[inline]
pub(crate) fn topic_filter(bytes: &[u8], version: ProtocolVersion) -> Result<&str, Malformed> {
    const FIELD: &str = "Topic Filter";
    // [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT3-3.8.3-1] [MQTT3-3.10.3-1]
    let filter = text::utf8(bytes, FIELD)?;
    match check_topic_filter(filter) {
        Ok(()) => Ok(filter),
        // [MQTT-4.8.2-2]
        Err(_) if version.is_v5() && only_share_name_is_wrong(filter) => Ok(filter),
        Err(fault) => Err(malformed(FIELD, fault)),
    }
}

/// Whether a filter that is wrong would be right, or not even reached, without its ShareName.
fn only_share_name_is_wrong(filter: &str) -> bool {
    let Some(shared) = filter.strip_prefix("$share/") else {
        return false;
    };
    let (name, behind) = shared.split_once('/').unwrap_or((shared, ""));
    !name.contains('\0')
        && check_length(filter).is_ok()
        && (behind.is_empty() || check_topic_filter(behind).is_ok())
}

fn malformed(field: &'static str, fault: TopicFault) -> Malformed {
    match fault {
        TopicFault::Nul => Malformed::Nul { field },
        fault => Malformed::Topic { field, fault },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_have_no_wildcards() {
        // [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT3-3.3.2-2]
        for topic in [
            "+",
            "#",
            "a/+",
            "a/#",
            "a+b",
            "a#",
            "a/b/c/d/e/f/g/h/i/j/k/l/m#",
        ] {
            assert_eq!(
                check_topic_name(topic),
                Err(TopicFault::WildcardInTopicName)
            );
        }
        for topic in [
            "/",
            "a",
            "/a",
            "a//b",
            "$SYS/x",
            " ",
            "*",
            ">",
            "\u{1}",
            "ü/日本",
        ] {
            assert_eq!(check_topic_name(topic), Ok(()));
            assert_eq!(check_topic_filter(topic), Ok(()));
        }
    }

    #[test]
    fn wildcards_stand_alone_in_their_level() {
        // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
        for filter in [
            "#",
            "+",
            "+/+",
            "/+",
            "+/",
            "a/+/b",
            "a/#",
            "+/#",
            "/#",
            "+//#",
            "$share/g/#",
        ] {
            assert_eq!(check_topic_filter(filter), Ok(()), "{filter}");
        }
        for (filter, fault) in [
            ("a#", TopicFault::MultiLevelWildcardNotAlone),
            ("a/b#", TopicFault::MultiLevelWildcardNotAlone),
            ("##", TopicFault::MultiLevelWildcardNotLast),
            ("#/", TopicFault::MultiLevelWildcardNotLast),
            ("a/#/b", TopicFault::MultiLevelWildcardNotLast),
            ("#a", TopicFault::MultiLevelWildcardNotLast),
            ("a+", TopicFault::SingleLevelWildcardNotAlone),
            ("+a", TopicFault::SingleLevelWildcardNotAlone),
            ("a/b+/c", TopicFault::SingleLevelWildcardNotAlone),
            ("++", TopicFault::SingleLevelWildcardNotAlone),
            ("+#", TopicFault::SingleLevelWildcardNotAlone),
        ] {
            assert_eq!(check_topic_filter(filter), Err(fault), "{filter}");
        }
    }

    #[test]
    fn a_wildcard_in_a_share_name_is_left_to_the_subscription_in_mqtt_5() {
        // [MQTT-4.8.2-2]
        for filter in [
            "$share/g+/t",
            "$share/g#/t/#",
            "$share/#/+/t",
            "$share/+g/t",
            "$share/g+",
            "$share/g#/",
        ] {
            let bytes = filter.as_bytes();
            assert_eq!(topic_filter(bytes, ProtocolVersion::V5), Ok(filter));
            for version in [ProtocolVersion::V31, ProtocolVersion::V311] {
                assert!(topic_filter(bytes, version).is_err(), "{filter}");
            }
        }
        for filter in [
            "$share/g/t+",
            "$share/g+/t+",
            "$share/g+/#/t",
            "$share/g+\0/t",
            "$share/g+/t\0",
            "$share/g\0",
            "$shared/g+/t",
            "a/$share/g+/t",
        ] {
            let read = topic_filter(filter.as_bytes(), ProtocolVersion::V5);
            assert!(read.is_err(), "{filter:?}");
        }
    }

    #[test]
    fn length_and_null_are_checked_for_both() {
        // [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
        let (longest, too_long) = ("a".repeat(65_535), "a".repeat(65_536));
        for check in [check_topic_name, check_topic_filter] {
            assert_eq!(check(""), Err(TopicFault::Empty));
            assert_eq!(check("a\0b"), Err(TopicFault::Nul));
            assert_eq!(check(&longest), Ok(()));
            assert_eq!(check(&too_long), Err(TopicFault::TooLong));
        }
    }
}
