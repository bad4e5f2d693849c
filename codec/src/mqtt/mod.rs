//! MQTT 3.1, 3.1.1 and 5 with one packet model.
//!
//! Reading: [`split_frame`] finds one packet in a buffer, [`decode`] reads it. [`publish_head`] is
//! the short way for a PUBLISH whose topic was read a moment ago. Writing: each packet has an
//! `encode`; [`PublishOut`] is the PUBLISH a broker sends.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod frame;
mod packet;
mod passing;
mod property;
mod publish;
mod publish_out;
mod put;
mod reason;
mod suback;
mod subscribe;
mod topic;
mod user_property;
mod v311;
mod v5;
mod will;

#[cfg(test)]
mod cases;

pub use crate::error::{DecodeError, Malformed, ProtocolError};
pub use ack::Ack;
pub use auth::Auth;
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, decode_connect};
pub use disconnect::Disconnect;
pub use frame::{FIXED_HEADER_MAX, Frame, PacketType, packet_len, split_frame};
pub use packet::{Packet, PacketId, ProtocolVersion, QoS, decode, put_pingreq, put_pingresp};
pub use passing::{PassingProperties, passing_properties};
pub use property::PayloadFormat;
pub use publish::{
    Delivery, Publish, PublishHead, PublishProperties, SubscriptionIdentifiers, publish_head,
};
pub use publish_out::PublishOut;
pub use reason::ReasonCode;
pub use suback::SubAck;
pub use subscribe::{
    RetainHandling, Subscribe, SubscribeFilters, Subscription, Unsubscribe, UnsubscribeFilters,
};
pub use topic::{TopicFault, check_topic_filter, check_topic_name};
pub use user_property::UserProperties;
pub use will::Will;
