-- Starts, and restored backups that were noticed: each continues at a revision (`store/lineage.rs`).
CREATE TABLE lineages (
    id BYTEA NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    revision BIGINT NOT NULL
);
