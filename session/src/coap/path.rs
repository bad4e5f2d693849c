//! What a request names: a channel and a credential, in the forms of two families of URIs.

use codec::coap::{Message, OptionNumber};

use crate::web::{ChannelPath, Login};

/// What a request is about; the same for all blocks of a body. `Debug` shows the topic only.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Target {
    /// The topic, or the filter.
    pub(super) topic: Box<str>,
    /// Query and Request-Tag as they came.
    pub(super) query: Box<[u8]>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Target").field(&self.topic).finish()
    }
}

/// What a path names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// `.well-known/core`
    Core,
    /// `m/<domain>/c/<channel>[/<subtopic>]`
    Channel(ChannelPath),
    /// `mqtt/publish/<topic>`; only messages can be sent there.
    Topic(String),
    /// `hc/<domain>`
    Health(String),
}

/// Why a path names nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoPlace {
    /// It has the form of a known family and is malformed.
    Malformed,
    /// It is of no known family.
    Unknown,
}

/// Bytes of a path or query; more are malformed.
const BYTES_MAX: usize = 8 << 10;

impl Place {
    /// Reads the Uri-Path options of a request.
    pub(super) fn of(message: &Message<'_>) -> Result<Place, NoPlace> {
        let mut path = String::new();
        for level in message.values(OptionNumber::URI_PATH) {
            let level = std::str::from_utf8(level).map_err(|_| NoPlace::Malformed)?;
            path.push('/');
            path.push_str(level);
            if path.len() > BYTES_MAX {
                return Err(NoPlace::Malformed);
            }
        }
        if path == "/.well-known/core" {
            return Ok(Place::Core);
        }
        if let Some(domain) = path.strip_prefix("/hc/") {
            let sound = !domain.is_empty() && !domain.contains(['/', '+', '#', ' ', '\0']);
            let health = sound.then(|| Place::Health(domain.to_owned()));
            return health.ok_or(NoPlace::Malformed);
        }
        if let Some(topic) = path.strip_prefix("/mqtt/publish/") {
            let topic = topic.trim_matches('/');
            let sound = !topic.is_empty() && !topic.contains(['+', '#', '\0']);
            let topic = sound.then(|| Place::Topic(topic.to_owned()));
            return topic.ok_or(NoPlace::Malformed);
        }
        match ChannelPath::of_levels(&path) {
            Ok(Some(channel)) => Ok(Place::Channel(channel)),
            Ok(None) if path == "/m" || path == "/mqtt/publish" => Err(NoPlace::Malformed),
            Ok(None) => Err(NoPlace::Unknown),
            Err(_) => Err(NoPlace::Malformed),
        }
    }

    /// The domain that a secret alone belongs to.
    fn domain(&self) -> &str {
        match self {
            Place::Core => "",
            Place::Channel(path) => &path.domain,
            Place::Health(domain) => domain,
            Place::Topic(topic) => {
                let mut levels = topic.split('/');
                match (levels.next(), levels.next()) {
                    (Some("m" | "hc"), Some(domain)) => domain,
                    _ => "",
                }
            }
        }
    }

    /// The credential in the query of a request: `auth`, `authorization`, or `username` (else
    /// `client_id`) and `password`.
    pub(super) fn login(&self, message: &Message<'_>) -> Option<Login> {
        let domain = self.domain();
        if let Some(value) = joined(message, "auth") {
            return Some(Login::of_pair(&value, domain));
        }
        if let Some(value) = joined(message, "authorization") {
            return Login::find(Some(&value), None, domain);
        }
        let password = joined(message, "password")?;
        let name = value(message, "username").or_else(|| value(message, "client_id"));
        Some(match name {
            Some(name) => Login {
                username: name.to_owned(),
                password,
            },
            None => Login::of_pair(&password, domain),
        })
    }

    /// What all blocks of one body have in common.
    pub(super) fn target(&self, message: &Message<'_>) -> Target {
        let mut query = Vec::new();
        for number in [OptionNumber::URI_QUERY, OptionNumber::REQUEST_TAG] {
            for value in message.values(number) {
                query.extend_from_slice(&(value.len() as u16).to_be_bytes());
                query.extend_from_slice(value);
            }
        }
        Target {
            topic: self.topic().into(),
            query: query.into(),
        }
    }

    /// The topic or filter that it is in MQTT.
    pub(super) fn topic(&self) -> String {
        match self {
            Place::Core => String::new(),
            Place::Channel(path) => path.topic(),
            Place::Topic(topic) => topic.clone(),
            Place::Health(domain) => format!("hc/{domain}"),
        }
    }
}

/// The value of a key in the query, not empty; the first one. (Nothing is escaped in CoAP: each
/// option is one `key=value`.)
pub(super) fn value<'a>(message: &Message<'a>, key: &str) -> Option<&'a str> {
    message.values(OptionNumber::URI_QUERY).find_map(|pair| {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        (name == key && !value.is_empty()).then_some(value)
    })
}

