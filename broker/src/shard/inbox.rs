//! What shards and the control side tell a shard.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use authcache::feed::SharedKey;
use authcache::{ChannelIndex, Notice, PrincipalIndex};
use codec::mqtt::QoS;
use parking_lot::Mutex;
use router::{Group, ShardId};
use session::{Address, IdentifyOutcome, Message, Origin, Pending, RightsQuestion, Run};

use crate::shard::wires::Token;

/// One thing to do for another shard.
pub(crate) enum Post<W> {
    /// QoS 0 frames for the subscribers of this shard.
    Run(PostedRun),
    /// A message for the subscribers of this shard.
    Message(Arc<Message>),
    /// A message for one member of a shared group; `passed` once already by another shard.
    Shared {
        group: Arc<Group>,
        message: Arc<Message>,
        passed: bool,
    },
    /// A retained message for this shard's store; an empty payload removes.
    Retain(Arc<Message>),
    /// Which retained messages match?
    RetainedAsk(Box<RetainedAsk>),
    /// Retained messages for a new subscription.
    RetainedGive(Box<RetainedGive>),
    /// A connection that others accepted and this shard is to serve.
    Accepted { wire: W, listener: u8 },
    /// A connection whose session is at home here.
    Arrival(Box<Arrival<W>>),
    /// Control's answer to a question about a connection.
    Identified {
        token: Token,
        outcome: IdentifyOutcome,
    },
    /// The secret that a handshake waits for, if there is one.
    Key { number: u64, key: Option<SharedKey> },
    /// A right was asked for and is in the table now, or control could not be asked.
    RightsAnswered {
        token: Option<Token>,
        question: RightsQuestion,
        answered: bool,
    },
    /// Control changed something. `told` numbers what shards are told, in order.
    Notice { told: u64, notice: Notice },
    /// Acknowledge this round at the end of the turn. The second round of a fence names the last
    /// number that it covers: what other shards posted before they heard of it is here.
    Fence { round: u64, covers: Option<u64> },
    /// Control's state is known: accept clients by these rules.
    Serve(Vec<session::ListenerRules>),
    /// Read and accept nothing more; acknowledge at the end of the turn.
    Drain,
    /// Say goodbye to every client and close.
    Shutdown,
    /// Panic, to see what comes of it.
    #[cfg(test)]
    Panic,
}

/// A run whose frames lie in the batch that carries it, or beside it.
#[derive(Debug)]
pub(crate) struct PostedRun {
    pub(crate) address: Address,
    pub(crate) topic: Range<usize>,
    pub(crate) frames: Range<usize>,
    pub(crate) count: u32,
    pub(crate) longest: u32,
    pub(crate) version5: bool,
    pub(crate) origin: Origin,
    pub(crate) publisher: PrincipalIndex,
}

impl PostedRun {
    /// A run, whose frames are appended to `bytes`.
    pub(crate) fn new(run: &Run<'_>, bytes: &mut Vec<u8>) -> PostedRun {
        let start = bytes.len();
        bytes.extend_from_slice(run.frames);
        let end = bytes.len();
        // The topic is part of the first frame: found by its distance, or copied where a run was
        // made of frames that do not hold it.
        let inside = (run.topic.as_ptr() as usize).wrapping_sub(run.frames.as_ptr() as usize);
        let topic = if inside <= run.frames.len() && inside + run.topic.len() <= run.frames.len() {
            start + inside..start + inside + run.topic.len()
        } else {
            bytes.extend_from_slice(run.topic);
            end..end + run.topic.len()
        };
        PostedRun {
            address: run.address,
            topic,
            frames: start..end,
            count: run.count,
            longest: run.longest,
            version5: run.version5,
            origin: run.origin,
            publisher: run.publisher,
        }
    }

    pub(crate) fn run<'b>(&self, bytes: &'b [u8]) -> Run<'b> {
        Run {
            address: self.address,
            topic: &bytes[self.topic.clone()],
            frames: &bytes[self.frames.clone()],
            count: self.count,
            longest: self.longest,
            version5: self.version5,
            origin: self.origin,
            publisher: self.publisher,
        }
    }
}

