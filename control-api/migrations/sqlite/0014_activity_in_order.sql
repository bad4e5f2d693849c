-- Reports come in the order of ids: clients that follow each other are on one page.
CREATE TABLE activity_in_order (
    client_id BLOB NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    node_id BLOB NOT NULL,
    incarnation BIGINT NOT NULL,
    inbound BIGINT NOT NULL,
    outbound BIGINT NOT NULL,
    subscriptions BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    PRIMARY KEY (client_id, node_id)
) WITHOUT ROWID;
INSERT INTO activity_in_order
    SELECT client_id, node_id, incarnation, inbound, outbound, subscriptions, first_seen, last_seen
    FROM client_activity ORDER BY client_id, node_id;
DROP TABLE client_activity;
ALTER TABLE activity_in_order RENAME TO client_activity;
