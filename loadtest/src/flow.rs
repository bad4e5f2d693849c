//! One flow under way: who has sent what, what has arrived, and what is owed.

use std::time::{Duration, Instant};

use codec::mqtt::{
    Ack, Delivery, Frame, Packet, ProtocolVersion, QoS, ReasonCode, decode, publish_head,
};
use rustix::fd::OwnedFd;

use crate::error::Error;
use crate::frames::{Burst, Kind, stamp};
use crate::oracle;
use crate::pace::Pace;
use crate::plan::{Audience, Flow};
use crate::target::Target;
use crate::verify::{Seen, Verdict};
use crate::wire::Wire;

/// A flow under way.
pub(crate) struct Running<'p> {
    pub(crate) flow: &'p Flow,
    strict: bool,
    run: u32,
    streams: Vec<Stream>,
    pub(crate) publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// What a shared group has seen as a whole, by stream.
    group: Vec<Seen>,
    pace: Option<Pace>,
    /// Ticks given out.
    ticks: u64,
    /// Publishers that may send.
    ready: Vec<usize>,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) faults: Verdict,
    dice: u64,
}

/// What one publisher sends on one topic.
struct Stream {
    burst: Burst,
    /// Number of the next message.
    next: u64,
    /// When bursts were (to be) sent: burst `n` at `n % len`, a power of two.
    sent_at: Vec<Instant>,
}

pub(crate) struct Publisher {
    /// Streams: the first, and how many.
    first: usize,
    count: usize,
    /// Bursts sent.
    bursts: u64,
    /// Deliveries that have not arrived.
    undelivered: u64,
    /// Messages at QoS 1 and 2 whose exchange has not ended.
    unacknowledged: u64,
    /// What the broker takes without an acknowledgement.
    receive_maximum: u64,
    /// Bursts that are due and not sent: their ticks, oldest first.
    owed: std::collections::VecDeque<u64>,
    /// Something arrived since the last look.
    moved: bool,
    /// In `ready`.
    queued: bool,
}

struct Subscriber {
    /// The first stream it hears.
    first: usize,
    seen: Vec<Seen>,
}

/// Moments kept for each stream of an open loop without a window, if it has few streams. More than
/// so many bursts behind, latencies are no longer told apart.
const SENT_KEPT: usize = 4096;
const SENT_KEPT_ALL: usize = 1 << 18;

/// Bursts a publisher may owe; further ones are not sent and counted nowhere, so a rate that cannot
/// be held shows as a lower rate.
const OWED_MAX: usize = 1 << 16;

impl<'p> Running<'p> {
    pub(crate) fn new(
        flow: &'p Flow,
        target: &Target,
        topic_base: usize,
        run: u32,
        strict: bool,
    ) -> Running<'p> {
        let streams = flow.streams();
        let kept = match flow.window {
            Some(window) => (window / flow.burst).max(1).next_power_of_two(),
            None => (SENT_KEPT_ALL / streams)
                .clamp(1, SENT_KEPT)
                .next_power_of_two(),
        };
        let now = Instant::now();
        let stream = |at| {
            let topic = flow.name_of(target, topic_base, flow.topic_of(at));
            let kind = Kind {
                run,
                stream: at as u32,
                topic: &topic,
                qos: flow.qos,
                payload_bytes: flow.payload_bytes,
                version: flow.version,
                properties: flow.properties,
            };
            Stream {
                burst: Burst::new(&kind, flow.burst),
                next: 0,
                sent_at: vec![now; kept],
            }
        };
        let publisher = |at| {
            let (first, count) = flow.sent(at);
            Publisher {
                first,
                count,
                bursts: 0,
                undelivered: 0,
                unacknowledged: 0,
                receive_maximum: u64::from(u16::MAX),
                owed: std::collections::VecDeque::new(),
                moved: false,
                queued: false,
            }
        };
        let subscriber = |at| {
            let (first, count) = flow.heard(at);
            let seen = vec![Seen::default(); count];
            Subscriber { first, seen }
        };
        let group = match flow.audience {
            Audience::Group => vec![Seen::default(); streams],
            Audience::One | Audience::All => Vec::new(),
        };
        Running {
            flow,
            strict,
            run,
            streams: (0..streams).map(stream).collect(),
            publishers: (0..flow.publishers).map(publisher).collect(),
            subscribers: (0..flow.subscribers).map(subscriber).collect(),
            group,
            pace: None,
            ticks: 0,
            ready: Vec::new(),
            published: 0,
            delivered: 0,
            faults: Verdict::default(),
            dice: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// What the broker takes of a publisher.
    ///
    /// # Errors
    /// The window is larger.
    pub(crate) fn allow(&mut self, publisher: usize, receive_maximum: u16) -> Result<(), Error> {
        self.publishers[publisher].receive_maximum = receive_maximum.into();
        let window = self.flow.window.unwrap_or(self.flow.burst);
        if self.flow.qos == QoS::AtMostOnce || window <= usize::from(receive_maximum) {
            return Ok(());
        }
        Err(Error::Plan(format!(
            "{}: the broker takes {receive_maximum} messages in flight (Receive Maximum), and a \
             window of {window} was asked for",
            self.flow.name
        )))
    }

    /// Begins to send.
    pub(crate) fn begin(&mut self, now: Instant) {
        match self.flow.rate {
            Some(rate) => self.pace = Some(Pace::new(now, rate, self.flow.burst)),
            None => {
                for at in 0..self.publishers.len() {
                    self.look(at);
                }
            }
        }
    }

    /// When the next burst is due; `None` if the clock has no say.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pace.as_ref().map(|pace| pace.at(self.ticks))
    }

