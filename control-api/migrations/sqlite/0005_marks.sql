-- Kinds 8 and above in entity_tags: digests of what metadata says (`store/marks.rs`). What was made
-- before gets them when the database is opened next.
INSERT INTO counters (name, value) VALUES ('unmarked', 1);
