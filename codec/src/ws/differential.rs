//! A second opinion: tokio-websockets reads the same bytes.

use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::AsyncWriteExt;
use tokio_websockets::{Limits, ServerBuilder};

use crate::ws::Role;
use crate::ws::autobahn::{LIMITS, Seen, receive};
use crate::ws::properties::any_frame;

/// What the other implementation sees of a client's bytes, up to the end or its first complaint.
async fn other(bytes: Vec<u8>) -> (Vec<Seen>, bool) {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let mut stream = ServerBuilder::new()
        .limits(Limits::unlimited())
        .serve(theirs);
    ours.write_all(&bytes).await.unwrap();
    ours.shutdown().await.unwrap();
    let mut seen = Vec::new();
    while let Some(next) = stream.next().await {
        let Ok(message) = next else {
            return (seen, true);
        };
        let payload = message.as_payload().to_vec();
        if message.is_text() {
            seen.push(Seen::Text(payload));
        } else if message.is_binary() {
            seen.push(Seen::Binary(payload));
        } else if message.is_close() {
            seen.push(Seen::Close(None));
            return (seen, false);
        } else if message.is_ping() {
            seen.push(Seen::Ping(payload));
        } else if message.is_pong() {
            seen.push(Seen::Pong(payload));
        }
    }
    (seen, false)
}

#[test]
fn both_see_the_same_messages_and_refuse_the_same_streams() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config::with_cases(2_000));
    let streams = prop::collection::vec(any_frame(), 0..8);
    runner
        .run(&streams, |frames| {
            let bytes = frames.concat();
            let mut ours = receive(Role::Server, LIMITS, &[&bytes]);
            let refused = matches!(ours.last(), Some(Seen::Violation(_)));
            if refused {
                ours.pop();
            }
            for seen in &mut ours {
                if let Seen::Close(code) = seen {
                    *code = None;
                }
            }
            let (theirs, complained) = runtime.block_on(other(bytes));
            // They look at text once the message is whole and we at its first byte, so a message
            // that is cut is refused here and unfinished there; a stream that just ends is an error
            // there and nothing here.
            prop_assert_eq!(&ours, &theirs);
            prop_assert!(complained || !refused || ours.len() == theirs.len());
            Ok(())
        })
        .unwrap();
}