    /// Gives out the ticks that are due.
    pub(crate) fn tick(&mut self, now: Instant) {
        let Some(pace) = &self.pace else { return };
        let due = pace.ticks(now);
        let publishers = self.publishers.len() as u64;
        while self.ticks < due {
            let at = (self.ticks % publishers) as usize;
            let owed = &mut self.publishers[at].owed;
            if owed.len() < OWED_MAX {
                owed.push_back(self.ticks);
            }
            self.ticks += 1;
            self.look(at);
        }
    }

    /// Nothing more is sent.
    pub(crate) fn end(&mut self) {
        self.pace = None;
        for publisher in &mut self.publishers {
            publisher.owed.clear();
        }
        self.ready.clear();
    }

    /// Sends what may be sent. `wires` are those of the flow, `left` the messages still allowed.
    ///
    /// # Errors
    /// A connection is gone.
    pub(crate) fn send(
        &mut self,
        epoll: &OwnedFd,
        wires: &mut [Wire],
        now: Instant,
        left: &mut u64,
    ) -> Result<(), Error> {
        while let Some(at) = self.ready.pop() {
            self.publishers[at].queued = false;
            let wire = &mut wires[self.subscribers.len() + at];
            while *left > 0 && !wire.is_clogged() && self.may_send(at) {
                let intended = match (&self.pace, self.publishers[at].owed.pop_front()) {
                    (Some(pace), Some(tick)) => pace.at(tick),
                    (Some(_), None) => break,
                    (None, _) => now,
                };
                *left = left.saturating_sub(self.flow.burst as u64);
                self.publish(at, epoll, wire, intended)?;
            }
        }
        Ok(())
    }

    fn publish(
        &mut self,
        at: usize,
        epoll: &OwnedFd,
        wire: &mut Wire,
        intended: Instant,
    ) -> Result<(), Error> {
        let publisher = &mut self.publishers[at];
        let burst = self.flow.burst as u64;
        let turn = if self.flow.random && publisher.count > 1 {
            // xorshift64*: which topic comes next has to look random, no more.
            self.dice ^= self.dice >> 12;
            self.dice ^= self.dice << 25;
            self.dice ^= self.dice >> 27;
            self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
        } else {
            publisher.bursts
        };
        let stream = &mut self.streams[publisher.first + (turn % publisher.count as u64) as usize];
        let place = (stream.next / burst) as usize & (stream.sent_at.len() - 1);
        stream.sent_at[place] = intended;
        let bytes = stream
            .burst
            .numbered(stream.next, publisher.bursts.wrapping_mul(burst));
        stream.next += burst;
        publisher.bursts += 1;
        publisher.undelivered += burst * self.flow.deliveries() as u64;
        if self.flow.qos != QoS::AtMostOnce {
            publisher.unacknowledged += burst;
        }
        self.published += burst;
        wire.send(epoll, bytes)
    }

