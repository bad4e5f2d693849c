//! The machine: a view on one connection's state, and the dispatch of its packets.

use authcache::{Denied, Gate};
use codec::mqtt::{
    Auth, DecodeError, Disconnect, Packet, ProtocolVersion, ReasonCode, split_frame,
};

use crate::hot::Hot;
use crate::limits::Limits;
use crate::mqtt::alias::{IncomingAliases, OutgoingAliases};
use crate::mqtt::auth::{self, Method};
use crate::mqtt::connect::{IdentifyOutcome, Pending};
use crate::mqtt::outgoing::Outgoing;
use crate::mqtt::reply::{self, Manner};
use crate::now::Now;
use crate::rules::Rules;
use crate::session::{Session, Will};
use crate::step::{RightsQuestion, Step};

/// The state of a connection beyond its hot line.
#[derive(Debug, Default)]
pub enum Cold {
    /// Nothing but the transport is there.
    #[default]
    AwaitConnect,
    /// CONNECT came; who it is has to be found out.
    Authenticating(Box<Pending>),
    /// Connected.
    Live(Box<Live>),
    /// The session waits for its client.
    Parked(Box<Session>),
    /// Nothing is left.
    Closed,
}

/// A connection and its session.
#[derive(Debug)]
pub struct Live {
    pub(crate) connection: Connection,
    pub(crate) session: Session,
}

/// What ends with the Network Connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) version: ProtocolVersion,
    pub(crate) explain: bool,
    /// The client's Receive Maximum or our own window, whichever is smaller; at least 1.
    pub(crate) receive_maximum: u16,
    pub(crate) incoming_aliases: Option<Box<IncomingAliases>>,
    pub(crate) outgoing_aliases: Option<Box<OutgoingAliases>>,
    pub(crate) method: Option<Method>,
    pub(crate) reauthenticating: bool,
    /// Session Expiry Interval of the CONNECT, before any lowering.
    pub(crate) expiry_at_connect: u32,
    /// When the token that the client showed expires.
    pub(crate) credentials_end: Option<Now>,
}

/// A session without a connection, as the shard needs to know it.
#[derive(Debug)]
pub struct Parked {
    /// When the session ends, `None` for never.
    pub ends_at: Option<Now>,
    /// When its will is due, if one is delayed.
    pub will_at: Option<Now>,
}

/// What a connection leaves behind.
#[derive(Debug)]
pub enum Departure {
    /// Nothing: it was never connected.
    Stranger,
    /// A session that waits, and a will that is due at once.
    Parked(Parked, Option<Will>),
    /// A session that is over; its will, if any, is due at once.
    Ended(Box<Session>),
}

/// The MQTT machine of one connection: a view on its hot line and its cold box.
///
/// One invariant for callers: carry out one step, then ask for the next. `out` is the
/// connection's own out-buffer; what is in it belongs to the peer, in that order.
#[derive(Debug)]
pub struct Machine<'s> {
    pub(crate) hot: &'s mut Hot,
    pub(crate) cold: &'s mut Cold,
}

