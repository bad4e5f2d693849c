//! WebSockets on a channel.

use std::io::Write;
use std::net::TcpStream;

use codec::mqtt::QoS;
use codec::ws::{Event, Opcode, Receiver, ReceiverLimits, Role};

use crate::broker::Broker;
use crate::client::{Client, Options, Stream, tcp};
use crate::http::authorization;
use crate::websocket::{ask, masked};

/// A channel socket of a test.
pub(crate) struct Socket<S = TcpStream> {
    stream: S,
    receiver: Receiver,
    input: Vec<u8>,
}

/// What came.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Came {
    Text(String),
    Binary(Vec<u8>),
    Pong,
    Closed(Option<u16>),
}

impl<S: Stream> Socket<S> {
    pub(crate) fn open(mut stream: S, path: &str, more: &str) -> Socket<S> {
        let answer = ask(&mut stream, path, more);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let limits = ReceiverLimits {
            frame_bytes: u64::MAX,
            message_bytes: u64::MAX,
            fragments: u32::MAX,
        };
        Socket {
            stream,
            receiver: Receiver::new(Role::Client, limits),
            input: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.stream
            .write_all(&masked(true, opcode, payload))
            .unwrap();
    }

    pub(crate) fn next(&mut self) -> Came {
        let mut message = Vec::new();
        loop {
            while !self.input.is_empty() {
                let (used, event) = self.receiver.next(&mut self.input).unwrap();
                let mut came = None;
                match event {
                    Some(Event::Data { range, text, end }) => {
                        message.extend_from_slice(&self.input[range]);
                        let message = end.then(|| std::mem::take(&mut message));
                        came = message.map(|message| {
                            if text {
                                Came::Text(String::from_utf8(message).unwrap())
                            } else {
                                Came::Binary(message)
                            }
                        });
                    }
                    Some(Event::Close(code)) => {
                        came = Some(Came::Closed(code.map(|code| code.get())));
                    }
                    Some(Event::Pong) => came = Some(Came::Pong),
                    Some(Event::Ping) | None => {}
                }
                self.input.drain(..used);
                if let Some(came) = came {
                    return came;
                }
            }
            let mut more = vec![0; 1 << 16];
            match self.stream.read(&mut more) {
                Ok(0) | Err(_) => return Came::Closed(None),
                Ok(taken) => self.input.extend_from_slice(&more[..taken]),
            }
        }
    }
}

fn socket(broker: &Broker, number: usize, path: &str) -> Socket {
    let more = authorization(broker, number);
    Socket::open(tcp(broker.listener("ws")), path, &more)
}

fn status(broker: &Broker, path: &str, more: &str) -> u16 {
    let answer = ask(&mut tcp(broker.listener("ws")), path, more);
    answer[9..12].parse().unwrap()
}

fn text(text: &str) -> Came {
    Came::Text(text.to_owned())
}

#[test]
fn messages_pass_between_sockets_and_mqtt_clients() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("room");
    let (mut mqtt, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    mqtt.subscribe(&topic, QoS::AtLeastOnce);
    let mut one = socket(&broker, 0, &format!("/{topic}"));
    let mut two = socket(&broker, 1, "/m/demo/c/demo/room/");
    one.send(Opcode::Text, b"from one");
    assert_eq!(
        two.next(),
        text("from one"),
        "what is sent goes to the others only"
    );
    assert_eq!(mqtt.message().payload, b"from one");
    two.send(Opcode::Binary, &[0, 159, 146, 150]);
    assert_eq!(one.next(), Came::Binary(vec![0, 159, 146, 150]));
    assert_eq!(mqtt.message().payload, [0, 159, 146, 150]);
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(0), &Options::default());
    publisher.publish(&topic, b"{\"t\":1}", QoS::AtMostOnce, false);
    assert_eq!(one.next(), text("{\"t\":1}"));
    assert_eq!(two.next(), text("{\"t\":1}"));
    publisher.publish(
        &broker.topic("other"),
        b"elsewhere",
        QoS::AtLeastOnce,
        false,
    );
    publisher.publish(&topic, &vec![b'x'; 300_000], QoS::AtLeastOnce, false);
    assert_eq!(one.next(), text(&"x".repeat(300_000)));
    // A message in fragments with a ping between them is one message.
    let pieces = [
        masked(false, Opcode::Text, b"in "),
        masked(true, Opcode::Ping, b""),
        masked(true, Opcode::Continuation, b"pieces"),
    ];
    one.stream.write_all(&pieces.concat()).unwrap();
    assert_eq!(two.next(), text(&"x".repeat(300_000)));
    assert_eq!(two.next(), text("in pieces"));
    assert_eq!(one.next(), Came::Pong);
    one.send(Opcode::Close, &1000u16.to_be_bytes());
    assert_eq!(one.next(), Came::Closed(Some(1000)));
}

