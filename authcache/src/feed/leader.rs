//! Control's end of the feed.

use std::collections::{BTreeMap, VecDeque};

use super::link::{Link, Stage};
use super::message::{Activity, Answer, FeedError, Message, Question, Refusal};
use super::{ACTIVITY_MAX, ASKS_MAX, LEASE_MS, LEASE_SKEW_MS, LEASE_UNLIMITED};
use crate::EntityId;
use crate::change::{Change, Identity};

/// One broker's pipe, as the leader numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

/// What the lease of a link counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseTerms {
    /// [`LEASE_MS`] from each renewal: the pipe may fall silent without an end.
    Timed,
    /// The life of the pipe: both ends are in one process and see its end.
    Pipe,
}

/// Everything a broker must know, as of one revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    /// Whether what the broker was told before is not part of this lineage.
    pub afresh: bool,
    /// The directory, domains before their channels.
    pub changes: Vec<Change>,
    /// The principals that it holds and that still exist.
    pub identities: Vec<Identity>,
}

/// What the owner of a [`Leader`] must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderEvent {
    /// A broker said Hello: read the directory and these principals as of one revision and call
    /// [`Leader::snapshot`].
    Joined {
        /// Its link.
        link: LinkId,
        /// Lineage and number of the revision that it was told last.
        told: (Option<EntityId>, u64),
        /// Its node.
        node: EntityId,
        /// Number of the node's start.
        incarnation: u64,
        /// The principals it holds.
        held: Vec<EntityId>,
    },
    /// A broker asks: call [`Leader::answer`]. The same question comes again if its answer grew
    /// stale before it could be sent.
    Asked {
        /// The link.
        link: LinkId,
        /// The link's number for the question.
        number: u64,
        /// The question.
        question: Question,
    },
    /// Clients did something at a broker that has joined.
    Active {
        /// The broker's node.
        node: EntityId,
        /// Number of the node's start.
        incarnation: u64,
        /// What they did.
        clients: Vec<Activity>,
    },
    /// Every broker has applied this revision and all before it, or its lease has ended.
    Settled {
        /// The revision.
        revision: u64,
    },
    /// The broker does not read: close the pipe and call [`Leader::disconnected`].
    Overrun {
        /// The link.
        link: LinkId,
    },
}

/// Control's end of all feeds: revisions in, bytes for every broker out, and who has settled what.
///
/// `published <= committed`: the owner publishes committed revisions in order, each once, and may
/// have read answers and snapshots at a later revision than it has published; they wait here.
pub struct Leader {
    lineage: EntityId,
    revision: u64,
    settled: u64,
    now_ms: u64,
    /// Brokers of an earlier control may hold leases that nobody here knows, until this time.
    unknown_until_ms: u64,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    history: VecDeque<(u64, Vec<Change>)>,
    events: VecDeque<LeaderEvent>,
}

/// Revisions kept to see whether an answer grew stale; older answers are asked again.
const HISTORY: usize = 256;
/// Changes in them together, 64 bytes each and a route: at most 8 MiB beside the newest revision.
const HISTORY_CHANGES: usize = 65_536;
/// Times one question is put to the owner again before the broker is told to come back later.
const ATTEMPTS: u8 = 16;

