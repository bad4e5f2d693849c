//! Everything together, and the scheduler that picks who acts next.

use std::collections::{BTreeMap, BTreeSet};

use authcache::Right;
use authcache::feed::LeaseTerms;
use codec::mqtt::ProtocolVersion;
use session::Limits;

use super::broker::Broker;
use super::client::{Around, Device, Role};
use super::database::Database;
use super::dice::Dice;
use super::ledger::{Ledger, NEVER};

/// What a run is like; the rest is chance.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) shards: usize,
    pub(super) devices: usize,
    pub(super) steps: usize,
    /// Chances in percent of control operations, cuts, and slow readers.
    pub(super) control: usize,
    pub(super) cuts: usize,
    pub(super) slow: usize,
    /// Whether the pipe to control is cut at times.
    pub(super) pipe_cuts: bool,
    pub(super) terms: LeaseTerms,
    /// Everybody is a client of one domain and may do everything on its two channels.
    pub(super) plain: bool,
    pub(super) limits: Limits,
}

impl Shape {
    /// The shape that a seed stands for.
    pub(super) fn of(dice: &mut Dice) -> Shape {
        let terms = if dice.percent(70) {
            LeaseTerms::Pipe
        } else {
            LeaseTerms::Timed
        };
        let mut limits = Limits {
            receive_maximum: *dice.pick(&[2, 8, 64]),
            max_inflight_out: *dice.pick(&[1, 4, 64]),
            ..Limits::default()
        };
        let (shards, devices) = (1 + dice.roll(3), 3 + dice.roll(4));
        let steps = 200 + dice.roll(400);
        // Taken from what was rolled, so that a seed's story stays what it was.
        limits.fanout_slice = [1, 2, 4096][steps % 3];
        Shape {
            shards,
            devices,
            steps,
            control: *dice.pick(&[0, 2, 5]),
            cuts: *dice.pick(&[0, 1, 4]),
            slow: *dice.pick(&[0, 0, 20]),
            pipe_cuts: dice.percent(10),
            terms,
            plain: false,
            limits,
        }
    }

    /// Whether a turn may end before all input is looked at: what is left over when its connection
    /// ends was not accepted.
    pub(super) fn has_short_turns(&self) -> bool {
        self.limits.fanout_slice < Limits::default().fanout_slice
    }

    /// No accidents: for scenes that make their own.
    pub(super) fn plain(shards: usize, devices: usize) -> Shape {
        Shape {
            shards,
            devices,
            steps: 0,
            control: 0,
            cuts: 0,
            slow: 0,
            pipe_cuts: false,
            terms: LeaseTerms::Pipe,
            plain: true,
            limits: Limits::default(),
        }
    }
}

/// One simulation.
pub(super) struct World {
    pub(super) shape: Shape,
    pub(super) dice: Dice,
    pub(super) moment: u64,
    pub(super) database: Database,
    pub(super) broker: Broker,
    pub(super) ledger: Ledger,
    pub(super) devices: Vec<Device>,
    /// The shard that acts.
    pub(super) acting: usize,
    /// Last message delivered in order, by receiver, session, publisher, place and QoS.
    pub(super) order: BTreeMap<super::watch::Row, u64>,
    /// Filters that were ever asked for.
    pub(super) asked: BTreeSet<(usize, usize, &'static str)>,
    /// Secrets that were changed: whose, up to which, the revision, and when it was answered.
    pub(super) rotations: Vec<(usize, u64, u64, u64)>,
    /// The lease was over at some time: wills may be lost, CONNECTs refused.
    pub(super) lease_was_over: bool,
    /// Bits of the last actions, kept when somebody wants to read them.
    trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, trace: bool) -> World {
        let mut dice = Dice::new(seed);
        let shape = Shape::of(&mut dice);
        World::shaped(shape, dice, trace)
    }

