//! What shards share: indexes, interest, inboxes, limits, and the way to control.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use authcache::AuthCache;
use parking_lot::Mutex;
use router::{Interest, ShardId, SharedGroups};
use session::{Identify, Limits, RightsQuestion};

use crate::metrics::Counters;
use crate::shard::inbox::{Inbox, Post};
use crate::shard::tally::Activity;
use crate::shard::wires::Token;

/// Everything that more than one thread touches; each part has one writer or one lock.
pub(crate) struct Shared<W> {
    pub(crate) cache: Arc<AuthCache>,
    pub(crate) interest: Arc<Interest>,
    pub(crate) groups: Arc<SharedGroups>,
    pub(crate) inboxes: Vec<Inbox<W>>,
    pub(crate) counters: Vec<Arc<Counters>>,
    pub(crate) limits: Limits,
    pub(crate) control: ControlMailbox,
    /// Connections of the process, before and after CONNACK.
    pub(crate) connections: AtomicUsize,
    /// Retained messages of the process, and their bytes.
    pub(crate) retained: AtomicU64,
    pub(crate) retained_bytes: AtomicU64,
    /// Rounds before a shutdown that shards have passed, added up.
    pub(crate) drained: AtomicUsize,
    /// Keys the choice of home shards; random at each start.
    pub(crate) seed: u64,
}

impl<W> Shared<W> {
    pub(crate) fn shards(&self) -> usize {
        self.inboxes.len()
    }

    /// Posts to every shard.
    pub(crate) fn post_all(&self, post: impl Fn() -> Post<W>) {
        for inbox in &self.inboxes {
            inbox.post_one(post());
        }
    }

    /// The shard that keeps a channel's retained messages.
    pub(crate) fn home_of_channel(&self, channel: authcache::ChannelIndex) -> ShardId {
        ShardId::new((channel.index() % self.shards()) as u8)
    }
}

/// What a shard asks of the control side.
#[derive(Debug)]
pub(crate) enum ToControl {
    /// Who is this?
    Identify {
        shard: ShardId,
        token: Token,
        listener: u8,
        peer: Option<std::net::IpAddr>,
        what: Identify,
    },
    /// May this user read or write that channel? Without a token it is asked for a subscription
    /// that sleeps until the answer is there.
    Rights {
        shard: ShardId,
        token: Option<Token>,
        question: RightsQuestion,
    },
    /// What clients did.
    Activity {
        shard: ShardId,
        activity: Vec<Activity>,
    },
    /// What is the secret of the client with this identity? A handshake on the shard waits for it
    /// under this number.
    Key {
        shard: ShardId,
        number: u64,
        identity: String,
        peer: Option<std::net::IpAddr>,
    },
    /// A peer does not know the secret of the client with this identity.
    WrongKey {
        identity: String,
        peer: Option<std::net::IpAddr>,
    },
    /// The fence's round was passed at the end of a turn.
    Fenced { round: u64 },
    /// A shard has begun anew: what it was told and asked is lost.
    BegunAnew { shard: ShardId },
}

/// The queue from all shards to the control link. Questions are bounded; fences are at most one
/// per shard, new beginnings come from panics.
pub(crate) struct ControlMailbox {
    queue: Mutex<Vec<ToControl>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl ControlMailbox {
    /// Questions that may wait: beyond it a CONNECT gets 0x88. ~10 MiB with usual secrets, 576 MiB
    /// with user names and passwords of full size.
    const QUESTIONS_MAX: usize = 65_536;

    pub(crate) fn new(wake: Box<dyn Fn() + Send + Sync>) -> ControlMailbox {
        ControlMailbox {
            queue: Mutex::new(Vec::new()),
            wake,
        }
    }

    /// Adds a question; `false` when there are too many.
    pub(crate) fn ask(&self, question: ToControl) -> bool {
        let mut queue = self.queue.lock();
        if queue.len() >= ControlMailbox::QUESTIONS_MAX {
            return false;
        }
        queue.push(question);
        let first = queue.len() == 1;
        drop(queue);
        if first {
            (self.wake)();
        }
        true
    }

    /// Says that a round of the fence was passed.
    pub(crate) fn fenced(&self, round: u64) {
        self.queue.lock().push(ToControl::Fenced { round });
        (self.wake)();
    }

    /// Says that a shard has begun anew.
    pub(crate) fn begun_anew(&self, shard: ShardId) {
        self.queue.lock().push(ToControl::BegunAnew { shard });
        (self.wake)();
    }

    pub(crate) fn take(&self) -> Vec<ToControl> {
        std::mem::take(&mut *self.queue.lock())
    }
}
