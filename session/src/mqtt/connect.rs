//! From the first byte to CONNACK (MQTT 5, 3.1 and 3.2).

use authcache::{Action, Denied, OnChannel, PrincipalIndex};
use codec::mqtt::{
    ConnAck, ConnAckProperties, Connect, DecodeError, PayloadFormat, ProtocolVersion, ReasonCode,
    decode_connect, split_frame,
};

use crate::message::Address;
use crate::mqtt::alias::OutgoingAliases;
use crate::mqtt::auth::{self, Method};
use crate::mqtt::machine::{Cold, Connection, Live, Machine};
use crate::mqtt::reply::{self, Manner};
use crate::mqtt::target::{self, Target};
use crate::now::Now;
use crate::rules::Rules;
use crate::session::{Session, SessionKey, Will};
use crate::step::{Identify, RightsQuestion, Step};

/// A CONNECT that is being identified or on its way to its session.
#[derive(Debug)]
pub struct Pending {
    pub(crate) version: ProtocolVersion,
    pub(crate) client_id: Box<str>,
    pub(crate) assigned: bool,
    pub(crate) clean_start: bool,
    keep_alive: u16,
    session_expiry: u32,
    receive_maximum: u16,
    maximum_packet_size: u32,
    topic_alias_maximum: u16,
    wants_response_information: bool,
    explain: bool,
    will: Option<WillDraft>,
    pub(crate) method: Option<Method>,
    /// AUTH 0x18 was sent and the client's answer is awaited.
    awaits_auth: bool,
    principal: PrincipalIndex,
    credentials_end: Option<Now>,
}

/// A will whose topic is not resolved yet.
#[derive(Debug)]
struct WillDraft {
    topic: String,
    will: Will,
}

/// What control said of a client's credentials.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum IdentifyOutcome {
    /// This is who it is; the credentials hold until then, if they end.
    Known(PrincipalIndex, Option<Now>),
    /// It stays outside.
    Refused(Refusal),
}

/// Why a CONNECT is refused.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Wrong User Name, Password or token: 0x86, in 3.1.1 0x04.
    BadCredentials,
    /// Known, and not allowed in: 0x87, in 3.1.1 0x05.
    NotAuthorized,
    /// Too many failures or attempts: 0x9F, in 3.1.1 0x03.
    Throttled,
    /// Control could not be asked: 0x88, in 3.1.1 0x03.
    Unavailable,
    /// Too many connections or sessions: 0x97, in 3.1.1 0x03.
    Quota,
}

impl Refusal {
    /// The MQTT 5 Reason Code.
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Refusal::BadCredentials => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            Refusal::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
            Refusal::Throttled => ReasonCode::CONNECTION_RATE_EXCEEDED,
            Refusal::Unavailable => ReasonCode::SERVER_UNAVAILABLE,
            Refusal::Quota => ReasonCode::QUOTA_EXCEEDED,
        }
    }
}

/// What `attach` made of the session.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Attached {
    /// Session Present of the CONNACK.
    pub session_present: bool,
}

impl Pending {
    /// Which session is meant.
    pub fn key(&self) -> SessionKey {
        SessionKey {
            principal: self.principal,
            client_id: self.client_id.clone(),
        }
    }

    /// Whether the existing session, if any, is to be discarded.
    pub fn clean_start(&self) -> bool {
        self.clean_start
    }

    /// Who connects.
    pub fn principal(&self) -> PrincipalIndex {
        self.principal
    }

    /// Whether its session will outlive the connection.
    pub fn is_persistent(&self) -> bool {
        self.session_expiry > 0
    }

    pub(crate) fn awaits_auth(&self) -> bool {
        self.awaits_auth
    }

    pub(crate) fn manner(&self) -> Manner {
        Manner {
            version: self.version,
            explain: self.explain,
            maximum_packet_size: self.maximum_packet_size,
        }
    }
}

/// Looks at the protocol level of a CONNECT that could not be read, to answer in its version.
fn apparent_version(body: &[u8]) -> Option<ProtocolVersion> {
    match body {
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Some(ProtocolVersion::V5),
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Some(ProtocolVersion::V311),
        _ => None,
    }
}

