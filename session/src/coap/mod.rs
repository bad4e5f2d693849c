//! CoAP: what a server does for one peer, as an MQTT client inside.
//!
//! An [`Endpoint`] takes datagrams of one peer and makes MQTT packets of its requests: a POST becomes
//! a PUBLISH at QoS 1, a GET or an observation a SUBSCRIBE with what is retained. Whoever the
//! credential of a request names is a *guest* of the endpoint with an MQTT connection of its own,
//! so CoAP has the rights, limits and answers of MQTT. Message layer (RFC 7252, 4), Observe (RFC
//! 7641), block-wise transfer (RFC 7959) and Echo (RFC 9175) are here; sockets and clocks are not.
//!
//! One invariant for callers: after each call, carry out what [`Endpoint::wishes`] says.

mod answer;
mod bodies;
mod confirm;
mod endpoint;
mod format;
mod guest;
mod handling;
mod observe;
mod path;
mod seen;
mod uploads;

pub use answer::Datagrams;
pub use endpoint::{Around, Endpoint, Incoming, Manner, Right, Rights, Tally, Wish};
pub use guest::{GuestNumber, is_same_filter};

#[cfg(test)]
mod tests;
