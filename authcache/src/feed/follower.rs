//! The broker's end of the feed.

use std::collections::{BTreeMap, VecDeque};

use super::message::{Activity, Answer, FeedError, Frames, HELD_PART, Message, Question, Refusal};
use super::snapshot::{Assembly, Whole};
use super::{ASKS_MAX, LEASE_RENEW_MS, LEASE_UNLIMITED};
use crate::EntityId;
use crate::change::{Change, Identity};

/// What the owner of a [`Follower`] must do next, in this order and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowerEvent {
    /// Replace everything by this, then call [`Follower::applied`] once its fence has passed.
    Snapshot {
        /// The revision it is the state of.
        revision: u64,
        /// Whether what was told before is not part of its lineage: equal numbers of credentials
        /// mean nothing then, so all principals held begin anew.
        afresh: bool,
        /// The directory, domains before their channels.
        changes: Vec<Change>,
        /// The principals held that still exist; the others are gone.
        identities: Vec<Identity>,
    },
    /// Apply this transaction, then call [`Follower::applied`] once its fence has passed.
    Delta {
        /// Its revision.
        revision: u64,
        /// Its changes.
        changes: Vec<Change>,
    },
    /// A question was answered, as of the revision told last.
    Answer {
        /// The number that [`Follower::ask`] gave.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// The lease holds until the clock given to [`Follower::tick`] shows `until_ms`, as soon as
    /// `revision` is applied.
    Lease {
        /// [`LEASE_UNLIMITED`] while the pipe lives.
        until_ms: u64,
        /// The revision that must be applied first.
        revision: u64,
    },
    /// A revision is missing: call [`Follower::rejoin`] with the principals held.
    /// What is known may be used until the lease ends, and no longer.
    Gap {
        /// The revision that should have come.
        expected: u64,
        /// The one that came.
        told: u64,
    },
}

/// The broker's end: bytes in, [`FollowerEvent`]s out, questions asked and revisions applied.
///
/// One rule for the owner: handle an event before taking the next one. Questions may be asked at any
/// time; those without an answer survive a cut pipe and are asked again behind the next snapshot.
pub struct Follower {
    node: EntityId,
    incarnation: u64,
    /// Lineage and number of the last revision handed to the owner.
    lineage: Option<EntityId>,
    revision: u64,
    state: State,
    frames: Frames,
    out: Vec<u8>,
    events: VecDeque<FollowerEvent>,
    unanswered: BTreeMap<u64, Question>,
    next_number: u64,
    now_ms: u64,
    renew_at_ms: u64,
}

enum State {
    /// No pipe.
    Cut,
    /// A gap was found and the owner has not rejoined.
    Gap,
    /// Hello is on its way, its snapshot is not here.
    Joining(Assembly),
    /// Follows revision by revision.
    Live,
}

impl Follower {
    /// A follower of this node, without a pipe: call [`connected`](Self::connected) next.
    #[must_use]
    pub fn new(node: EntityId, incarnation: u64) -> Follower {
        Follower {
            node,
            incarnation,
            lineage: None,
            revision: 0,
            state: State::Cut,
            frames: Frames::default(),
            out: Vec::new(),
            events: VecDeque::new(),
            unanswered: BTreeMap::new(),
            next_number: 0,
            now_ms: 0,
            renew_at_ms: 0,
        }
    }

    /// A fresh pipe is there: joins with the principals held. Nothing of an older pipe is kept.
    pub fn connected(&mut self, held: Vec<EntityId>, now_ms: u64) {
        self.frames.clear();
        self.out.clear();
        self.now_ms = now_ms;
        self.rejoin(held);
    }

    /// The pipe is gone. Events that came over it are still handed out.
    pub fn disconnected(&mut self) {
        self.frames.clear();
        self.out.clear();
        self.state = State::Cut;
    }

    /// Says Hello again on the same pipe, after [`FollowerEvent::Gap`].
    pub fn rejoin(&mut self, mut held: Vec<EntityId>) {
        while held.len() > HELD_PART {
            let part = held.split_off(held.len() - HELD_PART);
            Message::Held { held: part }.put(&mut self.out);
        }
        Message::Hello {
            node: self.node,
            incarnation: self.incarnation,
            lineage: self.lineage,
            revision: self.revision,
            held,
        }
        .put(&mut self.out);
        self.state = State::Joining(Assembly::default());
        self.renew_at_ms = self.now_ms;
        self.renew();
    }

