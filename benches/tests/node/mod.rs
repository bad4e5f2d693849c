//! A whole broker in this process, with control, sockets and rights, and clients of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use codec::mqtt::{
    Connect, ConnectProperties, PacketId, ProtocolVersion, QoS, RetainHandling, Subscribe,
    SubscribeFilters, Subscription, UserProperties,
};
use control_api::{Control, Demo, Secret};
use tokio::runtime::{Builder, Runtime};

/// A broker on one shard.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) demo: Demo,
    _broker: broker::Broker,
    _folder: tempfile::TempDir,
}

/// The broker, its control side, and the runtime of both.
pub(crate) fn start() -> (Node, Control, Runtime) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (broker, control, demo) = runtime.block_on(async {
        let config = control_api::Config::new(folder.path());
        let (control, first_run) = Control::open(config).await.unwrap();
        let (node, incarnation) = (control.node(), control.incarnation());
        let config = broker::Config {
            shards: 1,
            listeners: vec![broker::Listener::plain("mqtt", ([127, 0, 0, 1], 0).into())],
            http: None,
            coap: Vec::new(),
            own_descriptors: false,
            rest_us: 0,
            quic: None,
            limits: broker::Limits::default(),
            node,
            incarnation,
            sys_interval_s: 0,
        };
        let served = control.clone();
        let feed = broker::Feed::here(move || -> broker::Connecting {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let control = served.clone();
            tokio::spawn(async move { control.serve_feed(theirs).await });
            Box::pin(async move { Ok(Box::new(ours) as Box<dyn broker::FeedPipe>) })
        });
        let broker = broker::start(config, feed).await.unwrap();
        (broker, control, first_run.unwrap().demo.unwrap())
    });
    let node = Node {
        address: broker.listeners()[0].1,
        demo,
        _broker: broker,
        _folder: folder,
    };
    (node, control, runtime)
}

pub(crate) fn connect(
    address: SocketAddr,
    username: &str,
    secret: &Secret,
    client_id: &str,
    version: ProtocolVersion,
) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive: 0,
        client_id,
        will: None,
        username: Some(username),
        password: Some(secret.reveal().as_bytes()),
        properties: ConnectProperties::default(),
    };
    let mut bytes = Vec::new();
    connect.encode(version, &mut bytes);
    stream.write_all(&bytes).unwrap();
    let answer = answer(&mut stream);
    assert_eq!((answer[0], answer[3]), (0x20, 0), "CONNACK 0");
    stream
}

pub(crate) fn subscribe(stream: &mut TcpStream, topic: &str, version: ProtocolVersion) {
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
