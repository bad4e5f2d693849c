-- Objects of a kind and status by when they were made or changed last, in spans of time with some
-- 16 000 each, counted: a page in the middle lies in one of them, and what a filter lets pass has to be
-- counted again only in those where something changed. Whatever is made or changed comes to the end.
CREATE TABLE entity_spans (
    domain_id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    status INTEGER NOT NULL,
    -- Where it begins; it ends where the next one begins. 0 for the first.
    since BIGINT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (domain_id, kind, status, since)
) WITHOUT ROWID;
-- Rows with which a span is full.
INSERT INTO counters (name, value) VALUES ('span_rows', 16384);

INSERT INTO entity_spans
SELECT domain_id, 1, status, CASE part WHEN 0 THEN 0 ELSE MIN(moved_at) END, COUNT(*) FROM (
    SELECT domain_id, status, COALESCE(updated_at, created_at) AS moved_at,
        (RANK() OVER (PARTITION BY domain_id, status ORDER BY COALESCE(updated_at, created_at)) - 1) / 16384 AS part
    FROM object_groups
) o GROUP BY domain_id, status, part
UNION ALL
SELECT domain_id, 2, status, CASE part WHEN 0 THEN 0 ELSE MIN(moved_at) END, COUNT(*) FROM (
    SELECT domain_id, status, COALESCE(updated_at, created_at) AS moved_at,
        (RANK() OVER (PARTITION BY domain_id, status ORDER BY COALESCE(updated_at, created_at)) - 1) / 16384 AS part
    FROM channels
) c GROUP BY domain_id, status, part
UNION ALL
SELECT domain_id, 3, status, CASE part WHEN 0 THEN 0 ELSE MIN(moved_at) END, COUNT(*) FROM (
    SELECT domain_id, status, COALESCE(updated_at, created_at) AS moved_at,
        (RANK() OVER (PARTITION BY domain_id, status ORDER BY COALESCE(updated_at, created_at)) - 1) / 16384 AS part
    FROM clients
) c GROUP BY domain_id, status, part;

-- They count what entity_counts had no tag for.
DELETE FROM entity_counts WHERE tag = '';

-- There is one place where objects are made (`store/made.rs`): it counts and names them, all of a call
-- at once instead of row by row.
DROP TRIGGER entity_tags_counted;

