//! From a permitted message to its subscribers: this shard's at once, other shards' by outbox.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use authcache::{Action, ChannelIndex, Denied, Permitted, PrincipalIndex};
use codec::mqtt::{
    Delivery, Packet, ProtocolVersion, PublishOut, QoS, ReasonCode, decode, split_frame,
};
use router::{Routed, ShardId, SlotId};
use session::{
    DropReason, Message, MessageParts, Origin, Publication, Receiving, RightsQuestion, Run, Will,
};

use crate::shard::Shard;
use crate::shard::inbox::Post;
use crate::shard::wide::weight;
use crate::shard::wires::Wires;

/// Wills that may wait for a right; further ones are dropped. 64 MiB at their largest.
const WILLS_MAX: usize = 1024;

impl<W: Wires> Shard<W> {
    /// Routes frames that leave as they came.
    pub(crate) fn route_run(&mut self, run: &Permitted<Run<'_>>) {
        let address = run.address;
        let interest = &self.env.shared.interest;
        let mut shards = interest.shards(address.channel);
        let mut groups = interest.has_groups(address.channel);
        if let Some(wild) = address.wild {
            shards |= interest.shards(wild);
            groups |= interest.has_groups(wild);
        }
        let own = 1 << self.env.id.index();
        let mut others = shards & !own;
        while others != 0 {
            let at = others.trailing_zeros() as usize;
            others &= others - 1;
            self.outboxes[at].push_run(run);
        }
        if shards & own != 0 {
            self.deliver_run(run);
        }
        if groups {
            self.deal_run(run);
        }
    }

    /// Delivers a run to the subscribers of this shard; in slices, where they are many.
    pub(crate) fn deliver_run(&mut self, run: &Permitted<Run<'_>>) {
        self.deliver_run_within(run, None);
    }

    /// As [`Shard::deliver_run`], to the subscribers in `part` of the slots, at once.
    pub(super) fn deliver_run_within(
        &mut self,
        run: &Permitted<Run<'_>>,
        part: Option<Range<u32>>,
    ) {
        if part.is_none() && self.wide.holds(run.address.channel) {
            let directory = self.env.shared.cache.directory();
            return self.wide.add_run(run, 0, directory);
        }
        let at_once = part.is_some();
        let Shard {
            env,
            outlets,
            subs,
            slow,
            wide,
            spent,
            ..
        } = self;
        let address = run.address;
        let slots = &outlets.slots;
        let who = |slot| slots.principal(slot);
        let routed = subs.route_within(
            address.channel,
            address.wild,
            run.subtopic(),
            &env.gate,
            who,
            part,
        );
        let deliveries = routed.len() * weight(run.frames.len());
        if !at_once && wide.is_too_long(deliveries, *spent) {
            let receivers = routed.len();
            return wide.add_run(run, receivers, env.shared.cache.directory());
        }
        *spent += deliveries;
        let mut shared = None;
        let mut twin = None;
        let mut shared_twin = None;
        slow.clear();
        match &routed {
            Routed::Plain(entries) => {
                for entry in *entries {
                    let id = entry.slot();
                    if entry.no_local() && is_own(run.origin, env.id, id) {
                        // [MQTT-3.8.3-3]
                        continue;
                    }
                    let slot = outlets.slots.slot(id);
                    let hot = &slot.hot;
                    if !hot.is_live() {
                        env.counters
                            .dropped(DropReason::Offline, u64::from(run.count));
                        continue;
                    }
                    // Two bytes are the most that a frame grows by in the other version.
                    if !hot.takes_frames(run.longest + 2) {
                        slow.push((id, 0));
                    } else if hot.is_version5() == run.version5 {
                        let channel = address.channel;
                        outlets.append(env, id, channel, run.frames, run.count, &mut shared);
                    } else {
                        let frames = twin.get_or_insert_with(|| twin_of(run));
                        let channel = address.channel;
                        outlets.append(env, id, channel, frames, run.count, &mut shared_twin);
                    }
                }
            }
            Routed::Merged(merged) => {
                for (at, found) in merged.iter().enumerate() {
                    let id = found.slot;
                    let own = is_own(run.origin, env.id, id);
                    let Some(found) = merged.seen_by(found, own) else {
                        // [MQTT-3.8.3-3]
                        continue;
                    };
                    let slot = outlets.slots.slot(id);
                    let hot = &slot.hot;
                    if !hot.is_live() {
                        env.counters
                            .dropped(DropReason::Offline, u64::from(run.count));
                        continue;
                    }
                    let plain =
                        merged.identifiers(found).is_empty() && merged.prefix(found).is_none();
                    if plain && hot.is_version5() == run.version5 && hot.takes_frames(run.longest) {
                        let channel = address.channel;
                        outlets.append(env, id, channel, run.frames, run.count, &mut shared);
                    } else {
                        slow.push((id, at));
                    }
                }
            }
        }
        if slow.is_empty() {
            return;
        }
        let messages: Vec<Arc<Message>> = messages_of(run).map(Arc::new).collect();
        for &(id, at) in slow.iter() {
            let (identifiers, prefix): (&[u32], _) = match &routed {
                Routed::Plain(_) => (&[], None),
                Routed::Merged(merged) => {
                    let own = is_own(run.origin, env.id, id);
                    let Some(found) = merged.seen_by(&merged[at], own) else {
                        continue;
                    };
                    (merged.identifiers(found), merged.prefix(found))
                }
            };
            let how = Receiving {
                qos: QoS::AtMostOnce,
                retain: false,
                identifiers,
                prefix,
                shared: None,
            };
            for message in &messages {
                outlets.deliver(env, id, message, &how);
            }
        }
    }