/// As [`value`], with all values of the key one behind the other: an option has at most 255 bytes,
/// and an access token more.
fn joined(message: &Message<'_>, key: &str) -> Option<String> {
    let mut all = String::new();
    for pair in message.values(OptionNumber::URI_QUERY) {
        let (name, value) = std::str::from_utf8(pair)
            .ok()?
            .split_once('=')
            .unwrap_or(("", ""));
        if name == key {
            all.push_str(value);
        }
    }
    (!all.is_empty() && all.len() <= BYTES_MAX).then_some(all)
}

/// Whether the query says that the message is to be retained; `None` for what says neither.
pub(super) fn retains(message: &Message<'_>) -> Option<bool> {
    match value(message, "retain") {
        None | Some("false" | "0") => Some(false),
        Some("true" | "1") => Some(true),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use codec::coap::{Code, Kind, MessageId, Token, Writer};

    use super::*;

    fn request(uri: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(
            &mut out,
            Kind::Con,
            Code::GET,
            MessageId(1),
            Token::default(),
        );
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        for level in path.split('/').filter(|_| !path.is_empty()) {
            writer = writer.option(OptionNumber::URI_PATH, level.as_bytes());
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            writer = writer.option(OptionNumber::URI_QUERY, pair.as_bytes());
        }
        writer.payload(&[]);
        out
    }

    fn place(uri: &str) -> Result<Place, NoPlace> {
        Place::of(&Message::parse(&request(uri)).unwrap())
    }

    #[test]
    fn paths_of_both_families_name_topics() {
        for (uri, topic) in [
            ("m/d/c/x", "m/d/c/x"),
            ("m/d/c/x/a/b", "m/d/c/x/a/b"),
            ("m/d/c/x/a/", "m/d/c/x/a"),
            ("m/d/c/x/100%", "m/d/c/x/100%"),
            ("m/d/c/x/#", "m/d/c/x/#"),
            ("mqtt/publish/m/d/c/x/a", "m/d/c/x/a"),
            ("hc/d", "hc/d"),
        ] {
            assert_eq!(place(uri).unwrap().topic(), topic, "{uri}");
        }
        assert_eq!(place(".well-known/core"), Ok(Place::Core));
        for uri in [
            "m",
            "m/d/c",
            "m//c/x",
            "m/d/c/x/a//b",
            "m/d/c/+",
            "hc/",
            "mqtt/publish/",
            "mqtt/publish/a/#",
        ] {
            assert_eq!(place(uri), Err(NoPlace::Malformed), "{uri}");
        }
        for uri in ["", "x", "mqtt", "channels/x"] {
            assert_eq!(place(uri), Err(NoPlace::Unknown), "{uri}");
        }
    }

    #[test]
    fn credentials_are_read_in_every_form() {
        let login = |uri: &str| {
            let datagram = request(uri);
            let message = Message::parse(&datagram).unwrap();
            let login = Place::of(&message).unwrap().login(&message)?;
            Some((login.username, login.password))
        };
        let pair = |name: &str, secret: &str| Some((name.to_owned(), secret.to_owned()));
        let id = "0192d3c4-7d2b-7000-8000-0123456789ab";
        assert_eq!(login("m/d/c/x?auth=s"), pair("d", "s"));
        assert_eq!(login("mqtt/publish/m/d/c/x?auth=s"), pair("d", "s"));
        assert_eq!(login("hc/d?auth=s"), pair("d", "s"));
        assert_eq!(login(&format!("m/d/c/x?auth={id}:s:t")), pair(id, "s:t"));
        assert_eq!(login("m/d/c/x?auth=a:b"), pair("d", "a:b"), "no id");
        assert_eq!(login("m/d/c/x?auth=pat_x"), pair("", "pat_x"));
        assert_eq!(login("m/d/c/x?auth=a.b.c"), pair("", "a.b.c"));
        assert_eq!(
            login("m/d/c/x?authorization=Bearer a.b.c"),
            pair("", "a.b.c")
        );
        assert_eq!(login("m/d/c/x?authorization=Client s"), pair("d", "s"));
        assert_eq!(login("m/d/c/x?username=u&password=p"), pair("u", "p"));
        assert_eq!(
            login("m/d/c/x?client_id=i&username=u&password=p"),
            pair("u", "p")
        );
        assert_eq!(login("m/d/c/x?client_id=i&password=p"), pair("i", "p"));
        assert_eq!(login("m/d/c/x?password=p"), pair("d", "p"));
        assert_eq!(login("m/d/c/x?username=u"), None);
        assert_eq!(login("m/d/c/x?auth="), None);
        assert_eq!(
            login("m/d/c/x?auth=a.b&x=y&auth=.c"),
            pair("", "a.b.c"),
            "in pieces"
        );
        assert_eq!(login("m/d/c/x"), None);
    }
}
