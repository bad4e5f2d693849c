//! WebSocket (RFC 6455) without extensions: the upgrade, frames, and what a peer may send.
//!
//! [`Upgrade`] reads the request and writes the answer; [`Receiver`] turns the bytes behind it into
//! events, unmasking in place and holding nothing but the head of a frame that is cut; [`put_frame`]
//! and [`put_close`] write. Which paths and sub-protocols there are is decided elsewhere.

mod close;
mod frame;
mod receiver;
mod upgrade;
mod utf8;

pub use close::{CloseCode, Violation, put_close};
pub use frame::{HEAD_BYTES_MAX, Head, Opcode, put_frame, unmask};
pub use receiver::{Event, Receiver, ReceiverLimits, Role};
pub use upgrade::{Upgrade, UpgradeError, accept_key, put_refusal};

#[cfg(test)]
mod autobahn;
#[cfg(test)]
mod autobahn_utf8;
#[cfg(test)]
mod properties;
