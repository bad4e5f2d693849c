//! The end of a connection (MQTT 5, 3.14), and what it leaves behind.

use codec::mqtt::{Disconnect, ReasonCode};

use crate::mqtt::machine::{Cold, Machine, Phase};
use crate::mqtt::publish::check_user_properties;
use crate::mqtt::reply;
use crate::now::Now;
use crate::rules::Rules;
use crate::session::{Session, Will};
use crate::step::Step;

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

impl Machine<'_> {
    /// DISCONNECT from the client (MQTT 5, 3.14.4). [MQTT-3.14.4-3] [MQTT-3.1.2-10]
    /// [MQTT-3.1.2-12] [MQTT3-3.1.2-10] [MQTT3-3.1.2-12] [MQTT3-3.14.4-3]
    pub(crate) fn goodbye(
        &mut self,
        disconnect: &Disconnect<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) = check_user_properties(&disconnect.user_properties, rules.limits) {
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
        // Any other code reports a failure, and the will is for failures (MQTT 5, 3.1.2.5).
        if disconnect.reason == ReasonCode::NORMAL_DISCONNECTION {
            live.session.will = None;
        }
        live.connection.phase = Phase::Over;
        self.hot.hold(true);
        Step::Close(ReasonCode::SUCCESS)
    }

    /// Ends the connection for a fault or by the broker's will: DISCONNECT says why in MQTT 5.
    /// [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT3-4.8.0-1]
    /// [MQTT3-4.8.0-2]
    pub fn fail(&mut self, code: ReasonCode, out: &mut Vec<u8>) -> Step<'static> {
        match &mut *self.cold {
            Cold::Live(live) => {
                if live.connection.phase != Phase::Over {
                    let how = live.connection.manner(self.hot.maximum_packet_size);
                    reply::disconnect(code, how, out);
                }
                live.connection.phase = Phase::Over;
                self.hot.hold(true);
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
    /// [MQTT-3.1.2-8] [MQTT-3.1.2-25] [MQTT-4.1.0-1] [MQTT-4.1.0-2] [MQTT3-3.1.2-8]
    /// [MQTT3-3.1.2-4] [MQTT3-3.1.2-6] [MQTT3-4.1.0-1] [MQTT3-4.1.0-2]
    pub fn disconnected(&mut self, now: Now) -> Departure {
        self.hot.end();
        match std::mem::replace(self.cold, Cold::Closed) {
            Cold::Live(live) => {
                let mut session = live.session;
                session.received.disconnected();
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