    /// Routes one message; the Reason Code for its publisher, who is `told` or has no way to be.
    pub(crate) fn route_publication(
        &mut self,
        publication: &Permitted<Publication>,
        told: bool,
    ) -> ReasonCode {
        let message = &publication.0;
        if message.retain() && !self.has_room_to_retain(message) {
            self.env.counters.retained_refused.add(1);
            // Who cannot be told has its message delivered, and not kept.
            if message.qos() != QoS::AtMostOnce && told {
                return ReasonCode::QUOTA_EXCEEDED;
            }
        } else if message.retain() {
            self.retain(message);
        }
        let address = message.address();
        let interest = &self.env.shared.interest;
        let mut shards = interest.shards(address.channel);
        let mut groups = interest.has_groups(address.channel);
        if let Some(wild) = address.wild {
            shards |= interest.shards(wild);
            groups |= interest.has_groups(wild);
        }
        let own = 1 << self.env.id.index();
        let mut others = shards & !own;
        let mut matched = others != 0;
        while others != 0 {
            let at = others.trailing_zeros() as usize;
            others &= others - 1;
            self.outboxes[at]
                .posts
                .push(Post::Message(Arc::clone(message)));
        }
        if shards & own != 0 {
            matched |= self.deliver_message(publication);
        }
        if groups {
            matched |= self.route_to_groups(message);
        }
        if matched {
            ReasonCode::SUCCESS
        } else {
            ReasonCode::NO_MATCHING_SUBSCRIBERS
        }
    }

    /// Delivers a message to the subscribers of this shard, in slices where they are many; whether
    /// there are any.
    pub(crate) fn deliver_message(&mut self, publication: &Permitted<Publication>) -> bool {
        self.deliver_message_within(publication, None)
    }

