//! I4: in the steady state the broker allocates nothing per message.
//!
//! A counting allocator that this workspace need not write itself (it would be `unsafe`): the one
//! of `stats_alloc`, under a whole broker in this process with control, sockets and rights. It
//! counts all threads, so the few allocations of what runs beside the shards are allowed for; one
//! for each message, or for each hundredth, is not. The client side of the test allocates nothing.
#![allow(clippy::unwrap_used)]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use benches::publishes;
use codec::mqtt::{
    Connect, ConnectProperties, PacketId, ProtocolVersion, QoS, RetainHandling, Subscribe,
    SubscribeFilters, Subscription, UserProperties,
};
use control_api::{Control, DemoClient};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGES: usize = 20_000;

/// What control and runtime may allocate meanwhile: leases, timers, metrics, and once a second what
/// clients did, which is written to the database. One for each burst of 16 would be more.
const BESIDE: usize = MESSAGES / 20;

#[test]
fn steady_state_of_qos0_allocates_nothing_per_message() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (broker, demo) = runtime.block_on(async {
        let config = control_api::Config::new(folder.path());
        let (control, first_run) = Control::open(config).await.unwrap();
        let (node, incarnation) = (control.node(), control.incarnation());
        let config = broker::Config {
            shards: 1,
            listeners: vec![broker::Listener::plain("mqtt", ([127, 0, 0, 1], 0).into())],
            http: None,
            coap: Vec::new(),
            own_descriptors: false,
            quic: None,
            limits: broker::Limits::default(),
            node,
            incarnation,
            sys_interval_s: 0,
        };
        let feed = broker::Feed::here(move || -> broker::Connecting {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let control = control.clone();
            tokio::spawn(async move { control.serve_feed(theirs).await });
            Box::pin(async move { Ok(Box::new(ours) as Box<dyn broker::FeedPipe>) })
        });
        let broker = broker::start(config, feed).await.unwrap();
        (broker, first_run.unwrap().demo.unwrap())
    });
    let address = broker.listeners()[0].1;
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for subtopic in ["", "/press/4/temp"] {
            let topic = format!("m/{}/c/{}{subtopic}", demo.domain, demo.channel);
            let mut subscriber = connect(address, &demo.clients[0], "subscriber", version);
            subscribe(&mut subscriber, &topic, version);
            let mut publisher = connect(address, &demo.clients[1], "publisher", version);
            let frames = publishes(version, &topic, 64, 16);
            let mut received = vec![0; frames.len()];
            for burst in [1, 16] {
                let sent = &frames[..frames.len() / 16 * burst];
                let received = &mut received[..sent.len()];
                let mut exchange = |count: usize| {
                    for _ in 0..count {
                        publisher.write_all(sent).unwrap();
                        subscriber.read_exact(received).unwrap();
                        assert!(sent == received, "a frame leaves as it came");
                    }
                };
                exchange(500);
                let region = Region::new(ALLOCATOR);
                exchange(MESSAGES / burst);
                let change = region.change();
                let count = change.allocations + change.reallocations;
                assert!(
                    count < BESIDE,
                    "{count} allocations for {MESSAGES} messages, {version:?}, bursts of {burst}, {topic}"
                );
            }
        }
    }
}

fn connect(
    address: SocketAddr,
    client: &DemoClient,
    client_id: &str,
    version: ProtocolVersion,
) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let username = client.id.to_string();
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive: 0,
        client_id,
        will: None,
        username: Some(&username),
        password: Some(client.secret.reveal().as_bytes()),
        properties: ConnectProperties::default(),
    };
    let mut bytes = Vec::new();
    connect.encode(version, &mut bytes);
    stream.write_all(&bytes).unwrap();
    let answer = answer(&mut stream);
    assert_eq!((answer[0], answer[3]), (0x20, 0), "CONNACK 0");
    stream
}

fn subscribe(stream: &mut TcpStream, topic: &str, version: ProtocolVersion) {
    let (mut filters, mut bytes) = (Vec::new(), Vec::new());
    let subscription = Subscription {
        filter: topic,
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    subscription.put(version, &mut filters);
    let request = Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_identifier: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::parse(&filters, version).unwrap(),
    };
    request.encode(version, &mut bytes);
    stream.write_all(&bytes).unwrap();
    let answer = answer(stream);
    assert_eq!((answer[0], answer.last()), (0x90, Some(&0)), "SUBACK 0");
}

/// One packet shorter than 128 bytes.
fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet).unwrap();
    packet.resize(2 + usize::from(packet[1]), 0);
    stream.read_exact(&mut packet[2..]).unwrap();
    packet
}
