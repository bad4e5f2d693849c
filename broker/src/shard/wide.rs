//! Lists too long for one turn, and what comes when the turn has done enough: what they are owed is
//! delivered in slices, a turn each.
//!
//! A slice is a range of slot numbers. Whoever stays in its slot is in exactly one of them, however
//! the list changes between two turns, so nothing of the list has to be kept. A message goes to who
//! is subscribed, and has the right, when its slice comes; it may thus still reach a subscriber who
//! came behind it. Messages of one channel follow each other, so their order holds; those that wait
//! together are delivered together, so that each receiver is sent to once for all of them.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use authcache::{Action, ChannelIndex, Denied, Directory, EntityId, PrincipalIndex};
use router::Routed;
use session::{Address, DropReason, Message, Publication, RightsQuestion, Run};

use crate::shard::Shard;
use crate::shard::inbox::PostedRun;
use crate::shard::wires::Wires;

/// Bytes that are one delivery's work. What is longer counts as several: 4096 deliveries of 64 KiB
/// would be a turn of a quarter of a second.
const DELIVERY_BYTES: usize = 4096;

/// As how many deliveries one counts that has so many bytes.
#[inline]
pub(crate) fn weight(bytes: usize) -> usize {
    1 + bytes / DELIVERY_BYTES
}

/// Messages and runs that are delivered together at most, no more than a slice has deliveries, and
/// their bytes where they are several.
const BATCH_MAX: usize = 16;
const BATCH_BYTES_MAX: usize = 16 * 1024;

/// Of what is delivered together, as many as take the time of one more send.
const BATCH_SHARE: usize = 8;

/// Deliveries owed, in slices, from which on a publisher that adds to them is read no further.
const OWED_MAX: usize = 16;

/// Deliveries owed, in slices, from which on no shard reads from its clients: what comes from other
/// shards cannot hold back a single publisher. Each batch counts as a slice at least and for its
/// length, so that 64 MiB of runs or 16 MiB of the largest packets wait, and few beyond.
pub(crate) const OWED_AT_ALL_MAX: usize = 1024;

/// What waits for its slices, by channel.
#[derive(Debug)]
pub(crate) struct Wide {
    /// Deliveries of one slice.
    slice: usize,
    channels: HashMap<ChannelIndex, Queue, foldhash::fast::RandomState>,
    /// Channels that can go on, in turns.
    ready: VecDeque<ChannelIndex>,
    /// Deliveries that are owed, of a batch one for each receiver, by their weight.
    owed: usize,
    /// How often something was added.
    added: u64,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Batch>,
    /// Where slices of the first one end: ascending slot numbers; the last slice has no end.
    ends: Vec<u32>,
    /// The slice that is next.
    at: usize,
    /// Receivers that were found last: a batch counts as if it had as many until its own are
    /// counted, and as a slice at least, for a turn is what it takes.
    guess: usize,
    /// The publisher's right is asked for; nothing goes on meanwhile.
    asked: Option<RightsQuestion>,
}

/// What is delivered together, in its order.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<Owed>,
    bytes: usize,
    /// Deliveries that are owed of it.
    deliveries: usize,
}

#[derive(Debug)]
struct Owed {
    what: What,
    /// Whose the indexes of publisher and channel were: what waits may outlive a fence, and with it
    /// their meaning.
    names: (EntityId, Option<EntityId>),
}

#[derive(Debug)]
enum What {
    Run(PostedRun, Vec<u8>),
    Message(Arc<Message>),
}

impl What {
    fn address(&self) -> Address {
        match self {
            What::Run(run, _) => run.address,
            What::Message(message) => message.address(),
        }
    }

    fn publisher(&self) -> PrincipalIndex {
        match self {
            What::Run(run, _) => run.publisher,
            What::Message(message) => message.publisher(),
        }
    }

    fn subtopic(&self) -> &str {
        match self {
            What::Run(run, bytes) => run.run(bytes).subtopic(),
            What::Message(message) => message.subtopic(),
        }
    }

    fn names(&self, directory: &Directory) -> (EntityId, Option<EntityId>) {
        let channel = directory.channel_id(self.address().channel);
        (directory.principal_id(self.publisher()), channel)
    }

    fn bytes(&self) -> usize {
        match self {
            What::Run(run, _) => run.frames.len(),
            What::Message(message) => message.weight(),
        }
    }