impl Machine<'_> {
    /// The first packet has to be a CONNECT, whole and within its own limit.
    /// [MQTT-3.1.0-1] [MQTT3-3.1.0-1]
    pub(crate) fn first_packet<'b>(
        &mut self,
        input: &'b [u8],
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'b>) {
        match input.first() {
            None => return (0, Step::Incomplete),
            Some(0x10) => {}
            // Nothing is said to whoever does not speak MQTT. (Threats T-FRM-1.)
            Some(_) => return (0, self.end(ReasonCode::PROTOCOL_ERROR)),
        }
        let frame = match split_frame(input, rules.limits.max_connect_packet_size) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (0, Step::Incomplete),
            Err(error) => return (0, self.end(error.reason_code())),
        };
        let used = frame.bytes.len();
        let connect = match decode_connect(&frame) {
            Ok(connect) => connect,
            Err(error) => return (used, self.unreadable(&error, frame.body, out)),
        };
        (used, self.connect(&connect, rules, out))
    }

    /// [MQTT-3.1.4-1] [MQTT-3.1.2-2] [MQTT3-3.1.4-1] [MQTT3-3.1.2-2]
    fn unreadable(&mut self, error: &DecodeError, body: &[u8], out: &mut Vec<u8>) -> Step<'static> {
        let code = error.reason_code();
        let answer_in = match error {
            // A level nobody knows is answered in the form that all levels can read.
            DecodeError::UnsupportedVersion { .. } => match body {
                [0, 4, b'M', b'Q', b'T', b'T', level, ..] if *level > 5 => {
                    Some(ProtocolVersion::V5)
                }
                [0, 4, b'M', b'Q', b'T', b'T', ..]
                | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', ..] => Some(ProtocolVersion::V311),
                _ => None,
            },
            // 3.1.1 closes without CONNACK; MQTT 5 may say why.
            _ => apparent_version(body).filter(|version| version.is_v5()),
        };
        if let Some(version) = answer_in {
            let how = Manner {
                version,
                explain: true,
                maximum_packet_size: u32::MAX,
            };
            reply::refuse(code, how, out);
        }
        self.end(code)
    }

    fn connect(
        &mut self,
        connect: &Connect<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let (mut pending, identify) = match draft(connect, rules) {
            Ok(drafted) => drafted,
            Err(code) => {
                let how = Manner {
                    version: connect.version,
                    explain: true,
                    maximum_packet_size: connect.properties.maximum_packet_size.unwrap_or(u32::MAX),
                };
                // [MQTT-3.1.4-2] [MQTT-3.2.2-7] [MQTT3-3.2.2-5] [MQTT3-3.1.4-5]
                reply::refuse(code, how, out);
                return self.end(code);
            }
        };
        match identify {
            Some(identify) => {
                *self.cold = Cold::Authenticating(pending);
                Step::Identify(identify)
            }
            None => {
                // The method needs the client's message first. [MQTT-4.12.0-2]
                if let Some(method) = pending.method {
                    auth::put(ReasonCode::CONTINUE_AUTHENTICATION, method, out);
                }
                pending.awaits_auth = true;
                *self.cold = Cold::Authenticating(pending);
                Step::Done
            }
        }
    }

    /// A packet before CONNACK: only the AUTH that was asked for is taken; all else waits until
    /// the CONNECT is answered. [MQTT-3.1.4-5]
    pub(crate) fn early_packet<'b>(
        &mut self,
        input: &'b [u8],
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'b>) {
        let Cold::Authenticating(pending) = &mut *self.cold else {
            return (0, Step::Incomplete);
        };
        if !pending.awaits_auth {
            return (0, Step::Incomplete);
        }
        let how = pending.manner();
        let frame = match split_frame(input, rules.limits.max_connect_packet_size) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (0, Step::Incomplete),
            Err(error) => return (0, self.refuse(error.reason_code(), how, out)),
        };
        let used = frame.bytes.len();
        let packet = match codec::mqtt::decode(&frame, pending.version) {
            Ok(packet) => packet,
            Err(error) => return (used, self.refuse(error.reason_code(), how, out)),
        };
        let codec::mqtt::Packet::Auth(answer) = packet else {
            let code = match packet {
                codec::mqtt::Packet::Disconnect(_) => return (used, self.end(ReasonCode::SUCCESS)),
                _ => ReasonCode::PROTOCOL_ERROR,
            };
            return (used, self.refuse(code, how, out));
        };
        let Some(method) = pending.method else {
            return (used, self.refuse(ReasonCode::PROTOCOL_ERROR, how, out));
        };
        // [MQTT-4.12.0-5]
        if answer.method != Some(method.name())
            || answer.reason != ReasonCode::CONTINUE_AUTHENTICATION
        {
            return (used, self.refuse(ReasonCode::PROTOCOL_ERROR, how, out));
        }
        match method.read(answer.data.unwrap_or_default()) {
            Some(identify) => {
                pending.awaits_auth = false;
                (used, Step::Identify(identify))
            }
            // [MQTT-4.12.0-4]
            None => (
                used,
                self.refuse(ReasonCode::BAD_USER_NAME_OR_PASSWORD, how, out),
            ),
        }
    }

    /// The answer to [`Step::Identify`]: a claim on the session, or the end.
    pub fn identified(
        &mut self,
        outcome: IdentifyOutcome,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        if matches!(self.cold, Cold::Live(_)) {
            return self.identified_again(outcome, out);
        }
        let Cold::Authenticating(pending) = &mut *self.cold else {
            return Step::Done;
        };
        let how = pending.manner();
        let (principal, until) = match outcome {
            IdentifyOutcome::Known(principal, until) => (principal, until),
            IdentifyOutcome::Refused(refusal) => {
                return self.refuse(refusal.reason_code(), how, out);
            }
        };
        pending.principal = principal;
        pending.credentials_end = until;
        self.hot.principal = principal;
        self.check_will(rules, out)
    }

    /// A will is judged like a PUBLISH, here and again when it is sent. (Threats T-TOP-7.)
    ///
    /// Also the answer to a [`Step::Wait`] that this gave.
    pub fn check_will(&mut self, rules: &Rules<'_>, out: &mut Vec<u8>) -> Step<'static> {
        let Cold::Authenticating(pending) = &mut *self.cold else {
            return Step::Done;
        };
        let how = pending.manner();
        let principal = pending.principal;
        if let Some(draft) = &mut pending.will {
            let place = match target::resolve(&draft.topic, rules) {
                Ok(Target::Place { address, spelling }) => {
                    draft.will.topic = match spelling {
                        target::Spelling::Canonical(topic) => topic.into(),
                        target::Spelling::Other { prefix, subtopic } => {
                            joined(&prefix, subtopic).into()
                        }
                    };
                    draft.will.address = address;
                    address
                }
                Ok(Target::Health(_)) => return self.refuse(ReasonCode::NOT_AUTHORIZED, how, out),
                Err(unroutable) => return self.refuse(unroutable.publish_code(), how, out),
            };
            match rules.gate.permit(
                principal,
                Action::Publish,
                &mut self.hot.rights,
                Place(place),
            ) {
                Ok(_) => {}
                Err((Denied::Unknown, place)) => {
                    return Step::Wait(RightsQuestion {
                        principal,
                        channel: place.0.channel,
                    });
                }
                Err(_) => return self.refuse(ReasonCode::NOT_AUTHORIZED, how, out),
            }
        }
        Step::Claim(pending.key())
    }

    /// Takes the CONNECT out, so that it can travel to its session; the machine is closed then.
    pub fn take_pending(&mut self) -> Option<Box<Pending>> {
        match std::mem::replace(self.cold, Cold::Closed) {
            Cold::Authenticating(pending) => Some(pending),
            other => {
                *self.cold = other;
                None
            }
        }
    }

    /// Joins connection and session, and answers CONNACK 0x00.
    ///
    /// `resumed` is the session of the same key, unless there is none or Clean Start discards it;
    /// `epoch` numbers the claim. [MQTT-3.1.4-4] [MQTT-3.1.4-5] [MQTT-3.1.2-4] [MQTT-3.1.2-5]
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
        session.expiry = pending.session_expiry.min(limits.session_expiry_max);
        // [MQTT-3.1.2-7] [MQTT-3.1.2-26] [MQTT3-3.1.2-8]
        session.will = pending.will.take().map(|draft| Box::new(draft.will));

        // Server Keep Alive takes the place of one that is too long. [MQTT-3.2.2-22]
        let keep_alive = match pending.keep_alive {
            0 => limits.keepalive_max,
            asked if limits.keepalive_max == 0 => asked,
            asked => asked.min(limits.keepalive_max),
        };
        let version5 = pending.version.is_v5();
        let alias_out = pending.topic_alias_maximum.min(limits.topic_alias_out_max);
        self.hot.begin(version5, alias_out > 0);
        self.hot.principal = session.principal;
        self.hot.maximum_packet_size = pending.maximum_packet_size;
        self.hot.last_seen_s = rules.now.as_secs();
        // [MQTT-3.1.2-24] [MQTT3-3.1.2-24]
        self.hot.silence_max_s = keep_alive.saturating_add(keep_alive.div_ceil(2));

        let assigned = pending.assigned.then(|| session.client_id.clone());
        let response = pending
            .wants_response_information
            .then(|| response_information(&session, rules));
        let connack = ConnAck {
            // 3.1 has no such flag. [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT3-3.2.2-1]
            // [MQTT3-3.2.2-2] [MQTT3-3.2.2-3]
            session_present: session_present && pending.version != ProtocolVersion::V31,
            reason: ReasonCode::SUCCESS,
            properties: ConnAckProperties {
                session_expiry: (session.expiry != pending.session_expiry)
                    .then_some(session.expiry),
                receive_maximum: Some(limits.receive_maximum),
                maximum_packet_size: Some(limits.max_packet_size),
                // [MQTT-3.1.3-7]
                assigned_client_identifier: assigned.as_deref(),
                topic_alias_maximum: Some(limits.topic_alias_max),
                server_keep_alive: (keep_alive != pending.keep_alive).then_some(keep_alive),
                // [MQTT-3.1.2-31]
                response_information: response.as_deref(),
                authentication_method: pending.method.map(Method::name),
                ..Default::default()
            },
        };
        connack.encode(pending.version, out);

        let connection = Connection {
            version: pending.version,
            explain: pending.explain,
            receive_maximum: pending.receive_maximum.min(limits.max_inflight_out).max(1),
            incoming_aliases: None,
            outgoing_aliases: (alias_out > 0).then(|| Box::new(OutgoingAliases::new(alias_out))),
            method: pending.method,
            reauthenticating: false,
            expiry_at_connect: pending.session_expiry,
            credentials_end: pending.credentials_end,
        };
        *self.cold = Cold::Live(Box::new(Live {
            connection,
            session,
        }));
        Attached { session_present }
    }

    /// Ends a connection that has no CONNACK yet: says why and closes.
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

