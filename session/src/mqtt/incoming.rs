//! Messages from the client: PUBLISH and the acknowledgements that follow it.

use std::sync::Arc;

use authcache::Action;
use codec::mqtt::{
    Ack, Delivery, Frame, Packet, PayloadFormat, ProtocolVersion, Publish, PublishHead, ReasonCode,
    UserProperties, check_topic_name, decode, publish_head, split_frame,
};

use crate::hot::TopicMemo;
use crate::limits::Limits;
use crate::message::{Message, MessageParts, Publication, Run};
use crate::mqtt::machine::{Cold, Machine, unknown_right, within};
use crate::mqtt::outgoing::Acknowledged;
use crate::mqtt::reply::{self, Kind};
use crate::mqtt::target::{self, Spelling, Target, Unroutable};
use crate::rules::Rules;
use crate::step::{Receipt, Refused, Step};

impl Machine<'_> {
    /// QoS 0 frames that leave as they came: walked while head byte and topic repeat, judged once.
    ///
    /// `None` sends the packet to the slow arm, which knows all rules.
    #[inline]
    pub(crate) fn fast<'b>(
        &mut self,
        input: &'b [u8],
        rules: &Rules<'_>,
    ) -> Option<(usize, Step<'b>)> {
        let version5 = self.hot.is_version5();
        let size_max = rules.limits.max_packet_size;
        let frame = split_frame(input, size_max).ok()??;
        let head = publish_head(&frame)?;
        let generation = rules.directory.generation();
        let known = self.hot.memo.as_ref().is_some_and(|memo| {
            memo.generation == generation && memo.topic.as_bytes() == head.topic
        });
        if !known {
            self.remember(head.topic, generation, rules)?;
        }
        let address = self.hot.memo.as_ref()?.address;
        if version5 && !passes_as_is(&frame, &head, rules.limits) {
            return None;
        }
        let topic = head.topic;
        let mut end = frame.bytes.len();
        let mut longest = end;
        let mut count = 1;
        while let Some(0x30) = input.get(end) {
            let Ok(Some(next)) = split_frame(&input[end..], size_max) else {
                break;
            };
            let Some(head) = publish_head(&next) else {
                break;
            };
            if head.topic != topic || (version5 && !passes_as_is(&next, &head, rules.limits)) {
                break;
            }
            end += next.bytes.len();
            longest = longest.max(next.bytes.len());
            count += 1;
        }
        let run = Run {
            address,
            topic,
            frames: &input[..end],
            count,
            longest: longest as u32,
            version5,
            origin: rules.origin,
            publisher: self.hot.principal,
        };
        let principal = self.hot.principal;
        match rules
            .gate
            .permit(principal, Action::Publish, &mut self.hot.rights, run)
        {
            Ok(run) => Some((end, Step::Run(run))),
            Err((denied, _)) => match unknown_right(denied, principal, address.channel) {
                Some(question) => Some((0, Step::Wait(question))),
                None if rules.limits.close_on_denied => None,
                None => Some((end, Step::Refused(Refused::Denied, count))),
            },
        }
    }

    /// Resolves a topic for the fast path; `None` if its frames cannot pass as they are.
    fn remember(&mut self, topic: &[u8], generation: u32, rules: &Rules<'_>) -> Option<()> {
        let topic = std::str::from_utf8(topic).ok()?;
        check_topic_name(topic).ok()?;
        let Ok(Target::Place {
            address,
            spelling: Spelling::Canonical(_),
        }) = target::resolve(topic, rules)
        else {
            return None;
        };
        match &mut self.hot.memo {
            // The text's room is used again: a publisher of two topics allocates nothing.
            Some(memo) => {
                memo.topic.clear();
                memo.topic.push_str(topic);
                memo.address = address;
                memo.generation = generation;
            }
            None => {
                let memo = TopicMemo {
                    topic: topic.to_owned(),
                    address,
                    generation,
                };
                self.hot.memo = Some(Box::new(memo));
            }
        }
        Some(())
    }

    /// PUBLISH with all its rules. [MQTT-3.3.4-1] [MQTT3-3.3.4-1]
    pub(crate) fn publish(
        &mut self,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        let limits = rules.limits;
        let version5 = live.connection.version.is_v5();
        let properties = &publish.properties;
        if let Err(code) = check_user_properties(&properties.user_properties, limits) {
            return self.fail(code, out);
        }
        // [MQTT-3.3.4-6]
        if properties.subscription_identifiers.iter().next().is_some() {
            return self.fail(ReasonCode::PROTOCOL_ERROR, out);
        }
        if properties
            .topic_alias
            .is_some_and(|alias| alias > limits.topic_alias_max)
        {
            return self.fail(ReasonCode::TOPIC_ALIAS_INVALID, out);
        }
        if let Delivery::ExactlyOnce(id) = publish.delivery {
            let unreleased = &live.session.unreleased;
            if unreleased.binary_search(&id.get()).is_ok() {
                // A repetition: acknowledged, not delivered again. [MQTT-4.3.3-10]
                let how = live.connection.manner(self.hot.maximum_packet_size);
                reply::ack(Kind::PubRec, id, ReasonCode::SUCCESS, how, out);
                return Step::Done;
            }
            let full = if version5 {
                unreleased.len() >= usize::from(limits.receive_maximum)
            } else {
                !within(limits, unreleased.len())
            };
            if full {
                return self.fail(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, out);
            }
        }

        let aliased;
        let topic = match (publish.topic, properties.topic_alias) {
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
        let (address, spelling) = match target::resolve(topic, rules) {
            Ok(Target::Place { address, spelling }) => (address, spelling),
            Ok(Target::Health(domain)) => return self.health(domain, publish, rules, out),
            Err(unroutable) => return self.unroutable(unroutable, publish, rules, out),
        };
        if properties.payload_format == Some(PayloadFormat::Utf8)
            && std::str::from_utf8(publish.payload).is_err()
        {
            return self.refuse_publish(
                ReasonCode::PAYLOAD_FORMAT_INVALID,
                Refused::Limit,
                publish,
                rules,
                out,
            );
        }
        if publish.retain
            && publish.payload.len() > limits.max_retained_payload
            && publish.delivery != Delivery::AtMostOnce
        {
            let code = ReasonCode::QUOTA_EXCEEDED;
            return self.refuse_publish(code, Refused::Limit, publish, rules, out);
        }

        let mut forwarded = Vec::new();
        properties.forwarded_into(&mut forwarded);
        let mut pieces = [""; 3];
        let expiry = lowered(properties.message_expiry, limits.message_expiry_max);
        let message = Message::new(MessageParts {
            address,
            qos: publish.delivery.qos(),
            // Too large to keep, and QoS 0: delivered, not stored.
            retain: publish.retain && publish.payload.len() <= limits.max_retained_payload,
            topic: match &spelling {
                Spelling::Canonical(topic) => {
                    pieces[0] = topic;
                    &pieces[..1]
                }
                Spelling::Other {
                    prefix,
                    subtopic: None,
                } => {
                    pieces[0] = prefix;
                    &pieces[..1]
                }
                Spelling::Other {
                    prefix,
                    subtopic: Some(subtopic),
                } => {
                    pieces = [prefix, "/", subtopic];
                    &pieces
                }
            },
            properties: &forwarded,
            payload: publish.payload,
            expires_at: expiry.map(|seconds| rules.now.plus_secs(seconds)),
            origin: rules.origin,
            publisher: live.session.principal,
        });
        let principal = self.hot.principal;
        let publication = Publication(Arc::new(message));
        let rights = &mut self.hot.rights;
        match rules
            .gate
            .permit(principal, Action::Publish, rights, publication)
        {
            Ok(permitted) => {
                // A denied PUBLISH binds no alias. (Threats T-TOP-10.)
                if let (false, Some(alias)) = (publish.topic.is_empty(), properties.topic_alias) {
                    let table = live.connection.incoming_aliases.get_or_insert_default();
                    table.bind(alias, publish.topic);
                }
                let receipt = match publish.delivery {
                    Delivery::AtMostOnce => Receipt::None,
                    Delivery::AtLeastOnce(id) => Receipt::PubAck(id),
                    Delivery::ExactlyOnce(id) => Receipt::PubRec(id),
                };
                Step::Publish(permitted, receipt)
            }
            Err((denied, _)) => match unknown_right(denied, principal, address.channel) {
                Some(question) => Step::Wait(question),
                None => self.refuse_publish(
                    ReasonCode::NOT_AUTHORIZED,
                    Refused::Denied,
                    publish,
                    rules,
                    out,
                ),
            },
        }
    }

    /// The answer to [`Step::Publish`]: the message was routed, or refused with `code`.
    pub fn published(&mut self, receipt: Receipt, code: ReasonCode, out: &mut Vec<u8>) {
        let Cold::Live(live) = &mut *self.cold else {
            return;
        };
        let how = live.connection.manner(self.hot.maximum_packet_size);
        match receipt {
            Receipt::None => {}
            Receipt::PubAck(id) => reply::ack(Kind::PubAck, id, code, how, out),
            Receipt::PubRec(id) => {
                if !code.is_error()
                    && let Err(at) = live.session.unreleased.binary_search(&id.get())
                {
                    live.session.unreleased.insert(at, id.get());
                }
                reply::ack(Kind::PubRec, id, code, how, out);
            }
        }
    }

    fn unroutable(
        &mut self,
        unroutable: Unroutable,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let why = match unroutable {
            Unroutable::Topic(_) | Unroutable::OutsideGrammar => Refused::Topic,
            Unroutable::Forbidden | Unroutable::Unknown => Refused::Denied,
        };
        self.refuse_publish(unroutable.publish_code(), why, publish, rules, out)
    }

    /// A health message: answered and counted, not routed.
    fn health(
        &mut self,
        domain: Option<authcache::DomainIndex>,
        publish: &Publish<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        use authcache::PrincipalKind;
        let own = match rules.directory.principal_facts(self.hot.principal).kind {
            PrincipalKind::Client { domain: own } => domain == Some(own),
            PrincipalKind::User | PrincipalKind::System => domain.is_some(),
        };
        if !own {
            let code = ReasonCode::NOT_AUTHORIZED;
            return self.refuse_publish(code, Refused::Denied, publish, rules, out);
        }
        self.answer_unrouted(ReasonCode::SUCCESS, publish, out);
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
            Refused::Denied => rules.limits.close_on_denied,
            Refused::Topic => false,
            // QoS 0 with a payload that is not what it says has no other answer.
            Refused::Limit => true,
        };
        if !told && fault {
            return self.fail(code, out);
        }
        self.answer_unrouted(code, publish, out);
        Step::Refused(why, 1)
    }

    fn answer_unrouted(&mut self, code: ReasonCode, publish: &Publish<'_>, out: &mut Vec<u8>) {
        let Cold::Live(live) = &mut *self.cold else {
            return;
        };
        let how = live.connection.manner(self.hot.maximum_packet_size);
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => reply::ack(Kind::PubAck, id, code, how, out),
            Delivery::ExactlyOnce(id) => {
                // Where the answer cannot carry the refusal, the client will release it.
                if (!how.version.is_v5() || !code.is_error())
                    && let Err(at) = live.session.unreleased.binary_search(&id.get())
                {
                    live.session.unreleased.insert(at, id.get());
                }
                reply::ack(Kind::PubRec, id, code, how, out);
            }
        }
    }

    pub(crate) fn puback(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        self.acknowledged(ack, rules, out, |outgoing| outgoing.puback(ack.packet_id))
    }

    pub(crate) fn pubcomp(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        self.acknowledged(ack, rules, out, |outgoing| outgoing.pubcomp(ack.packet_id))
    }

    fn acknowledged(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
        take: impl FnOnce(&mut crate::mqtt::outgoing::Outgoing) -> Acknowledged,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) = check_user_properties(&ack.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        let taken = live
            .session
            .outgoing
            .as_mut()
            .map_or(Acknowledged::Unknown, |o| take(o));
        match taken {
            // An identifier that is not in use may belong to an exchange that ended before.
            Acknowledged::Taken | Acknowledged::Unknown => Step::Done,
            Acknowledged::WrongKind => self.fail(ReasonCode::PROTOCOL_ERROR, out),
        }
    }

    pub(crate) fn pubrec(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) = check_user_properties(&ack.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        let refused = ack.reason.is_error();
        let taken = live
            .session
            .outgoing
            .as_mut()
            .map_or(Acknowledged::Unknown, |outgoing| {
                outgoing.pubrec(ack.packet_id, refused)
            });
        let how = live.connection.manner(self.hot.maximum_packet_size);
        let code = match taken {
            Acknowledged::Taken if refused => return Step::Done,
            Acknowledged::Taken => ReasonCode::SUCCESS,
            Acknowledged::Unknown if refused => return Step::Done,
            Acknowledged::Unknown => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            Acknowledged::WrongKind => return self.fail(ReasonCode::PROTOCOL_ERROR, out),
        };
        reply::ack(Kind::PubRel, ack.packet_id, code, how, out);
        Step::Done
    }

    /// PUBREL ends the exchange on this side. [MQTT-4.3.3-11]
    pub(crate) fn pubrel(
        &mut self,
        ack: &Ack<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) = check_user_properties(&ack.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        let code = match live.session.unreleased.binary_search(&ack.packet_id.get()) {
            Ok(at) => {
                live.session.unreleased.remove(at);
                ReasonCode::SUCCESS
            }
            Err(_) => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
        };
        let how = live.connection.manner(self.hot.maximum_packet_size);
        reply::ack(Kind::PubComp, ack.packet_id, code, how, out);
        Step::Done
    }
}

