//! Rests between turns, so that what several connections send meanwhile is served by one.
//!
//! A shard that is woken for every message spends more on waking, and on waking its peers, than on
//! the messages (decision 0020). So it rests after a turn where that costs nobody but a moment:
//! many connections send, there is time left, and no fewer messages come than without rests.

use std::time::{Duration, Instant};

/// How long reads are counted before the next judgement.
const WINDOW: Duration = Duration::from_millis(2);

/// Connections that are read in a window, at least: with few, a rest gathers little.
const CONNECTIONS_MIN: u32 = 8;

/// Reads in a window, at most: a shard with more to do finds it without resting.
const READS_MAX: u64 = 200;

/// Windows without rests in which it is counted how much comes then.
const FREE_WINDOWS: u32 = 2;

/// Windows with rests before that is counted again.
const RESTED_WINDOWS: u32 = 32;

/// Windows with rests after which what came in them may be judged.
const JUDGED_AFTER: u32 = 4;

/// Windows without rests after these were found to keep peers waiting.
const LEFT_ALONE_WINDOWS: u32 = 512;

/// Whether a shard rests, from who was read of late.
#[derive(Debug)]
pub(crate) struct Rest {
    length: Duration,
    began: Instant,
    reads: u64,
    /// A bit for each connection that was read, by its slot; some share one.
    who: u64,
    phase: Phase,
    /// Whether something was read in this turn.
    read: bool,
}

/// Peers that send again only when they have been answered send less while the shard rests. So
/// windows with and without rests are set beside each other.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// No rests: how much comes?
    Free { windows: u32, reads: u64 },
    /// Rests; `free` is what came in [`FREE_WINDOWS`] before.
    Rested { windows: u32, reads: u64, free: u64 },
    /// No rests: they kept peers waiting.
    LeftAlone { windows: u32 },
}

const BEGIN: Phase = Phase::Free {
    windows: 0,
    reads: 0,
};

impl Phase {
    /// What follows after a window in which so much was read.
    fn after(self, now: u64) -> Phase {
        match self {
            Phase::Free { windows, reads } if windows + 1 == FREE_WINDOWS => Phase::Rested {
                windows: 0,
                reads: 0,
                free: reads + now,
            },
            Phase::Free { windows, reads } => Phase::Free {
                windows: windows + 1,
                reads: reads + now,
            },
            Phase::Rested {
                windows,
                reads,
                free,
            } => {
                let (windows, reads) = (windows + 1, reads + now);
                // Less than two thirds: more than chance.
                let fewer = reads * u64::from(FREE_WINDOWS) * 3 < free * u64::from(windows) * 2;
                if windows >= JUDGED_AFTER && fewer {
                    Phase::LeftAlone { windows: 0 }
                } else if windows == RESTED_WINDOWS {
                    BEGIN
                } else {
                    Phase::Rested {
                        windows,
                        reads,
                        free,
                    }
                }
            }
            Phase::LeftAlone { windows } if windows + 1 == LEFT_ALONE_WINDOWS => BEGIN,
            Phase::LeftAlone { windows } => Phase::LeftAlone {
                windows: windows + 1,
            },
        }
    }
}

impl Rest {
    /// Rests of `length`, none if that is zero.
    pub(crate) fn new(length: Duration, now: Instant) -> Rest {
        Rest {
            length,
            began: now,
            reads: 0,
            who: 0,
            phase: BEGIN,
            read: false,
        }
    }

