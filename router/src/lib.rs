//! Channel to subscribers, channel to retained messages.

#![forbid(unsafe_code)]

mod entry;
mod filters;
mod interest;
mod topic;
mod tree;
pub use entry::{Entry, ShardId, SlotId};
pub use interest::Interest;
pub use topic::*;
/// What the router keeps of a subscription.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Subscription { pub channel: authcache::ChannelIndex, pub filter: Box<str>, pub qos: u8, pub no_local: bool, pub retain_as_published: bool, pub version5: bool, pub identifier: Option<std::num::NonZeroU32>, pub prefix: Option<std::sync::Arc<str>>, pub share: Option<Box<str>> }
impl authcache::OnChannel for Subscription { fn channel(&self) -> authcache::ChannelIndex { self.channel } }
