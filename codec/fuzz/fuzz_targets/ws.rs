//! Raw bytes as a WebSocket client sends them. Run with `cargo +nightly fuzz run ws` in `codec/`.
#![no_main]

mod websocket;

libfuzzer_sys::fuzz_target!(|input: &[u8]| websocket::check(input));
