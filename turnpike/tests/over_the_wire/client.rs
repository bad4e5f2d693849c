//! A client that sends what a test says and shows what comes back, packet by packet.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use codec::mqtt::{
    Ack, Connect, ConnectProperties, Delivery, Disconnect, Packet, PacketId, ProtocolVersion,
    PublishOut, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeFilters, Subscription,
    Unsubscribe, UnsubscribeFilters, UserProperties, Will, decode, put_pingreq, split_frame,
};

/// Longest wait for something that has to come.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

/// What the broker sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Got {
    ConnAck {
        present: bool,
        code: ReasonCode,
        assigned: Option<String>,
    },
    Publish(Message),
    PubAck(u16, ReasonCode),
    PubRec(u16, ReasonCode),
    PubRel(u16),
    PubComp(u16, ReasonCode),
    SubAck(Vec<u8>),
    UnsubAck(Vec<u8>),
    Pong,
    Disconnect(ReasonCode),
    Auth(ReasonCode),
    Closed,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) id: u16,
    pub(crate) identifiers: Vec<u32>,
    pub(crate) expiry: Option<u32>,
}

/// What is special about a CONNECT.
#[derive(Clone)]
pub(crate) struct Options<'a> {
    pub(crate) version: ProtocolVersion,
    pub(crate) client_id: &'a str,
    pub(crate) clean_start: bool,
    pub(crate) properties: ConnectProperties<'a>,
    pub(crate) will: Option<Will<'a>>,
    pub(crate) keep_alive: u16,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            version: ProtocolVersion::V5,
            client_id: "",
            clean_start: true,
            properties: ConnectProperties::default(),
            will: None,
            keep_alive: 60,
        }
    }
}

/// Carries bytes both ways, and waits for them no longer than [`WAIT`].
pub(crate) trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A TCP connection on which nothing is waited for longer than [`WAIT`].
pub(crate) fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) struct Client {
    stream: Box<dyn Stream>,
    version: ProtocolVersion,
    input: Vec<u8>,
    /// What came while an answer was awaited.
    aside: VecDeque<Got>,
}

impl Client {
    /// Over whatever carries bytes.
    pub(crate) fn over(stream: impl Stream + 'static, version: ProtocolVersion) -> Client {
        Client {
            stream: Box::new(stream),
            version,
            input: Vec::new(),
            aside: VecDeque::new(),
        }
    }

    /// Connected with CONNACK 0x00; whether a session was present.
    pub(crate) fn connect(
        address: &str,
        credentials: &Credentials,
        options: &Options<'_>,
    ) -> (Client, bool) {
        let (client, got) = Client::try_connect(address, credentials, options);
        match got {
            Got::ConnAck {
                present,
                code: ReasonCode::SUCCESS,
                ..
            } => (client, present),
            other => panic!("not connected: {other:?}"),
        }
    }

    pub(crate) fn try_connect(
        address: &str,
        credentials: &Credentials,
        options: &Options<'_>,
    ) -> (Client, Got) {
        Client::try_connect_over(tcp(address), credentials, options)
    }

    /// Connected with CONNACK 0x00 over `stream`.
    pub(crate) fn connect_over(
        stream: impl Stream + 'static,
        credentials: &Credentials,
        options: &Options<'_>,
    ) -> Client {
        match Client::try_connect_over(stream, credentials, options) {
            (
                client,
                Got::ConnAck {
                    code: ReasonCode::SUCCESS,
                    ..
                },
            ) => client,
            (_, other) => panic!("not connected: {other:?}"),
        }
    }

    pub(crate) fn try_connect_over(
        stream: impl Stream + 'static,
        credentials: &Credentials,
        options: &Options<'_>,
    ) -> (Client, Got) {
        let mut client = Client::over(stream, options.version);
        let mut bytes = Vec::new();
        Connect {
            version: options.version,
            clean_start: options.clean_start,
            keep_alive: options.keep_alive,
            client_id: options.client_id,
            will: options.will,
            username: credentials.username.as_deref(),
            password: credentials.password.as_deref().map(str::as_bytes),
            properties: options.properties,
        }
        .encode(options.version, &mut bytes);
        // Who was closed before is told by what comes.
        let _ = client.stream.write_all(&bytes);
        let got = client.next();
        (client, got)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) -> u8 {
        self.subscribe_with(Subscription::new(filter, qos), None)
    }

