//! What a new subscriber gets of retained messages, once everything is quiet.

use std::collections::BTreeMap;

use authcache::Action;

use super::client::Role;
use super::ledger::{NEVER, Sent};
use super::world::World;

impl World {
    /// The observer subscribes again and gets what is retained.
    pub(super) fn probe(&mut self) {
        let Some(first) = self
            .devices
            .first()
            .filter(|first| first.role == Role::Observer)
        else {
            return;
        };
        if !first.live || self.lease_was_over || self.database.voided || self.broker.has_voided() {
            return;
        }
        let reader = first.principal;
        self.devices[0].retained.clear();
        let channels = self.database.channels.len();
        self.observe(0..channels);
        let mut quiet = 0;
        while quiet < 5 {
            let busy = self.round();
            let answered = self.with(0, |device, around| device.answer(around));
            quiet = if busy || answered { 0 } else { quiet + 1 };
        }
        let got = std::mem::take(&mut self.devices[0].retained);
        let mut places: BTreeMap<(usize, &'static str), Vec<u64>> = BTreeMap::new();
        for (number, sent) in &self.ledger.messages {
            // One that was refused when it was repeated may have been taken before.
            let taken = !sent.refused || sent.repeated;
            if sent.retain && sent.input != NEVER && taken {
                places
                    .entry((sent.channel, sent.subtopic))
                    .or_default()
                    .push(*number);
            }
        }
        for ((channel, subtopic), writes) in places {
            let standing = self.database.standing(reader, channel, Action::Subscribe);
            if !standing.is_solid(self.moment) || self.database.channels[channel].removed {
                continue;
            }
            let got = got.get(&(channel, subtopic.to_owned())).copied();
            self.check_place(&writes, got);
        }
    }

    fn check_place(&self, writes: &[u64], got: Option<u64>) {
        let message = |number: &u64| &self.ledger.messages[number];
        // What is left for the next turn is not accepted if its connection ends before.
        let whole = !self.shape.has_short_turns();
        let certain = |sent: &Sent| {
            !sent.will && !sent.refused && (sent.acked != NEVER || sent.surely_permitted && whole)
        };
        let author = |sent: &Sent| {
            self.database
                .standing(sent.principal, sent.channel, Action::Publish)
        };
        if let Some(number) = got {
            assert!(
                writes.contains(&number),
                "message {number} was never retained"
            );
            let sent = message(&number);
            assert!(
                !author(sent).is_forbidden(self.moment, self.moment),
                "message {number} is still retained for an author without right"
            );
            let later = writes.iter().find(|other| {
                let after = message(other);
                let same = after.conn == sent.conn && **other > number;
                let acked = sent.acked < after.input && !sent.repeated && !after.repeated;
                !sent.will && !sent.repeated && certain(after) && (same || acked)
            });
            assert!(
                later.is_none(),
                "message {number} is retained, and not {later:?}"
            );
        } else {
            let kept = writes.iter().all(|number| {
                let sent = message(number);
                !sent.clear && author(sent).is_solid(2) && certain(sent)
            });
            assert!(!kept, "nothing is retained of {writes:?}");
        }
    }
}
