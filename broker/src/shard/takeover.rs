//! One session is taken over at most once in a while: a storm of connections under one Client
//! Identifier must not turn into a storm of wills, resumes and retransmissions. (Threats T-SES-5.)

use std::collections::{HashMap, VecDeque};

use authcache::PrincipalIndex;
use router::SlotId;
use session::{Now, Refusal, SessionKey};

use crate::metrics::Closed;
use crate::shard::Shard;
use crate::shard::inbox::Arrival;
use crate::shard::wires::Wires;

/// Sessions that were taken over a moment ago, and who waits to do it next.
pub(crate) struct Takeovers<W> {
    last: HashMap<SlotId, Now, foldhash::fast::RandomState>,
    /// At most one for each session, in the order in which they are let in.
    waiting: VecDeque<(Now, Arrival<W>)>,
}

impl<W> Default for Takeovers<W> {
    fn default() -> Takeovers<W> {
        Takeovers {
            last: HashMap::default(),
            waiting: VecDeque::new(),
        }
    }
}

impl<W> Takeovers<W> {
    /// Notes that the session in a slot was taken over.
    pub(super) fn note(&mut self, id: SlotId, now: Now, interval_ms: u64) {
        // Those that say nothing any more go before there are many.
        if self.last.len() >= 64 && self.last.len() == self.last.capacity() {
            self.last
                .retain(|_, last| last.plus_millis(interval_ms) > now);
        }
        self.last.insert(id, now);
    }

    /// When the session in a slot may be taken over, if that is later than now.
    pub(super) fn too_early(&self, id: SlotId, now: Now, interval_ms: u64) -> Option<Now> {
        let next = self.last.get(&id)?.plus_millis(interval_ms);
        (next > now).then_some(next)
    }

    /// When somebody is let in next.
    pub(super) fn next(&self) -> Option<Now> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// Everybody who waits.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Arrival<W>> + use<W> {
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(_, arrival)| arrival)
    }
}

impl<W: Wires> Shard<W> {
    /// Lets a connection wait until its session may be taken over. The newest is who counts: an
    /// older one that waits for the same is refused.
    pub(super) fn delay_takeover(&mut self, at: Now, arrival: Arrival<W::Wire>) {
        let key = arrival.pending.key();
        let waiting = &mut self.takeovers.waiting;
        let older = waiting
            .iter()
            .position(|(_, other)| other.pending.key() == key);
        match older {
            Some(place) => {
                let older = std::mem::replace(&mut waiting[place].1, arrival);
                self.refuse_arrival(older, Refusal::Throttled, Closed::Superseded);
            }
            None => waiting.push_back((at, arrival)),
        }
    }

    /// A connection comes to its session at once, because the one that had it is gone: an older one
    /// that still waits for the same is refused.
    pub(super) fn supersede_delayed(&mut self, key: &SessionKey) {
        let waiting = &mut self.takeovers.waiting;
        let older = waiting.iter().position(|(_, other)| {
            other.pending.principal() == key.principal && other.pending.key() == *key
        });
        if let Some((_, older)) = older.and_then(|place| waiting.remove(place)) {
            self.refuse_arrival(older, Refusal::Throttled, Closed::Superseded);
        }
    }

    /// Whether somebody waits.
    #[cfg(test)]
    pub(crate) fn delays(&self) -> bool {
        !self.takeovers.waiting.is_empty()
    }

    /// Lets in those whose time has come.
    pub(super) fn admit_delayed(&mut self) {
        let now = self.env.now;
        while self.takeovers.next().is_some_and(|at| at <= now) {
            if let Some((_, arrival)) = self.takeovers.waiting.pop_front() {
                self.arrive(arrival);
            }
        }
    }

    /// A principal is shut out: its connections that wait are not let in either.
    pub(super) fn refuse_delayed(&mut self, principal: PrincipalIndex) {
        let (out, wait): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.takeovers.waiting)
            .into_iter()
            .partition(|(_, arrival)| arrival.pending.principal() == principal);
        self.takeovers.waiting = wait;
        for (_, arrival) in out {
            self.refuse_arrival(arrival, Refusal::NotAuthorized, Closed::Refused);
        }
    }
}