    pub(super) fn shaped(shape: Shape, mut dice: Dice, trace: bool) -> World {
        let plain = shape.plain;
        let domains = if plain { 1 } else { 1 + dice.roll(2) };
        let more = if plain { 1 } else { 1 + dice.roll(2) };
        let mut database = Database::new(domains, domains + more);
        let broker = Broker::new(shape.shards, shape.limits.clone(), shape.terms, &mut dice);
        broker.net.borrow_mut().partial = shape.slow;
        let mut devices = Vec::new();
        for number in 0..shape.devices {
            let role = match number {
                0 => Role::Observer,
                _ if plain => Role::Mixed,
                1..4 => Role::Mixed,
                _ => *dice.pick(&[Role::Mixed, Role::Worker]),
            };
            let user = match role {
                Role::Observer => domains > 1,
                Role::Mixed => !plain && dice.percent(15),
                Role::Worker => false,
            };
            // Some share a principal, as several processes of one client do.
            let shared = !plain && role == Role::Mixed && number > 2 && dice.percent(20);
            let principal = if shared {
                devices.last().map_or(0, |last: &Device| last.principal)
            } else {
                database.add_principal(0, user)
            };
            devices.push(Device::new(number, principal, role, &mut dice));
            for channel in 0..database.channels.len() {
                let right = match role {
                    Role::Observer => Right::SUBSCRIBE,
                    Role::Mixed | Role::Worker if plain || dice.percent(75) => Right::BOTH,
                    Role::Mixed | Role::Worker => Right::from_bits(dice.roll(4) as u8),
                };
                let kept = database.right(principal, channel);
                database.begin_with(principal, channel, right | kept);
            }
        }
        database.voids = !plain && dice.percent(20);
        database.begin();
        let mut world = World {
            shape,
            dice,
            moment: 1,
            database,
            broker,
            ledger: Ledger::default(),
            devices,
            acting: 0,
            order: BTreeMap::new(),
            asked: BTreeSet::new(),
            rotations: Vec::new(),
            lease_was_over: false,
            trace: trace.then(Vec::new),
        };
        world.start();
        world
    }

    /// Control's state comes into force, and the observer subscribes.
    fn start(&mut self) {
        self.broker.join();
        for _ in 0..100 {
            self.round();
            if self
                .broker
                .shards
                .iter()
                .all(|driven| driven.shard.accepts())
            {
                break;
            }
        }
        self.lease_was_over = false;
        assert!(
            self.broker
                .shards
                .iter()
                .all(|driven| driven.shard.accepts()),
            "no start"
        );
        if self
            .devices
            .first()
            .is_some_and(|first| first.role == Role::Observer)
        {
            self.with(0, |device, around| device.connect(true, around));
            self.rounds(20);
            let channels = self.database.channels.len();
            self.observe(0..channels);
        }
    }