    /// As [`Shard::deliver_message`], to the subscribers in `part` of the slots, at once.
    pub(super) fn deliver_message_within(
        &mut self,
        publication: &Permitted<Publication>,
        part: Option<Range<u32>>,
    ) -> bool {
        let message = &publication.0;
        if part.is_none() && self.wide.holds(message.address().channel) {
            let directory = self.env.shared.cache.directory();
            self.wide.add_message(message, 0, directory);
            return true;
        }
        let at_once = part.is_some();
        let Shard {
            env,
            outlets,
            subs,
            wide,
            spent,
            ..
        } = self;
        let address = message.address();
        let slots = &outlets.slots;
        let who = |slot| slots.principal(slot);
        let routed = subs.route_within(
            address.channel,
            address.wild,
            message.subtopic(),
            &env.gate,
            who,
            part,
        );
        let deliveries = routed.len() * weight(message.weight());
        if !at_once && wide.is_too_long(deliveries, *spent) {
            let receivers = routed.len();
            wide.add_message(message, receivers, env.shared.cache.directory());
            return true;
        }
        *spent += deliveries;
        let origin = message.origin();
        match &routed {
            Routed::Plain(entries) => {
                for entry in *entries {
                    if entry.no_local() && is_own(origin, env.id, entry.slot()) {
                        continue;
                    }
                    let how = Receiving {
                        qos: QoS::from_bits(entry.qos()).unwrap_or(QoS::AtMostOnce),
                        // [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT3-3.3.1-9]
                        retain: message.retain() && entry.retain_as_published(),
                        identifiers: &[],
                        prefix: None,
                        shared: None,
                    };
                    outlets.deliver(env, entry.slot(), message, &how);
                }
            }
            Routed::Merged(merged) => {
                for found in merged.iter() {
                    let own = is_own(origin, env.id, found.slot);
                    let Some(found) = merged.seen_by(found, own) else {
                        continue;
                    };
                    // One copy with the highest QoS and all identifiers. [MQTT-3.3.4-2]
                    // [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT3-3.3.5-1]
                    let how = Receiving {
                        qos: QoS::from_bits(found.qos).unwrap_or(QoS::AtMostOnce),
                        retain: message.retain() && found.retain_as_published,
                        identifiers: merged.identifiers(found),
                        prefix: merged.prefix(found),
                        shared: None,
                    };
                    outlets.deliver(env, found.slot, message, &how);
                }
            }
        }
        !routed.is_empty()
    }

    /// Sends a will, if its client still may publish there.
    pub(crate) fn publish_will(&mut self, will: Will, publisher: PrincipalIndex, slot: SlotId) {
        let origin = Origin {
            shard: self.env.id,
            slot: Some(slot),
        };
        let message = will.into_message(publisher, origin, self.env.now);
        self.judge_will(Arc::new(message));
    }

    /// A will of a user whose right is not known waits until control has told it; one that is due
    /// while the lease is over waits for the lease. (Threats R-4.)
    fn judge_will(&mut self, message: Arc<Message>) {
        if !self.env.may_serve() && self.wills.len() < WILLS_MAX {
            return self.wills.push((None, message));
        }
        if !self.env.may_serve() {
            return self.env.counters.wills_dropped.add(1);
        }
        // Kept for long, it may name its channel by an index that another channel got.
        let prefix = self
            .env
            .shared
            .cache
            .directory()
            .prefix(message.address().channel);
        if !prefix.is_some_and(|prefix| message.topic().starts_with(&*prefix)) {
            return self.env.counters.wills_dropped.add(1);
        }
        let publisher = message.publisher();
        let publication = Publication(message);
        let mut rights = authcache::RightCache::default();
        let judged = self
            .env
            .gate
            .permit(publisher, Action::Publish, &mut rights, publication);
        match judged {
            Ok(permitted) => {
                self.route_publication(&permitted, false);
            }
            Err((Denied::Unknown, publication)) if self.wills.len() < WILLS_MAX => {
                let question = RightsQuestion {
                    principal: publisher,
                    channel: publication.0.address().channel,
                };
                if self.ask_for_what_waits(question) {
                    self.wills.push((Some(question), publication.0));
                } else {
                    self.env.counters.wills_dropped.add(1);
                }
            }
            Err(_) => self.env.counters.wills_dropped.add(1),
        }
    }