    #[inline]
    fn may_send(&self, at: usize) -> bool {
        let (flow, publisher) = (self.flow, &self.publishers[at]);
        let burst = flow.burst as u64;
        let room = match flow.window {
            Some(window) => {
                let may = window as u64 - burst;
                publisher.undelivered <= may * flow.deliveries() as u64
                    && publisher.unacknowledged <= may
            }
            None => true,
        };
        let taken = flow.qos == QoS::AtMostOnce
            || publisher.unacknowledged + burst <= publisher.receive_maximum;
        room && taken && (flow.rate.is_none() || !publisher.owed.is_empty())
    }

    /// Puts a publisher that may send on the list.
    #[inline]
    fn look(&mut self, at: usize) {
        if !self.publishers[at].queued && self.may_send(at) {
            self.publishers[at].queued = true;
            self.ready.push(at);
        }
    }

    /// A connection takes bytes again.
    pub(crate) fn unclogged(&mut self, connection: usize) {
        if let Some(at) = connection.checked_sub(self.subscribers.len()) {
            self.look(at);
        }
    }

    /// A packet for a connection of the flow. `note` is told how long a delivery took.
    ///
    /// # Errors
    /// It is no packet, or has no place here.
    #[inline]
    pub(crate) fn packet(
        &mut self,
        connection: usize,
        frame: &Frame<'_>,
        now: Instant,
        answers: &mut Vec<u8>,
        note: &mut impl FnMut(Duration),
    ) -> Result<(), Error> {
        if self.strict && !oracle::agrees(frame, self.flow.version) {
            self.faults.disputed += 1;
        }
        match connection.checked_sub(self.subscribers.len()) {
            None => self.delivery(connection, frame, now, answers, note),
            Some(at) => self.answered(at, frame, answers),
        }
    }

    #[inline]
    fn delivery(
        &mut self,
        subscriber: usize,
        frame: &Frame<'_>,
        now: Instant,
        answers: &mut Vec<u8>,
        note: &mut impl FnMut(Duration),
    ) -> Result<(), Error> {
        let version = self.flow.version;
        if let Some(payload) = plain(frame, version) {
            self.arrived(subscriber, payload, now, note);
            return Ok(());
        }
        let ack = |id| Ack::new(id, ReasonCode::SUCCESS);
        match decode(frame, version)? {
            Packet::Publish(publish) => {
                self.arrived(subscriber, publish.payload, now, note);
                match publish.delivery {
                    Delivery::AtMostOnce => {}
                    Delivery::AtLeastOnce(id) => ack(id).encode_puback(version, answers),
                    Delivery::ExactlyOnce(id) => ack(id).encode_pubrec(version, answers),
                }
            }
            Packet::PubRel(pubrel) => ack(pubrel.packet_id).encode_pubcomp(version, answers),
            other => return Err(Error::Unexpected(other.packet_type().name())),
        }
        Ok(())
    }

    #[inline]
    fn arrived(
        &mut self,
        at: usize,
        payload: &[u8],
        now: Instant,
        note: &mut impl FnMut(Duration),
    ) {
        let found = stamp(payload, self.flow.payload_bytes, self.strict);
        let Some(found) = found.filter(|found| found.run == self.run) else {
            self.faults.altered += 1;
            return;
        };
        let subscriber = &mut self.subscribers[at];
        let stream = found.stream as usize;
        let heard = stream.checked_sub(subscriber.first);
        let Some(seen) = heard.and_then(|at| subscriber.seen.get_mut(at)) else {
            self.faults.misdirected += 1;
            return;
        };
        let settled = match self.group.get_mut(stream) {
            None => seen.arrived(found.number),
            Some(group) => {
                seen.arrived_in_part(found.number);
                group.arrived_in_any_order(found.number)
            }
        };
        self.delivered += 1;
        let stream = &self.streams[stream];
        let place = (found.number / self.flow.burst as u64) as usize & (stream.sent_at.len() - 1);
        note(now.saturating_duration_since(stream.sent_at[place]));
        let publisher = found.stream as usize / (self.streams.len() / self.publishers.len());
        let one = &mut self.publishers[publisher];
        one.undelivered = one.undelivered.saturating_sub(settled);
        one.moved = true;
        self.look(publisher);
    }

