//! What a shard looks at and does not change while it routes.

use std::sync::Arc;

use authcache::Gate;
use router::{ShardId, SlotId};
use session::{IdSource, ListenerRules, Now, Origin, Rules};

use crate::metrics::Counters;
use crate::shard::shared::Shared;

/// The surroundings of one shard during one turn.
pub(crate) struct Env<W> {
    pub(crate) id: ShardId,
    pub(crate) shared: Arc<Shared<W>>,
    pub(crate) gate: Gate,
    pub(crate) listeners: Vec<ListenerRules>,
    pub(crate) ids: IdSource,
    pub(crate) counters: Arc<Counters>,
    pub(crate) now: Now,
}

impl<W> Env<W> {
    /// Whether connections may be read and messages sent: not while the lease is over.
    pub(crate) fn may_serve(&self) -> bool {
        self.shared.cache.lease().valid(self.now.as_millis())
    }

    /// The second by this shard's own count. Shards count from different moments, so that what each
    /// does once a second does not come from all of them at once.
    pub(crate) fn own_second(&self) -> u32 {
        Now::from_millis(self.now.as_millis() + 1000 - self.phase_ms()).as_secs()
    }

    /// When the next one begins.
    pub(crate) fn next_own_second(&self) -> Now {
        Now::from_millis(u64::from(self.own_second()) * 1000 + self.phase_ms())
    }

    /// How far into a second its own begins.
    fn phase_ms(&self) -> u64 {
        (self.id.index() * 1000 / self.shared.shards().max(1)) as u64
    }

    /// The rules for the machine in `slot`.
    #[inline]
    pub(crate) fn rules(&self, slot: SlotId, listener: u8) -> Rules<'_> {
        Rules {
            gate: &self.gate,
            directory: self.shared.cache.directory(),
            limits: &self.shared.limits,
            // Listeners are numbered by the broker itself, from 0.
            listener: &self.listeners[usize::from(listener)],
            now: self.now,
            origin: Origin {
                shard: self.id,
                slot: Some(slot),
            },
            ids: &self.ids,
        }
    }
}
