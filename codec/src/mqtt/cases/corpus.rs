//! The corpus of the fuzz target, made from the table.

use std::path::Path;

use super::{all_legal, all_refused};
use crate::mqtt::ProtocolVersion;

/// Where the fuzz target starts from, and what `tests/corpus.rs` replays: one byte for the
/// version, then the bytes of a connection.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/decode");

fn corpus() -> Vec<(String, Vec<u8>)> {
    let legal = all_legal()
        .into_iter()
        .map(|case| (case.name, case.versions[0], case.bytes));
    let refused = all_refused()
        .into_iter()
        .map(|case| (case.name, case.versions[0], case.bytes));
    let named = |(name, version, bytes): (&str, ProtocolVersion, Vec<u8>)| {
        let word = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        };
        (
            name.chars().map(word).collect(),
            [vec![version as u8], bytes].concat(),
        )
    };
    legal.chain(refused).map(named).collect()
}

#[test]
fn the_corpus_holds_every_case() {
    for (name, bytes) in corpus() {
        let held = std::fs::read(Path::new(CORPUS).join(&name));
        let hint = "run: cargo test -p turnpike-codec write_the_corpus -- --ignored";
        assert_eq!(held.ok(), Some(bytes), "{name}; {hint}");
    }
}

#[test]
#[ignore = "writes the corpus from the table"]
fn write_the_corpus() {
    std::fs::create_dir_all(CORPUS).unwrap();
    for (name, bytes) in corpus() {
        std::fs::write(Path::new(CORPUS).join(name), bytes).unwrap();
    }
}
