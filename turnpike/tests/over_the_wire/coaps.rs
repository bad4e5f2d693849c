//! CoAP in DTLS.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::coap::Code;
use codec::mqtt::{QoS, ReasonCode};
use dimpl::{Config, ConfigBuilder, Dtls, DtlsCertificate, Output, PskResolver};

use crate::broker::Broker;
use crate::client::{Client, Credentials, Got, Options};
use crate::coap::{Datagrams, Peer};
use crate::tls::{Authority, Shown};

/// Longest wait for something that has to come.
const WAIT: Duration = Duration::from_secs(20);

struct Key(Vec<u8>);

impl PskResolver for Key {
    fn resolve(&self, _identity: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

/// A session of DTLS over a socket.
pub(crate) struct Session {
    socket: UdpSocket,
    dtls: Dtls,
    connected: bool,
    /// The certificate that the broker showed.
    pub(crate) shown: Vec<u8>,
    plain: Vec<Vec<u8>>,
}

impl Session {
    /// Shakes hands from `port`, 0 for any; `None` where the broker does not.
    fn from_port(broker: &Broker, login: &Credentials, port: u16) -> Option<Session> {
        let identity = login.username.clone().unwrap().into_bytes();
        let key = Key(login.password.clone().unwrap().into_bytes());
        let config = patient().with_psk_client(identity, Arc::new(key));
        let config = Arc::new(config.build().unwrap());
        Session::shake(broker, port, Dtls::new_12_psk(config, Instant::now()))
    }

    /// Shakes hands with a certificate; `None` where the broker does not.
    pub(crate) fn certified(broker: &Broker, (certificate, key): Shown) -> Option<Session> {
        let shown = DtlsCertificate {
            certificate: certificate.to_vec(),
            private_key: key.secret_der().to_vec(),
        };
        let config = Arc::new(patient().build().unwrap());
        Session::shake(broker, 0, Dtls::new_12(config, shown, Instant::now()))
    }

    fn shake(broker: &Broker, port: u16, dtls: Dtls) -> Option<Session> {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        socket.connect(broker.listener("coaps")).unwrap();
        let step = Duration::from_millis(50);
        socket.set_read_timeout(Some(step)).unwrap();
        let mut session = Session {
            socket,
            dtls,
            connected: false,
            shown: Vec::new(),
            plain: Vec::new(),
        };
        session.dtls.set_active(true);
        let began = Instant::now();
        while !session.connected {
            // A client that is refused hears nothing, or is told that it is.
            if !session.turn() || began.elapsed() > WAIT {
                return None;
            }
        }
        Some(session)
    }

    /// Shakes hands from any port.
    pub(crate) fn new(broker: &Broker, login: &Credentials) -> Session {
        Session::from_port(broker, login, 0).expect("hands are shaken")
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// Sends what is to be sent and takes what comes within 50 ms; whether the session lives.
    fn turn(&mut self) -> bool {
        if self.dtls.handle_timeout(Instant::now()).is_err() {
            return false;
        }
        let mut buffer = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => drop(self.socket.send(packet)),
                Output::Connected => self.connected = true,
                Output::ApplicationData(data) => self.plain.push(data.to_vec()),
                Output::PeerCert(leaf) => self.shown = leaf.to_vec(),
                Output::CloseNotify => return false,
                Output::Timeout(_) => break,
                _ => {}
            }
        }
        match self.socket.recv(&mut buffer) {
            Ok(len) => self.dtls.handle_packet(&buffer[..len]).is_ok(),
            Err(_) => true,
        }
    }
}

impl Datagrams for Session {
    fn send(&mut self, datagram: &[u8]) {
        self.dtls.send_application_data(datagram).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let began = Instant::now();
        while self.plain.is_empty() {
            assert!(self.turn() && began.elapsed() < WAIT, "nothing came");
        }
        self.plain.remove(0)
    }
}

/// For a broker that is busy with other tests.
fn patient() -> ConfigBuilder {
    Config::builder()
        .flight_start_rto(Duration::from_millis(300))
        .handshake_timeout(Duration::from_secs(5))
}

fn peer(broker: &Broker, number: usize) -> Peer {
    Peer::over(Session::new(broker, &broker.client(number)))
}

#[test]
fn client_with_its_secret_as_key_needs_no_credential_in_its_requests() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("sealed");
    let (mut mqtt, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    mqtt.subscribe(&topic, QoS::AtLeastOnce);
    let mut peers: Vec<Peer> = (0..4).map(|_| peer(&broker, 0)).collect();
    for peer in &mut peers {
        assert_eq!(peer.post(&topic, b"x"), Code::CHANGED);
        assert_eq!(mqtt.payload(), "x");
    }
    for peer in &mut peers {
        let first = peer.observe(&topic);
        assert_eq!((first.code, first.payload), (Code::CONTENT, Vec::new()));
    }
    let (mut other, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    other.publish(&topic, b"seen", QoS::AtLeastOnce, false);
    for peer in &mut peers {
        let seen = peer.next();
        assert_eq!((seen.code, seen.payload), (Code::CONTENT, b"seen".to_vec()));
    }
    let wrong = Credentials {
        password: Some("wrong".to_owned()),
        ..broker.client(0)
    };
    assert!(Session::from_port(&broker, &wrong, 0).is_none());
    let unknown = Credentials {
        username: Some("nobody".to_owned()),
        ..broker.client(0)
    };
    assert!(Session::from_port(&broker, &unknown, 0).is_none());
}

#[test]
fn peer_that_begins_anew_from_its_port_is_heard_once_it_shook_hands() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("anew");
    let session = Session::new(&broker, &broker.client(0));
    let port = session.port();
    let mut first = Peer::over(session);
    assert_eq!(first.observe(&topic).code, Code::CONTENT);
    drop(first);
    let from_there = || Session::from_port(&broker, &broker.client(0), port);
    let mut second = Peer::over(from_there().unwrap());
    assert_eq!(second.post(&topic, b"1"), Code::CHANGED);
    assert_eq!(
        second.post(&topic, b"2"),
        Code::CHANGED,
        "and observes nothing"
    );
    drop(second);
    let wrong = Credentials {
        password: Some("wrong".to_owned()),
        ..broker.client(0)
    };
    assert!(Session::from_port(&broker, &wrong, port).is_none());
    let mut third = Peer::over(from_there().unwrap());
    assert_eq!(third.post(&topic, b"3"), Code::CHANGED);
}

#[test]
fn session_of_a_client_that_is_disabled_says_403_and_a_new_one_is_not_made() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("disabled");
    let mut peer = peer(&broker, 0);
    assert_eq!(peer.observe(&topic).code, Code::CONTENT);
    let id = broker.client(0).username.unwrap();
    broker.provision(&["client", "disable", "--domain", "demo", &id]);
    assert_eq!(peer.next().code, Code::FORBIDDEN, "the observation ends");
    assert_eq!(peer.post(&topic, b"x"), Code::FORBIDDEN);
    assert!(Session::from_port(&broker, &broker.client(0), 0).is_none());
}

