//! The tree of groups.

use super::sql::{self, Connection};
use authcache::EntityId;
use sqlx::AssertSqlSafe;

use super::entities::{Entity, columns, read};
use super::rows::blob;
use super::{StoreError, Write};
use crate::grant::Kind;
use crate::model::Time;

/// Groups on a path from root to leaf, at most.
pub(crate) const DEPTH_MAX: usize = 20;

/// The end of the range of paths below `path`: '/' is the character after '.'.
fn range(path: &str) -> (String, String) {
    (format!("{path}."), format!("{path}/"))
}

/// Groups below one, nearest first; it is not among them.
pub(crate) async fn below(
    connection: &mut Connection,
    path: &str,
) -> Result<Vec<Entity>, StoreError> {
    let (from, to) = range(path);
    let sql = format!(
        "SELECT {} FROM object_groups e WHERE e.path > $1 AND e.path < $2 ORDER BY LENGTH(e.path), e.path",
        columns(Kind::Group)
    );
    let found = sql::query(AssertSqlSafe(sql))
        .bind(from)
        .bind(to)
        .fetch_all(connection)
        .await?;
    found.iter().map(|row| read(Kind::Group, row)).collect()
}

/// Direct child groups.
pub(crate) async fn children(
    connection: &mut Connection,
    group: EntityId,
) -> Result<Vec<Entity>, StoreError> {
    let sql = format!(
        "SELECT {} FROM object_groups e WHERE e.parent_group_id = $1 ORDER BY e.created_at, e.id",
        columns(Kind::Group)
    );
    let found = sql::query(AssertSqlSafe(sql))
        .bind(blob(group))
        .fetch_all(connection)
        .await?;
    found.iter().map(|row| read(Kind::Group, row)).collect()
}

/// Levels that the deepest group below `path` is under it, 0 if there is none.
pub(crate) async fn height(connection: &mut Connection, path: &str) -> Result<usize, StoreError> {
    let (from, to) = range(path);
    let (deepest,): (Option<i64>,) =
        sql::query_as("SELECT MAX(LENGTH(path)) FROM object_groups WHERE path > $1 AND path < $2")
            .bind(from)
            .bind(to)
            .fetch_one(connection)
            .await?;
    // Each level is a dot and the 36 characters of an id.
    let deepest = deepest.and_then(|length| usize::try_from(length).ok());
    Ok(deepest.map_or(0, |length| (length - path.len()) / 37))
}

impl Write {
    /// Puts a group below another, or makes it a root; what is below it comes along.
    pub(crate) async fn move_group(
        &mut self,
        group: &Entity,
        parent: Option<&Entity>,
        by: EntityId,
        now: Time,
    ) -> Result<(), StoreError> {
        self.regroup(group.domain);
        let path = parent.map_or_else(
            || group.id.to_string(),
            |parent| format!("{}.{}", parent.path, group.id),
        );
        let (from, to) = range(&group.path);
        let skipped = i64::try_from(group.path.len()).unwrap_or(i64::MAX);
        sql::query(
            "UPDATE object_groups SET path = $1 || SUBSTR(path, CAST($2 AS INTEGER)) WHERE path > $3 AND path < $4",
        )
        .bind(&path)
        .bind(skipped + 1)
        .bind(from)
        .bind(to)
        .execute(self.connection())
        .await?;
        sql::query(
            "UPDATE object_groups SET path = $1, parent_group_id = $2, updated_at = $3, \
             updated_by = $4 WHERE id = $5",
        )
        .bind(path)
        .bind(parent.map(|parent| blob(parent.id)))
        .bind(now.micros())
        .bind(blob(by))
        .bind(blob(group.id))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Clients and channels of a group stay, without a parent.
    pub(crate) async fn empty_group(&mut self, group: &Entity) -> Result<(), StoreError> {
        self.regroup(group.domain);
        for sql in [
            "UPDATE clients SET parent_group_id = NULL WHERE parent_group_id = $1",
            "UPDATE channels SET parent_group_id = NULL WHERE parent_group_id = $1",
        ] {
            sql::query(sql)
                .bind(blob(group.id))
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }
}
