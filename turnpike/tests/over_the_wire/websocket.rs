//! MQTT in WebSocket messages.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use codec::mqtt::{ConnectProperties, ProtocolVersion, QoS};
use codec::ws::{Event, Head, Opcode, Receiver, ReceiverLimits, Role, unmask};

use crate::broker::Broker;
use crate::client::{Client, Got, Options, Stream, WAIT, tcp};

/// A client's end of a WebSocket: bytes in binary frames of `size` bytes at most.
pub(crate) struct WebSocket<S> {
    stream: S,
    receiver: Receiver,
    input: Vec<u8>,
    size: usize,
    /// Close code of the server.
    closed: Option<Option<u16>>,
    pub(crate) pongs: Vec<Vec<u8>>,
    /// Binary frames that came.
    pub(crate) frames: usize,
}

/// The head of the answer to a request for a WebSocket.
pub(crate) fn ask(stream: &mut impl Stream, path: &str, more: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

/// A client's frame.
pub(crate) fn masked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mask = [1, 2, 3, 4];
    let head = Head {
        fin,
        opcode,
        mask: Some(mask),
        payload_len: payload.len() as u64,
    };
    head.write(&mut bytes);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    unmask(&mut bytes[start..], mask, 0);
    bytes
}

pub(crate) const MQTT: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

impl<S: Stream> WebSocket<S> {
    pub(crate) fn open(mut stream: S, path: &str, more: &str) -> WebSocket<S> {
        let answer = ask(&mut stream, path, more);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let limits = ReceiverLimits {
            frame_bytes: u64::MAX,
            message_bytes: u64::MAX,
            fragments: u32::MAX,
        };
        WebSocket {
            stream,
            receiver: Receiver::new(Role::Client, limits),
            input: Vec::new(),
            size: usize::MAX,
            closed: None,
            pongs: Vec::new(),
            frames: 0,
        }
    }

    pub(crate) fn frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8]) {
        self.stream
            .write_all(&masked(fin, opcode, payload))
            .unwrap();
    }

    /// Reads until the server closes; its code.
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        while self.closed.is_none() {
            if self.read(&mut [0; 4096]).unwrap_or(0) == 0 {
                break;
            }
        }
        self.closed.flatten()
    }
}

impl<S: Stream> Write for WebSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.chunks(self.size) {
            self.frame(true, Opcode::Binary, piece);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Stream> Read for WebSocket<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.input.is_empty() {
                let mut more = vec![0; into.len().clamp(1, 1 << 16)];
                let taken = self.stream.read(&mut more)?;
                if taken == 0 {
                    return Ok(0);
                }
                self.input.extend_from_slice(&more[..taken]);
            }
            let (used, event) = self.receiver.next(&mut self.input).unwrap();
            let mut carried = Vec::new();
            match event {
                Some(Event::Data { range, text, end }) => {
                    assert!(!text, "MQTT travels in binary frames");
                    self.frames += usize::from(end);
                    carried = self.input[range].to_vec();
                }
                Some(Event::Pong) => self.pongs.push(self.receiver.control().to_vec()),
                Some(Event::Close(code)) => {
                    self.closed = Some(code.map(|code| code.get()));
                    return Ok(0);
                }
                Some(Event::Ping) | None => {}
            }
            self.input.drain(..used);
            if !carried.is_empty() {
                // What does not fit is put back as it was: unmasked and without a head, so a
                // small buffer is not for this.
                assert!(carried.len() <= into.len(), "a buffer for whole frames");
                into[..carried.len()].copy_from_slice(&carried);
                return Ok(carried.len());
            }
        }
    }
}

fn websocket(broker: &Broker) -> WebSocket<TcpStream> {
    WebSocket::open(tcp(broker.listener("ws")), "/mqtt", MQTT)
}

