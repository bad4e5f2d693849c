//! What a request asks for: the forms in which messages are published over HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::mqtt::QoS;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use session::web::{ChannelPath, Login, percent_decode, query_value};

use crate::http::guest::Outgoing;

/// Messages in one batch.
const BATCH_MAX: usize = 1_000;

/// What is wrong with a request, to be answered with this status and sentence.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) StatusCode, pub(crate) &'static str);

/// What has to be done.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Messages, and the answer when all are published.
    Publish {
        login: Login,
        messages: Vec<Outgoing>,
        success: Success,
    },
    /// Messages of a channel, as events.
    Subscribe {
        login: Login,
        filter: String,
        /// Whether events are JSON with topic and payload.
        envelopes: bool,
    },
}

/// The answer of each form when it is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Success {
    /// 202 and nothing.
    Accepted,
    /// 202 and `{"status":"accepted"}`.
    AcceptedStatus,
    /// 200 and how many were published.
    Published,
}

/// A request, and whether it needs a credential.
struct Asking<'a> {
    parts: &'a Parts,
    certified: bool,
}

impl std::ops::Deref for Asking<'_> {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts
    }
}

const MALFORMED: StatusCode = StatusCode::BAD_REQUEST;

/// The id or route of the domain of a channel, as topics begin: for the form that leaves it out.
pub(crate) type TopicOf<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a request whose body is there. `certified` says that TLS knows who sent it, so that it
/// needs no credential.
///
/// # Errors
/// [`Fault`], the answer.
pub(crate) fn read(
    parts: &Parts,
    body: Vec<u8>,
    certified: bool,
    topic_of: TopicOf<'_>,
) -> Result<Asked, Fault> {
    let parts = &Asking { parts, certified };
    let path = parts.uri.path();
    let channel = ChannelPath::parse(path).map_err(|_| {
        Fault(
            MALFORMED,
            "malformed path: expected /m/<domain>/c/<channel>[/<subtopic>]",
        )
    })?;
    match (&parts.method, channel) {
        (&Method::POST, Some(channel)) => to_channel(parts, body, &channel),
        (&Method::GET, Some(channel)) => {
            let query = parts.uri.query();
            Ok(Asked::Subscribe {
                login: login(parts, &channel.domain)?,
                filter: channel.topic(),
                envelopes: value(query, "format").as_deref() == Some("json"),
            })
        }
        (_, Some(_)) => Err(Fault(
            StatusCode::METHOD_NOT_ALLOWED,
            "expected POST to publish or GET to subscribe",
        )),
        (method, None) => {
            let form = other_form(path).ok_or(Fault(StatusCode::NOT_FOUND, "not found"))?;
            if method != Method::POST {
                return Err(Fault(StatusCode::METHOD_NOT_ALLOWED, "expected POST"));
            }
            match form {
                Form::Health(domain) => {
                    let message = Outgoing {
                        topic: format!("hc/{domain}"),
                        payload: Vec::new(),
                        qos: QoS::AtLeastOnce,
                        retain: false,
                        content_type: None,
                    };
                    Ok(Asked::Publish {
                        login: login(parts, &domain)?,
                        messages: vec![message],
                        success: Success::Accepted,
                    })
                }
                Form::Publish => publish(parts, &body),
                Form::Alias { channel, subtopic } => {
                    alias(parts, body, &channel, &subtopic, topic_of)
                }
                Form::Messages { domain, channel } => messages(parts, &body, &domain, &channel),
            }
        }
    }
}

/// The other families of paths.
enum Form {
    /// `/hc/<domain>`
    Health(String),
    /// `/publish`
    Publish,
    /// `/channels/<channel>/messages[<subtopic>]`, the levels of which are joined by dots.
    Alias { channel: String, subtopic: String },
    /// `/<domain>/channels/<channel>/messages`
    Messages { domain: String, channel: String },
}

fn other_form(path: &str) -> Option<Form> {
    let name = |text: &str| {
        let text = percent_decode(text)?;
        let plain = !text.is_empty() && !text.contains(['/', '+', '#', ' ', '\0']);
        plain.then_some(text)
    };
    if path == "/publish" {
        return Some(Form::Publish);
    }
    if let Some(domain) = path.strip_prefix("/hc/") {
        return name(domain).map(Form::Health);
    }
    if let Some(rest) = path.strip_prefix("/channels/") {
        let (channel, behind) = rest.split_once("/messages")?;
        let subtopic = percent_decode(behind)?.replace('.', "/");
        return Some(Form::Alias {
            channel: name(channel)?,
            subtopic: subtopic.trim_matches('/').to_owned(),
        });
    }
    let (domain, rest) = path.strip_prefix('/')?.split_once("/channels/")?;
    let channel = rest.strip_suffix("/messages")?;
    Some(Form::Messages {
        domain: name(domain)?,
        channel: name(channel)?,
    })
}

