//! Replays the corpus of `fuzz/` without a fuzzer.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../fuzz/fuzz_targets/datagram.rs"]
mod datagram;
#[path = "../fuzz/fuzz_targets/stream.rs"]
mod stream;
#[path = "../fuzz/fuzz_targets/websocket.rs"]
mod websocket;

use std::fs;
use std::path::Path;

#[test]
fn t_frm_12_the_corpus_breaks_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/decode");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        stream::check(&input);
        // Cut anywhere, and with every version in front.
        for end in 0..input.len() {
            stream::check(&input[..end]);
        }
        for version in 0..3 {
            stream::check(&[&[version], &input[1..]].concat());
        }
        replayed += 1;
    }
    assert!(replayed > 200, "the corpus is there");
}

#[test]
fn t_ws_1_the_websocket_corpus_breaks_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/ws");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        websocket::check(&input);
        for end in 0..input.len() {
            websocket::check(&input[..end]);
        }
        for size in [1, 2, 3, 5, 8, 13] {
            websocket::check(&[&[size], &input[1..]].concat());
        }
        replayed += 1;
    }
    assert!(replayed > 20, "the corpus is there");
}

#[test]
fn t_coap_1_the_coap_corpus_breaks_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/coap");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        datagram::check(&input);
        for end in 0..input.len() {
            datagram::check(&input[..end]);
        }
        for at in 0..input.len() {
            for byte in [0, 0x0D, 0x0E, 0x0F, 0xD0, 0xE0, 0xF0, 0xFF] {
                let mut changed = input.clone();
                changed[at] = byte;
                datagram::check(&changed);
            }
        }
        replayed += 1;
    }
    assert!(replayed > 15, "the corpus is there");
}
