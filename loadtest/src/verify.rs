//! Loss, duplicates and order, from the number that each payload carries.

use std::collections::BTreeSet;
use std::ops::AddAssign;

use serde::Serialize;

/// What was wrong with what arrived, over a whole run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Verdict {
    /// Messages that did not arrive.
    pub lost: u64,
    /// Messages that arrived more than once.
    pub duplicates: u64,
    /// Messages that a later one of the same publisher overtook.
    pub out_of_order: u64,
    /// Messages with another payload than the one sent, or at the wrong subscriber.
    pub altered: u64,
    /// Messages that the broker refused with a Reason Code.
    pub refused: u64,
    /// Messages at QoS 1 and 2 that the broker did not acknowledge.
    pub unacknowledged: u64,
}

impl Verdict {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        *self == Verdict::default()
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Verdict) {
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.altered += other.altered;
        self.refused += other.refused;
        self.unacknowledged += other.unacknowledged;
    }
}

/// What one subscriber has seen of one publisher.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The number that comes next.
    next: u64,
    /// Earlier numbers that have not come.
    missing: BTreeSet<u64>,
    /// Numbers that are missing and no longer looked for.
    forgotten: u64,
    duplicates: u64,
    out_of_order: u64,
}

/// Missing numbers remembered, so that a late one can be told from one that comes twice.
const MISSING_MAX: usize = 65_536;

impl Seen {
    /// Notes an arrival; how many messages are settled by it: they came or were passed over.
    #[inline]
    pub(crate) fn arrived(&mut self, number: u64) -> u64 {
        if number == self.next {
            self.next += 1;
            return 1;
        }
        self.unusual(number)
    }

    #[cold]
    fn unusual(&mut self, number: u64) -> u64 {
        if number > self.next {
            let passed_over = number - self.next;
            for missing in self.next..number {
                if self.missing.len() < MISSING_MAX {
                    self.missing.insert(missing);
                } else {
                    self.forgotten += 1;
                }
            }
            self.next = number + 1;
            return passed_over + 1;
        }
        if self.missing.remove(&number) {
            self.out_of_order += 1;
        } else {
            self.duplicates += 1;
        }
        0
    }

    /// Gives up waiting for everything before `number`; how many that settles.
    pub(crate) fn give_up(&mut self, number: u64) -> u64 {
        let settled = number.saturating_sub(self.next);
        if settled > 0 {
            self.forgotten += settled;
            self.next = number;
        }
        settled
    }

    /// The verdict when `sent` messages were sent.
    pub(crate) fn verdict(&self, sent: u64) -> Verdict {
        Verdict {
            lost: self.missing.len() as u64 + self.forgotten + sent.saturating_sub(self.next),
            duplicates: self.duplicates,
            out_of_order: self.out_of_order,
            ..Verdict::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_tells_loss_from_late_and_from_twice() {
        // numbers in order of arrival, sent; lost, duplicates, out of order
        type Case = (&'static [u64], u64, (u64, u64, u64));
        let cases: &[Case] = &[
            (&[0, 1, 2], 3, (0, 0, 0)),
            (&[0, 2], 3, (1, 0, 0)),
            (&[0, 2, 1], 3, (0, 0, 1)),
            (&[0, 1, 1], 2, (0, 1, 0)),
            (&[0, 2, 1, 1], 3, (0, 1, 1)),
            (&[], 2, (2, 0, 0)),
            (&[1], 4, (3, 0, 0)),
        ];
        for (arrivals, sent, expected) in cases {
            let mut seen = Seen::default();
            let settled: u64 = arrivals.iter().map(|number| seen.arrived(*number)).sum();
            let verdict = seen.verdict(*sent);
            let found = (verdict.lost, verdict.duplicates, verdict.out_of_order);
            assert_eq!(found, *expected, "{arrivals:?}");
            assert_eq!(settled + seen.give_up(*sent), *sent, "{arrivals:?}");
            assert_eq!(seen.verdict(*sent), verdict, "giving up loses nothing more");
        }
    }
}