/// A topic's place without a message, for judging.
#[derive(Debug)]
pub(crate) struct Place(pub(crate) Address);

impl OnChannel for Place {
    fn channel(&self) -> authcache::ChannelIndex {
        self.0.channel
    }
}

/// Prefix and subtopic as one topic.
pub(crate) fn joined(prefix: &str, subtopic: Option<&str>) -> String {
    match subtopic {
        Some(subtopic) => format!("{prefix}/{subtopic}"),
        None => prefix.to_owned(),
    }
}

/// Where a requester may build its Response Topics (MQTT 5, 4.10.2): a name of its own below the
/// open namespace, or the channels of its domain.
fn response_information(session: &Session, rules: &Rules<'_>) -> String {
    use authcache::PrincipalKind;
    match (
        rules.listener.open,
        rules.directory.principal_facts(session.principal).kind,
    ) {
        (Some(_), _) => format!("response/{}/", session.client_id),
        (None, PrincipalKind::Client { domain }) => rules
            .directory
            .domain_id(domain)
            .map_or_else(|| "m/".to_owned(), |id| format!("m/{id}/c/")),
        (None, PrincipalKind::User | PrincipalKind::System) => "m/".to_owned(),
    }
}

/// Checks a CONNECT and takes what is kept of it; with it what is to be identified, unless an
/// AUTH has to be awaited.
fn draft(
    connect: &Connect<'_>,
    rules: &Rules<'_>,
) -> Result<(Box<Pending>, Option<Identify>), ReasonCode> {
    let limits = rules.limits;
    let version = connect.version;
    let properties = &connect.properties;
    crate::mqtt::incoming::check_user_properties(&properties.user_properties, limits)?;
    let client_id = client_id(connect, rules)?;
    let username_len = connect.username.map_or(0, str::len);
    let password_len = connect.password.map_or(0, <[u8]>::len);
    if username_len > limits.max_username_bytes
        || password_len > limits.max_password_bytes
        || connect
            .username
            .is_some_and(|name| name.chars().any(char::is_control))
    {
        return Err(ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    }
    let will = connect
        .will
        .as_ref()
        .map(|will| will_draft(will, rules))
        .transpose()?;
    let session_expiry = match (version, connect.clean_start) {
        (ProtocolVersion::V5, _) => properties.session_expiry,
        (ProtocolVersion::V31 | ProtocolVersion::V311, true) => 0,
        (ProtocolVersion::V31 | ProtocolVersion::V311, false) => limits.session_expiry_v311,
    };
    let method = match properties.authentication_method {
        None => None,
        Some(name) => Some(Method::named(name).ok_or(ReasonCode::BAD_AUTHENTICATION_METHOD)?),
    };
    let identify = match (method, properties.authentication_data) {
        (None, _) => Some(Identify::Password {
            username: connect.username.map(str::to_owned),
            password: connect.password.map(<[u8]>::to_vec),
        }),
        (Some(_), None) => None,
        (Some(method), Some(data)) => Some(
            method
                .read(data)
                .ok_or(ReasonCode::BAD_USER_NAME_OR_PASSWORD)?,
        ),
    };
    let pending = Pending {
        version,
        assigned: connect.client_id.is_empty(),
        client_id,
        clean_start: connect.clean_start,
        keep_alive: connect.keep_alive,
        session_expiry,
        receive_maximum: properties.receive_maximum,
        maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
        topic_alias_maximum: properties.topic_alias_maximum,
        wants_response_information: properties.request_response_information,
        explain: properties.request_problem_information,
        will,
        method,
        awaits_auth: false,
        principal: PrincipalIndex::new(u32::MAX),
        credentials_end: None,
    };
    Ok((Box::new(pending), identify))
}

/// The Client Identifier, or an assigned one. [MQTT-3.1.3-3] [MQTT-3.1.3-5] [MQTT-3.1.3-6]
/// [MQTT-3.1.3-8] [MQTT3-3.1.3-5] [MQTT3-3.1.3-6] [MQTT3-3.1.3-8] [MQTT3-3.1.3-9]
fn client_id(connect: &Connect<'_>, rules: &Rules<'_>) -> Result<Box<str>, ReasonCode> {
    let given = connect.client_id;
    if given.len() > rules.limits.max_client_id_bytes || given.chars().any(char::is_control) {
        return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
    }
    if !given.is_empty() {
        return Ok(given.into());
    }
    match connect.version {
        ProtocolVersion::V5 => Ok(rules.ids.assign().into()),
        ProtocolVersion::V311 if connect.clean_start => Ok(rules.ids.assign().into()),
        // 3.1 demands at least one character.
        ProtocolVersion::V31 | ProtocolVersion::V311 => {
            Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID)
        }
    }
}

