//! Enhanced authentication (MQTT 5, 4.12): SASL PLAIN (RFC 4616) and OAUTHBEARER (RFC 7628).

use codec::mqtt::{Auth, Packet, ProtocolVersion, ReasonCode, split_frame};

use crate::mqtt::connect::IdentifyOutcome;
use crate::mqtt::machine::{Cold, Machine, Phase};
use crate::mqtt::publish::check_user_properties;
use crate::mqtt::reply::Manner;
use crate::rules::Rules;
use crate::step::{Identify, Step};

/// An Authentication Method.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    /// `authzid NUL authcid NUL password`.
    Plain,
    /// `n,,^Aauth=Bearer <token>^A^A`.
    OAuthBearer,
}

impl Method {
    /// The method of this name, if the broker has it. [MQTT-4.12.0-1]
    pub(crate) fn named(name: &str) -> Option<Method> {
        match name {
            "PLAIN" => Some(Method::Plain),
            "OAUTHBEARER" => Some(Method::OAuthBearer),
            _ => None,
        }
    }

    /// Its registered SASL name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Method::Plain => "PLAIN",
            Method::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// What the client's message says; `None` if it does not follow the method's grammar.
    pub(crate) fn read(self, data: &[u8]) -> Option<Identify> {
        match self {
            Method::Plain => {
                let mut parts = data.split(|&byte| byte == 0);
                let _authorized_as = parts.next()?;
                let username = std::str::from_utf8(parts.next()?).ok()?;
                let password = parts.next()?;
                parts.next().is_none().then(|| Identify::Password {
                    username: Some(username.to_owned()),
                    password: Some(password.to_vec()),
                })
            }
            Method::OAuthBearer => {
                let mut parts = data.split(|&byte| byte == 1);
                let header = parts.next()?;
                if !(header.starts_with(b"n,") || header.starts_with(b"y,")) {
                    return None;
                }
                let value = parts.find_map(|part| part.strip_prefix(b"auth="))?;
                let (scheme, token) = value.split_at_checked("Bearer ".len())?;
                scheme
                    .eq_ignore_ascii_case(b"Bearer ")
                    .then(|| Identify::Token(token.to_vec()))
            }
        }
    }
}

impl Machine<'_> {
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
        let (true, Some(method)) = (pending.awaits_auth, pending.method) else {
            return (0, Step::Incomplete);
        };
        let how = pending.manner();
        let frame = match split_frame(input, rules.limits.max_connect_packet_size) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (0, Step::Incomplete),
            Err(error) => return (0, self.refuse(error.reason_code(), how, out)),
        };
        let used = frame.bytes.len();
        let answer = match codec::mqtt::decode(&frame, pending.version) {
            Ok(Packet::Auth(answer)) => answer,
            Ok(Packet::Disconnect(_)) => return (used, self.end(ReasonCode::SUCCESS)),
            Ok(_) => return (used, self.refuse(ReasonCode::PROTOCOL_ERROR, how, out)),
            Err(error) => return (used, self.refuse(error.reason_code(), how, out)),
        };
        if let Err(code) = check_user_properties(&answer.user_properties, rules.limits) {
            return (used, self.refuse(code, how, out));
        }
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
            None => {
                let code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
                (used, self.refuse(code, how, out))
            }
        }
    }

    /// AUTH on a live connection: 0x19 begins a re-authentication, 0x18 goes on with one that
    /// was asked for data (MQTT 5, 4.12.1).
    pub(crate) fn authenticate_again(
        &mut self,
        packet: &Auth<'_>,
        rules: &Rules<'_>,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if let Err(code) = check_user_properties(&packet.user_properties, rules.limits) {
            return self.fail(code, out);
        }
        let expected = match live.connection.phase {
            Phase::AwaitsAuth => ReasonCode::CONTINUE_AUTHENTICATION,
            Phase::Open | Phase::Identifying | Phase::Over => ReasonCode::RE_AUTHENTICATE,
        };
        let method = live.connection.method;
        // [MQTT-4.12.0-5]
        let method = method.filter(|method| packet.method == Some(method.name()));
        let (Some(method), true) = (method, packet.reason == expected) else {
            return self.fail(ReasonCode::PROTOCOL_ERROR, out);
        };
        let Some(data) = packet.data else {
            if live.connection.phase == Phase::AwaitsAuth {
                return self.fail(ReasonCode::NOT_AUTHORIZED, out);
            }
            live.connection.phase = Phase::AwaitsAuth;
            let how = live.connection.manner(self.hot.maximum_packet_size);
            put(ReasonCode::CONTINUE_AUTHENTICATION, method, how, out);
            return Step::Done;
        };
        match method.read(data) {
            Some(identify) => {
                live.connection.phase = Phase::Identifying;
                self.hot.hold(true);
                Step::Identify(identify)
            }
            // [MQTT-4.12.1-2]
            None => self.fail(ReasonCode::NOT_AUTHORIZED, out),
        }
    }

    /// The answer to a re-authentication. [MQTT-4.12.1-2]
    pub(crate) fn identified_again(
        &mut self,
        outcome: IdentifyOutcome,
        out: &mut Vec<u8>,
    ) -> Step<'static> {
        let Cold::Live(live) = &mut *self.cold else {
            return Step::Done;
        };
        if live.connection.phase != Phase::Identifying {
            return Step::Done;
        }
        match (outcome, live.connection.method) {
            (IdentifyOutcome::Known(principal, until), Some(method))
                if principal == live.session.principal =>
            {
                live.connection.phase = Phase::Open;
                live.connection.credentials_end = until;
                self.hot.hold(false);
                let how = live.connection.manner(self.hot.maximum_packet_size);
                put(ReasonCode::SUCCESS, method, how, out);
                Step::Done
            }
            (IdentifyOutcome::Known(..), _) => self.fail(ReasonCode::NOT_AUTHORIZED, out),
            (IdentifyOutcome::Refused(refusal), _) => self.fail(refusal.reason_code(), out),
        }
    }
}

/// Appends an AUTH packet; only ever sent to a client that named a method. It has neither Reason
/// String nor User Properties. [MQTT-4.12.0-6] [MQTT-3.15.2-1] [MQTT-3.15.2-2]
pub(crate) fn put(code: ReasonCode, method: Method, how: Manner, out: &mut Vec<u8>) {
    let packet = Auth {
        reason: code,
        // [MQTT-4.12.0-5]
        method: Some(method.name()),
        ..Auth::default()
    };
    how.put(out, |out| packet.encode(ProtocolVersion::V5, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_message_gives_user_name_and_password() {
        let expected = Identify::Password {
            username: Some("dev".into()),
            password: Some(b"s3".to_vec()),
        };
        assert!(Method::Plain.read(b"\0dev\0s3") == Some(expected));
        assert!(Method::Plain.read(b"dev\0s3").is_none());
        assert!(Method::Plain.read(b"\0dev\0s3\0more").is_none());
        assert!(Method::Plain.read(b"\0\xff\0s3").is_none());
    }

    #[test]
    fn oauthbearer_message_gives_the_token() {
        let token = |data: &[u8]| Method::OAuthBearer.read(data);
        let expected = Identify::Token(b"a.b.c".to_vec());
        assert!(token(b"n,,\x01auth=Bearer a.b.c\x01\x01") == Some(expected.clone()));
        assert!(token(b"n,a=x,\x01host=h\x01auth=bearer a.b.c\x01\x01") == Some(expected));
        assert!(token(b"n,,\x01auth=Basic a\x01\x01").is_none());
        assert!(token(b"x,,\x01auth=Bearer a\x01\x01").is_none());
        assert!(token(b"").is_none());
    }
}
