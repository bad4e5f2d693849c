//! A broker of one thread without sockets: it carries out what machines ask for.

use std::sync::Arc;

use codec::mqtt::{
    Connect, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, Subscription, UnsubscribeFilters,
    UserProperties,
};
use session::{
    Cold, Delivered, Departure, DropReason, FilterRequest, Hot, Identify, IdentifyOutcome, Machine,
    Message, MessageParts, Now, OutBuffer, Receipt, Receiving, Refusal, Refused, RightsQuestion,
    Run, Step, Will,
};

use crate::world::World;

pub(crate) use crate::client::{
    bytes_of, connect, id, lasting, packets, publish, publishes, subscribe, to,
};
pub(crate) use codec::mqtt::ProtocolVersion::{V5, V31, V311};

pub(crate) struct Conn {
    pub(crate) hot: Hot,
    pub(crate) cold: Cold,
    pub(crate) out: OutBuffer,
    /// Why it was closed, once it is.
    pub(crate) closed: Option<ReasonCode>,
    /// One line for each thing asked for.
    pub(crate) log: Vec<String>,
    pub(crate) drops: Vec<DropReason>,
    pub(crate) version: ProtocolVersion,
    /// Bytes not consumed.
    pub(crate) input: Vec<u8>,
    wait: Option<RightsQuestion>,
    ends_at: Option<Now>,
    will_at: Option<Now>,
}

pub(crate) struct Node {
    pub(crate) world: World,
    pub(crate) conns: Vec<Conn>,
    /// Messages that went to the router, in order.
    pub(crate) routed: Vec<Arc<Message>>,
    /// Wills that were sent.
    pub(crate) wills: Vec<String>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) health: u32,
    /// What the router answers.
    pub(crate) code: ReasonCode,
    /// Credentials are not looked at until `identify`.
    pub(crate) hold_identity: bool,
    epoch: u64,
}

/// What a step asks for, without a borrow.
enum Act {
    Go,
    Stop,
    Messages(Vec<Message>),
    Publish(Arc<Message>, Receipt),
    Subscribe(PacketId, Vec<u8>),
    Unsubscribe(PacketId, Vec<bool>),
    Wait(RightsQuestion),
    Identify(Identify),
    Claim,
    Close(ReasonCode),
}

impl Node {
    pub(crate) fn new() -> Node {
        Node {
            world: World::new(),
            conns: Vec::new(),
            routed: Vec::new(),
            wills: Vec::new(),
            refused: Vec::new(),
            health: 0,
            code: ReasonCode::SUCCESS,
            hold_identity: false,
            epoch: 0,
        }
    }

    /// A transport is there.
    pub(crate) fn dial(&mut self, version: ProtocolVersion) -> usize {
        self.conns.push(Conn {
            hot: Hot::new(0, self.world.now),
            cold: Cold::AwaitConnect,
            out: OutBuffer::default(),
            closed: None,
            log: Vec::new(),
            drops: Vec::new(),
            version,
            input: Vec::new(),
            wait: None,
            ends_at: None,
            will_at: None,
        });
        self.conns.len() - 1
    }

    /// Bytes from the client.
    pub(crate) fn feed(&mut self, at: usize, bytes: &[u8]) {
        self.conns[at].input.extend_from_slice(bytes);
        while self.conns[at].closed.is_none() && self.conns[at].wait.is_none() {
            let act = self.step(at);
            if matches!(act, Act::Stop) {
                break;
            }
            self.carry_out(at, act);
            self.conns[at].machine().invariants();
        }
    }

    fn step(&mut self, at: usize) -> Act {
        let Node {
            world,
            conns,
            refused,
            health,
            ..
        } = self;
        let conn = &mut conns[at];
        let rules = world.rules(at);
        let mut machine = Machine::new(&mut conn.hot, &mut conn.cold);
        let start = conn.out.bytes.len();
        let (used, step) = machine.step(&conn.input, &rules, &mut conn.out.bytes);
        conn.out.claim(start);
        let log = &mut conn.log;
        let act = match step {
            Step::Done if used > 0 => Act::Go,
            Step::Done | Step::Incomplete => Act::Stop,
            Step::Run(run) => Act::Messages(messages_of(&run)),
            Step::Publish(publication, receipt) => {
                Act::Publish(Arc::clone(&publication.0), receipt)
            }
            Step::Refused(why, count) => {
                for _ in 0..count {
                    log.push(format!("refused {why:?}"));
                    refused.push(why);
                }
                Act::Go
            }
            Step::Health => {
                *health += 1;
                Act::Go
            }
            Step::Subscribe(request) => {
                let codes = request.filters.iter().map(|filter| match filter {
                    FilterRequest::Granted(granted) => {
                        log.push(format!("replay {}", granted.replay));
                        granted.qos.as_u8()
                    }
                    FilterRequest::Refused(code) => code.get(),
                });
                Act::Subscribe(request.packet_id, codes.collect())
            }
            Step::Unsubscribe(request) => {
                let existed = request.filters.iter().map(Option::is_some).collect();
                Act::Unsubscribe(request.packet_id, existed)
            }
            Step::Wait(question) => Act::Wait(question),
            Step::Identify(what) => Act::Identify(what),
            Step::Claim(_) => Act::Claim,
            Step::Close(code) => Act::Close(code),
        };
        conn.input.drain(..used);
        act
    }

