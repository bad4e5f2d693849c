//! What the leader knows of one broker.

use std::collections::{HashMap, VecDeque};

use super::leader::{LeaseTerms, Snapshot};
use super::message::{Answer, FeedError, Frames, HELD_MAX, Message, Question};
use super::{LEASE_MS, LEASE_SKEW_MS, LEASE_UNLIMITED, snapshot};
use crate::EntityId;
use crate::change::Change;

/// Bytes that may wait for a broker that does not read, beside the snapshot it asked for.
const LINK_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) enum Stage {
    /// No Hello yet.
    Connected,
    /// Hello is here, the snapshot is not.
    Joining,
    /// Follows revision by revision.
    Live,
    /// Fell too far behind, or its pipe is gone.
    Ended,
}

/// Invariant: `applied <= sent`; `out` is empty and the stage is `Ended` once `cut`.
pub(super) struct Link {
    pub(super) stage: Stage,
    pub(super) cut: bool,
    pub(super) node: EntityId,
    pub(super) incarnation: u64,
    /// Lineage and number of the revision that the broker was told last before it joined.
    pub(super) told: (Option<EntityId>, u64),
    pub(super) held: Vec<EntityId>,
    /// Last revision in the stream.
    pub(super) sent: u64,
    /// Last revision the broker confirmed.
    pub(super) applied: u64,
    /// When the broker stops trusting, by our clock; `None` if it never began.
    pub(super) lease_until_ms: Option<u64>,
    pub(super) frames: Frames,
    pub(super) out: Vec<u8>,
    pub(super) unanswered: HashMap<u64, (Question, u8)>,
    pub(super) waiting: Vec<(u64, u64, Answer)>,
    terms: LeaseTerms,
    /// A renewal that came before the snapshot: the broker's clock in it, and ours.
    renewal: Option<(u64, u64)>,
    /// Bytes of `out` that belong to the snapshot and do not count.
    snapshot_bytes: usize,
    /// Whether the list of principals held is still being told.
    telling: bool,
}

impl Link {
    pub(super) fn new(terms: LeaseTerms) -> Link {
        Link {
            stage: Stage::Connected,
            cut: false,
            node: EntityId::from_bytes([0; 16]),
            incarnation: 0,
            told: (None, 0),
            held: Vec::new(),
            sent: 0,
            applied: 0,
            lease_until_ms: None,
            frames: Frames::default(),
            out: Vec::new(),
            unanswered: HashMap::new(),
            waiting: Vec::new(),
            terms,
            renewal: None,
            snapshot_bytes: 0,
            telling: false,
        }
    }

    pub(super) fn hold(&mut self, held: Vec<EntityId>) -> Result<(), FeedError> {
        if !self.telling {
            self.held.clear();
            self.telling = true;
        }
        if self.held.len() + held.len() > HELD_MAX {
            return Err(FeedError::TooMany { what: "principals" });
        }
        self.held.extend(held);
        Ok(())
    }

    pub(super) fn join(
        &mut self,
        node: EntityId,
        incarnation: u64,
        told: (Option<EntityId>, u64),
        lease_until: Option<u64>,
    ) {
        self.told = told;
        self.telling = false;
        self.node = node;
        self.incarnation = incarnation;
        self.lease_until_ms = self.lease_until_ms.max(lease_until);
        self.stage = Stage::Joining;
        self.unanswered.clear();
        self.waiting.clear();
    }

