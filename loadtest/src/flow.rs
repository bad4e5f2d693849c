//! One flow under way: who has sent what, what has arrived, and what is owed.

use std::time::{Duration, Instant};

use codec::mqtt::{
    Ack, Delivery, Frame, Packet, ProtocolVersion, QoS, ReasonCode, decode, publish_head,
};
use rustix::fd::OwnedFd;

use crate::error::Error;
use crate::frames::{Burst, Kind, stamp};
use crate::oracle;
use crate::pace::{Clock, Pace};
use crate::plan::{Audience, Flow};
use crate::target::Target;
use crate::verify::{Seen, Verdict};
use crate::wire::Wire;

/// What of a flow this process carries. What is sent in a `run` tells so.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Share {
    /// All of it.
    Whole { run: u32 },
    /// Its publishers and some of its subscribers; so many more are in other processes.
    Sent { run: u32, elsewhere: usize },
    /// Some of its subscribers; another process publishes.
    Heard { run: u32 },
}

/// A flow under way.
pub(crate) struct Running<'p> {
    pub(crate) flow: &'p Flow,
    strict: bool,
    pub(crate) share: Share,
    clock: Clock,
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
    sent: Vec<Sent>,
}

#[derive(Clone, Copy)]
struct Sent {
    /// How many bursts there were with this one; 0 before the first.
    bursts: u64,
    at: Instant,
}

