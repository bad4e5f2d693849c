//! The binary over real sockets, with two shards: what no test inside one crate can show.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test ends at the first surprise"
)]

mod authentication;
mod broker;
mod certificates;
mod channel_socket;
mod client;
mod coap;
mod coaps;
mod doors;
mod events;
mod handshakes;
mod http;
mod load;
mod matrix;
mod open;
#[path = "../../../control-api/src/tests/postgres.rs"]
mod postgres;
mod postgres_store;
mod quic;
mod retained;
mod revocation;
mod roles;
mod routing;
mod rumqttc_client;
mod sessions;
mod shared;
mod storm;
mod telemetry;
mod throttled;
mod tls;
mod websocket;
