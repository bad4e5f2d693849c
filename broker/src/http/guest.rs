//! An HTTP request's place in a shard: an MQTT connection through a pipe.
//!
//! It is accepted by a shard like one from the network and moves to the home of its principal,
//! where everything it asks for is judged; so HTTP has the rights, limits and answers of MQTT.

use authcache::feed::ShownCertificate;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use codec::mqtt::{
    Connect, ConnectProperties, Delivery, Packet, PacketId, ProtocolVersion, QoS, ReasonCode,
    Subscribe, SubscribeFilters, Subscription, UserProperties, decode, put_pingreq, split_frame,
};
use session::web::{Login, Posted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::ferry::{Descriptor, Ferry};
use crate::reactor::layer::Layer;
use crate::reactor::tcp::{TcpWire, Wire};
use crate::shard::inbox::Post;
use crate::shard::shared::Shared;

const VERSION: ProtocolVersion = ProtocolVersion::V5;

/// How long the broker may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// Messages sent before their answers are awaited: within every Receive Maximum.
const UNANSWERED_MAX: usize = 32;

/// Seconds of silence, half of them more being granted.
const KEEP_ALIVE_S: u16 = 60;

/// Opens pipes to the shards in turn.
#[derive(Clone)]
pub(crate) struct Guests {
    pub(crate) shared: Arc<Shared<Wire>>,
    /// There if shards have tables of descriptors of their own.
    pub(crate) ferry: Option<Arc<Ferry>>,
    /// Number of the HTTP listener's rules.
    pub(crate) listener: u8,
    pub(crate) next: Arc<AtomicUsize>,
}

/// Why something was not done: the Reason Code that the broker gave, or none for no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Refused(pub(crate) Option<ReasonCode>);

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Refused {
        Refused(None)
    }
}

/// A message to publish.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) content_type: Option<String>,
}

/// A message that came.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
    pub(crate) content_type: Option<String>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    /// The certificate that it showed, where that says which client it is.
    pub(crate) certificate: Option<Box<ShownCertificate>>,
}

/// One open pipe.
pub(crate) struct Guest {
    stream: UnixStream,
    input: Vec<u8>,
    login: Login,
}

impl Guests {
    /// Hands a connection to a shard.
    pub(crate) fn hand_over(&self, wire: TcpWire, listener: u8) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.shared.shards();
        let Some(wire) = self.ferry(wire, at) else {
            return;
        };
        self.shared.inboxes[at].post_one(Post::Accepted {
            wire: wire.into(),
            listener,
        });
    }

    /// Where shards have tables of descriptors of their own, it is sent there.
    fn ferry(&self, wire: TcpWire, shard: usize) -> Option<TcpWire> {
        let (Some(ferry), Descriptor::Here(fd)) = (&self.ferry, &wire.fd) else {
            return Some(wire);
        };
        let ferried = ferry.send(shard, fd).ok()?;
        Some(TcpWire {
            fd: Descriptor::Ferried(ferried),
            layer: wire.layer,
        })
    }

    /// A pipe to a shard, which takes it for a connection of `peer`, who showed `certificate` if that
    /// counts.
    ///
    /// # Errors
    /// When the system gives no descriptors.
    pub(crate) fn pipe(
        &self,
        peer: IpAddr,
        certificate: Option<Box<ShownCertificate>>,
    ) -> io::Result<UnixStream> {
        let (ours, theirs) = Pair::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        let wire = TcpWire {
            fd: Descriptor::Here(OwnedFd::from(theirs)),
            layer: Some(Layer::pipe(peer, certificate)),
        };
        self.hand_over(wire, self.listener);
        Ok(ours)
    }

    /// Connects as whoever `login` says, or the peer's certificate.
    ///
    /// # Errors
    /// [`Refused`], with the Reason Code of CONNACK.
    pub(crate) async fn enter(&self, login: &Login, peer: &Peer) -> Result<Guest, Refused> {
        let mut guest = Guest {
            stream: self.pipe(peer.ip, peer.certificate.clone())?,
            input: Vec::new(),
            login: login.clone(),
        };
        let mut connect = Vec::new();
        Connect {
            version: VERSION,
            clean_start: true,
            keep_alive: KEEP_ALIVE_S,
            client_id: "",
            will: None,
            username: Some(&login.username),
            password: Some(login.password.as_bytes()),
            properties: ConnectProperties::default(),
        }
        .encode(VERSION, &mut connect);
        guest.stream.write_all(&connect).await?;
        let connected = guest.next(|packet| match packet {
            Packet::ConnAck(connack) if !connack.reason.is_error() => Some(Ok(())),
            Packet::ConnAck(connack) => Some(Err(Refused(Some(connack.reason)))),
            _ => None,
        });
        within(connected).await?;
        Ok(guest)
    }
}

async fn within<T>(
    answer: impl Future<Output = Result<Result<T, Refused>, Refused>>,
) -> Result<T, Refused> {
    tokio::time::timeout(ANSWER_WAIT, answer)
        .await
        .map_err(|_| Refused(None))??
}

