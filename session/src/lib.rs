//! The protocol machines: what MQTT says a server does, as values without I/O.
//!
//! [`channel_socket`] makes an MQTT client of a WebSocket on a channel, [`web`] reads what comes over
//! HTTP, and [`coap`] makes one of a peer that speaks CoAP.
//!
//! A [`Machine`] is a view on the state of one connection. It is fed bytes and answers with one
//! [`Step`] at a time; what it has to tell its own peer it appends to an out-buffer. It never
//! opens a socket, reads a clock, spawns or waits: time is an argument ([`Now`]), rights are
//! asked of the gate in [`Rules`], and whatever has to be fetched is a step. Nothing is asked of a
//! client that MQTT does not ask of it. [MQTT-7.0.0-2] [MQTT3-7.0.0-2]
//!
//! Three types to know: [`Machine`] (`step`, and the answers to its steps), [`Session`] (what
//! survives a connection) and [`Message`] (what outlives a turn).
//!
//! May depend on `codec`, `router` and `authcache`; never on tokio, sockets or clocks.

#![forbid(unsafe_code)]

pub mod channel_socket;
pub mod coap;
mod hot;
mod limits;
mod message;
mod mqtt;
mod now;
mod out;
mod rules;
mod session;
mod step;
pub mod web;

pub use hot::Hot;
pub use limits::{Limits, QueuePolicy};
pub use message::{Address, Message, MessageParts, Origin, Publication, Run};
pub use mqtt::connack::Attached;
pub use mqtt::connect::{IdentifyOutcome, Pending, Refusal};
pub use mqtt::disconnect::{Departure, Parked};
pub use mqtt::machine::{Cold, Live, Machine};
pub use mqtt::outgoing::{Delivered, DropReason, Receiving, SharedOrigin};
pub use now::Now;
pub use out::{OutBuffer, Published, Span};
pub use rules::{IdSource, ListenerRules, Rules};
pub use session::{Session, SessionKey, SubscriptionRecord, Will};
pub use step::{
    FilterRequest, Granted, Identify, Receipt, Refused, Removed, RightsQuestion, Step,
    SubscribeRequest, UnsubscribeRequest,
};