#[test]
fn new_certificates_are_shown_to_new_sessions_and_old_ones_stay() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    let files = "certificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n";
    let broker = Broker::configured(
        folder,
        &format!("[listeners.coaps]\n{files}identity = true\n"),
    );
    let id = broker.client(0).username.unwrap();
    let topic = broker.topic("renewed");
    let come = |serial| Session::certified(&broker, authority.client(&id, None, serial)).unwrap();
    let session = come(1);
    let old = session.shown.clone();
    let mut peer = Peer::over(session);
    assert_eq!(peer.post(&topic, b"x"), Code::CHANGED);
    // Files that are wrong leave everything as it is.
    fs::write(broker.folder().join("server.key"), "no key").unwrap();
    broker.signal("HUP");
    assert_eq!(peer.post(&topic, b"x"), Code::CHANGED);
    assert!(!old.is_empty() && come(2).shown == old);
    authority.server(broker.folder(), "server", "localhost");
    broker.signal("HUP");
    // The signal is taken some time after it was sent.
    while come(3).shown == old {
        std::thread::yield_now();
    }
    assert_eq!(
        peer.post(&topic, b"x"),
        Code::CHANGED,
        "the old session lives"
    );
}

#[test]
fn wrong_keys_spend_the_budget_of_failed_logins() {
    let broker = Broker::start(&[]);
    let wrong = Credentials {
        password: Some("wrong".to_owned()),
        ..broker.client(0)
    };
    // They fail side by side, as each takes a while to give up.
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert!(Session::from_port(&broker, &wrong, 0).is_none()));
        }
    });
    assert!(Session::from_port(&broker, &broker.client(0), 0).is_none());
    let (_, got) = Client::try_connect(broker.address(), &broker.client(0), &Options::default());
    let Got::ConnAck { code, .. } = got else {
        panic!("{got:?}");
    };
    assert_eq!(code, ReasonCode::CONNECTION_RATE_EXCEEDED);
    // Nobody else is.
    assert!(Session::from_port(&broker, &broker.client(1), 0).is_some());
}