#[test]
fn both_paths_and_sub_protocols_carry_every_version_and_qos() {
    // [MQTT-6.0.0-1] [MQTT-6.0.0-4] [MQTT3-6.0.0-1] [MQTT3-6.0.0-4]
    let broker = Broker::start(&[]);
    let (up, down) = (broker.topic("up"), broker.topic("down"));
    for (path, protocol, version) in [
        ("/mqtt", "mqtt", ProtocolVersion::V5),
        ("/", "mqtt", ProtocolVersion::V311),
        ("/", "mqttv3.1", ProtocolVersion::V31),
    ] {
        let name = format!("ws-{}", protocol.len() + path.len());
        let options = Options {
            version,
            client_id: &name,
            ..Options::default()
        };
        let more = format!("Sec-WebSocket-Protocol: other, {protocol}\r\n");
        let mut stream = tcp(broker.listener("ws"));
        let answer = ask(&mut stream, path, &more);
        assert!(answer.contains(&format!("Sec-WebSocket-Protocol: {protocol}\r\n")));
        let stream = WebSocket::open(tcp(broker.listener("ws")), path, &more);
        let mut over_ws = Client::connect_over(stream, &broker.client(0), &options);
        let (mut over_tcp, _) =
            Client::connect(broker.address(), &broker.client(1), &Options::default());
        over_ws.subscribe(&down, QoS::AtLeastOnce);
        over_tcp.subscribe(&up, QoS::AtLeastOnce);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            over_tcp.publish(&down, b"down", qos, false);
            assert_eq!(over_ws.message().payload, b"down");
            over_ws.publish(&up, &[7; 3000], qos, false);
            assert_eq!(over_tcp.message().payload, [7; 3000]);
        }
    }
}

#[test]
fn packets_and_frames_need_not_be_aligned() {
    // [MQTT-6.0.0-2] [MQTT3-6.0.0-2]
    let broker = Broker::start(&[]);
    let topic = broker.topic("cut");
    for (size, version) in [
        (1, ProtocolVersion::V5),
        (3, ProtocolVersion::V311),
        (7, ProtocolVersion::V5),
    ] {
        let mut stream = websocket(&broker);
        stream.size = size;
        let options = Options {
            version,
            ..Options::default()
        };
        let mut client = Client::connect_over(stream, &broker.client(0), &options);
        client.subscribe(&topic, QoS::AtLeastOnce);
        client.publish(&topic, b"in small frames", QoS::AtMostOnce, false);
        assert_eq!(client.message().payload, b"in small frames");
    }
}

#[test]
fn ping_is_answered_between_the_fragments_of_a_message() {
    let broker = Broker::start(&[]);
    let mut stream = websocket(&broker);
    stream.frame(false, Opcode::Binary, &[0x10]);
    stream.frame(true, Opcode::Ping, b"are you there");
    stream.frame(true, Opcode::Close, &1000u16.to_be_bytes());
    assert_eq!(
        stream.close_code(),
        Some(1000),
        "a close is answered with its code"
    );
    assert_eq!(stream.pongs, [b"are you there"]);
}

#[test]
fn t_ws_1_and_2_frames_that_are_not_allowed_close_with_their_code() {
    // [MQTT-6.0.0-1] [MQTT3-6.0.0-1]
    let broker = Broker::start(&[]);
    let mut text = websocket(&broker);
    text.frame(true, Opcode::Text, b"hello");
    assert_eq!(text.close_code(), Some(1003));
    let mut stray = websocket(&broker);
    stray.frame(true, Opcode::Continuation, b"x");
    assert_eq!(stray.close_code(), Some(1002));
    let mut unmasked = websocket(&broker);
    unmasked.stream.write_all(&[0x82, 1, 0x10]).unwrap();
    assert_eq!(unmasked.close_code(), Some(1002));
    let mut huge = websocket(&broker);
    huge.stream
        .write_all(&[&[0x82, 0xFF][..], &(1u64 << 62).to_be_bytes(), &[0; 4]].concat())
        .unwrap();
    assert_eq!(huge.close_code(), Some(1009));
    let mut flood = websocket(&broker);
    for _ in 0..1000 {
        // The broker may be gone before all are written.
        if flood.stream.write_all(&[0x8A, 0x80, 0, 0, 0, 0]).is_err() {
            break;
        }
    }
    assert!(matches!(flood.close_code(), Some(1008) | None));
    // The last one's end may be seen before it is counted.
    let counted = || {
        broker
            .metrics()
            .contains("layer_faults_total{layer=\"websocket\"} 5")
    };
    let began = std::time::Instant::now();
    while !counted() {
        assert!(began.elapsed() < WAIT, "{}", broker.metrics());
    }
}

