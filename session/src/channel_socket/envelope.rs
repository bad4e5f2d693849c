//! Messages of `turnpike.json.v1`: JSON with topic and payload.
//!
//! To the peer: `{"topic", "payload", "encoding"?, "content_type"?, "retain"?}`, where `encoding` is
//! `base64` for what is no UTF-8; and for each of its own messages with an `id` the answer `{"id",
//! "code"}` with the Reason Code, and `error` if it is one.
//! From the peer: `{"payload", "topic"?, "encoding"?, "content_type"?, "retain"?, "id"?}`; without a
//! topic it goes to the path, and a payload that is no string is passed on as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::mqtt::{Delivery, PacketId, Publish, ReasonCode};
use serde_json::{Map, Value};

use crate::web::{Posted, decode_base64};

/// An envelope of the peer.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) topic: Option<String>,
    payload: Vec<u8>,
    text: bool,
    content_type: Option<String>,
    retain: bool,
    /// Comes back in the answer; null for none.
    pub(super) id: Value,
}

impl Sent {
    /// Reads an envelope; `None` if it is none.
    pub(super) fn read(text: bool, message: &[u8]) -> Option<Sent> {
        if !text {
            return None;
        }
        let Value::Object(mut fields) = serde_json::from_slice(message).ok()? else {
            return None;
        };
        let string = |value: Option<Value>| match value {
            None => Some(None),
            Some(Value::String(text)) => Some(Some(text)),
            Some(_) => None,
        };
        let encoding = string(fields.remove("encoding"))?;
        let (payload, text) = match (fields.remove("payload")?, encoding.as_deref()) {
            (Value::String(text), None | Some("utf8")) => (text.into_bytes(), true),
            (Value::String(text), Some("base64")) => (decode_base64(&text)?, false),
            (other, None) => (other.to_string().into_bytes(), true),
            _ => return None,
        };
        let topic = string(fields.remove("topic"))?;
        let content_type = string(fields.remove("content_type"))?;
        let retain = match fields.remove("retain") {
            None => false,
            Some(Value::Bool(retain)) => retain,
            Some(_) => return None,
        };
        let id = fields.remove("id").unwrap_or(Value::Null);
        let small = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= 4096);
        // What is unknown is a mistake that nobody would notice otherwise.
        let sound = fields.is_empty()
            && small(&topic)
            && small(&content_type)
            && (id.is_null() || id.is_string() || id.is_number())
            && id.as_str().is_none_or(|id| id.len() <= 256)
            && topic
                .as_deref()
                .is_none_or(|topic| !topic.is_empty() && !topic.contains(['+', '#', '\0']));
        sound.then_some(Sent {
            topic,
            payload,
            text,
            content_type: content_type.filter(|name| !name.contains('\0')),
            retain,
            id,
        })
    }

    /// Appends its PUBLISH.
    pub(super) fn publish(&self, topic: &str, id: PacketId, mqtt: &mut Vec<u8>) {
        Posted {
            topic,
            delivery: Delivery::AtLeastOnce(id),
            retain: self.retain,
            text: self.text,
            content_type: self.content_type.as_deref(),
            payload: &self.payload,
        }
        .encode(mqtt);
    }
}

/// A message to the peer.
pub(super) fn received(publish: &Publish<'_>) -> Vec<u8> {
    let mut fields = Map::new();
    fields.insert("topic".to_owned(), publish.topic.into());
    match std::str::from_utf8(publish.payload) {
        Ok(text) => {
            fields.insert("payload".to_owned(), text.into());
        }
        Err(_) => {
            let text = STANDARD.encode(publish.payload);
            fields.insert("payload".to_owned(), text.into());
            fields.insert("encoding".to_owned(), "base64".into());
        }
    }
    if let Some(name) = publish.properties.content_type {
        fields.insert("content_type".to_owned(), name.into());
    }
    if publish.retain {
        fields.insert("retain".to_owned(), true.into());
    }
    Value::Object(fields).to_string().into_bytes()
}

/// The answer to a message with an identifier, or one that was refused.
pub(super) fn answer(id: &Value, code: ReasonCode) -> Option<Vec<u8>> {
    if id.is_null() && !code.is_error() {
        return None;
    }
    let mut fields = Map::new();
    fields.insert("id".to_owned(), id.clone());
    fields.insert("code".to_owned(), code.get().into());
    if code.is_error() {
        fields.insert("error".to_owned(), code.name().into());
    }
    Some(Value::Object(fields).to_string().into_bytes())
}