    fn carry_out(&mut self, at: usize, act: Act) {
        match act {
            Act::Go => self.pump(at),
            Act::Stop => {}
            Act::Messages(messages) => {
                for message in messages {
                    self.route(Arc::new(message), at);
                }
            }
            Act::Publish(message, receipt) => {
                if !self.code.is_error() {
                    self.route(message, at);
                }
                let code = self.code;
                let (mut machine, out) = self.conns[at].parts();
                machine.published(receipt, code, &mut out.bytes);
            }
            Act::Subscribe(id, mut codes) => {
                let (mut machine, out) = self.conns[at].parts();
                machine.subscribed(id, &mut codes, &mut out.bytes);
            }
            Act::Unsubscribe(id, existed) => {
                let (mut machine, out) = self.conns[at].parts();
                machine.unsubscribed(id, existed.into_iter(), &mut out.bytes);
            }
            Act::Wait(question) => self.conns[at].wait = Some(question),
            Act::Identify(what) => {
                self.conns[at].log.push(format!("{what:?}"));
                if !self.hold_identity {
                    let outcome = self.outcome(&what);
                    self.identify(at, outcome);
                }
            }
            Act::Claim => self.claim(at),
            Act::Close(code) => self.close(at, code),
        }
    }

    /// The password is `secret` for everybody; a token is the name of its owner.
    fn outcome(&self, what: &Identify) -> IdentifyOutcome {
        let who = match what {
            Identify::Password {
                username: Some(name),
                password: Some(password),
            } if password == b"secret" => self.world.who(name),
            Identify::Password { .. } => None,
            Identify::Token(token) => self.world.who(std::str::from_utf8(token).unwrap()),
            Identify::Certificate(_) => None,
        };
        match who {
            Some(who) => IdentifyOutcome::Known(who, None),
            None => IdentifyOutcome::Refused(Refusal::BadCredentials),
        }
    }

    pub(crate) fn identify(&mut self, at: usize, outcome: IdentifyOutcome) {
        let Node { world, conns, .. } = self;
        let (mut machine, out) = conns[at].parts();
        let step = machine.identified(outcome, &world.rules(at), &mut out.bytes);
        self.answered(at, step);
    }

    /// Control said what was asked: the user's right on a channel.
    pub(crate) fn answer_right(&mut self, at: usize, right: authcache::Right) {
        let question = self.conns[at].wait.take().expect("a right is asked for");
        self.world
            .writer
            .set_right(question.principal, question.channel, right);
        self.conns[at].hot.rights_changed();
        if self.conns[at].machine().is_before_connack() {
            let Node { world, conns, .. } = self;
            let (mut machine, out) = conns[at].parts();
            let step = machine.check_will(&world.rules(at), &mut out.bytes);
            self.answered(at, step);
        }
        self.feed(at, &[]);
    }

    fn answered(&mut self, at: usize, step: Step<'static>) {
        match step {
            Step::Claim(_) => self.claim(at),
            Step::Close(code) => self.close(at, code),
            Step::Wait(question) => self.conns[at].wait = Some(question),
            Step::Done => {}
            other => panic!("not an answer: {other:?}"),
        }
    }

    fn claim(&mut self, at: usize) {
        let pending = self.conns[at].machine().take_pending().unwrap();
        let key = pending.key();
        let owner = (0..self.conns.len()).find(|&at| {
            let mut machine = self.conns[at].machine();
            machine
                .session()
                .is_some_and(|session| session.key() == key)
        });
        if let Some(owner) = owner
            && self.conns[owner].closed.is_none()
        {
            self.fail(owner, ReasonCode::SESSION_TAKEN_OVER);
        }
        let parked = owner.and_then(|owner| self.conns[owner].machine().take_parked());
        let resumed = match parked {
            Some(mut session) if pending.clean_start() => {
                let will = session.take_will();
                self.send_will(will, at);
                None
            }
            parked => parked,
        };
        self.epoch += 1;
        let epoch = self.epoch;
        let Node { world, conns, .. } = self;
        let rules = world.rules(at);
        let (mut machine, out) = conns[at].parts();
        let present = resumed.is_some();
        let attached = machine.attach(pending, resumed, epoch, &rules, &mut out.bytes);
        assert_eq!(attached.session_present, present);
        self.pump(at);
    }

