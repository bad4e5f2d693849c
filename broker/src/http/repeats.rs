//! Requests with an `Idempotency-Key`: the first is carried out, and those that repeat it get its
//! answer.
//!
//! What is remembered is bounded: keys of one credential, keys of all, bytes of answers. A credential
//! that has too many loses its oldest; when all have too many, requests with a new key are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use authcache::feed::ShownCertificate;
use bytes::Bytes;
use hyper::StatusCode;
use parking_lot::Mutex;
use session::web::Login;
use sha2::{Digest, Sha256};

/// How long an answer is remembered.
pub(crate) const WINDOW: Duration = Duration::from_secs(600);

/// Longest key in bytes.
const KEY_BYTES_MAX: usize = 255;

/// Keys of one credential; of more the oldest is forgotten.
const KEYS_PER_LOGIN_MAX: usize = 1_000;

/// Keys of all credentials, of about 300 bytes each.
const KEYS_MAX: usize = 100_000;

/// Bytes of all answers.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Most bytes that an answer says of one message, and around them.
const BYTES_PER_MESSAGE: usize = 96;

/// A digest under a key of this process: what is remembered holds no credential and no message.
type Print = [u8; 32];

/// What was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) status: StatusCode,
    /// JSON, or nothing.
    pub(crate) body: Option<Bytes>,
}

/// Bounds, to be filled in tests.
#[derive(Clone, Copy)]
struct Bounds {
    per_login: usize,
    keys: usize,
    answer_bytes: usize,
}

/// The requests of the last minutes.
pub(crate) struct Repeats {
    seed: Print,
    bounds: Bounds,
    state: Mutex<State>,
    /// Requests that were refused for want of room.
    refused: AtomicU64,
}

#[derive(Default)]
struct State {
    /// By the print of credential and key.
    entries: HashMap<Print, Entry>,
    /// Their prints by number, so the oldest comes first.
    oldest_first: BTreeMap<u64, Print>,
    /// Numbers of each credential's entries.
    held: HashMap<Print, BTreeSet<u64>>,
    next: u64,
    answer_bytes: usize,
}

struct Entry {
    number: u64,
    login: Print,
    /// What was asked for.
    request: Print,
    began: Instant,
    /// `None` while it is carried out.
    outcome: Option<Outcome>,
    /// Bytes kept free for the answer, then its own.
    answer_bytes: usize,
}

/// What is to be done about a request.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is carried out.
    First(Place),
    /// It was, with this outcome.
    Again(Outcome),
    /// It is being carried out.
    UnderWay,
    /// Its key stands for another request.
    OtherRequest,
    /// Nothing more is remembered now.
    Full,
}

/// The place of a request that is carried out. Dropped without an outcome it is forgotten, so that
/// the next one is carried out.
pub(crate) struct Place {
    repeats: Arc<Repeats>,
    print: Print,
    number: u64,
}

impl Repeats {
    pub(crate) fn new() -> Arc<Repeats> {
        Repeats::bounded(Bounds {
            per_login: KEYS_PER_LOGIN_MAX,
            keys: KEYS_MAX,
            answer_bytes: ANSWER_BYTES_MAX,
        })
    }

