//! The table of doors: how a test publishes and receives at each of them.

use std::fs;
use std::sync::Arc;

use codec::coap::{Code, OptionNumber};
use codec::mqtt::{ProtocolVersion, QoS, ReasonCode};
use codec::ws::Opcode;
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::channel_socket::{Came, Socket};
use crate::client::{Client, Got, Options, Stream, tcp};
use crate::coap::{self, uri};
use crate::coaps;
use crate::http::{Http, authorization};
use crate::quic;
use crate::tls::{Authority, BOTH, Tls, config, open};
use crate::websocket::{MQTT, WebSocket};

/// A broker with every listener.
pub(crate) struct Place {
    pub(crate) broker: Broker,
    authority: Authority,
}

impl Place {
    pub(crate) fn new() -> Place {
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        authority.server(folder.path(), "server", "localhost");
        fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
        let configuration: String = ["mqtts", "wss", "quic"]
            .map(|name| {
                format!("[listeners.{name}]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n")
            })
            .concat();
        let broker = Broker::configured(folder, &configuration);
        Place { broker, authority }
    }

    fn tls(&self, listener: &str) -> Tls {
        let config = Arc::new(config(&self.authority, None, BOTH));
        open(self.broker.listener(listener), &config, "localhost").unwrap()
    }

    fn mqtt(&self, transport: Transport, version: ProtocolVersion, number: usize) -> Client {
        let login = &self.broker.client(number);
        let options = &Options {
            version,
            ..Options::default()
        };
        match transport {
            Transport::Tcp => Client::connect_over(tcp(self.broker.address()), login, options),
            Transport::Tls => Client::connect_over(self.tls("mqtts"), login, options),
            Transport::WebSocket => {
                let stream = WebSocket::open(tcp(self.broker.listener("ws")), "/mqtt", MQTT);
                Client::connect_over(stream, login, options)
            }
            Transport::WebSocketTls => {
                let stream = WebSocket::open(self.tls("wss"), "/mqtt", MQTT);
                Client::connect_over(stream, login, options)
            }
            Transport::Quic => {
                let stream = quic::stream(&self.broker, &self.authority, None);
                Client::connect_over(stream, login, options)
            }
        }
    }
}

/// What carries MQTT.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Tcp,
    Tls,
    WebSocket,
    WebSocketTls,
    Quic,
}

/// A way in and out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    Mqtt(Transport, ProtocolVersion),
    /// Publishing, and Server-Sent Events.
    Http,
    Socket,
    /// A channel socket of `turnpike.json.v1`, in TLS.
    Envelopes,
    /// POST and Observe.
    Coap,
    Coaps,
}

pub(crate) const DOORS: [Door; 15] = {
    use ProtocolVersion::{V5, V311};
    use Transport::{Quic, Tcp, Tls, WebSocket, WebSocketTls};
    [
        Door::Mqtt(Tcp, V311),
        Door::Mqtt(Tcp, V5),
        Door::Mqtt(Tls, V311),
        Door::Mqtt(Tls, V5),
        Door::Mqtt(WebSocket, V311),
        Door::Mqtt(WebSocket, V5),
        Door::Mqtt(WebSocketTls, V311),
        Door::Mqtt(WebSocketTls, V5),
        Door::Mqtt(Quic, V311),
        Door::Mqtt(Quic, V5),
        Door::Http,
        Door::Socket,
        Door::Envelopes,
        Door::Coap,
        Door::Coaps,
    ]
};

const EACH: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// What a publisher is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    Accepted,
    Denied,
    /// The door has no way to say it.
    Nothing,
}

/// What a subscriber sees of a message; `None` where its door does not show it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) payload: String,
    pub(crate) qos: Option<QoS>,
    pub(crate) retain: Option<bool>,
}

/// A client that publishes on one topic.
pub(crate) trait Publisher {
    fn publish(&mut self, payload: &str, qos: QoS, retain: bool) -> Told;
}

/// A client that is subscribed to one topic.
pub(crate) trait Subscriber {
    fn message(&mut self) -> Seen;

    /// Nothing came before the end that the door gives to a subscription that lost its right.
    fn ended(self: Box<Self>);
}

