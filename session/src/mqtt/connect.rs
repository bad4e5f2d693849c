//! CONNECT (MQTT 5, 3.1): what it asks for, and who it comes from.

use authcache::PrincipalIndex;
use codec::mqtt::{
    Connect, DecodeError, Frame, ProtocolVersion, ReasonCode, decode_connect, split_frame,
};

use crate::mqtt::auth::{self, Method};
use crate::mqtt::connack;
use crate::mqtt::machine::{Cold, Machine};
use crate::mqtt::publish::check_user_properties;
use crate::mqtt::reply::{self, Manner};
use crate::mqtt::will::WillDraft;
use crate::now::Now;
use crate::rules::Rules;
use crate::session::SessionKey;
use crate::step::{Identify, Step};

/// A CONNECT that is being identified or on its way to its session.
#[derive(Debug)]
pub struct Pending {
    pub(crate) version: ProtocolVersion,
    pub(crate) client_id: Box<str>,
    pub(crate) assigned: bool,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive: u16,
    pub(crate) session_expiry: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) wants_response_information: bool,
    pub(crate) explain: bool,
    pub(crate) will: Option<WillDraft>,
    pub(crate) method: Option<Method>,
    /// AUTH 0x18 was sent and the client's answer is awaited.
    pub(crate) awaits_auth: bool,
    pub(crate) principal: PrincipalIndex,
    pub(crate) credentials_end: Option<Now>,
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
            Err(error) => return (used, self.unreadable(&error, &frame, out)),
        };
        (used, self.connect(&connect, rules, out))
    }

    /// A CONNECT that cannot be read: 3.1.1 closes without CONNACK, MQTT 5 says why, and whoever
    /// speaks another version is told in the form that it understands best.
    /// [MQTT-3.1.4-1] [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT3-3.1.4-1] [MQTT3-3.1.2-1]
    /// [MQTT3-3.1.2-2]
    fn unreadable(
        &mut self,
        error: &DecodeError,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let code = error.reason_code();
        let answer_in = match error {
            DecodeError::UnsupportedVersion { answer, .. } => *answer,
            DecodeError::Malformed(_)
            | DecodeError::ProtocolError(_)
            | DecodeError::TooLarge { .. } => {
                Connect::version_of(frame).filter(|version| version.is_v5())
            }
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
                    let code = ReasonCode::CONTINUE_AUTHENTICATION;
                    auth::put(code, method, pending.manner(), out);
                }
                pending.awaits_auth = true;
                *self.cold = Cold::Authenticating(pending);
                Step::Done
            }
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
    check_user_properties(&properties.user_properties, limits)?;
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
        .map(|will| WillDraft::read(will, rules))
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
    if connack::least_len(&pending, limits) > pending.maximum_packet_size as usize {
        // What the client has to be told does not fit what it takes.
        return Err(ReasonCode::PACKET_TOO_LARGE);
    }
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
