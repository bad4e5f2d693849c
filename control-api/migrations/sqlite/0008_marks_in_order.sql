-- What lists at a million clients need beside 0006, and what makes objects and connections cheaper.

-- Names of one state in order: what a page skips is not looked at.
DROP INDEX clients_by_name;
CREATE INDEX clients_by_name ON clients (domain_id, status, name, id);
DROP INDEX channels_by_name;
CREATE INDEX channels_by_name ON channels (domain_id, status, name, id);
DROP INDEX object_groups_by_name;
CREATE INDEX object_groups_by_name ON object_groups (domain_id, status, name, id);

-- Marks with the state of their object, in the order of lists: counted and paged in an index alone.
-- New ones of a mark come to its end. Of domains and users status and moved_at are 0.
CREATE TABLE marks (
    domain_id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    tag TEXT NOT NULL,
    status INTEGER NOT NULL,
    -- When the object was made, or changed last.
    moved_at BIGINT NOT NULL,
    entity_id BLOB NOT NULL,
    PRIMARY KEY (domain_id, kind, tag, status, moved_at, entity_id)
) WITHOUT ROWID;
INSERT INTO marks
SELECT t.domain_id, t.kind, t.tag,
    COALESCE(c.status, h.status, g.status, 0),
    COALESCE(c.updated_at, c.created_at, h.updated_at, h.created_at, g.updated_at, g.created_at, 0),
    t.entity_id
FROM entity_tags t
LEFT JOIN clients c ON c.id = t.entity_id AND t.kind IN (3, 11)
LEFT JOIN channels h ON h.id = t.entity_id AND t.kind IN (2, 10)
LEFT JOIN object_groups g ON g.id = t.entity_id AND t.kind IN (1, 9);
DROP TABLE entity_tags;
ALTER TABLE marks RENAME TO entity_tags;
CREATE INDEX entity_tags_by_entity ON entity_tags (entity_id);

CREATE TRIGGER clients_moved AFTER UPDATE OF status, updated_at ON clients
WHEN OLD.status <> NEW.status OR OLD.updated_at IS NOT NEW.updated_at BEGIN
    UPDATE entity_tags SET status = NEW.status, moved_at = COALESCE(NEW.updated_at, NEW.created_at)
    WHERE entity_id = NEW.id;
END;
CREATE TRIGGER channels_moved AFTER UPDATE OF status, updated_at ON channels
WHEN OLD.status <> NEW.status OR OLD.updated_at IS NOT NEW.updated_at BEGIN
    UPDATE entity_tags SET status = NEW.status, moved_at = COALESCE(NEW.updated_at, NEW.created_at)
    WHERE entity_id = NEW.id;
END;
CREATE TRIGGER object_groups_moved AFTER UPDATE OF status, updated_at ON object_groups
WHEN OLD.status <> NEW.status OR OLD.updated_at IS NOT NEW.updated_at BEGIN
    UPDATE entity_tags SET status = NEW.status, moved_at = COALESCE(NEW.updated_at, NEW.created_at)
    WHERE entity_id = NEW.id;
END;

-- Connections take two places each instead of three.
CREATE TABLE connected (
    client_id BLOB NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    channel_id BLOB NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    rights INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (client_id, channel_id)
) WITHOUT ROWID;
INSERT INTO connected SELECT client_id, channel_id, rights, created_at FROM connections;
DROP TABLE connections;
ALTER TABLE connected RENAME TO connections;
CREATE INDEX connections_by_channel ON connections (channel_id);

-- How many objects of a kind, with a tag or ('') at all, have a status: no list counts them.
CREATE TABLE entity_counts (
    domain_id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    tag TEXT NOT NULL,
    status INTEGER NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (domain_id, kind, tag, status)
) WITHOUT ROWID;
INSERT INTO entity_counts
SELECT domain_id, 1, '', status, COUNT(*) FROM object_groups GROUP BY domain_id, status
UNION ALL SELECT domain_id, 2, '', status, COUNT(*) FROM channels GROUP BY domain_id, status
UNION ALL SELECT domain_id, 3, '', status, COUNT(*) FROM clients GROUP BY domain_id, status
UNION ALL SELECT domain_id, kind, tag, status, COUNT(*) FROM entity_tags WHERE kind IN (1, 2, 3)
    GROUP BY domain_id, kind, tag, status;