    fn bounded(bounds: Bounds) -> Arc<Repeats> {
        let mut seed = Print::default();
        rustls::crypto::aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut seed)
            .expect("the system has random bytes once TLS and the directory came up");
        Arc::new(Repeats {
            seed,
            bounds,
            state: Mutex::default(),
            refused: AtomicU64::new(0),
        })
    }

    /// The key in a header; `None` if it is none.
    pub(crate) fn key(text: &[u8]) -> Option<&[u8]> {
        let printable = text.iter().all(|byte| (b'!'..=b'~').contains(byte));
        (printable && (1..=KEY_BYTES_MAX).contains(&text.len())).then_some(text)
    }

    /// A print of what a request says.
    pub(crate) fn print(&self, parts: &[&[u8]]) -> Print {
        let mut digest = Sha256::new_with_prefix(self.seed);
        for part in parts {
            // With the lengths, no list can be read as another one.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// A print of who asks: by a credential, and by a certificate where TLS knows the peer by it.
    pub(crate) fn who(&self, login: &Login, certificate: Option<&ShownCertificate>) -> Print {
        let shown = certificate.map_or(&[][..], |shown| shown.print.as_bytes());
        self.print(&[login.username.as_bytes(), login.password.as_bytes(), shown])
    }

    /// Begins a request of `messages` messages of `who`, which was found to be right.
    pub(crate) fn begin(
        self: &Arc<Self>,
        login: Print,
        key: &[u8],
        request: Print,
        messages: usize,
        now: Instant,
    ) -> Begun {
        let print = self.print(&[&login, key]);
        let mut state = self.state.lock();
        state.forget_older_than(now);
        if let Some(entry) = state.entries.get(&print) {
            return match &entry.outcome {
                _ if entry.request != request => Begun::OtherRequest,
                None => Begun::UnderWay,
                Some(outcome) => Begun::Again(outcome.clone()),
            };
        }
        let answer_bytes = (messages + 1) * BYTES_PER_MESSAGE;
        let own = state.held.get(&login).map_or(0, BTreeSet::len);
        let room = if own >= self.bounds.per_login {
            state.forget_oldest_of(&login)
        } else {
            state.entries.len() < self.bounds.keys
        };
        if !room || state.answer_bytes + answer_bytes > self.bounds.answer_bytes {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Begun::Full;
        }
        let number = state.next;
        state.next += 1;
        state.answer_bytes += answer_bytes;
        state.oldest_first.insert(number, print);
        state.held.entry(login).or_default().insert(number);
        let entry = Entry {
            number,
            login,
            request,
            began: now,
            outcome: None,
            answer_bytes,
        };
        state.entries.insert(print, entry);
        Begun::First(Place {
            repeats: Arc::clone(self),
            print,
            number,
        })
    }

    /// How many keys are remembered, and how many requests were refused for want of room.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let known = self.state.lock().entries.len();
        (known, self.refused.load(Ordering::Relaxed))
    }
}

impl State {
    fn forget_older_than(&mut self, now: Instant) {
        while let Some((_, print)) = self.oldest_first.first_key_value() {
            let print = *print;
            let entry = &self.entries[&print];
            if now.saturating_duration_since(entry.began) < WINDOW {
                return;
            }
            self.forget(&print);
        }
    }

    /// Makes room among those of one credential; whether it has one that is not under way.
    fn forget_oldest_of(&mut self, login: &Print) -> bool {
        let mut numbers = self.held.get(login).into_iter().flatten();
        let oldest = numbers.find_map(|number| {
            let print = self.oldest_first.get(number)?;
            self.entries.get(print)?.outcome.as_ref().map(|_| *print)
        });
        let Some(print) = oldest else {
            return false;
        };
        self.forget(&print);
        true
    }

    fn forget(&mut self, print: &Print) {
        let Some(entry) = self.entries.remove(print) else {
            return;
        };
        self.answer_bytes -= entry.answer_bytes;
        self.oldest_first.remove(&entry.number);
        if let Some(held) = self.held.get_mut(&entry.login) {
            held.remove(&entry.number);
            if held.is_empty() {
                self.held.remove(&entry.login);
            }
        }
    }
}

