//! Operations on a machine. Run with `cargo +nightly fuzz run machine` in `session/`.
#![no_main]
#![allow(dead_code, missing_docs)]

#[path = "../../tests/pair/client.rs"]
mod client;
#[path = "../../tests/pair/node.rs"]
mod node;
mod operations;
#[path = "../../tests/pair/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|input: &[u8]| operations::check(input));
