//! Certificates of clients, as brokers ask for their owners.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::EntityId;

/// Digest of a whole certificate. Issuer and serial number would not do: whoever signs his own
/// certificate writes there what he likes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CertificatePrint([u8; 32]);

impl CertificatePrint {
    /// Of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> CertificatePrint {
        CertificatePrint(Sha256::digest(certificate).into())
    }

    /// Its bytes, as they are kept.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CertificatePrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(8) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A certificate that a client showed and a broker verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownCertificate {
    /// The client whose id is its name.
    pub named: Option<EntityId>,
    /// Which certificate it is.
    pub print: CertificatePrint,
    /// The client that the peer says it is, if it says anything: another one is refused.
    pub claimed: Option<EntityId>,
}
