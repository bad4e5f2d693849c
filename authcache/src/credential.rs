//! Credentials that control has verified, as keyed digests, so that a reconnect need not ask again.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::index::PrincipalIndex;

type Digest = [u8; 32];

/// Verified credentials. Nothing in it is good for anything outside this process: the key is
/// random and never leaves it.
///
/// Bounded: `capacity` digests of about 120 bytes with their bookkeeping. When full, the oldest
/// is forgotten, and its owner's next CONNECT asks control.
pub struct Credentials {
    key: [u8; 32],
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    verified: HashMap<Digest, PrincipalIndex, RandomState>,
    /// Order of arrival. May name digests that were forgotten meanwhile.
    oldest_first: VecDeque<Digest>,
    /// Held principals: their credential generation and their digests.
    holders: HashMap<PrincipalIndex, Holder, RandomState>,
}

#[derive(Debug, Default)]
struct Holder {
    generation: u64,
    digests: Vec<Digest>,
}

impl Credentials {
    pub(crate) fn new(capacity: usize) -> Self {
        let mut key = [0; 32];
        // Without randomness of the system there is no secrecy at all; this is at start only.
        getrandom::fill(&mut key).expect("the system gives random bytes");
        Self {
            key,
            capacity: capacity.max(1),
            state: Mutex::default(),
        }
    }

    /// Who was verified with exactly this user name and password, and still may be.
    #[must_use]
    pub fn check(&self, username: Option<&str>, password: Option<&[u8]>) -> Option<PrincipalIndex> {
        // The keyed digest is all that is compared: its timing tells nothing of the password.
        let digest = self.digest(username, password);
        self.state().verified.get(&digest).copied()
    }

    /// Control verified these for `who` when its credential generation was `generation`. Ignored if
    /// the generation has changed since, or the principal is not held any more.
    pub fn remember(
        &self,
        username: Option<&str>,
        password: Option<&[u8]>,
        who: PrincipalIndex,
        generation: u64,
    ) {
        let digest = self.digest(username, password);
        let mut state = self.state();
        let Some(holder) = state.holders.get_mut(&who) else {
            return;
        };
        if holder.generation != generation || holder.digests.contains(&digest) {
            return;
        }
        holder.digests.push(digest);
        if let Some(former) = state.verified.insert(digest, who) {
            // The same words now mean somebody else.
            state.detach(former, &digest);
        } else {
            state.oldest_first.push_back(digest);
        }
        while state.oldest_first.len() > self.capacity {
            state.drop_oldest();
        }
    }

    /// Number of credentials remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().verified.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The principal is held with this generation; digests of another generation are forgotten.
    pub(crate) fn hold(&self, who: PrincipalIndex, generation: u64) {
        let mut state = self.state();
        let holder = state.holders.entry(who).or_default();
        if holder.generation != generation {
            holder.generation = generation;
            state.forget_digests(who);
        }
    }

    /// The principal may not come back with what it had, but stays held.
    pub(crate) fn forget(&self, who: PrincipalIndex) {
        self.state().forget_digests(who);
    }

    /// The principal is not held any more.
    pub(crate) fn release(&self, who: PrincipalIndex) {
        let mut state = self.state();
        state.forget_digests(who);
        state.holders.remove(&who);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each operation leaves the state whole at every point where it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digest(&self, username: Option<&str>, password: Option<&[u8]>) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes any key length");
        for part in [username.map(str::as_bytes), password] {
            // Absent and empty differ, and no pair can be read as another pair.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            mac.update(&length.to_le_bytes());
            mac.update(part.unwrap_or_default());
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn drop_oldest(&mut self) {
        let Some(digest) = self.oldest_first.pop_front() else {
            return;
        };
        if let Some(who) = self.verified.remove(&digest) {
            self.detach(who, &digest);
        }
    }

    fn detach(&mut self, who: PrincipalIndex, digest: &Digest) {
        if let Some(holder) = self.holders.get_mut(&who) {
            holder.digests.retain(|held| held != digest);
        }
    }

    fn forget_digests(&mut self, who: PrincipalIndex) {
        let Some(holder) = self.holders.get_mut(&who) else {
            return;
        };
        for digest in std::mem::take(&mut holder.digests) {
            self.verified.remove(&digest);
        }
        // Names of forgotten digests are few; drop them when they outweigh the rest.
        if self.oldest_first.len() > 2 * self.verified.len() + 64 {
            let verified = &self.verified;
            self.oldest_first
                .retain(|digest| verified.contains_key(digest));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const WHO: PrincipalIndex = PrincipalIndex::new(5);

    #[test]
    fn remembered_credential_is_recognised_until_its_generation_changes() {
        let credentials = Credentials::new(10);
        credentials.hold(WHO, 1);
        credentials.remember(Some("device"), Some(b"secret"), WHO, 1);
        assert_eq!(
            credentials.check(Some("device"), Some(b"secret")),
            Some(WHO)
        );
        assert_eq!(credentials.check(Some("device"), Some(b"Secret")), None);
        assert_eq!(credentials.check(Some("devices"), Some(b"ecret")), None);
        assert_eq!(credentials.check(None, Some(b"secret")), None);
        credentials.hold(WHO, 2);
        assert_eq!(credentials.check(Some("device"), Some(b"secret")), None);
    }

    #[test]
    fn answer_that_arrives_after_the_change_is_not_remembered() {
        let credentials = Credentials::new(10);
        credentials.hold(WHO, 2);
        credentials.remember(Some("device"), Some(b"old"), WHO, 1);
        assert!(credentials.is_empty());
        credentials.release(WHO);
        credentials.remember(Some("device"), Some(b"new"), WHO, 2);
        assert!(credentials.is_empty());
    }

    #[test]
    fn absent_and_empty_passwords_differ() {
        let credentials = Credentials::new(10);
        credentials.hold(WHO, 0);
        credentials.remember(None, None, WHO, 0);
        assert_eq!(credentials.check(None, None), Some(WHO));
        assert_eq!(credentials.check(Some(""), None), None);
        assert_eq!(credentials.check(None, Some(b"")), None);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let credentials = Credentials::new(3);
        credentials.hold(WHO, 0);
        for word in ["a", "b", "c", "d"] {
            credentials.remember(Some(word), None, WHO, 0);
        }
        assert_eq!(credentials.len(), 3);
        assert_eq!(credentials.check(Some("a"), None), None);
        assert_eq!(credentials.check(Some("d"), None), Some(WHO));
        for round in 0..1000 {
            credentials.remember(Some(&round.to_string()), None, WHO, 0);
            credentials.forget(WHO);
        }
        assert!(credentials.is_empty());
        assert!(credentials.state().oldest_first.len() <= 65);
    }

    #[test]
    fn debug_output_shows_no_password() {
        let credentials = Credentials::new(3);
        credentials.hold(WHO, 0);
        credentials.remember(Some("device"), Some(b"hunter2"), WHO, 0);
        let text = format!("{credentials:?}") + &format!("{:?}", credentials.state());
        assert!(!text.contains("hunter2"));
    }
}