fn will_draft(will: &codec::mqtt::Will<'_>, rules: &Rules<'_>) -> Result<WillDraft, ReasonCode> {
    let limits = rules.limits;
    crate::mqtt::incoming::check_user_properties(&will.properties.user_properties, limits)?;
    if will.payload.len() > limits.max_will_bytes {
        return Err(ReasonCode::PACKET_TOO_LARGE);
    }
    if will.properties.payload_format == Some(PayloadFormat::Utf8)
        && std::str::from_utf8(will.payload).is_err()
    {
        return Err(ReasonCode::PAYLOAD_FORMAT_INVALID);
    }
    let mut properties = Vec::new();
    will.properties.forwarded_into(&mut properties);
    let nowhere = Address {
        channel: authcache::ChannelIndex::SYS,
        wild: None,
        subtopic_at: 0,
    };
    Ok(WillDraft {
        topic: will.topic.to_owned(),
        will: Will {
            address: nowhere,
            topic: "".into(),
            payload: will.payload.into(),
            properties: properties.into(),
            qos: will.qos,
            retain: will.retain,
            delay: will.delay.min(limits.will_delay_max),
            message_expiry: crate::mqtt::incoming::lowered(
                will.properties.message_expiry,
                limits.message_expiry_max,
            ),
        },
    })
}
