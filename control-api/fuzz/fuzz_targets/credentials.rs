//! Tokens of all kinds. Run with `cargo +nightly fuzz run credentials` in `control-api/`.
#![no_main]

use std::sync::LazyLock;

use control_api::fuzzing::Credentials;

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(Credentials::new);

libfuzzer_sys::fuzz_target!(|input: &[u8]| CREDENTIALS.check(input));