impl Door {
    /// The qualities at which a message is published here, from the lowest.
    pub(crate) fn qualities(self) -> &'static [QoS] {
        match self {
            Door::Mqtt(..) => &EACH,
            Door::Http => &[QoS::AtMostOnce, QoS::AtLeastOnce],
            Door::Socket | Door::Envelopes | Door::Coap | Door::Coaps => &[QoS::AtLeastOnce],
        }
    }

    /// Whether a message can be retained from here.
    pub(crate) fn retains(self) -> bool {
        !matches!(self, Door::Socket)
    }

    /// A demo client that publishes on `subtopic`.
    pub(crate) fn publisher(
        self,
        place: &Place,
        number: usize,
        subtopic: &str,
    ) -> Box<dyn Publisher> {
        let broker = &place.broker;
        let topic = broker.topic(subtopic);
        match self {
            Door::Mqtt(transport, version) => {
                let client = place.mqtt(transport, version, number);
                Box::new(OverMqtt {
                    client,
                    topic,
                    version,
                })
            }
            Door::Http => Box::new(OverHttp {
                http: Http::new(broker),
                headers: authorization(broker, number),
                path: format!("/{topic}"),
            }),
            Door::Socket => {
                let headers = authorization(broker, number);
                let stream = tcp(broker.listener("ws"));
                Box::new(Socket::open(stream, &format!("/{topic}"), &headers))
            }
            Door::Envelopes => Box::new(Envelopes(envelopes(place, number, &topic))),
            Door::Coap => Box::new(OverCoap {
                peer: coap::Peer::new(broker),
                uri: uri(broker, number, subtopic),
            }),
            Door::Coaps => Box::new(OverCoap {
                peer: coap::Peer::over(coaps::Session::new(broker, &broker.client(number))),
                uri: format!("{topic}?"),
            }),
        }
    }

    /// A demo client that is subscribed to `subtopic`; `None` if it is refused for want of a right.
    pub(crate) fn subscriber(
        self,
        place: &Place,
        number: usize,
        subtopic: &str,
    ) -> Option<Box<dyn Subscriber>> {
        let broker = &place.broker;
        let topic = broker.topic(subtopic);
        Some(match self {
            Door::Mqtt(transport, version) => {
                let mut client = place.mqtt(transport, version, number);
                match client.subscribe(&topic, QoS::ExactlyOnce) {
                    2 => {}
                    0x87 if version.is_v5() => return None,
                    0x80 if !version.is_v5() => return None,
                    other => panic!("SUBACK {other:#x}"),
                }
                Box::new(OverMqtt {
                    client,
                    topic,
                    version,
                })
            }
            Door::Http => {
                let mut http = Http::new(broker);
                let path = format!("/{topic}?format=json");
                http.send("GET", &path, &authorization(broker, number), b"");
                match http.head().0 {
                    200 => Box::new(Events(http)),
                    403 => return None,
                    other => panic!("answered {other}"),
                }
            }
            Door::Socket | Door::Envelopes => {
                let more = authorization(broker, number);
                let answer = crate::websocket::ask(
                    &mut tcp(broker.listener("ws")),
                    &format!("/{topic}"),
                    &more,
                );
                match &answer[9..12] {
                    "101" if matches!(self, Door::Socket) => {
                        let stream = tcp(broker.listener("ws"));
                        Box::new(Socket::open(stream, &format!("/{topic}"), &more))
                    }
                    "101" => Box::new(Envelopes(envelopes(place, number, &topic))),
                    "403" => return None,
                    other => panic!("answered {other}"),
                }
            }
            Door::Coap | Door::Coaps => {
                let (mut peer, uri) = match self {
                    Door::Coap => (coap::Peer::new(broker), uri(broker, number, subtopic)),
                    _ => {
                        let session = coaps::Session::new(broker, &broker.client(number));
                        (coap::Peer::over(session), topic)
                    }
                };
                let first = peer.observe(&uri);
                if first.code == Code::FORBIDDEN {
                    return None;
                }
                assert_eq!(first.code, Code::CONTENT);
                assert!(first.observe.is_some());
                // Without a retained message the first answer is empty.
                let first = (!first.payload.is_empty()).then_some(first.payload);
                Box::new(Observer { peer, first })
            }
        })
    }
}

fn envelopes(place: &Place, number: usize, topic: &str) -> Socket<Tls> {
    let more = format!(
        "{}Sec-WebSocket-Protocol: turnpike.json.v1\r\n",
        authorization(&place.broker, number)
    );
    Socket::open(place.tls("wss"), &format!("/{topic}"), &more)
}

struct OverMqtt {
    client: Client,
    topic: String,
    version: ProtocolVersion,
}

impl Publisher for OverMqtt {
    fn publish(&mut self, payload: &str, qos: QoS, retain: bool) -> Told {
        let (topic, payload) = (&self.topic, payload.as_bytes());
        match self.client.publish_only(topic, payload, qos, retain, None) {
            // The acknowledgements of 3.1.1 say nothing, but that the message was looked at.
            Some(_) if !self.version.is_v5() => Told::Nothing,
            Some(ReasonCode::NOT_AUTHORIZED) => Told::Denied,
            Some(code) if code.is_error() => panic!("refused with {code:?}"),
            Some(_) => Told::Accepted,
            None => {
                assert_eq!(self.client.ping(), []);
                Told::Nothing
            }
        }
    }
}

impl Subscriber for OverMqtt {
    fn message(&mut self) -> Seen {
        let message = self.client.message();
        assert_eq!(message.topic, self.topic);
        assert!(!message.dup);
        Seen {
            payload: String::from_utf8(message.payload).unwrap(),
            qos: Some(EACH[usize::from(message.qos)]),
            retain: Some(message.retain),
        }
    }

    fn ended(mut self: Box<Self>) {
        // The end of the last exchange at QoS 2 may be under way.
        for got in self.client.ping() {
            assert!(matches!(got, Got::PubRel(_)), "{got:?}");
        }
    }
}