impl Leader {
    /// A leader that has published everything up to `revision`.
    ///
    /// With `unknown_leases`, brokers in other processes may have been leased by a control before
    /// this one: nothing is settled until one whole lease has passed.
    #[must_use]
    pub fn new(revision: u64, unknown_leases: bool, now_ms: u64) -> Leader {
        Leader {
            revision,
            settled: if unknown_leases { 0 } else { revision },
            now_ms,
            unknown_until_ms: if unknown_leases {
                now_ms + LEASE_MS + LEASE_SKEW_MS
            } else {
                now_ms
            },
            lineage: EntityId::from_bytes([0; 16]),
            links: BTreeMap::new(),
            next_link: 0,
            history: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Publishes revisions of this lineage.
    #[must_use]
    pub fn of(mut self, lineage: EntityId) -> Leader {
        self.lineage = lineage;
        self
    }

    /// Publishes another lineage from now on, behind `revision`: some of what was published is not
    /// committed any more, because the database is older than it was. Every link is overrun, and
    /// nothing settles before their brokers' leases are over or they have applied the new state.
    pub fn begin_anew(&mut self, lineage: EntityId, revision: u64, now_ms: u64) {
        self.now_ms = now_ms;
        self.lineage = lineage;
        self.revision = revision;
        self.settled = 0;
        self.history.clear();
        for (&id, link) in &mut self.links {
            if !link.cut {
                self.events.push_back(LeaderEvent::Overrun { link: id });
            }
            link.strand();
        }
        self.settle();
    }

    /// A broker's pipe is there. It counts from its Hello on.
    pub fn connected(&mut self, terms: LeaseTerms, now_ms: u64) -> LinkId {
        self.now_ms = now_ms;
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.links.insert(id, Link::new(terms));
        id
    }

    /// The pipe is gone. What the broker may still trust counts until its lease has ended.
    pub fn disconnected(&mut self, link: LinkId, now_ms: u64) {
        self.now_ms = now_ms;
        if let Some(link) = self.links.get_mut(&link) {
            link.cut(now_ms);
        }
        self.settle();
    }

    /// Takes bytes of a link's pipe.
    ///
    /// # Errors
    /// The bytes are not a follower's: close the pipe and call [`disconnected`](Self::disconnected).
    pub fn input(&mut self, id: LinkId, bytes: &[u8], now_ms: u64) -> Result<(), FeedError> {
        self.now_ms = now_ms;
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        link.frames.push(bytes);
        while let Some(link) = self.links.get_mut(&id) {
            let Some(message) = link.frames.next()? else {
                break;
            };
            self.message(id, message)?;
        }
        self.settle();
        Ok(())
    }

    /// Tells a committed transaction to every broker. Revisions come in order, each once; one that
    /// was published already is ignored.
    pub fn publish(&mut self, revision: u64, changes: Vec<Change>) {
        if revision <= self.revision {
            return;
        }
        debug_assert_eq!(
            revision,
            self.revision + 1,
            "revisions are published without gaps"
        );
        let mut bytes = Vec::new();
        let delta = Message::Delta { revision, changes };
        delta.put(&mut bytes);
        self.revision = revision;
        for (&id, link) in &mut self.links {
            if !link.deliver(revision, &bytes) {
                self.events.push_back(LeaderEvent::Overrun { link: id });
            }
        }
        if let Message::Delta { changes, .. } = delta {
            self.history.push_back((revision, changes));
        }
        while self.history.len() > HISTORY
            || self.history.len() > 1 && self.history_changes() > HISTORY_CHANGES
        {
            self.history.pop_front();
        }
        self.release();
        self.settle();
    }

    /// Gives a link that joined what it asked for.
    pub fn snapshot(&mut self, id: LinkId, state: Snapshot) {
        let now_ms = self.now_ms;
        if let Some(link) = self.links.get_mut(&id) {
            link.snapshot(state, self.lineage, self.revision, &self.history, now_ms);
            if let Stage::Joining = link.stage {
                // The history does not reach back to the snapshot: it must be read again.
                self.events.push_back(LeaderEvent::Joined {
                    link: id,
                    told: link.told,
                    node: link.node,
                    incarnation: link.incarnation,
                    held: link.held.clone(),
                });
            }
        }
        self.settle();
    }

    /// Answers a question, as of `revision`, in its place in the stream: an answer from the future
    /// waits for that revision to be published, one that a later revision may have changed is asked
    /// again.
    pub fn answer(&mut self, id: LinkId, number: u64, revision: u64, answer: Answer) {
        self.answer_all([(id, number, revision, answer)]);
    }

    /// [Answers](Self::answer) several questions; what waits is looked through once for all of them.
    pub fn answer_all(&mut self, answers: impl IntoIterator<Item = (LinkId, u64, u64, Answer)>) {
        for (id, number, revision, answer) in answers {
            if let Some(link) = self.links.get_mut(&id)
                && link.unanswered.contains_key(&number)
            {
                link.waiting.push((number, revision, answer));
            }
        }
        self.release();
    }

    /// The next thing to do, if any.
    pub fn poll(&mut self) -> Option<LeaderEvent> {
        self.events.pop_front()
    }

    /// Moves the bytes for a link's pipe behind what is in `out`.
    pub fn output(&mut self, id: LinkId, out: &mut Vec<u8>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.output(out);
        }
    }

    /// Links that have bytes to write.
    pub fn writable(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.links
            .iter()
            .filter(|(_, link)| !link.out.is_empty())
            .map(|(&id, _)| id)
    }

    /// Whether every broker has applied `revision`, or its lease has ended.
    #[must_use]
    pub fn settled(&self, revision: u64) -> bool {
        revision <= self.settled
    }

    /// Last revision published.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Brokers that hold a lease.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.links
            .values()
            .filter(|link| link.leased(self.now_ms))
            .count()
    }

