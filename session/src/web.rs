//! Paths, credentials and messages of the protocols that come as MQTT clients inside: HTTP, channel
//! sockets and CoAP.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use codec::mqtt::{Delivery, PayloadFormat, ProtocolVersion, PublishOut, PublishProperties};

/// A message that came over another protocol, as the client inside publishes it.
#[derive(Clone, Copy, Debug)]
pub struct Posted<'a> {
    /// Its Topic Name.
    pub topic: &'a str,
    /// Its QoS, with an identifier where that needs one.
    pub delivery: Delivery,
    /// Whether it is to be kept.
    pub retain: bool,
    /// Whether it says of itself that it is text: Payload Format Indicator 1 (MQTT 5, 3.3.2.3.2).
    pub text: bool,
    /// Its Content Type.
    pub content_type: Option<&'a str>,
    /// What it says.
    pub payload: &'a [u8],
}

impl Posted<'_> {
    /// Appends its PUBLISH, in MQTT 5.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut forwarded = Vec::new();
        PublishProperties {
            payload_format: self.text.then_some(PayloadFormat::Utf8),
            content_type: self.content_type,
            ..PublishProperties::default()
        }
        .forwarded_into(&mut forwarded);
        PublishOut {
            dup: false,
            retain: self.retain,
            delivery: self.delivery,
            topic: &[self.topic],
            topic_alias: None,
            message_expiry: None,
            subscription_identifiers: &[],
            forwarded: &forwarded,
            payload: self.payload,
        }
        .encode(ProtocolVersion::V5, out);
    }
}

/// The channel that a path names, and what is below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChannelPath {
    /// Id or route of the domain.
    pub domain: String,
    /// Id or route of the channel.
    pub channel: String,
    /// Levels below the channel, empty for none.
    pub subtopic: String,
}

/// The path has the form of a channel's and names none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("malformed path: expected /m/<domain>/c/<channel>[/<subtopic>]")]
pub struct BadPath;

impl ChannelPath {
    /// Reads `/m/<domain>/c/<channel>[/<subtopic>]`, percent-escapes resolved; slashes at the end
    /// are not part of the subtopic. `None` if the path is of another family.
    ///
    /// # Errors
    /// [`BadPath`], when a name is missing, a level inside the subtopic is empty, a wildcard is not
    /// a level of its own, or an escape makes no text.
    pub fn parse(path: &str) -> Result<Option<ChannelPath>, BadPath> {
        ChannelPath::read(path, percent_decode)
    }

    /// As [`ChannelPath::parse`], for a path without escapes: CoAP has none.
    ///
    /// # Errors
    /// [`BadPath`], as there.
    pub fn of_levels(path: &str) -> Result<Option<ChannelPath>, BadPath> {
        ChannelPath::read(path, |text| Some(text.to_owned()))
    }

    fn read(
        path: &str,
        decode: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<ChannelPath>, BadPath> {
        let Some(rest) = path.strip_prefix("/m/") else {
            return Ok(None);
        };
        let (domain, rest) = rest.split_once("/c/").ok_or(BadPath)?;
        let (channel, subtopic) = rest.split_once('/').unwrap_or((rest, ""));
        let [domain, channel, subtopic] = [domain, channel, subtopic].map(decode);
        let (domain, channel) = (domain.ok_or(BadPath)?, channel.ok_or(BadPath)?);
        let subtopic = subtopic.ok_or(BadPath)?;
        let subtopic = subtopic.trim_matches('/');
        let bad = |name: &str| {
            name.is_empty()
                || name.contains(['/', '+', '#', ' '])
                || name.contains(char::is_control)
        };
        let levels = subtopic.split('/').count();
        let misplaced = subtopic.split('/').enumerate().any(|(at, level)| {
            level.contains(['+', '#']) && level.len() > 1 || level == "#" && at + 1 < levels
        });
        let holes = !subtopic.is_empty() && subtopic.split('/').any(str::is_empty);
        if bad(&domain)
            || bad(&channel)
            || holes
            || misplaced
            || subtopic.contains(char::is_control)
        {
            return Err(BadPath);
        }
        Ok(Some(ChannelPath {
            subtopic: subtopic.to_owned(),
            domain,
            channel,
        }))
    }

    /// The topic or filter that it is in MQTT.
    pub fn topic(&self) -> String {
        let ChannelPath {
            domain,
            channel,
            subtopic,
        } = self;
        if subtopic.is_empty() {
            format!("m/{domain}/c/{channel}")
        } else {
            format!("m/{domain}/c/{channel}/{subtopic}")
        }
    }

    /// Whether it names more than one topic.
    pub fn has_wildcard(&self) -> bool {
        self.subtopic
            .split('/')
            .any(|level| level == "+" || level == "#")
    }
}

/// User Name and Password, as they stand in a CONNECT. `Debug` shows neither.
#[derive(Clone, Eq, PartialEq)]
pub struct Login {
    /// A client's or user's id, the domain of a client that shows its secret alone, or nothing
    /// with a token.
    pub username: String,
    /// The secret or token.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(..)")
    }
}

