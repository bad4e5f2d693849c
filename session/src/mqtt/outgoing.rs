//! How a message leaves for one client, and what may become of it on the way.

use std::sync::Arc;

use codec::mqtt::{Delivery, ProtocolVersion, PublishOut, QoS};

use crate::message::Message;
use crate::mqtt::alias::OutgoingAliases;
use crate::now::Now;
use crate::out::OutBuffer;

/// How one subscriber receives a message.
#[derive(Copy, Clone, Debug)]
pub struct Receiving<'a> {
    /// The granted maximum QoS.
    pub qos: QoS,
    /// The RETAIN flag towards this client.
    pub retain: bool,
    /// The Subscription Identifiers that match, in ascending order of subscription.
    pub identifiers: &'a [u32],
    /// The topic prefix to use, where the client wrote another than the canonical one.
    pub prefix: Option<&'a Arc<str>>,
    /// The Shared Subscription this delivery stands for.
    pub shared: Option<SharedOrigin>,
}

/// Names the shared group that a delivery was picked for, so that another member can take over.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct SharedOrigin(pub u64);

/// What became of a delivery.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Delivered {
    /// Written to the out-buffer.
    Sent,
    /// Waits in the session.
    Queued,
    /// Waits in the session, and the oldest waiting message was dropped for it.
    QueuedDroppingOldest,
    /// Not delivered.
    Dropped(DropReason),
}

/// Why a message did not reach a subscriber.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub enum DropReason {
    /// QoS 0 for a client that is not connected.
    Offline,
    /// QoS 0 for a connection whose buffer is full.
    SlowQos0,
    /// The session's queue is full.
    QueueFull,
    /// Larger than the client's Maximum Packet Size.
    TooLarge,
    /// Its Message Expiry Interval passed while it waited.
    Expired,
    /// The right went away while it waited.
    Revoked,
}

/// A message with what its receiver asked for.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Box<[u32]>,
    pub(crate) prefix: Option<Arc<str>>,
    pub(crate) shared: Option<SharedOrigin>,
}

/// What a connection allows while messages are written to it.
pub(crate) struct Channel<'a> {
    pub(crate) version: ProtocolVersion,
    pub(crate) maximum_packet_size: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) aliases: Option<&'a mut OutgoingAliases>,
    pub(crate) now: Now,
}

/// Appends the PUBLISH for `outbound`; `None` if the client takes no packet of that size.
pub(crate) fn put_publish(
    outbound: &OutboundView<'_>,
    delivery: Delivery,
    dup: bool,
    channel: &mut Channel<'_>,
    out: &mut OutBuffer,
) -> Option<()> {
    let message = outbound.message;
    // In the client's own spelling it matches the client's filter. [MQTT-3.3.2-3] [MQTT3-3.3.2-3]
    let canonical;
    let spelled;
    let topic: &[&str] = match outbound.prefix {
        None => {
            canonical = [message.topic()];
            &canonical
        }
        Some(prefix) => {
            let subtopic = message.subtopic();
            spelled = [
                &**prefix,
                if subtopic.is_empty() { "" } else { "/" },
                subtopic,
            ];
            &spelled
        }
    };
    if topic.iter().map(|piece| piece.len()).sum::<usize>() > usize::from(u16::MAX) {
        // The client's own spelling of the channel makes it longer than a topic can be.
        return None;
    }
    let no_topic: &[&str] = &[];
    // [MQTT-3.1.2-29] [MQTT-3.1.2-30] [MQTT-3.3.2-11]
    let alias = match &mut channel.aliases {
        Some(aliases) if outbound.prefix.is_none() => aliases.alias(message.topic()),
        _ => None,
    };
    let packet = PublishOut {
        dup,
        retain: outbound.retain,
        delivery,
        topic: if alias.is_some_and(|alias| alias.known) {
            no_topic
        } else {
            topic
        },
        topic_alias: alias.map(|alias| alias.number),
        // What is left of it, at least one second: an expired message is not started.
        // [MQTT-3.3.2-6]
        message_expiry: message
            .expires_at()
            .map(|at| (at.millis_since(channel.now).div_ceil(1000)).max(1) as u32),
        // Those of the subscriptions that this copy is for. [MQTT-3.3.4-3] [MQTT-3.3.4-5]
        subscription_identifiers: outbound.identifiers,
        // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
        // [MQTT-3.3.2-20]
        forwarded: message.properties(),
        payload: message.payload(),
    };
    // [MQTT-3.1.2-27] [MQTT-3.1.2-28]
    if packet.encoded_len(channel.version) > channel.maximum_packet_size as usize {
        if let (Some(aliases), Some(alias)) = (&mut channel.aliases, alias)
            && !alias.known
        {
            aliases.forget(alias.number);
        }
        return None;
    }
    out.mark(Some(message.address().channel));
    packet.encode(channel.version, &mut out.bytes);
    Some(())
}

/// The borrowed form of [`Outbound`].
pub(crate) struct OutboundView<'a> {
    pub(crate) message: &'a Message,
    pub(crate) retain: bool,
    pub(crate) identifiers: &'a [u32],
    pub(crate) prefix: Option<&'a Arc<str>>,
}

impl Outbound {
    pub(crate) fn new(message: &Arc<Message>, qos: QoS, how: &Receiving<'_>) -> Outbound {
        Outbound {
            message: Arc::clone(message),
            qos,
            retain: how.retain,
            identifiers: how.identifiers.into(),
            prefix: how.prefix.cloned(),
            shared: how.shared,
        }
    }

    pub(crate) fn view(&self) -> OutboundView<'_> {
        OutboundView {
            message: &self.message,
            retain: self.retain,
            identifiers: &self.identifiers,
            prefix: self.prefix.as_ref(),
        }
    }

    /// Bytes it is charged with. A message shared by many sessions is charged to each: the bound
    /// says what one session can hold back.
    pub(crate) fn weight(&self) -> usize {
        std::mem::size_of::<Outbound>() + self.identifiers.len() * 4 + self.message.weight()
    }
}
