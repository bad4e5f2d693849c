//! How long lists are, remembered while nothing changes that any list shows.
//!
//! A list tells with each page how many pass in all, and counting a million takes longer than finding
//! ten. One process writes, so it knows when a count has to be made again; what else happens to a
//! database, such as a backup that is restored over it, is seen after a minute at the latest.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sql::Value;
use crate::clock::lock;

/// Counts kept, of 1 KiB or less each; beyond it all are forgotten.
const KEPT: usize = 4_096;
/// How long a count is good though nothing was written.
const FRESH: Duration = Duration::from_secs(60);
/// Tables whose rows no list of objects depends on. All others count as changed when written:
/// `lineages` among them, as a database that was restored has other objects.
const APART: [&str; 16] = [
    "brokers",
    "client_activity",
    "client_certificates",
    "connections",
    "counters",
    "foreign_logins",
    "invitations",
    "journal",
    "mail_tokens",
    "mailed_invitations",
    "node",
    "outbox",
    "pat_scopes",
    "pats",
    "sessions",
    "signing_keys",
];

/// A statement that counts, with its values.
type Counted = (String, Vec<Value>);

/// The counts, with the number of changes after which each was made, and when.
#[derive(Default)]
pub(crate) struct Totals {
    changes: AtomicU64,
    known: Mutex<HashMap<Counted, (u64, u64, Instant)>>,
}

impl Totals {
    /// Changes so far. Asked before a transaction begins: what it counts is as of then or later.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// A transaction that changed something was committed.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn get(&self, counted: &Counted, now: Instant) -> Option<u64> {
        let known = lock(&self.known);
        let (changes, total, at) = known.get(counted)?;
        let fresh = now.saturating_duration_since(*at) < FRESH;
        (fresh && *changes == self.changes()).then_some(*total)
    }

    /// Remembers a count of a transaction that began after `changes` changes.
    pub(super) fn put(&self, counted: Counted, changes: u64, total: u64, now: Instant) {
        let mut known = lock(&self.known);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(counted, (changes, total, now));
    }
}

/// Whether a statement writes a table that lists depend on.
pub(super) fn is_change(sql: &str) -> bool {
    let mut words = sql.split_whitespace();
    let table = match words.next() {
        Some("UPDATE") => words.next(),
        Some("INSERT" | "DELETE") => words.nth(1),
        Some(_) | None => return false,
    };
    table.is_none_or(|table| !APART.contains(&table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_list_shows_is_no_change() {
        for (sql, expected) in [
            ("SELECT 1 FROM clients", false),
            ("INSERT INTO journal (seq) VALUES ($1)", false),
            ("UPDATE counters SET value = 1", false),
            ("DELETE FROM sessions WHERE id = $1", false),
            // Written once a second while clients do anything.
            ("INSERT INTO client_activity (client_id) VALUES ($1)", false),
            ("INSERT INTO lineages (id) VALUES ($1)", true),
            ("INSERT INTO clients (id) VALUES ($1)", true),
            ("UPDATE object_groups SET path = $1", true),
            ("DELETE FROM role_members WHERE user_id = $1", true),
        ] {
            assert_eq!(is_change(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_count_is_good_until_something_changes() {
        let totals = Totals::default();
        let counted = ("SELECT".to_owned(), vec![Value::from(1)]);
        let (before, now) = (totals.changes(), Instant::now());
        totals.put(counted.clone(), before, 7, now);
        assert_eq!(totals.get(&counted, now), Some(7));
        totals.changed();
        assert_eq!(totals.get(&counted, now), None);
        // Counted in a transaction that began before the change.
        totals.put(counted.clone(), before, 7, now);
        assert_eq!(totals.get(&counted, now), None);
    }

    #[test]
    fn a_count_is_made_again_after_a_minute_whatever_was_written() {
        let totals = Totals::default();
        let counted = ("SELECT".to_owned(), vec![Value::from(1)]);
        let now = Instant::now();
        totals.put(counted.clone(), totals.changes(), 7, now);
        let late = now + FRESH;
        assert_eq!(
            totals.get(&counted, late - Duration::from_millis(1)),
            Some(7)
        );
        assert_eq!(totals.get(&counted, late), None);
    }
}
