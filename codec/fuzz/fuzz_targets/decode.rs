//! Raw bytes through the decoder. Run with `cargo +nightly fuzz run decode` in `codec/`.
#![no_main]

mod stream;

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream::check(input));
