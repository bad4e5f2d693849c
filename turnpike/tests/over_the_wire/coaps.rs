//! CoAP in DTLS.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::coap::{Code, Kind, Message, MessageId, OptionNumber, Token, Writer};
use codec::mqtt::QoS;
use dimpl::{Config, Dtls, Output, PskResolver};

use crate::broker::Broker;
use crate::client::{Client, Credentials, Options};

/// Longest wait for something that has to come.
const WAIT: Duration = Duration::from_secs(20);

struct Key(Vec<u8>);

impl PskResolver for Key {
    fn resolve(&self, _identity: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

/// One endpoint with a session.
struct Peer {
    socket: UdpSocket,
    dtls: Dtls,
    connected: bool,
    plain: Vec<Vec<u8>>,
    next: u16,
}

impl Peer {
    /// Shakes hands from `port`, 0 for any; `None` where the broker does not.
    fn from_port(broker: &Broker, login: &Credentials, port: u16) -> Option<Peer> {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        socket.connect(broker.listener("coaps")).unwrap();
        let step = Duration::from_millis(50);
        socket.set_read_timeout(Some(step)).unwrap();
        let identity = login.username.clone().unwrap().into_bytes();
        let key = Key(login.password.clone().unwrap().into_bytes());
        let config = Config::builder()
            .with_psk_client(identity, Arc::new(key))
            .flight_start_rto(Duration::from_millis(300))
            .handshake_timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let mut peer = Peer {
            socket,
            dtls: Dtls::new_12_psk(Arc::new(config), Instant::now()),
            connected: false,
            plain: Vec::new(),
            next: 0,
        };
        peer.dtls.set_active(true);
        let began = Instant::now();
        while !peer.connected {
            // A client that is refused hears nothing, or is told that it is.
            if !peer.turn() || began.elapsed() > WAIT {
                return None;
            }
        }
        Some(peer)
    }

    fn new(broker: &Broker, login: &Credentials) -> Peer {
        Peer::from_port(broker, login, 0).expect("hands are shaken")
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

    fn send(&mut self, code: Code, path: &str, observe: bool, payload: &[u8]) -> u16 {
        self.next += 1;
        let token = Token::new(&self.next.to_be_bytes()).unwrap();
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, Kind::Con, code, MessageId(self.next), token);
        if observe {
            writer = writer.option(OptionNumber::OBSERVE, b"");
        }
        for level in path.split('/') {
            writer = writer.option(OptionNumber::URI_PATH, level.as_bytes());
        }
        writer.payload(payload);
        self.dtls.send_application_data(&out).unwrap();
        self.next
    }

    /// The next message: its code and payload.
    fn next(&mut self) -> (Code, Vec<u8>) {
        let began = Instant::now();
        while self.plain.is_empty() {
            assert!(self.turn() && began.elapsed() < WAIT, "nothing came");
        }
        let datagram = self.plain.remove(0);
        let message = Message::parse(&datagram).unwrap();
        (message.code, message.payload.to_vec())
    }

    fn post(&mut self, path: &str, payload: &[u8]) -> Code {
        self.send(Code::POST, path, false, payload);
        self.next().0
    }
}

#[test]
fn client_with_its_secret_as_key_needs_no_credential_in_its_requests() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("sealed");
    let (mut mqtt, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    mqtt.subscribe(&topic, QoS::AtLeastOnce);
    let mut peers: Vec<Peer> = (0..4)
        .map(|_| Peer::new(&broker, &broker.client(0)))
        .collect();
    for peer in &mut peers {
        assert_eq!(peer.post(&topic, b"x"), Code::CHANGED);
        assert_eq!(mqtt.payload(), "x");
    }
    for peer in &mut peers {
        peer.send(Code::GET, &topic, true, b"");
        assert_eq!(peer.next(), (Code::CONTENT, Vec::new()));
    }
    let (mut other, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    other.publish(&topic, b"seen", QoS::AtLeastOnce, false);
    for peer in &mut peers {
        assert_eq!(peer.next(), (Code::CONTENT, b"seen".to_vec()));
    }
    let wrong = Credentials {
        password: Some("wrong".to_owned()),
        ..broker.client(0)
    };
    assert!(Peer::from_port(&broker, &wrong, 0).is_none());
    let unknown = Credentials {
        username: Some("nobody".to_owned()),
        ..broker.client(0)
    };
    assert!(Peer::from_port(&broker, &unknown, 0).is_none());
}

#[test]
fn peer_that_begins_anew_from_its_port_is_heard_once_it_shook_hands() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("anew");
    let mut first = Peer::new(&broker, &broker.client(0));
    first.send(Code::GET, &topic, true, b"");
    assert_eq!(first.next().0, Code::CONTENT);
    let port = first.socket.local_addr().unwrap().port();
    drop(first);
    let mut second = Peer::from_port(&broker, &broker.client(0), port).unwrap();
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
    assert!(Peer::from_port(&broker, &wrong, port).is_none());
    let mut third = Peer::from_port(&broker, &broker.client(0), port).unwrap();
    assert_eq!(third.post(&topic, b"3"), Code::CHANGED);
}

#[test]
fn session_of_a_client_that_is_disabled_says_403_and_a_new_one_is_not_made() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("disabled");
    let mut peer = Peer::new(&broker, &broker.client(0));
    peer.send(Code::GET, &topic, true, b"");
    assert_eq!(peer.next().0, Code::CONTENT);
    let id = broker.client(0).username.unwrap();
    broker.provision(&["client", "disable", "--domain", "demo", &id]);
    assert_eq!(peer.next().0, Code::FORBIDDEN, "the observation ends");
    assert_eq!(peer.post(&topic, b"x"), Code::FORBIDDEN);
    assert!(Peer::from_port(&broker, &broker.client(0), 0).is_none());
}
