//! The machine: a view on one connection's state, and the dispatch of its packets.

use authcache::{Denied, Gate};
use codec::mqtt::{Packet, ProtocolVersion, ReasonCode, split_frame};

use crate::hot::Hot;
use crate::mqtt::alias::{IncomingAliases, OutgoingAliases};
use crate::mqtt::auth::Method;
use crate::mqtt::connect::Pending;
use crate::mqtt::reply::Manner;
use crate::mqtt::window::Outgoing;
use crate::now::Now;
use crate::rules::Rules;
use crate::session::Session;
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
    pub(crate) phase: Phase,
    /// Session Expiry Interval of the CONNECT, before any lowering.
    pub(crate) expiry_at_connect: u32,
    /// When the token that the client showed expires.
    pub(crate) credentials_end: Option<Now>,
}

/// What a connection that has its CONNACK takes next.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Packets.
    Open,
    /// Packets, and the AUTH that goes on with a re-authentication.
    AwaitsAuth,
    /// Nothing until it is known whether a re-authentication holds.
    Identifying,
    /// Nothing any more: it was told goodbye, or said so.
    Over,
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
    ///
    /// An ordered stream of bytes is all that is asked of a transport.
    /// [MQTT-7.1.1-1] [MQTT3-4.2.0-1] [MQTT3-7.1.1-1]
    #[inline]
    pub fn step<'b>(
        &mut self,
        input: &'b [u8],
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'b>) {
        let taken = match input.first() {
            Some(0x30) if self.hot.takes_runs() => self.fast(input, rules),
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
        if matches!(live.connection.phase, Phase::Identifying | Phase::Over) {
            return (0, Step::Incomplete);
        }
        let version = live.connection.version;
        let frame = match split_frame(input, rules.limits.max_packet_size) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (0, Step::Incomplete),
            Err(error) => return (0, self.fail(error.reason_code(), out)),
        };
        let used = frame.bytes.len();
        // Flags, lengths and fields are the codec's. [MQTT-4.13.1-1] [MQTT3-3.14.1-1]
        let packet = match codec::mqtt::decode(&frame, version) {
            Ok(packet) => packet,
            Err(error) => return (used, self.fail(error.reason_code(), out)),
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
                // [MQTT-3.12.4-1] [MQTT3-3.12.4-1]
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
                // Nothing is sent behind a DISCONNECT. [MQTT-3.14.4-1]
                let open = live.connection.phase != Phase::Over;
                Some((
                    &mut live.session,
                    open.then_some(&mut live.connection),
                    self.hot,
                ))
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
            Cold::Live(live) => live.connection.phase == Phase::Identifying,
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

    /// Checks what the parts of the session promise, in debug builds.
    pub fn invariants(&mut self) {
        if let Some(session) = self.session() {
            session.received.invariants();
            if let Some(outgoing) = &session.outgoing {
                outgoing.invariants();
            }
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
