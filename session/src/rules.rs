//! What a step is judged by.

use std::cell::Cell;

use authcache::{Directory, Gate, OpenChannel};

use crate::limits::Limits;
use crate::message::Origin;
use crate::now::Now;

/// Everything outside the machine that a step looks at.
#[derive(Copy, Clone)]
pub struct Rules<'a> {
    /// The judge.
    pub gate: &'a Gate,
    /// Names to indexes.
    pub directory: &'a Directory,
    /// Bounds.
    pub limits: &'a Limits,
    /// The rules of the listener that the connection came through.
    pub listener: &'a ListenerRules,
    /// The moment.
    pub now: Now,
    /// The slot the machine is in.
    pub origin: Origin,
    /// Source of Assigned Client Identifiers.
    pub ids: &'a IdSource,
}

/// What a listener allows beyond `m/<domain>/c/<channel>`.
#[derive(Clone, Debug, Default)]
pub struct ListenerRules {
    /// The channel of topics outside the grammar, if the listener has an open namespace.
    pub open: Option<OpenChannel>,
    /// Whether a refused PUBLISH at QoS 0, which has no acknowledgement, ends the connection with
    /// its reason: for those who have to answer for each message.
    pub close_on_refused: bool,
    /// Whether losing the right of a subscription ends the connection; otherwise it sleeps.
    pub close_on_revoked: bool,
}

impl Rules<'_> {
    /// Whether a PUBLISH without a right ends a connection that cannot be told otherwise.
    pub(crate) fn closes_on_denied(&self) -> bool {
        self.limits.close_on_denied || self.listener.close_on_refused
    }
}

/// Makes Client Identifiers that no other connection of the node has.
#[derive(Debug)]
pub struct IdSource {
    /// Random per shard and start, so that restarts and shards do not collide.
    seed: u64,
    next: Cell<u64>,
}

impl IdSource {
    /// A source whose identifiers carry `seed`, which has to be random per shard and start.
    pub fn new(seed: u64) -> IdSource {
        IdSource {
            seed,
            next: Cell::new(0),
        }
    }

    /// A Client Identifier that was not given before. [MQTT-3.1.3-6] [MQTT-3.2.2-16]
    pub(crate) fn assign(&self) -> String {
        let number = self.next.get();
        self.next.set(number + 1);
        format!("auto-{:016x}-{number:x}", self.seed)
    }
}