    pub(crate) fn subscribe_with(
        &mut self,
        subscription: Subscription<'_>,
        identifier: Option<u32>,
    ) -> u8 {
        let mut block = Vec::new();
        subscription.put(self.version, &mut block);
        let mut bytes = Vec::new();
        Subscribe {
            packet_id: PacketId::new(7).unwrap(),
            subscription_identifier: identifier,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::parse(&block, self.version).unwrap(),
        }
        .encode(self.version, &mut bytes);
        self.send(&bytes);
        match self.answer(|got| matches!(got, Got::SubAck(_))) {
            Got::SubAck(codes) => codes[0],
            other => panic!("no SUBACK: {other:?}"),
        }
    }

    /// Sends a SUBSCRIBE whatever its filter; the answer.
    pub(crate) fn try_subscribe(&mut self, filter: &str) -> Got {
        let mut body = vec![0, 7, 0];
        body.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.push(0);
        let mut bytes = vec![0x82, body.len() as u8];
        bytes.append(&mut body);
        self.send(&bytes);
        self.next()
    }

    /// Whether the connection still answers; what else comes is acknowledged.
    pub(crate) fn alive(&mut self) -> bool {
        let mut bytes = Vec::new();
        put_pingreq(&mut bytes);
        if self.stream.write_all(&bytes).is_err() {
            return false;
        }
        loop {
            match self.next() {
                Got::Pong => return true,
                Got::Closed => return false,
                _ => {}
            }
        }
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Got {
        let mut block = Vec::new();
        UnsubscribeFilters::put(filter, &mut block);
        let mut bytes = Vec::new();
        Unsubscribe {
            packet_id: PacketId::new(8).unwrap(),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::parse(&block).unwrap(),
        }
        .encode(self.version, &mut bytes);
        self.send(&bytes);
        self.answer(|got| matches!(got, Got::UnsubAck(_)))
    }

    /// Sends a PUBLISH and, above QoS 0, sees its exchange through.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
        let got = self.publish_only(topic, payload, qos, retain, None);
        assert!(!got.is_some_and(ReasonCode::is_error), "refused: {got:?}");
    }

    pub(crate) fn publish_only(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
        message_expiry: Option<u32>,
    ) -> Option<ReasonCode> {
        let id = PacketId::new(9).unwrap();
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
        };
        let mut bytes = Vec::new();
        PublishOut {
            dup: false,
            retain,
            delivery,
            topic: &[topic],
            topic_alias: None,
            message_expiry,
            subscription_identifiers: &[],
            forwarded: &[],
            payload,
        }
        .encode(self.version, &mut bytes);
        self.send(&bytes);
        match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => match self.next() {
                Got::PubAck(9, code) => Some(code),
                other => panic!("no PUBACK: {other:?}"),
            },
            QoS::ExactlyOnce => match self.next() {
                Got::PubRec(9, code) if code.is_error() => Some(code),
                Got::PubRec(9, code) => {
                    self.pubrel(9);
                    assert!(matches!(self.next(), Got::PubComp(9, _)));
                    Some(code)
                }
                other => panic!("no PUBREC: {other:?}"),
            },
        }
    }

    pub(crate) fn puback(&mut self, id: u16) {
        let mut bytes = Vec::new();
        ack(id).encode_puback(self.version, &mut bytes);
        self.send(&bytes);
    }

    pub(crate) fn pubrec(&mut self, id: u16) {
        let mut bytes = Vec::new();
        ack(id).encode_pubrec(self.version, &mut bytes);
        self.send(&bytes);
    }

    pub(crate) fn pubrel(&mut self, id: u16) {
        let mut bytes = Vec::new();
        ack(id).encode_pubrel(self.version, &mut bytes);
        self.send(&bytes);
    }

    pub(crate) fn pubcomp(&mut self, id: u16) {
        let mut bytes = Vec::new();
        ack(id).encode_pubcomp(self.version, &mut bytes);
        self.send(&bytes);
    }

    /// A whole round trip: everything sent before has been looked at.
    pub(crate) fn ping(&mut self) -> Vec<Got> {
        let mut bytes = Vec::new();
        put_pingreq(&mut bytes);
        self.send(&bytes);
        let mut before = Vec::new();
        loop {
            match self.next() {
                Got::Pong => return before,
                Got::Closed => panic!("closed instead of PINGRESP, after {before:?}"),
                other => before.push(other),
            }
        }
    }

    pub(crate) fn disconnect(mut self, reason: ReasonCode) {
        let mut bytes = Vec::new();
        Disconnect {
            reason,
            session_expiry: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::default(),
        }
        .encode(self.version, &mut bytes);
        self.send(&bytes);
        assert_eq!(self.next(), Got::Closed);
    }

    /// The next message, acknowledged as its QoS asks.
    pub(crate) fn message(&mut self) -> Message {
        loop {
            match self.next() {
                Got::Publish(message) => {
                    match message.qos {
                        1 => self.puback(message.id),
                        2 => self.pubrec(message.id),
                        _ => {}
                    }
                    return message;
                }
                Got::PubRel(id) => self.pubcomp(id),
                other => panic!("no message: {other:?}"),
            }
        }
    }

    pub(crate) fn payload(&mut self) -> String {
        String::from_utf8(self.message().payload).unwrap()
    }

    /// The answer to what was just sent; messages that come before it are kept for later.
    fn answer(&mut self, is_it: impl Fn(&Got) -> bool) -> Got {
        loop {
            match self.receive() {
                got if is_it(&got) || got == Got::Closed => return got,
                other => self.aside.push_back(other),
            }
        }
    }

    /// The next packet, or the end of the connection.
    pub(crate) fn next(&mut self) -> Got {
        match self.aside.pop_front() {
            Some(got) => got,
            None => self.receive(),
        }
    }

    fn receive(&mut self) -> Got {
        loop {
            if let Some(frame) = split_frame(&self.input, u32::MAX).unwrap() {
                let used = frame.bytes.len();
                let got = owned(&decode(&frame, self.version).unwrap());
                self.input.drain(..used);
                return got;
            }
            let mut more = [0; 65536];
            match self.stream.read(&mut more) {
                Ok(0) => return Got::Closed,
                Ok(taken) => self.input.extend_from_slice(&more[..taken]),
                // (InvalidData is a TLS alert.)
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::InvalidData
                    ) =>
                {
                    return Got::Closed;
                }
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }
}

