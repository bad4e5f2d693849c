//! Replays the committed fuzz corpora, so that each finding stays found without a fuzzer.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../fuzz/cases.rs"]
mod cases;

use std::path::Path;

fn replay(target: &str, case: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        println!("{}", file.display());
        case(&std::fs::read(file).unwrap());
    }
}

#[test]
fn topic_corpus_replays_clean() {
    replay("topic", cases::topic);
}

#[test]
fn subscriptions_corpus_replays_clean() {
    replay("subscriptions", cases::subscriptions);
}

#[test]
fn retained_corpus_replays_clean() {
    replay("retained", cases::retained);
}
