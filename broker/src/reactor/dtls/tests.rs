//! Handshakes with a client of the same library, in memory.

use std::collections::VecDeque;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;

/// What a client knows.
struct Known(&'static [u8]);

impl PskResolver for Known {
    fn resolve(&self, _identity: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.to_vec())
    }
}

struct Pair {
    door: DtlsDoor,
    client: Dtls,
    server: Option<Secure>,
    now: Instant,
    /// Keys that the server's side is told.
    keys: Vec<(Vec<u8>, Vec<u8>)>,
    /// Identities that were asked for, and those whose key was wrong.
    asked: Vec<Vec<u8>>,
    wrong: Vec<Vec<u8>>,
    connected: bool,
    /// Plain datagrams that came to each side.
    to_client: Vec<Vec<u8>>,
    to_server: Vec<Vec<u8>>,
    over: bool,
    datagrams: usize,
}

impl Pair {
    fn new(door: DtlsDoor, mut client: Dtls, now: Instant) -> Pair {
        client.set_active(true);
        Pair {
            door,
            client,
            server: None,
            now,
            keys: Vec::new(),
            asked: Vec::new(),
            wrong: Vec::new(),
            connected: false,
            to_client: Vec::new(),
            to_server: Vec::new(),
            over: false,
            datagrams: 0,
        }
    }

    fn psk(key: &'static [u8]) -> Pair {
        let now = Instant::now();
        let config = Config::builder().with_psk_client(b"me".to_vec(), Arc::new(Known(key)));
        let client = Dtls::new_12_psk(Arc::new(config.build().unwrap()), now);
        let mut pair = Pair::new(DtlsDoor::new(Arc::default()).unwrap(), client, now);
        pair.keys.push((b"me".to_vec(), b"secret".to_vec()));
        pair
    }

    /// Moves datagrams and time until nothing more happens.
    fn run(&mut self) {
        for _ in 0..60 {
            let _ = self.client.handle_timeout(self.now);
            self.exchange();
            self.now += Duration::from_millis(500);
            if let Some(server) = &mut self.server {
                let mut sent = VecDeque::new();
                let timed = server.timeout(self.now, &mut |bytes| {
                    sent.push_back(bytes.to_vec());
                });
                if timed.is_err() {
                    self.over = true;
                    self.server = None;
                }
                self.client_takes(sent);
            }
        }
    }

    fn exchange(&mut self) {
        let mut buffer = vec![0; 4096];
        loop {
            let mut up = None;
            match self.client.poll_output(&mut buffer) {
                Output::Packet(packet) => up = Some(packet.to_vec()),
                Output::Connected => self.connected = true,
                Output::ApplicationData(data) => self.to_client.push(data.to_vec()),
                Output::Timeout(_) => return,
                _ => {}
            }
            if let Some(packet) = up {
                self.server_takes(&packet);
            }
        }
    }

    fn server_takes(&mut self, packet: &[u8]) {
        self.datagrams += 1;
        if self.server.is_none() && !self.over {
            self.server = Secure::new(&self.door, packet, self.now);
        }
        let Some(server) = &mut self.server else {
            return;
        };
        let mut sent = VecDeque::new();
        let mut send = |bytes: &[u8]| sent.push_back(bytes.to_vec());
        let plain = &mut self.to_server;
        let told = server.datagram(&self.door, packet, self.now, plain, &mut send);
        let told = match told {
            Ok(Told::Key(identity)) => {
                let key = self.keys.iter().find(|(known, _)| *known == identity);
                let key = key.map(|(_, key)| key.clone());
                self.asked.push(identity);
                server.key(&self.door, key, self.now, plain, &mut send)
            }
            Ok(Told::Done) => Ok(()),
            Err(over) => Err(over),
        };
        self.wrong
            .extend(server.take_wrong_key().map(<[u8]>::to_vec));
        if told.is_err() {
            self.over = true;
            self.server = None;
        }
        self.client_takes(sent);
    }

    fn client_takes(&mut self, sent: VecDeque<Vec<u8>>) {
        for packet in sent {
            let _ = self.client.handle_packet(&packet);
        }
    }

