//! Operations in any order keep what the session promises: the fuzz target without a fuzzer.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::operations::check;

#[test]
fn t_frm_12_the_corpus_breaks_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/machine");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        for end in 0..=input.len() {
            check(&input[..end]);
        }
        replayed += 1;
    }
    assert!(replayed >= 8, "the corpus is there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_operations_keep_the_invariants(
        input in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        check(&input);
    }
}
