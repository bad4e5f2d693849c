//! What waits between shards at the moment of an answer. (I7)

use authcache::Action;
use codec::mqtt::{Packet, ProtocolVersion, decode, split_frame};

use super::ledger::number_of;
use super::net::SimWire;
use super::world::World;
use crate::shard::inbox::{Batch, Post};

/// Numbers of the messages in a batch.
fn messages(batch: &Batch<SimWire>, into: &mut Vec<u64>) {
    for post in &batch.posts {
        match post {
            Post::Run(posted) => {
                let run = posted.run(&batch.bytes);
                let version = if run.version5 {
                    ProtocolVersion::V5
                } else {
                    ProtocolVersion::V311
                };
                let mut rest = run.frames;
                while let Ok(Some(frame)) = split_frame(rest, u32::MAX) {
                    rest = &rest[frame.bytes.len()..];
                    if let Ok(Packet::Publish(publish)) = decode(&frame, version) {
                        into.extend(number_of(publish.payload));
                    }
                }
            }
            Post::Message(message) | Post::Shared { message, .. } | Post::Retain(message) => {
                into.extend(number_of(message.payload()));
            }
            Post::RetainedGive(give) => {
                into.extend(
                    give.messages
                        .iter()
                        .filter_map(|message| number_of(message.payload())),
                );
            }
            Post::Panic
            | Post::RetainedAsk(_)
            | Post::Accepted { .. }
            | Post::Arrival(_)
            | Post::Key { .. }
            | Post::Identified { .. }
            | Post::RightsAnswered { .. }
            | Post::Notice { .. }
            | Post::Fence { .. }
            | Post::Serve(_)
            | Post::Drain
            | Post::Shutdown => {}
        }
    }
}

impl World {
    /// Control has answered: nothing that was judged by what it took away is in any queue.
    pub(super) fn check_queues(&self) {
        if !self.broker.has_lease() {
            return;
        }
        let mut waiting = Vec::new();
        for inbox in &self.broker.shared.inboxes {
            inbox.look(|batch| messages(batch, &mut waiting));
        }
        for driven in &self.broker.shards {
            for outbox in &driven.shard.outboxes {
                messages(outbox, &mut waiting);
            }
        }
        for number in waiting {
            let Some(sent) = self.ledger.messages.get(&number) else {
                continue;
            };
            let standing = self
                .database
                .standing(sent.principal, sent.channel, Action::Publish);
            assert!(
                !standing.is_forbidden(self.moment, self.moment),
                "message {number} is on its way when its publisher's revocation is answered"
            );
        }
    }
}