    fn is_open(&self) -> bool {
        self.server.as_ref().is_some_and(Secure::is_open)
    }
}

#[test]
fn client_that_knows_its_secret_is_who_it_says_and_datagrams_pass_sealed() {
    let mut pair = Pair::psk(b"secret");
    pair.run();
    assert!(pair.connected && pair.is_open());
    assert_eq!((pair.asked.len(), pair.wrong.len()), (1, 0));
    let server = pair.server.as_mut().unwrap();
    assert_eq!(server.identity(), Some(("me", "secret")));
    let mut sent = VecDeque::new();
    let block = [7; 1100];
    server
        .seal(&block, &mut |bytes| sent.push_back(bytes.to_vec()))
        .unwrap();
    assert_eq!(sent.len(), 1, "a block is one datagram");
    pair.client_takes(sent);
    pair.client.send_application_data(b"to the server").unwrap();
    pair.run();
    assert_eq!(pair.to_client, [block]);
    assert_eq!(pair.to_server, [b"to the server"]);
}

#[test]
fn wrong_key_and_unknown_identity_end_the_same_without_a_session() {
    for keys in [vec![], vec![(b"me".to_vec(), b"other".to_vec())]] {
        let mut pair = Pair::psk(b"secret");
        let known = keys.len();
        pair.keys = keys;
        pair.run();
        assert_eq!(pair.wrong.len(), known, "a wrong key is told once");
        assert!(!pair.connected && !pair.is_open());
        assert_eq!(pair.asked.first().map(Vec::as_slice), Some(&b"me"[..]));
        let identity = pair.server.as_ref().and_then(Secure::identity);
        assert_eq!(identity, None);
    }
}

#[test]
fn nothing_is_remembered_of_who_sends_no_hello() {
    let door = DtlsDoor::new(Arc::default()).unwrap();
    let now = Instant::now();
    for datagram in [&b"\x40\x01\x00\x01"[..], b"", &[22; 13], &[22; 200]] {
        assert!(Secure::new(&door, datagram, now).is_none());
    }
}

/// An authority, and the name and certificate of somebody whom it signed.
fn signed(name: &str) -> (Vec<u8>, DtlsCertificate) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let pair = DtlsCertificate {
        certificate: leaf.der().to_vec(),
        private_key: key.serialize_der(),
    };
    (authority.der().to_vec(), pair)
}

/// The id of a client.
const CLIENT: &str = "0199e0a8-0000-7000-8000-000000000001";

fn certified(verify: Option<Arc<Verify>>, required: bool, identifies: bool) -> Pair {
    let (_, own) = signed("server");
    let (_, of_client) = signed(CLIENT);
    let with = Certificates::new(own, verify, required, identifies).unwrap();
    let door = DtlsDoor::new(Arc::new(ArcSwapOption::from_pointee(with)));
    let now = Instant::now();
    let config = Arc::new(Config::builder().build().unwrap());
    let mut pair = Pair::new(door.unwrap(), Dtls::new_12(config, of_client, now), now);
    pair.run();
    pair
}

#[test]
fn certificate_says_who_the_peer_is_where_the_listener_takes_it_for_that() {
    let believe: Arc<Verify> = Arc::new(|leaf| {
        let leaf = rustls::pki_types::CertificateDer::from(leaf.to_vec());
        crate::tls::shown_in(&leaf)
    });
    let pair = certified(Some(Arc::clone(&believe)), true, true);
    assert!(pair.connected && pair.is_open());
    let server = pair.server.as_ref().unwrap();
    let named = server.certificate().and_then(|shown| shown.named);
    assert_eq!(named, authcache::EntityId::from_text(CLIENT));
    let admitted = certified(Some(believe), true, false);
    assert_eq!(admitted.server.as_ref().unwrap().certificate(), None);
    let disbelieved = certified(Some(Arc::new(|_| None)), true, true);
    assert!(disbelieved.over && !disbelieved.is_open());
    let unasked = certified(None, false, false);
    assert!(unasked.is_open());
}
