-- Invitations of addresses that nobody is known to have.
CREATE TABLE mailed_invitations (
    domain_id BLOB NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    email TEXT NOT NULL,
    invited_by BLOB NOT NULL,
    role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    -- Keyed hash of the token that was mailed.
    digest BLOB NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (domain_id, email)
);
CREATE INDEX mailed_invitations_by_email ON mailed_invitations (email);
CREATE INDEX mailed_invitations_by_role ON mailed_invitations (role_id);