impl Guest {
    /// Whose it is.
    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    /// Publishes all messages; the answer to each. QoS 1 is acknowledged once the message is
    /// safe; at QoS 0 the connection answers whether it was taken.
    ///
    /// # Errors
    /// [`Refused`], when the connection ended: what had no answer was not published, or is refused
    /// for this reason.
    pub(crate) async fn publish(
        &mut self,
        messages: &[Outgoing],
    ) -> Result<Vec<ReasonCode>, Refused> {
        let mut answers = Vec::with_capacity(messages.len());
        for some in messages.chunks(UNANSWERED_MAX) {
            let mut packets = Vec::new();
            for (message, id) in some.iter().zip(1u16..) {
                put(message, id, &mut packets);
            }
            // What is behind the messages is answered behind them.
            put_pingreq(&mut packets);
            self.stream.write_all(&packets).await?;
            let mut codes = vec![ReasonCode::SUCCESS; some.len()];
            let answered = self.next(|packet| match packet {
                Packet::PubAck(ack) => {
                    let at = usize::from(ack.packet_id.get()) - 1;
                    if let Some(code) = codes.get_mut(at) {
                        *code = ack.reason;
                    }
                    None
                }
                Packet::PingResp => Some(Ok(())),
                _ => None,
            });
            within(answered).await?;
            answers.append(&mut codes);
        }
        Ok(answers)
    }

    /// Subscribes at QoS 0.
    ///
    /// # Errors
    /// [`Refused`], with the Reason Code of the filter.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> Result<(), Refused> {
        let mut filters = Vec::new();
        Subscription::new(filter, QoS::AtMostOnce).put(VERSION, &mut filters);
        let refused = Refused(Some(ReasonCode::TOPIC_FILTER_INVALID));
        let filters = SubscribeFilters::parse(&filters, VERSION).map_err(|_| refused)?;
        let packet_id = PacketId::new(1).ok_or(refused)?;
        let mut packet = Vec::new();
        Subscribe {
            packet_id,
            subscription_identifier: None,
            user_properties: UserProperties::default(),
            filters,
        }
        .encode(VERSION, &mut packet);
        self.stream.write_all(&packet).await?;
        let subscribed = self.next(|packet| match packet {
            Packet::SubAck(suback) => Some(match suback.codes.first() {
                Some(code) if *code < 0x80 => Ok(()),
                Some(code) => Err(Refused(Some(ReasonCode::new(*code)))),
                None => Err(Refused(None)),
            }),
            _ => None,
        });
        within(subscribed).await
    }

    /// The next message of a subscription. Can be dropped at any moment: what came stays.
    ///
    /// # Errors
    /// [`Refused`], when the connection ended.
    pub(crate) async fn message(&mut self) -> Result<Incoming, Refused> {
        self.next(|packet| match packet {
            Packet::Publish(publish) => Some(Incoming {
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_vec(),
                retain: publish.retain,
                content_type: publish.properties.content_type.map(str::to_owned),
            }),
            _ => None,
        })
        .await
    }

    /// Whether the connection is still there.
    pub(crate) async fn answers(&mut self) -> bool {
        if self.ping().await.is_err() {
            return false;
        }
        let pong = self.next(|packet| matches!(packet, Packet::PingResp).then_some(Ok(())));
        within(pong).await.is_ok()
    }

    /// Shows that it is alive.
    pub(crate) async fn ping(&mut self) -> Result<(), Refused> {
        let mut packet = Vec::new();
        put_pingreq(&mut packet);
        Ok(self.stream.write_all(&packet).await?)
    }

    /// Reads packets until `take` has what it looks for. Can be dropped while it waits.
    async fn next<T>(
        &mut self,
        mut take: impl FnMut(&Packet<'_>) -> Option<T>,
    ) -> Result<T, Refused> {
        loop {
            let mut at = 0;
            let mut found = None;
            while found.is_none() {
                let Ok(Some(frame)) = split_frame(&self.input[at..], u32::MAX) else {
                    break;
                };
                at += frame.bytes.len();
                match decode(&frame, VERSION) {
                    Ok(Packet::Disconnect(disconnect)) => {
                        found = Some(Err(Refused(Some(disconnect.reason))));
                    }
                    Ok(packet) => found = take(&packet).map(Ok),
                    Err(_) => found = Some(Err(Refused(None))),
                }
            }
            self.input.drain(..at);
            if let Some(found) = found {
                return found;
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Refused(None));
            }
        }
    }
}

fn put(message: &Outgoing, id: u16, out: &mut Vec<u8>) {
    let delivery = match (message.qos, PacketId::new(id)) {
        (QoS::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
        _ => Delivery::AtMostOnce,
    };
    Posted {
        topic: &message.topic,
        delivery,
        retain: message.retain,
        text: false,
        content_type: message.content_type.as_deref(),
        payload: &message.payload,
    }
    .encode(out);
}