    /// The observer subscribes to whole channels.
    pub(super) fn observe(&mut self, channels: std::ops::Range<usize>) {
        let filters: Vec<_> = channels
            .filter(|channel| !self.database.channels[*channel].removed)
            .map(|channel| (channel, "#", codec::mqtt::QoS::ExactlyOnce, false, false))
            .collect();
        if !filters.is_empty() {
            self.with(0, |device, around| device.subscribe_to(filters, around));
        }
        self.rounds(20);
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        let (moment, now) = (self.moment, self.broker.now.as_millis());
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{moment:6} {now:8} ms  {}", what()));
        }
    }

    /// The last actions, for people.
    pub(super) fn story(&self, lines: usize) -> String {
        let trace = self.trace.as_deref().unwrap_or_default();
        trace[trace.len().saturating_sub(lines)..].join("\n")
    }

    /// A device that speaks `version`, keeps its session and takes everything.
    pub(super) fn settle_device(&mut self, number: usize, version: ProtocolVersion) {
        let device = &mut self.devices[number];
        device.version = version;
        device.expiry = 3600;
        device.keep_alive = 0;
        device.receive_maximum = u16::MAX;
        device.aliases = 0;
        device.moody = false;
        self.with(number, |device, around| device.connect(true, around));
        self.rounds(10);
        assert!(self.devices[number].live);
    }

    /// Lets a device act.
    pub(super) fn with<R>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Device, &mut Around<'_>) -> R,
    ) -> R {
        let mut net = self.broker.net.borrow_mut();
        let mut around = Around {
            net: &mut net,
            ledger: &mut self.ledger,
            database: &self.database,
            dice: &mut self.dice,
            now_ms: self.broker.now.as_millis(),
            shards: self.shape.shards,
        };
        let result = act(&mut self.devices[number], &mut around);
        drop(net);
        if let Some(complaint) = self.devices[number].complaint.take() {
            panic!("device {number}: {complaint}");
        }
        result
    }

    pub(super) fn run_shard(&mut self, at: usize) {
        if !self.broker.in_turn(at) {
            self.note(|| format!("turn of shard {at}"));
        }
        self.acting = at;
        self.broker.run(at, &mut self.dice);
        self.watch();
    }

    fn whole_turn(&mut self, at: usize) {
        if self.broker.may_run(at) {
            self.run_shard(at);
            while self.broker.in_turn(at) {
                self.run_shard(at);
            }
        }
    }

    pub(super) fn carry_one(&mut self, conn: usize, most: usize) {
        let (device, bytes, over) = {
            let mut net = self.broker.net.borrow_mut();
            net.carry_up(conn, most);
            let bytes = net.carry_down(conn, most);
            let over = net.conns[conn].closed && net.conns[conn].down.is_empty();
            (net.conns[conn].device, bytes, over)
        };
        if self
            .devices
            .get(device)
            .is_none_or(|device| device.conn != Some(conn))
        {
            return;
        }
        if !bytes.is_empty() {
            self.note(|| format!("device {device} hears {} bytes on {conn}", bytes.len()));
            self.with(device, |device, around| device.receive(&bytes, around));
        }
        if over && self.devices[device].conn == Some(conn) {
            self.note(|| format!("device {device} hears the end of {conn}"));
            self.devices[device].ended();
        }
    }

    /// Hears what control's leader settled.
    pub(super) fn settle(&mut self) {
        if let Some(revision) = self.broker.leader_events(&self.database) {
            self.moment += 1;
            self.note(|| format!("control answers revision {revision}"));
            self.database.settle(revision, self.moment);
            for rotation in &mut self.rotations {
                if rotation.2 <= revision && rotation.3 == NEVER {
                    rotation.3 = self.moment;
                }
            }
            self.moment += 1;
            self.check_queues();
            self.watch();
        }
    }

    pub(super) fn note_lease(&mut self) {
        self.lease_was_over |= !self.broker.has_lease();
    }

    /// Everybody has one go, in order.
    pub(super) fn round(&mut self) -> bool {
        self.moment += 1;
        let mut busy = false;
        for at in 0..self.shape.shards {
            let idle = !self.broker.may_run(at);
            self.whole_turn(at);
            busy |= !idle;
        }
        self.broker.link_requests();
        busy |= self.broker.control(&mut self.database, &mut self.dice);
        self.settle();
        busy |= self.broker.carry_feed(usize::MAX);
        self.settle();
        self.broker.link_requests();
        self.broker.tick();
        self.note_lease();
        let conns = self.broker.net.borrow().conns.len();
        for conn in 0..conns {
            busy |= {
                let net = self.broker.net.borrow();
                let conn = &net.conns[conn];
                !conn.closed && !conn.up.is_empty() || !conn.down.is_empty()
            };
            self.carry_one(conn, usize::MAX);
        }
        self.watch();
        busy
    }

    pub(super) fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.round();
            for number in 0..self.devices.len() {
                self.with(number, |device, around| while device.answer(around) {});
            }
        }
    }
}
