//! Control side and broker as two processes, joined by the feed over TLS.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::mqtt::{QoS, ReasonCode};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::client::{Client, Credentials, Got, Options};
use crate::handshakes::hello;
use crate::tls::{Authority, BOTH, Tls, config, open};

/// Longest wait for something that has to come.
const WAIT: Duration = Duration::from_secs(20);

/// A folder with the certificates of a side.
fn folder(authority: &Authority, name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "feed", name);
    std::fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    folder
}

fn control(folder: TempDir, port: u16) -> Broker {
    let configuration =
        format!("role = \"control\"\n[feed]\naddress = \"127.0.0.1:{port}\"\n{FILES}");
    Broker::configured(folder, &configuration)
}

fn edge(folder: TempDir, port: u16) -> Broker {
    edge_with(folder, port, "")
}

fn edge_with(folder: TempDir, port: u16, more: &str) -> Broker {
    let configuration =
        format!("role = \"broker\"\n[feed]\nconnect = \"localhost:{port}\"\n{FILES}{more}");
    Broker::configured(folder, &configuration)
}

const FILES: &str = "certificate = \"feed.pem\"\nkey = \"feed.key\"\nca = \"ca.pem\"\n";

fn port(control: &Broker) -> u16 {
    let address = control.listener("feed");
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// Connects until the answer is `wanted`.
pub(crate) fn connect_until(
    edge: &Broker,
    credentials: &Credentials,
    wanted: ReasonCode,
) -> Client {
    let began = Instant::now();
    loop {
        match Client::try_connect(edge.address(), credentials, &Options::default()) {
            (client, Got::ConnAck { code, .. }) if code == wanted => return client,
            (_, other) => assert!(began.elapsed() < WAIT, "expected {wanted:?}, got {other:?}"),
        }
    }
}

#[test]
fn broker_serves_with_rights_from_elsewhere_and_fails_closed_without_them() {
    let authority = Authority::new();
    let (at_control, at_edge) = (folder(&authority, "localhost"), folder(&authority, "edge"));
    let first = control(at_control, 0);
    let port = port(&first);
    let edge = edge(at_edge, port);
    let (writer, reader) = (first.client(0), first.client(1));
    let topic = first.topic("line");
    let channel = first.channel().to_owned();

    let mut publisher = connect_until(&edge, &writer, ReasonCode::SUCCESS);
    let options = Options {
        keep_alive: 0,
        ..Options::default()
    };
    let (mut subscriber, _) = Client::connect(edge.address(), &reader, &options);
    subscriber.subscribe(&topic, QoS::AtLeastOnce);
    publisher.publish(&topic, b"one", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.payload(), "one");

    // A revocation at control holds at the broker when the call has returned.
    let id = reader.username.clone().unwrap();
    let connection = ["--domain", "demo", "--client", &id, "--channel", &channel];
    let of_reader =
        |what: &'static str| [&[what][..], &connection, &["--type", "subscribe"]].concat();
    first.provision(&of_reader("disconnect"));
    publisher.publish(&topic, b"late", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.ping(), []);
    first.provision(&of_reader("connect"));
    publisher.publish(&topic, b"two", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.payload(), "two");

    // Control is gone: when its lease is over nobody is let in, and those who were there wait.
    let at_control = first.kill();
    connect_until(&edge, &writer, ReasonCode::SERVER_UNAVAILABLE);
    // It is back on the same port: what was there goes on.
    let _second = control(at_control, port);
    let mut publisher = connect_until(&edge, &writer, ReasonCode::SUCCESS);
    publisher.publish(&topic, b"three", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.payload(), "three");
}

#[test]
fn storm_of_handshakes_without_a_lease_is_told_that_nobody_is_served() {
    let authority = Authority::new();
    let first = control(folder(&authority, "localhost"), 0);
    let at_edge = folder(&authority, "edge");
    authority.server(at_edge.path(), "door", "localhost");
    let door = "[listeners.mqtts]\ncertificate = \"door.pem\"\nkey = \"door.key\"\n";
    let edge = edge_with(at_edge, port(&first), door);
    let login = first.client(0);
    connect_until(&edge, &login, ReasonCode::SUCCESS);
    let _gone = first.kill();
    connect_until(&edge, &login, ReasonCode::SERVER_UNAVAILABLE);
    // While the process stands still the hellos gather: more than a turn takes itself.
    edge.signal("STOP");
    let storm: Vec<_> = (0..16)
        .map(|number| hello(&edge, &authority, "mqtts", number))
        .collect();
    edge.signal("CONT");
    for tls in storm {
        let (_, got) = Client::try_connect_over(tls, &login, &Options::default());
        let Got::ConnAck { code, .. } = got else {
            panic!("{got:?}");
        };
        assert_eq!(code, ReasonCode::SERVER_UNAVAILABLE);
    }
}

#[test]
fn connection_to_the_feed_that_says_nothing_makes_room_for_the_next() {
    let authority = Authority::new();
    let first = control(folder(&authority, "localhost"), 0);
    let silent: Vec<TcpStream> = (0..33)
        .map(|_| TcpStream::connect(("127.0.0.1", port(&first))).unwrap())
        .collect();
    let mut oldest = &silent[0];
    oldest
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    assert_eq!(oldest.read(&mut [0; 1]).unwrap(), 0);
    // A broker comes in beside the others.
    let edge = edge(folder(&authority, "edge"), port(&first));
    connect_until(&edge, &first.client(0), ReasonCode::SUCCESS);
}

#[test]
fn brokers_beyond_those_that_can_be_served_are_refused_until_one_leaves() {
    let authority = Authority::new();
    let first = control(folder(&authority, "localhost"), 0);
    let connect = |name: &str| {
        let shown = authority.client(name, None, 1);
        let config = Arc::new(config(&authority, Some(shown), BOTH));
        let place = format!("127.0.0.1:{}", port(&first));
        open(&place, &config, "localhost").unwrap()
    };
    // Whether the other side keeps a connection: one that is refused ends at once, with or without a
    // word.
    let is_kept = |stream: &mut Tls, patience: Duration| {
        stream.sock.set_read_timeout(Some(patience)).unwrap();
        match stream.read(&mut [0; 1]) {
            Ok(read) => read > 0,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    };
    let patience = Duration::from_millis(500);
    let mut served: Vec<Tls> = (0..256).map(|_| connect("broker")).collect();
    // On a busy machine the other side is behind: it may let go of handshakes that wait, and take
    // the surplus for one of them.
    let began = Instant::now();
    loop {
        let mut surplus = connect("broker");
        if !is_kept(&mut surplus, patience) {
            break;
        }
        served.push(surplus);
        assert!(began.elapsed() < WAIT, "nobody is refused");
    }
    let kept = served.iter_mut().rposition(|one| is_kept(one, patience));
    served.remove(kept.expect("somebody is served"));
    let began = Instant::now();
    while !is_kept(&mut connect("broker"), patience) {
        assert!(began.elapsed() < WAIT, "nobody comes in its place");
    }
}

#[test]
fn whoever_shows_no_certificate_of_the_authority_gets_no_feed() {
    let authority = Authority::new();
    let first = control(folder(&authority, "localhost"), 0);
    let stranger = Authority::new();
    let at_edge = folder(&stranger, "edge");
    std::fs::write(at_edge.path().join("ca.pem"), &authority.pem).unwrap();
    let edge = edge(at_edge, port(&first));
    let ready = |path: &Path| path.join("turnpike-data").join("node").exists();
    assert!(ready(edge.folder()), "the node has an id");
    // It answers nobody, even when another broker, which came later, is served already.
    let other = folder(&authority, "edge");
    let other = self::edge(other, port(&first));
    connect_until(&other, &first.client(0), ReasonCode::SUCCESS);
    let health = edge.health();
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    // Either half says what it was built from.
    let commit = match env!("BUILD_COMMIT") {
        "" => "unknown",
        commit => commit,
    };
    for health in [health, first.health()] {
        assert!(
            health.contains(&format!("\"commit\":\"{commit}\"")),
            "{health}"
        );
        assert!(health.contains("\"build_time\":\""), "{health}");
    }
}
