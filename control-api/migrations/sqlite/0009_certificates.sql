-- Certificates by which clients are known where they show one.
CREATE TABLE client_certificates (
    -- Digest of issuer and serial number (`authcache::feed::CertificatePrint`).
    print BLOB NOT NULL PRIMARY KEY,
    client_id BLOB NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    -- The serial number, as it is written.
    serial TEXT NOT NULL,
    -- The certificate in DER.
    certificate BLOB NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX client_certificates_client ON client_certificates (client_id, created_at, print);
