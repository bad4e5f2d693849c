//! Certificates of clients, as brokers ask for their owners.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::EntityId;

/// Issuer and serial number of a certificate: what no two certificates share (RFC 5280, 4.1.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CertificatePrint([u8; 32]);

impl CertificatePrint {
    /// Of an issuer's name in DER and a serial number.
    #[must_use]
    pub fn new(issuer: &[u8], serial: &[u8]) -> CertificatePrint {
        let mut digest = Sha256::new();
        // With its length, no other pair reads the same.
        digest.update((issuer.len() as u64).to_le_bytes());
        digest.update(issuer);
        digest.update(serial);
        CertificatePrint(digest.finalize().into())
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
    /// Its issuer and serial number.
    pub print: CertificatePrint,
    /// The client that the peer says it is, if it says anything: another one is refused.
    pub claimed: Option<EntityId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_and_serial_are_told_apart() {
        let print = CertificatePrint::new(b"issuer", b"1");
        assert_eq!(print, CertificatePrint::new(b"issuer", b"1"));
        assert_ne!(print, CertificatePrint::new(b"issuer", b"2"));
        assert_ne!(print, CertificatePrint::new(b"issue", b"r1"));
    }
}
