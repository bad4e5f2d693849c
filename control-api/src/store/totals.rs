//! How long lists are, remembered while nothing changes that they show.
//!
//! A list tells with each page how many pass in all, and counting a million takes longer than finding
//! ten. One process writes, so it knows what changed: objects that were made, changed or removed, by
//! the times by which lists are ordered, or roles, or something else. A count is made again if it
//! looks at one of those times, or depends on roles.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use authcache::EntityId;

use super::sql::Value;
use crate::clock::lock;
use crate::grant::Kind;

/// Counts kept, of 1 KiB or less each; beyond it all are forgotten.
const KEPT: usize = 16_384;
/// Changes kept, of 100 bytes or so each; a count that is older is made again.
const CHANGES: usize = 8_192;
/// Times that a change names; one of more is a change of everything.
const TIMES: usize = 64;
/// Tables whose rows no list of objects depends on, and those that are written only together with an
/// object. All others count as changed when written: `lineages` among them, as a database
/// that was restored has other objects.
const APART: [&str; 21] = [
    "brokers",
    "client_activity",
    "client_certificates",
    "connections",
    "counters",
    "entity_counts",
    "entity_spans",
    "entity_tags",
    "foreign_logins",
    "invitations",
    "journal",
    "mail_tokens",
    "mailed_invitations",
    "name_parts",
    "names",
    "node",
    "outbox",
    "pat_scopes",
    "pats",
    "sessions",
    "signing_keys",
];

/// A statement that counts, with its values.
type Counted = (String, Vec<Value>);

/// Which objects a statement counts: those of a kind in a domain whose time is between two, both
/// included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) domain: EntityId,
    pub(super) kind: Kind,
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
}

impl Extent {
    fn has(&self, (domain, kind, time): (EntityId, Kind, i64)) -> bool {
        domain == self.domain
            && kind == self.kind
            && self.from.is_none_or(|from| from <= time)
            && self.to.is_none_or(|to| time <= to)
    }
}

/// What a transaction changed of what lists show.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Something not told apart.
    rest: bool,
    /// Roles, or who has them.
    roles: bool,
    /// Objects, by the time at which each was before or is now.
    objects: Vec<(EntityId, Kind, i64)>,
}

impl Changed {
    /// An object at this time was made, changed or removed, with all that belongs to it.
    pub(super) fn object(&mut self, domain: EntityId, kind: Kind, time: i64) {
        let object = (domain, kind, time);
        if self.objects.len() >= TIMES {
            self.rest = true;
        } else if !self.objects.contains(&object) {
            self.objects.push(object);
        }
    }

    /// A statement was run.
    pub(super) fn statement(&mut self, sql: &str) {
        match table_written(sql) {
            None => {}
            Some("roles" | "role_members") => self.roles = true,
            Some(table) => self.rest |= !APART.contains(&table),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.rest && !self.roles && self.objects.is_empty()
    }

    fn touches(&self, extent: &Extent, by_roles: bool) -> bool {
        self.rest
            || (self.roles && by_roles)
            || self.objects.iter().any(|object| extent.has(*object))
    }
}

/// The table that a statement writes.
fn table_written(sql: &str) -> Option<&str> {
    let mut words = sql.split_whitespace();
    match words.next() {
        Some("UPDATE") => words.next(),
        Some("INSERT" | "DELETE") => words.nth(1),
        Some(_) | None => None,
    }
}

/// The counts, and the changes that may have made them wrong.
#[derive(Default)]
pub(crate) struct Totals(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Each count, with the number of changes after which it was right.
    totals: HashMap<Counted, (u64, u64)>,
    /// The last changes, and how many there were before them.
    changes: VecDeque<Changed>,
    forgotten: u64,
}

impl Known {
    fn changes(&self) -> u64 {
        self.forgotten + self.changes.len() as u64
    }

    /// Whether some change behind the first `after` touches what is counted.
    fn is_touched(&self, after: u64, extent: &Extent, by_roles: bool) -> bool {
        let Some(after) = after.checked_sub(self.forgotten) else {
            return true;
        };
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        let changes = self.changes.iter().skip(after);
        changes
            .into_iter()
            .any(|changed| changed.touches(extent, by_roles))
    }
}

impl Totals {
    /// Changes so far. Asked before a transaction begins: what it counts is as of then or later.
    pub(super) fn changes(&self) -> u64 {
        lock(&self.0).changes()
    }

    /// A transaction that changed something was committed.
    pub(super) fn changed(&self, changed: Changed) {
        let mut known = lock(&self.0);
        known.changes.push_back(changed);
        if known.changes.len() > CHANGES {
            known.changes.pop_front();
            known.forgotten += 1;
        }
    }

    /// What a statement counts in a transaction that began after `began_after` changes, if it is known.
    pub(super) fn get(&self, counted: &Counted, began_after: u64, extent: &Extent) -> Option<u64> {
        let mut known = lock(&self.0);
        let (right_at, total) = *known.totals.get(counted)?;
        let by_roles = counted.0.contains("role_members");
        if known.is_touched(right_at.min(began_after), extent, by_roles) {
            return None;
        }
        let now = known.changes();
        known.totals.get_mut(counted)?.0 = now;
        Some(total)
    }