/// A raw body to a channel: `?qos=` and `?retain=` say how.
fn to_channel(parts: &Asking<'_>, body: Vec<u8>, channel: &ChannelPath) -> Result<Asked, Fault> {
    let login = login(parts, &channel.domain)?;
    if channel.has_wildcard() {
        return Err(Fault(MALFORMED, "expected a topic without wildcards"));
    }
    let query = parts.uri.query();
    let message = Outgoing {
        topic: channel.topic(),
        payload: body,
        qos: qos(value(query, "qos").as_deref())?,
        retain: flag(value(query, "retain").as_deref())?,
        content_type: content_type(&parts.headers),
    };
    // An empty body is accepted and publishes nothing, unless it takes away what is retained.
    let messages = (!message.payload.is_empty() || message.retain).then_some(message);
    Ok(Asked::Publish {
        login,
        messages: messages.into_iter().collect(),
        success: Success::Accepted,
    })
}

/// JSON with topic and payload: one, a list, or one in each line.
fn publish(parts: &Asking<'_>, body: &[u8]) -> Result<Asked, Fault> {
    let no_json = Fault(
        MALFORMED,
        "expected JSON: an object with topic and payload, a list of them, or one in each line",
    );
    let items = match serde_json::from_slice(body) {
        Ok(Value::Array(items)) => items,
        Ok(item) => vec![item],
        Err(_) => {
            let lines = body.split(|byte| *byte == b'\n');
            lines
                .filter(|line| !line.trim_ascii().is_empty())
                .map(serde_json::from_slice)
                .collect::<Result<_, _>>()
                .map_err(|_| no_json)?
        }
    };
    if items.is_empty() || items.len() > BATCH_MAX {
        return Err(Fault(MALFORMED, "expected 1 to 1000 messages"));
    }
    let messages = items.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let first = messages.first().map_or("", |message| &*message.topic);
    let domain = first
        .trim_start_matches('/')
        .strip_prefix("m/")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or("");
    let mut login = login(parts, domain)?;
    let name = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    // The bridge's own headers: a domain or client beside a secret, whatever its scheme.
    if let Some(username) = name("x-fluxmq-username").or(name("x-fluxmq-client-id"))
        && login.username != username
        && login.password.split('.').count() != 3
    {
        login.username = username.to_owned();
    }
    Ok(Asked::Publish {
        login,
        messages,
        success: Success::Published,
    })
}

/// `{topic, payload (base64), qos, retain, content_type}`
fn message(item: &Value) -> Result<Outgoing, Fault> {
    let text = |key: &str| item.get(key).and_then(Value::as_str);
    let topic = text("topic").ok_or(Fault(MALFORMED, "expected a topic in each message"))?;
    let payload = text("payload").unwrap_or("");
    let payload = STANDARD
        .decode(payload)
        .map_err(|_| Fault(MALFORMED, "expected a payload in base64"))?;
    let qos = match item.get("qos") {
        None => QoS::AtMostOnce,
        Some(value) => qos(value.as_u64().map(|qos| qos.to_string()).as_deref())?,
    };
    let retain = match item.get("retain") {
        None => false,
        Some(Value::Bool(retain)) => *retain,
        Some(_) => return Err(Fault(MALFORMED, "retain is true or false")),
    };
    let topic = checked(topic.trim_start_matches('/').to_owned())?;
    Ok(Outgoing {
        topic,
        payload,
        qos,
        retain,
        content_type: text("content_type").and_then(printable),
    })
}

