//! What is to be done.

use std::time::Duration;

use codec::mqtt::{ProtocolVersion, QoS};

use crate::error::Error;
use crate::frames::PAYLOAD_MIN;
use crate::target::Target;

/// Who hears a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Audience {
    /// One subscriber: topics are shared out among the subscribers.
    One,
    /// Every subscriber: each subscribes to all topics.
    All,
    /// Any one subscriber: all are members of one shared subscription to each topic.
    Group,
}

/// Messages from some connections to others.
///
/// `streams() = max(publishers, topics)`: a stream is what one publisher sends on one topic. Both
/// numbers divide it, and with [`Audience::One`] the number of subscribers divides `topics`.
#[derive(Clone, Debug)]
pub struct Flow {
    /// What it is called in reports.
    pub name: String,
    /// Who hears a message.
    pub audience: Audience,
    /// Protocol version of its connections.
    pub version: ProtocolVersion,
    /// QoS of messages and subscriptions.
    pub qos: QoS,
    /// Size of a payload, which begins with what is needed to check it.
    pub payload_bytes: usize,
    /// Connections that publish.
    pub publishers: usize,
    /// Connections that subscribe.
    pub subscribers: usize,
    /// Topics, shared out among the publishers.
    pub topics: usize,
    /// Messages that a publisher sends with one system call.
    pub burst: usize,
    /// Messages of a publisher that may be on their way; a burst at least. `None` for no bound,
    /// which needs a rate.
    pub window: Option<usize>,
    /// Messages of all publishers in a second, sent by the clock; `None` sends as fast as the
    /// window allows.
    pub rate: Option<f64>,
    /// Filters of each subscriber for each topic: with 0 the topic itself, else one with a wildcard
    /// that matches and others that do not.
    pub filters: usize,
    /// User Properties of each message, in MQTT 5.
    pub properties: usize,
    /// Whether a publisher takes its topics at random instead of in turns.
    pub random: bool,
}

/// A load and what to measure of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is called in reports.
    pub name: String,
    /// Which broker, as whom, below which topics.
    pub target: Target,
    /// What flows at the same time.
    pub flows: Vec<Flow>,
    /// Load before the measurement begins.
    pub warm_up: Duration,
    /// How long is measured.
    pub duration: Duration,
    /// Ends the measurement after so many messages instead, and leaves out the warm-up.
    pub messages: Option<u64>,
    /// A process whose CPU time and memory are measured: the broker.
    pub pid: Option<u32>,
    /// Whether every byte is compared, and every packet read by a second decoder.
    pub strict: bool,
}

impl Flow {
    fn usual(name: &str, audience: Audience, counts: (usize, usize, usize)) -> Flow {
        let (publishers, subscribers, topics) = counts;
        Flow {
            name: name.to_owned(),
            audience,
            version: ProtocolVersion::V311,
            qos: QoS::AtMostOnce,
            payload_bytes: 64,
            publishers,
            subscribers,
            topics,
            burst: 1,
            window: Some(1),
            rate: None,
            filters: 0,
            properties: 0,
            random: false,
        }
    }

    /// Each publisher has a topic and a subscriber of its own. As all usual flows: 64 bytes, QoS 0,
    /// one message in flight, MQTT 3.1.1.
    pub fn pairs(pairs: usize) -> Flow {
        Flow::usual("pairs", Audience::One, (pairs, pairs, pairs))
    }

    /// All publishers share a topic with one subscriber.
    pub fn fan_in(publishers: usize) -> Flow {
        Flow::usual("fan-in", Audience::One, (publishers, 1, 1))
    }

    /// One publisher, one topic, many subscribers.
    pub fn fan_out(subscribers: usize) -> Flow {
        Flow::usual("fan-out", Audience::All, (1, subscribers, 1))
    }

    /// One topic, a shared subscription with many members.
    pub fn shared(publishers: usize, members: usize) -> Flow {
        Flow::usual("shared", Audience::Group, (publishers, members, 1))
    }

    /// Messages to devices at random, each with a topic of its own.
    pub fn to_devices(publishers: usize, devices: usize) -> Flow {
        Flow {
            random: true,
            window: None,
            ..Flow::usual("devices", Audience::One, (publishers, devices, devices))
        }
    }