/// The question for retained messages, and what the subscriber needs to receive them.
#[derive(Clone)]
pub(crate) struct RetainedAsk {
    pub(crate) shard: ShardId,
    pub(crate) token: Token,
    pub(crate) channel: ChannelIndex,
    pub(crate) filter: Box<str>,
    pub(crate) qos: QoS,
    pub(crate) identifier: Option<u32>,
    pub(crate) prefix: Option<Arc<str>>,
    /// Whether the end is to be told, even where nothing is retained.
    pub(crate) tell_end: bool,
}

/// The answer: everything that matches, given to the subscriber as it has room.
pub(crate) struct RetainedGive {
    pub(crate) ask: RetainedAsk,
    /// Who keeps them.
    pub(crate) from: ShardId,
    pub(crate) messages: Vec<Arc<Message>>,
    /// How many of them it has been given.
    pub(crate) given: usize,
}

/// A connection on its way to its session.
pub(crate) struct Arrival<W> {
    pub(crate) wire: W,
    pub(crate) pending: Box<Pending>,
    pub(crate) listener: u8,
    /// It came in on the shard where its session is at home.
    pub(crate) at_home: bool,
    /// Input behind the CONNECT.
    pub(crate) unread: Vec<u8>,
}

/// What one shard has for another at the end of a turn.
pub(crate) struct Batch<W> {
    pub(crate) posts: Vec<Post<W>>,
    /// The frames that runs refer to.
    pub(crate) bytes: Vec<u8>,
}

impl<W> Default for Batch<W> {
    fn default() -> Batch<W> {
        Batch {
            posts: Vec::new(),
            bytes: Vec::new(),
        }
    }
}

impl<W> Batch<W> {
    pub(crate) fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// Drops the runs whose frames lie behind the first `room` bytes; how many messages they had.
    fn drop_runs_behind(&mut self, room: usize) -> u64 {
        let mut dropped = 0;
        let mut kept = 0;
        self.posts.retain(|post| match post {
            Post::Run(run) if run.frames.end.max(run.topic.end) > room => {
                dropped += u64::from(run.count);
                false
            }
            Post::Run(run) => {
                kept = run.frames.end.max(run.topic.end);
                true
            }
            _ => true,
        });
        self.bytes.truncate(kept);
        self.bytes.shrink_to_fit();
        dropped
    }

    pub(crate) fn push_run(&mut self, run: &Run<'_>) {
        let posted = PostedRun::new(run, &mut self.bytes);
        self.posts.push(Post::Run(posted));
    }
}

/// The end of the queues to one shard. Batches keep the order in which they were posted, so what
/// was posted first by anybody is looked at first.
pub(crate) struct Inbox<W> {
    queue: Mutex<Queue<W>>,
    /// Whether a batch waits; read without the lock.
    waiting: AtomicBool,
    /// Whether so many messages wait that nobody should read more from clients.
    full: AtomicBool,
    /// Whether its shard owes so many deliveries that nobody should read more from clients.
    behind: AtomicBool,
    sleeping: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

struct Queue<W> {
    batches: Vec<Batch<W>>,
    bytes: usize,
    /// Bytes of messages, which are not dropped: whoever reads from clients waits.
    messages: usize,
    /// Connections on their way.
    arrivals: usize,
}

impl<W> Post<W> {
    /// Bytes of a message that waits in an inbox.
    fn weight(&self) -> usize {
        match self {
            Post::Message(message) | Post::Retain(message) | Post::Shared { message, .. } => {
                size_of::<Self>() + message.weight()
            }
            _ => 0,
        }
    }
}

impl<W> Inbox<W> {
    /// Frames that may wait for one shard: beyond it QoS 0 runs of other shards are dropped.
    /// 64 shards would hold 1 GiB together at worst.
    pub(crate) const BYTES_MAX: usize = 16 << 20;

    /// Bytes of messages that may wait for one shard before the others stop reading. Each may go
    /// to thousands of subscribers, and all are looked at in one turn, so it is not much.
    const MESSAGES_MAX: usize = 2 << 20;

    pub(crate) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Inbox<W> {
        Inbox {
            queue: Mutex::new(Queue {
                batches: Vec::new(),
                bytes: 0,
                messages: 0,
                arrivals: 0,
            }),
            waiting: AtomicBool::new(false),
            full: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            wake,
        }
    }

