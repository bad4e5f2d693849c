-- Ids are 16 bytes, times microseconds since 1970, states and rights small integers (`store/rows.rs`
-- says which); all integers are wide. Texts are compared byte by byte, as SQLite does. Texts that hold
-- JSON are written by control alone. `mask` columns are sets of verbs (`grant/verb.rs` says which bit
-- is which).

CREATE TABLE counters (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
-- Revision 0 is what a broker has that was told nothing; an empty installation is revision 1.
INSERT INTO counters (name, value) VALUES ('revision', 1), ('incarnation', 0);
-- Whether brokers follow a control: 1 from its start to its orderly end.
INSERT INTO counters (name, value) VALUES ('followed', 0);

CREATE TABLE node (
    id BYTEA NOT NULL PRIMARY KEY
);

CREATE TABLE users (
    id BYTEA NOT NULL PRIMARY KEY,
    username TEXT COLLATE "C" NOT NULL UNIQUE,
    email TEXT COLLATE "C" UNIQUE,
    administrator BIGINT NOT NULL,
    password TEXT COLLATE "C" NOT NULL,
    credential BIGINT NOT NULL,
    status BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    first_name TEXT COLLATE "C" NOT NULL DEFAULT '',
    last_name TEXT COLLATE "C" NOT NULL DEFAULT '',
    tags TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    metadata TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    private_metadata TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    profile_picture TEXT COLLATE "C" NOT NULL DEFAULT '',
    auth_provider TEXT COLLATE "C" NOT NULL DEFAULT '',
    verified_at BIGINT,
    updated_by BYTEA,
    -- A deleted user stays, disabled, until it is purged.
    deleted_at BIGINT,
    -- Tokens issued under an earlier credential generation than this are void.
    tokens_from BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE domains (
    id BYTEA NOT NULL PRIMARY KEY,
    route TEXT COLLATE "C" NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    status BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    tags TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    metadata TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    created_by BYTEA,
    updated_by BYTEA
);

-- `path` is the ids from the root to the group itself, joined by dots; ranges of it are subtrees.
CREATE TABLE object_groups (
    id BYTEA NOT NULL PRIMARY KEY,
    domain_id BYTEA NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    parent_group_id BYTEA REFERENCES object_groups (id),
    path TEXT COLLATE "C" NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL DEFAULT '',
    tags TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    metadata TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    status BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by BYTEA,
    updated_at BIGINT,
    updated_by BYTEA
);

CREATE TABLE channels (
    id BYTEA NOT NULL PRIMARY KEY,
    domain_id BYTEA NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    route TEXT COLLATE "C",
    name TEXT COLLATE "C" NOT NULL,
    status BIGINT NOT NULL,
    open BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    tags TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    metadata TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    parent_group_id BYTEA REFERENCES object_groups (id),
    created_by BYTEA,
    updated_by BYTEA,
    UNIQUE (domain_id, route)
);

CREATE TABLE clients (
    id BYTEA NOT NULL PRIMARY KEY,
    domain_id BYTEA NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    -- Keyed hash of the secret; none for the client that stands for peers without credentials.
    secret_digest BYTEA,
    anonymous BIGINT NOT NULL,
    credential BIGINT NOT NULL,
    status BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    identity TEXT COLLATE "C" NOT NULL DEFAULT '',
    tags TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    metadata TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    private_metadata TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    parent_group_id BYTEA REFERENCES object_groups (id),
    created_by BYTEA,
    updated_by BYTEA,
    -- The secret, sealed with a key derived from the pepper; only if the installation reveals secrets.
    secret_sealed BYTEA,
    UNIQUE (domain_id, secret_digest)
);

CREATE TABLE connections (
    client_id BYTEA NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    channel_id BYTEA NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    rights BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (client_id, channel_id)
);
CREATE INDEX connections_by_channel ON connections (channel_id);

-- What was committed, in order; `changes` is a list in the feed's encoding.
CREATE TABLE outbox (
    revision BIGINT NOT NULL PRIMARY KEY,
    changes BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE signing_keys (
    kid TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    public_key BYTEA NOT NULL,
    -- Sealed with a key derived from the pepper, so that a copy of the database signs nothing.
    private_key BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
);

CREATE INDEX object_groups_by_domain ON object_groups (domain_id, status, (COALESCE(updated_at, created_at)), id);
CREATE INDEX object_groups_by_parent ON object_groups (parent_group_id);

CREATE INDEX channels_by_domain ON channels (domain_id, status, (COALESCE(updated_at, created_at)), id);
CREATE INDEX channels_by_parent ON channels (parent_group_id);

CREATE INDEX clients_by_domain ON clients (domain_id, status, (COALESCE(updated_at, created_at)), id);
CREATE INDEX clients_by_parent ON clients (parent_group_id);

-- Tags once more, to find by. Kind: 0 domain, 1 group, 2 channel, 3 client, 4 user; 8 more for
-- digests of what metadata says (`store/marks.rs`).
CREATE TABLE entity_tags (
    domain_id BYTEA NOT NULL,
    kind BIGINT NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    entity_id BYTEA NOT NULL,
    PRIMARY KEY (domain_id, kind, tag, entity_id)
);
CREATE INDEX entity_tags_by_entity ON entity_tags (entity_id);

CREATE TABLE roles (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    domain_id BYTEA NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    kind BIGINT NOT NULL,
    entity_id BYTEA NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    builtin BIGINT NOT NULL,
    own_mask BIGINT NOT NULL,
    clients_mask BIGINT NOT NULL,
    channels_mask BIGINT NOT NULL,
    groups_mask BIGINT NOT NULL,
    below_clients_mask BIGINT NOT NULL,
    below_channels_mask BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by BYTEA,
    updated_at BIGINT,
    updated_by BYTEA,
    UNIQUE (entity_id, name)
);
CREATE INDEX roles_by_domain ON roles (domain_id);

CREATE TABLE role_members (
    entity_id BYTEA NOT NULL,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role_id TEXT COLLATE "C" NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    domain_id BYTEA NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (entity_id, user_id)
);
CREATE INDEX role_members_by_user ON role_members (user_id, domain_id);
CREATE INDEX role_members_by_role ON role_members (role_id);
CREATE INDEX role_members_by_domain ON role_members (domain_id);

CREATE TABLE invitations (
    domain_id BYTEA NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    invitee BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    invited_by BYTEA NOT NULL,
    role_id TEXT COLLATE "C" NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    confirmed_at BIGINT,
    rejected_at BIGINT,
    PRIMARY KEY (domain_id, invitee)
);
CREATE INDEX invitations_by_invitee ON invitations (invitee);

-- One row per login: the refresh token is replaced at each use, and `turn` is the one that counts.
CREATE TABLE sessions (
    id BYTEA NOT NULL PRIMARY KEY,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    description TEXT COLLATE "C" NOT NULL,
    turn BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE pats (
    id BYTEA NOT NULL PRIMARY KEY,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    -- Keyed hash of the random part.
    digest BYTEA NOT NULL,
    -- Generation told to brokers.
    credential BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    updated_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX pats_by_user ON pats (user_id);

CREATE TABLE pat_scopes (
    id BYTEA NOT NULL PRIMARY KEY,
    pat_id BYTEA NOT NULL REFERENCES pats (id) ON DELETE CASCADE,
    domain_id BYTEA NOT NULL,
    entity_type TEXT COLLATE "C" NOT NULL,
    -- '*' or an id.
    entity_id TEXT COLLATE "C" NOT NULL,
    operation TEXT COLLATE "C" NOT NULL,
    UNIQUE (pat_id, domain_id, entity_type, entity_id, operation)
);

-- One-time tokens sent by mail: kind 0 verifies an address, 1 resets a password.
CREATE TABLE mail_tokens (
    digest BYTEA NOT NULL PRIMARY KEY,
    kind BIGINT NOT NULL,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    email TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);

-- What was done and what was denied. Never changed: each row's hash covers the one before.
CREATE TABLE journal (
    seq BIGINT NOT NULL PRIMARY KEY,
    id BYTEA NOT NULL,
    operation TEXT COLLATE "C" NOT NULL,
    outcome BIGINT NOT NULL,
    domain_id BYTEA,
    kind TEXT COLLATE "C" NOT NULL,
    entity_id TEXT COLLATE "C" NOT NULL,
    user_id BYTEA,
    peer TEXT COLLATE "C" NOT NULL,
    attributes TEXT COLLATE "C" NOT NULL,
    occurred_at BIGINT NOT NULL,
    hash BYTEA NOT NULL
);
CREATE INDEX journal_by_entity ON journal (entity_id, seq);
CREATE INDEX journal_by_user ON journal (user_id, seq);