impl Login {
    /// The credential in the `Authorization` header or the query's `authorization`: `Basic` with id
    /// and secret, `Bearer` with a token, `Client` with a secret, or a bare secret. A secret alone
    /// finds its client by the `domain`.
    ///
    /// Basic in the header goes first, then the query, then the rest of the header.
    pub fn find(header: Option<&str>, query: Option<&str>, domain: &str) -> Option<Login> {
        let header = header.map(str::trim).filter(|value| !value.is_empty());
        let query = query.and_then(|query| query_value(query, "authorization"));
        let query = query
            .as_deref()
            .map(str::trim)
            .filter(|value| !value.is_empty());
        match (header, query) {
            (Some(header), _) if scheme(header).0.eq_ignore_ascii_case("basic") => {
                Login::read(header, domain)
            }
            (_, Some(query)) => Login::read(query, domain),
            (Some(header), None) => Login::read(header, domain),
            (None, None) => None,
        }
    }

    fn read(value: &str, domain: &str) -> Option<Login> {
        let (name, rest) = scheme(value);
        if name.eq_ignore_ascii_case("basic") {
            let pair = String::from_utf8(decode_base64(rest)?).ok()?;
            let (id, secret) = pair.split_once(':')?;
            return if id.is_empty() {
                Some(Login::alone(secret, domain))
            } else {
                Some(Login {
                    username: id.to_owned(),
                    password: secret.to_owned(),
                })
            };
        }
        if name.eq_ignore_ascii_case("bearer") {
            return Some(Login {
                username: String::new(),
                password: rest.to_owned(),
            });
        }
        if name.eq_ignore_ascii_case("client") {
            return Some(Login::alone(rest, domain));
        }
        Some(Login::alone(value, domain))
    }

    /// A secret or token, or a client's id, a colon and its secret.
    pub(crate) fn of_pair(value: &str, domain: &str) -> Login {
        match value.split_once(':').filter(|(id, _)| is_id(id)) {
            Some((id, secret)) => Login {
                username: id.to_owned(),
                password: secret.to_owned(),
            },
            None => Login::alone(value, domain),
        }
    }

    /// A bare value: a token by its form, else a secret.
    fn alone(value: &str, domain: &str) -> Login {
        let token = value.starts_with("pat_") || value.split('.').count() == 3;
        Login {
            username: if token {
                String::new()
            } else {
                domain.to_owned()
            },
            password: value.to_owned(),
        }
    }
}

/// Whether a text has the form of an id (RFC 9562, 4).
fn is_id(text: &str) -> bool {
    let mut bytes = text.bytes().enumerate();
    text.len() == 36
        && bytes.all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The scheme in front of a credential, empty if there is none, and the rest.
fn scheme(value: &str) -> (&str, &str) {
    match value.split_once(' ') {
        Some((name, rest)) => (name, rest.trim()),
        None => ("", value),
    }
}

/// Base64 of both alphabets, padded or not.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    [&STANDARD, &URL_SAFE, &STANDARD_NO_PAD, &URL_SAFE_NO_PAD]
        .into_iter()
        .find_map(|engine| engine.decode(text).ok())
}

/// The value of a key in a query, decoded; the first one.
pub fn query_value(query: &str, key: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        (decode(name)? == key).then(|| decode(value)).flatten()
    })
}