    /// Adds a batch; how many runs of it were dropped because the inbox is full.
    pub(crate) fn post(&self, mut batch: Batch<W>) -> u64 {
        let mut dropped = 0;
        {
            let mut queue = self.queue.lock();
            let room = Self::BYTES_MAX.saturating_sub(queue.bytes);
            if batch.bytes.len() > room {
                dropped = batch.drop_runs_behind(room);
            }
            queue.bytes += batch.bytes.len();
            for post in &batch.posts {
                queue.messages += post.weight();
                queue.arrivals += usize::from(matches!(post, Post::Arrival(_)));
            }
            if queue.messages > Self::MESSAGES_MAX {
                self.full.store(true, Ordering::Relaxed);
            }
            if !batch.posts.is_empty() {
                queue.batches.push(batch);
                self.waiting.store(true, Ordering::Release);
            }
        }
        if self.sleeping.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
        dropped
    }

    /// Adds one post.
    pub(crate) fn post_one(&self, post: Post<W>) {
        self.post(Batch {
            posts: vec![post],
            bytes: Vec::new(),
        });
    }

    /// Takes everything that is there; how many connections are among it.
    pub(crate) fn take(&self, into: &mut Vec<Batch<W>>) -> usize {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        queue.messages = 0;
        self.full.store(false, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Relaxed);
        std::mem::swap(&mut queue.batches, into);
        std::mem::take(&mut queue.arrivals)
    }

    /// Whether so many messages wait that other shards should read nothing from their clients.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) || self.behind.load(Ordering::Relaxed)
    }

    /// Its shard is, or is no longer, so far behind with its deliveries that others should wait.
    pub(crate) fn set_behind(&self, behind: bool) {
        if self.behind.load(Ordering::Relaxed) != behind {
            self.behind.store(behind, Ordering::Relaxed);
        }
    }

    /// Whether something waits: whatever was posted before bytes that were read since is seen.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Shows what waits, to those who check.
    #[cfg(test)]
    pub(crate) fn look(&self, mut at: impl FnMut(&Batch<W>)) {
        self.queue.lock().batches.iter().for_each(&mut at);
    }

    /// Says that the shard is about to sleep; `false` if something came meanwhile.
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.queue.lock().batches.is_empty() {
            return true;
        }
        self.sleeping.store(false, Ordering::SeqCst);
        false
    }

    /// Says that the shard is awake.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use session::MessageParts;

    use super::*;

    fn message(payload: &[u8]) -> Arc<Message> {
        Arc::new(Message::new(MessageParts {
            address: Address {
                channel: ChannelIndex::new(1),
                wild: None,
                subtopic_at: 0,
            },
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: &["t"],
            properties: &[],
            payload,
            expires_at: None,
            origin: Origin {
                shard: ShardId::new(0),
                slot: None,
            },
            publisher: PrincipalIndex::new(1),
        }))
    }

    #[test]
    fn runs_that_do_not_fit_are_dropped_and_those_before_them_are_not() {
        let inbox: Inbox<()> = Inbox::new(Box::new(|| ()));
        let frame = [7; 1 << 20];
        let run = Run {
            address: message(b"").address(),
            topic: &frame[4..9],
            frames: &frame,
            count: 3,
            longest: 1 << 20,
            version5: false,
            origin: Origin {
                shard: ShardId::new(0),
                slot: None,
            },
            publisher: PrincipalIndex::new(1),
        };
        let mut batch = Batch::default();
        for at in 0..20 {
            batch.push_run(&run);
            if at == 18 {
                batch.posts.push(Post::Message(message(b"kept")));
            }
        }
        assert_eq!(inbox.post(batch), 4 * 3);
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken[0].posts.len(), 16 + 1);
        assert_eq!(taken[0].bytes.len(), 16 << 20);
    }

    #[test]
    fn inbox_with_too_many_messages_is_full_until_they_are_taken() {
        let inbox: Inbox<()> = Inbox::new(Box::new(|| ()));
        let message = message(&[0; 1024]);
        for _ in 0..1024 {
            inbox.post_one(Post::Message(Arc::clone(&message)));
        }
        assert!(!inbox.is_full());
        for _ in 0..1024 {
            inbox.post_one(Post::Message(Arc::clone(&message)));
        }
        assert!(inbox.is_full(), "2 MiB wait");
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), 2048, "none is dropped");
        assert!(!inbox.is_full());
    }
}
