//! What is to be done.

use std::time::Duration;

use codec::mqtt::{ProtocolVersion, QoS};

use crate::error::Error;
use crate::frames::PAYLOAD_MIN;
use crate::target::Target;

/// Who sends to whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Each publisher has a topic and a subscriber of its own.
    Pairs,
    /// All publishers share a topic with one subscriber.
    FanIn,
    /// One publisher, one topic, many subscribers.
    FanOut,
}

impl Shape {
    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Shape::Pairs => "pairs",
            Shape::FanIn => "fan-in",
            Shape::FanOut => "fan-out",
        }
    }
}

/// A load and what to measure of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who sends to whom.
    pub shape: Shape,
    /// Which broker, as whom, below which topic.
    pub target: Target,
    /// Protocol version of all connections.
    pub version: ProtocolVersion,
    /// QoS of messages and subscriptions.
    pub qos: QoS,
    /// Size of a payload, which begins with what is needed to check it.
    pub payload_bytes: usize,
    /// Connections that publish. Pairs have as many subscribers, fan-out has one publisher.
    pub publishers: usize,
    /// Connections that subscribe. Fan-in has one.
    pub subscribers: usize,
    /// Messages that a publisher sends with one system call.
    pub burst: usize,
    /// Messages of a publisher that may be on their way; a burst at least.
    pub window: usize,
    /// Load before the measurement begins.
    pub warm_up: Duration,
    /// How long is measured.
    pub duration: Duration,
    /// Ends the measurement after so many messages instead, and leaves out the warm-up.
    pub messages: Option<u64>,
    /// A process whose CPU time and memory are measured: the broker.
    pub pid: Option<u32>,
}

impl Plan {
    /// The usual load of a shape: 64 bytes, QoS 0, one message in flight, MQTT 3.1.1.
    pub fn new(shape: Shape, target: Target) -> Plan {
        let (publishers, subscribers) = match shape {
            Shape::Pairs => (100, 100),
            Shape::FanIn => (100, 1),
            Shape::FanOut => (1, 500),
        };
        Plan {
            shape,
            target,
            version: ProtocolVersion::V311,
            qos: QoS::AtMostOnce,
            payload_bytes: 64,
            publishers,
            subscribers,
            burst: 1,
            window: 1,
            warm_up: Duration::from_millis(500),
            duration: Duration::from_secs(3),
            messages: None,
            pid: None,
        }
    }

    /// Whether there is never more than one message of a publisher on its way.
    pub(crate) fn one_in_flight(&self) -> bool {
        self.window == 1
    }

    /// How many deliveries one message leads to.
    pub(crate) fn deliveries(&self) -> usize {
        match self.shape {
            Shape::Pairs | Shape::FanIn => 1,
            Shape::FanOut => self.subscribers,
        }
    }

    /// Topic of a publisher or subscriber.
    pub(crate) fn topic(&self, number: usize) -> String {
        let prefix = &self.target.topic_prefix;
        match self.shape {
            Shape::Pairs => format!("{prefix}/{number}"),
            Shape::FanIn | Shape::FanOut => format!("{prefix}/all"),
        }
    }

    /// # Errors
    /// What it asks for cannot be done.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let counts = match self.shape {
            Shape::Pairs => self.publishers == self.subscribers,
            Shape::FanIn => self.subscribers == 1,
            Shape::FanOut => self.publishers == 1,
        };
        let fault = if self.publishers == 0 || self.subscribers == 0 || !counts {
            "pairs need as many subscribers as publishers, fan-in one subscriber, fan-out one publisher"
        } else if self.payload_bytes < PAYLOAD_MIN {
            "a payload needs 16 bytes for its publisher and number"
        } else if self.payload_bytes > PAYLOAD_MAX {
            "a payload may have 16 MiB"
        } else if self.burst == 0 || self.window < self.burst {
            "a burst has at least one message and fits in the window"
        } else if self.window > WINDOW_MAX {
            "a window may have 16384 messages, so that Packet Identifiers are not used twice"
        } else if self.duration.is_zero() && self.messages.is_none() {
            "the measurement needs a duration or a number of messages"
        } else {
            return Ok(());
        };
        Err(Error::Plan(fault.into()))
    }
}

const WINDOW_MAX: usize = 16_384;
const PAYLOAD_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_plans_can_be_done_and_contradictions_are_refused() {
        let target = Target::anonymous(([127, 0, 0, 1], 1883).into(), "t");
        for shape in [Shape::Pairs, Shape::FanIn, Shape::FanOut] {
            let plan = Plan::new(shape, target.clone());
            plan.check().unwrap();
            let spoilt: [fn(&mut Plan); 5] = [
                |plan| plan.publishers += 1,
                |plan| plan.payload_bytes = 15,
                |plan| plan.burst = 2,
                |plan| plan.window = 0,
                |plan| plan.duration = Duration::ZERO,
            ];
            for (at, spoil) in spoilt.into_iter().enumerate() {
                let mut plan = plan.clone();
                spoil(&mut plan);
                let many = shape == Shape::FanIn && at == 0;
                assert_eq!(plan.check().is_ok(), many, "{shape:?} {at}");
            }
        }
    }
}
