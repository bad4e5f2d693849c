//! What objects are found by: their tags, and a digest of each thing that their metadata says.
//!
//! A digest covers a path and the value there, or an item of the array there. So a filter by
//! metadata is a look-up in an index, the same in both databases.

use authcache::EntityId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::entities::ROWS_AT_ONCE;
use super::rows::blob;
use super::sql::{self, Builder, Connection};
use super::{StoreError, entities, made, people};
use crate::grant::Kind;

/// Beyond the kinds of objects in `entity_tags` are those of their metadata's digests.
pub(super) const METADATA: i64 = 8;
/// Objects that are marked at a time when a database is opened that has no digests yet.
const AT_ONCE: i64 = 500;

/// An object with what it is found by.
pub(super) struct Marked<'a> {
    /// Its domain; [`EntityId::SYS`] for domains and users.
    pub(super) domain: EntityId,
    pub(super) kind: i64,
    pub(super) id: EntityId,
    /// Its status as a number, and when it was made or changed last, as lists of groups, channels
    /// and clients are ordered; 0 for domains and users.
    pub(super) status: i64,
    pub(super) moved_at: i64,
    pub(super) tags: &'a [String],
    pub(super) metadata: &'a Value,
}

/// Notes marks of objects that have none noted.
pub(super) async fn insert(
    connection: &mut Connection,
    objects: &[Marked<'_>],
) -> Result<(), StoreError> {
    let mut marks: Vec<(i64, String, &Marked<'_>)> = Vec::new();
    for object in objects {
        let tags = object.tags.iter();
        marks.extend(tags.map(|tag| (object.kind, tag.clone(), object)));
        let digests = digests(object.metadata).into_iter();
        marks.extend(digests.map(|digest| (object.kind + METADATA, digest, object)));
    }
    // In the order of the index: marks that many have are written beside each other. An array may have
    // an item twice.
    marks.sort_by(|one, other| (one.0, &one.1, one.2.id).cmp(&(other.0, &other.1, other.2.id)));
    marks.dedup_by(|one, other| (one.0, &one.1, one.2.id) == (other.0, &other.1, other.2.id));
    made::count_tags(connection, &marks).await?;
    for part in marks.chunks(ROWS_AT_ONCE) {
        let mut query = Builder::new(
            "INSERT INTO entity_tags (domain_id, kind, tag, status, moved_at, entity_id) ",
        );
        query.push_rows(part, |(kind, mark, object)| {
            vec![
                blob(object.domain).into(),
                (*kind).into(),
                mark.into(),
                object.status.into(),
                object.moved_at.into(),
                blob(object.id).into(),
            ]
        });
        query.build().execute(connection).await?;
    }
    Ok(())
}

/// Notes other marks.
pub(super) async fn replace(
    connection: &mut Connection,
    object: Marked<'_>,
) -> Result<(), StoreError> {
    sql::query("DELETE FROM entity_tags WHERE entity_id = $1")
        .bind(blob(object.id))
        .execute(connection)
        .await?;
    insert(connection, &[object]).await
}

/// Marks what a database holds that was made before metadata was.
pub(super) async fn complete(connection: &mut Connection) -> Result<(), StoreError> {
    let sql = "DELETE FROM counters WHERE name = 'unmarked'";
    if sql::query(sql).execute(connection).await? == 0 {
        return Ok(());
    }
    let tables = [Kind::Domain, Kind::Group, Kind::Channel, Kind::Client]
        .map(|kind| (kind.number(), entities::table(kind)));
    for (kind, table) in tables.into_iter().chain([(people::KIND, "users")]) {
        let place = if matches!(table, "domains" | "users") {
            "NULL, 0, 0"
        } else {
            "domain_id, status, COALESCE(updated_at, created_at)"
        };
        let mut last = Vec::new();
        loop {
            let mut query = Builder::new(format!(
                "SELECT id, metadata, {place} FROM {table} WHERE metadata <> '{{}}' AND id > "
            ));
            query
                .push_bind(last)
                .push(" ORDER BY id LIMIT ")
                .push_bind(AT_ONCE);
            let found: Vec<Unmarked> = query.build_as().fetch_all(connection).await?;
            let Some((id, ..)) = found.last() else {
                break;
            };
            last = id.clone();
            mark_rows(connection, kind, &found).await?;
        }
    }
    Ok(())
}

/// Id, metadata, domain, status and time.
type Unmarked = (Vec<u8>, String, Option<Vec<u8>>, i64, i64);

async fn mark_rows(
    connection: &mut Connection,
    kind: i64,
    found: &[Unmarked],
) -> Result<(), StoreError> {
    for (id, metadata, domain, status, moved_at) in found {
        let metadata: Value = super::rows::json(metadata)?;
        let marked = Marked {
            domain: super::rows::maybe_id(domain.clone())?.unwrap_or(EntityId::SYS),
            kind,
            id: super::rows::id(id)?,
            status: *status,
            moved_at: *moved_at,
            tags: &[],
            metadata: &metadata,
        };
        insert(connection, &[marked]).await?;
    }
    Ok(())
}

/// Digest of a value at a path.
pub(super) fn mark(path: &str, value: &Value) -> String {
    digest(path, "=", value)
}

/// Digest of an item of the array at a path.
pub(super) fn mark_of_item(path: &str, item: &Value) -> String {
    digest(path, "[]=", item)
}

fn digest(path: &str, how: &str, value: &Value) -> String {
    let hash = Sha256::digest(format!("{path}{how}{value}"));
    URL_SAFE_NO_PAD.encode(&hash[..16])
}

fn digests(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect("$", metadata, &mut found);
    found
}

fn collect(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                collect(&format!("{path}.\"{name}\""), value, found);
            }
        }
        Value::Array(items) => found.extend(items.iter().map(|item| mark_of_item(path, item))),
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.push(mark(path, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_metadata_says_has_a_mark() {
        let metadata = serde_json::json!({ "a": { "b": 1, "c": [true, "x"] }, "d": {}, "e": null });
        let expected = [
            mark("$.\"a\".\"b\"", &Value::from(1)),
            mark_of_item("$.\"a\".\"c\"", &Value::from(true)),
            mark_of_item("$.\"a\".\"c\"", &Value::from("x")),
            mark("$.\"d\"", &serde_json::json!({})),
            mark("$.\"e\"", &Value::Null),
        ];
        assert_eq!(digests(&metadata), expected);
    }

    #[test]
    fn a_value_and_an_item_or_another_path_have_other_marks() {
        let one = Value::from(1);
        let own = mark("$.\"a\"", &one);
        assert_ne!(own, mark_of_item("$.\"a\"", &one));
        assert_ne!(own, mark("$.\"b\"", &one));
        assert_ne!(own, mark("$.\"a\"", &Value::from("1")));
    }
}
