//! Clients and channels that a disabled group stops, in domains that want it so.
//!
//! Whether one is held is written beside its own status and told to brokers as part of it. It
//! follows what happens to groups in transactions of its own, a bounded number of objects in each,
//! before the call that made it happen is answered.

use std::collections::HashSet;

use authcache::EntityId;
use sqlx::AssertSqlSafe;

use super::entities::path_ids;
use super::rows::{self, blob};
use super::sql::{self, Connection};
use super::{Store, StoreError, Write, channels};
use crate::snapshot::channel_set;

/// Objects that one transaction holds or lets go: what brokers are told of them is far below the
/// largest message of the feed.
const SETTLED_AT_ONCE: usize = 4_096;

/// Groups of a domain that are disabled, or below one that is.
async fn disabled(c: &mut Connection, domain: EntityId) -> Result<Vec<EntityId>, StoreError> {
    let groups: Vec<(Vec<u8>, String, i64)> =
        sql::query_as("SELECT id, path, status FROM object_groups WHERE domain_id = $1")
            .bind(blob(domain))
            .fetch_all(c)
            .await?;
    let mut off = HashSet::new();
    for (id, _, status) in &groups {
        if !rows::status(*status)?.is_live() {
            off.insert(rows::id(id)?);
        }
    }
    let mut found = Vec::new();
    for (id, path, _) in &groups {
        if path_ids(path).iter().any(|above| off.contains(above)) {
            found.push(rows::id(id)?);
        }
    }
    Ok(found)
}

/// What is held in a table and should not be, or the other way round.
async fn unsettled(
    c: &mut Connection,
    table: &str,
    domain: EntityId,
    groups: &[EntityId],
) -> Result<Vec<(EntityId, bool)>, StoreError> {
    let sql = format!("SELECT id FROM {table} WHERE domain_id = $1 AND held = 1");
    let held: Vec<(Vec<u8>,)> = sql::query_as(AssertSqlSafe(sql))
        .bind(blob(domain))
        .fetch_all(c)
        .await?;
    let held: HashSet<Vec<u8>> = held.into_iter().map(|(id,)| id).collect();
    let mut wanted = HashSet::new();
    for group in groups {
        let sql = format!("SELECT id FROM {table} WHERE parent_group_id = $1");
        let members: Vec<(Vec<u8>,)> = sql::query_as(AssertSqlSafe(sql))
            .bind(blob(*group))
            .fetch_all(c)
            .await?;
        wanted.extend(members.into_iter().map(|(id,)| id));
    }
    let stopped = wanted.difference(&held).map(|id| (id, true));
    let freed = held.difference(&wanted).map(|id| (id, false));
    stopped
        .chain(freed)
        .map(|(id, held)| Ok((rows::id(id)?, held)))
        .collect()
}

impl Store {
    /// Domains in which a disabled group stops messages: a start may find them half settled.
    pub(crate) async fn domains_that_hold(&self) -> Result<Vec<EntityId>, StoreError> {
        let mut connection = self.read().await?;
        let found: Vec<(Vec<u8>,)> = sql::query_as("SELECT id FROM domains WHERE groups_block = 1")
            .fetch_all(&mut connection)
            .await?;
        found.iter().map(|(id,)| rows::id(id)).collect()
    }
}

impl Write {
    /// Something happened to groups of this domain, or to who is in them.
    pub(crate) fn regroup(&mut self, domain: EntityId) {
        self.regrouped = Some(domain);
    }

    /// The domain in which it has to be settled who is held.
    pub(crate) fn regrouped(&self) -> Option<EntityId> {
        self.regrouped
    }

    /// Holds or lets go what is not as it should be; whether there may be more.
    pub(crate) async fn settle_held(&mut self, domain: EntityId) -> Result<bool, StoreError> {
        let c = self.connection();
        let blocks: Option<(i64,)> =
            sql::query_as("SELECT groups_block FROM domains WHERE id = $1")
                .bind(blob(domain))
                .fetch_optional(c)
                .await?;
        let groups = match blocks {
            Some((1,)) => disabled(c, domain).await?,
            _ => Vec::new(),
        };
        let mut left = SETTLED_AT_ONCE;
        for table in ["channels", "clients"] {
            let found = unsettled(self.connection(), table, domain, &groups).await?;
            for (id, held) in found.into_iter().take(left) {
                left -= 1;
                let sql = format!("UPDATE {table} SET held = $1 WHERE id = $2");
                sql::query(AssertSqlSafe(sql))
                    .bind(held)
                    .bind(blob(id))
                    .noted()
                    .execute(self.connection())
                    .await?;
                if table == "clients" {
                    self.client_changed(id).await?;
                    continue;
                }
                let c = self.connection();
                if let Some(channel) = channels::channel(c, domain, &id.to_string()).await? {
                    self.change(channel_set(&channel));
                }
            }
        }
        Ok(left == 0)
    }
}
