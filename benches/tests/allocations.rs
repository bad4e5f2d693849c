//! I4: in the steady state the broker allocates nothing per message.
//!
//! A counting allocator that this workspace need not write itself (it would be `unsafe`): the one
//! of `stats_alloc`, under a whole broker in this process with control, sockets and rights. It
//! counts all threads, so the few allocations of what runs beside the shards are allowed for; one
//! for each message, or for each hundredth, is not. The client side of the test allocates nothing.
#![allow(clippy::unwrap_used)]

mod node;

use std::alloc::System;
use std::io::{Read, Write};

use benches::publishes;
use codec::mqtt::ProtocolVersion;
use control_api::DemoClient;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGES: usize = 20_000;

/// What control and runtime may allocate meanwhile: leases, timers, metrics, and once a second what
/// clients did, which is written to the database. One for each burst of 16 would be more.
const BESIDE: usize = MESSAGES / 20;

#[test]
fn steady_state_of_qos0_allocates_nothing_per_message() {
    let (node, _control, _runtime) = node::start();
    let (address, demo) = (node.address, &node.demo);
    let connect = |client: &DemoClient, client_id, version| {
        let username = client.id.to_string();
        node::connect(address, &username, &client.secret, client_id, version)
    };
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for subtopic in ["", "/press/4/temp"] {
            let topic = format!("m/{}/c/{}{subtopic}", demo.domain, demo.channel);
            let mut subscriber = connect(&demo.clients[0], "subscriber", version);
            node::subscribe(&mut subscriber, &topic, version);
            let mut publisher = connect(&demo.clients[1], "publisher", version);
            let frames = publishes(version, &topic, 64, 16);
            let mut received = vec![0; frames.len()];
            for burst in [1, 16] {
                let sent = &frames[..frames.len() / 16 * burst];
                let received = &mut received[..sent.len()];
                let mut exchange = |count: usize| {
                    for _ in 0..count {
                        publisher.write_all(sent).unwrap();
                        subscriber.read_exact(received).unwrap();
                        assert!(sent == received, "a frame leaves as it came");
                    }
                };
                exchange(500);
                let region = Region::new(ALLOCATOR);
                exchange(MESSAGES / burst);
                let change = region.change();
                let count = change.allocations + change.reallocations;
                assert!(
                    count < BESIDE,
                    "{count} allocations for {MESSAGES} messages, {version:?}, bursts of {burst}, {topic}"
                );
            }
        }
    }
}
