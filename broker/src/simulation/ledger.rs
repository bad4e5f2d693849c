//! What was promised to whom: messages, subscriptions, sessions and wills as an observer of all
//! wires sees them. A moment is a step of the simulation.

use std::collections::BTreeMap;

use codec::mqtt::{ProtocolVersion, QoS};

/// Longer than any simulation.
pub(super) const NEVER: u64 = u64::MAX;

/// One message or will.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) device: usize,
    pub(super) principal: usize,
    pub(super) channel: usize,
    pub(super) subtopic: &'static str,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Without payload: what is retained goes.
    pub(super) clear: bool,
    /// When the last byte of it was given to a shard first; of a will: when its connection ended.
    pub(super) input: u64,
    /// Where that was.
    pub(super) conn: usize,
    /// On a connection that had its CONNACK by then.
    pub(super) on_live: bool,
    /// When its acknowledgement was begun.
    pub(super) acked: u64,
    /// The acknowledgement said that it was not taken.
    pub(super) refused: bool,
    /// Sent more than once by its publisher.
    pub(super) repeated: bool,
    pub(super) will: bool,
    /// The publisher had the right for certain while it was judged.
    pub(super) surely_permitted: bool,
    pub(super) deliveries: Vec<Delivery>,
}

/// One PUBLISH towards a client, begun.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) device: usize,
    /// Which of the device's sessions.
    pub(super) session: u64,
    pub(super) dup: bool,
    pub(super) retained: bool,
}

/// A subscription as its device may rely on it.
#[derive(Clone, Debug)]
pub(super) struct Subscribed {
    /// When its SUBACK was begun, unbroken since.
    pub(super) since: u64,
    /// Lowest maximum QoS since then.
    pub(super) lowest: QoS,
    pub(super) share: bool,
    pub(super) no_local: bool,
}

/// What all connections of one Client Identifier amount to.
#[derive(Debug, Default)]
pub(super) struct SessionView {
    /// Counts the sessions that this identifier had.
    pub(super) number: u64,
    pub(super) exists: bool,
    /// The connection that had CONNACK 0x00 last.
    pub(super) owner: Option<usize>,
    /// Expiry in seconds as of its last connection.
    pub(super) expiry: u32,
    /// Virtual time of the last connection's end.
    pub(super) parked_ms: Option<u64>,
    pub(super) subscriptions: BTreeMap<(usize, &'static str), Subscribed>,
    /// Something happened that may have ended it without a trace on the wires.
    pub(super) doubtful: bool,
}

/// Where a will stands.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// Its connection lives.
    Held,
    /// It is due at this virtual time, unless its session is resumed before.
    Due(u64),
    /// It has to be sent.
    Must,
    /// It must not be sent.
    MustNot,
    /// Both are right.
    May,
}

#[derive(Debug)]
pub(super) struct WillView {
    pub(super) message: u64,
    pub(super) delay: u32,
    pub(super) fate: Fate,
    /// DISCONNECT 0x00 was given to a shard.
    pub(super) taken_back: bool,
}

/// What is known of one connection.
#[derive(Debug, Default)]
pub(super) struct ConnView {
    pub(super) device: usize,
    pub(super) principal: usize,
    pub(super) credential: u64,
    pub(super) clean_start: bool,
    pub(super) expiry: u32,
    pub(super) keep_alive: u16,
    pub(super) connected: Option<u64>,
    pub(super) closed: Option<u64>,
    /// The broker said DISCONNECT.
    pub(super) told: bool,
    /// It is driven by hand, in this version; its messages are not followed.
    pub(super) raw: Option<ProtocolVersion>,
    /// DISCONNECT came before CONNACK.
    pub(super) hasty: bool,
    pub(super) will: Option<WillView>,
    /// SUBSCRIBE and UNSUBSCRIBE by identifier, and the moment they were given to a shard.
    pub(super) requests: BTreeMap<u16, Request>,
    /// QoS above 0: which message an identifier stood for.
    pub(super) published: BTreeMap<u16, u64>,
    /// Virtual time of the last whole packet given to a shard.
    pub(super) heard_ms: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) filters: Vec<(usize, &'static str, QoS, bool, bool)>,
    pub(super) subscribe: bool,
    pub(super) input: u64,
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) messages: BTreeMap<u64, Sent>,
    pub(super) conns: Vec<ConnView>,
    pub(super) sessions: BTreeMap<usize, SessionView>,
    next: u64,
}

impl Ledger {
    /// A fresh message; its number is its payload.
    pub(super) fn register(
        &mut self,
        device: usize,
        principal: usize,
        (channel, subtopic): (usize, &'static str),
        (qos, retain, will): (QoS, bool, bool),
    ) -> u64 {
        self.next += 1;
        let sent = Sent {
            device,
            principal,
            channel,
            subtopic,
            qos,
            retain,
            clear: false,
            input: NEVER,
            conn: 0,
            on_live: false,
            acked: NEVER,
            refused: false,
            repeated: false,
            will,
            surely_permitted: false,
            deliveries: Vec::new(),
        };
        self.messages.insert(self.next, sent);
        self.next
    }
}

/// The payload of a message: its number, then padding.
pub(super) fn payload(number: u64, padding: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(8 + padding, b'.');
    bytes
}

/// The message that a payload is.
pub(super) fn number_of(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(payload.get(..8)?.try_into().ok()?))
}

/// The naive matcher of subtopics.
pub(super) fn matches(filter: &str, subtopic: &str) -> bool {
    fn levels(text: &str) -> Vec<&str> {
        if text.is_empty() {
            Vec::new()
        } else {
            text.split('/').collect()
        }
    }
    let (filter, topic) = (levels(filter), levels(subtopic));
    let mut at = 0;
    for level in &filter {
        match *level {
            "#" => return true,
            "+" if at < topic.len() => at += 1,
            same if topic.get(at) == Some(&same) => at += 1,
            _ => return false,
        }
    }
    at == topic.len()
}

#[test]
fn the_naive_matcher_knows_the_wildcards() {
    for (filter, topic, expected) in [
        ("", "", true),
        ("", "a", false),
        ("#", "", true),
        ("#", "a/b", true),
        ("+", "a", true),
        ("+", "", false),
        ("+", "a/b", false),
        ("a/#", "a", true),
        ("a/#", "a/b", true),
        ("a/#", "b", false),
        ("a/+", "a/b", true),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter:?} {topic:?}");
    }
}
