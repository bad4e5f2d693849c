//! The closed loop: bursts out, deliveries in, the next burst when the last one has arrived.

use std::time::{Duration, Instant};

use codec::mqtt::{
    Ack, Delivery, Frame, Packet, ProtocolVersion, QoS, ReasonCode, decode, publish_head,
};
use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::fd::OwnedFd;

use crate::client::Dialer;
use crate::error::Error;
use crate::frames::{Burst, Stamp, stamp};
use crate::measure::{Usage, own_cpu};
use crate::plan::{Plan, Shape};
use crate::report::{Latency, Report, Sample};
use crate::verify::{Seen, Verdict};
use crate::wire::{READ_BYTES, Wire};

/// Carries a plan out: connects, loads, measures, and waits for what is still on its way.
///
/// # Errors
/// The plan cannot be done, or the broker ends it. Faults in what arrives are in the report.
pub fn run(plan: &Plan) -> Result<Report, Error> {
    plan.check()?;
    let mut load = Load::connect(plan)?;
    let mut before = load.sample()?;
    load.begin()?;
    if plan.messages.is_none() {
        let warm = Instant::now() + plan.warm_up;
        load.drive(|_, now| now >= warm)?;
        before = load.sample()?;
    }
    load.recording = true;
    let (end, most) = (Instant::now() + plan.duration, plan.messages);
    load.drive(|load, now| match most {
        Some(most) => load.published >= most && load.is_settled(),
        None => now >= end,
    })?;
    let after = load.sample()?;
    load.recording = false;
    load.messages_max = 0;
    load.drive(|load, _| load.is_settled())?;
    Ok(load.report(&before, &after))
}

/// A load in progress. Subscribers' wires come first, then publishers'.
struct Load<'p> {
    plan: &'p Plan,
    epoll: OwnedFd,
    wires: Vec<Wire>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    buffer: Vec<u8>,
    /// Answers to the packets of one receive.
    answers: Vec<u8>,
    /// Publishers that may send after one receive.
    ready: Vec<usize>,
    /// No more are sent when so many were.
    messages_max: u64,
    published: u64,
    delivered: u64,
    altered: u64,
    refused: u64,
    unacknowledged: u64,
    latency: Option<Histogram<u64>>,
    recording: bool,
}

struct Publisher {
    burst: Burst,
    /// Number of the next message.
    next: u64,
    /// Deliveries that have not arrived.
    undelivered: u64,
    /// Messages at QoS 1 and 2 whose exchange has not ended.
    unacknowledged: u64,
    sent_at: Instant,
    /// Something arrived since the last look.
    moved: bool,
    /// In `ready`.
    queued: bool,
}

struct Subscriber {
    /// The first publisher it hears.
    first: usize,
    seen: Vec<Seen>,
}

/// Between two looks at publishers whose messages do not arrive.
const STALL: Duration = Duration::from_secs(2);

/// Longest latency told apart: a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Longest sleep.
const TICK: rustix::event::Timespec = rustix::event::Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

impl<'p> Load<'p> {
    fn connect(plan: &'p Plan) -> Result<Load<'p>, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut dialer = Dialer::new(&plan.target, plan.version);
        let mut subscribers = dialer.connect(plan.subscribers)?;
        dialer.subscribe(&mut subscribers, plan.qos, |at| plan.topic(at))?;
        let publishers = dialer.connect(plan.publishers)?;
        let takes = publishers
            .iter()
            .map(|one| usize::from(one.receive_maximum));
        if let Some(takes) = takes.min().filter(|takes| *takes < plan.window)
            && plan.qos != QoS::AtMostOnce
        {
            let why = format!("the broker takes {takes} messages in flight (Receive Maximum)");
            return Err(Error::Plan(why));
        }
        let mut wires = Vec::with_capacity(plan.subscribers + plan.publishers);
        for dialed in subscribers.into_iter().chain(publishers) {
            wires.push(Wire::new(dialed.stream, dialed.number, &epoll)?);
        }
        let (version, qos, size) = (plan.version, plan.qos, plan.payload_bytes);
        let publisher = |at| Publisher {
            burst: Burst::new(at, &plan.topic(at), qos, size, version, plan.burst),
            next: 0,
            undelivered: 0,
            unacknowledged: 0,
            sent_at: Instant::now(),
            moved: false,
            queued: false,
        };
        let subscriber = |at| {
            let (first, count) = match plan.shape {
                Shape::Pairs => (at, 1),
                Shape::FanIn => (0, plan.publishers),
                Shape::FanOut => (0, 1),
            };
            let seen = vec![Seen::default(); count];
            Subscriber { first, seen }
        };
        let latency = plan
            .one_in_flight()
            .then(|| Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("bounds that are allowed"));
        Ok(Load {
            epoll,
            wires,
            publishers: (0..plan.publishers).map(publisher).collect(),
            subscribers: (0..plan.subscribers).map(subscriber).collect(),
            buffer: vec![0; READ_BYTES],
            answers: Vec::new(),
            ready: Vec::new(),
            messages_max: plan.messages.unwrap_or(u64::MAX),
            published: 0,
            delivered: 0,
            altered: 0,
            refused: 0,
            unacknowledged: 0,
            latency,
            recording: false,
            plan,
        })
    }