    pub(crate) fn pump(&mut self, at: usize) {
        let Node { world, conns, .. } = self;
        let conn = &mut conns[at];
        let mut machine = Machine::new(&mut conn.hot, &mut conn.cold);
        let drops = &mut conn.drops;
        machine.pump(&world.rules(at), 1 << 20, &mut conn.out, |reason| {
            drops.push(reason)
        });
    }

    /// The broker ends a connection.
    pub(crate) fn fail(&mut self, at: usize, code: ReasonCode) {
        let (mut machine, out) = self.conns[at].parts();
        machine.fail(code, &mut out.bytes);
        self.close(at, code);
    }

    /// The connection is gone, by whomever.
    pub(crate) fn close(&mut self, at: usize, code: ReasonCode) {
        let now = self.world.now;
        let conn = &mut self.conns[at];
        conn.closed = Some(code);
        match conn.machine().disconnected(now) {
            Departure::Stranger => {}
            Departure::Parked(parked, will) => {
                conn.ends_at = parked.ends_at;
                conn.will_at = parked.will_at;
                self.send_will(will, at);
            }
            Departure::Ended(mut session) => {
                let will = session.take_will();
                self.send_will(will, at);
            }
        }
    }

    fn send_will(&mut self, will: Option<Will>, at: usize) {
        let Some(will) = will else { return };
        let rules = self.world.rules(at);
        let message = will.into_message(self.world.dev, rules.origin, rules.now);
        self.wills.push(message.topic().to_owned());
        self.route(Arc::new(message), usize::MAX);
    }

