//! An Application Message that outlives its turn, and a run of those that do not.

use std::sync::Arc;

use authcache::{ChannelIndex, OnChannel, PrincipalIndex};
use codec::mqtt::QoS;
use router::{ShardId, SlotId};

use crate::now::Now;

/// The place a message came from: what No Local compares.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The shard of the publisher.
    pub shard: ShardId,
    /// The publisher's slot on that shard, `None` for the broker itself.
    pub slot: Option<SlotId>,
}

/// Where a topic leads: the channel, the open namespace's second index, and the subtopic's start.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Address {
    /// The channel that is judged and routed.
    pub channel: ChannelIndex,
    /// In the open namespace: the index of filters that begin with a wildcard.
    pub wild: Option<ChannelIndex>,
    /// Bytes of the topic before its subtopic (the separating `/` included).
    pub subtopic_at: u16,
}

impl Address {
    /// The subtopic of `topic`, empty where it has none.
    pub fn subtopic<'t>(&self, topic: &'t str) -> &'t str {
        topic.get(usize::from(self.subtopic_at)..).unwrap_or("")
    }
}

/// An Application Message with everything that is handed on to its receivers.
///
/// Topic, forwarded properties and payload lie in one allocation:
/// `topic_len + properties_len <= body.len()`.
#[derive(Debug)]
pub struct Message {
    address: Address,
    qos: QoS,
    retain: bool,
    topic_len: u16,
    properties_len: u32,
    body: Box<[u8]>,
    expires_at: Option<Now>,
    origin: Origin,
    publisher: PrincipalIndex,
}

/// What a [`Message`] is made of.
#[derive(Clone, Debug)]
pub struct MessageParts<'a> {
    /// Where the topic leads.
    pub address: Address,
    /// The publisher's Quality of Service.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// The topic in canonical form, in pieces; at most 65 535 bytes together.
    pub topic: &'a [&'a str],
    /// The properties handed on, as the codec's `forwarded_into` leaves them.
    pub properties: &'a [u8],
    /// The Application Message's content.
    pub payload: &'a [u8],
    /// When it expires, if it does.
    pub expires_at: Option<Now>,
    /// Where it came from.
    pub origin: Origin,
    /// Who published it.
    pub publisher: PrincipalIndex,
}

impl Message {
    /// Copies the parts into one allocation.
    pub fn new(parts: MessageParts<'_>) -> Message {
        let topic_len: usize = parts.topic.iter().map(|piece| piece.len()).sum();
        let mut body = Vec::with_capacity(topic_len + parts.properties.len() + parts.payload.len());
        for piece in parts.topic {
            body.extend_from_slice(piece.as_bytes());
        }
        body.extend_from_slice(parts.properties);
        body.extend_from_slice(parts.payload);
        Message {
            address: parts.address,
            qos: parts.qos,
            retain: parts.retain,
            topic_len: topic_len as u16,
            properties_len: parts.properties.len() as u32,
            body: body.into_boxed_slice(),
            expires_at: parts.expires_at,
            origin: parts.origin,
            publisher: parts.publisher,
        }
    }

    /// Where the topic leads.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The publisher's Quality of Service.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// The publisher's RETAIN flag.
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// The Topic Name in canonical form.
    pub fn topic(&self) -> &str {
        // Made from `&str` pieces, so the check cannot fail; it is one pass over ~80 bytes.
        std::str::from_utf8(&self.body[..usize::from(self.topic_len)]).unwrap_or("")
    }

    /// The levels below the channel (in the open namespace: the whole topic).
    pub fn subtopic(&self) -> &str {
        self.address.subtopic(self.topic())
    }

    /// The forwarded properties, without a length.
    pub fn properties(&self) -> &[u8] {
        &self.body[usize::from(self.topic_len)..][..self.properties_len as usize]
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.body[usize::from(self.topic_len) + self.properties_len as usize..]
    }

    /// When it expires, if it does.
    pub fn expires_at(&self) -> Option<Now> {
        self.expires_at
    }

    /// Whether its Message Expiry Interval has passed.
    pub fn is_expired(&self, now: Now) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Who published it.
    pub fn publisher(&self) -> PrincipalIndex {
        self.publisher
    }

    /// Bytes it occupies, allocations included.
    pub fn weight(&self) -> usize {
        std::mem::size_of::<Message>() + self.body.len()
    }
}

/// A message on its way to the router.
#[derive(Clone, Debug)]
pub struct Publication(pub Arc<Message>);

impl OnChannel for Publication {
    fn channel(&self) -> ChannelIndex {
        self.0.address.channel
    }
}

/// Consecutive QoS 0 frames on one topic that leave byte for byte as they came.
#[derive(Clone, Debug)]
pub struct Run<'b> {
    /// Where the topic leads.
    pub address: Address,
    /// The topic in canonical form, checked UTF-8; part of every frame.
    pub topic: &'b [u8],
    /// The frames, back to back.
    pub frames: &'b [u8],
    /// How many frames.
    pub count: u32,
    /// Bytes of the longest frame.
    pub longest: u32,
    /// Whether the frames are MQTT 5's (a property length follows the topic).
    pub version5: bool,
    /// Where they came from.
    pub origin: Origin,
    /// Who published them.
    pub publisher: PrincipalIndex,
}

impl<'b> Run<'b> {
    /// The levels below the channel (in the open namespace: the whole topic).
    pub fn subtopic(&self) -> &'b str {
        let below = self
            .topic
            .get(usize::from(self.address.subtopic_at)..)
            .unwrap_or(b"");
        // The topic was checked when its publisher used it first.
        std::str::from_utf8(below).unwrap_or("")
    }
}

impl OnChannel for Run<'_> {
    fn channel(&self) -> ChannelIndex {
        self.address.channel
    }
}