/// Resolves `%XX`; `None` where that is no UTF-8, or an escape is cut.
pub fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || (bytes.next()? as char).to_digit(16);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_channels_as_topics_do() {
        let topic = |path: &str| {
            let path = ChannelPath::parse(path).unwrap().unwrap();
            (path.topic(), path.has_wildcard())
        };
        for (path, expected, wild) in [
            ("/m/d/c/x", "m/d/c/x", false),
            ("/m/d/c/x/", "m/d/c/x", false),
            ("/m/d/c/x/a/b", "m/d/c/x/a/b", false),
            ("/m/d/c/x/a/", "m/d/c/x/a", false),
            ("/m/d/c/x/a%2Fb", "m/d/c/x/a/b", false),
            ("/m/d/c/x/a%20b/%C3%A9", "m/d/c/x/a b/é", false),
            ("/m/d/c/x/+/b", "m/d/c/x/+/b", true),
            ("/m/d/c/x/%23", "m/d/c/x/#", true),
        ] {
            assert_eq!(topic(path), (expected.to_owned(), wild), "{path}");
        }
        for path in ["/mqtt", "/", "/x/m/d/c/x", "m/d/c/x", "/publish"] {
            assert_eq!(ChannelPath::parse(path), Ok(None), "{path}");
        }
        for path in [
            "/m/d/c/",
            "/m//c/x",
            "/m/d/c//a",
            "/m/d",
            "/m/d/x/y",
            "/m/d/c/x/a//b",
            "/m/d/c/+",
            "/m/%23/c/x",
            "/m/d/c/x/%00",
            "/m/d/c/x/%ff",
            "/m/d/c/x/%2",
            "/m/a/b/c/x",
            "/m/d/c/x/a+b",
            "/m/d/c/x/%23/a",
            "/m/d/c/x%20y",
        ] {
            assert_eq!(ChannelPath::parse(path), Err(BadPath), "{path}");
        }
    }

    #[test]
    fn credentials_are_found_in_every_form() {
        let find = |header: Option<&str>, query: Option<&str>| {
            Login::find(header, query, "dom").map(|login| (login.username, login.password))
        };
        let login =
            |username: &str, password: &str| Some((username.to_owned(), password.to_owned()));
        assert_eq!(find(Some("Client s3cret"), None), login("dom", "s3cret"));
        assert_eq!(find(Some("client  s3cret "), None), login("dom", "s3cret"));
        assert_eq!(find(Some("s3cret"), None), login("dom", "s3cret"));
        assert_eq!(find(Some("Bearer a.b.c"), None), login("", "a.b.c"));
        assert_eq!(find(Some("a.b.c"), None), login("", "a.b.c"));
        assert_eq!(find(Some("Bearer pat_x"), None), login("", "pat_x"));
        assert_eq!(find(Some("pat_x"), None), login("", "pat_x"));
        for encoded in ["aWQ6c2VjcmV0Pz8/", "aWQ6c2VjcmV0Pz8_"] {
            let header = format!("Basic {encoded}");
            assert_eq!(find(Some(&header), None), login("id", "secret???"));
        }
        assert_eq!(
            find(Some("Basic OnM="), None),
            login("dom", "s"),
            "without an id"
        );
        assert_eq!(
            find(None, Some("a=b&authorization=Client%20s")),
            login("dom", "s")
        );
        assert_eq!(
            find(None, Some("authorization=Bearer+a.b.c")),
            login("", "a.b.c")
        );
        assert_eq!(find(None, Some("authorization=s")), login("dom", "s"));
        // Basic, then the query, then the header.
        assert_eq!(
            find(Some("Basic aWQ6cw=="), Some("authorization=q")),
            login("id", "s")
        );
        assert_eq!(
            find(Some("Client h"), Some("authorization=q")),
            login("dom", "q")
        );
        for none in [
            (None, None),
            (Some(" "), Some("authorization=")),
            (None, Some("x=y")),
        ] {
            assert_eq!(find(none.0, none.1), None);
        }
        assert_eq!(find(Some("Basic ***"), None), None);
        assert_eq!(
            format!("{:?}", Login::find(Some("s"), None, "d").unwrap()),
            "Login(..)"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_path_and_credential_is_read_or_refused(path: String, header: String, query: String) {
            for path in [path.clone(), format!("/m/{path}"), format!("/m/d/c/{path}")] {
                if let Ok(Some(channel)) = ChannelPath::parse(&path) {
                    let topic = channel.topic();
                    proptest::prop_assert!(topic.starts_with("m/") && !topic.ends_with('/'));
                    let wild = topic.contains(['+', '#']);
                    proptest::prop_assert_eq!(wild, channel.has_wildcard());
                }
            }
            let _ = Login::find(Some(&header), Some(&format!("authorization={query}")), "d");
        }
    }
}