#[test]
fn retained_message_comes_first_and_wildcards_match() {
    let broker = Broker::start(&[]);
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(0), &Options::default());
    publisher.publish(&broker.topic("t/kept"), b"kept", QoS::AtLeastOnce, true);
    for path in ["t/kept", "t/+", "%23"] {
        let mut socket = socket(&broker, 1, &format!("/{}", broker.topic(path)));
        assert_eq!(socket.next(), text("kept"), "{path}");
        publisher.publish(&broker.topic("t/kept"), b"live", QoS::AtLeastOnce, false);
        assert_eq!(socket.next(), text("live"), "{path}");
        if path != "t/kept" {
            socket.send(Opcode::Text, b"to where?");
            assert_eq!(socket.next(), Came::Closed(Some(1008)));
        }
    }
    let binary = format!("/{}?format=binary", broker.topic("t/kept"));
    let mut socket = socket(&broker, 1, &binary);
    assert_eq!(socket.next(), Came::Binary(b"kept".to_vec()));
}

#[test]
fn every_form_of_credential_opens_a_socket_and_wrong_ones_do_not() {
    let broker = Broker::start(&[]);
    let path = format!("/{}", broker.topic("auth"));
    let client = broker.client(0);
    let (id, secret) = (client.username.unwrap(), client.password.unwrap());
    // Base64 of id and secret, by hand: no crate for one line.
    let basic = base64(format!("{id}:{secret}").as_bytes());
    let header = |value: &str| format!("Authorization: {value}\r\n");
    let good = [
        (String::new(), header(&format!("Client {secret}"))),
        (String::new(), header(&secret)),
        (String::new(), header(&format!("Basic {basic}"))),
        (String::new(), header(&format!("Bearer {}", broker.token()))),
        (format!("?authorization={secret}"), String::new()),
        (format!("?authorization=Client%20{secret}"), String::new()),
        (
            format!("?x=y&authorization=Bearer+{}", broker.token()),
            String::new(),
        ),
    ];
    for (query, more) in &good {
        assert_eq!(
            status(&broker, &format!("{path}{query}"), more),
            101,
            "{query}{more}"
        );
    }
    let wrong = base64(format!("{id}:wrong").as_bytes());
    for (more, expected) in [
        (String::new(), 401),
        (header("Client wrong"), 401),
        (header(&format!("Basic {wrong}")), 401),
        (header(&format!("Bearer {}", broker.refresh_token())), 401),
    ] {
        assert_eq!(status(&broker, &path, &more), expected, "{more}");
    }
    let authorized = authorization(&broker, 0);
    assert_eq!(status(&broker, "/m/demo/c/", &authorized), 400);
    assert_eq!(status(&broker, "/m/demo/c/demo/a/+b", &authorized), 400);
    assert_eq!(status(&broker, "/m/demo/c/none", &authorized), 403);
    assert_eq!(status(&broker, "/elsewhere", &authorized), 404);
    let more = format!("{authorized}Sec-WebSocket-Protocol: chat\r\n");
    assert_eq!(status(&broker, &path, &more), 400);
}

/// Base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, at: u32| char::from(alphabet[(group >> (18 - 6 * at) & 63) as usize]);
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let group = chunk.iter().enumerate().fold(0u32, |group, (at, byte)| {
                group | u32::from(*byte) << (16 - 8 * at)
            });
            (0..4u32).map(move |at| {
                if at as usize <= chunk.len() {
                    digit(group, at)
                } else {
                    '='
                }
            })
        })
        .collect()
}