    /// Time passes: keep alives, wills and sessions end.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.world.now = self.world.now.plus_millis(ms);
        let now = self.world.now;
        for at in 0..self.conns.len() {
            let conn = &mut self.conns[at];
            if conn.closed.is_none() {
                if conn
                    .hot
                    .silence_ends_s()
                    .is_some_and(|end| end <= now.as_secs())
                {
                    self.fail(at, ReasonCode::KEEP_ALIVE_TIMEOUT);
                }
                continue;
            }
            if conn.will_at.is_some_and(|at| at <= now) {
                conn.will_at = None;
                let will = conn
                    .machine()
                    .session()
                    .and_then(|session| session.take_will());
                self.send_will(will, at);
            }
            let conn = &mut self.conns[at];
            if conn.ends_at.is_some_and(|at| at <= now) {
                conn.ends_at = None;
                let will = conn
                    .machine()
                    .take_parked()
                    .and_then(|mut gone| gone.take_will());
                self.send_will(will, at);
            }
        }
    }

    /// One copy to each session with a matching subscription, by the rules of the specification.
    pub(crate) fn route(&mut self, message: Arc<Message>, from: usize) {
        if let Some(conn) = self.conns.get_mut(from) {
            conn.log.push(describe(&message));
        }
        self.routed.push(Arc::clone(&message));
        for at in 0..self.conns.len() {
            let Some(session) = self.conns[at]
                .machine()
                .session()
                .map(|session| session.subscriptions().to_vec())
            else {
                continue;
            };
            let address = message.address();
            let matching: Vec<_> = session
                .into_iter()
                .filter(|sub| sub.channel == address.channel || Some(sub.channel) == address.wild)
                .filter(|sub| matches(&sub.filter, message.subtopic()))
                .filter(|sub| !(sub.no_local && at == from))
                .collect();
            let Some(first) = matching.first() else {
                continue;
            };
            let identifiers: Vec<u32> = matching
                .iter()
                .filter_map(|sub| sub.identifier)
                .map(|id| id.get())
                .collect();
            let how = Receiving {
                qos: matching.iter().map(|sub| sub.qos).max().unwrap(),
                retain: message.retain() && matching.iter().any(|sub| sub.retain_as_published),
                identifiers: &identifiers,
                prefix: first.prefix.as_ref(),
                shared: None,
            };
            self.deliver(at, &message, &how);
        }
    }

    pub(crate) fn deliver(
        &mut self,
        at: usize,
        message: &Arc<Message>,
        how: &Receiving<'_>,
    ) -> Delivered {
        let Node { world, conns, .. } = self;
        let conn = &mut conns[at];
        let ready = conn.closed.is_none();
        let mut machine = Machine::new(&mut conn.hot, &mut conn.cold);
        let rules = world.rules(at);
        let delivered = machine.deliver(message, how, ready, &rules, &mut conn.out, |_| {});
        machine.invariants();
        if let Delivered::Dropped(reason) = delivered {
            conn.drops.push(reason);
        }
        delivered
    }

    /// A packet from the client.
    pub(crate) fn send(&mut self, at: usize, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.conns[at].version, &mut bytes);
        self.feed(at, &bytes);
    }

    /// What the client received since the last call.
    pub(crate) fn read(&mut self, at: usize) -> Vec<Packet<'static>> {
        let bytes = std::mem::take(&mut self.conns[at].out.bytes);
        self.conns[at].out.clear();
        packets(bytes, self.conns[at].version)
    }

    /// The only packet that the client received.
    pub(crate) fn read_one(&mut self, at: usize) -> Packet<'static> {
        let mut got = self.read(at);
        assert_eq!(got.len(), 1, "one packet expected: {got:?}");
        got.remove(0)
    }

    /// Connects and takes the CONNACK, which has to be 0x00; its Session Present.
    pub(crate) fn connect(&mut self, connect: &Connect<'_>) -> (usize, bool) {
        let at = self.dial(connect.version);
        self.send(at, &Packet::Connect(*connect));
        let got = self.read(at);
        let Some(Packet::ConnAck(connack)) = got.first() else {
            panic!("CONNACK expected: {got:?}")
        };
        assert_eq!(connack.reason, ReasonCode::SUCCESS);
        for packet in &got[1..] {
            packet.encode(connect.version, &mut self.conns[at].out.bytes);
        }
        (at, connack.session_present)
    }

    /// A connection of `dev` with a new session.
    pub(crate) fn fresh(&mut self, version: ProtocolVersion) -> usize {
        self.connect(&connect(version, "one")).0
    }

    /// Subscribes and takes the SUBACK; its codes.
    pub(crate) fn subscribe(&mut self, at: usize, filters: &[Subscription<'_>]) -> Vec<u8> {
        self.subscribe_with(at, None, filters)
    }

    pub(crate) fn subscribe_with(
        &mut self,
        at: usize,
        identifier: Option<u32>,
        filters: &[Subscription<'_>],
    ) -> Vec<u8> {
        let bytes = subscribe(self.conns[at].version, 9, identifier, filters);
        self.feed(at, &bytes);
        let Packet::SubAck(suback) = self.read_one(at) else {
            panic!("SUBACK expected")
        };
        assert_eq!(suback.packet_id.get(), 9);
        suback.codes.to_vec()
    }

    pub(crate) fn unsubscribe(&mut self, at: usize, filters: &[&str]) -> Packet<'static> {
        let mut block = Vec::new();
        for filter in filters {
            UnsubscribeFilters::put(filter, &mut block);
        }
        let packet = codec::mqtt::Unsubscribe {
            packet_id: id(11),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::parse(&block).unwrap(),
        };
        self.send(at, &Packet::Unsubscribe(packet));
        self.read_one(at)
    }
}

impl Conn {
    pub(crate) fn machine(&mut self) -> Machine<'_> {
        Machine::new(&mut self.hot, &mut self.cold)
    }

    fn parts(&mut self) -> (Machine<'_>, &mut OutBuffer) {
        (Machine::new(&mut self.hot, &mut self.cold), &mut self.out)
    }
}

fn describe(message: &Message) -> String {
    let payload = String::from_utf8_lossy(message.payload());
    format!(
        "{} {:?} {} {payload}",
        message.topic(),
        message.qos(),
        message.retain()
    )
}

fn messages_of(run: &Run<'_>) -> Vec<Message> {
    let version = if run.version5 { V5 } else { V311 };
    packets(run.frames.to_vec(), version)
        .into_iter()
        .map(|packet| {
            let Packet::Publish(publish) = packet else {
                panic!("a run is of PUBLISHes")
            };
            let mut properties = Vec::new();
            publish.properties.forwarded_into(&mut properties);
            Message::new(MessageParts {
                address: run.address,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: &[publish.topic],
                properties: &properties,
                payload: publish.payload,
                expires_at: None,
                origin: run.origin,
                publisher: run.publisher,
            })
        })
        .collect()
}

/// A naive matcher of the part below the channel.
fn matches(filter: &str, topic: &str) -> bool {
    if filter.is_empty() || topic.is_empty() {
        return filter == topic || filter == "#";
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}
