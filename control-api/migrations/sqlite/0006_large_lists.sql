-- What lists at a million clients need.

-- Members of groups, in the order of lists.
DROP INDEX clients_by_parent;
CREATE INDEX clients_by_parent ON clients (parent_group_id, status, COALESCE(updated_at, created_at), id);
DROP INDEX channels_by_parent;
CREATE INDEX channels_by_parent ON channels (parent_group_id, status, COALESCE(updated_at, created_at), id);

-- Marks take one place each instead of two.
CREATE TABLE marks (
    domain_id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    tag TEXT NOT NULL,
    entity_id BLOB NOT NULL,
    PRIMARY KEY (domain_id, kind, tag, entity_id)
) WITHOUT ROWID;
INSERT INTO marks SELECT domain_id, kind, tag, entity_id FROM entity_tags;
DROP TABLE entity_tags;
ALTER TABLE marks RENAME TO entity_tags;
CREATE INDEX entity_tags_by_entity ON entity_tags (entity_id);

-- Names once more, by each three letters that follow each other. Numbers stand for ids there.
CREATE TABLE names (
    number INTEGER NOT NULL PRIMARY KEY,
    entity_id BLOB NOT NULL UNIQUE
);
CREATE VIRTUAL TABLE name_parts USING fts5(name, content='', contentless_delete=1, tokenize='trigram');
INSERT INTO names (entity_id)
SELECT id FROM clients UNION ALL SELECT id FROM channels UNION ALL SELECT id FROM object_groups;
INSERT INTO name_parts (rowid, name)
SELECT n.number, e.name FROM names n JOIN clients e ON e.id = n.entity_id
UNION ALL SELECT n.number, e.name FROM names n JOIN channels e ON e.id = n.entity_id
UNION ALL SELECT n.number, e.name FROM names n JOIN object_groups e ON e.id = n.entity_id;

CREATE TRIGGER clients_named AFTER INSERT ON clients BEGIN
    INSERT INTO names (entity_id) VALUES (NEW.id);
    INSERT INTO name_parts (rowid, name) SELECT number, NEW.name FROM names WHERE entity_id = NEW.id;
END;
CREATE TRIGGER clients_renamed AFTER UPDATE OF name ON clients WHEN OLD.name <> NEW.name BEGIN
    UPDATE name_parts SET name = NEW.name WHERE rowid = (SELECT number FROM names WHERE entity_id = NEW.id);
END;
CREATE TRIGGER clients_gone AFTER DELETE ON clients BEGIN
    DELETE FROM name_parts WHERE rowid = (SELECT number FROM names WHERE entity_id = OLD.id);
    DELETE FROM names WHERE entity_id = OLD.id;
END;

CREATE TRIGGER channels_named AFTER INSERT ON channels BEGIN
    INSERT INTO names (entity_id) VALUES (NEW.id);
    INSERT INTO name_parts (rowid, name) SELECT number, NEW.name FROM names WHERE entity_id = NEW.id;
END;
CREATE TRIGGER channels_renamed AFTER UPDATE OF name ON channels WHEN OLD.name <> NEW.name BEGIN
    UPDATE name_parts SET name = NEW.name WHERE rowid = (SELECT number FROM names WHERE entity_id = NEW.id);
END;
CREATE TRIGGER channels_gone AFTER DELETE ON channels BEGIN
    DELETE FROM name_parts WHERE rowid = (SELECT number FROM names WHERE entity_id = OLD.id);
    DELETE FROM names WHERE entity_id = OLD.id;
END;

CREATE TRIGGER object_groups_named AFTER INSERT ON object_groups BEGIN
    INSERT INTO names (entity_id) VALUES (NEW.id);
    INSERT INTO name_parts (rowid, name) SELECT number, NEW.name FROM names WHERE entity_id = NEW.id;
END;
CREATE TRIGGER object_groups_renamed AFTER UPDATE OF name ON object_groups WHEN OLD.name <> NEW.name BEGIN
    UPDATE name_parts SET name = NEW.name WHERE rowid = (SELECT number FROM names WHERE entity_id = NEW.id);
END;
CREATE TRIGGER object_groups_gone AFTER DELETE ON object_groups BEGIN
    DELETE FROM name_parts WHERE rowid = (SELECT number FROM names WHERE entity_id = OLD.id);
    DELETE FROM names WHERE entity_id = OLD.id;
END;
