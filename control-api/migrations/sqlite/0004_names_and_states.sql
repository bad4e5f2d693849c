-- Counting those whose name has a part needs the state too, and then no row is read.
DROP INDEX clients_by_name;
DROP INDEX channels_by_name;
DROP INDEX object_groups_by_name;
CREATE INDEX clients_by_name ON clients (domain_id, name, status, id);
CREATE INDEX channels_by_name ON channels (domain_id, name, status, id);
CREATE INDEX object_groups_by_name ON object_groups (domain_id, name, status, id);