    fn begin(&mut self) -> Result<(), Error> {
        (0..self.publishers.len()).try_for_each(|at| self.publish(at))
    }

    /// Serves events until `done`.
    fn drive(&mut self, done: impl Fn(&Load<'_>, Instant) -> bool) -> Result<(), Error> {
        let mut events = Vec::with_capacity(1024);
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            if done(self, now) {
                return Ok(());
            }
            if now - looked > STALL {
                looked = now;
                self.give_up_stalled()?;
            }
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, Some(&TICK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (number, flags) = (event.data.u64() as usize, event.flags);
                if flags.contains(epoll::EventFlags::OUT) {
                    self.wires[number].writable(&self.epoll)?;
                }
                self.receive(number)?;
            }
        }
    }

    fn receive(&mut self, number: usize) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut wires = std::mem::take(&mut self.wires);
        let wire = &mut wires[number];
        let received = match number.checked_sub(self.subscribers.len()) {
            None => wire.receive(&mut buffer, |frame| self.delivery(number, frame)),
            Some(at) => wire.receive(&mut buffer, |frame| self.answered(at, frame)),
        };
        self.buffer = buffer;
        self.wires = wires;
        received?;
        if !self.answers.is_empty() {
            self.wires[number].send(&self.epoll, &self.answers)?;
            self.answers.clear();
        }
        while let Some(at) = self.ready.pop() {
            self.publishers[at].queued = false;
            self.publish(at)?;
        }
        Ok(())
    }

    /// Sends what the window of a publisher has room for.
    fn publish(&mut self, at: usize) -> Result<(), Error> {
        let wire = &mut self.wires[self.subscribers.len() + at];
        let publisher = &mut self.publishers[at];
        let burst = self.plan.burst as u64;
        while publisher.has_room(self.plan) && self.published < self.messages_max {
            let bytes = publisher.burst.numbered(publisher.next);
            publisher.next += burst;
            publisher.undelivered += burst * self.plan.deliveries() as u64;
            if self.plan.qos != QoS::AtMostOnce {
                publisher.unacknowledged += burst;
            }
            if self.latency.is_some() {
                publisher.sent_at = Instant::now();
            }
            self.published += burst;
            wire.send(&self.epoll, bytes)?;
        }
        Ok(())
    }

    /// A packet for a subscriber.
    #[inline]
    fn delivery(&mut self, number: usize, frame: &Frame<'_>) -> Result<(), Error> {
        if let Some(payload) = plain(frame, self.plan.version) {
            self.arrived(number, stamp(payload, self.plan.payload_bytes));
            return Ok(());
        }
        let version = self.plan.version;
        let ack = |id| Ack::new(id, ReasonCode::SUCCESS);
        match decode(frame, version)? {
            Packet::Publish(publish) => {
                self.arrived(number, stamp(publish.payload, self.plan.payload_bytes));
                match publish.delivery {
                    Delivery::AtMostOnce => {}
                    Delivery::AtLeastOnce(id) => ack(id).encode_puback(version, &mut self.answers),
                    Delivery::ExactlyOnce(id) => ack(id).encode_pubrec(version, &mut self.answers),
                }
            }
            Packet::PubRel(pubrel) => {
                ack(pubrel.packet_id).encode_pubcomp(version, &mut self.answers);
            }
            other => return Err(Error::Unexpected(other.packet_type().name())),
        }
        Ok(())
    }

    #[inline]
    fn arrived(&mut self, number: usize, stamp: Option<Stamp>) {
        let subscriber = &mut self.subscribers[number];
        let found = stamp.and_then(|stamp| {
            let at = usize::try_from(stamp.publisher).ok()?;
            let seen = subscriber.seen.get_mut(at.checked_sub(subscriber.first)?)?;
            Some((at, seen.arrived(stamp.number)))
        });
        let Some((at, settled)) = found else {
            self.altered += 1;
            return;
        };
        self.delivered += 1;
        if self.recording
            && let Some(latency) = &mut self.latency
        {
            let ns = self.publishers[at].sent_at.elapsed().as_nanos() as u64;
            latency.saturating_record(ns);
        }
        self.settle(at, settled);
    }

    #[inline]
    fn settle(&mut self, at: usize, settled: u64) {
        let publisher = &mut self.publishers[at];
        publisher.undelivered = publisher.undelivered.saturating_sub(settled);
        self.look(at);
    }

    /// Puts a publisher with room on the list.
    #[inline]
    fn look(&mut self, at: usize) {
        let publisher = &mut self.publishers[at];
        publisher.moved = true;
        if !publisher.queued && publisher.has_room(self.plan) {
            publisher.queued = true;
            self.ready.push(at);
        }
    }

    /// A packet for a publisher.
    fn answered(&mut self, at: usize, frame: &Frame<'_>) -> Result<(), Error> {
        let version = self.plan.version;
        let ended = match decode(frame, version)? {
            Packet::PubAck(ack) | Packet::PubComp(ack) => Some(ack.reason),
            Packet::PubRec(ack) if ack.reason.is_error() => Some(ack.reason),
            Packet::PubRec(ack) => {
                let pubrel = Ack::new(ack.packet_id, ReasonCode::SUCCESS);
                pubrel.encode_pubrel(version, &mut self.answers);
                None
            }
            other => return Err(Error::Unexpected(other.packet_type().name())),
        };
        if let Some(reason) = ended {
            self.refused += u64::from(reason.is_error());
            let publisher = &mut self.publishers[at];
            publisher.unacknowledged = publisher.unacknowledged.saturating_sub(1);
            self.look(at);
        }
        Ok(())
    }

    /// Messages that do not arrive are lost; their publishers go on.
    fn give_up_stalled(&mut self) -> Result<(), Error> {
        for at in 0..self.publishers.len() {
            let publisher = &mut self.publishers[at];
            let stalled = !publisher.moved && !publisher.is_settled();
            publisher.moved = false;
            if stalled {
                self.unacknowledged += std::mem::take(&mut publisher.unacknowledged);
                publisher.undelivered = 0;
                let next = publisher.next;
                for subscriber in &mut self.subscribers {
                    let seen = at.checked_sub(subscriber.first);
                    if let Some(seen) = seen.and_then(|at| subscriber.seen.get_mut(at)) {
                        seen.give_up(next);
                    }
                }
                self.publish(at)?;
            }
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.publishers.iter().all(Publisher::is_settled)
    }

    fn sample(&self) -> Result<Sample, Error> {
        Ok(Sample {
            at: Instant::now(),
            published: self.published,
            delivered: self.delivered,
            own_cpu: own_cpu(),
            broker: self.plan.pid.map(Usage::of).transpose()?,
        })
    }

    fn report(&self, before: &Sample, after: &Sample) -> Report {
        let mut verdict = Verdict {
            altered: self.altered,
            refused: self.refused,
            unacknowledged: self.unacknowledged,
            ..Verdict::default()
        };
        for subscriber in &self.subscribers {
            for (seen, publisher) in subscriber
                .seen
                .iter()
                .zip(&self.publishers[subscriber.first..])
            {
                verdict += seen.verdict(publisher.next);
            }
        }
        let latency = self.latency.as_ref().and_then(Latency::of);
        Report::new(self.plan, before, after, latency, verdict)
    }
}

impl Publisher {
    #[inline]
    fn has_room(&self, plan: &Plan) -> bool {
        let may = (plan.window - plan.burst) as u64;
        self.undelivered <= may * plan.deliveries() as u64 && self.unacknowledged <= may
    }

    fn is_settled(&self) -> bool {
        self.undelivered == 0 && self.unacknowledged == 0
    }
}

/// Payload of a QoS 0 PUBLISH without properties.
#[inline]
fn plain<'a>(frame: &Frame<'a>, version: ProtocolVersion) -> Option<&'a [u8]> {
    let head = publish_head(frame)?;
    if !version.is_v5() {
        return Some(head.rest);
    }
    match head.rest {
        [0, payload @ ..] => Some(payload),
        _ => None,
    }
}
