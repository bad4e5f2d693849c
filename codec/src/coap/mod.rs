//! CoAP (RFC 7252): a message as a view on its datagram, and the writer of one.
//!
//! [`Message::parse`] checks the whole datagram once and borrows everything from it; [`Writer`]
//! appends a message to a buffer. Options of Observe (RFC 7641), block-wise transfer (RFC 7959) and
//! Echo (RFC 9175) are read and written here; what they mean is decided elsewhere.

mod block;
mod code;
mod message;
mod option;
mod writer;

pub use block::Block;
pub use code::Code;
pub use message::{Head, Kind, Malformed, Message, MessageId, Token};
pub use option::{OptionNumber, OptionValue, Options, Uint};
pub use writer::Writer;

#[cfg(test)]
mod properties;
