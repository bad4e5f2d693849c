//! Retained messages: kept on the channel's home shard, given to new subscriptions in slices.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use authcache::{Action, ChannelIndex, Denied, Gate};
use codec::mqtt::QoS;
use router::{Retained, ShardId, SlotId};
use session::{Message, Receiving};

use crate::shard::Shard;
use crate::shard::inbox::{Post, RetainedAsk, RetainedGive};
use crate::shard::wires::{Token, Wires};

/// Messages given in one turn, behind live traffic.
const SLICE: usize = 100;

impl<W: Wires> Shard<W> {
    /// Hands a RETAIN message to the shard that keeps it, at once: whoever subscribes while the
    /// message is routed either is found by its interest, which is read after this, or asks for
    /// what is retained behind it.
    pub(crate) fn retain(&mut self, message: &Arc<Message>) {
        let home = self.env.shared.home_of_channel(message.address().channel);
        // By a queue to this shard too: an older message that was acknowledged may wait there.
        self.outboxes[home.index()]
            .posts
            .push(Post::Retain(Arc::clone(message)));
        self.post_to(home.index());
    }

    /// Stores, replaces or removes. [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7]
    /// [MQTT3-3.3.1-5] [MQTT3-3.3.1-7] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11]
    pub(crate) fn retain_here(&mut self, message: &Arc<Message>) {
        let channel = message.address().channel;
        self.change_retained(|retained| {
            if message.payload().is_empty() {
                retained.remove(channel, message.subtopic());
            } else {
                retained.set(channel, message.subtopic(), Arc::clone(message));
            }
        });
    }

    /// Changes the store and accounts for what that added or took.
    pub(crate) fn change_retained(&mut self, change: impl FnOnce(&mut Retained<Arc<Message>>)) {
        let (count, bytes) = (self.retained.len(), self.retained.bytes());
        change(&mut self.retained);
        let shared = &self.env.shared;
        // Wrapping: a difference below zero takes away.
        let more = (self.retained.len() as u64).wrapping_sub(count as u64);
        let more_bytes = (self.retained.bytes() as u64).wrapping_sub(bytes as u64);
        shared.retained.fetch_add(more, Ordering::Relaxed);
        shared
            .retained_bytes
            .fetch_add(more_bytes, Ordering::Relaxed);
        self.env.counters.retained.add(more);
    }

    /// Asks the home shards of a new subscription for what they keep.
    pub(crate) fn ask_retained(&mut self, ask: RetainedAsk) {
        let spans_all = self.spans_open_namespace(&ask);
        let homes: Vec<ShardId> = if spans_all {
            (0..self.env.shared.shards())
                .map(|at| ShardId::new(at as u8))
                .collect()
        } else {
            vec![self.env.shared.home_of_channel(ask.channel)]
        };
        for home in homes {
            // By the queue to its own shard too: a RETAIN that was acknowledged before may still
            // wait there, and has to be seen first.
            let post = Post::RetainedAsk(Box::new(ask.clone()));
            self.outboxes[home.index()].posts.push(post);
        }
    }

    /// Whether a filter begins with a wildcard in an open namespace, so that its messages may lie
    /// under any of its indexes.
    fn spans_open_namespace(&self, ask: &RetainedAsk) -> bool {
        self.env
            .listeners
            .iter()
            .any(|listener| listener.open.is_some_and(|open| open.wild() == ask.channel))
    }

    /// Finds what matches and gives it back in slices.
    pub(crate) fn answer_retained(&mut self, ask: RetainedAsk) {
        let mut found = Vec::new();
        if self.spans_open_namespace(&ask) {
            let open = self
                .env
                .listeners
                .iter()
                .find_map(|listener| listener.open.filter(|open| open.wild() == ask.channel));
            if let Some(open) = open {
                for channel in open.indexes() {
                    self.retained.matching(channel, &ask.filter, &mut found);
                }
            }
        } else {
            self.retained.matching(ask.channel, &ask.filter, &mut found);
        }
        // What a client that lost its right left behind stays unread. (Threats T-TOP-8.) Asked
        // again when a message is given, which may be much later.
        let gate = &self.env.gate;
        found.retain(|message: &Arc<Message>| author_may(gate, message));
        if found.is_empty() && !ask.tell_end {
            return;
        }
        let home = ask.shard;
        let give = RetainedGive {
            ask,
            from: self.env.id,
            messages: found,
            given: 0,
        };
        // Always by a queue, the own one too: live traffic goes first.
        self.outboxes[home.index()]
            .posts
            .push(Post::RetainedGive(Box::new(give)));
    }

