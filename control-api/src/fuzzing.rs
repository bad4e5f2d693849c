//! What has to hold for any bytes that somebody sends as a credential or as a request's body and
//! query. The fuzz targets feed it; a test replays their corpus and random bytes.

use authcache::EntityId;

use crate::api;
use crate::model::Time;
use crate::pat;
use crate::token::{Tokens, ephemeral};

/// Signs tokens with a key of its own, so that no input can hold a good one.
pub struct Credentials {
    tokens: Tokens,
    good: Vec<u8>,
}

impl Credentials {
    /// A fresh key.
    ///
    /// # Panics
    /// The system gives no random bytes.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it may panic")]
    #[expect(clippy::expect_used, reason = "only fuzz targets and tests call it")]
    pub fn new() -> Credentials {
        let tokens = ephemeral::tokens().expect("random bytes");
        let issued = tokens.issue(&ephemeral::login(true), Time::now());
        let good = issued.expect("a key that signs").access;
        let good = good.reveal().as_bytes().to_vec();
        Credentials { tokens, good }
    }

    /// Checks a credential: `input` itself, and a good token that `input` was laid over.
    ///
    /// # Panics
    /// A promise is broken.
    pub fn check(&self, input: &[u8]) {
        self.refuses(input);
        // Pairs of place and byte.
        let mut altered = self.good.clone();
        for pair in input.chunks_exact(3) {
            let at = usize::from(u16::from_be_bytes([pair[0], pair[1]])) % altered.len();
            altered[at] = pair[2];
        }
        if altered == self.good {
            assert!(self.tokens.verify_access(&altered).is_ok());
        } else {
            self.refuses(&altered);
        }
        if let Some((user, id, part)) = pat::parse(input) {
            assert!(pat::is_pat_like(input));
            assert!(input.ends_with(part), "the random part is the end");
            assert_eq!(EntityId::from_bytes(user.to_bytes()), user);
            assert_eq!(EntityId::from_bytes(id.to_bytes()), id);
        }
    }

    fn refuses(&self, token: &[u8]) {
        assert!(self.tokens.verify_access(token).is_err());
        assert!(self.tokens.verify_refresh(token).is_err());
    }
}

/// Reads `input` as the body and as the query of every route.
///
/// # Panics
/// A promise is broken.
pub fn check_request(input: &[u8]) {
    api::check_bytes(input);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn replay(target: &str, check: impl Fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut files = 0;
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0, "the corpus of {target} is empty");
    }

    #[test]
    fn the_corpus_of_credentials_keeps_every_promise() {
        let credentials = Credentials::new();
        replay("credentials", |input| credentials.check(input));
    }

    #[test]
    fn the_corpus_of_requests_keeps_every_promise() {
        replay("requests", check_request);
    }

    proptest! {
        #[test]
        fn random_credentials_are_refused(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            thread_local! {
                static CREDENTIALS: Credentials = Credentials::new();
            }
            CREDENTIALS.with(|credentials| credentials.check(&input));
        }

        #[test]
        fn random_requests_are_read_or_refused(
            input in "[\\[\\]{}\":,a-z0-9\\\\%&=+. ]{0,200}"
        ) {
            check_request(input.as_bytes());
        }
    }
}
