//! What a client says, and how what it hears is read.

use codec::mqtt::{
    Connect, Delivery, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    SubscribeFilters, Subscription, UserProperties, decode, split_frame,
};

/// Whole packets; the memory is given away, since tests are short.
pub(crate) fn packets(bytes: Vec<u8>, version: ProtocolVersion) -> Vec<Packet<'static>> {
    let mut rest: &'static [u8] = Box::leak(bytes.into_boxed_slice());
    let mut found = Vec::new();
    while !rest.is_empty() {
        let frame = split_frame(rest, u32::MAX)
            .unwrap()
            .expect("a whole packet");
        rest = &rest[frame.bytes.len()..];
        found.push(decode(&frame, version).expect("a valid packet"));
    }
    found
}

pub(crate) fn bytes_of(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// A CONNECT of `dev` with Clean Start.
pub(crate) fn connect(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        client_id,
        will: None,
        username: Some("dev"),
        password: Some(b"secret"),
        properties: Default::default(),
    }
}

/// A CONNECT of `dev` that keeps and resumes its session.
pub(crate) fn lasting(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    let mut connect = connect(version, client_id);
    connect.clean_start = false;
    if version.is_v5() {
        connect.properties.session_expiry = 100;
    }
    connect
}

pub(crate) fn publish<'a>(topic: &'a str, delivery: Delivery, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        dup: false,
        retain: false,
        delivery,
        topic,
        properties: PublishProperties::default(),
        payload,
    }
}

pub(crate) fn subscribe(
    version: ProtocolVersion,
    packet_id: u16,
    identifier: Option<u32>,
    filters: &[Subscription<'_>],
) -> Vec<u8> {
    let mut block = Vec::new();
    for filter in filters {
        filter.put(version, &mut block);
    }
    let packet = codec::mqtt::Subscribe {
        packet_id: id(packet_id),
        subscription_identifier: identifier,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::parse(&block, version).unwrap(),
    };
    bytes_of(&Packet::Subscribe(packet), version)
}

pub(crate) fn to(filter: &str, qos: QoS) -> Subscription<'_> {
    Subscription::new(filter, qos)
}

/// The PUBLISHes among packets.
pub(crate) fn publishes(packets: &[Packet<'static>]) -> Vec<Publish<'static>> {
    packets
        .iter()
        .filter_map(|packet| match packet {
            Packet::Publish(publish) => Some(*publish),
            _ => None,
        })
        .collect()
}
