//! MQTT over QUIC, on one stream and on several.

use std::fs;
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use codec::mqtt::{ConnectProperties, QoS, ReasonCode, put_pingreq};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use tokio::runtime::Runtime;

use crate::broker::Broker;
use crate::client::{Client, Credentials, Got, Options};
use crate::tls::{Authority, Shown, config};

/// Longest wait for something that has to come.
const WAIT: Duration = Duration::from_secs(20);

/// One connection, from an endpoint of its own.
struct Peer {
    runtime: Arc<Runtime>,
    endpoint: Endpoint,
    connection: Connection,
}

/// One stream both ways.
pub(crate) struct Stream {
    runtime: Arc<Runtime>,
    send: SendStream,
    receive: RecvStream,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = async { tokio::time::timeout(WAIT, self.receive.read(buffer)).await };
        match self.runtime.block_on(read) {
            Ok(Ok(taken)) => Ok(taken.unwrap_or(0)),
            Ok(Err(_)) => Ok(0),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.runtime.block_on(self.send.write(bytes))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// TLS of a client that speaks `alpn`.
fn tls(authority: &Authority, shown: Option<Shown>, alpn: Option<&str>) -> ClientConfig {
    let mut config = config(authority, shown, &[&rustls::version::TLS13]);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.enable_early_data = true;
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

impl Peer {
    fn open(broker: &Broker, tls: ClientConfig) -> Result<Peer, ConnectionError> {
        let runtime = Arc::new(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
        );
        let address = broker.listener("quic").parse().unwrap();
        let inside = runtime.enter();
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(tls);
        let connecting = endpoint.connect(address, "localhost").unwrap();
        let connected = runtime.block_on(async { tokio::time::timeout(WAIT, connecting).await });
        drop(inside);
        Ok(Peer {
            connection: connected.unwrap()?,
            endpoint,
            runtime,
        })
    }

    fn stream(&self) -> Stream {
        let (send, receive) = self.runtime.block_on(self.connection.open_bi()).unwrap();
        Stream {
            runtime: Arc::clone(&self.runtime),
            send,
            receive,
        }
    }

    /// A further stream for data.
    fn data(&self) -> Client {
        Client::over(self.stream(), Options::default().version)
    }
}

/// The one stream of a new connection.
pub(crate) fn stream(broker: &Broker, authority: &Authority, shown: Option<Shown>) -> Stream {
    let peer = Peer::open(broker, tls(authority, shown, Some("mqtt"))).unwrap();
    peer.stream()
}

/// A broker with a certificate for `localhost`, and `more` for its QUIC listener.
fn broker(authority: &Authority, more: &str) -> Broker {
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    let pair = "certificate = \"server.pem\"\nkey = \"server.key\"\n";
    Broker::configured(folder, &format!("[listeners.quic]\n{pair}{more}\n"))
}

fn plain(broker: &Broker, client: usize) -> Client {
    Client::connect(
        broker.address(),
        &broker.client(client),
        &Options::default(),
    )
    .0
}

/// Sees the exchange of a message at QoS 2 through.
fn finish(client: &mut Client) {
    for got in client.ping() {
        match got {
            Got::PubRel(id) => client.pubcomp(id),
            other => panic!("came as well: {other:?}"),
        }
    }
}

const EACH: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[test]
fn one_stream_carries_messages_of_each_quality_both_ways() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let (up, down) = (broker.topic("up"), broker.topic("down"));
    let mut over_tcp = plain(&broker, 1);
    over_tcp.subscribe(&up, QoS::ExactlyOnce);
    let peer = Peer::open(&broker, tls(&authority, None, Some("mqtt"))).unwrap();
    let mut client = Client::connect_over(peer.stream(), &broker.client(0), &Options::default());
    client.subscribe(&down, QoS::ExactlyOnce);
    for len in [1, 20_000, 300_000] {
        for qos in EACH {
            let payload = vec![b'x'; len];
            client.publish(&up, &payload, qos, false);
            assert_eq!(over_tcp.message().payload, payload);
            finish(&mut over_tcp);
            over_tcp.publish(&down, &payload, qos, false);
            assert_eq!(client.message().payload, payload);
            finish(&mut client);
        }
    }
    client.disconnect(ReasonCode::SUCCESS);
}

#[test]
fn answers_come_on_the_stream_of_their_request_and_messages_over_control() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let peer = Peer::open(&broker, tls(&authority, None, Some("mqtt"))).unwrap();
    let mut control = Client::connect_over(peer.stream(), &broker.client(0), &Options::default());
    let topic = broker.topic("streams");
    let (mut one, mut other) = (peer.data(), peer.data());
    assert_eq!(one.subscribe(&topic, QoS::AtLeastOnce), 1);
    for payload in [&b"small"[..], &vec![b'l'; 100_000]] {
        for qos in EACH {
            for publisher in [&mut one, &mut other] {
                publisher.publish(&topic, payload, qos, false);
                assert_eq!(control.message().payload, payload);
            }
        }
    }
    assert!(matches!(other.unsubscribe(&topic), Got::UnsubAck(_)));
    one.publish(&topic, b"to nobody", QoS::AtLeastOnce, false);
    assert_eq!(control.ping(), []);
    // A stream that is done makes room for another one.
    drop((one, other));
    for _ in 0..20 {
        peer.data().publish(&topic, b"x", QoS::AtLeastOnce, false);
    }
    assert_eq!(control.ping(), []);
}

#[test]
fn data_streams_carry_no_packets_of_the_control_stream() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let peer = Peer::open(&broker, tls(&authority, None, Some("mqtt"))).unwrap();
    let mut control = Client::connect_over(peer.stream(), &broker.client(0), &Options::default());
    let mut ping = Vec::new();
    put_pingreq(&mut ping);
    peer.data().send(&ping);
    assert_eq!(control.next(), Got::Closed);
    match peer.runtime.block_on(peer.connection.closed()) {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code.into_inner(), 1),
        other => panic!("closed otherwise: {other}"),
    }
}

