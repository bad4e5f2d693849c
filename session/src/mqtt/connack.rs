//! CONNACK (MQTT 5, 3.2): connection and session are joined, or the connection is refused.

use authcache::PrincipalKind;
use codec::mqtt::{ConnAck, ConnAckProperties, ProtocolVersion, ReasonCode};

use crate::limits::Limits;
use crate::mqtt::alias::OutgoingAliases;
use crate::mqtt::auth::Method;
use crate::mqtt::connect::Pending;
use crate::mqtt::keep_alive;
use crate::mqtt::machine::{Cold, Connection, Live, Machine, Phase};
use crate::mqtt::reply::{self, Manner};
use crate::rules::Rules;
use crate::session::Session;
use crate::step::Step;

/// What `attach` made of the session.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Attached {
    /// Session Present of the CONNACK.
    pub session_present: bool,
}

impl Machine<'_> {
    /// Joins connection and session, and answers CONNACK 0x00.
    ///
    /// `resumed` is the session of the same key, unless there is none or Clean Start discards it;
    /// `epoch` numbers the claim. [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT3-3.2.0-1] [MQTT-3.1.4-4] [MQTT-3.1.4-5] [MQTT-3.1.2-4] [MQTT-3.1.2-5]
    /// [MQTT-3.1.2-6] [MQTT3-3.1.2-4] [MQTT3-3.1.2-6] [MQTT3-3.1.4-3] [MQTT3-3.1.4-4]
    pub fn attach(
        &mut self,
        mut pending: Box<Pending>,
        resumed: Option<Box<Session>>,
        epoch: u64,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Attached {
        let session_present = resumed.is_some();
        let mut session = match resumed {
            Some(session) => *session,
            None => Session::new(pending.key(), epoch),
        };
        let limits = rules.limits;
        session.epoch = epoch;
        let offer = Offer::new(&pending, limits);
        session.expiry = offer.session_expiry;
        // The will of an earlier connection is not sent once its client is back.
        // [MQTT-3.1.2-7] [MQTT-3.1.2-26] [MQTT3-3.1.2-8]
        session.will = pending.will.take().map(|draft| Box::new(draft.will));

        self.hot
            .begin(pending.version.is_v5(), offer.aliases_out > 0);
        self.hot.principal = session.principal;
        self.hot.maximum_packet_size = pending.maximum_packet_size;
        self.hot.last_seen_s = rules.now.as_secs();
        self.hot.silence_max_s = keep_alive::silence_max_s(offer.keep_alive);

        let response = pending
            .wants_response_information
            .then(|| response_information(&session, rules))
            .flatten();
        // 3.1 has no such flag. [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT3-3.2.2-1]
        // [MQTT3-3.2.2-2] [MQTT3-3.2.2-3]
        let present = session_present && pending.version != ProtocolVersion::V31;
        let mut connack = offer.connack(&pending, present, limits);
        connack.properties.response_information = response.as_deref();
        let how = pending.manner();
        if !how.put(out, |out| connack.encode(how.version, out)) {
            connack.properties.response_information = None;
            how.put(out, |out| connack.encode(how.version, out));
        }

        let connection = Connection {
            version: pending.version,
            explain: pending.explain,
            receive_maximum: pending.receive_maximum.min(limits.max_inflight_out).max(1),
            incoming_aliases: None,
            outgoing_aliases: (offer.aliases_out > 0)
                .then(|| Box::new(OutgoingAliases::new(offer.aliases_out))),
            method: pending.method,
            phase: Phase::Open,
            expiry_at_connect: pending.session_expiry,
            credentials_end: pending.credentials_end,
        };
        *self.cold = Cold::Live(Box::new(Live {
            connection,
            session,
        }));
        Attached { session_present }
    }

    /// Ends a connection that has no CONNACK yet: says why and closes. [MQTT-3.1.4-2]
    /// [MQTT-3.1.4-6] [MQTT-3.2.2-7] [MQTT3-3.1.4-5] [MQTT3-3.2.2-5]
    pub(crate) fn refuse(
        &mut self,
        code: ReasonCode,
        how: Manner,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        reply::refuse(code, how, out);
        self.end(code)
    }
}

/// What the broker grants of what a CONNECT asks for.
struct Offer {
    session_expiry: u32,
    keep_alive: u16,
    /// Topic aliases towards the client. [MQTT-3.1.2-29] [MQTT-3.1.2-30]
    aliases_out: u16,
}

impl Offer {
    fn new(pending: &Pending, limits: &Limits) -> Offer {
        Offer {
            session_expiry: pending.session_expiry.min(limits.session_expiry_max),
            keep_alive: keep_alive::in_force(pending.keep_alive, limits.keepalive_max),
            aliases_out: pending.topic_alias_maximum.min(limits.topic_alias_out_max),
        }
    }

    /// CONNACK 0x00 with all that the client has to know. What is at its default is left out: every
    /// QoS, retained messages and all kinds of subscriptions are there. [MQTT-3.2.2-9]
    /// [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13]
    fn connack<'p>(&self, pending: &'p Pending, present: bool, limits: &Limits) -> ConnAck<'p> {
        ConnAck {
            session_present: present,
            reason: ReasonCode::SUCCESS,
            properties: ConnAckProperties {
                session_expiry: (self.session_expiry != pending.session_expiry)
                    .then_some(self.session_expiry),
                receive_maximum: Some(limits.receive_maximum.max(1)),
                maximum_packet_size: Some(limits.max_packet_size),
                // [MQTT-3.1.3-7]
                assigned_client_identifier: pending.assigned.then_some(&*pending.client_id),
                topic_alias_maximum: Some(limits.topic_alias_max),
                // [MQTT-3.2.2-22]
                server_keep_alive: (self.keep_alive != pending.keep_alive)
                    .then_some(self.keep_alive),
                authentication_method: pending.method.map(Method::name),
                ..Default::default()
            },
        }
    }
}

/// Bytes of the smallest CONNACK 0x00 that can answer this CONNECT.
pub(crate) fn least_len(pending: &Pending, limits: &Limits) -> usize {
    let mut bytes = Vec::new();
    let offer = Offer::new(pending, limits);
    offer
        .connack(pending, false, limits)
        .encode(pending.version, &mut bytes);
    bytes.len()
}

/// Where a requester may build its Response Topics (MQTT 5, 4.10.2): a name of its own below the
/// open namespace, or the channels of its domain. Only given when asked for. [MQTT-3.1.2-31]
fn response_information(session: &Session, rules: &Rules<'_>) -> Option<String> {
    let facts = rules.directory.principal_facts(session.principal);
    match (rules.listener.open, facts.kind) {
        // An identifier with these would make topics of other meaning. (Threats T-TOP-11.)
        (Some(_), _) if session.client_id.contains(['+', '#', '/']) => None,
        (Some(_), _) => Some(format!("response/{}/", session.client_id)),
        (None, PrincipalKind::Client { domain }) => rules
            .directory
            .domain_id(domain)
            .map(|id| format!("m/{id}/c/")),
        (None, PrincipalKind::User | PrincipalKind::System) => Some("m/".to_owned()),
    }
}