    /// A turn begins.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.read = false;
        let passed = now.duration_since(self.began);
        if passed < WINDOW {
            return;
        }
        let lasted = passed.as_micros() as u64;
        let reads = self.reads * WINDOW.as_micros() as u64 / lasted;
        // A longer window is one in which the shard slept: it is not woken often.
        let often = passed < 2 * WINDOW;
        let many = self.who.count_ones() >= CONNECTIONS_MIN;
        self.phase = match often && many && reads <= READS_MAX {
            true => self.phase.after(reads),
            false => match self.phase {
                alone @ Phase::LeftAlone { .. } => alone.after(0),
                _ => BEGIN,
            },
        };
        (self.began, self.reads, self.who) = (now, 0, 0);
    }

    /// The connection in `slot` is read.
    pub(crate) fn reads(&mut self, slot: u32) {
        self.read = true;
        self.reads += 1;
        self.who |= 1 << (slot % u64::BITS);
    }

    /// How long to rest after this turn.
    pub(crate) fn after_turn(&self) -> Option<Duration> {
        let rests = matches!(self.phase, Phase::Rested { .. });
        (rests && self.read && !self.length.is_zero()).then_some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_micros(50);

    /// How a shard is used.
    struct Use {
        connections: u32,
        /// Reads in each turn.
        each: u32,
        /// From turn to turn without a rest.
        apart: Duration,
        /// Whether peers wait for an answer, so that each rest puts the next turn off.
        closed: bool,
    }

    /// Which of many turns are followed by a rest, in thousandths.
    fn rested(used: &Use) -> usize {
        let mut now = Instant::now();
        let mut rest = Rest::new(LENGTH, now);
        let (mut next, mut rests) = (0, 0);
        for _ in 0..100_000 {
            let pause = rest.after_turn();
            rests += usize::from(pause.is_some());
            now += match pause {
                Some(pause) if used.closed => used.apart + pause,
                _ => used.apart,
            };
            rest.turn(now);
            for _ in 0..used.each {
                rest.reads(next % used.connections);
                next += 1;
            }
        }
        rests / 100
    }

    #[test]
    fn a_shard_rests_while_many_connections_wake_it_often() {
        let mut used = Use {
            connections: 10,
            each: 1,
            apart: Duration::from_micros(50),
            closed: false,
        };
        assert!(rested(&used) > 900);
        (used.connections, used.each, used.apart) = (1000, 4, Duration::from_micros(150));
        assert!(rested(&used) > 900);
    }

    #[test]
    fn peers_that_wait_for_an_answer_are_left_alone() {
        let mut used = Use {
            connections: 10,
            each: 1,
            apart: Duration::from_micros(20),
            closed: true,
        };
        assert!(rested(&used) < 30);
        (used.connections, used.each, used.apart) = (20, 2, Duration::from_micros(50));
        assert!(rested(&used) < 30);
    }

    #[test]
    fn with_few_connections_there_is_no_rest() {
        for connections in [1, 7] {
            let used = Use {
                connections,
                each: 1,
                apart: Duration::from_micros(50),
                closed: false,
            };
            assert_eq!(rested(&used), 0);
        }
    }

    #[test]
    fn a_shard_with_much_to_do_does_not_rest() {
        let mut used = Use {
            connections: 100,
            each: 20,
            apart: Duration::from_micros(100),
            closed: false,
        };
        assert_eq!(rested(&used), 0);
        (used.each, used.apart) = (1, Duration::from_micros(9));
        assert_eq!(rested(&used), 0);
    }

    #[test]
    fn a_shard_that_is_woken_seldom_serves_at_once() {
        let used = Use {
            connections: 100,
            each: 20,
            apart: Duration::from_millis(10),
            closed: false,
        };
        assert_eq!(rested(&used), 0);
    }

    /// A shard that rests, and the moment of its last turn.
    fn resting(length: Duration) -> (Rest, Instant) {
        let mut now = Instant::now();
        let mut rest = Rest::new(length, now);
        for slot in 0..200 {
            now += Duration::from_micros(50);
            rest.turn(now);
            rest.reads(slot);
        }
        (rest, now)
    }

    #[test]
    fn what_comes_after_a_pause_is_served_at_once() {
        let (mut rest, now) = resting(LENGTH);
        assert_eq!(rest.after_turn(), Some(LENGTH));
        rest.turn(now + Duration::from_secs(1));
        rest.reads(0);
        assert_eq!(rest.after_turn(), None);
    }

    #[test]
    fn a_turn_without_reads_is_followed_by_the_sleep_alone() {
        let (mut rest, now) = resting(LENGTH);
        rest.turn(now);
        assert_eq!(rest.after_turn(), None);
    }

    #[test]
    fn a_length_of_zero_is_no_rest() {
        let (rest, _) = resting(Duration::ZERO);
        assert_eq!(rest.after_turn(), None);
    }
}
