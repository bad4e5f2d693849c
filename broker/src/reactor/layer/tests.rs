use std::io::{Read, Write};

use codec::ws::{Event, Head, Opcode, Receiver, ReceiverLimits, Role, put_frame};
use proptest::prelude::*;
use router::SlotId;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::config::{Listener, WebSocketOptions};
use crate::reactor::shakers::{Returns, Shakers, Step};
use crate::reactor::tls::TlsDoors;
use crate::reactor::{SHAKING_MAX, Waker};
use crate::shard::wires::Token;
use crate::tls::TlsOptions;

/// A door of every kind, and what its client trusts.
struct Doors {
    kinds: Vec<Arc<Door>>,
    trust: Arc<ClientConfig>,
}

fn doors() -> Doors {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Some(TlsOptions {
        certificates: vec![(chain, key)],
        ..TlsOptions::default()
    });
    let websocket = Some(WebSocketOptions::default());
    let mut all = TlsDoors::default();
    let mut kinds = Vec::new();
    for (tls, websocket, proxies) in [
        (None, websocket.clone(), vec![]),
        (tls.clone(), None, vec![]),
        (tls.clone(), websocket.clone(), vec![]),
        (
            tls,
            websocket,
            vec![crate::config::Network::parse("::/0").unwrap()],
        ),
    ] {
        let listener = Listener {
            tls,
            websocket,
            proxies,
            ..Listener::plain("test", ([127, 0, 0, 1], 0).into())
        };
        kinds.push(Arc::new(Door::open(&listener, 1 << 20, &mut all).unwrap()));
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::clone(made.cert.der())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trust = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Doors {
        kinds,
        trust: Arc::new(trust),
    }
}

/// The other end of a layer.
struct Client {
    tls: Option<ClientConnection>,
    websocket: Option<Receiver>,
    /// Plain bytes that were not looked at.
    plain: Vec<u8>,
    upgraded: bool,
    /// MQTT bytes that came.
    came: Vec<u8>,
}

impl Client {
    fn new(door: &Door, trust: &Arc<ClientConfig>) -> Client {
        let limits = ReceiverLimits {
            frame_bytes: u64::MAX,
            message_bytes: u64::MAX,
            fragments: u32::MAX,
        };
        Client {
            tls: door.tls.as_ref().map(|_| {
                let name = ServerName::try_from("localhost").unwrap();
                ClientConnection::new(Arc::clone(trust), name).unwrap()
            }),
            websocket: door
                .websocket
                .as_ref()
                .map(|_| Receiver::new(Role::Client, limits)),
            plain: Vec::new(),
            upgraded: false,
            came: Vec::new(),
        }
    }

    /// What of plain bytes goes onto the wire.
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let Some(tls) = &mut self.tls else {
            return plain.to_vec();
        };
        tls.writer().write_all(plain).unwrap();
        let mut wire = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// MQTT bytes as they leave.
    fn frame(&mut self, mqtt: &[u8]) -> Vec<u8> {
        if self.websocket.is_none() {
            return self.seal(mqtt);
        }
        let mask = Some([0; 4]);
        let mut framed = Vec::new();
        let head = Head {
            fin: true,
            opcode: Opcode::Binary,
            mask,
            payload_len: mqtt.len() as u64,
        };
        head.write(&mut framed);
        framed.extend_from_slice(mqtt);
        self.seal(&framed)
    }

    /// Takes bytes off the wire.
    fn take(&mut self, mut wire: &[u8]) {
        match &mut self.tls {
            None => self.plain.extend_from_slice(wire),
            Some(tls) => {
                while !wire.is_empty() {
                    tls.read_tls(&mut wire).unwrap();
                    tls.process_new_packets().unwrap();
                    // At the end of what is there it would block.
                    let _ = tls.reader().read_to_end(&mut self.plain);
                }
            }
        }
        let Some(websocket) = &mut self.websocket else {
            self.came.append(&mut self.plain);
            return;
        };
        if !self.upgraded {
            let head = self.plain.windows(4).position(|end| end == b"\r\n\r\n");
            let Some(end) = head else { return };
            assert!(self.plain.starts_with(b"HTTP/1.1 101 "));
            self.plain.drain(..end + 4);
            self.upgraded = true;
        }
        while !self.plain.is_empty() {
            let (used, event) = websocket.next(&mut self.plain).unwrap();
            if let Some(Event::Data { range, .. }) = event {
                self.came.extend_from_slice(&self.plain[range]);
            }
            self.plain.drain(..used);
        }
    }
}

const REQUEST: &[u8] =
    b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A layer and its client, with what the layer's machine was given.
struct Pair {
    layer: Box<Layer>,
    client: Client,
    scratch: Scratch,
    given: Vec<u8>,
    now: Now,
}

impl Pair {
    fn new(door: &Arc<Door>, trust: &Arc<ClientConfig>) -> Pair {
        Pair {
            layer: Layer::new(door).unwrap(),
            client: Client::new(door, trust),
            scratch: Scratch::default(),
            given: Vec::new(),
            now: Now::from_millis(1_000),
        }
    }

    /// The client's bytes arrive in pieces; the layer's own answers go back at once.
    fn deliver(&mut self, wire: &[u8], piece: usize) {
        for piece in wire.chunks(piece) {
            let mut input = piece.to_vec();
            let received = self.layer.receive(&mut input, &mut self.scratch, self.now);
            assert_eq!(received.over, None);
            self.given.extend_from_slice(match received.place {
                Place::Input(range) => &input[range],
                Place::Plain(range) => &self.scratch.plain[range],
                Place::Aside(range) => &self.scratch.aside[range],
            });
            let mut answers = Vec::new();
            self.layer.send_pending(|bytes| {
                answers.extend_from_slice(bytes);
                Sent::Taken(bytes.len())
            });
            self.client.take(&answers);
        }
    }

    /// Everything up to where MQTT begins.
    fn open(&mut self, piece: usize) {
        if self.layer.header.is_some() {
            self.deliver(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", piece);
        }
        while self
            .client
            .tls
            .as_ref()
            .is_some_and(|tls| tls.is_handshaking())
        {
            let hello = self.client.seal(b"");
            self.deliver(&hello, piece);
        }
        // The client is done before its last words are there.
        let last = self.client.seal(b"");
        self.deliver(&last, piece);
        if self.client.websocket.is_some() {
            let request = self.client.seal(REQUEST);
            self.deliver(&request, piece);
            assert!(self.client.upgraded);
        }
    }
}

#[test]
fn input_in_pieces_of_any_size_is_the_same_input() {
    let doors = doors();
    let mqtt: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
    for door in &doors.kinds {
        for piece in [1, 2, 3, 7, 100, usize::MAX] {
            let mut pair = Pair::new(door, &doors.trust);
            pair.open(piece);
            for some in [&mqtt[..1], &mqtt[1..50], &mqtt[50..]] {
                let wire = pair.client.frame(some);
                pair.deliver(&wire, piece);
            }
            assert_eq!(pair.given, mqtt, "by {piece}");
            assert!(!pair.layer.is_shaking_hands());
        }
    }
}

#[test]
fn what_is_behind_a_proxy_header_is_taken_elsewhere_and_the_header_counts() {
    let doors = doors();
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    for already in [0, 7, header.len() - 1] {
        let mut pair = Pair::new(&doors.kinds[3], &doors.trust);
        pair.deliver(&header[..already], usize::MAX);
        let hello = pair.client.seal(b"");
        assert!(pair.layer.depart(&header[already..]).is_none());
        assert!(!pair.layer.is_away());
        let work = pair.layer.depart(&[&header[already..], &hello].concat());
        assert_eq!(work.expect("a step").input, hello);
        assert!(pair.layer.is_away());
        assert_eq!(pair.layer.peer(), Some([192, 0, 2, 1].into()));
    }
}

#[test]
fn steps_of_connections_that_are_gone_do_not_gather() {
    let doors = doors();
    let returns = Returns::new(Arc::new(Waker::new().unwrap()));
    // Without a thread nothing is taken.
    let shakers = Shakers::start(0, 1).unwrap();
    let begin = || {
        let mut layer = Layer::new(&doors.kinds[1]).unwrap();
        let work = layer.depart(b"hello").expect("a step");
        let token = Token {
            slot: SlotId::new(1),
            generation: 1,
        };
        shakers.send(Step {
            token,
            work,
            returns: Arc::clone(&returns),
        });
        layer
    };
    let waits: Vec<_> = (0..10).map(|_| begin()).collect();
    for _ in 0..5 * SHAKING_MAX {
        drop(begin());
    }
    let waiting = shakers.waiting();
    assert!(
        (waits.len()..=2 * SHAKING_MAX).contains(&waiting),
        "{waiting}"
    );
}

#[test]
fn idle_layer_owns_no_buffer() {
    let doors = doors();
    for door in &doors.kinds {
        let mut pair = Pair::new(door, &doors.trust);
        pair.open(5);
        let wire = pair.client.frame(&[7; 20_000]);
        pair.deliver(&wire, 999);
        assert_eq!(pair.layer.pending.capacity(), 0);
        assert!(pair.layer.header.is_none());
        if let Some(tls) = &pair.layer.tls {
            assert_eq!(tls.kept(), 0);
        }
    }
}

#[test]
fn peer_that_takes_no_answers_is_given_up() {
    let doors = doors();
    for door in doors.kinds.iter().filter(|door| door.websocket.is_some()) {
        let mut pair = Pair::new(door, &doors.trust);
        pair.open(usize::MAX);
        let mut over = false;
        for second in 0..100 {
            pair.now = Now::from_millis(10_000 + second * 1_000);
            for _ in 0..90 {
                let mut ping = Vec::new();
                put_frame(Opcode::Ping, &[1; 120], &mut ping);
                // Masked with zeros.
                ping[1] |= 0x80;
                ping.splice(2..2, [0; 4]);
                let mut wire = pair.client.seal(&ping);
                over |= pair
                    .layer
                    .receive(&mut wire, &mut pair.scratch, pair.now)
                    .over
                    .is_some();
            }
            if over {
                break;
            }
        }
        assert!(over);
        assert!(pair.layer.pending.len() < 2 * ANSWERED_MAX);
    }
}

/// A socket that takes so much at a time, in turn; 0 is a full one.
fn sends(
    pair: &mut Pair,
    outgoing: &mut Outgoing,
    bytes: &[u8],
    room: &mut impl Iterator<Item = usize>,
) -> usize {
    let mut wire = Vec::new();
    let sent = pair.layer.send(bytes, outgoing, |bytes| {
        let taken = room.next().unwrap_or(usize::MAX).min(bytes.len());
        wire.extend_from_slice(&bytes[..taken]);
        Sent::Taken(taken)
    });
    pair.client.take(&wire);
    let Sent::Taken(taken) = sent else {
        panic!("the peer is there");
    };
    taken
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// What is not said to be taken is given again, as the shard's backlog does; nothing is lost,
    /// doubled or out of order, and once all is taken nothing is held back.
    #[test]
    fn output_arrives_once_and_in_order_however_little_the_socket_takes(
        sizes in prop::collection::vec(1usize..200_000, 1..5),
        room in prop::collection::vec(prop_oneof![0usize..3, 0usize..40_000], 0..60),
    ) {
        let doors = doors();
        let mut next = 0u8;
        let batches: Vec<Vec<u8>> = sizes
            .iter()
            .map(|size| {
                (0..*size).map(|_| { next = next.wrapping_add(1); next }).collect()
            })
            .collect();
        for door in &doors.kinds {
            let mut pair = Pair::new(door, &doors.trust);
            pair.open(usize::MAX);
            let mut outgoing = Outgoing::default();
            let mut room = room.iter().copied();
            let mut waiting = Vec::new();
            for batch in &batches {
                waiting.extend_from_slice(batch);
                // Once for the flush, and twice when the wire takes bytes again.
                for _ in 0..3 {
                    if waiting.is_empty() {
                        break;
                    }
                    let taken = sends(&mut pair, &mut outgoing, &waiting, &mut room);
                    waiting.drain(..taken);
                }
            }
            while !waiting.is_empty() {
                let taken = sends(&mut pair, &mut outgoing, &waiting, &mut room);
                waiting.drain(..taken);
            }
            prop_assert!(!pair.layer.has_pending(), "the last byte is told when it is out");
            prop_assert!(pair.client.came == batches.concat());
        }
    }
}