#[test]
fn t_ws_5_requests_that_ask_for_something_else_are_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::configured(
        folder,
        "[listeners.ws]\norigins = \"https://console.example, http://localhost:3000\"\n",
    );
    let status = |path: &str, more: &str| {
        let answer = ask(&mut tcp(broker.listener("ws")), path, more);
        answer[9..12].parse::<u16>().unwrap()
    };
    assert_eq!(status("/mqtt", ""), 400, "no sub-protocol");
    assert_eq!(status("/mqtt", "Sec-WebSocket-Protocol: amqp\r\n"), 400);
    assert_eq!(status("/other", MQTT), 404);
    let from = |origin: &str| format!("{MQTT}Origin: {origin}\r\n");
    assert_eq!(status("/mqtt", &from("https://evil.example")), 403);
    assert_eq!(status("/mqtt", &from("https://console.example")), 101);
    assert_eq!(status("/mqtt", &from("http://localhost:3000")), 101);
    assert_eq!(status("/mqtt", MQTT), 101, "no browser, no origin");
    assert_eq!(
        status("/mqtt", &format!("X: {}\r\n", "a".repeat(9000))),
        431
    );
}

#[test]
fn lost_websocket_sends_the_will_and_a_disconnect_does_not() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("will");
    let (mut watcher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    watcher.subscribe(&topic, QoS::AtLeastOnce);
    let will = codec::mqtt::Will {
        topic: &topic,
        payload: b"gone",
        delay: 0,
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Default::default(),
    };
    let options = Options {
        will: Some(will),
        ..Options::default()
    };
    drop(Client::connect_over(
        websocket(&broker),
        &broker.client(0),
        &options,
    ));
    assert_eq!(watcher.message().payload, b"gone");
}

#[test]
fn session_is_resumed_by_another_door() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("doors");
    let options = |clean_start| Options {
        client_id: "walks through doors",
        clean_start,
        properties: ConnectProperties {
            session_expiry: 300,
            ..ConnectProperties::default()
        },
        ..Options::default()
    };
    let (mut first, _) = Client::connect(broker.address(), &broker.client(0), &options(true));
    first.subscribe(&topic, QoS::AtLeastOnce);
    // The next connection takes over while the first is there.
    let mut second = Client::connect_over(websocket(&broker), &broker.client(0), &options(false));
    assert!(matches!(first.next(), Got::Disconnect(_)));
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    publisher.publish(&topic, b"through the other", QoS::AtLeastOnce, false);
    assert_eq!(second.message().payload, b"through the other");
}

#[test]
fn large_backlog_leaves_whole_through_a_websocket() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("large");
    let mut slow = Client::connect_over(websocket(&broker), &broker.client(0), &Options::default());
    slow.subscribe(&topic, QoS::AtLeastOnce);
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    let payload = vec![0xA5; 400_000];
    for _ in 0..40 {
        publisher.publish(&topic, &payload, QoS::AtLeastOnce, false);
    }
    for _ in 0..40 {
        assert_eq!(slow.message().payload, payload);
    }
}

#[test]
fn who_says_all_at_once_and_closes_is_served_and_closed() {
    // With the credentials known to the broker the connection moves to its session's home within
    // the turn that read its end as well.
    let broker = Broker::start(&[]);
    let credentials = broker.client(0);
    Client::connect(broker.address(), &credentials, &Options::default());
    for number in 0..8 {
        let mut stream = websocket(&broker);
        let name = format!("at once {number}");
        let mut connect = Vec::new();
        codec::mqtt::Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive: 0,
            client_id: &name,
            will: None,
            username: credentials.username.as_deref(),
            password: credentials.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties::default(),
        }
        .encode(ProtocolVersion::V5, &mut connect);
        let all = [
            masked(true, Opcode::Binary, &connect),
            masked(true, Opcode::Close, &1000u16.to_be_bytes()),
        ];
        stream.stream.write_all(&all.concat()).unwrap();
        assert_eq!(stream.close_code(), Some(1000));
        // The server ends the connection, not the client.
        let mut rest = Vec::new();
        assert!(stream.stream.read_to_end(&mut rest).is_ok());
    }
}