DROP TRIGGER object_groups_counted;
DROP TRIGGER object_groups_named;
DROP TRIGGER object_groups_recounted;
DROP TRIGGER object_groups_uncounted;
CREATE TRIGGER object_groups_recounted AFTER UPDATE OF status, updated_at ON object_groups
WHEN OLD.status <> NEW.status OR OLD.updated_at IS NOT NEW.updated_at BEGIN
    UPDATE entity_spans SET count = count - 1 WHERE domain_id = OLD.domain_id AND kind = 1 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 1 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    DELETE FROM entity_spans WHERE count = 0 AND domain_id = OLD.domain_id AND kind = 1 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 1 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    INSERT INTO entity_spans VALUES (NEW.domain_id, 1, NEW.status, COALESCE((
        SELECT MAX(since) FROM entity_spans WHERE domain_id = NEW.domain_id AND kind = 1 AND status = NEW.status
            AND since <= COALESCE(NEW.updated_at, NEW.created_at)
    ), 0), 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    -- What has the same time stays together.
    INSERT INTO entity_spans
    SELECT domain_id, kind, status, COALESCE(NEW.updated_at, NEW.created_at) + 1, 0 FROM (
        SELECT * FROM entity_spans WHERE domain_id = NEW.domain_id AND kind = 1 AND status = NEW.status
        ORDER BY since DESC LIMIT 1
    ) WHERE since <= COALESCE(NEW.updated_at, NEW.created_at) AND count >= (SELECT value FROM counters WHERE name = 'span_rows');
END;
CREATE TRIGGER object_groups_uncounted AFTER DELETE ON object_groups BEGIN
    UPDATE entity_spans SET count = count - 1 WHERE domain_id = OLD.domain_id AND kind = 1 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 1 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    DELETE FROM entity_spans WHERE count = 0 AND domain_id = OLD.domain_id AND kind = 1 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 1 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
END;

DROP TRIGGER channels_counted;
DROP TRIGGER channels_named;
DROP TRIGGER channels_recounted;
DROP TRIGGER channels_uncounted;
CREATE TRIGGER channels_recounted AFTER UPDATE OF status, updated_at ON channels
WHEN OLD.status <> NEW.status OR OLD.updated_at IS NOT NEW.updated_at BEGIN
    UPDATE entity_spans SET count = count - 1 WHERE domain_id = OLD.domain_id AND kind = 2 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 2 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    DELETE FROM entity_spans WHERE count = 0 AND domain_id = OLD.domain_id AND kind = 2 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 2 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    INSERT INTO entity_spans VALUES (NEW.domain_id, 2, NEW.status, COALESCE((
        SELECT MAX(since) FROM entity_spans WHERE domain_id = NEW.domain_id AND kind = 2 AND status = NEW.status
            AND since <= COALESCE(NEW.updated_at, NEW.created_at)
    ), 0), 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    -- What has the same time stays together.
    INSERT INTO entity_spans
    SELECT domain_id, kind, status, COALESCE(NEW.updated_at, NEW.created_at) + 1, 0 FROM (
        SELECT * FROM entity_spans WHERE domain_id = NEW.domain_id AND kind = 2 AND status = NEW.status
        ORDER BY since DESC LIMIT 1
    ) WHERE since <= COALESCE(NEW.updated_at, NEW.created_at) AND count >= (SELECT value FROM counters WHERE name = 'span_rows');
END;
CREATE TRIGGER channels_uncounted AFTER DELETE ON channels BEGIN
    UPDATE entity_spans SET count = count - 1 WHERE domain_id = OLD.domain_id AND kind = 2 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 2 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    DELETE FROM entity_spans WHERE count = 0 AND domain_id = OLD.domain_id AND kind = 2 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 2 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
END;

DROP TRIGGER clients_counted;
DROP TRIGGER clients_named;
DROP TRIGGER clients_recounted;
DROP TRIGGER clients_uncounted;
CREATE TRIGGER clients_recounted AFTER UPDATE OF status, updated_at ON clients
WHEN OLD.status <> NEW.status OR OLD.updated_at IS NOT NEW.updated_at BEGIN
    UPDATE entity_spans SET count = count - 1 WHERE domain_id = OLD.domain_id AND kind = 3 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 3 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    DELETE FROM entity_spans WHERE count = 0 AND domain_id = OLD.domain_id AND kind = 3 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 3 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    INSERT INTO entity_spans VALUES (NEW.domain_id, 3, NEW.status, COALESCE((
        SELECT MAX(since) FROM entity_spans WHERE domain_id = NEW.domain_id AND kind = 3 AND status = NEW.status
            AND since <= COALESCE(NEW.updated_at, NEW.created_at)
    ), 0), 1)
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
    -- What has the same time stays together.
    INSERT INTO entity_spans
    SELECT domain_id, kind, status, COALESCE(NEW.updated_at, NEW.created_at) + 1, 0 FROM (
        SELECT * FROM entity_spans WHERE domain_id = NEW.domain_id AND kind = 3 AND status = NEW.status
        ORDER BY since DESC LIMIT 1
    ) WHERE since <= COALESCE(NEW.updated_at, NEW.created_at) AND count >= (SELECT value FROM counters WHERE name = 'span_rows');
END;
CREATE TRIGGER clients_uncounted AFTER DELETE ON clients BEGIN
    UPDATE entity_spans SET count = count - 1 WHERE domain_id = OLD.domain_id AND kind = 3 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 3 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
    DELETE FROM entity_spans WHERE count = 0 AND domain_id = OLD.domain_id AND kind = 3 AND status = OLD.status AND since = (
        SELECT MAX(since) FROM entity_spans WHERE domain_id = OLD.domain_id AND kind = 3 AND status = OLD.status
            AND since <= COALESCE(OLD.updated_at, OLD.created_at)
    );
END;

-- A part of a name is looked for in the order of lists in the index alone.
DROP INDEX object_groups_by_domain;
CREATE INDEX object_groups_by_domain ON object_groups (domain_id, status, COALESCE(updated_at, created_at), id, name);
DROP INDEX channels_by_domain;
CREATE INDEX channels_by_domain ON channels (domain_id, status, COALESCE(updated_at, created_at), id, name);
DROP INDEX clients_by_domain;
CREATE INDEX clients_by_domain ON clients (domain_id, status, COALESCE(updated_at, created_at), id, name);
