//! Snapshots in parts: cut by the leader, put together by the follower.

use super::message::{FeedError, Message};
use crate::EntityId;
use crate::change::{Change, Identity};

/// Aim for the size of a part in bytes. One identity may be larger than that; the bound of a message
/// leaves room for it.
const PART_BYTES: usize = 256 * 1024;

/// Cuts a snapshot into parts. There is always at least one, and only the last one says so.
pub(super) fn parts(
    lineage: EntityId,
    afresh: bool,
    revision: u64,
    changes: Vec<Change>,
    identities: Vec<Identity>,
) -> impl Iterator<Item = Message> {
    let mut changes = changes.into_iter().peekable();
    let mut identities = identities.into_iter().peekable();
    let mut part = 0;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut bytes = 0;
        let (mut these_changes, mut these_identities) = (Vec::new(), Vec::new());
        while bytes < PART_BYTES {
            if let Some(change) = changes.next() {
                bytes += change_bytes(&change);
                these_changes.push(change);
            } else if let Some(identity) = identities.next() {
                bytes += identity_bytes(&identity);
                these_identities.push(identity);
            } else {
                break;
            }
        }
        done = changes.peek().is_none() && identities.peek().is_none();
        part += 1;
        Some(Message::Snapshot {
            lineage,
            afresh,
            revision,
            part: part - 1,
            last: done,
            changes: these_changes,
            identities: these_identities,
        })
    })
}

/// A snapshot of which not all parts are here.
#[derive(Default)]
pub(super) struct Assembly {
    revision: u64,
    parts: u32,
    changes: Vec<Change>,
    identities: Vec<Identity>,
}

/// A whole snapshot.
pub(super) struct Whole {
    pub(super) revision: u64,
    pub(super) changes: Vec<Change>,
    pub(super) identities: Vec<Identity>,
}

impl Assembly {
    /// Takes one part; answers with the whole when it was the last one.
    pub(super) fn add(
        &mut self,
        revision: u64,
        part: u32,
        last: bool,
        changes: Vec<Change>,
        identities: Vec<Identity>,
    ) -> Result<Option<Whole>, FeedError> {
        // Part 0 begins again: the leader answers a second Hello with a second snapshot.
        if part == 0 {
            *self = Assembly {
                revision,
                ..Assembly::default()
            };
        }
        if part != self.parts || revision != self.revision {
            return Err(FeedError::Misplaced {
                message: "Snapshot",
            });
        }
        self.parts += 1;
        self.changes.extend(changes);
        self.identities.extend(identities);
        if !last {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some(Whole {
            revision: whole.revision,
            changes: whole.changes,
            identities: whole.identities,
        }))
    }
}

/// Bytes of a change, as postcard writes it at most (routes are short).
fn change_bytes(change: &Change) -> usize {
    let route = match change {
        Change::DomainSet { route, .. } => route.len(),
        Change::ChannelSet { route, .. } => route.as_ref().map_or(0, String::len),
        Change::DomainRemoved { .. }
        | Change::ChannelRemoved { .. }
        | Change::PrincipalSet { .. }
        | Change::PrincipalRemoved { .. }
        | Change::RightSet { .. }
        | Change::UserRightsStale { .. } => 0,
    };
    64 + route
}

fn identity_bytes(identity: &Identity) -> usize {
    64 + 20 * identity.rights.len()
}