    fn count(&self) -> u64 {
        match self {
            What::Run(run, _) => u64::from(run.count),
            What::Message(_) => 1,
        }
    }
}

impl Batch {
    /// Whether one more is delivered with it: to the same receivers, so that they are counted once.
    fn takes(&self, what: &What, slice: usize) -> bool {
        let Some(first) = self.items.first() else {
            return true;
        };
        let fits =
            self.bytes + what.bytes() <= BATCH_BYTES_MAX && self.items.len() < BATCH_MAX.min(slice);
        let same = first.what.address() == what.address();
        fits && same && first.what.subtopic() == what.subtopic()
    }

    /// As how many deliveries all of it counts for one receiver.
    fn weight(&self) -> usize {
        weight(self.bytes) + self.items.len() / BATCH_SHARE
    }

    fn count(&self) -> u64 {
        self.items.iter().map(|item| item.what.count()).sum()
    }
}

impl Wide {
    pub(crate) fn new(slice: usize) -> Wide {
        Wide {
            slice: slice.max(1),
            channels: HashMap::default(),
            ready: VecDeque::new(),
            owed: 0,
            added: 0,
        }
    }

    /// Deliveries that are made at once; more are made in slices.
    #[inline]
    pub(crate) fn slice(&self) -> usize {
        self.slice
    }

    /// Whether so many deliveries are not made at once, when `spent` were made in this turn.
    #[inline]
    pub(crate) fn is_too_long(&self, deliveries: usize, spent: usize) -> bool {
        deliveries > self.slice || (spent >= self.slice && deliveries > 0)
    }

    /// Receivers in one slice.
    fn receivers(&self, batch: &Batch) -> usize {
        (self.slice / batch.weight()).max(1)
    }

    /// Whether something waits for a channel: what follows waits behind it.
    #[inline]
    pub(crate) fn holds(&self, channel: ChannelIndex) -> bool {
        !self.channels.is_empty() && self.channels.contains_key(&channel)
    }

    /// How often something was added: changes when a publisher has to be asked to wait.
    #[inline]
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// Whether publishers of such channels have to wait.
    pub(crate) fn is_much(&self) -> bool {
        self.owed > OWED_MAX * self.slice
    }

    /// Whether everybody has to wait.
    pub(crate) fn is_too_much(&self) -> bool {
        self.owed > OWED_AT_ALL_MAX * self.slice
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether a next turn could go on.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Deliveries that are owed.
    pub(crate) fn owed(&self) -> usize {
        self.owed
    }

    pub(crate) fn add_run(&mut self, run: &Run<'_>, receivers: usize, directory: &Directory) {
        let mut bytes = Vec::new();
        let posted = PostedRun::new(run, &mut bytes);
        self.add(What::Run(posted, bytes), receivers, directory);
    }

    pub(crate) fn add_message(
        &mut self,
        message: &Arc<Message>,
        receivers: usize,
        directory: &Directory,
    ) {
        self.add(What::Message(Arc::clone(message)), receivers, directory);
    }

    fn add(&mut self, what: What, receivers: usize, directory: &Directory) {
        let channel = what.address().channel;
        let names = what.names(directory);
        let (ready, slice) = (&mut self.ready, self.slice);
        let queue = self.channels.entry(channel).or_insert_with(|| {
            ready.push_back(channel);
            Queue {
                waiting: VecDeque::new(),
                ends: Vec::new(),
                at: 0,
                guess: 0,
                asked: None,
            }
        });
        let bytes = what.bytes();
        // What is being delivered has reached some of its receivers already.
        let under_way = usize::from(queue.at > 0);
        let open = queue.waiting.len() > under_way;
        if !(open
            && queue
                .waiting
                .back()
                .is_some_and(|last| last.takes(&what, slice)))
        {
            queue.waiting.push_back(Batch::default());
        }
        let receivers = receivers.max(queue.guess);
        if let Some(batch) = queue.waiting.back_mut() {
            batch.items.push(Owed { what, names });
            batch.bytes += bytes;
            // How many receive it is known when it comes to be the first.
            let deliveries = slice.max(receivers * batch.weight());
            self.owed += deliveries.saturating_sub(batch.deliveries);
            batch.deliveries = batch.deliveries.max(deliveries);
        }
        self.added += 1;
    }

    /// Removes what `gone` names; how many messages that were.
    fn remove_if(&mut self, gone: impl Fn(&What) -> bool) -> u64 {
        let mut dropped = 0;
        let owed = &mut self.owed;
        self.channels.retain(|_, queue| {
            let mut first = true;
            queue.waiting.retain_mut(|batch| {
                let before = batch.count();
                batch.items.retain(|item| !gone(&item.what));
                dropped += before - batch.count();
                if first && before != batch.count() {
                    queue.asked = None;
                }
                if batch.items.is_empty() {
                    *owed -= batch.deliveries;
                    if first {
                        queue.at = 0;
                    }
                }
                first = false;
                !batch.items.is_empty()
            });
            !queue.waiting.is_empty()
        });
        let channels = &self.channels;
        self.ready.retain(|channel| {
            channels
                .get(channel)
                .is_some_and(|queue| queue.asked.is_none())
        });
        // One whose question fell away with its message can go on.
        for (channel, queue) in &self.channels {
            if queue.asked.is_none() && !self.ready.contains(channel) {
                self.ready.push_back(*channel);
            }
        }
        dropped
    }
}

impl Queue {
    /// The slot numbers of the next slice.
    fn slots(&self) -> Range<u32> {
        let end = |at: usize| self.ends.get(at).copied();
        let from = self.at.checked_sub(1).and_then(end).unwrap_or(0);
        from..end(self.at).unwrap_or(u32::MAX)
    }

