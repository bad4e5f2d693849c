-- What lists at a million clients need beside 0002.

-- Names of one state in order.
CREATE INDEX clients_by_name ON clients (domain_id, status, name, id);
CREATE INDEX channels_by_name ON channels (domain_id, status, name, id);
CREATE INDEX object_groups_by_name ON object_groups (domain_id, status, name, id);

-- Marks with the state of their object, in the order of lists: counted and paged in an index alone.
-- Of domains and users status and moved_at are 0.
CREATE TABLE marks (
    domain_id BYTEA NOT NULL,
    kind BIGINT NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    status BIGINT NOT NULL,
    -- When the object was made, or changed last.
    moved_at BIGINT NOT NULL,
    entity_id BYTEA NOT NULL,
    PRIMARY KEY (domain_id, kind, tag, status, moved_at, entity_id)
);
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

CREATE FUNCTION move_marks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE entity_tags SET status = NEW.status, moved_at = COALESCE(NEW.updated_at, NEW.created_at)
    WHERE entity_id = NEW.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER clients_moved AFTER UPDATE OF status, updated_at ON clients FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.updated_at IS DISTINCT FROM NEW.updated_at)
EXECUTE FUNCTION move_marks();
CREATE TRIGGER channels_moved AFTER UPDATE OF status, updated_at ON channels FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.updated_at IS DISTINCT FROM NEW.updated_at)
EXECUTE FUNCTION move_marks();
CREATE TRIGGER object_groups_moved AFTER UPDATE OF status, updated_at ON object_groups FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.updated_at IS DISTINCT FROM NEW.updated_at)
EXECUTE FUNCTION move_marks();

-- How many objects of a kind, with a tag or ('') at all, have a status: no list counts them.
CREATE TABLE entity_counts (
    domain_id BYTEA NOT NULL,
    kind BIGINT NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    status BIGINT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (domain_id, kind, tag, status)
);
CREATE INDEX entity_counts_empty ON entity_counts (domain_id) WHERE count = 0;
INSERT INTO entity_counts
SELECT domain_id, 1, '', status, COUNT(*) FROM object_groups GROUP BY domain_id, status
UNION ALL SELECT domain_id, 2, '', status, COUNT(*) FROM channels GROUP BY domain_id, status
UNION ALL SELECT domain_id, 3, '', status, COUNT(*) FROM clients GROUP BY domain_id, status
UNION ALL SELECT domain_id, kind, tag, status, COUNT(*) FROM entity_tags WHERE kind IN (1, 2, 3)
    GROUP BY domain_id, kind, tag, status;

CREATE FUNCTION add_count(domain BYTEA, kind BIGINT, tag TEXT, status BIGINT, more BIGINT) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO entity_counts VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT ON CONSTRAINT entity_counts_pkey DO UPDATE SET count = entity_counts.count + excluded.count;
$$;

-- Statements that add or remove count once for all of their rows, those that switch row by row.
-- Objects say their kind, marks have it.
CREATE FUNCTION count_objects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM add_count(domain_id, TG_ARGV[0]::BIGINT, '', status, COUNT(*))
        FROM several GROUP BY domain_id, status;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM add_count(domain_id, TG_ARGV[0]::BIGINT, '', status, -COUNT(*))
        FROM several GROUP BY domain_id, status;
    ELSE
        PERFORM add_count(NEW.domain_id, TG_ARGV[0]::BIGINT, '', NEW.status, 1);
        PERFORM add_count(OLD.domain_id, TG_ARGV[0]::BIGINT, '', OLD.status, -1);
    END IF;
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM entity_counts WHERE count = 0;
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION count_marks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM add_count(domain_id, kind, tag, status, COUNT(*))
        FROM several WHERE kind IN (1, 2, 3) GROUP BY domain_id, kind, tag, status;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM add_count(domain_id, kind, tag, status, -COUNT(*))
        FROM several WHERE kind IN (1, 2, 3) GROUP BY domain_id, kind, tag, status;
    ELSE
        PERFORM add_count(NEW.domain_id, NEW.kind, NEW.tag, NEW.status, 1);
        PERFORM add_count(OLD.domain_id, OLD.kind, OLD.tag, OLD.status, -1);
    END IF;
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM entity_counts WHERE count = 0;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER object_groups_counted AFTER INSERT ON object_groups REFERENCING NEW TABLE AS several
FOR EACH STATEMENT EXECUTE FUNCTION count_objects(1);
CREATE TRIGGER object_groups_recounted AFTER UPDATE OF status ON object_groups FOR EACH ROW
WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION count_objects(1);
CREATE TRIGGER object_groups_uncounted AFTER DELETE ON object_groups REFERENCING OLD TABLE AS several
FOR EACH STATEMENT EXECUTE FUNCTION count_objects(1);

CREATE TRIGGER channels_counted AFTER INSERT ON channels REFERENCING NEW TABLE AS several
FOR EACH STATEMENT EXECUTE FUNCTION count_objects(2);
CREATE TRIGGER channels_recounted AFTER UPDATE OF status ON channels FOR EACH ROW
WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION count_objects(2);
CREATE TRIGGER channels_uncounted AFTER DELETE ON channels REFERENCING OLD TABLE AS several
FOR EACH STATEMENT EXECUTE FUNCTION count_objects(2);

CREATE TRIGGER clients_counted AFTER INSERT ON clients REFERENCING NEW TABLE AS several
FOR EACH STATEMENT EXECUTE FUNCTION count_objects(3);
CREATE TRIGGER clients_recounted AFTER UPDATE OF status ON clients FOR EACH ROW
WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION count_objects(3);
CREATE TRIGGER clients_uncounted AFTER DELETE ON clients REFERENCING OLD TABLE AS several
FOR EACH STATEMENT EXECUTE FUNCTION count_objects(3);

CREATE TRIGGER entity_tags_counted AFTER INSERT ON entity_tags REFERENCING NEW TABLE AS several
FOR EACH STATEMENT EXECUTE FUNCTION count_marks();
CREATE TRIGGER entity_tags_recounted AFTER UPDATE OF status ON entity_tags FOR EACH ROW
WHEN (OLD.status <> NEW.status AND NEW.kind IN (1, 2, 3)) EXECUTE FUNCTION count_marks();
CREATE TRIGGER entity_tags_uncounted AFTER DELETE ON entity_tags REFERENCING OLD TABLE AS several
FOR EACH STATEMENT EXECUTE FUNCTION count_marks();
