//! Passwords that people choose: Argon2id, one at a time, and what was verified is remembered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::clock::{Clock, lock};
use crate::recent::Recent;
use crate::secret::{Pepper, Secret};
use crate::store::users::UserAuth;

/// Logins that may wait for the one hashing thread: 256 × 25 ms is more than anybody waits.
const WAITING_MAX: usize = 256;
/// A verified password is remembered for one to two times this.
const REMEMBERED_MS: u64 = 120_000;
/// Verified passwords remembered: 64 bytes each, 1 MiB.
const REMEMBERED_MAX: usize = 8_192;

/// No answer: too many logins wait, or the hash could not be computed.
#[derive(Debug, Error)]
#[error("passwords cannot be checked now: too many logins are waiting")]
pub(crate) struct Busy;

/// Checks passwords.
pub(crate) struct Passwords {
    /// Hash of a password nobody has, so that an unknown user costs what a known one does.
    dummy: Arc<str>,
    thread: Semaphore,
    waiting: AtomicUsize,
    key: Pepper,
    remembered: Mutex<Recent<Vec<u8>, ()>>,
    clock: Clock,
}

impl Passwords {
    pub(crate) async fn new(clock: Clock) -> Result<Passwords, Busy> {
        let mut passwords = Passwords {
            dummy: "".into(),
            thread: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            key: Pepper::ephemeral(),
            remembered: Mutex::new(Recent::new(REMEMBERED_MS, REMEMBERED_MAX)),
            clock,
        };
        passwords.dummy = passwords.hash(&Secret::random()).await?.into();
        Ok(passwords)
    }

    /// Hashes a new password, 25 ms of one core.
    pub(crate) async fn hash(&self, password: &Secret) -> Result<String, Busy> {
        let password = password.clone();
        let hash = move || {
            let hash = Argon2::default().hash_password(password.reveal().as_bytes());
            hash.map(|hash| hash.to_string()).ok()
        };
        self.run(hash).await?.ok_or(Busy)
    }

    /// Forgets which passwords were verified.
    pub(crate) fn forget(&self) {
        *lock(&self.remembered) = Recent::new(REMEMBERED_MS, REMEMBERED_MAX);
    }

    /// Whether the password is this user's. An unknown user, and one that has no password here, takes
    /// as long as a wrong password.
    pub(crate) async fn verify(
        &self,
        user: Option<&UserAuth>,
        password: &[u8],
    ) -> Result<bool, Busy> {
        let key = user.map(|user| {
            let parts = [
                &user.id.to_bytes()[..],
                &user.credential.to_le_bytes(),
                password,
            ];
            self.key.digest(b"password", &parts).as_bytes().to_vec()
        });
        let now_ms = self.clock.now_ms();
        if let Some(key) = &key
            && lock(&self.remembered).get_mut(key, now_ms).is_some()
        {
            return Ok(true);
        }
        let own = user.map(|user| user.password.as_str());
        let own = own.filter(|hash| PasswordHash::new(hash).is_ok());
        let hash: Arc<str> = own.map_or_else(|| self.dummy.clone(), Arc::from);
        let password = password.to_vec();
        let verify = move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        };
        let right = self.run(verify).await? && own.is_some();
        match key {
            Some(key) if right => {
                lock(&self.remembered).insert(key, (), now_ms);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let waiting = Waiting::enter(&self.waiting).ok_or(Busy)?;
        let permit = self.thread.acquire().await.map_err(|_| Busy)?;
        let result = tokio::task::spawn_blocking(work).await.map_err(|_| Busy);
        drop((permit, waiting));
        result
    }
}

/// A place in the queue, given back whatever happens to the login.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn enter(count: &AtomicUsize) -> Option<Waiting<'_>> {
        let entered = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < WAITING_MAX).then_some(waiting + 1)
        });
        entered.is_ok().then_some(Waiting(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use authcache::{EntityId, Status};
    use std::time::Instant;

    async fn user(passwords: &Passwords, password: &str) -> UserAuth {
        UserAuth {
            id: EntityId::from_u128(1),
            administrator: false,
            password: passwords.hash(&Secret::new(password.into())).await.unwrap(),
            credential: 1,
            status: Status::Enabled,
            tokens_from: 1,
            verified: false,
        }
    }

    #[tokio::test]
    async fn the_right_password_is_verified_and_then_remembered() {
        let passwords = Passwords::new(Clock::start()).await.unwrap();
        let mut user = user(&passwords, "correct horse").await;
        assert!(
            user.password.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{}",
            user.password
        );
        assert!(
            !passwords
                .verify(Some(&user), b"battery staple")
                .await
                .unwrap()
        );
        assert!(
            passwords
                .verify(Some(&user), b"correct horse")
                .await
                .unwrap()
        );
        let hash = std::mem::take(&mut user.password);
        assert!(
            passwords
                .verify(Some(&user), b"correct horse")
                .await
                .unwrap(),
            "from memory"
        );
        user.credential = 2;
        assert!(
            !passwords
                .verify(Some(&user), b"correct horse")
                .await
                .unwrap()
        );
        assert!(hash.len() > 60);
    }

    #[tokio::test]
    async fn an_unknown_user_and_one_without_a_password_cost_what_a_wrong_password_does() {
        let passwords = Passwords::new(Clock::start()).await.unwrap();
        let known = user(&passwords, "correct horse").await;
        let elsewhere = UserAuth {
            password: "-".to_owned(),
            ..user(&passwords, "correct horse").await
        };
        let mut times = [vec![], vec![], vec![]];
        for _ in 0..9 {
            let users = [Some(&known), None, Some(&elsewhere)];
            for (user, times) in users.into_iter().zip(&mut times) {
                let begun = Instant::now();
                assert!(!passwords.verify(user, b"wrong").await.unwrap());
                times.push(begun.elapsed().as_secs_f64());
            }
        }
        let [known, unknown, elsewhere] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            // The fastest: what else the machine does only adds.
            times[0]
        });
        for other in [unknown, elsewhere] {
            assert!(
                (0.5..2.0).contains(&(known / other)),
                "{known} and {other} seconds"
            );
        }
    }
}
