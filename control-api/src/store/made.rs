//! What is kept beside objects that are made: how many there are in which span of time, how many have
//! which tag, and on SQLite the parts of their names.
//!
//! Triggers keep it when objects change or go. They would run row by row, which is a third of what
//! 10 000 clients in one call take; and there is one place where objects are made.

use std::collections::BTreeMap;

use authcache::EntityId;
use sqlx::AssertSqlSafe;

use super::StoreError;
use super::entities::{Entity, ROWS_AT_ONCE, table};
use super::marks::Marked;
use super::rows::{self, blob};
use super::sql::{self, Builder, Connection};
use crate::grant::Kind;

/// Counts objects of one kind that were inserted, and names them.
pub(super) async fn note(connection: &mut Connection, new: &[Entity]) -> Result<(), StoreError> {
    let Some(first) = new.first() else {
        return Ok(());
    };
    let mut spans: BTreeMap<(EntityId, i64, i64), i64> = BTreeMap::new();
    for new in new {
        let status = rows::status_number(new.status);
        let key = (new.domain, status, new.moved_at().micros());
        *spans.entry(key).or_default() += 1;
    }
    for ((domain, status, moved_at), count) in spans {
        add_to_span(connection, domain, first.kind, status, moved_at, count).await?;
    }
    if !connection.is_postgres() {
        name(connection, first.kind, new).await?;
    }
    Ok(())
}

async fn add_to_span(
    connection: &mut Connection,
    domain: EntityId,
    kind: Kind,
    status: i64,
    moved_at: i64,
    count: i64,
) -> Result<(), StoreError> {
    let (held, full): (i64, i64) = sql::query_as(
        "INSERT INTO entity_spans (domain_id, kind, status, since, count) VALUES ($1, $2, $3, COALESCE((\
         SELECT MAX(since) FROM entity_spans WHERE domain_id = $1 AND kind = $2 AND status = $3 AND since <= $4\
         ), 0), $5) ON CONFLICT (domain_id, kind, status, since) DO UPDATE SET count = entity_spans.count + excluded.count \
         RETURNING count, (SELECT value FROM counters WHERE name = 'span_rows')",
    )
    .bind(blob(domain))
    .bind(kind.number())
    .bind(status)
    .bind(moved_at)
    .bind(count)
    .fetch_one(connection)
    .await?;
    if held < full {
        return Ok(());
    }
    // What has the same time stays together.
    sql::query(
        "INSERT INTO entity_spans (domain_id, kind, status, since, count) \
         SELECT $1, $2, $3, $4, 0 WHERE NOT EXISTS (\
         SELECT 1 FROM entity_spans WHERE domain_id = $1 AND kind = $2 AND status = $3 AND since >= $4)",
    )
    .bind(blob(domain))
    .bind(kind.number())
    .bind(status)
    .bind(moved_at + 1)
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts the tags of objects that were marked.
pub(super) async fn count_tags(
    connection: &mut Connection,
    marks: &[(i64, String, &Marked<'_>)],
) -> Result<(), StoreError> {
    let mut counts: BTreeMap<(EntityId, i64, &str, i64), i64> = BTreeMap::new();
    for (kind, tag, object) in marks {
        if (Kind::Group.number()..=Kind::Client.number()).contains(kind) {
            let key = (object.domain, *kind, tag.as_str(), object.status);
            *counts.entry(key).or_default() += 1;
        }
    }
    let counts: Vec<_> = counts.into_iter().collect();
    for part in counts.chunks(ROWS_AT_ONCE) {
        let mut query =
            Builder::new("INSERT INTO entity_counts (domain_id, kind, tag, status, count) ");
        query.push_rows(part, |((domain, kind, tag, status), count)| {
            let (kind, status, count) = (*kind, *status, *count);
            vec![
                blob(*domain).into(),
                kind.into(),
                (*tag).into(),
                status.into(),
                count.into(),
            ]
        });
        query.push(
            " ON CONFLICT (domain_id, kind, tag, status) \
             DO UPDATE SET count = entity_counts.count + excluded.count",
        );
        query.build().execute(connection).await?;
    }
    Ok(())
}

/// Puts names into the index of parts of names.
async fn name(connection: &mut Connection, kind: Kind, new: &[Entity]) -> Result<(), StoreError> {
    for part in new.chunks(ROWS_AT_ONCE) {
        let mut query = Builder::new("INSERT INTO names (entity_id) ");
        query.push_rows(part, |new| vec![blob(new.id).into()]);
        query.build().execute(connection).await?;
    }
    // Numbers are given in order. In one statement, since each one that writes into this index makes
    // a part of it that is merged with the others later.
    let sql = format!(
        "INSERT INTO name_parts (rowid, name) SELECT n.number, e.name FROM names n \
         JOIN {} e ON e.id = n.entity_id WHERE n.number > (SELECT MAX(number) FROM names) - $1",
        table(kind)
    );
    let count = i64::try_from(new.len()).unwrap_or(i64::MAX);
    let query = sql::query(AssertSqlSafe(sql)).bind(count);
    query.execute(connection).await?;
    Ok(())
}