    fn is_last(&self) -> bool {
        self.at >= self.ends.len()
    }
}

impl<W: Wires> Shard<W> {
    /// Delivers one slice of what waits; channels take turns.
    pub(crate) fn deliver_slice(&mut self) {
        if !self.may_serve() {
            return;
        }
        let Some(channel) = self.wide.ready.pop_front() else {
            return;
        };
        let Some(mut queue) = self.wide.channels.remove(&channel) else {
            return;
        };
        if let Some(mut first) = queue.waiting.pop_front() {
            queue.asked = self.judge_again(&mut first);
            if first.items.is_empty() {
                self.wide.owed -= first.deliveries;
                queue.at = 0;
            } else if queue.asked.is_some() {
                queue.waiting.push_front(first);
            } else {
                if queue.at == 0 {
                    self.measure(&mut queue, &mut first);
                }
                for item in &first.items {
                    self.deliver_part(&item.what, queue.slots());
                }
                if queue.is_last() {
                    self.wide.owed -= first.deliveries;
                    queue.at = 0;
                } else {
                    let done = self.wide.receivers(&first) * first.weight();
                    let done = first.deliveries.min(done);
                    self.wide.owed -= done;
                    first.deliveries -= done;
                    queue.at += 1;
                    queue.waiting.push_front(first);
                }
            }
        }
        if queue.waiting.is_empty() {
            return;
        }
        if queue.asked.is_none() {
            self.wide.ready.push_back(channel);
        }
        self.wide.channels.insert(channel, queue);
    }

    /// Takes out of a batch what its publisher has no right to any more. The question, where control
    /// has to be asked first: one at a time.
    fn judge_again(&mut self, batch: &mut Batch) -> Option<RightsQuestion> {
        loop {
            // The first that is open, and whether it could be asked.
            let mut asked: Option<(RightsQuestion, bool)> = None;
            let mut dropped = 0;
            batch.items.retain(|item| {
                let stays = match self.may_still(item) {
                    Ok(()) => true,
                    Err(None) => false,
                    Err(Some(question)) => {
                        let ask = || (question, self.ask_for_what_waits(question));
                        let (open, is_asked) = *asked.get_or_insert_with(ask);
                        is_asked || open != question
                    }
                };
                if !stays {
                    dropped += item.what.count();
                }
                stays
            });
            self.env.counters.dropped(DropReason::Revoked, dropped);
            match asked {
                // What rests on it is gone; others may have questions too.
                Some((_, false)) => {}
                Some((question, true)) => return Some(question),
                None => return None,
            }
        }
    }

    /// Whether the publisher still has its right: what waits is judged again. The question, where
    /// control has to be asked first.
    fn may_still(&self, owed: &Owed) -> Result<(), Option<RightsQuestion>> {
        let what = &owed.what;
        let channel = what.address().channel;
        if channel == ChannelIndex::SYS {
            return Ok(());
        }
        if what.names(self.env.shared.cache.directory()) != owed.names {
            return Err(None);
        }
        let principal = what.publisher();
        match self.env.gate.allows(principal, Action::Publish, channel) {
            Ok(()) => Ok(()),
            Err(Denied::Unknown) => {
                let question = RightsQuestion { principal, channel };
                Err(Some(question))
            }
            Err(_) => Err(None),
        }
    }

