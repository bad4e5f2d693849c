//! PUBLISH from the client (MQTT 5, 3.3).

use std::sync::Arc;

use authcache::{Action, Denied, DomainIndex, PrincipalIndex, PrincipalKind};
use codec::mqtt::{Delivery, PacketId, PayloadFormat, Publish, ReasonCode, UserProperties};
use router::TopicError;

use crate::limits::Limits;
use crate::message::{Address, Message, MessageParts, Publication};
use crate::mqtt::machine::{Cold, Machine, unknown_right};
use crate::mqtt::received::Arrival;
use crate::mqtt::reply::{self, Kind};
use crate::mqtt::target::{self, Spelling, Target, Unroutable};
use crate::mqtt::will::Place;
use crate::rules::Rules;
use crate::step::{Receipt, Refused, Step};

impl Machine<'_> {
    /// PUBLISH with all its rules. [MQTT-3.3.4-1] [MQTT3-3.3.4-1]
    pub(crate) fn publish(
        &mut self,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let limits = rules.limits;
        if let Err(code) = check(publish, limits) {
            return self.fail(code, out);
        }
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        let aliased;
        let topic = match (publish.topic, publish.properties.topic_alias) {
            ("", Some(alias)) => {
                let table = live.connection.incoming_aliases.as_ref();
                match table.and_then(|table| table.get(alias)) {
                    Some(topic) => {
                        aliased = topic.to_owned();
                        aliased.as_str()
                    }
                    None => return self.fail(ReasonCode::PROTOCOL_ERROR, out),
                }
            }
            (topic, _) => topic,
        };
        if let Delivery::ExactlyOnce(id) = publish.delivery {
            let version5 = live.connection.version.is_v5();
            match live
                .session
                .received
                .arrival(id, window(version5, limits), total(limits))
            {
                Arrival::New => {}
                Arrival::Repeated => return self.repeated(id, topic, publish, rules, out),
                Arrival::TooMany => return self.fail(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, out),
            }
        }
        let (address, spelling) = match self.recall(topic.as_bytes(), rules) {
            Some(address) => (address, Spelling::Canonical(topic)),
            None => {
                let generation = rules.directory.generation();
                match target::resolve(topic, rules) {
                    Ok(Target::Place { address, spelling }) => {
                        if let Spelling::Canonical(topic) = spelling {
                            self.remember(topic, address, generation);
                        }
                        (address, spelling)
                    }
                    Ok(Target::Health(domain)) => return self.health(domain, publish, rules, out),
                    Err(unroutable) => return self.unroutable(unroutable, publish, rules, out),
                }
            }
        };
        if let Some(code) = content_fault(publish, self.hot.is_version5(), limits) {
            return match self.may_publish(address, rules) {
                Ok(()) => {
                    self.bind_alias(publish);
                    self.refuse_publish(code, Refused::Limit, publish, rules, out)
                }
                Err(denied) => self.denied(denied, address, publish, rules, out),
            };
        }
        let message = message(publish, address, &spelling, self.hot.principal, rules);
        let publication = Publication(Arc::new(message));
        let principal = self.hot.principal;
        let rights = &mut self.hot.rights;
        match rules
            .gate
            .permit(principal, Action::Publish, rights, publication)
        {
            Ok(permitted) => {
                self.bind_alias(publish);
                Step::Publish(permitted, receipt_of(publish.delivery))
            }
            Err((denied, _)) => self.denied(denied, address, publish, rules, out),
        }
    }

    /// A QoS 2 PUBLISH that was accepted before is acknowledged and not delivered again; its alias
    /// is as good as that of a first one. [MQTT-4.3.3-10] [MQTT3-4.3.3-2]
    fn repeated(
        &mut self,
        id: PacketId,
        topic: &str,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        if publish.properties.topic_alias.is_some()
            && let Ok(Target::Place { address, .. }) = target::resolve(topic, rules)
        {
            match self.may_publish(address, rules) {
                Ok(()) => self.bind_alias(publish),
                Err(denied) => {
                    if let Some(question) =
                        unknown_right(denied, self.hot.principal, address.channel)
                    {
                        return Step::Wait(question);
                    }
                }
            }
        }
        if let Cold::Live(live) = &mut *self.cold {
            let how = live.connection.manner(self.hot.maximum_packet_size);
            reply::ack(Kind::Rec, id, ReasonCode::SUCCESS, how, out);
        }
        Step::Done
    }

    fn may_publish(&mut self, address: Address, rules: &Rules<'_>) -> Result<(), Denied> {
        let rights = &mut self.hot.rights;
        let place = Place(address);
        match rules
            .gate
            .permit(self.hot.principal, Action::Publish, rights, place)
        {
            Ok(_) => Ok(()),
            Err((denied, _)) => Err(denied),
        }
    }

    /// Remembers the Topic Alias of a PUBLISH that was permitted: a denied one binds nothing.
    /// (Threats T-TOP-10.)
    fn bind_alias(&mut self, publish: &Publish<'_>) {
        if let (Cold::Live(live), Some(alias)) = (&mut *self.cold, publish.properties.topic_alias)
            && !publish.topic.is_empty()
        {
            let table = live.connection.incoming_aliases.get_or_insert_default();
            table.bind(alias, publish.topic);
        }
    }

    /// The answer to [`Step::Publish`]: the message was routed, or refused with `code`.
    pub fn published(&mut self, receipt: Receipt, code: ReasonCode, out: &mut Vec<u8>) {
        self.acknowledge(receipt, code, out);
    }

    /// PUBACK or PUBREC. [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT3-4.3.2-2] [MQTT3-4.3.3-2]
    fn acknowledge(&mut self, receipt: Receipt, code: ReasonCode, out: &mut Vec<u8>) {
        let Cold::Live(live) = &mut *self.cold else {
            return;
        };
        let how = live.connection.manner(self.hot.maximum_packet_size);
        match receipt {
            Receipt::None => {}
            Receipt::PubAck(id) => reply::ack(Kind::Ack, id, code, how, out),
            Receipt::PubRec(id) => {
                // Where the answer cannot carry the refusal, the client will release it.
                if !how.version.is_v5() || !code.is_error() {
                    live.session.received.insert(id);
                }
                reply::ack(Kind::Rec, id, code, how, out);
            }
        }
    }

    fn denied(
        &mut self,
        denied: Denied,
        address: Address,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        if let Some(question) = unknown_right(denied, self.hot.principal, address.channel) {
            return Step::Wait(question);
        }
        let code = ReasonCode::NOT_AUTHORIZED;
        self.refuse_publish(code, Refused::Denied, publish, rules, out)
    }

    fn unroutable(
        &mut self,
        unroutable: Unroutable,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let why = match unroutable {
            Unroutable::Topic(TopicError::TooLong(_) | TopicError::TooManyLevels(_)) => {
                Refused::Limit
            }
            Unroutable::Topic(_) | Unroutable::OutsideGrammar => Refused::Topic,
            Unroutable::Forbidden | Unroutable::Unknown => Refused::Denied,
        };
        self.refuse_publish(unroutable.publish_code(), why, publish, rules, out)
    }

    /// A health message: answered and counted, not routed.
    fn health(
        &mut self,
        domain: Option<DomainIndex>,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let own = match rules.directory.principal_facts(self.hot.principal).kind {
            PrincipalKind::Client { domain: own } => domain == Some(own),
            PrincipalKind::User | PrincipalKind::System => domain.is_some(),
        };
        if !own {
            let code = ReasonCode::NOT_AUTHORIZED;
            return self.refuse_publish(code, Refused::Denied, publish, rules, out);
        }
        self.bind_alias(publish);
        self.acknowledge(receipt_of(publish.delivery), ReasonCode::SUCCESS, out);
        Step::Health
    }

    /// A PUBLISH whose content is not routed, on a connection that lives on where it can be told.
    /// [MQTT3-3.3.5-2]
    fn refuse_publish(
        &mut self,
        code: ReasonCode,
        why: Refused,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let told = self.hot.is_version5() && publish.delivery != Delivery::AtMostOnce;
        let fault = match why {
            Refused::Denied => rules.closes_on_denied(),
            Refused::Topic => rules.listener.close_on_refused,
            Refused::Limit => true,
        };
        if !told && fault {
            return self.fail(code, out);
        }
        self.acknowledge(receipt_of(publish.delivery), code, out);
        Step::Refused(why, 1)
    }
}

