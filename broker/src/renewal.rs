//! What users may do was computed by control and may have changed: it is asked anew before the
//! change counts, so that nobody's right is unknown in between and no message is lost over it.

use std::collections::{HashSet, VecDeque};

use authcache::feed::FollowerEvent;
use authcache::{Change, EntityId, Right};
use session::Now;

/// Rights that are asked for anew; when there are more, they are made void and asked for on use.
pub(crate) const RIGHTS_MAX: usize = 1000;

/// Milliseconds that control's answers are waited for; then the rest is made void.
pub(crate) const WAIT_MS: u64 = 500;

/// A revision that waits for rights, and what came behind it.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) revision: u64,
    /// Its changes, those without what is asked for.
    pub(crate) changes: Vec<Change>,
    /// Domains of which all known rights are asked for.
    pub(crate) domains: Vec<EntityId>,
    /// Questions without an answer.
    pub(crate) open: HashSet<u64>,
    /// What was answered.
    pub(crate) fresh: Vec<Change>,
    /// Not all could be found out.
    pub(crate) failed: bool,
    pub(crate) until: Now,
    /// What control said since.
    pub(crate) behind: VecDeque<FollowerEvent>,
}

impl Renewal {
    /// Notes an answer.
    pub(crate) fn answered(&mut self, user: EntityId, channel: EntityId, right: Option<Right>) {
        match right {
            Some(right) => self.fresh.push(Change::RightSet {
                principal: user,
                channel,
                right,
            }),
            None => self.failed = true,
        }
    }

    /// Whether it waits for nothing more.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.open.is_empty() || self.failed || now >= self.until
    }

    /// All changes of the revision: rights as they are told, or void where that is not known.
    pub(crate) fn into_changes(self) -> (u64, Vec<Change>, VecDeque<FollowerEvent>) {
        let mut changes = self.changes;
        if self.failed || !self.open.is_empty() {
            let void = |domain| Change::UserRightsStale { domain };
            changes.extend(self.domains.into_iter().map(void));
        }
        changes.extend(self.fresh);
        (self.revision, changes, self.behind)
    }
}
