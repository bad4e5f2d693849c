//! P10: what an idle connection with one subscription costs, exactly.
//!
//! The allocations of a whole broker in this process are counted, without what an allocator adds
//! to them. Each client has a channel of its own and connects four times, under other Client
//! Identifiers: the first connection brings in what is known of the client, the further ones cost
//! what a connection costs. (Three of them, because what is told of clients once a second is in
//! memory at one end of the count or at neither.)
#![allow(clippy::unwrap_used)]

mod node;

use std::alloc::System;
use std::net::TcpStream;

use codec::mqtt::ProtocolVersion;
use control_api::{ClientWithSecret, Connections, NewChannel, NewClient};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Tables that double have done so shortly before this number, and before four times as many.
const CLIENTS: usize = 1000;
const FURTHER: [&str; 3] = ["second", "third", "fourth"];

/// Bytes; the bar is 640 for the resident memory of the process, with its allocator's slack.
const CONNECTION_MAX: usize = 560;

#[test]
fn idle_connection_with_a_subscription_stays_below_its_bytes() {
    let (node, control, runtime) = node::start();
    let domain = node.demo.domain.to_string();
    let clients: Vec<(ClientWithSecret, String)> = runtime.block_on(async {
        let provision = control.provision();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = NewClient {
                id: None,
                name: String::new(),
                secret: None,
            };
            let client = provision.create_client(&domain, client).await.unwrap();
            let channel = NewChannel {
                id: None,
                name: String::new(),
                route: None,
            };
            let channel = provision.create_channel(&domain, channel).await.unwrap();
            let connections = Connections {
                clients: vec![client.client.id.to_string()],
                channels: vec![channel.id.to_string()],
                types: vec!["subscribe".to_owned()],
            };
            provision.connect(&domain, &connections).await.unwrap();
            clients.push((client, format!("m/{domain}/c/{}", channel.id)));
        }
        clients
    });
    let mut held: Vec<TcpStream> = Vec::with_capacity((1 + FURTHER.len()) * CLIENTS);
    let mut connect_all = |name: &str| {
        for (client, topic) in &clients {
            // As long as a UUID, which is what most devices are called by.
            let client_id = format!("{name}-{}", &client.client.id.to_string()[name.len() + 1..]);
            let username = client.client.id.to_string();
            let version = ProtocolVersion::V311;
            let mut stream =
                node::connect(node.address, &username, &client.secret, &client_id, version);
            node::subscribe(&mut stream, topic, version);
            held.push(stream);
        }
    };
    let before = allocated();
    connect_all("first");
    let known = allocated();
    FURTHER.into_iter().for_each(&mut connect_all);
    let all = (known - before) / CLIENTS;
    let connection = (allocated() - known) / (FURTHER.len() * CLIENTS);
    println!("a connection: {connection} bytes, with what is known of its client {all}");
    assert!(connection <= CONNECTION_MAX, "{connection} bytes");
}

/// Bytes that are allocated now.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}
