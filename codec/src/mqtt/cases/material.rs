//! Packets of any kind and version out of random parts.

use proptest::prelude::*;

use crate::mqtt::ProtocolVersion::{self, V5, V31, V311};
use crate::mqtt::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Delivery, Disconnect,
    Packet, PacketId, PayloadFormat, Publish, PublishProperties, QoS, ReasonCode, RetainHandling,
    SubAck, Subscribe, SubscribeFilters, Subscription, SubscriptionIdentifiers, Unsubscribe,
    UnsubscribeFilters, UserProperties, Will,
};

/// What a packet of any kind is made of.
#[derive(Debug)]
pub(super) struct Material {
    kind: u8,
    pub(super) version: ProtocolVersion,
    /// One bit for each choice.
    bits: u32,
    number: u16,
    long: u32,
    texts: [String; 4],
    topics: [String; 2],
    data: [Vec<u8>; 2],
    payload: Vec<u8>,
    user: Vec<(String, String)>,
    filters: Vec<(String, u8)>,
    identifiers: Vec<u32>,
    /// The three below encoded.
    blocks: [Vec<u8>; 4],
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/]{0,12}", "[^\0]{0,6}", Just("\u{FEFF}x".to_owned())]
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/]{1,20}", "[^\0+#]{1,6}", "\\$SYS/[a-z]{1,5}"]
}

fn filter() -> impl Strategy<Value = String> {
    prop_oneof!["([a-z]{0,3}/|\\+/){1,4}(#|\\+|[a-z])", topic()]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..20)
}

prop_compose! {
    pub(super) fn material()(
        kind in 1..=15u8,
        version in prop_oneof![Just(V31), Just(V311), Just(V5), Just(V5)],
        bits in any::<u32>(),
        number in 1..=u16::MAX,
        long in any::<u32>(),
        texts in [text(), text(), text(), text()],
        topics in [topic(), topic()],
        data in [data(), data()],
        payload in prop::collection::vec(any::<u8>(), 0..300),
        user in prop::collection::vec((text(), text()), 0..4),
        filters in prop::collection::vec((filter(), 0..3u8), 1..4),
        identifiers in prop::collection::vec(1..=268_435_455u32, 0..4),
    ) -> Material {
        let blocks = Default::default();
        Material {
            kind, version, bits, number, long, texts, topics, data, payload, user, filters,
            identifiers, blocks,
        }.with_blocks()
    }
}

impl Material {
    fn with_blocks(mut self) -> Self {
        let [user, identifiers, subscribe, unsubscribe] = &mut self.blocks;
        for (name, value) in &self.user {
            UserProperties::put(user, name, value);
        }
        for identifier in &self.identifiers {
            SubscriptionIdentifiers::put(identifiers, *identifier);
        }
        for (filter, qos) in &self.filters {
            let subscription = Subscription {
                no_local: self.bits & 1 != 0,
                retain_as_published: self.bits & 2 != 0,
                retain_handling: match self.bits >> 2 & 3 {
                    0 => RetainHandling::SendIfNew,
                    1 => RetainHandling::DoNotSend,
                    _ => RetainHandling::Send,
                },
                ..Subscription::new(filter, QoS::from_bits(*qos).unwrap())
            };
            subscription.put(self.version, subscribe);
            UnsubscribeFilters::put(filter, unsubscribe);
        }
        self
    }

    fn bit(&self, bit: u32) -> bool {
        self.bits >> bit & 1 != 0
    }

    fn choose<T>(&self, bit: u32, value: T) -> Option<T> {
        self.bit(bit).then_some(value)
    }

    fn code(&self, codes: &[u8]) -> ReasonCode {
        ReasonCode::new(codes[(self.bits >> 8) as usize % codes.len()])
    }

    fn v5<T: Default>(&self, value: T) -> T {
        if self.version.is_v5() {
            value
        } else {
            T::default()
        }
    }

