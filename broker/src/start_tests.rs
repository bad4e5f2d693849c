//! Real threads and sockets under a control side of a few lines.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use authcache::feed::{Answer, Leader, LeaderEvent, LeaseTerms, Question, Snapshot};
use authcache::{Change, EntityId, Identity, PrincipalRecord, Right, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::config::{Limits, Listener};
use crate::feed::{Connecting, FeedPipe};

const DOMAIN: EntityId = EntityId::from_u128(1);
const CHANNEL: EntityId = EntityId::from_u128(2);
const TOPIC: &str = "m/d/c/c/t";

/// One domain, one channel, and whoever comes is a client that may do everything there.
async fn control(pipe: DuplexStream) {
    control_at(pipe, 1, false, Arc::default()).await;
}

/// The same at a revision, which may be of another lineage than the broker knows; counts who asks.
async fn control_at(mut pipe: DuplexStream, revision: u64, afresh: bool, asked: Arc<AtomicUsize>) {
    let mut leader = Leader::new(revision, false, 0);
    let link = leader.connected(LeaseTerms::Pipe, 0);
    let mut buffer = vec![0; 4096];
    while let Ok(taken @ 1..) = pipe.read(&mut buffer).await {
        leader
            .input(link, &buffer[..taken], 0)
            .expect("it is a feed");
        while let Some(event) = leader.poll() {
            match event {
                LeaderEvent::Joined { link, held, .. } => {
                    let number = |id: &EntityId| id.to_u128() - 100;
                    let snapshot = Snapshot {
                        revision,
                        afresh,
                        changes: directory(),
                        identities: held.iter().map(number).map(identity).collect(),
                    };
                    leader.snapshot(link, snapshot);
                }
                LeaderEvent::Asked {
                    link,
                    number,
                    question: Question::Identify(shown),
                } => {
                    let name = shown.username.expect("clients name themselves");
                    let number_of = name.parse().expect("names are numbers");
                    let answer = Answer::Identity(identity(number_of), None);
                    leader.answer(link, number, revision, answer);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        let mut out = Vec::new();
        leader.output(link, &mut out);
        if pipe.write_all(&out).await.is_err() {
            return;
        }
    }
}

fn directory() -> Vec<Change> {
    let domain = Change::DomainSet {
        id: DOMAIN,
        route: "d".into(),
        status: Status::Enabled,
    };
    let channel = Change::ChannelSet {
        id: CHANNEL,
        domain: DOMAIN,
        route: Some("c".into()),
        status: Status::Enabled,
        open: false,
    };
    vec![domain, channel]
}

fn identity(number: u128) -> Identity {
    Identity {
        id: EntityId::from_u128(100 + number),
        kind: PrincipalRecord::Client { domain: DOMAIN },
        status: Status::Enabled,
        credential: 1,
        rights: vec![(CHANNEL, Right::PUBLISH | Right::SUBSCRIBE)],
    }
}

async fn two_shards() -> (Broker, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let control = tokio::spawn(control(theirs));
    // One pipe: once it is lost there is no control any more.
    let mut pipe = Some(Box::new(ours) as Box<dyn FeedPipe>);
    let feed = Feed::here(move || -> Connecting {
        let pipe = pipe.take();
        Box::pin(async move {
            match pipe {
                Some(pipe) => Ok(pipe),
                None => std::future::pending().await,
            }
        })
    });
    (start_with(feed, 100).await, control)
}

async fn start_with(feed: Feed, lease_grace_ms: u64) -> Broker {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::plain("mqtt", address);
    let config = Config {
        shards: 2,
        own_descriptors: false,
        rest_us: 50,
        listeners: vec![listener],
        limits: Limits {
            lease_grace_ms,
            ..Limits::default()
        },
        node: EntityId::from_u128(7),
        incarnation: 1,
        sys_interval_s: 0,
        http: None,
        coap: Vec::new(),
        quic: None,
    };
    start(config, feed).await.expect("it starts")
}

/// A client of MQTT 3.1.1 that wants to know of nothing but payloads.
struct Client(TcpStream);

impl Client {
    /// Connects under a number, and reads the return code.
    fn connect(address: SocketAddr, number: u8) -> (Client, u8) {
        let stream = TcpStream::connect(address).expect("somebody listens");
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).expect("it can be set");
        let mut client = Client(stream);
        let name = number.to_string();
        let mut body = b"\0\x04MQTT\x04\xc2\0\0".to_vec();
        for text in [&*name, &*name, "secret"] {
            body.extend([0, text.len() as u8]);
            body.extend(text.bytes());
        }
        client.send(0x10, &body);
        let connack = client.read(4);
        (client, connack[3])
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first, body.len() as u8];
        packet.extend(body);
        self.0.write_all(&packet).expect("the broker reads");
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("the broker answers");
        bytes
    }

    fn subscribe(&mut self) {
        let mut body = vec![0, 1, 0, TOPIC.len() as u8];
        body.extend(TOPIC.bytes());
        body.push(0);
        self.send(0x82, &body);
        assert_eq!(self.read(5), [0x90, 3, 0, 1, 0]);
    }

    fn publish(&mut self, payload: u8) {
        let mut body = vec![0, TOPIC.len() as u8];
        body.extend(TOPIC.bytes());
        body.push(payload);
        self.send(0x30, &body);
    }

    fn payload(&mut self) -> u8 {
        let head = self.read(2);
        let body = self.read(usize::from(head[1]));
        body[body.len() - 1]
    }

    /// Publishes, and sends nothing more: the packet and the end are in one segment.
    fn publish_and_end(&mut self, payload: u8) {
        socket2::SockRef::from(&self.0)
            .set_tcp_cork(true)
            .expect("it can be set");
        self.publish(payload);
        self.0.shutdown(Shutdown::Write).expect("it is open");
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

/// Subscribers, at least one at home at each of the two shards, and where that is.
fn clients(broker: &Broker) -> Vec<(usize, Client)> {
    let address = broker.listeners()[0].1;
    let connections = |at: usize| broker.shared.counters[at].connections.get();
    let mut clients = Vec::new();
    // Homes are by chance: they are the same for this many once in 2^63.
    for number in 1..64 {
        if connections(0) > 0 && connections(1) > 0 {
            break;
        }
        let before = connections(0);
        let (mut client, code) = Client::connect(address, number);
        assert_eq!(code, 0);
        client.subscribe();
        clients.push((usize::from(connections(0) == before), client));
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shard_that_panics_begins_anew_and_serves_again() {
    let (broker, _control) = two_shards().await;
    let address = broker.listeners()[0].1;
    let (lost, mut stay): (Vec<_>, Vec<_>) = clients(&broker)
        .into_iter()
        .partition(|(home, _)| *home == 0);
    assert!(!lost.is_empty() && !stay.is_empty(), "both have clients");
    broker.shared.inboxes[0].post_one(Post::Panic);
    for (_, mut client) in lost {
        assert!(client.is_closed());
    }
    // The other's go on.
    let (_, first) = stay.first_mut().expect("somebody stayed");
    first.publish(1);
    assert!(stay.iter_mut().all(|(_, client)| client.payload() == 1));
    // And both serve whoever comes, on the same port.
    for number in 1..9 {
        let (mut client, code) = Client::connect(address, 100 + number);
        assert_eq!(code, 0);
        client.subscribe();
        client.publish(100 + number);
        assert_eq!(client.payload(), 100 + number);
        assert!(
            stay.iter_mut()
                .all(|(_, old)| old.payload() == 100 + number)
        );
    }
    let panics = |at: usize| broker.shared.counters[at].panics.get();
    assert_eq!((panics(0), panics(1)), (1, 0));
    assert!(broker.metrics().contains("turnpike_task_panics_total 1"));
    drop(stay);
    broker.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_that_lost_control_refuses_who_comes_and_lets_go_who_was_there() {
    let (broker, control) = two_shards().await;
    let address = broker.listeners()[0].1;
    let clients = clients(&broker);
    control.abort();
    for (_, mut client) in clients {
        assert!(client.is_closed());
    }
    assert!(!broker.ready());
    // 3.1.1's code for "server unavailable".
    assert_eq!(Client::connect(address, 100).1, 3);
    broker.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_lineage_ends_connections_and_what_was_verified_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let current = Arc::new(parking_lot::Mutex::new(None::<tokio::task::JoinHandle<()>>));
    // Revision 9, a cut, revision 9 again, and a restored backup of revision 4.
    let mut states = [(9, false), (9, false), (4, true)].into_iter();
    let (count, now) = (asked.clone(), current.clone());
    let feed = Feed::here(move || -> Connecting {
        let (revision, afresh) = states.next().unwrap_or((4, false));
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let control = tokio::spawn(control_at(theirs, revision, afresh, count.clone()));
        *now.lock() = Some(control);
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn FeedPipe>) })
    });
    let broker = start_with(feed, 20_000).await;
    let address = broker.listeners()[0].1;
    let cut = || current.lock().take().expect("it serves").abort();
    // While it is told a state nobody is let in.
    let let_in = |number| loop {
        match Client::connect(address, number) {
            (client, 0) => return client,
            (_, code) => assert_eq!(code, 3),
        }
    };
    let mut client = let_in(1);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    cut();
    // What is said in the turn in which the lease ends is refused: it is said when control is back.
    while current.lock().is_none() || !broker.ready() {
        tokio::task::yield_now().await;
    }
    // The same lineage: the connection stays, and the secret is remembered.
    client.subscribe();
    client.publish(1);
    assert_eq!(client.payload(), 1);
    let_in(1);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let mut last = let_in(2);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    while current.lock().is_none() {
        tokio::task::yield_now().await;
    }
    cut();
    assert!(last.is_closed());
    let_in(2);
    assert_eq!(asked.load(Ordering::Relaxed), 3, "nothing is remembered");
    broker.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_of_a_stream_that_comes_with_its_last_bytes_is_noticed() {
    let (broker, _control) = two_shards().await;
    let address = broker.listeners()[0].1;
    let mut subscriber = Client::connect(address, 1).0;
    subscriber.subscribe();
    for payload in 0..8 {
        let (mut client, _) = Client::connect(address, 2);
        client.publish_and_end(payload);
        assert_eq!(subscriber.payload(), payload, "what came before counts");
        assert!(client.is_closed(), "it is not held until its Keep Alive");
    }
    broker.shutdown(Duration::from_secs(10)).await;
}