struct OverHttp {
    http: Http,
    headers: String,
    path: String,
}

impl Publisher for OverHttp {
    fn publish(&mut self, payload: &str, qos: QoS, retain: bool) -> Told {
        let path = format!("{}?qos={}&retain={retain}", self.path, qos.as_u8());
        match self.http.post(&path, &self.headers, payload.as_bytes()) {
            202 => Told::Accepted,
            403 => Told::Denied,
            other => panic!("answered {other}"),
        }
    }
}

/// An event stream of envelopes.
struct Events(Http);

impl Subscriber for Events {
    fn message(&mut self) -> Seen {
        seen(&serde_json::from_str(&self.0.event()).unwrap())
    }

    fn ended(mut self: Box<Self>) {
        let event = self.0.event();
        assert!(event.starts_with("event: closed"), "{event}");
    }
}

fn seen(envelope: &Value) -> Seen {
    Seen {
        payload: envelope["payload"].as_str().unwrap().to_owned(),
        qos: None,
        retain: Some(envelope["retain"] == json!(true)),
    }
}

impl<S: Stream> Publisher for Socket<S> {
    fn publish(&mut self, payload: &str, _: QoS, retain: bool) -> Told {
        assert!(!retain, "what a raw socket sends is not retained");
        self.send(Opcode::Text, payload.as_bytes());
        // What it sends is not answered, and a pong comes before the message is judged: the second
        // one tells that it was.
        for _ in 0..2 {
            self.send(Opcode::Ping, b"");
            loop {
                match self.next() {
                    Came::Pong => break,
                    Came::Closed(Some(1008) | None) => return Told::Denied,
                    Came::Closed(code) => panic!("closed with {code:?}"),
                    // It is subscribed as well.
                    Came::Text(_) | Came::Binary(_) => {}
                }
            }
        }
        Told::Nothing
    }
}

impl<S: Stream> Subscriber for Socket<S> {
    fn message(&mut self) -> Seen {
        match self.next() {
            Came::Text(payload) => Seen {
                payload,
                qos: None,
                retain: None,
            },
            other => panic!("no message: {other:?}"),
        }
    }

    fn ended(mut self: Box<Self>) {
        assert_eq!(self.next(), Came::Closed(Some(1008)));
    }
}

/// A channel socket of envelopes.
struct Envelopes<S>(Socket<S>);

impl<S: Stream> Publisher for Envelopes<S> {
    fn publish(&mut self, payload: &str, _: QoS, retain: bool) -> Told {
        let envelope = json!({"payload": payload, "retain": retain, "id": 1}).to_string();
        self.0.send(Opcode::Text, envelope.as_bytes());
        loop {
            let Came::Text(answer) = self.0.next() else {
                panic!("no answer");
            };
            let answer: Value = serde_json::from_str(&answer).unwrap();
            match answer["code"].as_u64() {
                Some(0 | 0x10) => return Told::Accepted,
                Some(0x87) => return Told::Denied,
                Some(other) => panic!("answered {other}"),
                // It is subscribed as well.
                None => {}
            }
        }
    }
}

impl<S: Stream> Subscriber for Envelopes<S> {
    fn message(&mut self) -> Seen {
        match self.0.next() {
            Came::Text(envelope) => seen(&serde_json::from_str(&envelope).unwrap()),
            other => panic!("no message: {other:?}"),
        }
    }

    fn ended(mut self: Box<Self>) {
        assert_eq!(self.0.next(), Came::Closed(Some(1008)));
    }
}

struct OverCoap {
    peer: coap::Peer,
    /// With a query, to which more can be added.
    uri: String,
}

impl Publisher for OverCoap {
    fn publish(&mut self, payload: &str, _: QoS, retain: bool) -> Told {
        let uri = format!("{}&retain={retain}", self.uri);
        match self.peer.post(&uri, payload.as_bytes()) {
            Code::CHANGED => Told::Accepted,
            Code::FORBIDDEN => Told::Denied,
            other => panic!("answered {other:?}"),
        }
    }
}

struct Observer {
    peer: coap::Peer,
    /// What was retained when it came.
    first: Option<Vec<u8>>,
}

impl Subscriber for Observer {
    fn message(&mut self) -> Seen {
        let payload = self.first.take().unwrap_or_else(|| {
            let came = self.peer.next();
            assert_eq!(came.code, Code::CONTENT);
            came.payload
        });
        Seen {
            payload: String::from_utf8(payload).unwrap(),
            qos: None,
            retain: None,
        }
    }

    fn ended(mut self: Box<Self>) {
        let end = self.peer.next();
        assert_eq!((end.code, end.observe), (Code::FORBIDDEN, None));
        // Whatever was sent before this answer is here with it.
        let core: coap::More<'_> = &[(OptionNumber::ACCEPT, &[40])];
        let answer = self.peer.ask(Code::GET, ".well-known/core", core, b"");
        assert_eq!(answer.code, Code::CONTENT);
        assert!(self.peer.waiting().is_empty());
    }
}