fn receipt_of(delivery: Delivery) -> Receipt {
    match delivery {
        Delivery::AtMostOnce => Receipt::None,
        Delivery::AtLeastOnce(id) => Receipt::PubAck(id),
        Delivery::ExactlyOnce(id) => Receipt::PubRec(id),
    }
}

/// What is wrong with a PUBLISH whatever its topic: a fault that ends the connection.
fn check(publish: &Publish<'_>, limits: &Limits) -> Result<(), ReasonCode> {
    let properties = &publish.properties;
    check_user_properties(&properties.user_properties, limits)?;
    // [MQTT-3.3.4-6]
    if !properties.subscription_identifiers.is_empty() {
        return Err(ReasonCode::PROTOCOL_ERROR);
    }
    if properties
        .topic_alias
        .is_some_and(|alias| alias > limits.topic_alias_max)
    {
        return Err(ReasonCode::TOPIC_ALIAS_INVALID);
    }
    Ok(())
}

/// What is wrong with the content of a permitted PUBLISH.
fn content_fault(publish: &Publish<'_>, version5: bool, limits: &Limits) -> Option<ReasonCode> {
    if publish.properties.payload_format == Some(PayloadFormat::Utf8) && !publish.payload_is_utf8()
    {
        return Some(ReasonCode::PAYLOAD_FORMAT_INVALID);
    }
    // Whoever cannot be told has it delivered and not stored.
    let told = version5 && publish.delivery != Delivery::AtMostOnce;
    (told && publish.retain && publish.payload.len() > limits.max_retained_payload)
        .then_some(ReasonCode::QUOTA_EXCEEDED)
}

