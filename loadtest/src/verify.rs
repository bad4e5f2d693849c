//! Loss, duplicates and order, from the number that each payload carries.

use std::collections::BTreeSet;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What was wrong with what arrived, over a whole run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Verdict {
    /// Messages that did not arrive.
    pub lost: u64,
    /// Messages that arrived more than once.
    pub duplicates: u64,
    /// Messages that a later one of the same publisher overtook.
    pub out_of_order: u64,
    /// Messages with another payload than the one sent.
    pub altered: u64,
    /// Messages that came to a subscriber that they were not for.
    pub misdirected: u64,
    /// Packets that a second decoder (mqttbytes) reads otherwise; only with strict verification.
    pub disputed: u64,
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
        self.misdirected += other.misdirected;
        self.disputed += other.disputed;
        self.refused += other.refused;
        self.unacknowledged += other.unacknowledged;
    }
}

/// What one subscriber, or one shared group, has seen of one stream.
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

    /// As [`Seen::arrived`] for a member of a group, which others' messages never reach: only the
    /// order is looked at.
    #[inline]
    pub(crate) fn arrived_in_part(&mut self, number: u64) {
        if number < self.next {
            self.out_of_order += 1;
        } else {
            self.next = number + 1;
        }
    }

    /// As [`Seen::arrived`] for a group as a whole, whose members are read one after the other:
    /// what was passed over may still come, and is no fault.
    #[inline]
    pub(crate) fn arrived_in_any_order(&mut self, number: u64) -> u64 {
        let late = self.out_of_order;
        let passed_over = number.saturating_sub(self.next);
        let settled = self.arrived(number) - passed_over;
        // One that was missing has come after all.
        settled + (self.out_of_order - late)
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
    fn in_a_group_each_message_settles_itself_whatever_came_before_it() {
        let mut seen = Seen::default();
        let settled = [2, 0, 1, 1, 3].map(|number| seen.arrived_in_any_order(number));
        assert_eq!(settled, [1, 1, 1, 0, 1]);
        assert_eq!((seen.verdict(4).lost, seen.verdict(4).duplicates), (0, 1));
    }

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