    /// A packet for a publisher.
    fn answered(
        &mut self,
        at: usize,
        frame: &Frame<'_>,
        answers: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let version = self.flow.version;
        let ended = match decode(frame, version)? {
            Packet::PubAck(ack) | Packet::PubComp(ack) => Some(ack.reason),
            Packet::PubRec(ack) if ack.reason.is_error() => Some(ack.reason),
            Packet::PubRec(ack) => {
                Ack::new(ack.packet_id, ReasonCode::SUCCESS).encode_pubrel(version, answers);
                None
            }
            other => return Err(Error::Unexpected(other.packet_type().name())),
        };
        if let Some(reason) = ended {
            self.faults.refused += u64::from(reason.is_error());
            let publisher = &mut self.publishers[at];
            publisher.unacknowledged = publisher.unacknowledged.saturating_sub(1);
            publisher.moved = true;
            self.look(at);
        }
        Ok(())
    }

    /// Messages that do not arrive are lost; their publishers go on.
    pub(crate) fn give_up_stalled(&mut self) {
        for at in 0..self.publishers.len() {
            let publisher = &mut self.publishers[at];
            let stalled = !publisher.moved && !publisher.is_settled();
            publisher.moved = false;
            if !stalled {
                continue;
            }
            self.faults.unacknowledged += std::mem::take(&mut publisher.unacknowledged);
            publisher.undelivered = 0;
            for stream in publisher.first..publisher.first + publisher.count {
                let next = self.streams[stream].next;
                if let Some(group) = self.group.get_mut(stream) {
                    group.give_up(next);
                    continue;
                }
                for subscriber in &mut self.subscribers {
                    let heard = stream.checked_sub(subscriber.first);
                    if let Some(seen) = heard.and_then(|at| subscriber.seen.get_mut(at)) {
                        seen.give_up(next);
                    }
                }
            }
            self.look(at);
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.publishers.iter().all(Publisher::is_settled)
    }

    /// What was wrong with what arrived.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut verdict = self.faults;
        let sent = |at: usize| self.streams[at].next;
        for subscriber in &self.subscribers {
            for (at, seen) in (subscriber.first..).zip(&subscriber.seen) {
                let one = seen.verdict(sent(at));
                if self.group.is_empty() {
                    verdict += one;
                } else {
                    // A member misses what others got; what came to it came in order.
                    verdict.out_of_order += one.out_of_order;
                }
            }
        }
        for (at, seen) in self.group.iter().enumerate() {
            let one = seen.verdict(sent(at));
            verdict += Verdict {
                out_of_order: 0,
                // Late for the group is early for another member.
                ..one
            };
        }
        verdict
    }
}

impl Flow {
    /// Name of a topic.
    pub(crate) fn name_of(&self, target: &Target, topic_base: usize, topic: usize) -> String {
        let name = target.topic(topic_base + topic);
        if self.filters == 0 {
            name
        } else {
            name + "/value"
        }
    }

    /// What a connection subscribes to.
    pub(crate) fn filters_of(
        &self,
        target: &Target,
        topic_base: usize,
        connection: usize,
    ) -> Vec<String> {
        if connection >= self.subscribers {
            return Vec::new();
        }
        let group = match self.audience {
            Audience::Group => "$share/loadtest/",
            Audience::One | Audience::All => "",
        };
        let topics = self.topics_of(connection).flat_map(|topic| {
            let name = target.topic(topic_base + topic);
            (0..self.filters.max(1)).map(move |number| match (self.filters, number) {
                (0, _) => format!("{group}{name}"),
                (_, 0) => format!("{group}{name}/+"),
                (_, number) => format!("{group}{name}/+/other-{number}"),
            })
        });
        topics.collect()
    }
}

impl Publisher {
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