/// Whether an MQTT 5 QoS 0 frame may leave byte for byte: nothing in it has to be resolved,
/// counted down or left out.
#[inline]
fn passes_as_is(frame: &Frame<'_>, head: &PublishHead<'_>, limits: &Limits) -> bool {
    match head.rest.first() {
        Some(0) => true,
        Some(_) => passes_with_properties(frame, limits),
        None => false,
    }
}

fn passes_with_properties(frame: &Frame<'_>, limits: &Limits) -> bool {
    let Ok(Packet::Publish(publish)) = decode(frame, ProtocolVersion::V5) else {
        return false;
    };
    let properties = &publish.properties;
    properties.topic_alias.is_none()
        && properties.message_expiry.is_none()
        && properties.payload_format != Some(PayloadFormat::Utf8)
        && properties.subscription_identifiers.iter().next().is_none()
        && check_user_properties(&properties.user_properties, limits).is_ok()
}

/// Bounds the User Properties of one packet. (Threats T-FRM-11.)
pub(crate) fn check_user_properties(
    properties: &UserProperties<'_>,
    limits: &Limits,
) -> Result<(), ReasonCode> {
    if properties.is_empty() {
        return Ok(());
    }
    if properties.len_bytes() > limits.max_property_bytes
        || properties
            .iter()
            .take(limits.max_user_properties + 1)
            .count()
            > limits.max_user_properties
    {
        return Err(ReasonCode::QUOTA_EXCEEDED);
    }
    Ok(())
}

/// A Message Expiry Interval under the broker's own maximum, where it has one.
pub(crate) fn lowered(expiry: Option<u32>, maximum: u32) -> Option<u32> {
    match (expiry, maximum) {
        (expiry, 0) => expiry,
        (expiry, maximum) => Some(expiry.unwrap_or(maximum).min(maximum)),
    }
}