    /// Retained messages are there for a subscriber; it gets them as it has room. What is left of
    /// the same for an earlier SUBSCRIBE is among them: a client that repeats itself without
    /// reading is owed no more for it.
    pub(crate) fn give_retained(&mut self, give: RetainedGive) {
        let ask = &give.ask;
        let Some(slot) = self.outlets.slots.current(ask.token) else {
            return;
        };
        // The subscription may have ended while its answer was on the way.
        let holds = slot.machine().session().is_some_and(|session| {
            session.subscriptions().iter().any(|record| {
                record.channel == ask.channel
                    && record.filter == ask.filter
                    && record.share.is_none()
            })
        });
        if !holds {
            return;
        }
        self.replays.retain(|old| {
            old.ask.token != give.ask.token
                || old.from != give.from
                || old.ask.channel != give.ask.channel
                || old.ask.filter != give.ask.filter
        });
        self.replays.push_back(give);
    }

    /// A subscription ended, and with it what it is still owed. (MQTT 5, 3.10.4)
    pub(crate) fn stop_replay(&mut self, id: SlotId, channel: ChannelIndex, filter: &str) {
        self.replays.retain(|give| {
            give.ask.token.slot != id || give.ask.channel != channel || *give.ask.filter != *filter
        });
    }

    /// Gives each new subscriber a slice of what is retained for it, if it took the last one: its
    /// wire is not blocked and fewer messages than a slice wait in its session. What it is owed
    /// stays here, as references, so that a large store neither overflows its queue nor holds up
    /// the turn. Every event of the subscriber is a turn, so this goes on when it has room.
    pub(crate) fn replay(&mut self) {
        self.replaying = false;
        if self.replays.is_empty() {
            return;
        }
        let mut held = Vec::new();
        for _ in 0..self.replays.len() {
            let Some(mut give) = self.replays.pop_front() else {
                break;
            };
            let token = give.ask.token;
            let Some(slot) = self.outlets.slots.current(token) else {
                continue;
            };
            let blocked = slot.backlog.is_some() || slot.wire.is_none();
            let queued = slot
                .machine()
                .session()
                .map_or(0, |session| session.queued());
            // One subscriber's answers keep their order.
            if !blocked && queued < SLICE && !held.contains(&token) {
                self.give_slice(&mut give);
            }
            if give.given >= give.messages.len() && !self.told_end(&give) {
                held.push(token);
                self.replays.push_back(give);
            } else if give.given < give.messages.len() {
                self.replaying |= !blocked && queued < SLICE;
                held.push(token);
                self.replays.push_back(give);
            }
        }
    }

    /// Tells whoever waits for it that all was given; `false` while some of it waits still.
    fn told_end(&mut self, give: &RetainedGive) -> bool {
        let (true, Some(identifier)) = (give.ask.tell_end, give.ask.identifier) else {
            return true;
        };
        let id = give.ask.token.slot;
        self.outlets.flush_slot(&self.env, id);
        let slot = self.outlets.slots.slot(id);
        if slot.backlog.is_some() {
            return false;
        }
        if let Some(wire) = &slot.wire {
            self.outlets.wires.replayed(wire, identifier);
        }
        true
    }

    /// The session in a slot lost its connection or has a new one: what it is still owed follows it.
    /// QoS 0 does not outlive the connection.
    pub(crate) fn replays_follow(&mut self, before: Token, id: SlotId) {
        let now = self.outlets.slots.token(id);
        self.replays
            .retain(|give| give.ask.token != before || give.ask.qos != QoS::AtMostOnce);
        for give in &mut self.replays {
            if give.ask.token == before {
                give.ask.token = now;
            }
        }
    }

    /// Delivers a slice, if the subscriber still may read and the authors still may publish.
    /// [MQTT-3.3.1-9] [MQTT3-3.3.1-6] [MQTT3-3.3.1-8]
    fn give_slice(&mut self, give: &mut RetainedGive) {
        let ask = &give.ask;
        let id = ask.token.slot;
        let principal = self.outlets.slots.principal(id);
        let end = give.messages.len().min(give.given + SLICE);
        for message in &give.messages[give.given..end] {
            let channel = message.address().channel;
            let gate = &self.env.gate;
            if !author_may(gate, message)
                || gate.allows(principal, Action::Subscribe, channel).is_err()
            {
                continue;
            }
            let how = Receiving {
                qos: ask.qos,
                retain: true,
                identifiers: ask.identifier.as_slice(),
                prefix: ask.prefix.as_ref(),
                shared: None,
            };
            self.outlets.deliver(&self.env, id, message, &how);
        }
        give.given = end;
    }
}

/// Whether the author of a retained message still has the right to publish it, as far as is known.
fn author_may(gate: &Gate, message: &Message) -> bool {
    let channel = message.address().channel;
    message.origin().slot.is_none()
        || matches!(
            gate.allows(message.publisher(), Action::Publish, channel),
            Ok(()) | Err(Denied::Unknown)
        )
}
