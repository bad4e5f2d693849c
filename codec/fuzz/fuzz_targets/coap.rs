//! CoAP datagrams.
#![no_main]

mod datagram;

libfuzzer_sys::fuzz_target!(|input: &[u8]| datagram::check(input));