#[test]
fn revoked_socket_is_silent_at_once_and_closed_1008() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("revoked");
    let mut socket = socket(&broker, 0, &format!("/{topic}"));
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    publisher.publish(&topic, b"before", QoS::AtLeastOnce, false);
    assert_eq!(socket.next(), text("before"));
    let id = broker.client(0).username.unwrap();
    let (domain, channel) = ("demo", broker.channel().to_owned());
    let connection = ["--domain", domain, "--client", &id, "--channel", &channel];
    broker.provision(&[&["disconnect"][..], &connection, &["--type", "subscribe"]].concat());
    publisher.publish(&topic, b"after", QoS::AtLeastOnce, false);
    assert_eq!(socket.next(), Came::Closed(Some(1008)));
    assert_eq!(
        status(&broker, &format!("/{topic}"), &authorization(&broker, 0)),
        403
    );
}

#[test]
fn socket_without_the_right_to_publish_is_closed_when_it_tries() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("mute");
    let id = broker.client(0).username.unwrap();
    let channel = broker.channel().to_owned();
    let connection = ["--domain", "demo", "--client", &id, "--channel", &channel];
    broker.provision(&[&["disconnect"][..], &connection, &["--type", "publish"]].concat());
    let mut socket = socket(&broker, 0, &format!("/{topic}"));
    socket.send(Opcode::Text, b"hello");
    assert_eq!(socket.next(), Came::Closed(Some(1008)));
    let more = format!(
        "{}Sec-WebSocket-Protocol: turnpike.json.v1\r\n",
        authorization(&broker, 0)
    );
    let mut envelopes = Socket::open(tcp(broker.listener("ws")), &format!("/{topic}"), &more);
    envelopes.send(Opcode::Text, br#"{"payload":"hello","id":1}"#);
    let Came::Text(answer) = envelopes.next() else {
        panic!("no answer");
    };
    assert!(answer.contains(r#""code":135"#), "{answer}");
}

#[test]
fn envelopes_have_topics_both_ways() {
    let broker = Broker::start(&[]);
    let more = format!(
        "{}Sec-WebSocket-Protocol: turnpike.json.v1\r\n",
        authorization(&broker, 0)
    );
    let path = format!("/{}", broker.topic("%23"));
    let mut socket = Socket::open(tcp(broker.listener("ws")), &path, &more);
    let (mut mqtt, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    mqtt.subscribe(&broker.topic("#"), QoS::AtLeastOnce);
    let topic = broker.topic("a/b");
    let envelope = format!(r#"{{"topic":"{topic}","payload":{{"t":21}},"id":"x"}}"#);
    socket.send(Opcode::Text, envelope.as_bytes());
    assert_eq!(socket.next(), text(r#"{"code":0,"id":"x"}"#));
    let got = mqtt.message();
    assert_eq!(
        (got.topic, got.payload),
        (topic.clone(), br#"{"t":21}"#.to_vec())
    );
    mqtt.subscribe(&broker.topic("none"), QoS::AtMostOnce);
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    publisher.publish(&topic, b"hi", QoS::AtLeastOnce, false);
    let expected = format!(r#"{{"payload":"hi","topic":"{topic}"}}"#);
    assert_eq!(socket.next(), text(&expected));
    socket.send(Opcode::Text, b"no envelope");
    assert_eq!(socket.next(), Came::Closed(Some(1007)));
}

#[test]
fn slow_socket_is_closed_1013_where_the_listener_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::configured(
        folder,
        "[listeners.ws]\nslow_consumer = \"close\"\n[limits]\noutbound_queue_bytes = \"64KiB\"\n",
    );
    let topic = broker.topic("slow");
    let mut socket = socket(&broker, 0, &format!("/{topic}"));
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    // More than the sockets' buffers take, and nobody reads.
    for _ in 0..400 {
        publisher.publish(&topic, &[b'x'; 50_000], QoS::AtLeastOnce, false);
    }
    let end =
        std::iter::from_fn(|| Some(socket.next())).find(|came| matches!(came, Came::Closed(_)));
    // The code comes if the socket still takes it.
    assert!(
        matches!(end, Some(Came::Closed(Some(1013) | None))),
        "{end:?}"
    );
    assert!(broker.metrics().contains("reason=\"slow_qos0\"}"));
}