    /// Tells the time: leases end.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.settle();
    }

    /// When a revision that is not settled may become so by time alone.
    #[must_use]
    pub fn next_timeout(&self) -> Option<u64> {
        if self.now_ms < self.unknown_until_ms {
            return Some(self.unknown_until_ms);
        }
        let ends = self.links.values().filter(|link| link.leased(self.now_ms));
        ends.map(Link::lease_over_ms)
            .filter(|&end| end != LEASE_UNLIMITED)
            .min()
    }

    fn history_changes(&self) -> usize {
        self.history.iter().map(|(_, changes)| changes.len()).sum()
    }

    fn message(&mut self, id: LinkId, message: Message) -> Result<(), FeedError> {
        let now_ms = self.now_ms;
        match message {
            Message::Held { held } => self.link(id)?.hold(held),
            Message::Hello {
                node,
                incarnation,
                lineage,
                revision,
                held,
            } => self.hello(id, node, incarnation, (lineage, revision), held),
            Message::Ask { number, question } => {
                let link = self.link(id)?;
                if link.unanswered.len() >= ASKS_MAX {
                    return Err(FeedError::TooMany { what: "questions" });
                }
                link.unanswered.insert(number, (question.clone(), 0));
                self.events.push_back(LeaderEvent::Asked {
                    link: id,
                    number,
                    question,
                });
                Ok(())
            }
            Message::Applied { revision } => {
                let link = self.link(id)?;
                link.applied = link.applied.max(revision.min(link.sent));
                Ok(())
            }
            Message::Activity { clients } => {
                if clients.len() > ACTIVITY_MAX {
                    return Err(FeedError::TooMany { what: "activity" });
                }
                let link = self.link(id)?;
                if !matches!(link.stage, Stage::Live) {
                    return Err(FeedError::Misplaced {
                        message: "Activity",
                    });
                }
                let (node, incarnation) = (link.node, link.incarnation);
                self.events.push_back(LeaderEvent::Active {
                    node,
                    incarnation,
                    clients,
                });
                Ok(())
            }
            Message::Renew { sent_ms } => {
                self.link(id)?.renew(sent_ms, now_ms);
                Ok(())
            }
            Message::Snapshot { .. }
            | Message::Delta { .. }
            | Message::Answer { .. }
            | Message::Lease { .. } => Err(FeedError::Misplaced {
                message: message.name(),
            }),
        }
    }

    fn link(&mut self, id: LinkId) -> Result<&mut Link, FeedError> {
        self.links.get_mut(&id).ok_or(FeedError::Misplaced {
            message: "anything",
        })
    }

    fn hello(
        &mut self,
        id: LinkId,
        node: EntityId,
        incarnation: u64,
        told: (Option<EntityId>, u64),
        held: Vec<EntityId>,
    ) -> Result<(), FeedError> {
        // An older pipe of the same node is this broker before a cut, or a process that is gone: what
        // it may still trust is carried over, so that a rejoin does not make revokes wait twice.
        let mut lease_until = None;
        self.links.retain(|&other, link| {
            let same = other != id && link.cut && link.node == node;
            if same {
                lease_until = lease_until.max(link.lease_until_ms);
            }
            !same
        });
        let link = self.link(id)?;
        link.hold(held)?;
        link.join(node, incarnation, told, lease_until);
        let held = link.held.clone();
        self.events.push_back(LeaderEvent::Joined {
            link: id,
            told,
            node,
            incarnation,
            held,
        });
        Ok(())
    }

    /// Sends the answers whose revision has come.
    fn release(&mut self) {
        for (&id, link) in &mut self.links {
            if !matches!(link.stage, Stage::Live) {
                // Its follower asks everything again behind the snapshot.
                link.waiting.clear();
                continue;
            }
            let sent = link.sent;
            for (number, revision, answer) in std::mem::take(&mut link.waiting) {
                if revision > sent {
                    link.waiting.push((number, revision, answer));
                    continue;
                }
                let Some((question, attempts)) = link.unanswered.get_mut(&number) else {
                    continue;
                };
                let fresh =
                    revision == sent || holds_on(question, &answer, revision, &self.history);
                if !fresh && *attempts < ATTEMPTS {
                    *attempts += 1;
                    let question = question.clone();
                    self.events.push_back(LeaderEvent::Asked {
                        link: id,
                        number,
                        question,
                    });
                    continue;
                }
                let answer = if fresh {
                    answer
                } else {
                    Answer::Refused(Refusal::Unavailable)
                };
                link.unanswered.remove(&number);
                Message::Answer {
                    number,
                    revision: sent,
                    answer,
                }
                .put(&mut link.out);
            }
            if link.overrun() {
                self.events.push_back(LeaderEvent::Overrun { link: id });
            }
        }
    }

    fn settle(&mut self) {
        let now_ms = self.now_ms;
        self.links
            .retain(|_, link| !link.cut || link.leased(now_ms));
        if now_ms < self.unknown_until_ms {
            return;
        }
        let leased = self.links.values().filter(|link| link.leased(now_ms));
        let revision = leased
            .map(|link| link.applied)
            .min()
            .unwrap_or(self.revision);
        if revision > self.settled {
            self.settled = revision;
            self.events.push_back(LeaderEvent::Settled { revision });
        }
    }
}

