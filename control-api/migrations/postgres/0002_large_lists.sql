-- What lists at a million clients need.

-- Members of groups, in the order of lists.
DROP INDEX clients_by_parent;
CREATE INDEX clients_by_parent ON clients (parent_group_id, status, (COALESCE(updated_at, created_at)), id);
DROP INDEX channels_by_parent;
CREATE INDEX channels_by_parent ON channels (parent_group_id, status, (COALESCE(updated_at, created_at)), id);

-- Parts of names are found in an index where the server has what makes one; else they are looked for
-- one by one.
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;
    CREATE INDEX clients_by_part ON clients USING gin (LOWER(name) public.gin_trgm_ops);
    CREATE INDEX channels_by_part ON channels USING gin (LOWER(name) public.gin_trgm_ops);
    CREATE INDEX object_groups_by_part ON object_groups USING gin (LOWER(name) public.gin_trgm_ops);
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'names are searched without an index: %', SQLERRM;
END
$$;
