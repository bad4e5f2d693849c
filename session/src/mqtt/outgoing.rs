//! Messages above QoS 0 on their way to one client: the in-flight window and what waits behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use authcache::ChannelIndex;
use codec::mqtt::{Delivery, PacketId, ProtocolVersion, PublishOut, QoS};

use crate::limits::{Limits, QueuePolicy};
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

/// Where a QoS 1 or 2 exchange stands.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Stage {
    /// PUBLISH was sent on an earlier connection and has to be sent again.
    Resend,
    /// PUBLISH was sent on this connection.
    Sent,
    /// PUBREC came; PUBREL has to be sent again on this connection.
    ReleaseAgain,
    /// PUBREL was sent on this connection.
    Released,
}

#[derive(Debug)]
struct InFlight {
    id: PacketId,
    stage: Stage,
    qos: QoS,
    /// `None` once PUBREC came: only the identifier is still needed.
    outbound: Option<Outbound>,
}

/// The in-flight window and the queue of one session.
///
/// `used <= in_flight.len()`, and `used` counts the entries whose PUBLISH or PUBREL was sent on
/// this connection: the part of the client's Receive Maximum that is taken.
#[derive(Debug)]
pub struct Outgoing {
    next: u16,
    used: u16,
    in_flight: VecDeque<InFlight>,
    waiting: VecDeque<Outbound>,
    waiting_bytes: usize,
}

/// What a connection allows while messages are written to it.
pub(crate) struct Channel<'a> {
    pub(crate) version: ProtocolVersion,
    pub(crate) maximum_packet_size: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) aliases: Option<&'a mut OutgoingAliases>,
    pub(crate) now: Now,
}

/// What an acknowledgement led to.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Acknowledged {
    /// The exchange went on or ended.
    Taken,
    /// No exchange has this identifier.
    Unknown,
    /// The exchange is at another stage or QoS.
    WrongKind,
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

    fn view(&self) -> OutboundView<'_> {
        OutboundView {
            message: &self.message,
            retain: self.retain,
            identifiers: &self.identifiers,
            prefix: self.prefix.as_ref(),
        }
    }

    /// Bytes it is charged with. A message shared by many sessions is charged to each: the bound
    /// says what one session can hold back.
    fn weight(&self) -> usize {
        std::mem::size_of::<Outbound>() + self.identifiers.len() * 4 + self.message.weight()
    }
}

impl Default for Outgoing {
    fn default() -> Outgoing {
        Outgoing {
            next: 1,
            used: 0,
            in_flight: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }
}

impl Outgoing {
    /// Messages in flight and waiting.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len() + self.waiting.len()
    }