    /// What publishers send on topics.
    pub(crate) fn streams(&self) -> usize {
        self.publishers.max(self.topics)
    }

    /// Connections: subscribers first, then publishers.
    pub(crate) fn connections(&self) -> usize {
        self.subscribers + self.publishers
    }

    /// How many deliveries one message leads to.
    pub(crate) fn deliveries(&self) -> usize {
        match self.audience {
            Audience::One | Audience::Group => 1,
            Audience::All => self.subscribers,
        }
    }

    pub(crate) fn topic_of(&self, stream: usize) -> usize {
        stream * self.topics / self.streams()
    }

    /// Streams that a subscriber hears: the first, and how many.
    pub(crate) fn heard(&self, subscriber: usize) -> (usize, usize) {
        match self.audience {
            Audience::One => {
                let each = self.streams() / self.subscribers;
                (subscriber * each, each)
            }
            Audience::All | Audience::Group => (0, self.streams()),
        }
    }

    /// Streams of a publisher: the first, and how many.
    pub(crate) fn sent(&self, publisher: usize) -> (usize, usize) {
        let each = self.streams() / self.publishers;
        (publisher * each, each)
    }

    /// Topics of a connection, without repetition.
    pub(crate) fn topics_of(&self, connection: usize) -> std::ops::Range<usize> {
        let (first, count) = match connection.checked_sub(self.subscribers) {
            None => self.heard(connection),
            Some(publisher) => self.sent(publisher),
        };
        self.topic_of(first)..self.topic_of(first + count - 1) + 1
    }

    /// # Errors
    /// What it asks for cannot be done.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let streams = self.streams();
        let none = self.publishers == 0 || self.subscribers == 0 || self.topics == 0;
        let uneven = |part: usize| none || !streams.is_multiple_of(part);
        let fault = if none {
            "publishers, subscribers and topics have to be 1 at least"
        } else if uneven(self.publishers) || uneven(self.topics) {
            "publishers and topics have to divide each other"
        } else if self.audience == Audience::One && !self.topics.is_multiple_of(self.subscribers) {
            "subscribers have to divide the topics (each topic has one subscriber)"
        } else if self.payload_bytes < PAYLOAD_MIN {
            "a payload needs 16 bytes to be recognised by; expected 16 to 16777216"
        } else if self.payload_bytes > PAYLOAD_MAX {
            "a payload has at most 16 MiB; expected 16 to 16777216"
        } else if self.burst == 0 || self.window.is_some_and(|window| window < self.burst) {
            "a burst has at least one message and fits in the window"
        } else if self.window.is_some_and(|window| window > WINDOW_MAX) {
            "a window has at most 16384 messages, so that Packet Identifiers are not used twice"
        } else if self.window.is_none() && self.rate.is_none() {
            "without a rate a window is needed: nothing else would bound what is on its way"
        } else if self.rate.is_some_and(|rate| !(0.001..=1e9).contains(&rate)) {
            "a rate is 0.001 to 1000000000 messages in a second"
        } else if self.properties > 0 && !self.version.is_v5() {
            "User Properties need MQTT 5"
        } else if self.streams() > u32::MAX as usize {
            "there are at most 4294967295 streams"
        } else {
            return Ok(());
        };
        Err(Error::Plan(format!("{}: {fault}", self.name)))
    }
}

impl Plan {
    /// The usual measurement of one flow.
    pub fn new(flow: Flow, target: Target) -> Plan {
        Plan {
            name: flow.name.clone(),
            target,
            flows: vec![flow],
            warm_up: Duration::from_millis(500),
            duration: Duration::from_secs(3),
            messages: None,
            pid: None,
            strict: false,
        }
    }

    /// What the load needs of the control side.
    pub fn need(&self) -> Need {
        let mut need = Need::default();
        for flow in &self.flows {
            for connection in 0..flow.connections() {
                let publishes = connection >= flow.subscribers;
                for topic in flow.topics_of(connection) {
                    need.rights.push(NeededRight {
                        client: need.clients + connection,
                        channel: need.channels + topic,
                        publishes,
                    });
                }
            }
            need.clients += flow.connections();
            need.channels += flow.topics;
        }
        need
    }