    /// Finds out where the slices of a batch end.
    fn measure(&mut self, queue: &mut Queue, first: &mut Batch) {
        let Shard {
            env,
            outlets,
            subs,
            wide,
            ..
        } = self;
        let Some(what) = first.items.first().map(|item| &item.what) else {
            return;
        };
        let address = what.address();
        let slots = &outlets.slots;
        let who = |slot| slots.principal(slot);
        let routed = subs.route(
            address.channel,
            address.wild,
            what.subtopic(),
            &env.gate,
            who,
        );
        let mut receivers: Vec<u32> = match &routed {
            Routed::Plain(entries) => entries.iter().map(|entry| entry.slot().get()).collect(),
            Routed::Merged(merged) => merged.iter().map(|found| found.slot.get()).collect(),
        };
        receivers.sort_unstable();
        queue.guess = receivers.len();
        let slice = wide.receivers(first);
        queue.ends = receivers
            .iter()
            .copied()
            .skip(slice)
            .step_by(slice)
            .collect();
        let deliveries = receivers.len() * first.weight();
        wide.owed = wide.owed - first.deliveries + deliveries;
        first.deliveries = deliveries;
    }

    fn deliver_part(&mut self, what: &What, slots: Range<u32>) {
        match what {
            What::Run(run, bytes) => {
                if let Some(run) = self.env.gate.handed_over(run.run(bytes)) {
                    self.deliver_run_within(&run, Some(slots));
                }
            }
            What::Message(message) => {
                let publication = Publication(Arc::clone(message));
                if let Some(publication) = self.env.gate.handed_over(publication) {
                    self.deliver_message_within(&publication, Some(slots));
                }
            }
        }
    }

    /// Control has told a right, or that it cannot: then what rests on it goes no further.
    pub(crate) fn wide_answered(&mut self, question: RightsQuestion, answered: bool) {
        if !answered {
            let dropped = self.wide.remove_if(|what| {
                what.publisher() == question.principal && what.address().channel == question.channel
            });
            self.env.counters.dropped(DropReason::Revoked, dropped);
        }
        let wide = &mut self.wide;
        for (channel, queue) in &mut wide.channels {
            if queue.asked == Some(question) {
                queue.asked = None;
                wide.ready.push_back(*channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use codec::mqtt::QoS;
    use router::ShardId;
    use session::{MessageParts, Origin};

    use super::*;

    const SLICE: usize = 4096;

    fn message(topic: &str, bytes: usize) -> What {
        What::Message(Arc::new(Message::new(MessageParts {
            address: Address {
                channel: ChannelIndex::new(1),
                wild: None,
                subtopic_at: 0,
            },
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: &[topic],
            properties: &[],
            payload: &vec![0; bytes],
            expires_at: None,
            origin: Origin {
                shard: ShardId::new(0),
                slot: None,
            },
            publisher: PrincipalIndex::new(1),
        })))
    }

    /// As many of `bytes` as are delivered together.
    fn filled(bytes: usize, slice: usize) -> Batch {
        let mut batch = Batch::default();
        while batch.takes(&message("a", bytes), slice) {
            let what = message("a", bytes);
            batch.bytes += what.bytes();
            let names = (EntityId::from_u128(1), None);
            batch.items.push(Owed { what, names });
        }
        batch
    }

    #[test]
    fn a_batch_is_bounded_in_messages_in_bytes_and_by_a_slice() {
        assert_eq!(filled(1, SLICE).items.len(), BATCH_MAX);
        assert_eq!(filled(1, 2).items.len(), 2);
        let large = filled(BATCH_BYTES_MAX / 4, SLICE);
        assert_eq!(large.items.len(), 3, "with their topics four are more");
        assert!(large.bytes <= BATCH_BYTES_MAX);
        assert_eq!(
            filled(1 << 20, SLICE).items.len(),
            1,
            "alone whatever its size"
        );
    }

    #[test]
    fn only_messages_of_one_topic_are_delivered_together() {
        let mut batch = filled(1, SLICE);
        batch.items.truncate(1);
        assert!(batch.takes(&message("a", 1), SLICE));
        assert!(!batch.takes(&message("b", 1), SLICE));
    }
}