impl Place {
    /// Remembers what was answered.
    pub(crate) fn finish(self, outcome: &Outcome) {
        let mut state = self.repeats.state.lock();
        // After a long while it may have been forgotten.
        if let Some(entry) = state.entries.get_mut(&self.print)
            && entry.number == self.number
        {
            let bytes = outcome.body.as_ref().map_or(0, Bytes::len);
            let kept_free = std::mem::replace(&mut entry.answer_bytes, bytes);
            entry.outcome = Some(outcome.clone());
            state.answer_bytes = state.answer_bytes + bytes - kept_free;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.repeats.state.lock();
        let unfinished = state
            .entries
            .get(&self.print)
            .is_some_and(|entry| entry.number == self.number && entry.outcome.is_none());
        if unfinished {
            state.forget(&self.print);
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(repeats: &Repeats, name: &str) -> Print {
        let login = Login {
            username: name.to_owned(),
            password: "secret".to_owned(),
        };
        repeats.who(&login, None)
    }

    fn accepted() -> Outcome {
        Outcome {
            status: StatusCode::ACCEPTED,
            body: Some(Bytes::from_static(b"{}")),
        }
    }

    fn small() -> Arc<Repeats> {
        Repeats::bounded(Bounds {
            per_login: 3,
            keys: 5,
            answer_bytes: 100 * BYTES_PER_MESSAGE,
        })
    }

    /// Carries a request out.
    fn first(repeats: &Arc<Repeats>, who: &str, key: &str, now: Instant) {
        match repeats.begin(asking(repeats, who), key.as_bytes(), [1; 32], 1, now) {
            Begun::First(place) => place.finish(&accepted()),
            other => panic!("{who} {key}: {other:?}"),
        }
    }

    fn again(repeats: &Arc<Repeats>, who: &str, key: &str, now: Instant) -> Begun {
        repeats.begin(asking(repeats, who), key.as_bytes(), [1; 32], 1, now)
    }

    #[test]
    fn repeated_request_gets_the_first_answer_until_the_window_is_over() {
        let (repeats, now) = (small(), Instant::now());
        first(&repeats, "a", "k", now);
        let later = now + WINDOW - Duration::from_millis(1);
        assert!(
            matches!(again(&repeats, "a", "k", later), Begun::Again(outcome) if outcome == accepted())
        );
        let other = repeats.begin(asking(&repeats, "a"), b"k", [2; 32], 1, later);
        assert!(matches!(other, Begun::OtherRequest));
        first(&repeats, "b", "k", later);
        first(&repeats, "a", "k", now + WINDOW);
    }

    #[test]
    fn request_under_way_is_not_carried_out_twice_and_one_without_outcome_is_forgotten() {
        let (repeats, now) = (small(), Instant::now());
        let begun = again(&repeats, "a", "k", now);
        assert!(matches!(again(&repeats, "a", "k", now), Begun::UnderWay));
        drop(begun);
        assert_eq!(repeats.counts(), (0, 0));
        first(&repeats, "a", "k", now);
    }

    #[test]
    fn full_credential_loses_its_oldest_and_a_full_store_refuses_new_keys() {
        let (repeats, now) = (small(), Instant::now());
        for key in ["1", "2", "3", "4"] {
            first(&repeats, "a", key, now);
        }
        assert!(matches!(again(&repeats, "a", "4", now), Begun::Again(_)));
        first(&repeats, "b", "1", now);
        first(&repeats, "b", "2", now);
        assert!(matches!(again(&repeats, "c", "1", now), Begun::Full));
        assert_eq!(repeats.counts(), (5, 1));
        // Its own oldest makes room, so the others keep theirs.
        first(&repeats, "a", "5", now);
        assert!(matches!(again(&repeats, "b", "1", now), Begun::Again(_)));
        first(&repeats, "c", "1", now + WINDOW);
        assert_eq!(repeats.counts(), (1, 1));
    }

    #[test]
    fn credential_whose_requests_are_all_under_way_is_refused_another() {
        let (repeats, now) = (small(), Instant::now());
        let places: Vec<Begun> = ["1", "2", "3"]
            .map(|key| again(&repeats, "a", key, now))
            .into();
        assert!(matches!(again(&repeats, "a", "4", now), Begun::Full));
        drop(places);
        first(&repeats, "a", "4", now);
    }

    #[test]
    fn answers_are_bounded_in_bytes_before_they_are_there() {
        let (repeats, now) = (small(), Instant::now());
        let begin = |key: &[u8], messages| {
            repeats.begin(asking(&repeats, "a"), key, [1; 32], messages, now)
        };
        let large = begin(b"1", 90);
        assert!(matches!(begin(b"2", 11), Begun::Full));
        let Begun::First(place) = large else {
            panic!("{large:?}");
        };
        place.finish(&accepted());
        assert!(matches!(begin(b"2", 98), Begun::First(_)));
    }

    #[test]
    fn keys_are_short_and_printable() {
        assert_eq!(Repeats::key(b"\"8e03978e\""), Some(&b"\"8e03978e\""[..]));
        for bad in [&b""[..], b"a b", b"\xFF", &[b'x'; 256]] {
            assert_eq!(Repeats::key(bad), None);
        }
    }
}