fn ack(id: u16) -> Ack<'static> {
    Ack::new(PacketId::new(id).unwrap(), ReasonCode::SUCCESS)
}

fn owned(packet: &Packet<'_>) -> Got {
    match packet {
        Packet::ConnAck(connack) => Got::ConnAck {
            present: connack.session_present,
            code: connack.reason,
            assigned: connack
                .properties
                .assigned_client_identifier
                .map(str::to_owned),
        },
        Packet::Publish(publish) => Got::Publish(Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.delivery.qos().as_u8(),
            dup: publish.dup,
            retain: publish.retain,
            id: publish.delivery.packet_id().map_or(0, PacketId::get),
            identifiers: publish.properties.subscription_identifiers.iter().collect(),
            expiry: publish.properties.message_expiry,
        }),
        Packet::PubAck(ack) => Got::PubAck(ack.packet_id.get(), ack.reason),
        Packet::PubRec(ack) => Got::PubRec(ack.packet_id.get(), ack.reason),
        Packet::PubRel(ack) => Got::PubRel(ack.packet_id.get()),
        Packet::PubComp(ack) => Got::PubComp(ack.packet_id.get(), ack.reason),
        Packet::SubAck(suback) => Got::SubAck(suback.codes.to_vec()),
        Packet::UnsubAck(unsuback) => Got::UnsubAck(unsuback.codes.to_vec()),
        Packet::PingResp => Got::Pong,
        Packet::Disconnect(disconnect) => Got::Disconnect(disconnect.reason),
        Packet::Auth(auth) => Got::Auth(auth.reason),
        other => panic!("a broker does not send {other:?}"),
    }
}

/// A will on `topic`.
pub(crate) fn will<'a>(topic: &'a str, payload: &'a [u8], qos: QoS, delay: u32) -> Will<'a> {
    Will {
        topic,
        payload,
        qos,
        retain: false,
        delay,
        properties: Default::default(),
    }
}

/// A subscription with its options.
pub(crate) fn with_options(
    filter: &str,
    no_local: bool,
    retain_as_published: bool,
    retain_handling: RetainHandling,
) -> Subscription<'_> {
    Subscription {
        no_local,
        retain_as_published,
        retain_handling,
        ..Subscription::new(filter, QoS::AtLeastOnce)
    }
}