#[test]
fn other_protocols_are_refused() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    for alpn in [Some("h3"), None] {
        assert!(Peer::open(&broker, tls(&authority, None, alpn)).is_err());
    }
}

#[test]
fn nothing_is_taken_before_the_handshake_is_done() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let peer = Peer::open(&broker, tls(&authority, None, Some("mqtt"))).unwrap();
    let mut first = Client::connect_over(peer.stream(), &broker.client(0), &Options::default());
    assert_eq!(first.ping(), []);
    let inside = peer.runtime.enter();
    let address = broker.listener("quic").parse().unwrap();
    let again = peer.endpoint.connect(address, "localhost").unwrap();
    assert!(again.into_0rtt().is_err(), "no ticket lets data go early");
    drop(inside);
}

#[test]
fn a_client_keeps_its_connection_when_its_address_changes() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let topic = broker.topic("moved");
    let peer = Peer::open(&broker, tls(&authority, None, Some("mqtt"))).unwrap();
    let mut client = Client::connect_over(peer.stream(), &broker.client(0), &Options::default());
    client.subscribe(&topic, QoS::AtLeastOnce);
    let inside = peer.runtime.enter();
    let before = peer.endpoint.local_addr().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.endpoint.rebind(socket).unwrap();
    assert_ne!(peer.endpoint.local_addr().unwrap(), before);
    drop(inside);
    assert_eq!(client.ping(), []);
    plain(&broker, 1).publish(&topic, b"followed", QoS::AtLeastOnce, false);
    assert_eq!(client.payload(), "followed");
}

#[test]
fn a_revoked_right_stops_messages() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let topic = broker.topic("revoked");
    let peer = Peer::open(&broker, tls(&authority, None, Some("mqtt"))).unwrap();
    let mut client = Client::connect_over(peer.stream(), &broker.client(0), &Options::default());
    client.subscribe(&topic, QoS::AtLeastOnce);
    let mut publisher = plain(&broker, 1);
    publisher.publish(&topic, b"before", QoS::AtLeastOnce, false);
    assert_eq!(client.payload(), "before");
    let id = broker.client(0).username.unwrap();
    let of = [
        "--domain",
        "demo",
        "--client",
        &id,
        "--channel",
        broker.channel(),
    ];
    broker.provision(&[&["disconnect"][..], &of, &["--type", "subscribe"]].concat());
    publisher.publish(&topic, b"after", QoS::AtLeastOnce, false);
    assert_eq!(client.ping(), []);
}

#[test]
fn a_session_goes_on_over_tcp() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let topic = broker.topic("kept");
    let options = Options {
        client_id: "wanders",
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: 300,
            ..ConnectProperties::default()
        },
        ..Options::default()
    };
    let peer = Peer::open(&broker, tls(&authority, None, Some("mqtt"))).unwrap();
    let mut client = Client::connect_over(peer.stream(), &broker.client(0), &options);
    client.subscribe(&topic, QoS::AtLeastOnce);
    peer.connection.close(0u32.into(), b"");
    plain(&broker, 1).publish(&topic, b"meanwhile", QoS::AtLeastOnce, false);
    let (mut again, present) = Client::connect(broker.address(), &broker.client(0), &options);
    assert!(present);
    assert_eq!(again.payload(), "meanwhile");
}

#[test]
fn a_certificate_says_which_client_it_is() {
    let authority = Authority::new();
    let broker = broker(&authority, "client_ca = \"ca.pem\"\nidentity = true\n");
    let id = broker.client(0).username.unwrap();
    let topic = broker.topic("certified");
    let shown = authority.client(&id, None, 1);
    let peer = Peer::open(&broker, tls(&authority, Some(shown), Some("mqtt"))).unwrap();
    let nobody = Credentials::default();
    let mut client = Client::connect_over(peer.stream(), &nobody, &Options::default());
    client.subscribe(&topic, QoS::AtLeastOnce);
    client.publish(&topic, b"certified", QoS::AtMostOnce, false);
    assert_eq!(client.payload(), "certified");
}