/// Whether an answer read at `revision` is still right after all that was published since.
fn holds_on(
    question: &Question,
    answer: &Answer,
    revision: u64,
    history: &VecDeque<(u64, Vec<Change>)>,
) -> bool {
    // A no stays a no: whoever was told so before the grant was answered has no claim to it.
    if matches!(answer, Answer::Refused(_)) {
        return true;
    }
    if history
        .front()
        .is_none_or(|(oldest, _)| *oldest > revision + 1)
    {
        return false;
    }
    let since = history.iter().filter(|(told, _)| *told > revision);
    !since
        .flat_map(|(_, changes)| changes)
        .any(|change| match (question, answer) {
            (Question::Rights { principal, channel }, _) => {
                concerns_pair(change, *principal, *channel)
            }
            (Question::Key { client, .. }, _) => match change {
                Change::PrincipalSet { id, .. } | Change::PrincipalRemoved { id } => id == client,
                _ => false,
            },
            (_, Answer::Identity(identity, _)) => concerns(change, identity),
            (_, Answer::Rights(_) | Answer::Refused(_) | Answer::Key(_)) => true,
        })
}

fn concerns(change: &Change, identity: &Identity) -> bool {
    match change {
        Change::PrincipalSet { id, .. } | Change::PrincipalRemoved { id } => *id == identity.id,
        Change::RightSet { principal, .. } => *principal == identity.id,
        // A domain that ends or closes takes its clients with it; which are its own is in the kind,
        // and domains change too seldom to look.
        Change::DomainSet { .. } | Change::DomainRemoved { .. } => true,
        Change::ChannelRemoved { id } => identity.rights.iter().any(|(channel, _)| channel == id),
        Change::ChannelSet { .. } | Change::UserRightsStale { .. } => false,
    }
}

fn concerns_pair(change: &Change, user: EntityId, channel: EntityId) -> bool {
    match change {
        Change::PrincipalSet { id, .. } | Change::PrincipalRemoved { id } => *id == user,
        Change::RightSet { principal, .. } => *principal == user,
        Change::DomainSet { .. }
        | Change::DomainRemoved { .. }
        | Change::UserRightsStale { .. } => true,
        Change::ChannelSet { id, .. } | Change::ChannelRemoved { id } => *id == channel,
    }
}
