//! When a shard has to look at a slot again without being asked.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use session::Now;

use crate::shard::wires::Token;

/// Keep alive: one list of slots for each of the next seconds.
///
/// A slot is in one list for as long as its connection lives; looking at it costs one compare and
/// puts it where it is due next, so a packet never touches the wheel. 4 to 8 bytes a connection.
#[derive(Debug)]
pub(crate) struct Wheel {
    seconds: Vec<Vec<Token>>,
    at_s: u32,
    /// Tokens in all lists.
    held: usize,
    /// How many there were after the last look for stale ones.
    pruned: usize,
}

impl Wheel {
    /// Longer than 1.5 times the longest Keep Alive is not needed: later ones are looked at early
    /// and put in again.
    const SECONDS: usize = 4096;

    pub(crate) fn new(now: Now) -> Wheel {
        Wheel {
            seconds: vec![Vec::new(); Wheel::SECONDS],
            at_s: now.as_secs(),
            held: 0,
            pruned: 0,
        }
    }

    /// Looks at `token` when second `due_s` is over.
    pub(crate) fn insert(&mut self, token: Token, due_s: u32) {
        let wait = due_s
            .saturating_sub(self.at_s)
            .clamp(1, Wheel::SECONDS as u32 - 1);
        let at = (self.at_s + wait) as usize % Wheel::SECONDS;
        self.seconds[at].push(token);
        self.held += 1;
    }

    /// Forgets tokens of connections that are over, once they may outnumber the others: clients that
    /// come and go with long Keep Alives would leave one each time.
    pub(crate) fn prune(&mut self, mut is_current: impl FnMut(Token) -> bool) {
        if self.held < Deadlines::PRUNE_MIN.max(2 * self.pruned) {
            return;
        }
        for second in &mut self.seconds {
            second.retain(|token| is_current(*token));
            if second.capacity() > 2 * second.len() {
                second.shrink_to_fit();
            }
        }
        self.held = self.seconds.iter().map(Vec::len).sum();
        self.pruned = self.held;
    }

    /// Takes out what became due since the last call.
    pub(crate) fn due(&mut self, now: Now, into: &mut Vec<Token>) {
        while self.at_s < now.as_secs() {
            self.at_s += 1;
            let second = &mut self.seconds[self.at_s as usize % Wheel::SECONDS];
            self.held -= second.len();
            into.append(second);
        }
    }
}

/// What a deadline is about.
#[derive(Copy, Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Due {
    /// A whole CONNECT had to be there.
    Connect,
    /// Control had to answer.
    Identify,
    /// A user's right had to be known.
    Rights,
    /// A delayed will is to be sent.
    Will,
    /// A parked session is over.
    SessionEnd,
    /// The token that a client showed expires.
    Credentials,
    /// A blocked wire had to take bytes.
    WriteStall,
}

/// Deadlines of single slots, earliest first. Stale ones are skipped when they come up.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Now, Token, Due)>>,
    /// How many there were after the last look for stale ones.
    pruned: usize,
}

impl Deadlines {
    /// Fewer than this are not worth a look: 24 KiB.
    const PRUNE_MIN: usize = 1024;

    pub(crate) fn insert(&mut self, at: Now, token: Token, due: Due) {
        self.heap.push(Reverse((at, token, due)));
    }

    /// The next one that is due, and when it was.
    pub(crate) fn pop(&mut self, now: Now) -> Option<(Now, Token, Due)> {
        if self.heap.peek()?.0.0 > now {
            return None;
        }
        self.heap.pop().map(|Reverse(deadline)| deadline)
    }

    /// Keeps what `keep` says, whenever there are twice as many as last time: a constant cost for
    /// each one that was inserted.
    pub(crate) fn prune(&mut self, mut keep: impl FnMut(Now, Token, Due) -> bool) {
        if self.heap.len() < Deadlines::PRUNE_MIN.max(2 * self.pruned) {
            return;
        }
        self.heap
            .retain(|Reverse((at, token, due))| keep(*at, *token, *due));
        self.heap.shrink_to(2 * self.heap.len());
        self.pruned = self.heap.len();
    }

    /// When the earliest one is due.
    pub(crate) fn next(&self) -> Option<Now> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use router::SlotId;

    use super::*;

    fn token(slot: u32) -> Token {
        Token {
            slot: SlotId::new(slot),
            generation: 0,
        }
    }

    #[test]
    fn wheel_gives_each_slot_back_once_when_its_second_has_come() {
        let mut wheel = Wheel::new(Now::from_millis(10_000));
        wheel.insert(token(1), 12);
        wheel.insert(token(2), 10);
        wheel.insert(token(3), 1_000_000);
        let mut due = Vec::new();
        wheel.due(Now::from_millis(11_000), &mut due);
        assert_eq!(
            due,
            [token(2)],
            "what is overdue comes with the next second"
        );
        due.clear();
        wheel.due(Now::from_millis(12_999), &mut due);
        assert_eq!(due, [token(1)]);
        due.clear();
        wheel.due(Now::from_millis(10_000 + 4_095_000), &mut due);
        assert_eq!(
            due,
            [token(3)],
            "what lies beyond the wheel is looked at early"
        );
    }

    #[test]
    fn wheel_does_not_keep_connections_that_are_over() {
        let mut wheel = Wheel::new(Now::from_millis(0));
        for generation in 0..100_000 {
            let slot = SlotId::new(1);
            let live = Token { slot, generation };
            wheel.insert(live, 4000);
            wheel.prune(|token| token == live);
            assert!(wheel.held <= Deadlines::PRUNE_MIN);
        }
        let mut due = Vec::new();
        wheel.due(Now::from_millis(4_000_000), &mut due);
        assert_eq!(wheel.held, 0);
        assert_eq!(due.last().map(|token| token.generation), Some(99_999));
    }

    #[test]
    fn stale_deadlines_do_not_pile_up_until_they_are_due() {
        let mut deadlines = Deadlines::default();
        let far = Now::from_millis(7 * 24 * 3600 * 1000);
        for generation in 0..100_000 {
            let slot = SlotId::new(1);
            let parked = Token { slot, generation };
            deadlines.insert(far, parked, Due::SessionEnd);
            deadlines.prune(|_, token, _| token == parked);
            assert!(deadlines.heap.len() <= Deadlines::PRUNE_MIN);
        }
        assert_eq!(deadlines.next(), Some(far), "the present one is kept");
    }

    #[test]
    fn deadlines_come_in_order_of_time() {
        let mut deadlines = Deadlines::default();
        deadlines.insert(Now::from_millis(20), token(1), Due::Will);
        deadlines.insert(Now::from_millis(10), token(2), Due::Connect);
        assert_eq!(
            deadlines
                .pop(Now::from_millis(5))
                .map(|(_, token, due)| (token, due)),
            None
        );
        assert_eq!(deadlines.next(), Some(Now::from_millis(10)));
        assert_eq!(
            deadlines
                .pop(Now::from_millis(30))
                .map(|(_, token, due)| (token, due)),
            Some((token(2), Due::Connect))
        );
        assert_eq!(
            deadlines
                .pop(Now::from_millis(30))
                .map(|(_, token, due)| (token, due)),
            Some((token(1), Due::Will))
        );
    }
}
