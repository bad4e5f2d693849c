//! Connections that end when the right of one of their subscriptions is lost: those of listeners
//! that are told so, and channel sockets. For all others the subscription sleeps.

use authcache::{Action, ChannelIndex, Denied, DomainIndex};
use codec::mqtt::ReasonCode;
use router::SlotId;

use crate::metrics::Closed;
use crate::shard::Shard;
use crate::shard::wires::Wires;

impl<W: Wires> Shard<W> {
    /// A connection has come to its session.
    pub(super) fn note_revocable(&mut self, id: SlotId) {
        if self.is_revocable(id) {
            self.revocable.insert(id);
        }
    }

    /// Whether the connection in a slot ends when it loses a right.
    pub(super) fn is_revocable(&self, id: SlotId) -> bool {
        let slot = self.outlets.slots.slot(id);
        let Some(wire) = &slot.wire else {
            return false;
        };
        let listener = &self.env.listeners[usize::from(slot.hot.listener)];
        listener.close_on_revoked || self.outlets.wires.is_channel_socket(wire)
    }

    /// What the rights of a domain are has changed.
    pub(super) fn close_without_right(&mut self, domain: DomainIndex) {
        let noted: Vec<SlotId> = self.revocable.iter().copied().collect();
        for id in noted {
            if self.is_revocable(id) {
                let directory = self.env.shared.cache.clone();
                self.close_if_lost(id, |channel| {
                    directory.directory().domain_of(channel) == domain
                });
            } else {
                self.revocable.remove(&id);
            }
        }
    }

    /// Ends the connection in a slot if a subscription in question has no right any more. What is
    /// not known, or cannot be without a lease, is no loss.
    pub(super) fn close_if_lost(&mut self, id: SlotId, asked: impl Fn(ChannelIndex) -> bool) {
        let gate = &self.env.gate;
        let slot = self.outlets.slots.slot_mut(id);
        let principal = slot.hot.principal;
        let lost = slot.machine().session().is_some_and(|session| {
            session.has_lost(|channel| {
                if !asked(channel) {
                    return None;
                }
                match gate.allows(principal, Action::Subscribe, channel) {
                    Ok(()) => Some(false),
                    Err(Denied::NoRight | Denied::NotLive) => Some(true),
                    Err(Denied::LeaseOver | Denied::Unknown) => None,
                }
            })
        });
        if lost {
            self.fail(id, ReasonCode::NOT_AUTHORIZED, Closed::Administrative);
        }
    }
}