    /// Messages in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether one more message would have to wait for room.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        self.waiting.len() >= limits.session_queue_messages
            || self.waiting_bytes >= limits.session_queue_bytes
    }

    /// Adds a message behind those that wait.
    pub(crate) fn push(&mut self, outbound: Outbound, limits: &Limits) -> Delivered {
        let weight = outbound.weight();
        let mut dropped = false;
        while self.waiting.len() >= limits.session_queue_messages
            || self.waiting_bytes + weight > limits.session_queue_bytes
        {
            let oldest = match limits.queue_policy {
                QueuePolicy::DropNewest => None,
                QueuePolicy::DropOldest => self.waiting.pop_front(),
            };
            let Some(oldest) = oldest else {
                return Delivered::Dropped(DropReason::QueueFull);
            };
            self.waiting_bytes -= oldest.weight();
            dropped = true;
        }
        self.waiting_bytes += weight;
        self.waiting.push_back(outbound);
        if dropped {
            Delivered::QueuedDroppingOldest
        } else {
            Delivered::Queued
        }
    }

    /// Sends what the window has room for: first what an earlier connection left, then the queue.
    ///
    /// `may` is asked for each message when it leaves; `dropped` is told what does not leave.
    /// [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-3.3.4-9]
    pub(crate) fn pump(
        &mut self,
        channel: &mut Channel<'_>,
        out: &mut OutBuffer,
        out_max: usize,
        may: impl Fn(ChannelIndex) -> bool,
        mut dropped: impl FnMut(DropReason),
    ) {
        self.resend(channel, out, &may, &mut dropped);
        while self.used < channel.receive_maximum && out.bytes.len() < out_max {
            let Some(outbound) = self.waiting.pop_front() else {
                break;
            };
            self.waiting_bytes -= outbound.weight();
            if !may(outbound.message.address().channel) {
                dropped(DropReason::Revoked);
            } else if outbound.message.is_expired(channel.now) {
                // [MQTT-3.3.2-5]
                dropped(DropReason::Expired);
            } else if self.start(outbound, channel, out).is_none() {
                dropped(DropReason::TooLarge);
            }
        }
        self.shrink();
    }

    /// Gives a message an identifier and sends it; `None` if it is too large for the client.
    fn start(
        &mut self,
        outbound: Outbound,
        channel: &mut Channel<'_>,
        out: &mut OutBuffer,
    ) -> Option<()> {
        let id = self.unused_id();
        let delivery = match outbound.qos {
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
            QoS::AtMostOnce | QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
        };
        // [MQTT-4.3.2-2] [MQTT-4.3.3-2]: first sent with DUP 0.
        put_publish(&outbound.view(), delivery, false, channel, out)?;
        let qos = outbound.qos;
        self.in_flight.push_back(InFlight {
            id,
            stage: Stage::Sent,
            qos,
            outbound: Some(outbound),
        });
        self.used += 1;
        Some(())
    }

    /// A Packet Identifier that no exchange uses.
    /// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT3-2.3.1-4]
    fn unused_id(&mut self) -> PacketId {
        loop {
            let candidate = PacketId::new(self.next);
            self.next = self.next.wrapping_add(1);
            if let Some(id) = candidate
                && !self.in_flight.iter().any(|entry| entry.id == id)
            {
                return id;
            }
        }
    }

    /// Repeats what an earlier connection left unfinished, in its order, within the window.
    /// [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT3-3.3.1-1]
    fn resend(
        &mut self,
        channel: &mut Channel<'_>,
        out: &mut OutBuffer,
        may: &impl Fn(ChannelIndex) -> bool,
        dropped: &mut impl FnMut(DropReason),
    ) {
        let mut at = 0;
        while at < self.in_flight.len() && self.used < channel.receive_maximum {
            let entry = &mut self.in_flight[at];
            match entry.stage {
                Stage::Sent | Stage::Released => at += 1,
                Stage::ReleaseAgain => {
                    // [MQTT-4.3.3-5] [MQTT-4.3.3-6]
                    out.mark(None);
                    crate::mqtt::reply::pubrel(entry.id, &mut out.bytes);
                    entry.stage = Stage::Released;
                    self.used += 1;
                    at += 1;
                }
                Stage::Resend => {
                    let sent = entry
                        .outbound
                        .as_ref()
                        .ok_or(DropReason::Revoked)
                        .and_then(|o| {
                            if !may(o.message.address().channel) {
                                return Err(DropReason::Revoked);
                            }
                            let delivery = match entry.qos {
                                QoS::ExactlyOnce => Delivery::ExactlyOnce(entry.id),
                                QoS::AtMostOnce | QoS::AtLeastOnce => {
                                    Delivery::AtLeastOnce(entry.id)
                                }
                            };
                            // Once begun, expiry does not end the exchange. [MQTT-4.3.3-7]
                            put_publish(&o.view(), delivery, true, channel, out)
                                .ok_or(DropReason::TooLarge)
                        });
                    match sent {
                        Ok(()) => {
                            entry.stage = Stage::Sent;
                            self.used += 1;
                            at += 1;
                        }
                        Err(reason) => {
                            dropped(reason);
                            self.in_flight.remove(at);
                        }
                    }
                }
            }
        }
    }

    /// PUBACK. [MQTT-4.3.2-3] [MQTT-4.3.2-5] [MQTT-4.4.0-2]
    pub(crate) fn puback(&mut self, id: PacketId) -> Acknowledged {
        match self.position(id) {
            Some(at) if self.in_flight[at].qos == QoS::AtLeastOnce => {
                self.finish(at);
                Acknowledged::Taken
            }
            Some(_) => Acknowledged::WrongKind,
            None => Acknowledged::Unknown,
        }
    }

    /// PUBREC; `refused` is a Reason Code of 0x80 or above, which ends the exchange.
    /// [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-9] [MQTT-4.3.3-13]
    pub(crate) fn pubrec(&mut self, id: PacketId, refused: bool) -> Acknowledged {
        match self.position(id) {
            Some(at) if self.in_flight[at].qos == QoS::ExactlyOnce => {
                if refused {
                    self.finish(at);
                    return Acknowledged::Taken;
                }
                let entry = &mut self.in_flight[at];
                if matches!(entry.stage, Stage::Resend | Stage::ReleaseAgain) {
                    self.used += 1;
                }
                entry.outbound = None;
                entry.stage = Stage::Released;
                Acknowledged::Taken
            }
            Some(_) => Acknowledged::WrongKind,
            None => Acknowledged::Unknown,
        }
    }

    /// PUBCOMP. [MQTT-4.3.3-12]
    pub(crate) fn pubcomp(&mut self, id: PacketId) -> Acknowledged {
        match self.position(id) {
            Some(at)
                if matches!(
                    self.in_flight[at].stage,
                    Stage::Released | Stage::ReleaseAgain
                ) =>
            {
                self.finish(at);
                Acknowledged::Taken
            }
            Some(_) => Acknowledged::WrongKind,
            None => Acknowledged::Unknown,
        }
    }

    /// A PUBLISH with this identifier was taken back before it left: its exchange is over.
    pub(crate) fn abandoned(&mut self, id: PacketId) {
        if let Some(at) = self.position(id) {
            self.finish(at);
        }
    }

    /// The connection ended: everything begun has to be repeated on the next one.
    pub(crate) fn disconnected(&mut self) {
        self.used = 0;
        for entry in &mut self.in_flight {
            entry.stage = match entry.stage {
                Stage::Resend | Stage::Sent => Stage::Resend,
                Stage::ReleaseAgain | Stage::Released => Stage::ReleaseAgain,
            };
        }
    }

    /// Takes out what was picked for shared groups and may go to another member: everything that
    /// waits, and QoS 1 in flight. A QoS 2 exchange stays with its member. [MQTT-4.8.2-4]
    pub(crate) fn take_shared(
        &mut self,
        may_go: impl Fn(SharedOrigin) -> bool,
    ) -> Vec<(SharedOrigin, Arc<Message>)> {
        let mut taken = Vec::new();
        let mut keep = |outbound: &Outbound| match outbound.shared {
            Some(shared) if may_go(shared) => {
                taken.push((shared, Arc::clone(&outbound.message)));
                false
            }
            Some(_) | None => true,
        };
        self.in_flight.retain(|entry| match &entry.outbound {
            Some(outbound) if entry.qos == QoS::AtLeastOnce => keep(outbound),
            _ => true,
        });
        self.waiting.retain(|outbound| keep(outbound));
        self.waiting_bytes = self.waiting.iter().map(Outbound::weight).sum();
        self.used = self
            .in_flight
            .iter()
            .filter(|entry| matches!(entry.stage, Stage::Sent | Stage::Released))
            .count() as u16;
        taken
    }

    /// Drops what waits for a channel that no longer exists.
    pub(crate) fn channel_removed(&mut self, channel: ChannelIndex) {
        self.waiting
            .retain(|outbound| outbound.message.address().channel != channel);
        self.waiting_bytes = self.waiting.iter().map(Outbound::weight).sum();
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        // Acknowledgements come in order, so the entry is at or near the front.
        self.in_flight.iter().position(|entry| entry.id == id)
    }

    fn finish(&mut self, at: usize) {
        if let Some(entry) = self.in_flight.remove(at)
            && matches!(entry.stage, Stage::Sent | Stage::Released)
        {
            self.used -= 1;
        }
    }

    /// Gives memory back once a burst is over.
    fn shrink(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > 256 {
            self.waiting = VecDeque::new();
        }
    }

    /// Checks the invariant of the type.
    pub(crate) fn invariants(&self) {
        let used = self
            .in_flight
            .iter()
            .filter(|entry| matches!(entry.stage, Stage::Sent | Stage::Released))
            .count();
        debug_assert_eq!(usize::from(self.used), used);
        debug_assert_eq!(
            self.waiting_bytes,
            self.waiting.iter().map(Outbound::weight).sum::<usize>()
        );
    }
}
