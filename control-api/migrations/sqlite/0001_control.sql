-- Ids are 16-byte blobs, times microseconds since 1970, states and rights small integers
-- (`store/rows.rs` says which). Portable SQL: `migrations/postgres` will differ in types only.

CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('revision', 0), ('incarnation', 0);

CREATE TABLE node (
    id BLOB NOT NULL PRIMARY KEY
);

CREATE TABLE users (
    id BLOB NOT NULL PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    email TEXT UNIQUE,
    administrator INTEGER NOT NULL,
    password TEXT NOT NULL,
    credential BIGINT NOT NULL,
    status INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT
);

CREATE TABLE domains (
    id BLOB NOT NULL PRIMARY KEY,
    route TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    status INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT
);

CREATE TABLE channels (
    id BLOB NOT NULL PRIMARY KEY,
    domain_id BLOB NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    route TEXT,
    name TEXT NOT NULL,
    status INTEGER NOT NULL,
    open INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    UNIQUE (domain_id, route)
);

CREATE TABLE clients (
    id BLOB NOT NULL PRIMARY KEY,
    domain_id BLOB NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- Keyed hash of the secret; none for the client that stands for peers without credentials.
    secret_digest BLOB,
    anonymous INTEGER NOT NULL,
    credential BIGINT NOT NULL,
    status INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    UNIQUE (domain_id, secret_digest)
);

CREATE TABLE connections (
    client_id BLOB NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    channel_id BLOB NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    rights INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (client_id, channel_id)
);
CREATE INDEX connections_by_channel ON connections (channel_id);

-- What was committed, in order; `changes` is a list in the feed's encoding.
CREATE TABLE outbox (
    revision BIGINT NOT NULL PRIMARY KEY,
    changes BLOB NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE signing_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    public_key BLOB NOT NULL,
    -- Sealed with a key derived from the pepper, so that a copy of the database signs nothing.
    private_key BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
);