/// What is routed of a PUBLISH: not its DUP, Packet Identifier and alias. Only with RETAIN is
/// anything stored or removed. [MQTT-3.3.1-3] [MQTT-3.3.1-8] [MQTT3-3.3.1-3] [MQTT3-3.3.1-12]
fn message(
    publish: &Publish<'_>,
    address: Address,
    spelling: &Spelling<'_>,
    publisher: PrincipalIndex,
    rules: &Rules<'_>,
) -> Message {
    let limits = rules.limits;
    let properties = &publish.properties;
    let mut forwarded = Vec::new();
    properties.forwarded_into(&mut forwarded);
    let expiry = lowered(properties.message_expiry, limits.message_expiry_max);
    let mut pieces = [""; 3];
    Message::new(MessageParts {
        address,
        qos: publish.delivery.qos(),
        retain: publish.retain && publish.payload.len() <= limits.max_retained_payload,
        topic: spelling.pieces(&mut pieces),
        properties: &forwarded,
        payload: publish.payload,
        expires_at: expiry.map(|seconds| rules.now.plus_secs(seconds)),
        origin: rules.origin,
        publisher,
    })
}

/// QoS 2 exchanges that a client may begin on one connection.
fn window(version5: bool, limits: &Limits) -> usize {
    match (version5, limits.max_unreleased_v311) {
        (true, _) => usize::from(limits.receive_maximum.max(1)),
        (false, 0) => usize::MAX,
        (false, most) => most,
    }
}

/// QoS 2 exchanges that a session may have under way, those of earlier connections included.
fn total(limits: &Limits) -> usize {
    match limits.max_unreleased_v311 {
        0 => usize::MAX,
        most => most.max(usize::from(limits.receive_maximum)),
    }
}

/// Bounds the User Properties of one packet. (Threats T-FRM-11.)
pub(crate) fn check_user_properties(
    properties: &UserProperties<'_>,
    limits: &Limits,
) -> Result<(), ReasonCode> {
    if properties.is_empty() {
        return Ok(());
    }
    if !user_properties_fit(properties.count(), properties.len_bytes(), limits) {
        return Err(ReasonCode::QUOTA_EXCEEDED);
    }
    Ok(())
}

/// Whether so many User Properties of so many bytes together may be in one packet.
pub(crate) fn user_properties_fit(count: usize, bytes: usize, limits: &Limits) -> bool {
    bytes <= limits.max_property_bytes && count <= limits.max_user_properties
}

/// A Message Expiry Interval under the broker's own maximum, where it has one.
pub(crate) fn lowered(expiry: Option<u32>, maximum: u32) -> Option<u32> {
    match (expiry, maximum) {
        (expiry, 0) => expiry,
        (expiry, maximum) => Some(expiry.unwrap_or(maximum).min(maximum)),
    }
}