    /// Puts the snapshot into the stream, and the deltas published since it was read. Stays joining
    /// if the history does not reach back that far.
    pub(super) fn snapshot(
        &mut self,
        state: Snapshot,
        lineage: EntityId,
        published: u64,
        history: &VecDeque<(u64, Vec<Change>)>,
        now_ms: u64,
    ) {
        let revision = state.revision;
        if !matches!(self.stage, Stage::Joining) {
            return;
        }
        let reaches = history
            .front()
            .is_some_and(|(oldest, _)| *oldest <= revision + 1);
        if revision < published && !reaches {
            return;
        }
        let before = self.out.len();
        for part in snapshot::parts(
            lineage,
            state.afresh,
            revision,
            state.changes,
            state.identities,
        ) {
            part.put(&mut self.out);
        }
        self.snapshot_bytes += self.out.len() - before;
        self.held = Vec::new();
        self.sent = revision;
        self.applied = self.applied.min(revision);
        self.stage = Stage::Live;
        for (told, changes) in history.iter().filter(|(told, _)| *told > revision) {
            Message::Delta {
                revision: *told,
                changes: changes.clone(),
            }
            .put(&mut self.out);
            self.sent = *told;
        }
        match self.terms {
            LeaseTerms::Pipe => {
                self.lease_until_ms = Some(LEASE_UNLIMITED);
                Message::Lease {
                    until_ms: LEASE_UNLIMITED,
                    revision: self.sent,
                }
                .put(&mut self.out);
            }
            LeaseTerms::Timed => {
                if let Some((sent_ms, _)) = self.renewal.take() {
                    self.renew(sent_ms, now_ms);
                }
            }
        }
    }

    /// Puts a published revision into the stream. False if the broker has fallen too far behind.
    pub(super) fn deliver(&mut self, revision: u64, delta: &[u8]) -> bool {
        if !matches!(self.stage, Stage::Live) || revision <= self.sent {
            return true;
        }
        self.out.extend_from_slice(delta);
        self.sent = revision;
        !self.overrun()
    }

    /// Ends the link if more waits for its broker than may.
    pub(super) fn overrun(&mut self) -> bool {
        let over = self.out.len() > LINK_BYTES_MAX + self.snapshot_bytes;
        if over {
            self.stage = Stage::Ended;
            self.out = Vec::new();
        }
        over
    }

    /// Moves the bytes for the pipe behind what is in `out`.
    pub(super) fn output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
        self.snapshot_bytes = 0;
    }

    /// Grants the lease; before the snapshot it is kept until then.
    pub(super) fn renew(&mut self, sent_ms: u64, now_ms: u64) {
        match (&self.stage, self.terms) {
            (Stage::Connected | Stage::Joining, _) => self.renewal = Some((sent_ms, now_ms)),
            (Stage::Live, LeaseTerms::Timed) => {
                // Counted from now, which is after the broker's clock showed `sent_ms`: its end of
                // the lease comes first.
                self.lease_until_ms = Some(now_ms + LEASE_MS);
                let until_ms = sent_ms.saturating_add(LEASE_MS);
                Message::Lease {
                    until_ms,
                    revision: self.sent,
                }
                .put(&mut self.out);
            }
            (Stage::Live, LeaseTerms::Pipe) | (Stage::Ended, _) => {}
        }
    }

    /// What the broker was told belongs to a lineage that is over: it counts as long as its lease,
    /// and nothing that it applied does.
    pub(super) fn strand(&mut self) {
        self.stage = Stage::Ended;
        self.sent = 0;
        self.applied = 0;
        self.out = Vec::new();
        self.unanswered.clear();
        self.waiting.clear();
    }

    pub(super) fn cut(&mut self, now_ms: u64) {
        self.cut = true;
        self.stage = Stage::Ended;
        self.out = Vec::new();
        self.unanswered.clear();
        self.waiting.clear();
        if self.terms == LeaseTerms::Pipe && self.lease_until_ms.is_some() {
            self.lease_until_ms = Some(now_ms);
        }
    }

    /// Whether the broker may still act on what it knew.
    pub(super) fn leased(&self, now_ms: u64) -> bool {
        self.lease_until_ms.is_some() && now_ms < self.lease_over_ms()
    }

    pub(super) fn lease_over_ms(&self) -> u64 {
        self.lease_until_ms
            .map_or(0, |until| until.saturating_add(LEASE_SKEW_MS))
    }
}
