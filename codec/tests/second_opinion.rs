//! A second opinion on WebSocket traffic: tokio-websockets reads the same bytes.
#![allow(clippy::unwrap_used, missing_docs)]

use codec::ws::{Event, Head, Opcode, Receiver, ReceiverLimits, Role, unmask};
use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::AsyncWriteExt;
use tokio_websockets::{Limits, ServerBuilder};

/// What a server sees.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close,
}

/// What we see, and whether we refuse the stream in the end.
fn ours(mut input: Vec<u8>) -> (Vec<Seen>, bool) {
    let limits = ReceiverLimits {
        frame_bytes: u64::MAX,
        message_bytes: u64::MAX,
        fragments: u32::MAX,
    };
    let mut receiver = Receiver::new(Role::Server, limits);
    let (mut seen, mut message, mut at) = (Vec::new(), Vec::new(), 0);
    while at < input.len() {
        let Ok((used, event)) = receiver.next(&mut input[at..]) else {
            return (seen, true);
        };
        match event {
            Some(Event::Data { range, text, end }) => {
                message.extend_from_slice(&input[at..][range]);
                if end {
                    let message = std::mem::take(&mut message);
                    seen.push(if text {
                        Seen::Text(message)
                    } else {
                        Seen::Binary(message)
                    });
                }
            }
            Some(Event::Ping) => seen.push(Seen::Ping(receiver.control().to_vec())),
            Some(Event::Pong) => seen.push(Seen::Pong(receiver.control().to_vec())),
            Some(Event::Close(_)) => {
                seen.push(Seen::Close);
                return (seen, false);
            }
            None => {}
        }
        at += used;
    }
    (seen, false)
}

/// What the other implementation sees, and whether it complains.
async fn theirs(bytes: Vec<u8>) -> (Vec<Seen>, bool) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut stream = ServerBuilder::new()
        .limits(Limits::unlimited())
        .serve(server);
    client.write_all(&bytes).await.unwrap();
    client.shutdown().await.unwrap();
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
        } else if message.is_ping() {
            seen.push(Seen::Ping(payload));
        } else if message.is_pong() {
            seen.push(Seen::Pong(payload));
        } else {
            seen.push(Seen::Close);
            return (seen, false);
        }
    }
    (seen, false)
}

/// A frame that is well formed by itself; where it stands it may be forbidden.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop::sample::select(vec![
        Opcode::Continuation,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Close,
        Opcode::Ping,
        Opcode::Pong,
    ]);
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..140),
        "\\PC{0,40}".prop_map(String::into_bytes),
    ];
    (any::<bool>(), opcode, any::<[u8; 4]>(), payload).prop_map(
        |(fin, opcode, key, mut payload)| {
            if opcode.is_control() {
                payload.truncate(125);
            }
            let mut out = Vec::new();
            let head = Head {
                fin: fin || opcode.is_control(),
                opcode,
                mask: Some(key),
                payload_len: payload.len() as u64,
            };
            head.write(&mut out);
            let start = out.len();
            out.extend_from_slice(&payload);
            unmask(&mut out[start..], key, 0);
            out
        },
    )
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
            let (seen, refused) = ours(bytes.clone());
            let (others, complained) = runtime.block_on(theirs(bytes));
            prop_assert_eq!(seen, others);
            // A stream that just ends may be an error there; what is refused here never passes there.
            prop_assert!(complained || !refused);
            Ok(())
        })
        .unwrap();
}
