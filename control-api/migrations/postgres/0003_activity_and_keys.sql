-- Starts of brokers: what a client had subscribed to at an earlier one is over.
CREATE TABLE brokers (
    node_id BYTEA NOT NULL PRIMARY KEY,
    incarnation BIGINT NOT NULL
);

-- What clients did at each broker.
CREATE TABLE client_activity (
    client_id BYTEA NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    node_id BYTEA NOT NULL,
    incarnation BIGINT NOT NULL,
    inbound BIGINT NOT NULL,
    outbound BIGINT NOT NULL,
    subscriptions BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    PRIMARY KEY (client_id, node_id)
);

-- Whether a token may do whatever its owner may: an API key.
ALTER TABLE pats ADD COLUMN unlimited BIGINT NOT NULL DEFAULT 0;

-- A deleted domain stays until it is purged.
ALTER TABLE domains ADD COLUMN deleted_at BIGINT;
-- Whether a disabled group stops the messages of what is in it.
ALTER TABLE domains ADD COLUMN groups_block BIGINT NOT NULL DEFAULT 0;
-- Whether it is stopped by a disabled group above it (`store/held.rs`).
ALTER TABLE channels ADD COLUMN held BIGINT NOT NULL DEFAULT 0;
ALTER TABLE clients ADD COLUMN held BIGINT NOT NULL DEFAULT 0;
CREATE INDEX channels_held ON channels (domain_id) WHERE held = 1;
CREATE INDEX clients_held ON clients (domain_id) WHERE held = 1;
