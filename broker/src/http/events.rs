//! Server-Sent Events: the messages of a subscription as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde_json::json;
use tokio::sync::mpsc;

use crate::http::guest::{Guest, Incoming};

/// Events that wait for a slow reader here; what waits behind them waits in the broker, by its
/// rules for slow receivers.
const WAITING_MAX: usize = 16;

/// Between two signs of life, in both directions.
const ALIVE_EVERY: Duration = Duration::from_secs(30);

/// The body of an answer.
pub(crate) enum Answer {
    /// All of it.
    Whole(Option<Bytes>),
    /// Events until somebody ends.
    Events(mpsc::Receiver<Bytes>),
}

impl Answer {
    pub(crate) fn text(text: impl Into<Bytes>) -> Answer {
        let text = text.into();
        Answer::Whole((!text.is_empty()).then_some(text))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Events(events) => events
                .poll_recv(context)
                .map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Answer::Events(_) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }
}

/// Turns the messages of a guest into events, until the reader is gone or the broker ends it.
pub(crate) fn events(mut guest: Guest, envelopes: bool) -> Answer {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    // It ends with the receiver, which the connection owns.
    tokio::spawn(async move {
        let mut alive = tokio::time::interval(ALIVE_EVERY);
        alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Messages that came stay when another branch is taken; so does a tick.
            let event = tokio::select! {
                message = guest.message() => match message {
                    Ok(message) => event(&message, envelopes),
                    Err(refused) => {
                        let why = refused.0.map_or("the broker is gone", |code| code.name());
                        let last = format!("event: closed\ndata: {why}\n\n");
                        let _ = sender.send(last.into()).await;
                        return;
                    }
                },
                _ = alive.tick() => {
                    if guest.ping().await.is_err() {
                        return;
                    }
                    Bytes::from_static(b": alive\n\n")
                }
                () = sender.closed() => return,
            };
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    Answer::Events(receiver)
}

/// Text as it is; bytes in base64 under the name `binary`; envelopes as JSON.
fn event(message: &Incoming, envelopes: bool) -> Bytes {
    let text = std::str::from_utf8(&message.payload).ok();
    let mut event = String::new();
    if envelopes {
        let mut fields = json!({ "topic": message.topic });
        match text {
            Some(text) => fields["payload"] = text.into(),
            None => {
                fields["payload"] = STANDARD.encode(&message.payload).into();
                fields["encoding"] = "base64".into();
            }
        }
        if let Some(name) = &message.content_type {
            fields["content_type"] = name.as_str().into();
        }
        if message.retain {
            fields["retain"] = true.into();
        }
        event.push_str(&format!("data: {fields}\n"));
    } else if let Some(text) = text {
        // A reader joins the lines again; a lone carriage return would be a line end too.
        for line in text.split(['\n', '\r']) {
            event.push_str("data: ");
            event.push_str(line);
            event.push('\n');
        }
    } else {
        event.push_str("event: binary\ndata: ");
        event.push_str(&STANDARD.encode(&message.payload));
        event.push('\n');
    }
    event.push('\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Incoming {
        Incoming {
            topic: "m/d/c/x".into(),
            payload: payload.to_vec(),
            retain: true,
            content_type: Some("text/plain".into()),
        }
    }

    #[test]
    fn events_hold_text_bytes_and_envelopes() {
        assert_eq!(
            event(&message(b"one\ntwo"), false),
            "data: one\ndata: two\n\n"
        );
        assert_eq!(event(&message(b""), false), "data: \n\n");
        assert_eq!(
            event(&message(&[255]), false),
            "event: binary\ndata: /w==\n\n"
        );
        let envelope = event(&message(b"a\nb"), true);
        let text = std::str::from_utf8(&envelope).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(text.trim().strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(
            json,
            json!({"topic": "m/d/c/x", "payload": "a\nb", "content_type": "text/plain", "retain": true})
        );
    }
}
