//! Checks of what the broker grants, acknowledges and delivers.

use authcache::Action;
use codec::mqtt::{Publish, QoS, ReasonCode};

use super::client::Role;
use super::ledger::{Delivery, NEVER, Subscribed, matches, number_of};
use super::world::World;

impl World {
    pub(super) fn acknowledged(&mut self, conn: usize, id: u16, reason: ReasonCode) {
        let moment = self.moment;
        let view = &self.ledger.conns[conn];
        let principal = view.principal;
        let number = *view
            .published
            .get(&id)
            .expect("only what was sent is acknowledged");
        let sent = self.ledger.messages.get_mut(&number).expect("registered");
        let standing = self
            .database
            .standing(principal, sent.channel, Action::Publish);
        let version5 = self.devices[view.device].version.is_v5();
        if reason.is_error() {
            assert!(
                reason != ReasonCode::NOT_AUTHORIZED
                    || !standing.is_solid(sent.input)
                    || self.lease_was_over,
                "message {number} was refused after the grant was answered"
            );
            sent.refused = true;
        } else if version5 {
            // nothing is accepted once the revocation was answered.
            assert!(
                !standing.is_forbidden(sent.input, moment) || sent.acked != NEVER,
                "message {number} was accepted after the revocation was answered"
            );
        }
        if version5 && !reason.is_error() {
            // What was refused once may be taken when it is repeated.
            sent.refused = false;
        }
        if sent.acked == NEVER && (version5 || sent.surely_permitted) {
            sent.acked = moment;
        }
    }

    pub(super) fn subscribed(&mut self, conn: usize, id: u16, codes: &[u8]) {
        let moment = self.moment;
        let view = &self.ledger.conns[conn];
        let request = view
            .requests
            .get(&id)
            .expect("only what was sent is answered")
            .clone();
        assert!(request.subscribe && request.filters.len() == codes.len());
        let principal = view.principal;
        let later = |channel: usize, filter: &str| {
            view.requests.values().any(|other| {
                !other.subscribe
                    && other.input != NEVER
                    && other.input >= request.input
                    && other
                        .filters
                        .iter()
                        .any(|one| one.0 == channel && one.1 == filter)
            })
        };
        let session = self.ledger.sessions.entry(view.device).or_default();
        for ((channel, filter, qos, share, no_local), code) in request.filters.iter().zip(codes) {
            let standing = self
                .database
                .standing(principal, *channel, Action::Subscribe);
            if *code >= 0x80 {
                let owed = standing.is_solid(request.input) && !self.lease_was_over;
                assert!(!owed, "a filter was refused after its grant");
                continue;
            }
            assert!(
                !standing.is_forbidden(request.input, moment),
                "a filter was granted after the revocation was answered"
            );
            if later(*channel, filter) || self.database.channels[*channel].removed {
                continue;
            }
            let known = session.subscriptions.entry((*channel, *filter));
            let known = known.or_insert(Subscribed {
                since: moment,
                lowest: *qos,
                share: *share,
                no_local: false,
            });
            known.lowest = known.lowest.min(*qos);
            known.no_local |= no_local;
        }
    }

    pub(super) fn delivered(&mut self, conn: usize, publish: &Publish<'_>) {
        let moment = self.moment;
        let Some(number) = number_of(publish.payload) else {
            return;
        };
        let view = &self.ledger.conns[conn];
        let (device, reader) = (view.device, view.principal);
        assert!(view.connected.is_some(), "a delivery before CONNACK");
        let session = self.ledger.sessions[&device].number;
        let sent = self
            .ledger
            .messages
            .get_mut(&number)
            .expect("only what was sent is delivered");
        let asked = self
            .asked
            .range((device, sent.channel, "")..)
            .take_while(|key| key.0 == device && key.1 == sent.channel);
        assert!(
            asked.into_iter().any(|key| matches(key.2, sent.subtopic)),
            "device {device} never asked for message {number}"
        );
        assert_ne!(
            sent.input, NEVER,
            "message {number} is delivered before it was due"
        );
        // R-1 for readers, then for publishers.
        let standing = self
            .database
            .standing(reader, sent.channel, Action::Subscribe);
        assert!(
            !standing.is_forbidden(moment, moment),
            "device {device} hears message {number} after the revocation was answered"
        );
        let standing = self
            .database
            .standing(sent.principal, sent.channel, Action::Publish);
        assert!(
            !standing.is_forbidden(sent.input, moment),
            "message {number} was accepted after the revocation was answered"
        );
        let qos = publish.delivery.qos();
        assert!(
            qos <= sent.qos,
            "message {number} is delivered at a higher QoS"
        );
        let first = !sent
            .deliveries
            .iter()
            .any(|one| one.device == device && one.session == session && !one.retained);
        assert!(
            first
                || publish.dup
                || sent.repeated
                || publish.retain
                || qos == QoS::ExactlyOnce
                || self.devices[device].role == Role::Worker,
            "device {device} hears message {number} twice"
        );
        sent.deliveries.push(Delivery {
            device,
            session,
            dup: publish.dup,
            retained: publish.retain,
        });
        let in_order = first
            && !publish.retain
            && !sent.repeated
            && !sent.will
            && self.devices[device].role != Role::Worker;
        if in_order {
            let row = (
                device,
                session,
                sent.conn,
                sent.channel,
                sent.subtopic,
                sent.qos,
                qos,
            );
            let last = self.order.insert(row, number).unwrap_or(0);
            assert!(
                last < number,
                "device {device} hears message {number} behind {last}"
            );
        }
    }
}
