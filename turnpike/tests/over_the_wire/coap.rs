//! CoAP over UDP.

use std::net::UdpSocket;
use std::time::Duration;

use codec::coap::{Block, Code, Kind, Message, MessageId, OptionNumber, Token, Writer};
use codec::mqtt::QoS;

use crate::broker::Broker;
use crate::client::{Client, Credentials, Options};

/// Longest wait for a datagram that has to come.
const WAIT: Duration = Duration::from_secs(20);

/// Carries datagrams both ways, in the clear or sealed.
pub(crate) trait Datagrams {
    fn send(&mut self, datagram: &[u8]);

    /// The next one; it has to come.
    fn receive(&mut self) -> Vec<u8>;
}

impl Datagrams for UdpSocket {
    fn send(&mut self, datagram: &[u8]) {
        UdpSocket::send(self, datagram).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let len = self.recv(&mut buffer).expect("a datagram comes");
        buffer[..len].to_vec()
    }
}

/// One endpoint.
pub(crate) struct Peer {
    datagrams: Box<dyn Datagrams>,
    next: u16,
    /// What came while something else was awaited.
    waiting: Vec<Came>,
}

/// A message that came.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) kind: Kind,
    pub(crate) code: Code,
    id: MessageId,
    token: Vec<u8>,
    pub(crate) observe: Option<u32>,
    pub(crate) format: Option<u32>,
    block: Option<Block>,
    pub(crate) payload: Vec<u8>,
}

/// Further options of a request.
pub(crate) type More<'a> = &'a [(OptionNumber, &'a [u8])];

impl Peer {
    pub(crate) fn new(broker: &Broker) -> Peer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket.connect(broker.listener("coap")).unwrap();
        Peer::over(socket)
    }

    /// Over whatever carries datagrams.
    pub(crate) fn over(datagrams: impl Datagrams + 'static) -> Peer {
        Peer {
            datagrams: Box::new(datagrams),
            next: 0,
            waiting: Vec::new(),
        }
    }

    /// Sends a confirmable request; its number, which is its token too.
    fn send(&mut self, code: Code, uri: &str, more: More<'_>, payload: &[u8]) -> u16 {
        self.next += 1;
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let levels = path
            .split('/')
            .map(|level| (OptionNumber::URI_PATH, level.as_bytes()));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| (OptionNumber::URI_QUERY, pair.as_bytes()));
        let mut options: Vec<_> = levels.chain(pairs).chain(more.iter().copied()).collect();
        options.sort_by_key(|(number, _)| *number);
        let mut out = Vec::new();
        let token = Token::new(&self.next.to_be_bytes()).unwrap();
        let mut writer = Writer::new(&mut out, Kind::Con, code, MessageId(self.next), token);
        for (number, value) in options {
            writer = writer.option(number, value);
        }
        writer.payload(payload);
        self.datagrams.send(&out);
        self.next
    }

    /// The next message, confirmed where it has to be.
    pub(crate) fn next(&mut self) -> Came {
        if !self.waiting.is_empty() {
            return self.waiting.remove(0);
        }
        let datagram = self.datagrams.receive();
        let message = Message::parse(&datagram).unwrap();
        if message.kind == Kind::Con {
            let mut out = Vec::new();
            Writer::empty(&mut out, Kind::Ack, message.id);
            self.datagrams.send(&out);
        }
        Came {
            kind: message.kind,
            code: message.code,
            id: message.id,
            token: message.token.as_bytes().to_vec(),
            observe: message.uint(OptionNumber::OBSERVE),
            format: message.uint(OptionNumber::CONTENT_FORMAT),
            block: message.block(OptionNumber::BLOCK2).flatten(),
            payload: message.payload.to_vec(),
        }
    }

    /// Sends a request; its answer. What else comes is kept for later.
    pub(crate) fn ask(&mut self, code: Code, uri: &str, more: More<'_>, payload: &[u8]) -> Came {
        let number = self.send(code, uri, more, payload);
        let mut others = Vec::new();
        loop {
            let came = self.next();
            if came.token == number.to_be_bytes() {
                self.waiting = others;
                return came;
            }
            if came.code != Code::EMPTY {
                others.push(came);
            }
        }
    }

    pub(crate) fn post(&mut self, uri: &str, payload: &[u8]) -> Code {
        self.ask(Code::POST, uri, &[], payload).code
    }

    pub(crate) fn get(&mut self, uri: &str) -> Came {
        self.ask(Code::GET, uri, &[], b"")
    }

    pub(crate) fn observe(&mut self, uri: &str) -> Came {
        self.ask(Code::GET, uri, &[(OptionNumber::OBSERVE, b"")], b"")
    }

    /// What came besides answers and was not looked at.
    pub(crate) fn waiting(&self) -> &[Came] {
        &self.waiting
    }

    fn reset(&mut self, came: &Came) {
        let mut out = Vec::new();
        Writer::empty(&mut out, Kind::Rst, came.id);
        self.datagrams.send(&out);
    }
}

