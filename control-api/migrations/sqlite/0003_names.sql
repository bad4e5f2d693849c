-- A part of a name is looked for in the index alone.
CREATE INDEX clients_by_name ON clients (domain_id, name, id);
CREATE INDEX channels_by_name ON channels (domain_id, name, id);
CREATE INDEX object_groups_by_name ON object_groups (domain_id, name, id);
