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