    /// Remembers a count of a transaction that began after `began_after` changes.
    pub(super) fn put(&self, counted: Counted, began_after: u64, total: u64) {
        let totals = &mut lock(&self.0).totals;
        if totals.len() >= KEPT {
            totals.clear();
        }
        totals.insert(counted, (began_after, total));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANT: EntityId = EntityId::from_u128(1);
    const ALL_CLIENTS: Extent = Extent {
        domain: PLANT,
        kind: Kind::Client,
        from: None,
        to: None,
    };

    #[test]
    fn what_no_list_shows_is_no_change() {
        for (sql, rest, roles) in [
            ("SELECT 1 FROM clients", false, false),
            ("INSERT INTO journal (seq) VALUES ($1)", false, false),
            ("UPDATE counters SET value = 1", false, false),
            ("DELETE FROM sessions WHERE id = $1", false, false),
            // Written once a second while clients do anything.
            (
                "INSERT INTO client_activity (client_id) VALUES ($1)",
                false,
                false,
            ),
            ("INSERT INTO lineages (id) VALUES ($1)", true, false),
            ("INSERT INTO clients (id) VALUES ($1)", true, false),
            ("UPDATE object_groups SET path = $1", true, false),
            ("DELETE FROM role_members WHERE user_id = $1", false, true),
            ("UPDATE roles SET name = $1", false, true),
        ] {
            let mut changed = Changed::default();
            changed.statement(sql);
            assert_eq!((changed.rest, changed.roles), (rest, roles), "{sql}");
        }
    }

    #[test]
    fn a_count_is_good_until_something_in_it_changes() {
        let extent = Extent {
            domain: PLANT,
            kind: Kind::Client,
            from: Some(10),
            to: Some(20),
        };
        let object = |domain, kind, time| {
            let mut changed = Changed::default();
            changed.object(domain, kind, time);
            changed
        };
        let statement = |sql| {
            let mut changed = Changed::default();
            changed.statement(sql);
            changed
        };
        let other = EntityId::from_u128(2);
        let count = "SELECT COUNT(*) FROM clients";
        let seen = "SELECT COUNT(*) FROM clients WHERE id IN (SELECT entity_id FROM role_members)";
        for (changed, sql, stays) in [
            (object(PLANT, Kind::Client, 9), count, true),
            (object(PLANT, Kind::Client, 10), count, false),
            (object(PLANT, Kind::Client, 20), count, false),
            (object(PLANT, Kind::Client, 21), count, true),
            (object(PLANT, Kind::Channel, 15), count, true),
            (object(other, Kind::Client, 15), count, true),
            (statement("UPDATE domains SET status = $1"), count, false),
            (statement("UPDATE roles SET name = $1"), count, true),
            (statement("UPDATE roles SET name = $1"), seen, false),
        ] {
            let totals = Totals::default();
            let counted = (sql.to_owned(), vec![Value::from(1)]);
            let before = totals.changes();
            totals.put(counted.clone(), before, 7);
            assert_eq!(totals.get(&counted, before, &extent), Some(7));
            let case = format!("{changed:?} {sql}");
            totals.changed(changed);
            let known = stays.then_some(7);
            // Whether it began before the change or behind it.
            for began in [before, totals.changes()] {
                assert_eq!(totals.get(&counted, began, &extent), known, "{case}");
            }
            // Counted in a transaction that began before the change.
            totals.put(counted.clone(), before, 7);
            let known = totals.get(&counted, totals.changes(), &extent);
            assert_eq!(known.is_some(), stays, "{case}");
        }
    }

    #[test]
    fn a_transaction_that_began_earlier_takes_no_later_count() {
        let totals = Totals::default();
        let counted = ("SELECT".to_owned(), Vec::new());
        let before = totals.changes();
        let mut changed = Changed::default();
        changed.object(PLANT, Kind::Client, 1);
        totals.changed(changed);
        totals.put(counted.clone(), totals.changes(), 8);
        assert_eq!(
            totals.get(&counted, totals.changes(), &ALL_CLIENTS),
            Some(8)
        );
        assert_eq!(totals.get(&counted, before, &ALL_CLIENTS), None);
    }

    #[test]
    fn counts_older_than_the_changes_that_are_kept_are_made_again() {
        let totals = Totals::default();
        let counted = ("SELECT".to_owned(), Vec::new());
        totals.put(counted.clone(), 0, 8);
        for _ in 0..=CHANGES {
            let mut changed = Changed::default();
            changed.object(PLANT, Kind::Group, 1);
            totals.changed(changed);
        }
        assert_eq!(totals.get(&counted, totals.changes(), &ALL_CLIENTS), None);
    }

    #[test]
    fn a_change_of_many_times_is_one_of_everything() {
        let mut changed = Changed::default();
        for time in 0..=TIMES as i64 {
            changed.object(PLANT, Kind::Client, time);
        }
        assert!(changed.rest && changed.objects.len() == TIMES);
    }
}
