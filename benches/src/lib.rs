//! What the benchmarks share: a broker's inside without sockets, and packets as they come.
//!
//! `cargo bench -p turnpike-benches` runs them; each names its unit. The figures stand in
//! `docs/performance.md`.

#![forbid(unsafe_code)]

use std::sync::Arc;

use authcache::{
    Action, AuthCache, Capacity, Change, ChannelIndex, EntityId, Gate, Identity, PrincipalIndex,
    PrincipalRecord, Right, RightCache, Status, Writer,
};
use codec::mqtt::{
    Connect, ConnectProperties, Delivery, ProtocolVersion, Publish, PublishProperties,
};
use router::{Interest, ShardId, SharedGroups, SlotId, Subs, Subscription};
use session::{
    Cold, Hot, IdSource, IdentifyOutcome, Limits, ListenerRules, Machine, Now, Origin, Rules, Step,
};

/// A domain with channels, and a client with all rights on them.
pub struct World {
    /// The shared state of rights.
    pub cache: Arc<AuthCache>,
    /// Its only writer.
    pub writer: Writer,
    /// The judge.
    pub gate: Gate,
    /// The client.
    pub who: PrincipalIndex,
    /// The channels, in the order of their numbers.
    pub channels: Vec<ChannelIndex>,
    limits: Limits,
    listener: ListenerRules,
    ids: IdSource,
}

/// A publisher's side of a connection: what a slot holds of it.
#[derive(Debug)]
pub struct Publisher {
    hot: Hot,
    cold: Cold,
}

const DOMAIN: u128 = 0x0190_a0b0_1111_7111_8111_0000_0000_0001;
const CHANNELS: u128 = 0x0190_a0b0_2222_7222_8222_0000_0000_0000;
const CLIENT: u128 = 0x0190_a0b0_3333_7333_8333_0000_0000_0000;

impl World {
    /// A world with so many channels.
    ///
    /// # Panics
    /// Never: it is made of what is valid.
    #[must_use]
    pub fn new(channels: usize) -> World {
        let (cache, mut writer) = AuthCache::new(Capacity::default());
        cache.lease().unlimited();
        let status = Status::Enabled;
        let domain = EntityId::from_u128(DOMAIN);
        writer.apply(&Change::DomainSet {
            id: domain,
            route: "plant".into(),
            status,
        });
        let ids: Vec<EntityId> = (0..channels as u128)
            .map(|number| EntityId::from_u128(CHANNELS + number))
            .collect();
        for &id in &ids {
            writer.apply(&Change::ChannelSet {
                id,
                domain,
                route: None,
                status,
                open: false,
            });
        }
        let both = Right::PUBLISH | Right::SUBSCRIBE;
        let who = writer.hold(&Identity {
            id: EntityId::from_u128(CLIENT),
            kind: PrincipalRecord::Client { domain },
            status,
            credential: 1,
            rights: ids.iter().map(|&id| (id, both)).collect(),
        });
        let index = |id: &EntityId| cache.directory().channel(*id).expect("it was made");
        let channels = ids.iter().map(index).collect();
        World {
            gate: cache.gate(),
            who,
            channels,
            limits: Limits::default(),
            listener: ListenerRules::default(),
            ids: IdSource::new(1),
            cache,
            writer,
        }
    }

    /// Topic of a channel by its number, with a subtopic unless that is empty.
    #[must_use]
    pub fn topic(number: usize, subtopic: &str) -> String {
        let domain = EntityId::from_u128(DOMAIN);
        let channel = EntityId::from_u128(CHANNELS + number as u128);
        let slash = if subtopic.is_empty() { "" } else { "/" };
        format!("m/{domain}/c/{channel}{slash}{subtopic}")
    }

    /// The subscriptions of one shard: none yet.
    #[must_use]
    pub fn subs(&self) -> Subs {
        let interest = Arc::new(Interest::new());
        let groups = Arc::new(SharedGroups::new());
        Subs::new(ShardId::new(0), 1, interest, groups, 1)
    }

    /// Subscribes a slot to a channel with a filter of the subtopic.
    ///
    /// # Panics
    /// Never: the client has the right.
    pub fn subscribe(&self, subs: &mut Subs, number: usize, filter: &str, slot: u32) {
        let subscription = Subscription {
            channel: self.channels[number],
            filter: filter.into(),
            qos: 0,
            no_local: false,
            retain_as_published: false,
            version5: false,
            identifier: None,
            prefix: None,
            share: None,
        };
        let mut rights = RightCache::default();
        let permitted = self
            .gate
            .permit(self.who, Action::Subscribe, &mut rights, subscription);
        let Ok(permitted) = permitted else {
            panic!("the client may subscribe");
        };
        subs.subscribe(permitted, SlotId::new(slot));
    }

    /// What a machine is judged by.
    #[must_use]
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            gate: &self.gate,
            directory: self.cache.directory(),
            limits: &self.limits,
            listener: &self.listener,
            now: Now::from_millis(1_000),
            origin: Origin {
                shard: ShardId::new(0),
                slot: Some(SlotId::new(0)),
            },
            ids: &self.ids,
        }
    }

    /// A connection after CONNACK.
    ///
    /// # Panics
    /// Never: the machine takes what it is told.
    #[must_use]
    pub fn publisher(&self, version: ProtocolVersion) -> Publisher {
        let connect = Connect {
            version,
            clean_start: true,
            keep_alive: 0,
            client_id: "bench",
            will: None,
            username: Some("name"),
            password: Some(b"secret"),
            properties: ConnectProperties::default(),
        };
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        connect.encode(version, &mut bytes);
        let mut publisher = Publisher {
            hot: Hot::new(0, Now::from_millis(0)),
            cold: Cold::AwaitConnect,
        };
        let rules = self.rules();
        let (_, step) = publisher.machine().step(&bytes, &rules, &mut out);
        assert!(matches!(step, Step::Identify(_)), "{step:?}");
        let known = IdentifyOutcome::Known(self.who, None);
        let step = publisher.machine().identified(known, &rules, &mut out);
        assert!(matches!(step, Step::Claim(_)), "{step:?}");
        let pending = publisher.machine().take_pending();
        let pending = pending.expect("a claim has its CONNECT");
        publisher
            .machine()
            .attach(pending, None, 1, &rules, &mut out);
        publisher
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Its machine.
    pub fn machine(&mut self) -> Machine<'_> {
        Machine::new(&mut self.hot, &mut self.cold)
    }
}

/// A QoS 0 PUBLISH with `payload` bytes, `count` times.
#[must_use]
pub fn publishes(version: ProtocolVersion, topic: &str, payload: usize, count: usize) -> Vec<u8> {
    let payload = vec![b'x'; payload];
    let publish = Publish {
        dup: false,
        retain: false,
        delivery: Delivery::AtMostOnce,
        topic,
        properties: PublishProperties::default(),
        payload: &payload,
    };
    let mut bytes = Vec::new();
    publish.encode(version, &mut bytes);
    bytes.repeat(count)
}