impl<'s> Machine<'s> {
    /// The machine of this state.
    pub fn new(hot: &'s mut Hot, cold: &'s mut Cold) -> Machine<'s> {
        Machine { hot, cold }
    }

    /// Takes one packet or one run of packets from `input`; how many bytes were consumed, and
    /// what has to be done for it.
    #[inline]
    pub fn step<'b>(
        &mut self,
        input: &'b [u8],
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'b>) {
        let taken = match input.first() {
            Some(0x30) if self.hot.is_live() => self.fast(input, rules),
            _ => None,
        };
        let (used, step) = match taken {
            Some(taken) => taken,
            None => self.slow(input, rules, out),
        };
        if used > 0 {
            // Whole packets only: a trickle is not a sign of life. (Threats T-EXH-2.)
            self.hot.last_seen_s = rules.now.as_secs();
        }
        (used, step)
    }

    fn slow<'b>(
        &mut self,
        input: &'b [u8],
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'b>) {
        match self.cold {
            Cold::AwaitConnect => self.first_packet(input, rules, out),
            Cold::Authenticating(_) => self.early_packet(input, rules, out),
            Cold::Live(_) => self.packet(input, rules, out),
            Cold::Parked(_) | Cold::Closed => (0, Step::Incomplete),
        }
    }

    fn packet<'b>(
        &mut self,
        input: &'b [u8],
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'b>) {
        let Cold::Live(live) = &mut *self.cold else {
            return (0, Step::Incomplete);
        };
        if live.connection.reauthenticating {
            return (0, Step::Incomplete);
        }
        let version = live.connection.version;
        let frame = match split_frame(input, rules.limits.max_packet_size) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (0, Step::Incomplete),
            Err(error) => return (0, self.fail(error.reason_code(), out)),
        };
        let used = frame.bytes.len();
        // [MQTT-4.13.1-1]
        let packet = match codec::mqtt::decode(&frame, version) {
            Ok(packet) => packet,
            Err(error) => return (used, self.undecodable(&error, out)),
        };
        let step = match packet {
            Packet::Publish(publish) => match self.publish(&publish, rules, out) {
                // Nothing is consumed: the packet is looked at again when the answer is there.
                step @ Step::Wait(_) => return (0, step),
                step => step,
            },
            Packet::PubAck(ack) => self.puback(&ack, rules, out),
            Packet::PubRec(ack) => self.pubrec(&ack, rules, out),
            Packet::PubRel(ack) => self.pubrel(&ack, rules, out),
            Packet::PubComp(ack) => self.pubcomp(&ack, rules, out),
            Packet::Subscribe(subscribe) => match self.subscribe(&subscribe, rules, out) {
                step @ Step::Wait(_) => return (0, step),
                step => step,
            },
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, rules, out),
            Packet::PingReq => {
                // [MQTT-3.12.4-1]
                codec::mqtt::put_pingresp(out);
                Step::Done
            }
            Packet::Disconnect(disconnect) => self.goodbye(&disconnect, rules, out),
            Packet::Auth(auth) => self.authenticate_again(&auth, rules, out),
            // A second CONNECT, and what only a server sends. [MQTT-3.1.0-2] [MQTT3-3.1.0-2]
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => self.fail(ReasonCode::PROTOCOL_ERROR, out),
        };
        (used, step)
    }

    fn undecodable(&mut self, error: &DecodeError, out: &mut Vec<u8>) -> Step<'static> {
        self.fail(error.reason_code(), out)
    }

    /// DISCONNECT from the client (MQTT 5, 3.14.4). [MQTT-3.14.4-3] [MQTT-3.1.2-10]
    /// [MQTT3-3.1.2-10]
    fn goodbye(
        &mut self,
        disconnect: &Disconnect<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) =
            crate::mqtt::incoming::check_user_properties(&disconnect.user_properties, rules.limits)
        {
            return self.fail(code, out);
        }
        if !client_may_say(disconnect.reason) {
            return self.fail(ReasonCode::PROTOCOL_ERROR, out);
        }
        if let Some(expiry) = disconnect.session_expiry {
            // [MQTT-3.14.2-2]
            if expiry > 0 && live.connection.expiry_at_connect == 0 {
                return self.fail(ReasonCode::PROTOCOL_ERROR, out);
            }
            live.session.expiry = expiry.min(rules.limits.session_expiry_max);
        }
        if disconnect.reason != ReasonCode::DISCONNECT_WITH_WILL_MESSAGE {
            live.session.will = None;
        }
        Step::Close(ReasonCode::SUCCESS)
    }

    /// AUTH 0x19 on a live connection (MQTT 5, 4.12.1).
    fn authenticate_again(
        &mut self,
        packet: &Auth<'_>,
        _rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        let method = live.connection.method;
        // [MQTT-4.12.0-5]
        let Some(method) = method.filter(|method| packet.method == Some(method.name())) else {
            return self.fail(ReasonCode::PROTOCOL_ERROR, out);
        };
        let asks = packet.reason == ReasonCode::RE_AUTHENTICATE
            || packet.reason == ReasonCode::CONTINUE_AUTHENTICATION;
        if !asks {
            return self.fail(ReasonCode::PROTOCOL_ERROR, out);
        }
        let Some(data) = packet.data else {
            auth::put(ReasonCode::CONTINUE_AUTHENTICATION, method, out);
            return Step::Done;
        };
        match method.read(data) {
            Some(identify) => {
                live.connection.reauthenticating = true;
                Step::Identify(identify)
            }
            // [MQTT-4.12.1-2]
            None => self.fail(ReasonCode::NOT_AUTHORIZED, out),
        }
    }

    pub(crate) fn identified_again(
        &mut self,
        outcome: IdentifyOutcome,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        live.connection.reauthenticating = false;
        match (outcome, live.connection.method) {
            (IdentifyOutcome::Known(principal, until), Some(method))
                if principal == live.session.principal =>
            {
                live.connection.credentials_end = until;
                auth::put(ReasonCode::SUCCESS, method, out);
                Step::Done
            }
            (IdentifyOutcome::Known(..), _) => self.fail(ReasonCode::NOT_AUTHORIZED, out),
            (IdentifyOutcome::Refused(refusal), _) => self.fail(refusal.reason_code(), out),
        }
    }

    /// Ends the connection for a fault or by the broker's will: DISCONNECT says why in MQTT 5.
    /// [MQTT-4.13.2-1] [MQTT-3.14.4-1] [MQTT-3.14.4-2]
    pub fn fail(&mut self, code: ReasonCode, out: &mut Vec<u8>) -> Step<'static> {
        match &*self.cold {
            Cold::Live(live) => {
                reply::disconnect(
                    code,
                    live.connection.manner(self.hot.maximum_packet_size),
                    out,
                );
                Step::Close(code)
            }
            // [MQTT-3.14.0-1]: no DISCONNECT before CONNACK.
            Cold::Authenticating(pending) => {
                let how = pending.manner();
                self.refuse(code, how, out)
            }
            Cold::AwaitConnect => self.end(code),
            Cold::Parked(_) | Cold::Closed => Step::Close(code),
        }
    }

    /// Ends a connection that has no session.
    pub(crate) fn end(&mut self, code: ReasonCode) -> Step<'static> {
        *self.cold = Cold::Closed;
        Step::Close(code)
    }

    /// The connection is gone, however that came: what is left of it.
    ///
    /// [MQTT-3.1.2-8] [MQTT-3.1.2-25] [MQTT-4.1.0-1] [MQTT-4.1.0-2]
    pub fn disconnected(&mut self, now: Now) -> Departure {
        self.hot.end();
        match std::mem::replace(self.cold, Cold::Closed) {
            Cold::Live(live) => {
                let mut session = live.session;
                if let Some(outgoing) = &mut session.outgoing {
                    outgoing.disconnected();
                }
                if session.expiry == 0 {
                    return Departure::Ended(Box::new(session));
                }
                let ends_at = (session.expiry != u32::MAX).then(|| now.plus_secs(session.expiry));
                let will_at = match &session.will {
                    Some(will) if will.delay > 0 => {
                        Some(now.plus_secs(will.delay.min(session.expiry)))
                    }
                    Some(_) | None => None,
                };
                let will = if will_at.is_none() {
                    session.take_will()
                } else {
                    None
                };
                *self.cold = Cold::Parked(Box::new(session));
                Departure::Parked(Parked { ends_at, will_at }, will)
            }
            Cold::Parked(session) => {
                *self.cold = Cold::Parked(session);
                Departure::Stranger
            }
            Cold::AwaitConnect | Cold::Authenticating(_) | Cold::Closed => Departure::Stranger,
        }
    }

    /// Takes the session out of a slot whose connection is gone.
    pub fn take_parked(&mut self) -> Option<Box<Session>> {
        match std::mem::replace(self.cold, Cold::Closed) {
            Cold::Parked(session) => Some(session),
            other => {
                *self.cold = other;
                None
            }
        }
    }

    /// The session, whether its client is there or not.
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut *self.cold {
            Cold::Live(live) => Some(&mut live.session),
            Cold::Parked(session) => Some(session),
            Cold::AwaitConnect | Cold::Authenticating(_) | Cold::Closed => None,
        }
    }

    /// The session's window, and the connection if there is one.
    pub(crate) fn parts(&mut self) -> Option<(&mut Session, Option<&mut Connection>, &mut Hot)> {
        match &mut *self.cold {
            Cold::Live(live) => {
                let live = &mut **live;
                Some((&mut live.session, Some(&mut live.connection), self.hot))
            }
            Cold::Parked(session) => Some((session, None, self.hot)),
            Cold::AwaitConnect | Cold::Authenticating(_) | Cold::Closed => None,
        }
    }

    /// When the machine has to be asked again because a credential ends.
    pub fn credentials_end(&self) -> Option<Now> {
        match &*self.cold {
            Cold::Live(live) => live.connection.credentials_end,
            Cold::AwaitConnect | Cold::Authenticating(_) | Cold::Parked(_) | Cold::Closed => None,
        }
    }

    /// Whether the connection still has to prove who it is.
    pub fn is_before_connack(&self) -> bool {
        matches!(self.cold, Cold::AwaitConnect | Cold::Authenticating(_))
    }

    /// Whether no byte may be read because an answer is awaited.
    pub fn awaits_identity(&self) -> bool {
        match &*self.cold {
            Cold::Authenticating(pending) => !pending.awaits_auth(),
            Cold::Live(live) => live.connection.reauthenticating,
            Cold::AwaitConnect | Cold::Parked(_) | Cold::Closed => false,
        }
    }

    /// A packet was dropped unsent, so the client may not know the aliases it would have learnt.
    pub fn outgoing_lost(&mut self) {
        if let Cold::Live(live) = &mut *self.cold
            && let Some(aliases) = &mut live.connection.outgoing_aliases
        {
            aliases.reset();
        }
    }

    /// Messages in flight and waiting; checked in debug builds.
    pub fn invariants(&mut self) {
        if let Some(session) = self.session()
            && let Some(outgoing) = &session.outgoing
        {
            outgoing.invariants();
        }
    }
}

