//! Bytes to packets and back: MQTT 3.1, 3.1.1 and 5; WebSocket below them; CoAP beside them.
//!
//! The crate turns the bytes of a Network Connection into packets and packets into bytes, and
//! decides whether bytes are a packet at all. One packet model serves all versions; the version is
//! an argument of decoding and encoding and appears nowhere else.
//!
//! It is deliberately not: a reader of sockets, a keeper of state between packets (aliases, packet
//! identifiers in use, quotas), or a judge of who may send what. Which side may send a packet is
//! decided where the connection's state is known.
//!
//! The three types to know:
//! - [`mqtt::Frame`], one whole packet found by [`mqtt::split_frame`] in a read buffer;
//! - [`mqtt::Packet`], the decoded packet, which borrows everything from the frame;
//! - [`mqtt::DecodeError`], sorted by fault, with the Reason Code to answer.
//!
//! Decoding allocates nothing and never reads past the frame. Below MQTT there may be a WebSocket:
//! [`ws::Receiver`]. CoAP is not a stream: [`coap::Message`] is a view on one datagram. The crate depends on `memchr`, `simdutf8`, `thiserror`, `sha1` and `base64` (the
//! last two for the WebSocket's upgrade) and on nothing else of this workspace.
//!
//! ```
//! use codec::mqtt::{Packet, ProtocolVersion, decode, split_frame};
//!
//! let input = [0x30, 0x06, 0, 1, b'a', b'h', b'i', b'!', 0xC0, 0x00];
//! let frame = split_frame(&input, 1024)?.expect("the first packet is whole");
//! let Packet::Publish(publish) = decode(&frame, ProtocolVersion::V311)? else { panic!() };
//! assert_eq!((publish.topic, publish.payload), ("a", &b"hi!"[..]));
//! assert_eq!(input[frame.bytes.len()..], [0xC0, 0x00]);
//! # Ok::<(), codec::mqtt::DecodeError>(())
//! ```

// A failed unwrap is a failed test.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cursor;
mod error;
mod text;
mod varint;

pub mod coap;
pub mod mqtt;
pub mod ws;
