//! Shared subscriptions: each message to one member of a group, here or on another shard.

use std::sync::Arc;

use authcache::{Action, Permitted};
use codec::mqtt::{QoS, split_frame};
use router::{Group, GroupId, MemberState, Picked, ShardId, SlotId};
use session::{Delivered, DropReason, Message, Receiving, Run, SharedOrigin};

use crate::shard::Shard;
use crate::shard::inbox::Post;
use crate::shard::roster::session_of;
use crate::shard::route::{messages_of, twin_of};
use crate::shard::wires::Wires;

/// Members that a run is dealt to, where a group has as many; longer runs are dealt to more.
const PIECES_MIN: u32 = 4;

/// Messages of a long run that one member gets, one behind the other: it gets them by one send.
const PIECE_MESSAGES: u32 = 16;

impl<W: Wires> Shard<W> {
    /// Deals frames out among the members of each matching group, in pieces: consecutive messages
    /// of a publisher that came together go to a member by one append. What came alone is dealt one
    /// by one.
    pub(super) fn deal_run(&mut self, run: &Permitted<Run<'_>>) {
        let address = run.address;
        let groups = &self.env.shared.groups;
        for group in groups.matching(address.channel, address.wild, run.subtopic()) {
            let (ready, _) = group.members(self.env.id);
            if ready == 0 {
                for message in messages_of(run) {
                    self.route_to_group(&group, &Arc::new(message), false);
                }
                continue;
            }
            let most = piece_messages(run.count, ready);
            let mut rest = run.frames;
            while let Some((frames, count)) = first_frames(rest, most) {
                rest = &rest[frames.len()..];
                let piece = Run {
                    frames,
                    count,
                    ..Run::clone(run)
                };
                self.give_piece(&group, &piece);
            }
        }
    }

    /// Gives a piece of a permitted run to the next member on this shard.
    fn give_piece(&mut self, group: &Arc<Group>, piece: &Run<'_>) {
        let Some(picked) = self.pick_member(group) else {
            for message in messages_of(piece) {
                self.give_elsewhere(group, &Arc::new(message), false);
            }
            return;
        };
        let Shard { env, outlets, .. } = self;
        let hot = &outlets.slots.slot(picked.slot).hot;
        let plain = picked.identifier.is_none() && picked.prefix.is_none();
        // Two bytes are the most that a frame grows by in the other version.
        if plain && picked.state == MemberState::Ready && hot.takes_frames(piece.longest + 2) {
            let (id, channel, count) = (picked.slot, piece.address.channel, piece.count);
            if hot.is_version5() == piece.version5 {
                outlets.append(env, id, channel, piece.frames, count, &mut None);
            } else {
                outlets.append(env, id, channel, &twin_of(piece), count, &mut None);
            }
            return;
        }
        for message in messages_of(piece) {
            let message = Arc::new(message);
            if !self.give(group, &picked, &message) {
                self.give_elsewhere(group, &message, false);
            }
        }
    }

    /// Gives a message to one member of each matching shared group; whether one took it.
    pub(super) fn route_to_groups(&mut self, message: &Arc<Message>) -> bool {
        let address = message.address();
        let groups =
            self.env
                .shared
                .groups
                .matching(address.channel, address.wild, message.subtopic());
        let mut matched = false;
        for group in groups {
            matched |= self.route_to_group(&group, message, false);
        }
        matched
    }

    /// Gives a message to one member of a group, here or on another shard.
    pub(super) fn route_to_group(
        &mut self,
        group: &Arc<Group>,
        message: &Arc<Message>,
        passed: bool,
    ) -> bool {
        match group.next(self.env.id) {
            Some(shard) if shard == self.env.id => {
                self.give_to_member(group, message) || self.give_elsewhere(group, message, passed)
            }
            Some(shard) => {
                self.post_shared(shard, group, message, passed);
                true
            }
            None => {
                self.env.counters.dropped_shared.add(1);
                false
            }
        }
    }

    /// Ours could not take it: another shard may try, once.
    fn give_elsewhere(&mut self, group: &Arc<Group>, message: &Arc<Message>, passed: bool) -> bool {
        if !passed && let Some(other) = self.other_shard(group) {
            self.post_shared(other, group, message, true);
            return true;
        }
        self.env.counters.dropped_shared.add(1);
        false
    }

    /// Another shard for a message that no member here takes: one with a ready member, else one
    /// whose parked members keep it.
    fn other_shard(&self, group: &Group) -> Option<ShardId> {
        let here = self.env.id;
        group
            .next_other(here)
            .or_else(|| group.next(here).filter(|shard| *shard != here))
    }

    fn post_shared(
        &mut self,
        shard: ShardId,
        group: &Arc<Group>,
        message: &Arc<Message>,
        passed: bool,
    ) {
        let (group, message) = (Arc::clone(group), Arc::clone(message));
        self.outboxes[shard.index()].posts.push(Post::Shared {
            group,
            message,
            passed,
        });
    }

