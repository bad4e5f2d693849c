//! The feed: how a broker learns what control has committed.
//!
//! Two machines without I/O, [`Leader`] on the control side and [`Follower`] on the broker's, speak
//! over any byte pipe: a memory pipe in one process, TLS between machines.
//! They keep one promise: everything a follower hands out is in the order of control's revisions.
//! An [`Answer`] stands in the same stream as the deltas, so a right that was read at revision 7 can
//! neither overtake revision 7 nor undo revision 8.
//!
//! | message | direction | meaning |
//! | --- | --- | --- |
//! | Hello | to control | join or rejoin, with the principals held |
//! | Snapshot | to broker | directory and rights of the principals held, in parts |
//! | Delta | to broker | one committed transaction; never skipped, never reordered |
//! | Ask, Answer | both | a question and its answer, placed in the stream |
//! | Applied | to control | nothing judged before this revision is in any queue |
//! | Activity | to control | what clients did; lost with its pipe, never told twice |
//! | Renew, Lease | both | how long the broker may trust what it knows |
//!
//! Time is an argument, in milliseconds of a clock that never goes back; the two ends need not agree
//! on it. A lease counts from before the broker asked for it, so the broker's end of it always comes
//! first.

mod certificate;
mod follower;
mod leader;
mod link;
mod message;
mod snapshot;

pub use certificate::{CertificatePrint, ShownCertificate};
pub use follower::{Follower, FollowerEvent};
pub use leader::{Leader, LeaderEvent, LeaseTerms, LinkId, Snapshot};
pub use message::{
    Activity, Answer, Credentials, FeedError, MESSAGE_BYTES_MAX, Message, Question, Refusal,
    SharedKey,
};

/// Length of a timed lease in milliseconds.
pub const LEASE_MS: u64 = 2_000;
/// A follower asks for its lease again after this many milliseconds.
pub const LEASE_RENEW_MS: u64 = 500;
/// What control waits beyond the end of a lease before it stops counting that broker.
pub const LEASE_SKEW_MS: u64 = 250;
/// End of a lease that lasts as long as its pipe.
pub const LEASE_UNLIMITED: u64 = u64::MAX;
/// Questions one follower may have unanswered; a further one is refused at once.
///
/// A question carries at most a user name and a password, 9 KiB under the default limits of the
/// listeners, and waits there anyway: the bound is on the number.
pub const ASKS_MAX: usize = 65_536;

/// Clients of which one message tells what they did.
pub const ACTIVITY_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
