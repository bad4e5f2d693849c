//! Channel to subscribers, channel to retained messages.
//!
//! - [`parse_topic`] and [`parse_filter`] take names apart; nothing else reads them.
//! - [`Subs`] holds the subscriptions of one shard and answers who receives a message. It takes
//!   only what the gate permitted, and hands out only entries judged at the current epoch.
//! - [`Retained`] holds the retained messages of one shard.
//!
//! What shards know of each other is in [`Interest`] (who wants messages of a channel) and
//! [`SharedGroups`] (which shards have ready members).
//!
//! What it is not: it moves no message, knows no connection, clock or socket. It depends on
//! `authcache` alone.
//!
//! ```
//! use router::{ParsedTopic, TopicLimits, parse_filter, parse_topic};
//!
//! let limits = TopicLimits::default();
//! let ParsedTopic::Channel(topic) = parse_topic("m/plant/c/line-4/press/temp", &limits)? else {
//!     unreachable!()
//! };
//! assert_eq!((topic.domain, topic.channel), ("plant", "line-4"));
//! assert_eq!(topic.subtopic, Some("press/temp"));
//! assert!(parse_filter("$share/workers/m/plant/c/line-4/#", &limits)?.share.is_some());
//! # Ok::<(), router::TopicError>(())
//! ```

#![forbid(unsafe_code)]

mod entry;
mod filters;
mod heads;
mod interest;
mod lists;
mod matches;
mod members;
mod retained;
mod shared;
mod subs;
mod topic;
mod tree;

pub use entry::{Entry, ShardId, SlotId};
pub use interest::Interest;
pub use matches::{Match, Merged, Routed};
pub use retained::Retained;
pub use shared::{Group, GroupId, MemberState, Picked, SharedGroups};
pub use subs::{Subs, Subscribed, Subscription};
pub use topic::{
    ChannelTopic, ParsedFilter, ParsedTopic, ShareName, TopicError, TopicLimits, parse_filter,
    parse_topic,
};