/// The form that names the channel alone.
fn alias(
    parts: &Asking<'_>,
    body: Vec<u8>,
    channel: &str,
    subtopic: &str,
    topic_of: TopicOf<'_>,
) -> Result<Asked, Fault> {
    // A channel that is not there is answered like one without a right, once a secret is shown.
    let prefix = topic_of(channel);
    let domain = prefix
        .as_deref()
        .and_then(|prefix| prefix.split('/').nth(1));
    let login = login(parts, domain.unwrap_or("none"))?;
    let prefix = prefix.unwrap_or_else(|| format!("m/none/c/{channel}"));
    let topic = if subtopic.is_empty() {
        prefix
    } else {
        format!("{prefix}/{subtopic}")
    };
    let message = Outgoing {
        topic: checked(topic)?,
        payload: body,
        qos: QoS::AtMostOnce,
        retain: false,
        content_type: content_type(&parts.headers),
    };
    Ok(Asked::Publish {
        login,
        messages: vec![message],
        success: Success::Accepted,
    })
}

/// `{client_id?, subtopic, payload}` of a user.
fn messages(parts: &Asking<'_>, body: &[u8], domain: &str, channel: &str) -> Result<Asked, Fault> {
    let item: Value = serde_json::from_slice(body)
        .map_err(|_| Fault(MALFORMED, "expected a JSON object with payload"))?;
    let payload = match item.get("payload") {
        Some(Value::String(text)) => text.clone().into_bytes(),
        Some(other) => other.to_string().into_bytes(),
        None => return Err(Fault(MALFORMED, "expected a payload")),
    };
    let subtopic = item.get("subtopic").and_then(Value::as_str).unwrap_or("");
    let subtopic = subtopic.trim_matches('/');
    let topic = if subtopic.is_empty() {
        format!("m/{domain}/c/{channel}")
    } else {
        format!("m/{domain}/c/{channel}/{subtopic}")
    };
    let message = Outgoing {
        topic: checked(topic)?,
        payload,
        qos: QoS::AtMostOnce,
        retain: false,
        content_type: None,
    };
    Ok(Asked::Publish {
        login: login(parts, domain)?,
        messages: vec![message],
        success: Success::AcceptedStatus,
    })
}

/// A topic that MQTT can carry; what it means is judged where it is published.
fn checked(topic: String) -> Result<String, Fault> {
    let sound = !topic.is_empty()
        && topic.len() <= usize::from(u16::MAX)
        && !topic.contains(['+', '#', '\0']);
    if sound {
        Ok(topic)
    } else {
        Err(Fault(MALFORMED, "malformed topic"))
    }
}

fn login(asking: &Asking<'_>, domain: &str) -> Result<Login, Fault> {
    let header = asking.headers.get(AUTHORIZATION);
    let header = header.and_then(|value| value.to_str().ok());
    let nobody = asking.certified.then(|| Login {
        username: String::new(),
        password: String::new(),
    });
    let login = Login::find(header, asking.uri.query(), domain);
    login.or(nobody).ok_or(Fault(
        StatusCode::UNAUTHORIZED,
        "a credential is missing; expected Authorization: Client <secret>, Bearer <token> or Basic",
    ))
}

fn value(query: Option<&str>, key: &str) -> Option<String> {
    query_value(query?, key)
}

fn qos(text: Option<&str>) -> Result<QoS, Fault> {
    match text {
        None | Some("0") => Ok(QoS::AtMostOnce),
        Some("1") => Ok(QoS::AtLeastOnce),
        Some(_) => Err(Fault(MALFORMED, "qos is 0 or 1")),
    }
}

fn flag(text: Option<&str>) -> Result<bool, Fault> {
    match text {
        None | Some("0" | "false") => Ok(false),
        Some("" | "1" | "true") => Ok(true),
        Some(_) => Err(Fault(MALFORMED, "retain is true or false")),
    }
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    headers.get(CONTENT_TYPE)?.to_str().ok().and_then(printable)
}

/// What servers of older generations take.
const KNOWN_CONTENT_TYPES: [&str; 3] = [
    "application/json",
    "application/senml+json",
    "application/senml+cbor",
];

/// Refuses a body of another Content-Type than those that are known.
///
/// # Errors
/// [`Fault`], 415.
pub(crate) fn check_content_type(parts: &Parts) -> Result<(), Fault> {
    let given = parts.headers.get(CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    let known = |name: &&str| name.eq_ignore_ascii_case(essence);
    if parts.method != Method::POST || KNOWN_CONTENT_TYPES.iter().any(known) {
        return Ok(());
    }
    Err(Fault(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "expected application/json, application/senml+json or application/senml+cbor",
    ))
}

fn printable(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= 4096 && !text.contains('\0')).then(|| text.to_owned())
}
