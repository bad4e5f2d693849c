//! What control knows, in memory: names, rights, epochs, the gate, the feed.

#![forbid(unsafe_code)]

pub mod change;
pub mod feed;
mod index;
mod right;

pub use change::{Cause, Change, Identity, Notice, PrincipalRecord, Status};
pub use index::{ChannelIndex, DomainIndex, EntityId, PrincipalIndex};
pub use right::{Action, Right};