impl Live {
    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl Connection {
    pub(crate) fn manner(&self, maximum_packet_size: u32) -> Manner {
        Manner {
            version: self.version,
            explain: self.explain,
            maximum_packet_size,
        }
    }
}

impl Session {
    pub(crate) fn outgoing(&mut self) -> &mut Outgoing {
        self.outgoing.get_or_insert_default()
    }
}

/// What a refusal of the gate means for the packet at hand.
pub(crate) fn unknown_right(
    denied: Denied,
    principal: authcache::PrincipalIndex,
    channel: authcache::ChannelIndex,
) -> Option<RightsQuestion> {
    match denied {
        Denied::Unknown => Some(RightsQuestion { principal, channel }),
        Denied::NoRight | Denied::NotLive | Denied::LeaseOver => None,
    }
}

/// The Reason Codes of DISCONNECT that a client may send (MQTT 5, table 3-10). [MQTT-3.14.2-1]
fn client_may_say(code: ReasonCode) -> bool {
    !matches!(
        code,
        ReasonCode::NOT_AUTHORIZED
            | ReasonCode::SERVER_BUSY
            | ReasonCode::SERVER_SHUTTING_DOWN
            | ReasonCode::KEEP_ALIVE_TIMEOUT
            | ReasonCode::SESSION_TAKEN_OVER
            | ReasonCode::TOPIC_FILTER_INVALID
            | ReasonCode::RETAIN_NOT_SUPPORTED
            | ReasonCode::QOS_NOT_SUPPORTED
            | ReasonCode::USE_ANOTHER_SERVER
            | ReasonCode::SERVER_MOVED
            | ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
            | ReasonCode::CONNECTION_RATE_EXCEEDED
            | ReasonCode::MAXIMUM_CONNECT_TIME
            | ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED
            | ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
    )
}

/// Whether the gate lets a session read a channel now.
pub(crate) fn may_read(
    gate: &Gate,
    principal: authcache::PrincipalIndex,
) -> impl Fn(authcache::ChannelIndex) -> bool + '_ {
    move |channel| {
        gate.allows(principal, authcache::Action::Subscribe, channel)
            .is_ok()
    }
}

/// Whether a limit of 0 means any.
pub(crate) fn within(limits: &Limits, waiting: usize) -> bool {
    limits.max_unreleased_v311 == 0 || waiting < limits.max_unreleased_v311
}