    /// # Errors
    /// What it asks for cannot be done.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.flows.is_empty() {
            return Err(Error::Plan(
                "there is no flow in it; expected one at least".into(),
            ));
        }
        if self.duration.is_zero() && self.messages.is_none() {
            let why = "the measurement needs a duration or a number of messages";
            return Err(Error::Plan(why.into()));
        }
        self.flows.iter().try_for_each(Flow::check)
    }
}

/// Clients, channels and rights that a load needs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Need {
    /// One for each connection.
    pub clients: usize,
    /// One for each topic.
    pub channels: usize,
    /// Who may do what where.
    pub rights: Vec<NeededRight>,
}

/// A client may publish to a channel, or subscribe to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NeededRight {
    /// Number of the client, which is that of its connection.
    pub client: usize,
    /// Number of the channel, which is that of its topic.
    pub channel: usize,
    /// Whether it publishes; otherwise it subscribes.
    pub publishes: bool,
}

impl Need {
    /// The same with at most `most` channels: topics share them.
    #[must_use]
    pub fn with_channels(mut self, most: usize) -> Need {
        let most = most.max(1);
        if self.channels > most {
            self.channels = most;
            for right in &mut self.rights {
                right.channel %= most;
            }
            self.rights
                .sort_unstable_by_key(|right| (right.publishes, right.client, right.channel));
            self.rights.dedup();
        }
        self
    }
}

const WINDOW_MAX: usize = 16_384;
const PAYLOAD_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    #[test]
    fn usual_flows_can_be_done_and_contradictions_are_refused() {
        let flows = [
            Flow::pairs(3),
            Flow::fan_in(3),
            Flow::fan_out(3),
            Flow::shared(2, 3),
        ];
        type Spoil = fn(&mut Flow);
        let spoilt: [(Spoil, &str); 9] = [
            (|flow| flow.publishers = 0, "1 at least"),
            (|flow| (flow.publishers, flow.topics) = (3, 2), "divide"),
            (|flow| flow.payload_bytes = 15, "16 bytes"),
            (|flow| flow.payload_bytes = 17 << 20, "16 MiB"),
            (|flow| flow.burst = 2, "burst"),
            (|flow| flow.window = Some(20_000), "16384"),
            (|flow| flow.window = None, "rate"),
            (|flow| flow.rate = Some(0.0), "rate"),
            (|flow| flow.properties = 1, "MQTT 5"),
        ];
        for flow in flows {
            flow.check().unwrap();
            for (spoil, expected) in spoilt {
                let mut flow = flow.clone();
                spoil(&mut flow);
                let error = flow.check().unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
            }
        }
    }

    #[test]
    fn streams_are_shared_out_without_gap_or_overlap() {
        // publishers, subscribers, topics
        for counts in [(3, 3, 3), (5, 1, 1), (2, 6, 12), (2, 6, 6), (6, 2, 2)] {
            let flow = Flow::usual("f", Audience::One, counts);
            flow.check().unwrap();
            let mut hearers = vec![0; flow.streams()];
            for subscriber in 0..flow.subscribers {
                let (first, count) = flow.heard(subscriber);
                let heard = hearers.iter_mut().enumerate().skip(first).take(count);
                for (stream, hearers) in heard {
                    *hearers += 1;
                    let topic = flow.topic_of(stream);
                    assert!(flow.topics_of(subscriber).contains(&topic), "{counts:?}");
                }
            }
            assert!(hearers.iter().all(|hearers| *hearers == 1), "{counts:?}");
            let sent: usize = (0..flow.publishers).map(|at| flow.sent(at).1).sum();
            assert_eq!(sent, flow.streams());
        }
    }

    #[test]
    fn need_names_each_right_once_and_folds_channels() {
        let endpoint = Endpoint::tcp(([127, 0, 0, 1], 1883).into());
        let mut plan = Plan::new(Flow::pairs(4), Target::anonymous(endpoint, "t"));
        plan.flows.push(Flow::fan_in(3));
        let need = plan.need();
        assert_eq!((need.clients, need.channels), (12, 5));
        assert_eq!(need.rights.len(), 12);
        assert_eq!(need.rights[8].channel, 4, "the fan-in's own");
        let folded = need.with_channels(2);
        assert_eq!(folded.channels, 2);
        assert_eq!(folded.rights.len(), 12);
        assert!(folded.rights.iter().all(|right| right.channel < 2));
    }
}