    /// The lease is there: what waited for it is judged.
    pub(crate) fn wills_leased(&mut self) {
        if !self.env.may_serve() {
            return;
        }
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.wills)
            .into_iter()
            .partition(|(asked, _)| asked.is_none());
        self.wills = later;
        for (_, message) in due {
            self.judge_will(message);
        }
    }

    /// Control has told a right, or that it cannot.
    pub(crate) fn wills_answered(&mut self, question: RightsQuestion, answered: bool) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.wills)
            .into_iter()
            .partition(|(asked, _)| *asked == Some(question));
        self.wills = later;
        for (_, message) in due {
            if answered {
                self.judge_will(message);
            } else {
                self.env.counters.wills_dropped.add(1);
            }
        }
    }

    /// Publishes a message of the broker itself; only below `$SYS`.
    pub(crate) fn publish_own(&mut self, topic: &str, payload: &[u8]) {
        let address = session::Address {
            channel: ChannelIndex::SYS,
            wild: None,
            subtopic_at: 0,
        };
        let message = Message::new(MessageParts {
            address,
            qos: QoS::AtMostOnce,
            retain: true,
            topic: &[topic],
            properties: &[],
            payload,
            expires_at: None,
            origin: Origin {
                shard: self.env.id,
                slot: None,
            },
            publisher: PrincipalIndex::new(u32::MAX),
        });
        let publication = Publication(Arc::new(message));
        if let Some(permitted) = self.env.gate.broker_made(publication) {
            self.route_publication(&permitted, false);
        }
    }

    fn has_room_to_retain(&self, message: &Message) -> bool {
        let shared = &self.env.shared;
        message.payload().is_empty()
            || (shared.retained.load(Ordering::Relaxed) < shared.limits.max_retained
                && shared.retained_bytes.load(Ordering::Relaxed) + message.weight() as u64
                    <= shared.limits.max_retained_bytes)
    }
}

/// Whether a subscriber is the client that published.
fn is_own(origin: Origin, shard: ShardId, slot: SlotId) -> bool {
    origin.shard == shard && origin.slot == Some(slot)
}

/// The messages of a run, one by one.
pub(super) fn messages_of<'r>(run: &'r Run<'_>) -> impl Iterator<Item = Message> + 'r {
    let version = version_of(run);
    let mut rest = run.frames;
    std::iter::from_fn(move || {
        let frame = split_frame(rest, u32::MAX).ok()??;
        rest = &rest[frame.bytes.len()..];
        let Ok(Packet::Publish(publish)) = decode(&frame, version) else {
            return None;
        };
        let mut properties = Vec::new();
        publish.properties.forwarded_into(&mut properties);
        Some(Message::new(MessageParts {
            address: run.address,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: &[publish.topic],
            properties: &properties,
            payload: publish.payload,
            expires_at: None,
            origin: run.origin,
            publisher: run.publisher,
        }))
    })
}

fn version_of(run: &Run<'_>) -> ProtocolVersion {
    if run.version5 {
        ProtocolVersion::V5
    } else {
        ProtocolVersion::V311
    }
}

/// The frames of a run in the other version, made once for all who need them.
pub(super) fn twin_of(run: &Run<'_>) -> Vec<u8> {
    let (from, to) = if run.version5 {
        (ProtocolVersion::V5, ProtocolVersion::V311)
    } else {
        (ProtocolVersion::V311, ProtocolVersion::V5)
    };
    let mut twin = Vec::with_capacity(run.frames.len() + 2 * run.count as usize);
    let mut rest = run.frames;
    while let Ok(Some(frame)) = split_frame(rest, u32::MAX) {
        rest = &rest[frame.bytes.len()..];
        if let Ok(Packet::Publish(publish)) = decode(&frame, from) {
            let packet = PublishOut {
                dup: false,
                retain: false,
                delivery: Delivery::AtMostOnce,
                topic: &[publish.topic],
                topic_alias: None,
                message_expiry: None,
                subscription_identifiers: &[],
                forwarded: &[],
                payload: publish.payload,
            };
            packet.encode(to, &mut twin);
        }
    }
    twin
}
