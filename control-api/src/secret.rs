//! Secrets: how they are made, kept, compared, and kept out of logs.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use authcache::EntityId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::model::Time;

/// A secret in the clear, on its way to the one person who may see it once.
///
/// Neither Debug nor Display shows it. Serialising it does: only answers that show a new secret
/// contain one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// 256 random bits in 43 URL-safe characters, of which the first is a letter or digit: a
    /// command line would take a leading '-' for a flag.
    #[must_use]
    pub fn random() -> Secret {
        loop {
            let text = URL_SAFE_NO_PAD.encode(random::<32>());
            if text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
                return Secret(text);
            }
        }
    }

    /// Takes a secret that somebody else made.
    #[must_use]
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The characters. The one way to them, so that it can be searched for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Keyed digest of a secret, as it is stored and compared.
#[derive(Clone, Copy)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Compares in constant time; bytes of another length are never equal.
    pub(crate) fn matches(&self, stored: &[u8]) -> bool {
        self.0.as_slice().ct_eq(stored).into()
    }
}

/// A key that lives in a file beside the database, so that neither alone is of use.
pub(crate) struct Pepper([u8; 32]);

impl Pepper {
    /// Reads the pepper; makes it first if `fresh`, that is if no database depends on it yet.
    pub(crate) fn open(path: &Path, fresh: bool) -> io::Result<Pepper> {
        if fresh && !path.exists() {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(&random::<32>())?;
            file.sync_all()?;
        }
        let mut bytes = Vec::new();
        OpenOptions::new()
            .read(true)
            .open(path)?
            .take(33)
            .read_to_end(&mut bytes)?;
        let bytes = bytes
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "expected 32 bytes"))?;
        Ok(Pepper(bytes))
    }

    /// A key that dies with the process.
    pub(crate) fn ephemeral() -> Pepper {
        Pepper(random())
    }

    /// Digest of a device's secret. The domain is part of it: equal secrets in two domains are
    /// unrelated.
    pub(crate) fn device_secret(&self, domain: EntityId, secret: &[u8]) -> Digest {
        self.digest(b"device secret", &[&domain.to_bytes(), secret])
    }

    /// Digest of anything else, kept apart by its label. Parts but the last have a fixed length.
    pub(crate) fn digest(&self, label: &'static [u8], parts: &[&[u8]]) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)
            .expect("HMAC-SHA-256 takes keys of every length");
        mac.update(&(label.len() as u64).to_le_bytes());
        mac.update(label);
        for part in parts {
            mac.update(part);
        }
        Digest(mac.finalize().into_bytes().into())
    }
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .expect("the operating system gives random bytes once it has booted");
    bytes
}

/// A new random id (UUID version 4).
pub(crate) fn random_id() -> EntityId {
    EntityId::from_bytes(uuid::Uuid::new_v4().into_bytes())
}

/// An id for a new object: a UUID of version 4 like all others, of which the first 48 bits are the
/// time in milliseconds. Objects that are made together stand together in every index by id.
pub(crate) fn new_id(now: Time) -> EntityId {
    let mut bytes = random_id().to_bytes();
    let milliseconds = now.micros() / 1_000;
    bytes[..6].copy_from_slice(&milliseconds.to_be_bytes()[2..]);
    EntityId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_has_256_bits_in_url_safe_characters_and_no_debug() {
        let secret = Secret::random();
        assert_eq!(secret.reveal().len(), 43);
        assert!(
            secret
                .reveal()
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        );
        assert_ne!(secret, Secret::random());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn ids_of_objects_are_in_the_order_of_their_time_and_of_version_4() {
        let at = |micros| new_id(Time::from_micros(micros));
        let ids = [at(1_700_000_000_000_000), at(1_700_000_000_001_000)];
        assert!(ids[0] < ids[1]);
        assert_ne!(at(5), at(5));
        for id in ids {
            let id = uuid::Uuid::from_bytes(id.to_bytes());
            assert_eq!(
                (id.get_version_num(), id.get_variant()),
                (4, uuid::Variant::RFC4122)
            );
        }
    }

    #[test]
    fn the_pepper_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pepper");
        assert!(
            Pepper::open(&path, false).is_err(),
            "a lost pepper is not replaced"
        );
        let made = Pepper::open(&path, true).unwrap();
        let read = Pepper::open(&path, true).unwrap();
        assert_eq!(made.0, read.0);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"short").unwrap();
        assert!(Pepper::open(&path, true).is_err());
    }

    #[test]
    fn digests_differ_by_domain_secret_and_label() {
        let pepper = Pepper::ephemeral();
        let (a, b) = (EntityId::from_u128(1), EntityId::from_u128(2));
        let digest = pepper.device_secret(a, b"secret");
        assert!(digest.matches(pepper.device_secret(a, b"secret").as_bytes()));
        assert!(!digest.matches(pepper.device_secret(b, b"secret").as_bytes()));
        assert!(!digest.matches(pepper.device_secret(a, b"Secret").as_bytes()));
        let other = pepper.digest(b"password", &[&a.to_bytes(), b"secret"]);
        assert!(!digest.matches(other.as_bytes()));
        assert!(!digest.matches(&[]));
    }
}
