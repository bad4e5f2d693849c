//! Messages to the client: what the router found is written, queued or dropped.

use std::sync::Arc;

use codec::mqtt::{Delivery, QoS};

use crate::message::Message;
use crate::mqtt::machine::{Cold, Machine, may_read};
use crate::mqtt::outgoing::{
    Channel, Delivered, DropReason, Outbound, OutboundView, Receiving, SharedOrigin, put_publish,
};
use crate::out::OutBuffer;
use crate::rules::Rules;

impl Machine<'_> {
    /// Sends what the window has room for; after acknowledgements, on resume, when a blocked
    /// connection is free again. `out_max` bounds the out-buffer in bytes.
    pub fn pump(
        &mut self,
        rules: &Rules<'_>,
        out_max: usize,
        out: &mut OutBuffer,
        dropped: impl FnMut(DropReason),
    ) {
        let Cold::Live(live) = &mut *self.cold else {
            return;
        };
        let Some(outgoing) = &mut live.session.outgoing else {
            return;
        };
        let mut channel = Channel {
            version: live.connection.version,
            maximum_packet_size: self.hot.maximum_packet_size,
            receive_maximum: live.connection.receive_maximum,
            aliases: live.connection.outgoing_aliases.as_deref_mut(),
            now: rules.now,
        };
        let may = may_read(rules.gate, live.session.principal);
        outgoing.pump(&mut channel, out, out_max, may, dropped);
        if outgoing.len() == 0 {
            live.session.outgoing = None;
        }
    }

    /// Delivers one message to the session.
    ///
    /// `ready` says that the connection is there and takes bytes; otherwise QoS 1 and 2 wait in
    /// the session, and `dropped` is told why one goes for others. [MQTT-4.5.0-1] [MQTT-3.8.4-8] [MQTT3-3.8.4-6] [MQTT3-3.1.2-5] [MQTT3-4.5.0-1]
    pub fn deliver(
        &mut self,
        message: &Arc<Message>,
        how: &Receiving<'_>,
        ready: bool,
        rules: &Rules<'_>,
        out: &mut OutBuffer,
        mut dropped: impl FnMut(DropReason),
    ) -> Delivered {
        let qos = how.qos.min(message.qos());
        let limits = rules.limits;
        let Some((session, connection, hot)) = self.parts() else {
            return Delivered::Dropped(DropReason::Offline);
        };
        if message.is_expired(rules.now) {
            return Delivered::Dropped(DropReason::Expired);
        }
        if qos == QoS::AtMostOnce {
            let Some(connection) = connection else {
                return Delivered::Dropped(DropReason::Offline);
            };
            let mut channel = Channel {
                version: connection.version,
                maximum_packet_size: hot.maximum_packet_size,
                receive_maximum: connection.receive_maximum,
                // Behind a blocked connection bytes may be dropped, and bindings with them.
                aliases: connection.outgoing_aliases.as_deref_mut().filter(|_| ready),
                now: rules.now,
            };
            let view = OutboundView {
                message,
                retain: how.retain,
                identifiers: how.identifiers,
                prefix: how.prefix,
            };
            // [MQTT-4.3.1-1] [MQTT-2.2.1-2] [MQTT3-2.3.1-5] [MQTT3-4.3.1-1]
            return match put_publish(&view, Delivery::AtMostOnce, false, &mut channel, out) {
                Some(()) => Delivered::Sent,
                None => Delivered::Dropped(DropReason::TooLarge),
            };
        }
        let outbound = Outbound::new(message, qos, how);
        let (true, Some(connection)) = (ready, connection) else {
            return session.outgoing().push(outbound, limits);
        };
        let mut channel = Channel {
            version: connection.version,
            maximum_packet_size: hot.maximum_packet_size,
            receive_maximum: connection.receive_maximum,
            aliases: connection.outgoing_aliases.as_deref_mut(),
            now: rules.now,
        };
        // Where others wait they are sent first, each judged again as it leaves.
        let before = out.bytes.len();
        let may = may_read(rules.gate, session.principal);
        let outgoing = session.outgoing.get_or_insert_default();
        let mut delivered = outgoing.offer(outbound, &mut channel, limits, out);
        if matches!(
            delivered,
            Delivered::Queued | Delivered::QueuedDroppingOldest
        ) {
            if delivered == Delivered::QueuedDroppingOldest {
                dropped(DropReason::QueueFull);
                delivered = Delivered::Queued;
            }
            outgoing.pump(&mut channel, out, usize::MAX, may, dropped);
            if out.bytes.len() > before {
                delivered = Delivered::Sent;
            }
        }
        delivered
    }

    /// A PUBLISH above QoS 0 was taken back before it left, because its right went away.
    pub fn abandoned(&mut self, id: codec::mqtt::PacketId) {
        if let Some(outgoing) = self.session().and_then(|session| session.outgoing.as_mut()) {
            outgoing.abandoned(id);
        }
    }

    /// Takes out of the session what another member of its shared groups may receive instead.
    pub fn take_shared(
        &mut self,
        may_go: impl Fn(SharedOrigin) -> bool,
    ) -> Vec<(SharedOrigin, Arc<Message>)> {
        self.session()
            .and_then(|session| session.outgoing.as_mut())
            .map_or_else(Vec::new, |outgoing| outgoing.take_shared(may_go))
    }
}