pub(crate) struct Publisher {
    /// Streams: the first, and how many.
    first: usize,
    count: usize,
    /// Bursts sent.
    bursts: u64,
    /// Deliveries to subscribers of this process that have not arrived.
    undelivered: u64,
    /// Deliveries to those of other processes of whose arrival nothing was told.
    undelivered_elsewhere: u64,
    /// Deliveries to subscribers of this process that came, were passed over or given up.
    settled: u64,
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
        share: Share,
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
                run: share.run(),
                stream: at as u32,
                topic: &topic,
                qos: flow.qos,
                payload_bytes: flow.payload_bytes,
                version: flow.version,
                properties: flow.properties,
                timed: share.is_timed(),
            };
            Stream {
                burst: Burst::new(&kind, flow.burst),
                next: 0,
                sent: vec![Sent { bursts: 0, at: now }; kept],
            }
        };
        let publisher = |at| {
            let (first, count) = flow.sent(at);
            Publisher {
                first,
                count,
                bursts: 0,
                undelivered: 0,
                undelivered_elsewhere: 0,
                settled: 0,
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
            share,
            clock: Clock::new(),
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
        let number = stream.next / burst;
        let place = number as usize & (stream.sent.len() - 1);
        stream.sent[place] = Sent {
            bursts: number + 1,
            at: intended,
        };
        let bytes = stream.burst.numbered(
            stream.next,
            publisher.bursts.wrapping_mul(burst),
            self.clock.ns(intended),
        );
        stream.next += burst;
        publisher.bursts += 1;
        publisher.undelivered += burst * self.flow.deliveries() as u64;
        publisher.undelivered_elsewhere += burst * self.share.elsewhere() as u64;
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
                let deliveries = (flow.deliveries() + self.share.elsewhere()) as u64;
                publisher.undelivered + publisher.undelivered_elsewhere <= may * deliveries
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
        let timed = self.share.is_timed();
        let found = stamp(payload, self.flow.payload_bytes, self.strict, timed);
        let Some(found) = found.filter(|found| found.run == self.share.run()) else {
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
        let burst = found.number / self.flow.burst as u64;
        let told = timed.then_some(found.sent_ns);
        let Some(sent_at) = self.streams[stream].sent_at(burst, told, &self.clock) else {
            self.faults.altered += 1;
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
        note(now.saturating_duration_since(sent_at));
        let publisher = found.stream as usize / (self.streams.len() / self.publishers.len());
        let one = &mut self.publishers[publisher];
        one.undelivered = one.undelivered.saturating_sub(settled);
        one.settled += settled;
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

    /// So many more deliveries of a publisher are settled in other processes.
    pub(crate) fn settled_elsewhere(&mut self, publisher: usize, settled: u64) {
        let Some(one) = self.publishers.get_mut(publisher).filter(|_| settled > 0) else {
            return;
        };
        one.undelivered_elsewhere = one.undelivered_elsewhere.saturating_sub(settled);
        one.moved = true;
        self.look(publisher);
    }

    /// What is settled here of each publisher's deliveries.
    pub(crate) fn settled(&self) -> Vec<u64> {
        let settled = self.publishers.iter().map(|publisher| publisher.settled);
        settled.collect()
    }

    /// How many messages were sent on each stream.
    pub(crate) fn sent(&self) -> Vec<u64> {
        self.streams.iter().map(|stream| stream.next).collect()
    }

    /// So many were sent on each stream, in another process.
    pub(crate) fn was_sent(&mut self, sent: &[u64]) {
        for (stream, sent) in self.streams.iter_mut().zip(sent) {
            stream.next = *sent;
        }
    }

    /// Gives up what was sent before these numbers, one for each stream, and has not arrived.
    pub(crate) fn give_up(&mut self, before: &[u64]) {
        for publisher in 0..self.publishers.len() {
            let (first, count) = self.flow.sent(publisher);
            for (stream, number) in (first..).zip(before.iter().skip(first).take(count)) {
                let settled = self.give_up_stream(stream, *number);
                self.publishers[publisher].settled += settled;
            }
        }
    }

    /// Messages that do not arrive are lost; their publishers go on. The streams whose messages
    /// other processes have to give up, with the number before which they do: 0 for none.
    pub(crate) fn give_up_stalled(&mut self) -> Vec<u64> {
        let mut elsewhere = Vec::new();
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
                self.give_up_stream(stream, self.streams[stream].next);
            }
            if self.publishers[at].undelivered_elsewhere > 0 {
                elsewhere.resize(self.streams.len(), 0);
                let (first, count) = self.flow.sent(at);
                let before = elsewhere.iter_mut().zip(&self.streams);
                for (before, stream) in before.skip(first).take(count) {
                    *before = stream.next;
                }
            }
            self.look(at);
        }
        elsewhere
    }

    /// How many deliveries that settles.
    fn give_up_stream(&mut self, stream: usize, before: u64) -> u64 {
        if let Some(group) = self.group.get_mut(stream) {
            return group.give_up(before);
        }
        let mut settled = 0;
        for subscriber in &mut self.subscribers {
            let heard = stream.checked_sub(subscriber.first);
            if let Some(seen) = heard.and_then(|at| subscriber.seen.get_mut(at)) {
                settled += seen.give_up(before);
            }
        }
        settled
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

impl Share {
    pub(crate) fn run(self) -> u32 {
        match self {
            Share::Whole { run } | Share::Sent { run, .. } | Share::Heard { run } => run,
        }
    }

    /// Subscribers in other processes.
    #[inline]
    pub(crate) fn elsewhere(self) -> usize {
        match self {
            Share::Sent { elsewhere, .. } => elsewhere,
            Share::Whole { .. } | Share::Heard { .. } => 0,
        }
    }

    /// Whether payloads tell when they were sent.
    #[inline]
    fn is_timed(self) -> bool {
        !matches!(self, Share::Whole { .. })
    }

    /// Connections of a flow that are made in this process.
    pub(crate) fn connections(self, flow: &Flow) -> usize {
        match self {
            Share::Whole { .. } | Share::Sent { .. } => flow.connections(),
            Share::Heard { .. } => flow.subscribers,
        }
    }
}

impl Stream {
    /// When a burst was sent. `told` is what a payload says of it; `None` if another payload of the
    /// same burst (or its publisher) says otherwise.
    #[inline]
    fn sent_at(&mut self, burst: u64, told: Option<u64>, clock: &Clock) -> Option<Instant> {
        let place = burst as usize & (self.sent.len() - 1);
        let sent = &mut self.sent[place];
        let Some(told) = told else {
            return Some(sent.at);
        };
        let at = clock.moment(told)?;
        let bursts = burst.saturating_add(1);
        if sent.bursts < bursts {
            *sent = Sent { bursts, at };
        }
        (sent.bursts != bursts || sent.at == at).then_some(at)
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
        self.undelivered + self.undelivered_elsewhere + self.unacknowledged == 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    fn heard(running: &mut Running<'_>, subscriber: usize, number: u64, sent_ns: u64) {
        let kind = Kind {
            run: 1,
            stream: 0,
            topic: "",
            qos: QoS::AtMostOnce,
            payload_bytes: 32,
            version: ProtocolVersion::V311,
            properties: 0,
            timed: true,
        };
        let mut burst = Burst::new(&kind, 1);
        let packet = burst.numbered(number, 0, sent_ns);
        let payload = &packet[packet.len() - 32..];
        running.arrived(subscriber, payload, Instant::now(), &mut |_| {});
    }

    #[test]
    fn one_who_hears_tells_what_is_settled_and_judges_by_what_was_sent() {
        let endpoint = Endpoint::tcp(([127, 0, 0, 1], 1).into());
        let target = Target::anonymous(endpoint, "t");
        let flow = Flow {
            payload_bytes: 32,
            window: None,
            rate: Some(1.0),
            ..Flow::fan_out(2)
        };
        let mut running = Running::new(&flow, &target, 0, Share::Heard { run: 1 }, false);
        for (subscriber, number) in [(0, 0), (1, 0), (0, 2)] {
            heard(&mut running, subscriber, number, 1_000 + number);
        }
        assert_eq!(running.settled(), [4], "one was passed over");
        running.give_up(&[3]);
        assert_eq!(running.settled(), [6]);
        running.was_sent(&[4]);
        assert_eq!(running.verdict().lost, 5);
        // All deliveries of a burst were sent at the same time.
        heard(&mut running, 0, 3, 5_000);
        heard(&mut running, 1, 3, 6_000);
        assert_eq!((running.delivered, running.verdict().altered), (4, 1));
    }

    #[test]
    fn window_counts_deliveries_of_which_other_processes_have_not_told() {
        let endpoint = Endpoint::tcp(([127, 0, 0, 1], 1).into());
        let target = Target::anonymous(endpoint, "t");
        let flow = Flow::fan_out(1);
        let share = Share::Sent {
            run: 1,
            elsewhere: 2,
        };
        let mut running = Running::new(&flow, &target, 0, share, false);
        running.publishers[0].undelivered_elsewhere = 2;
        running.settled_elsewhere(0, 1);
        assert!(!running.may_send(0) && !running.is_settled());
        assert_eq!(running.give_up_stalled(), Vec::<u64>::new(), "it has moved");
        assert_eq!(running.give_up_stalled(), [0]);
        assert!(!running.may_send(0), "before they have given it up");
        running.settled_elsewhere(0, 1);
        assert!(running.may_send(0) && running.is_settled());
    }
}