/// A URI with the secret of a demo client.
pub(crate) fn uri(broker: &Broker, number: usize, subtopic: &str) -> String {
    let secret = broker.client(number).password.unwrap();
    format!("{}?auth={secret}", broker.topic(subtopic))
}

fn mqtt(broker: &Broker, number: usize) -> Client {
    Client::connect(
        broker.address(),
        &broker.client(number),
        &Options::default(),
    )
    .0
}

#[test]
fn coap_message_reaches_mqtt_and_what_is_retained_is_read_back() {
    let broker = Broker::start(&[]);
    let mut subscriber = mqtt(&broker, 1);
    subscriber.subscribe(&broker.topic("#"), QoS::AtLeastOnce);
    // Several peers, so that every shard has some.
    for number in 0..8 {
        let mut peer = Peer::new(&broker);
        let to = uri(&broker, 0, &format!("t{number}"));
        assert_eq!(peer.get(&to).code, Code::NOT_FOUND);
        let format: More<'_> = &[(OptionNumber::CONTENT_FORMAT, &[50])];
        let put = peer.ask(Code::PUT, &format!("{to}&retain=true"), format, b"{}");
        assert_eq!((put.kind, put.code), (Kind::Ack, Code::CHANGED));
        let message = subscriber.message();
        assert_eq!(message.topic, broker.topic(&format!("t{number}")));
        assert_eq!(message.payload, b"{}");
        let read = peer.get(&to);
        assert_eq!((read.code, read.format), (Code::CONTENT, Some(50)));
        assert_eq!(read.payload, b"{}");
    }
    let mut peer = Peer::new(&broker);
    let bridge = format!("mqtt/publish/{}", uri(&broker, 0, "bridge"));
    assert_eq!(peer.post(&bridge, b"x"), Code::CHANGED);
    assert_eq!(subscriber.payload(), "x");
    let metrics = broker.metrics();
    assert!(
        metrics.contains("turnpike_coap_requests_total 25"),
        "{metrics}"
    );
}

#[test]
fn observers_hear_every_door_until_they_want_no_more() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("seen");
    let mut publisher = mqtt(&broker, 1);
    publisher.publish(&topic, b"old", QoS::AtLeastOnce, true);
    let mut observer = Peer::new(&broker);
    let first = observer.observe(&uri(&broker, 0, "seen"));
    assert_eq!(
        (first.code, &first.payload[..]),
        (Code::CONTENT, &b"old"[..])
    );
    let mut last = first.observe.unwrap();
    let mut poster = Peer::new(&broker);
    for number in 0..40u8 {
        if number % 2 == 0 {
            publisher.publish(&topic, &[number], QoS::AtLeastOnce, false);
        } else {
            assert_eq!(
                poster.post(&uri(&broker, 1, "seen"), &[number]),
                Code::CHANGED
            );
        }
        let came = observer.next();
        assert_eq!(came.payload, [number]);
        assert!(came.observe.unwrap() > last);
        last = came.observe.unwrap();
    }
    publisher.publish(&topic, b"last", QoS::AtLeastOnce, false);
    let came = observer.next();
    observer.reset(&came);
    // Whatever is sent behind the reset finds no observer.
    assert_eq!(
        observer.post(&uri(&broker, 0, "elsewhere"), b"x"),
        Code::CHANGED
    );
    publisher.publish(&topic, b"unheard", QoS::AtLeastOnce, false);
    assert_eq!(
        observer.post(&uri(&broker, 0, "elsewhere"), b"x"),
        Code::CHANGED
    );
    assert!(observer.waiting().is_empty());
}

