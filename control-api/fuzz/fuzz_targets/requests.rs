//! Bodies and queries of every route. Run with `cargo +nightly fuzz run requests` in `control-api/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| control_api::fuzzing::check_request(input));
