//! What a machine asks of its shard after one frame or run.

use authcache::feed::ShownCertificate;
use authcache::{ChannelIndex, Permitted, PrincipalIndex};
use codec::mqtt::{PacketId, QoS, ReasonCode};
use router::Subscription;

use crate::message::{Publication, Run};
use crate::session::SessionKey;

/// At most one request to the shard; the shard carries it out, then asks for the next step.
#[derive(Debug)]
pub enum Step<'b> {
    /// Nothing to do; go on.
    Done,
    /// The input holds no whole packet.
    Incomplete,
    /// QoS 0 frames to route as they are.
    Run(Permitted<Run<'b>>),
    /// A message to route; then `published`.
    Publish(Permitted<Publication>, Receipt),
    /// Packets were taken and their content is not routed: count them.
    Refused(Refused, u32),
    /// A health message of the principal's own domain: count it.
    Health,
    /// Subscriptions to enter, then `subscribed`.
    Subscribe(SubscribeRequest),
    /// Subscriptions to remove, then `unsubscribed`.
    Unsubscribe(UnsubscribeRequest),
    /// Nothing was consumed; ask control, then step again.
    Wait(RightsQuestion),
    /// Ask control who this is, then `identified`.
    Identify(Identify),
    /// Bring the connection to its session, then attach it.
    Claim(SessionKey),
    /// Flush what was written, then close. The Session State stays with the machine.
    Close(ReasonCode),
}

/// Why content was not routed although its connection lives.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// The publisher has no right on the channel, or the channel is unknown or disabled.
    Denied,
    /// The topic is outside the grammar or over a limit.
    Topic,
    /// The payload or a count is over a limit.
    Limit,
}

/// What is owed to the publisher once its message is routed.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Receipt {
    /// Nothing: QoS 0.
    None,
    /// PUBACK.
    PubAck(PacketId),
    /// PUBREC.
    PubRec(PacketId),
}

/// A user's right that the broker does not know yet.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct RightsQuestion {
    /// Whose right.
    pub principal: PrincipalIndex,
    /// On which channel.
    pub channel: ChannelIndex,
}

/// What a client showed to prove who it is. Never logged; `Debug` shows no content.
#[derive(Clone, Eq, PartialEq)]
pub enum Identify {
    /// User Name and Password of CONNECT, or of the PLAIN method.
    Password {
        /// The User Name.
        username: Option<String>,
        /// The Password.
        password: Option<Vec<u8>>,
    },
    /// An access token of the OAUTHBEARER method.
    Token(Vec<u8>),
    /// A certificate that the transport verified.
    Certificate(ShownCertificate),
}

impl std::fmt::Debug for Identify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Identify::Password { .. } => "Identify::Password(..)",
            Identify::Token(_) => "Identify::Token(..)",
            Identify::Certificate(_) => "Identify::Certificate(..)",
        })
    }
}

/// The filters of one SUBSCRIBE, in order.
#[derive(Debug)]
pub struct SubscribeRequest {
    /// The packet to answer.
    pub packet_id: PacketId,
    /// One entry per filter.
    pub filters: Vec<FilterRequest>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug)]
pub enum FilterRequest {
    /// To be entered.
    Granted(Granted),
    /// Refused with this code.
    Refused(ReasonCode),
}

/// A subscription that may be entered.
#[derive(Debug)]
pub struct Granted {
    /// What the router takes.
    pub subscription: Permitted<Subscription>,
    /// Granted maximum QoS.
    pub qos: QoS,
    /// Whether retained messages are to be sent (Retain Handling, MQTT 5, 3.8.3.1).
    pub replay: bool,
}

/// The filters of one UNSUBSCRIBE, in order.
#[derive(Debug)]
pub struct UnsubscribeRequest {
    /// The packet to answer.
    pub packet_id: PacketId,
    /// For each filter what is to be removed from the router, `None` if it was not there.
    pub filters: Vec<Option<Removed>>,
}

/// A subscription that the session no longer has.
#[derive(Debug, Eq, PartialEq)]
pub struct Removed {
    /// The channel, or the open namespace's index.
    pub channel: ChannelIndex,
    /// The filter below the channel.
    pub filter: Box<str>,
    /// The ShareName of a Shared Subscription.
    pub share: Option<Box<str>>,
}