    /// Takes bytes of the pipe.
    ///
    /// # Errors
    /// The bytes are not the leader's: close the pipe.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(), FeedError> {
        if matches!(self.state, State::Cut) {
            return Ok(());
        }
        self.frames.push(bytes);
        while let Some(message) = self.frames.next()? {
            self.message(message)?;
        }
        Ok(())
    }

    /// The next thing to do, if any.
    pub fn poll(&mut self) -> Option<FollowerEvent> {
        self.events.pop_front()
    }

    /// Asks; the number comes back in [`FollowerEvent::Answer`]. With
    /// [`ASKS_MAX`] questions open, the answer is [`Refusal::Unavailable`] at once.
    pub fn ask(&mut self, question: Question) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        if self.unanswered.len() >= ASKS_MAX {
            let answer = Answer::Refused(Refusal::Unavailable);
            self.events
                .push_back(FollowerEvent::Answer { number, answer });
            return number;
        }
        // Before the snapshot there is no revision that an answer could stand behind.
        if matches!(self.state, State::Live) {
            Message::Ask {
                number,
                question: question.clone(),
            }
            .put(&mut self.out);
        }
        self.unanswered.insert(number, question);
        number
    }

    /// Gives a question up; an answer that still comes is not handed out.
    pub fn forget(&mut self, number: u64) {
        self.unanswered.remove(&number);
    }

    /// Whether control is followed revision by revision.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Live)
    }

    /// Tells what clients did; lost unless the follower [is live](Self::is_live).
    pub fn report(&mut self, clients: Vec<Activity>) {
        if self.is_live() {
            Message::Activity { clients }.put(&mut self.out);
        }
    }

    /// Tells control that nothing judged before `revision` is in any queue.
    pub fn applied(&mut self, revision: u64) {
        if !matches!(self.state, State::Cut) {
            Message::Applied { revision }.put(&mut self.out);
        }
    }

    /// Moves the bytes for the pipe behind what is in `out`.
    pub fn output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }

    /// Whether [`output`](Self::output) has anything to give.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Tells the time; a lease is asked for every [`LEASE_RENEW_MS`].
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.renew();
    }

    /// When [`tick`](Self::tick) has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<u64> {
        match self.state {
            State::Cut => None,
            State::Gap | State::Joining(_) | State::Live => {
                (self.renew_at_ms != LEASE_UNLIMITED).then_some(self.renew_at_ms)
            }
        }
    }

    /// Last revision handed out.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Questions without an answer.
    #[must_use]
    pub fn asks_open(&self) -> usize {
        self.unanswered.len()
    }

    fn renew(&mut self) {
        if matches!(self.state, State::Cut) || self.now_ms < self.renew_at_ms {
            return;
        }
        Message::Renew {
            sent_ms: self.now_ms,
        }
        .put(&mut self.out);
        self.renew_at_ms = self.now_ms.saturating_add(LEASE_RENEW_MS);
    }

    fn message(&mut self, message: Message) -> Result<(), FeedError> {
        match message {
            Message::Snapshot {
                lineage,
                afresh,
                revision,
                part,
                last,
                changes,
                identities,
            } => {
                let State::Joining(assembly) = &mut self.state else {
                    return Err(FeedError::Misplaced {
                        message: "Snapshot",
                    });
                };
                if let Some(whole) = assembly.add(revision, part, last, changes, identities)? {
                    self.joined(lineage, afresh, whole);
                }
                Ok(())
            }
            Message::Delta { revision, changes } => {
                self.delta(revision, changes);
                Ok(())
            }
            Message::Answer {
                number,
                revision,
                answer,
            } => {
                // Outside Live the answer belongs to a stream that is not followed any more; the
                // question is asked again behind the snapshot.
                if !matches!(self.state, State::Live) {
                    return Ok(());
                }
                if revision != self.revision {
                    return Err(FeedError::Misplaced { message: "Answer" });
                }
                if self.unanswered.remove(&number).is_some() {
                    self.events
                        .push_back(FollowerEvent::Answer { number, answer });
                }
                Ok(())
            }
            Message::Lease { until_ms, revision } => {
                if matches!(self.state, State::Live) {
                    if until_ms == LEASE_UNLIMITED {
                        self.renew_at_ms = LEASE_UNLIMITED;
                    }
                    self.events
                        .push_back(FollowerEvent::Lease { until_ms, revision });
                }
                Ok(())
            }
            Message::Held { .. }
            | Message::Hello { .. }
            | Message::Ask { .. }
            | Message::Applied { .. }
            | Message::Activity { .. }
            | Message::Renew { .. } => Err(FeedError::Misplaced {
                message: message.name(),
            }),
        }
    }

    fn joined(&mut self, lineage: EntityId, afresh: bool, whole: Whole) {
        self.lineage = Some(lineage);
        self.revision = whole.revision;
        self.state = State::Live;
        self.events.push_back(FollowerEvent::Snapshot {
            revision: whole.revision,
            afresh,
            changes: whole.changes,
            identities: whole.identities,
        });
        for (&number, question) in &self.unanswered {
            Message::Ask {
                number,
                question: question.clone(),
            }
            .put(&mut self.out);
        }
    }

    fn delta(&mut self, revision: u64, changes: Vec<Change>) {
        if !matches!(self.state, State::Live) {
            return;
        }
        let expected = self.revision + 1;
        if revision != expected {
            self.state = State::Gap;
            self.events.push_back(FollowerEvent::Gap {
                expected,
                told: revision,
            });
            return;
        }
        self.revision = revision;
        self.events
            .push_back(FollowerEvent::Delta { revision, changes });
    }
}