    fn user(&self) -> UserProperties<'_> {
        self.v5(UserProperties::parse(&self.blocks[0]).unwrap())
    }

    fn packet_id(&self) -> PacketId {
        PacketId::new(self.number).unwrap()
    }

    fn qos(&self) -> QoS {
        QoS::from_bits((self.bits >> 4 & 3) as u8).unwrap_or_default()
    }

    fn message_properties(&self) -> PublishProperties<'_> {
        self.v5(PublishProperties {
            payload_format: self.choose(10, PayloadFormat::Utf8),
            message_expiry: self.choose(11, self.long),
            response_topic: self.choose(12, &self.topics[1]),
            correlation_data: self.choose(13, &self.data[0]),
            content_type: self.choose(14, &self.texts[2]),
            user_properties: self.user(),
            ..PublishProperties::default()
        })
    }

    pub(super) fn publish(&self) -> Publish<'_> {
        let alias = self.v5(self.choose(15, self.number));
        let identifiers = SubscriptionIdentifiers::parse(&self.blocks[1]).unwrap();
        Publish {
            dup: self.bit(0) && self.qos() != QoS::AtMostOnce,
            retain: self.bit(1),
            delivery: Delivery::new(self.qos(), self.packet_id()),
            topic: if alias.is_some() && self.bit(2) {
                ""
            } else {
                &self.topics[0]
            },
            properties: PublishProperties {
                topic_alias: alias,
                subscription_identifiers: self.v5(identifiers),
                ..self.message_properties()
            },
            payload: &self.payload,
        }
    }

    fn connect(&self) -> Connect<'_> {
        let username = self.choose(0, self.texts[0].as_str());
        let may_have_password = self.version.is_v5() || username.is_some();
        let method = self.choose(9, self.texts[1].as_str());
        Connect {
            version: self.version,
            clean_start: self.bit(1),
            keep_alive: self.number,
            client_id: &self.texts[3],
            will: self.choose(
                2,
                Will {
                    topic: &self.topics[0],
                    payload: &self.payload,
                    qos: self.qos(),
                    retain: self.bit(3),
                    delay: self.v5(self.long),
                    properties: self.message_properties(),
                },
            ),
            username,
            password: self
                .choose(6, self.data[1].as_slice())
                .filter(|_| may_have_password),
            properties: match self.version.is_v5() {
                false => ConnectProperties::default(),
                true => ConnectProperties {
                    session_expiry: self.long,
                    receive_maximum: self.number,
                    maximum_packet_size: self.choose(7, u32::from(self.number)),
                    topic_alias_maximum: self.number,
                    request_response_information: self.bit(7),
                    request_problem_information: self.bit(8),
                    user_properties: self.user(),
                    authentication_method: method,
                    authentication_data: method.and(self.choose(16, &self.data[0])),
                },
            },
        }
    }

    fn connack(&self) -> ConnAck<'_> {
        let reason = match self.version.is_v5() {
            true => self.code(&[0, 0x80, 0x87, 0x97, 0x9F]),
            false => self.code(&[0, 1, 2, 3, 4, 5]),
        };
        let session_present = self.bit(1) && reason == ReasonCode::SUCCESS && self.version != V31;
        let properties = self.v5(ConnAckProperties {
            session_expiry: self.choose(2, self.long),
            receive_maximum: self.choose(3, self.number),
            maximum_qos: self.choose(4, QoS::AtLeastOnce),
            retain_available: self.choose(5, self.bit(6)),
            maximum_packet_size: self.choose(7, u32::from(self.number)),
            assigned_client_identifier: self.choose(16, &self.texts[0]),
            topic_alias_maximum: self.choose(17, self.number),
            reason_string: self.choose(18, &self.texts[1]),
            user_properties: self.user(),
            wildcard_subscription_available: self.choose(19, self.bit(20)),
            subscription_identifier_available: self.choose(20, self.bit(21)),
            shared_subscription_available: self.choose(21, self.bit(22)),
            server_keep_alive: self.choose(22, self.number),
            response_information: self.choose(23, &self.texts[2]),
            server_reference: self.choose(24, &self.texts[3]),
            authentication_method: self.choose(25, &self.texts[0]),
            authentication_data: self.choose(26, &self.data[0]),
        });
        ConnAck {
            session_present,
            reason,
            properties,
        }
    }

    fn ack(&self, codes: &[u8]) -> Ack<'_> {
        Ack {
            packet_id: self.packet_id(),
            reason: self.v5(self.code(codes)),
            reason_string: self.v5(self.choose(0, &self.texts[0])),
            user_properties: self.user(),
        }
    }

    fn suback(&self, codes: &'static [u8]) -> SubAck<'_> {
        let reason_string = self.v5(self.choose(0, self.texts[0].as_str()));
        SubAck {
            packet_id: self.packet_id(),
            codes,
            reason_string,
            user_properties: self.user(),
        }
    }

    pub(super) fn packet(&self) -> Packet<'_> {
        let (packet_id, user_properties) = (self.packet_id(), self.user());
        match self.kind {
            1 => Packet::Connect(self.connect()),
            2 => Packet::ConnAck(self.connack()),
            3 => Packet::Publish(self.publish()),
            4 => Packet::PubAck(self.ack(&[0, 0x10, 0x80, 0x99])),
            5 => Packet::PubRec(self.ack(&[0, 0x10, 0x80, 0x99])),
            6 => Packet::PubRel(self.ack(&[0, 0x92])),
            7 => Packet::PubComp(self.ack(&[0, 0x92])),
            8 => Packet::Subscribe(Subscribe {
                packet_id,
                subscription_identifier: self.v5(self.identifiers.first().copied()),
                user_properties,
                filters: SubscribeFilters::parse(&self.blocks[2], self.version).unwrap(),
            }),
            9 => Packet::SubAck(self.suback(&[0, 1, 2, 0x80])),
            10 => Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties,
                filters: UnsubscribeFilters::parse(&self.blocks[3]).unwrap(),
            }),
            11 if self.version.is_v5() => Packet::UnsubAck(self.suback(&[0, 0x11, 0x87])),
            11 => Packet::UnsubAck(self.suback(&[])),
            12 => Packet::PingReq,
            13 => Packet::PingResp,
            14 => Packet::Disconnect(self.v5(Disconnect {
                reason: self.code(&[0, 4, 0x81, 0xA2]),
                session_expiry: self.choose(0, self.long),
                reason_string: self.choose(1, &self.texts[0]),
                server_reference: self.choose(2, &self.texts[1]),
                user_properties,
            })),
            _ if !self.version.is_v5() => Packet::PingReq,
            _ => Packet::Auth(Auth {
                reason: self.code(&[0, 0x18, 0x19]),
                method: Some(&self.texts[0]),
                data: self.choose(0, &self.data[0]),
                reason_string: self.choose(1, &self.texts[1]),
                user_properties,
            }),
        }
    }
}