#[test]
fn revoked_observer_is_silent_at_once_and_told_403() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("revoked");
    let mut publisher = mqtt(&broker, 1);
    let mut observer = Peer::new(&broker);
    assert!(
        observer
            .observe(&uri(&broker, 0, "revoked"))
            .observe
            .is_some()
    );
    publisher.publish(&topic, b"before", QoS::AtLeastOnce, false);
    assert_eq!(observer.next().payload, b"before");
    let id = broker.client(0).username.unwrap();
    let channel = broker.channel().to_owned();
    let connection = ["--domain", "demo", "--client", &id, "--channel", &channel];
    broker.provision(&[&["disconnect"][..], &connection, &["--type", "subscribe"]].concat());
    publisher.publish(&topic, b"after", QoS::AtLeastOnce, false);
    let end = observer.next();
    assert_eq!(
        (end.code, end.observe, &end.payload[..]),
        (Code::FORBIDDEN, None, &b""[..])
    );
    assert_eq!(
        observer.get(&uri(&broker, 0, "revoked")).code,
        Code::FORBIDDEN
    );
    assert_eq!(
        observer.observe(&uri(&broker, 0, "revoked")).code,
        Code::FORBIDDEN
    );
    assert_eq!(
        observer.post(&uri(&broker, 0, "x"), b"still"),
        Code::CHANGED
    );
    broker.provision(&[&["disconnect"][..], &connection, &["--type", "publish"]].concat());
    assert_eq!(
        observer.post(&uri(&broker, 0, "x"), b"never"),
        Code::FORBIDDEN
    );
    broker.provision(&["client", "disable", "--domain", "demo", &id]);
    assert_eq!(
        observer.post(&uri(&broker, 0, "x"), b"never"),
        Code::FORBIDDEN
    );
}

#[test]
fn bodies_of_twenty_thousand_bytes_pass_both_ways_in_blocks() {
    let broker = Broker::start(&[]);
    let mut subscriber = mqtt(&broker, 1);
    subscriber.subscribe(&broker.topic("big"), QoS::AtLeastOnce);
    let body: Vec<u8> = (0..20_000u32).map(|at| (at * 31 % 251) as u8).collect();
    let mut peer = Peer::new(&broker);
    let to = format!("{}&retain=true", uri(&broker, 0, "big"));
    let count = body.chunks(512).count() as u32;
    for (number, piece) in (0u32..).zip(body.chunks(512)) {
        let more = number + 1 < count;
        let block = Block {
            number,
            more,
            exponent: 5,
        };
        let value = block.value().to_be_bytes();
        let answer = peer.ask(
            Code::PUT,
            &to,
            &[(OptionNumber::BLOCK1, &value[1..])],
            piece,
        );
        let expected = if more { Code::CONTINUE } else { Code::CHANGED };
        assert_eq!(answer.code, expected);
    }
    assert!(subscriber.message().payload == body);
    let mut fetched = Vec::new();
    for number in 0.. {
        let block = Block {
            number,
            more: false,
            exponent: 6,
        };
        let value = block.value().to_be_bytes();
        let answer = peer.ask(Code::GET, &to, &[(OptionNumber::BLOCK2, &value[1..])], b"");
        assert_eq!(answer.code, Code::CONTENT);
        fetched.extend_from_slice(&answer.payload);
        if !answer.block.unwrap().more {
            break;
        }
    }
    assert!(fetched == body);
}

#[test]
fn users_and_every_form_of_credential_are_taken_and_wrong_ones_are_not() {
    let broker = Broker::start(&[]);
    let Credentials { username, password } = broker.client(0);
    let (id, secret) = (username.unwrap(), password.unwrap());
    let topic = broker.topic("who");
    let token = broker.token();
    let mut peer = Peer::new(&broker);
    for query in [
        format!("auth={secret}"),
        format!("auth={id}:{secret}"),
        format!("authorization=Client {secret}"),
        format!("username={id}&password={secret}"),
        format!("client_id={id}&password={secret}"),
    ] {
        assert_eq!(
            peer.post(&format!("{topic}?{query}"), b"x"),
            Code::CHANGED,
            "{query}"
        );
    }
    for query in [
        "auth=wrong".to_owned(),
        format!("auth={id}:wrong"),
        format!("username={id}&password=wrong"),
        "x=y".to_owned(),
    ] {
        assert_eq!(
            peer.post(&format!("{topic}?{query}"), b"x"),
            Code::UNAUTHORIZED,
            "{query}"
        );
    }
    let by_route = format!("m/demo/c/{}/who?auth={secret}", broker.channel());
    assert_eq!(peer.post(&by_route, b"x"), Code::CHANGED);
    // An option has 255 bytes at most.
    let pieces: Vec<_> = token.as_bytes().chunks(200).map(str::from_utf8).collect();
    let query: Vec<_> = pieces
        .iter()
        .map(|piece| format!("auth={}", piece.unwrap()))
        .collect();
    let of_user = format!("{topic}?{}", query.join("&"));
    assert_eq!(peer.post(&of_user, b"x"), Code::CHANGED, "a user's token");
    assert_eq!(peer.get(&of_user).code, Code::NOT_FOUND);
}

#[test]
fn observers_are_told_that_the_broker_stops() {
    let broker = Broker::start(&[]);
    let mut observer = Peer::new(&broker);
    assert!(observer.observe(&uri(&broker, 0, "end")).observe.is_some());
    broker.terminate();
    assert_eq!(observer.next().code, Code::SERVICE_UNAVAILABLE);
}
