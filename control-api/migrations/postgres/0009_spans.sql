-- Objects of a kind and status by when they were made or changed last, in spans of time with some
-- 16 000 each, counted: a page in the middle lies in one of them, and what a filter lets pass has to be
-- counted again only in those where something changed. Whatever is made or changed comes to the end.
CREATE TABLE entity_spans (
    domain_id BYTEA NOT NULL,
    kind BIGINT NOT NULL,
    status BIGINT NOT NULL,
    -- Where it begins; it ends where the next one begins. 0 for the first.
    since BIGINT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (domain_id, kind, status, since)
);
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

-- There is one place where objects are made (`store/made.rs`): it counts all of a call at once.
DROP TRIGGER object_groups_counted ON object_groups;
DROP TRIGGER channels_counted ON channels;
DROP TRIGGER clients_counted ON clients;
DROP TRIGGER entity_tags_counted ON entity_tags;

CREATE FUNCTION add_to_span(domain BYTEA, kind BIGINT, status BIGINT, moved_at BIGINT, more BIGINT) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    beginning BIGINT;
    held BIGINT;
BEGIN
    SELECT COALESCE(MAX(s.since), 0) INTO beginning FROM entity_spans s
    WHERE s.domain_id = $1 AND s.kind = $2 AND s.status = $3 AND s.since <= $4;
    INSERT INTO entity_spans AS s VALUES ($1, $2, $3, beginning, $5)
    ON CONFLICT ON CONSTRAINT entity_spans_pkey DO UPDATE SET count = s.count + excluded.count
    RETURNING s.count INTO held;
    IF held = 0 THEN
        DELETE FROM entity_spans s WHERE s.domain_id = $1 AND s.kind = $2 AND s.status = $3 AND s.since = beginning;
    ELSIF held >= (SELECT value FROM counters WHERE name = 'span_rows') THEN
        -- What has the same time stays together.
        INSERT INTO entity_spans SELECT $1, $2, $3, $4 + 1, 0 WHERE NOT EXISTS (
            SELECT 1 FROM entity_spans s
            WHERE s.domain_id = $1 AND s.kind = $2 AND s.status = $3 AND s.since > beginning
        );
    END IF;
END
$$;

-- Rows of one time are added together.
CREATE OR REPLACE FUNCTION count_objects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM add_to_span(domain_id, TG_ARGV[0]::BIGINT, status, COALESCE(updated_at, created_at), -COUNT(*))
        FROM several GROUP BY domain_id, status, COALESCE(updated_at, created_at);
    ELSE
        PERFORM add_to_span(OLD.domain_id, TG_ARGV[0]::BIGINT, OLD.status, COALESCE(OLD.updated_at, OLD.created_at), -1);
        PERFORM add_to_span(NEW.domain_id, TG_ARGV[0]::BIGINT, NEW.status, COALESCE(NEW.updated_at, NEW.created_at), 1);
    END IF;
    RETURN NULL;
END
$$;
DROP TRIGGER object_groups_recounted ON object_groups;
CREATE TRIGGER object_groups_recounted AFTER UPDATE OF status, updated_at ON object_groups FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.updated_at IS DISTINCT FROM NEW.updated_at) EXECUTE FUNCTION count_objects(1);
DROP TRIGGER channels_recounted ON channels;
CREATE TRIGGER channels_recounted AFTER UPDATE OF status, updated_at ON channels FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.updated_at IS DISTINCT FROM NEW.updated_at) EXECUTE FUNCTION count_objects(2);
DROP TRIGGER clients_recounted ON clients;
CREATE TRIGGER clients_recounted AFTER UPDATE OF status, updated_at ON clients FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.updated_at IS DISTINCT FROM NEW.updated_at) EXECUTE FUNCTION count_objects(3);
