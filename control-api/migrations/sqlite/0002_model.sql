-- People, groups, roles, tokens, invitations and the journal. Texts that hold JSON are written by
-- control alone. `mask` columns are sets of verbs (`grant/verb.rs` says which bit is which).

ALTER TABLE users ADD COLUMN first_name TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN last_name TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE users ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE users ADD COLUMN private_metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE users ADD COLUMN profile_picture TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN auth_provider TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN verified_at BIGINT;
ALTER TABLE users ADD COLUMN updated_by BLOB;
-- A deleted user stays, disabled, until it is purged.
ALTER TABLE users ADD COLUMN deleted_at BIGINT;
-- Tokens issued under an earlier credential generation than this are void.
ALTER TABLE users ADD COLUMN tokens_from BIGINT NOT NULL DEFAULT 0;
UPDATE users SET tokens_from = credential;

ALTER TABLE domains ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE domains ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE domains ADD COLUMN created_by BLOB;
ALTER TABLE domains ADD COLUMN updated_by BLOB;

-- `path` is the ids from the root to the group itself, joined by dots; ranges of it are subtrees.
CREATE TABLE object_groups (
    id BLOB NOT NULL PRIMARY KEY,
    domain_id BLOB NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    parent_group_id BLOB REFERENCES object_groups (id),
    path TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    tags TEXT NOT NULL DEFAULT '[]',
    metadata TEXT NOT NULL DEFAULT '{}',
    status INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    created_by BLOB,
    updated_at BIGINT,
    updated_by BLOB
);
CREATE INDEX object_groups_by_domain ON object_groups (domain_id, status, COALESCE(updated_at, created_at), id);
CREATE INDEX object_groups_by_parent ON object_groups (parent_group_id);

ALTER TABLE channels ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE channels ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE channels ADD COLUMN parent_group_id BLOB REFERENCES object_groups (id);
ALTER TABLE channels ADD COLUMN created_by BLOB;
ALTER TABLE channels ADD COLUMN updated_by BLOB;
CREATE INDEX channels_by_domain ON channels (domain_id, status, COALESCE(updated_at, created_at), id);
CREATE INDEX channels_by_parent ON channels (parent_group_id);

ALTER TABLE clients ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE clients ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE clients ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE clients ADD COLUMN private_metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE clients ADD COLUMN parent_group_id BLOB REFERENCES object_groups (id);
ALTER TABLE clients ADD COLUMN created_by BLOB;
ALTER TABLE clients ADD COLUMN updated_by BLOB;
-- The secret, sealed with a key derived from the pepper; only if the installation reveals secrets.
ALTER TABLE clients ADD COLUMN secret_sealed BLOB;
CREATE INDEX clients_by_domain ON clients (domain_id, status, COALESCE(updated_at, created_at), id);
CREATE INDEX clients_by_parent ON clients (parent_group_id);

-- Tags once more, to find by. Kind: 0 domain, 1 group, 2 channel, 3 client, 4 user.
CREATE TABLE entity_tags (
    domain_id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    tag TEXT NOT NULL,
    entity_id BLOB NOT NULL,
    PRIMARY KEY (domain_id, kind, tag, entity_id)
);
CREATE INDEX entity_tags_by_entity ON entity_tags (entity_id);

CREATE TABLE roles (
    id TEXT NOT NULL PRIMARY KEY,
    domain_id BLOB NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    kind INTEGER NOT NULL,
    entity_id BLOB NOT NULL,
    name TEXT NOT NULL,
    builtin INTEGER NOT NULL,
    own_mask BIGINT NOT NULL,
    clients_mask BIGINT NOT NULL,
    channels_mask BIGINT NOT NULL,
    groups_mask BIGINT NOT NULL,
    below_clients_mask BIGINT NOT NULL,
    below_channels_mask BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by BLOB,
    updated_at BIGINT,
    updated_by BLOB,
    UNIQUE (entity_id, name)
);
CREATE INDEX roles_by_domain ON roles (domain_id);

CREATE TABLE role_members (
    entity_id BLOB NOT NULL,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    domain_id BLOB NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (entity_id, user_id)
);
CREATE INDEX role_members_by_user ON role_members (user_id, domain_id);
CREATE INDEX role_members_by_role ON role_members (role_id);
CREATE INDEX role_members_by_domain ON role_members (domain_id);

-- What existed before roles gets its built-in role, without members: platform administrators reach it.
INSERT INTO roles (id, domain_id, kind, entity_id, name, builtin, own_mask, clients_mask, channels_mask,
    groups_mask, below_clients_mask, below_channels_mask, created_at)
SELECT 'domain_' || lower(hex(id)), id, 0, id, 'admin', 1, -1, -1, -1, -1, -1, -1, created_at FROM domains;
INSERT INTO roles (id, domain_id, kind, entity_id, name, builtin, own_mask, clients_mask, channels_mask,
    groups_mask, below_clients_mask, below_channels_mask, created_at)
SELECT 'channel_' || lower(hex(id)), domain_id, 2, id, 'admin', 1, -1, -1, -1, -1, -1, -1, created_at FROM channels;
INSERT INTO roles (id, domain_id, kind, entity_id, name, builtin, own_mask, clients_mask, channels_mask,
    groups_mask, below_clients_mask, below_channels_mask, created_at)
SELECT 'client_' || lower(hex(id)), domain_id, 3, id, 'admin', 1, -1, -1, -1, -1, -1, -1, created_at FROM clients;

CREATE TABLE invitations (
    domain_id BLOB NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
    invitee BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    invited_by BLOB NOT NULL,
    role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    confirmed_at BIGINT,
    rejected_at BIGINT,
    PRIMARY KEY (domain_id, invitee)
);
CREATE INDEX invitations_by_invitee ON invitations (invitee);

-- One row per login: the refresh token is replaced at each use, and `turn` is the one that counts.
CREATE TABLE sessions (
    id BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    description TEXT NOT NULL,
    turn BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE pats (
    id BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- Keyed hash of the random part.
    digest BLOB NOT NULL,
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
    id BLOB NOT NULL PRIMARY KEY,
    pat_id BLOB NOT NULL REFERENCES pats (id) ON DELETE CASCADE,
    domain_id BLOB NOT NULL,
    entity_type TEXT NOT NULL,
    -- '*' or an id.
    entity_id TEXT NOT NULL,
    operation TEXT NOT NULL,
    UNIQUE (pat_id, domain_id, entity_type, entity_id, operation)
);

-- One-time tokens sent by mail: kind 0 verifies an address, 1 resets a password.
CREATE TABLE mail_tokens (
    digest BLOB NOT NULL PRIMARY KEY,
    kind INTEGER NOT NULL,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    email TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- What was done and what was denied. Never changed: each row's hash covers the one before.
CREATE TABLE journal (
    seq BIGINT NOT NULL PRIMARY KEY,
    id BLOB NOT NULL,
    operation TEXT NOT NULL,
    outcome INTEGER NOT NULL,
    domain_id BLOB,
    kind TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    user_id BLOB,
    peer TEXT NOT NULL,
    attributes TEXT NOT NULL,
    occurred_at BIGINT NOT NULL,
    hash BLOB NOT NULL
);
CREATE INDEX journal_by_entity ON journal (entity_id, seq);
CREATE INDEX journal_by_user ON journal (user_id, seq);
