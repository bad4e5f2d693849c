//! The in-flight window of one session, and what waits behind it (MQTT 5, 4.3, 4.4 and 4.9).

use std::collections::VecDeque;
use std::sync::Arc;

use authcache::ChannelIndex;
use codec::mqtt::{Delivery, PacketId, QoS};

use crate::limits::{Limits, QueuePolicy};
use crate::message::Message;
use crate::mqtt::outgoing::{Channel, Delivered, DropReason, Outbound, SharedOrigin, put_publish};
use crate::mqtt::reply;
use crate::out::OutBuffer;

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

impl Stage {
    /// Whether something of the exchange was sent on this connection.
    fn is_current(self) -> bool {
        matches!(self, Stage::Sent | Stage::Released)
    }
}

#[derive(Debug)]
struct InFlight {
    id: PacketId,
    stage: Stage,
    qos: QoS,
    /// `None` once PUBREC came, or when its channel is gone: only the identifier is needed.
    outbound: Option<Outbound>,
}

/// The in-flight window and the queue of one session: messages leave in the order in which they
/// came. [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT3-4.6.0-5] [MQTT3-4.6.0-6]
///
/// `used <= in_flight.len()`, and `used` counts the entries whose PUBLISH or PUBREL was sent on
/// this connection: the part of the client's Receive Maximum that is taken. PUBRELs may take more
/// than there is, since nothing delays them. The others were left by an earlier connection.
///
/// Unless `unordered`, the identifiers in `in_flight` ascend (0 following 65 535), so that one
/// behind the last, and not yet round to the first, is unused.
#[derive(Debug)]
pub(crate) struct Outgoing {
    next: u16,
    /// The counter came round to identifiers that were still used.
    unordered: bool,
    used: usize,
    in_flight: VecDeque<InFlight>,
    waiting: VecDeque<Outbound>,
    waiting_bytes: usize,
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

impl Default for Outgoing {
    fn default() -> Outgoing {
        Outgoing {
            next: 1,
            unordered: false,
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

    /// Whether a message may be sent at once without overtaking another.
    fn may_start(&self, receive_maximum: u16) -> bool {
        self.waiting.is_empty()
            && self.used == self.in_flight.len()
            && self.used < usize::from(receive_maximum)
    }

    /// Sends a message if it is its turn, else adds it behind those that wait.
    pub(crate) fn offer(
        &mut self,
        outbound: Outbound,
        channel: &mut Channel<'_>,
        limits: &Limits,
        out: &mut OutBuffer,
    ) -> Delivered {
        if !self.may_start(channel.receive_maximum) {
            return self.push(outbound, limits);
        }
        match self.start(outbound, channel, out) {
            Some(()) => Delivered::Sent,
            None => Delivered::Dropped(DropReason::TooLarge),
        }
    }

    /// Whether one more message would have to wait for room.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        self.waiting.len() >= limits.session_queue_messages
            || self.waiting_bytes >= limits.session_queue_bytes
    }

    /// Adds a message behind those that wait.
    pub(crate) fn push(&mut self, outbound: Outbound, limits: &Limits) -> Delivered {
        let weight = outbound.weight();
        if weight > limits.session_queue_bytes {
            // Room for it cannot be made, so nothing is dropped for it.
            return Delivered::Dropped(DropReason::QueueFull);
        }
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
        if self.used < self.in_flight.len() {
            self.release_again(channel, out);
            self.resend(channel, out, &may, &mut dropped);
        }
        while self.used == self.in_flight.len()
            && self.used < usize::from(channel.receive_maximum)
            && out.bytes.len() < out_max
        {
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
        let delivery = Delivery::new(outbound.qos, id);
        // First sent with DUP 0. [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT3-4.3.2-1]
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
        self.unordered &= !self.in_flight.is_empty();
        loop {
            let candidate = self.next;
            self.next = self.next.wrapping_add(1);
            self.unordered |= !self.is_behind_all(candidate);
            if let Some(id) = PacketId::new(candidate)
                && !(self.unordered && self.in_flight.iter().any(|entry| entry.id == id))
            {
                return id;
            }
        }
    }

    /// Whether a number is outside the span of the identifiers in flight, from the first to the
    /// last.
    fn is_behind_all(&self, number: u16) -> bool {
        let (Some(first), Some(last)) = (self.in_flight.front(), self.in_flight.back()) else {
            return true;
        };
        let from_first = |number: u16| number.wrapping_sub(first.id.get());
        from_first(number) > from_first(last.id.get())
    }

    /// Repeats the PUBRELs that an earlier connection left unanswered, whatever the window says.
    /// [MQTT-4.4.0-1] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-3.3.4-10] [MQTT-4.9.0-3]
    fn release_again(&mut self, channel: &Channel<'_>, out: &mut OutBuffer) {
        for entry in &mut self.in_flight {
            if entry.stage == Stage::ReleaseAgain {
                out.mark(None);
                reply::pubrel(entry.id, channel.maximum_packet_size, &mut out.bytes);
                entry.stage = Stage::Released;
                self.used += 1;
            }
        }
    }

    /// Repeats the PUBLISHes that an earlier connection left unanswered, in their order, within
    /// the window. [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT3-3.3.1-1] [MQTT3-4.4.0-1]
    fn resend(
        &mut self,
        channel: &mut Channel<'_>,
        out: &mut OutBuffer,
        may: &impl Fn(ChannelIndex) -> bool,
        dropped: &mut impl FnMut(DropReason),
    ) {
        let mut at = 0;
        while at < self.in_flight.len() && self.used < usize::from(channel.receive_maximum) {
            let entry = &mut self.in_flight[at];
            if entry.stage != Stage::Resend {
                at += 1;
                continue;
            }
            let sent = match &entry.outbound {
                Some(outbound) if may(outbound.message.address().channel) => {
                    // Once begun, expiry does not end the exchange. [MQTT-4.3.3-7]
                    let delivery = Delivery::new(entry.qos, entry.id);
                    put_publish(&outbound.view(), delivery, true, channel, out)
                        .ok_or(DropReason::TooLarge)
                }
                Some(_) | None => Err(DropReason::Revoked),
            };
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

    /// PUBACK; with any code the message is over, for a shared group too.
    /// [MQTT-4.3.2-3] [MQTT-4.3.2-5] [MQTT-4.4.0-2] [MQTT-4.8.2-6]
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
                self.used += usize::from(!entry.stage.is_current());
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
    /// waits, and QoS 1 in flight. A QoS 2 exchange stays with its member, and ends
    /// with it. [MQTT-4.8.2-4] [MQTT-4.8.2-5]
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
            .filter(|entry| entry.stage.is_current())
            .count();
        taken
    }

    /// Drops what a channel that no longer exists left behind: what waits, and what would be sent
    /// again. Its index may soon be another channel's.
    pub(crate) fn channel_removed(&mut self, channel: ChannelIndex) {
        let of_it = |outbound: &Outbound| outbound.message.address().channel == channel;
        self.waiting.retain(|outbound| !of_it(outbound));
        for entry in &mut self.in_flight {
            entry.outbound = entry.outbound.take().filter(|outbound| !of_it(outbound));
        }
        self.waiting_bytes = self.waiting.iter().map(Outbound::weight).sum();
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        // Acknowledgements come in order, so the entry is at or near the front.
        self.in_flight.iter().position(|entry| entry.id == id)
    }

    fn finish(&mut self, at: usize) {
        if let Some(entry) = self.in_flight.remove(at)
            && entry.stage.is_current()
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
            .filter(|entry| entry.stage.is_current())
            .count();
        debug_assert_eq!(self.used, used);
        let first = self.in_flight.front().map_or(0, |entry| entry.id.get());
        let ids = self.in_flight.iter().map(|entry| entry.id.get());
        let ascends = ids
            .map(|id| id.wrapping_sub(first))
            .is_sorted_by(|a, b| a < b);
        debug_assert!(self.unordered || ascends);
        debug_assert_eq!(
            self.waiting_bytes,
            self.waiting.iter().map(Outbound::weight).sum::<usize>()
        );
    }
}
