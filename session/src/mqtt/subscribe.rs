//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5, 3.8 to 3.11).

use std::num::NonZeroU32;
use std::sync::Arc;

use authcache::Action;
use codec::mqtt::{ReasonCode, RetainHandling, Subscribe, Unsubscribe};
use router::Subscription;

use crate::mqtt::machine::{Cold, Machine, unknown_right};
use crate::mqtt::publish::check_user_properties;
use crate::mqtt::reply::{self, ListKind};
use crate::mqtt::target;
use crate::rules::Rules;
use crate::session::SubscriptionRecord;
use crate::step::{FilterRequest, Granted, Removed, Step, SubscribeRequest, UnsubscribeRequest};

impl Machine<'_> {
    /// Each filter is judged for itself, in order; wildcards are supported. [MQTT3-3.8.3-2]
    /// [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5]
    pub(crate) fn subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        if let Err(code) = check_user_properties(&subscribe.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        // What is not known yet is asked before anything is recorded.
        for entry in subscribe
            .filters
            .iter()
            .take(rules.limits.max_filters_per_packet)
        {
            if let Ok(target) = target::resolve_filter(entry.filter, rules)
                && let Err(denied) =
                    rules
                        .gate
                        .allows(self.hot.principal, Action::Subscribe, target.channel)
                && let Some(question) = unknown_right(denied, self.hot.principal, target.channel)
            {
                return Step::Wait(question);
            }
        }
        let identifier = subscribe.subscription_identifier.and_then(NonZeroU32::new);
        let filters = subscribe
            .filters
            .iter()
            .enumerate()
            .map(|(at, entry)| {
                if at >= rules.limits.max_filters_per_packet {
                    return FilterRequest::Refused(ReasonCode::QUOTA_EXCEEDED);
                }
                match self.subscribe_one(&entry, identifier, rules) {
                    Ok(granted) => FilterRequest::Granted(granted),
                    Err(code) => FilterRequest::Refused(code),
                }
            })
            .collect();
        Step::Subscribe(SubscribeRequest {
            packet_id: subscribe.packet_id,
            filters,
        })
    }

    fn subscribe_one(
        &mut self,
        entry: &codec::mqtt::Subscription<'_>,
        identifier: Option<NonZeroU32>,
        rules: &Rules<'_>,
    ) -> Result<Granted, ReasonCode> {
        let Cold::Live(live) = &mut *self.cold else {
            return Err(ReasonCode::UNSPECIFIED_ERROR);
        };
        let target = target::resolve_filter(entry.filter, rules)
            .map_err(target::Unroutable::subscribe_code)?;
        let session = &mut live.session;
        let known = session.subscriptions.iter().any(|known| {
            known.channel == target.channel
                && &*known.filter == target.filter
                && known.share.as_deref() == target.share
        });
        if !known && session.subscriptions.len() >= rules.limits.max_subscriptions_per_client {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        let record = SubscriptionRecord {
            channel: target.channel,
            filter: target.filter.into(),
            share: target.share.map(Into::into),
            prefix: target.prefix.map(Arc::from),
            qos: entry.qos,
            no_local: entry.no_local,
            retain_as_published: entry.retain_as_published,
            identifier,
            revoked: false,
        };
        let subscription = record.subscription(live.connection.version.is_v5());
        let permitted = rules
            .gate
            .permit(
                session.principal,
                Action::Subscribe,
                &mut self.hot.rights,
                subscription,
            )
            .map_err(|_| ReasonCode::NOT_AUTHORIZED)?;
        let shared = record.share.is_some();
        let replaced = session.record(record);
        // Nothing retained goes to a Shared Subscription (MQTT 5, 4.8.2). [MQTT-3.3.1-9]
        // [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4] [MQTT3-3.8.4-3]
        let replay = !shared
            && match entry.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => !replaced,
                RetainHandling::DoNotSend => false,
            };
        Ok(Granted {
            subscription: permitted,
            qos: entry.qos,
            replay,
        })
    }

    /// The answer to [`Step::Subscribe`]: one code per filter. [MQTT-3.8.4-1] [MQTT-3.8.4-2]
    /// [MQTT-3.8.4-7] [MQTT-3.9.3-2] [MQTT3-3.8.4-1] [MQTT3-3.8.4-2] [MQTT3-3.9.3-2]
    pub fn subscribed(
        &mut self,
        packet_id: codec::mqtt::PacketId,
        codes: &mut [u8],
        out: &mut Vec<u8>,
    ) {
        let Cold::Live(live) = &mut *self.cold else {
            return;
        };
        let how = live.connection.manner(self.hot.maximum_packet_size);
        reply::list(ListKind::SubAck, packet_id, codes, how, out);
    }

    /// Takes filters out of the session; what is in flight or waits is completed.
    /// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-6]
    /// [MQTT3-3.10.4-1] [MQTT3-3.10.4-2] [MQTT3-3.10.4-3] [MQTT3-3.10.4-6]
    pub(crate) fn unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        if let Err(code) = check_user_properties(&unsubscribe.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        let filters = unsubscribe
            .filters
            .iter()
            .map(|text| {
                let gone = live.session.forget_written(text).or_else(|| {
                    let target = target::resolve_filter(text, rules).ok()?;
                    live.session
                        .forget(target.channel, target.filter, target.share)
                });
                gone.map(|record| Removed {
                    channel: record.channel,
                    filter: record.filter,
                    share: record.share,
                })
            })
            .collect();
        Step::Unsubscribe(UnsubscribeRequest {
            packet_id: unsubscribe.packet_id,
            filters,
        })
    }

    /// The answer to [`Step::Unsubscribe`]: whether each filter was there.
    /// [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-2] [MQTT3-3.10.4-4] [MQTT3-3.10.4-5]
    pub fn unsubscribed(
        &mut self,
        packet_id: codec::mqtt::PacketId,
        existed: impl Iterator<Item = bool>,
        out: &mut Vec<u8>,
    ) {
        let Cold::Live(live) = &mut *self.cold else {
            return;
        };
        let how = live.connection.manner(self.hot.maximum_packet_size);
        let code = |existed: bool| {
            let code = if existed {
                ReasonCode::SUCCESS
            } else {
                ReasonCode::NO_SUBSCRIPTION_EXISTED
            };
            code.get()
        };
        let codes: Vec<u8> = existed.map(code).collect();
        // In 3.1.1 the codec leaves the codes out.
        reply::list(ListKind::UnsubAck, packet_id, &codes, how, out);
    }
}

impl SubscriptionRecord {
    /// What the router keeps of it.
    pub fn subscription(&self, version5: bool) -> Subscription {
        Subscription {
            channel: self.channel,
            filter: self.filter.clone(),
            qos: self.qos.as_u8(),
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            version5,
            identifier: self.identifier,
            prefix: self.prefix.clone(),
            share: self.share.clone(),
        }
    }
}