    /// Another shard's message for a group with a member here.
    pub(super) fn shared_arrived(
        &mut self,
        group: &Arc<Group>,
        message: &Arc<Message>,
        passed: bool,
    ) {
        if self.give_to_member(group, message) {
            return;
        }
        // What is passed on leaves the fence that covered its first hop: it is judged again.
        let channel = message.address().channel;
        let judged = self
            .env
            .gate
            .allows(message.publisher(), Action::Publish, channel);
        match self.other_shard(group) {
            Some(other) if !passed && judged.is_ok() => {
                self.post_shared(other, group, message, true);
            }
            _ => self.env.counters.dropped_shared.add(1),
        }
    }

    /// Gives a message to the next member on this shard; whether one took it.
    fn give_to_member(&mut self, group: &Arc<Group>, message: &Arc<Message>) -> bool {
        let picked = self.pick_member(group);
        picked.is_some_and(|picked| self.give(group, &picked, message))
    }

    /// Picks a member of this shard: a ready one, else one that can keep the message.
    fn pick_member(&mut self, group: &Group) -> Option<Picked> {
        let Shard {
            env, outlets, subs, ..
        } = self;
        let slots = &outlets.slots;
        let limits = &env.shared.limits;
        let who = |id| slots.principal(id);
        subs.pick(group, &env.gate, who, |id: SlotId| {
            let slot = slots.slot(id);
            if !slot.is_ready() {
                return MemberState::Parked;
            }
            match session_of(&slot.cold) {
                Some(session) if !session.is_full(limits) => MemberState::Ready,
                Some(_) | None => MemberState::Full,
            }
        })
    }

    /// Gives a message to a member that was picked for it; whether it took it.
    fn give(&mut self, group: &Group, picked: &Picked, message: &Arc<Message>) -> bool {
        let identifier = picked.identifier.map(|identifier| identifier.get());
        let how = Receiving {
            // [MQTT-4.8.2-3]
            qos: QoS::from_bits(picked.qos).unwrap_or(QoS::AtMostOnce),
            retain: message.retain() && picked.retain_as_published,
            identifiers: identifier.as_slice(),
            prefix: picked.prefix.as_ref(),
            shared: Some(SharedOrigin(group.id().get())),
        };
        let delivered = self.outlets.deliver(&self.env, picked.slot, message, &how);
        !matches!(
            delivered,
            Delivered::Dropped(DropReason::Offline | DropReason::QueueFull)
        )
    }

    /// A member left: what it was to receive goes to another one, where one is there.
    pub(super) fn redispatch(&mut self, id: SlotId, ended: bool) {
        let groups = Arc::clone(&self.env.shared.groups);
        let other = |origin: SharedOrigin| {
            groups
                .get(GroupId::new(origin.0))
                .filter(|group| ended || group.has_ready())
        };
        let mut machine = self.outlets.slots.slot_mut(id).machine();
        for (origin, message) in machine.take_shared(|origin| other(origin).is_some()) {
            if let Some(group) = other(origin) {
                self.route_to_group(&group, &message, false);
            }
        }
    }
}

/// Messages of a run of `count` that each member gets at most: `members` share it evenly where they
/// are few, and long runs are cut into pieces worth a send.
fn piece_messages(count: u32, members: u32) -> u32 {
    let pieces = (count / PIECE_MESSAGES).max(PIECES_MIN).min(members);
    count.div_ceil(pieces.max(1))
}

/// The first frames of several, `most` at most, and how many they are.
fn first_frames(frames: &[u8], most: u32) -> Option<(&[u8], u32)> {
    let (mut end, mut count) = (0, 0);
    while count < most
        && let Ok(Some(frame)) = split_frame(&frames[end..], u32::MAX)
    {
        end += frame.bytes.len();
        count += 1;
    }
    (count > 0).then(|| (&frames[..end], count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_members_share_a_run_evenly_and_many_get_pieces_worth_a_send() {
        for (count, members, each) in [
            (1, 50, 1),
            (3, 50, 1),
            (10, 2, 5),
            (10, 3, 4),
            (32, 50, 8),
            (440, 50, 17),
            (440, 4, 110),
            (7, 1, 7),
        ] {
            assert_eq!(piece_messages(count, members), each, "{count} to {members}");
        }
    }

    #[test]
    fn frames_are_cut_between_packets() {
        let frames = [
            0x30, 3, 0, 1, b'a', 0x30, 4, 0, 1, b'a', b'b', 0x30, 3, 0, 1, b'a',
        ];
        let (first, count) = first_frames(&frames, 2).unwrap();
        assert_eq!((first.len(), count), (11, 2));
        assert_eq!(first_frames(&frames[11..], 2), Some((&frames[11..], 1)));
        assert_eq!(first_frames(&[], 2), None);
    }
}
