//! Enhanced authentication (MQTT 5, 4.12): SASL PLAIN (RFC 4616) and OAUTHBEARER (RFC 7628).

use codec::mqtt::{Auth, ProtocolVersion, ReasonCode, UserProperties};

use crate::step::Identify;

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

/// Appends an AUTH packet; only ever sent to a client that named a method. [MQTT-4.12.0-6]
pub(crate) fn put(code: ReasonCode, method: Method, out: &mut Vec<u8>) {
    let packet = Auth {
        reason: code,
        // [MQTT-4.12.0-5]
        method: Some(method.name()),
        data: None,
        reason_string: None,
        user_properties: UserProperties::default(),
    };
    packet.encode(ProtocolVersion::V5, out);
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
