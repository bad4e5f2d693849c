//! A client, a broker machine and virtual time: what the machine promises, statement by statement.
//!
//! `node` drives machines as a shard does, with the real gate and a naive router; `client` is a
//! model of the other side; `link` cuts their connection at any byte.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "pair/client.rs"]
mod client;
#[path = "pair/node.rs"]
mod node;
#[path = "../fuzz/fuzz_targets/operations.rs"]
mod operations;
#[path = "pair/world.rs"]
mod world;

#[path = "pair/acks.rs"]
mod acks;
#[path = "pair/aliases.rs"]
mod aliases;
#[path = "pair/auth.rs"]
mod auth;
#[path = "pair/connack.rs"]
mod connack;
#[path = "pair/connect.rs"]
mod connect;
#[path = "pair/errors.rs"]
mod errors;
#[path = "pair/fuzzed.rs"]
mod fuzzed;
#[path = "pair/link.rs"]
mod link;
#[path = "pair/outgoing.rs"]
mod outgoing;
#[path = "pair/properties.rs"]
mod properties;
#[path = "pair/publish.rs"]
mod publish;
#[path = "pair/resume.rs"]
mod resume;
#[path = "pair/split.rs"]
mod split;
#[path = "pair/subscribe.rs"]
mod subscribe;
#[path = "pair/wills.rs"]
mod wills;
