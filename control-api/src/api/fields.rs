//! Bodies: read within bounds, checked against what the route says, then looked up by name.

use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::route::{BodyShape, Field, Holds};

/// Bytes of an ordinary body, and of one that lists many things.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body from somebody who was not identified.
const OPEN_BYTES_MAX: usize = 64 * 1024;
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Levels of a body.
const DEPTH_MAX: usize = 32;
/// Things that one body may list.
pub(super) const LIST_MAX: usize = 10_000;

/// The fields of one object.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

/// A body as its route wants it.
#[derive(Debug)]
pub(super) enum Body {
    None,
    One(Fields),
    Many(Vec<Fields>),
}

impl Fields {
    /// The value of a field; null is none.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there, null included.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str()
    }

    /// The first of several names that has a text.
    pub(super) fn any_text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.text(name))
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.value(name)?.as_bool()
    }

    pub(super) fn whole(&self, name: &str) -> Option<i64> {
        self.value(name)?.as_i64()
    }

    pub(super) fn object(&self, name: &str) -> Option<Fields> {
        self.value(name)?.as_object().cloned().map(Fields)
    }

    pub(super) fn objects(&self, name: &str) -> Option<Vec<Fields>> {
        let items = self.value(name)?.as_array()?;
        let items = items.iter().filter_map(Value::as_object);
        Some(items.cloned().map(Fields).collect())
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        match self.value(name)? {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => {
                let items = items.iter().filter_map(Value::as_str);
                Some(items.map(str::to_owned).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }

    pub(super) fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The same with another value for a field.
    pub(super) fn with(mut self, name: &str, value: Value) -> Fields {
        self.0.insert(name.to_owned(), value);
        self
    }

    fn check(&self, fields: &[Field]) -> Result<(), Failure> {
        for field in fields {
            match self.value(field.name) {
                None if field.required => {
                    return Err(Failure::bad(format!("{} is missing", field.name))
                        .with_detail(format!("expected {}", expected(field.holds))));
                }
                None => {}
                Some(value) => check_value(field, value)?,
            }
        }
        Ok(())
    }
}

fn expected(holds: Holds) -> String {
    match holds {
        Holds::Text(most) => format!("text of at most {most} characters"),
        Holds::Secret => "text of at most 4096 bytes".to_owned(),
        Holds::Texts => format!("a list of at most {LIST_MAX} texts"),
        Holds::TextOrTexts => "a text or a list of texts".to_owned(),
        Holds::Object => "an object".to_owned(),
        Holds::Objects => "a list of objects".to_owned(),
        Holds::Flag => "true or false".to_owned(),
        Holds::Whole => "a whole number".to_owned(),
    }
}

fn check_value(field: &Field, value: &Value) -> Result<(), Failure> {
    let texts = |value: &Value| {
        value
            .as_array()
            .is_some_and(|items| items.len() <= LIST_MAX && items.iter().all(Value::is_string))
    };
    let good = match field.holds {
        Holds::Text(most) => value
            .as_str()
            .is_some_and(|text| text.chars().count() <= most && !text.contains('\0')),
        Holds::Secret => value
            .as_str()
            .is_some_and(|text| text.len() <= crate::name::SECRET_BYTES_MAX),
        Holds::Texts => texts(value),
        Holds::TextOrTexts => value.is_string() || texts(value),
        Holds::Object => value.is_object(),
        Holds::Objects => value
            .as_array()
            .is_some_and(|items| items.len() <= LIST_MAX && items.iter().all(Value::is_object)),
        Holds::Flag => value.is_boolean(),
        Holds::Whole => value.is_i64(),
    };
    if good {
        return Ok(());
    }
    let name = field.name;
    Err(Failure::bad(format!("{name} is not valid"))
        .with_detail(format!("expected {}", expected(field.holds))))
}

/// Reads a body: type, length and time are checked before a byte is parsed.
///
/// # Errors
/// It is not what the route takes.
pub(super) async fn read(
    shape: &BodyShape,
    open: bool,
    headers: &HeaderMap,
    body: HttpBody,
) -> Result<Body, Failure> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let is_json = content_type
        .to_ascii_lowercase()
        .contains("application/json");
    if !is_json && !matches!(shape, BodyShape::Optional(_)) {
        let message = "unsupported content type; expected application/json";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let most = match shape {
        BodyShape::List(_) => LIST_BYTES_MAX,
        _ if open => OPEN_BYTES_MAX,
        BodyShape::None | BodyShape::Object(_) | BodyShape::Optional(_) => BODY_BYTES_MAX,
    };
    shaped(shape, &collect(body, most).await?)
}

/// A body's bytes as the route wants them.
///
/// # Errors
/// They are no JSON, nested too deeply, or not what the route takes.
pub(super) fn shaped(shape: &BodyShape, bytes: &[u8]) -> Result<Body, Failure> {
    match shape {
        BodyShape::None => Ok(Body::None),
        BodyShape::Optional(_) if bytes.iter().all(u8::is_ascii_whitespace) => {
            Ok(Body::One(Fields::default()))
        }
        BodyShape::Object(fields) | BodyShape::Optional(fields) => {
            let object = Fields(parse(bytes)?);
            object.check(fields)?;
            Ok(Body::One(object))
        }
        BodyShape::List(fields) => {
            let list: Vec<Map<String, Value>> = parse(bytes)?;
            if list.is_empty() || list.len() > LIST_MAX {
                let message = format!("the list has {} items", list.len());
                return Err(Failure::bad(message).with_detail(format!("expected 1 to {LIST_MAX}")));
            }
            let list: Vec<Fields> = list.into_iter().map(Fields).collect();
            for (at, object) in list.iter().enumerate() {
                object.check(fields).map_err(|failure| Failure {
                    message: format!("item {at}: {}", failure.message),
                    ..failure
                })?;
            }
            Ok(Body::Many(list))
        }
    }
}

async fn collect(body: HttpBody, most: usize) -> Result<Vec<u8>, Failure> {
    let body = Limited::new(body, most).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body)
        .await
        .map_err(|_| {
            let message = "the body did not arrive in 30 seconds";
            Failure::new(StatusCode::REQUEST_TIMEOUT, message)
        })?;
    let collected = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("the body is too long; expected at most {most} bytes");
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        } else {
            Failure::bad("the body could not be read")
        }
    })?;
    Ok(collected.to_bytes().to_vec())
}

fn parse<T: for<'de> serde::Deserialize<'de>>(bytes: &[u8]) -> Result<T, Failure> {
    if is_too_deep(bytes) {
        return Err(Failure::bad("malformed body")
            .with_detail(format!("expected at most {DEPTH_MAX} levels")));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // Where and what kind, never what was sent: it may be a password.
        let kind = match error.classify() {
            serde_json::error::Category::Data => "another type than expected",
            _ => "not JSON",
        };
        let detail = format!("{kind}, line {}, column {}", error.line(), error.column());
        Failure::bad("malformed body").with_detail(detail)
    })
}

/// Whether brackets are nested deeper than allowed, texts left out.
fn is_too_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}