CREATE TRIGGER object_groups_counted AFTER INSERT ON object_groups BEGIN
    INSERT INTO entity_counts VALUES (NEW.domain_id, 1, '', NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
END;
CREATE TRIGGER object_groups_recounted AFTER UPDATE OF status ON object_groups
WHEN OLD.status <> NEW.status BEGIN
    INSERT INTO entity_counts VALUES (NEW.domain_id, 1, '', NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    INSERT INTO entity_counts VALUES (OLD.domain_id, 1, '', OLD.status, -1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    DELETE FROM entity_counts
    WHERE domain_id = OLD.domain_id AND kind = 1 AND tag = '' AND status = OLD.status AND count = 0;
END;
CREATE TRIGGER object_groups_uncounted AFTER DELETE ON object_groups BEGIN
    INSERT INTO entity_counts VALUES (OLD.domain_id, 1, '', OLD.status, -1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    DELETE FROM entity_counts
    WHERE domain_id = OLD.domain_id AND kind = 1 AND tag = '' AND status = OLD.status AND count = 0;
END;

CREATE TRIGGER channels_counted AFTER INSERT ON channels BEGIN
    INSERT INTO entity_counts VALUES (NEW.domain_id, 2, '', NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
END;
CREATE TRIGGER channels_recounted AFTER UPDATE OF status ON channels
WHEN OLD.status <> NEW.status BEGIN
    INSERT INTO entity_counts VALUES (NEW.domain_id, 2, '', NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    INSERT INTO entity_counts VALUES (OLD.domain_id, 2, '', OLD.status, -1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    DELETE FROM entity_counts
    WHERE domain_id = OLD.domain_id AND kind = 2 AND tag = '' AND status = OLD.status AND count = 0;
END;
CREATE TRIGGER channels_uncounted AFTER DELETE ON channels BEGIN
    INSERT INTO entity_counts VALUES (OLD.domain_id, 2, '', OLD.status, -1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    DELETE FROM entity_counts
    WHERE domain_id = OLD.domain_id AND kind = 2 AND tag = '' AND status = OLD.status AND count = 0;
END;

CREATE TRIGGER clients_counted AFTER INSERT ON clients BEGIN
    INSERT INTO entity_counts VALUES (NEW.domain_id, 3, '', NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
END;
CREATE TRIGGER clients_recounted AFTER UPDATE OF status ON clients
WHEN OLD.status <> NEW.status BEGIN
    INSERT INTO entity_counts VALUES (NEW.domain_id, 3, '', NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    INSERT INTO entity_counts VALUES (OLD.domain_id, 3, '', OLD.status, -1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    DELETE FROM entity_counts
    WHERE domain_id = OLD.domain_id AND kind = 3 AND tag = '' AND status = OLD.status AND count = 0;
END;
CREATE TRIGGER clients_uncounted AFTER DELETE ON clients BEGIN
    INSERT INTO entity_counts VALUES (OLD.domain_id, 3, '', OLD.status, -1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    DELETE FROM entity_counts
    WHERE domain_id = OLD.domain_id AND kind = 3 AND tag = '' AND status = OLD.status AND count = 0;
END;

CREATE TRIGGER entity_tags_counted AFTER INSERT ON entity_tags
WHEN NEW.kind IN (1, 2, 3) BEGIN
    INSERT INTO entity_counts VALUES (NEW.domain_id, NEW.kind, NEW.tag, NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
END;
CREATE TRIGGER entity_tags_recounted AFTER UPDATE OF status ON entity_tags
WHEN OLD.status <> NEW.status AND NEW.kind IN (1, 2, 3) BEGIN
    INSERT INTO entity_counts VALUES (NEW.domain_id, NEW.kind, NEW.tag, NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    INSERT INTO entity_counts VALUES (OLD.domain_id, OLD.kind, OLD.tag, OLD.status, -1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    DELETE FROM entity_counts
    WHERE domain_id = OLD.domain_id AND kind = OLD.kind AND tag = OLD.tag AND status = OLD.status AND count = 0;
END;
CREATE TRIGGER entity_tags_uncounted AFTER DELETE ON entity_tags
WHEN OLD.kind IN (1, 2, 3) BEGIN
    INSERT INTO entity_counts VALUES (OLD.domain_id, OLD.kind, OLD.tag, OLD.status, -1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    DELETE FROM entity_counts
    WHERE domain_id = OLD.domain_id AND kind = OLD.kind AND tag = OLD.tag AND status = OLD.status AND count = 0;
END;
