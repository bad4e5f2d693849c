//! Control changed something: who loses a right loses it before the fence is acknowledged.

use authcache::{Cause, ChannelIndex, DomainIndex, Notice, PrincipalIndex, PrincipalKind};
use codec::mqtt::ReasonCode;
use router::SlotId;

use crate::metrics::Closed;
use crate::shard::Shard;
use crate::shard::wires::Wires;

impl<W: Wires> Shard<W> {
    pub(crate) fn notice(&mut self, told: u64, notice: Notice) {
        match notice {
            // Lists and caches of the domain are stale by their stamp; the next use judges again.
            Notice::EpochBumped(domain) => self.close_without_right(domain),
            Notice::RightsChanged(principal) => self.rights_changed(principal),
            Notice::PrincipalClosed(principal, cause) => {
                self.close_principal(principal, cause);
                self.shut_out.push((told, principal, cause));
            }
            Notice::DomainClosed(domain) => self.close_domain(domain),
            Notice::ChannelRemoved(channel) => self.channel_removed(channel),
        }
    }

    /// The second round of the fence that covers `told`: connections that other shards had identified
    /// before they heard of it have arrived, and end like those that were here.
    pub(crate) fn close_late_arrivals(&mut self, told: u64) {
        let (due, later) = std::mem::take(&mut self.shut_out)
            .into_iter()
            .partition(|(of, ..)| *of <= told);
        self.shut_out = later;
        let due: Vec<(u64, PrincipalIndex, Cause)> = due;
        for (_, principal, cause) in due {
            self.close_principal(principal, cause);
        }
    }

    /// Caches of a principal are cleared and its subscriptions judged again.
    pub(crate) fn rights_changed(&mut self, principal: PrincipalIndex) {
        for id in self.slots_of(principal) {
            let slot = self.outlets.slots.slot_mut(id);
            slot.hot.rights_changed();
            let channels: Vec<ChannelIndex> = slot
                .machine()
                .session()
                .map(|session| {
                    session
                        .subscriptions()
                        .iter()
                        .map(|sub| sub.channel)
                        .collect()
                })
                .unwrap_or_default();
            let slots = &self.outlets.slots;
            for channel in channels {
                self.subs
                    .rejudge(id, channel, &self.env.gate, |slot| slots.principal(slot));
            }
            if self.is_revocable(id) {
                self.close_if_lost(id, |_| true);
            }
        }
    }

    fn close_principal(&mut self, principal: PrincipalIndex, cause: Cause) {
        let code = match cause {
            Cause::Disabled | Cause::Removed => ReasonCode::ADMINISTRATIVE_ACTION,
            Cause::CredentialChanged => ReasonCode::NOT_AUTHORIZED,
        };
        for id in self.slots_of(principal) {
            if self.outlets.slots.slot(id).wire.is_some() {
                self.fail(id, code, Closed::Administrative);
            }
        }
        self.refuse_delayed(principal);
        for token in std::mem::take(&mut self.claiming) {
            let Some(slot) = self.outlets.slots.current(token) else {
                continue;
            };
            if slot.hot.principal != principal {
                self.claiming.push(token);
            } else if slot.machine().is_before_connack() {
                self.fail(token.slot, ReasonCode::NOT_AUTHORIZED, Closed::Refused);
            }
        }
        self.rights_changed(principal);
        if cause == Cause::Removed {
            for id in self.slots_of(principal) {
                self.end_parked(id);
            }
            self.forget_activity(principal);
            let waiting = self.wills.len();
            self.wills
                .retain(|(_, message)| message.publisher() != principal);
            let dropped = waiting - self.wills.len();
            self.env.counters.wills_dropped.add(dropped as u64);
            // What it left behind is nobody's any more. (Threats T-TOP-8.)
            self.change_retained(|retained| {
                retained.remove_if(|message| message.publisher() == principal);
            });
        }
    }

    fn close_domain(&mut self, domain: DomainIndex) {
        let used: Vec<SlotId> = self.outlets.slots.used().collect();
        for id in used {
            let directory = self.env.shared.cache.directory();
            let slot = self.outlets.slots.slot(id);
            if !slot.hot.is_live() {
                continue;
            }
            let kind = directory.principal_facts(slot.hot.principal).kind;
            if matches!(kind, PrincipalKind::Client { domain: own } if own == domain) {
                self.fail(
                    id,
                    ReasonCode::ADMINISTRATIVE_ACTION,
                    Closed::Administrative,
                );
            }
        }
    }

    fn channel_removed(&mut self, channel: ChannelIndex) {
        let used: Vec<SlotId> = self.outlets.slots.used().collect();
        for id in used {
            // What waits names its channel by an index that another may get.
            self.outlets.channel_removed(&self.env, id, channel);
            let mut machine = self.outlets.slots.slot_mut(id).machine();
            let Some(session) = machine.session() else {
                continue;
            };
            let gone = session.channel_removed(channel);
            for record in &gone {
                self.subs
                    .unsubscribe(id, channel, &record.filter, record.share.as_deref());
                self.env.counters.subscriptions.sub(1);
                self.outlets.slots.tally_mut(id).subscribed(-1);
            }
            if !gone.is_empty() && self.is_revocable(id) {
                self.fail(id, ReasonCode::NOT_AUTHORIZED, Closed::Administrative);
            }
        }
        self.change_retained(|retained| retained.remove_channel(channel));
    }
}
