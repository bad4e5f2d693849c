//! Groups, channels and clients in the database: three tables with the same shape.

use std::collections::HashMap;

use super::sql::{self, Builder, Connection, Row};
use authcache::{EntityId, Status};
use serde_json::Value;
use sqlx::AssertSqlSafe;

use super::marks::{self, Marked};
use super::rows::{self, blob};
use super::{StoreError, Write, made, roles};
use crate::grant::Kind;
use crate::model::Time;

/// Rows that one statement inserts, of at most 15 columns: few statements, each below the 32 766
/// values that SQLite takes.
pub(super) const ROWS_AT_ONCE: usize = 256;

/// Rows inserted at once that change how PostgreSQL should look for others.
const MANY: usize = 1_000;

/// A group, a channel or a client. What a kind does not have is empty.
#[derive(Clone, Debug)]
pub(crate) struct Entity {
    pub(crate) kind: Kind,
    pub(crate) id: EntityId,
    pub(crate) domain: EntityId,
    pub(crate) name: String,
    /// Of a channel.
    pub(crate) route: Option<String>,
    /// Of a group.
    pub(crate) description: String,
    /// Of a client.
    pub(crate) identity: String,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Value,
    /// Of a client.
    pub(crate) private_metadata: Value,
    pub(crate) parent: Option<EntityId>,
    /// Of a group: ids from the root to itself, joined by dots.
    pub(crate) path: String,
    pub(crate) status: Status,
    /// Of a channel: whether it carries the open namespace.
    pub(crate) open: bool,
    /// Of a channel or client: whether a disabled group stops it.
    pub(crate) held: bool,
    /// Of a client: whether it stands for peers without credentials.
    pub(crate) anonymous: bool,
    pub(crate) secret_digest: Option<Vec<u8>>,
    pub(crate) secret_sealed: Option<Vec<u8>>,
    pub(crate) created_at: Time,
    pub(crate) created_by: Option<EntityId>,
    pub(crate) updated_at: Option<Time>,
    pub(crate) updated_by: Option<EntityId>,
}

impl Entity {
    /// An enabled one with nothing but a name.
    pub(crate) fn new(kind: Kind, id: EntityId, domain: EntityId, name: &str, now: Time) -> Entity {
        Entity {
            kind,
            id,
            domain,
            name: name.to_owned(),
            route: None,
            description: String::new(),
            identity: String::new(),
            tags: Vec::new(),
            metadata: Value::Object(serde_json::Map::new()),
            private_metadata: Value::Object(serde_json::Map::new()),
            parent: None,
            path: String::new(),
            status: Status::Enabled,
            open: false,
            held: false,
            anonymous: false,
            secret_digest: None,
            secret_sealed: None,
            created_at: now,
            created_by: None,
            updated_at: None,
            updated_by: None,
        }
    }

    fn marked(&self) -> Marked<'_> {
        Marked {
            domain: self.domain,
            kind: self.kind.number(),
            id: self.id,
            status: rows::status_number(self.status),
            moved_at: self.moved_at().micros(),
            tags: &self.tags,
            metadata: &self.metadata,
        }
    }

    /// When it was made, or changed last.
    pub(super) fn moved_at(&self) -> Time {
        self.updated_at.unwrap_or(self.created_at)
    }

    /// Of a group: its level, 1 for a root.
    pub(crate) fn level(&self) -> usize {
        self.path.split('.').count()
    }
}

/// The table of a kind.
pub(crate) const fn table(kind: Kind) -> &'static str {
    match kind {
        Kind::Domain => "domains",
        Kind::Group => "object_groups",
        Kind::Channel => "channels",
        Kind::Client => "clients",
    }
}

/// The columns that every query for [`read`] selects, of the table named `e`.
pub(crate) const fn columns(kind: Kind) -> &'static str {
    match kind {
        Kind::Group => {
            "e.id, e.domain_id, e.name, NULL AS route, e.description, '' AS identity, e.tags, \
             e.metadata, '{}' AS private_metadata, e.parent_group_id, e.path, e.status, 0 AS open, 0 AS held, \
             0 AS anonymous, NULL AS secret_sealed, e.created_at, e.created_by, e.updated_at, e.updated_by"
        }
        Kind::Channel => {
            "e.id, e.domain_id, e.name, e.route, '' AS description, '' AS identity, e.tags, \
             e.metadata, '{}' AS private_metadata, e.parent_group_id, '' AS path, e.status, e.open, e.held, \
             0 AS anonymous, NULL AS secret_sealed, e.created_at, e.created_by, e.updated_at, e.updated_by"
        }
        Kind::Client | Kind::Domain => {
            "e.id, e.domain_id, e.name, NULL AS route, '' AS description, e.identity, e.tags, \
             e.metadata, e.private_metadata, e.parent_group_id, '' AS path, e.status, 0 AS open, e.held, \
             e.anonymous, e.secret_sealed, e.created_at, e.created_by, e.updated_at, e.updated_by"
        }
    }
}

/// A row of [`columns`].
pub(crate) fn read(kind: Kind, row: &Row) -> Result<Entity, StoreError> {
    Ok(Entity {
        kind,
        id: rows::id(&row.get::<Vec<u8>>("id")?)?,
        domain: rows::id(&row.get::<Vec<u8>>("domain_id")?)?,
        name: row.get("name")?,
        route: row.get("route")?,
        description: row.get("description")?,
        identity: row.get("identity")?,
        tags: rows::json(&row.get::<String>("tags")?)?,
        metadata: rows::json(&row.get::<String>("metadata")?)?,
        private_metadata: rows::json(&row.get::<String>("private_metadata")?)?,
        parent: rows::maybe_id(row.get("parent_group_id")?)?,
        path: row.get("path")?,
        status: rows::status(row.get("status")?)?,
        open: row.get("open")?,
        held: row.get("held")?,
        anonymous: row.get("anonymous")?,
        secret_digest: None,
        secret_sealed: row.get("secret_sealed")?,
        created_at: Time::from_micros(row.get("created_at")?),
        created_by: rows::maybe_id(row.get("created_by")?)?,
        updated_at: row.get::<Option<i64>>("updated_at")?.map(Time::from_micros),
        updated_by: rows::maybe_id(row.get("updated_by")?)?,
    })
}

/// The object of this kind with this id, in this domain.
pub(crate) async fn entity(
    connection: &mut Connection,
    kind: Kind,
    domain: EntityId,
    id: EntityId,
) -> Result<Option<Entity>, StoreError> {
    let sql = format!(
        "SELECT {} FROM {} e WHERE e.domain_id = $1 AND e.id = $2",
        columns(kind),
        table(kind)
    );
    let row = sql::query(AssertSqlSafe(sql))
        .bind(blob(domain))
        .bind(blob(id))
        .fetch_optional(connection)
        .await?;
    row.map(|row| read(kind, &row)).transpose()
}

/// Where a client or a channel stands, and whether it takes part.
pub(crate) struct Standing {
    pub(crate) id: EntityId,
    pub(crate) status: Status,
    pub(crate) parent: Option<EntityId>,
}

/// Those of these clients or channels that there are in this domain.
pub(crate) async fn standing(
    connection: &mut Connection,
    kind: Kind,
    domain: EntityId,
    ids: &[EntityId],
) -> Result<Vec<Standing>, StoreError> {
    let mut query = Builder::new("SELECT e.id, e.status, e.parent_group_id FROM ");
    query
        .push(table(kind))
        .push(" e WHERE COALESCE(e.domain_id, e.domain_id) = ")
        .push_bind(blob(domain))
        .push(" AND e.id IN (")
        .push_list(rows::set(ids))
        .push(")");
    let found = query.build().fetch_all(connection).await?;
    found
        .iter()
        .map(|row| {
            Ok(Standing {
                id: rows::id(&row.get::<Vec<u8>>("id")?)?,
                status: rows::status(row.get("status")?)?,
                parent: rows::maybe_id(row.get("parent_group_id")?)?,
            })
        })
        .collect()
}

/// Of each of these groups, itself and those above it, the group first.
pub(crate) async fn chains(
    connection: &mut Connection,
    groups: &[EntityId],
) -> Result<HashMap<EntityId, Vec<EntityId>>, StoreError> {
    if groups.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query = Builder::new("SELECT id, path FROM object_groups WHERE id IN (");
    query.push_list(rows::set(groups)).push(")");
    let found: Vec<(Vec<u8>, String)> = query.build_as().fetch_all(connection).await?;
    let chain = |(id, path): (Vec<u8>, String)| Ok((rows::id(&id)?, path_ids(&path)));
    found.into_iter().map(chain).collect()
}

/// A group and those above it, the group first; empty if there is none.
pub(crate) async fn chain(
    connection: &mut Connection,
    group: Option<EntityId>,
) -> Result<Vec<EntityId>, StoreError> {
    let Some(group) = group else {
        return Ok(Vec::new());
    };
    let found: Option<(String,)> = sql::query_as("SELECT path FROM object_groups WHERE id = $1")
        .bind(blob(group))
        .fetch_optional(connection)
        .await?;
    Ok(found.map_or_else(Vec::new, |(path,)| path_ids(&path)))
}

/// The ids of a path, the group itself first.
pub(crate) fn path_ids(path: &str) -> Vec<EntityId> {
    path.split('.')
        .rev()
        .filter_map(EntityId::from_text)
        .collect()
}

/// Groups above an object, its parent first.
pub(crate) async fn groups_of(
    connection: &mut Connection,
    entity: &Entity,
) -> Result<Vec<EntityId>, StoreError> {
    if entity.kind == Kind::Group {
        let mut groups = path_ids(&entity.path);
        groups.drain(..groups.len().min(1));
        return Ok(groups);
    }
    chain(connection, entity.parent).await
}

/// Groups above each of these objects, in their order, its parent first.
pub(crate) async fn groups_of_each(
    connection: &mut Connection,
    entities: &[Entity],
) -> Result<Vec<Vec<EntityId>>, StoreError> {
    let inside = entities.iter().filter(|entity| entity.kind != Kind::Group);
    let mut parents: Vec<EntityId> = inside.filter_map(|entity| entity.parent).collect();
    parents.sort_unstable();
    parents.dedup();
    let chains = chains(connection, &parents).await?;
    let groups = |entity: &Entity| match (entity.kind, entity.parent) {
        (Kind::Group, _) => path_ids(&entity.path).into_iter().skip(1).collect(),
        (_, Some(parent)) => chains.get(&parent).cloned().unwrap_or_default(),
        (_, None) => Vec::new(),
    };
    Ok(entities.iter().map(groups).collect())
}

impl Write {
    /// Inserts an object with its built-in role, whose first member is the creator. An id, route or
    /// secret that is taken is a unique violation.
    pub(crate) async fn insert_entity(&mut self, new: &Entity) -> Result<(), StoreError> {
        self.insert_entities(std::slice::from_ref(new)).await
    }

    /// [Inserts](Self::insert_entity) objects of one kind.
    pub(crate) async fn insert_entities(&mut self, new: &[Entity]) -> Result<(), StoreError> {
        if let Some(inside) = new.iter().find(|new| new.parent.is_some()) {
            self.regroup(inside.domain);
        }
        // Table by table, so that the pages of one are filled before those of the next.
        for new in new {
            let time = new.moved_at().micros();
            self.connection().note(new.domain, new.kind, time);
        }
        for part in new.chunks(ROWS_AT_ONCE) {
            insert_rows(self.connection(), part).await?;
        }
        made::note(self.connection(), new).await?;
        let marked: Vec<Marked<'_>> = new.iter().map(Entity::marked).collect();
        marks::insert(self.connection(), &marked).await?;
        roles::insert_builtins(self.connection(), new).await?;
        if new.len() >= MANY && self.connection().is_postgres() {
            // Until it looks by itself, a minute later, the server takes the tables for small.
            let sql = "ANALYZE clients, channels, object_groups, entity_tags, roles, role_members";
            sql::query(sql).execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Writes name, description, tags, metadata, parent, path and status back.
    pub(crate) async fn update_entity(&mut self, entity: &Entity) -> Result<(), StoreError> {
        let is_noted = self.note_stored(entity.kind, entity.id).await?;
        let time = entity.moved_at().micros();
        self.connection().note(entity.domain, entity.kind, time);
        let mut query = Builder::new("UPDATE ");
        query
            .push(table(entity.kind))
            .push(" SET name = ")
            .push_bind(&entity.name)
            .push(", tags = ")
            .push_bind(rows::json_text(&entity.tags))
            .push(", metadata = ")
            .push_bind(entity.metadata.to_string())
            .push(", parent_group_id = ")
            .push_bind(entity.parent.map(blob))
            .push(", status = ")
            .push_bind(rows::status_number(entity.status))
            .push(", updated_at = ")
            .push_bind(entity.updated_at.map(Time::micros))
            .push(", updated_by = ")
            .push_bind(entity.updated_by.map(blob));
        match entity.kind {
            Kind::Group => {
                query
                    .push(", description = ")
                    .push_bind(&entity.description)
                    .push(", path = ")
                    .push_bind(&entity.path);
            }
            Kind::Client => {
                query
                    .push(", private_metadata = ")
                    .push_bind(entity.private_metadata.to_string());
            }
            Kind::Channel | Kind::Domain => {}
        }
        query.push(" WHERE id = ").push_bind(blob(entity.id));
        let mut query = query.build();
        if is_noted {
            query = query.noted();
        }
        query.execute(self.connection()).await?;
        marks::replace(self.connection(), entity.marked()).await
    }

    /// Gives a client another secret, which is a new credential generation.
    pub(crate) async fn set_client_secret(
        &mut self,
        id: EntityId,
        digest: &[u8],
        sealed: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        sql::query(
            "UPDATE clients SET secret_digest = $1, secret_sealed = $2, credential = credential + 1 \
             WHERE id = $3",
        )
        .bind(digest)
        .bind(sealed)
        .bind(blob(id))
        .noted()
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Removes an object with its roles and tags. A group must have no members any more.
    pub(crate) async fn delete_entity(
        &mut self,
        kind: Kind,
        id: EntityId,
    ) -> Result<(), StoreError> {
        let is_noted = self.note_stored(kind, id).await?;
        let sql = format!("DELETE FROM {} WHERE id = $1", table(kind));
        for sql in [
            "DELETE FROM roles WHERE entity_id = $1".to_owned(),
            "DELETE FROM entity_tags WHERE entity_id = $1".to_owned(),
            sql,
        ] {
            let mut query = sql::query(AssertSqlSafe(sql)).bind(blob(id));
            if is_noted {
                query = query.noted();
            }
            query.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Notes an object as it is stored, before it changes. Not for groups and domains: on where they
    /// stand depends who sees what is in them.
    async fn note_stored(&mut self, kind: Kind, id: EntityId) -> Result<bool, StoreError> {
        match kind {
            Kind::Client | Kind::Channel => {}
            Kind::Group | Kind::Domain => return Ok(false),
        }
        let sql = format!(
            "SELECT domain_id, COALESCE(updated_at, created_at) FROM {} WHERE id = $1",
            table(kind)
        );
        let stored: Option<(Vec<u8>, i64)> = sql::query_as(AssertSqlSafe(sql))
            .bind(blob(id))
            .fetch_optional(self.connection())
            .await?;
        if let Some((domain, time)) = stored {
            let domain = rows::id(&domain)?;
            self.connection().note(domain, kind, time);
        }
        Ok(true)
    }
}

async fn insert_rows(c: &mut Connection, new: &[Entity]) -> Result<(), StoreError> {
    let Some(first) = new.first() else {
        return Ok(());
    };
    let mut query = Builder::new("INSERT INTO ");
    query.push(table(first.kind)).push(
        " (id, domain_id, name, tags, metadata, parent_group_id, status, created_at, created_by, ",
    );
    query.push(match first.kind {
        Kind::Group => "description, path) ",
        Kind::Channel => "route, open) ",
        Kind::Client | Kind::Domain => {
            "identity, private_metadata, secret_digest, secret_sealed, anonymous, credential) "
        }
    });
    query.push_rows(new, |new| {
        let mut row = vec![
            blob(new.id).into(),
            blob(new.domain).into(),
            (&new.name).into(),
            rows::json_text(&new.tags).into(),
            new.metadata.to_string().into(),
            new.parent.map(blob).into(),
            rows::status_number(new.status).into(),
            new.created_at.micros().into(),
            new.created_by.map(blob).into(),
        ];
        match new.kind {
            Kind::Group => row.extend([(&new.description).into(), (&new.path).into()]),
            Kind::Channel => row.extend([(&new.route).into(), new.open.into()]),
            Kind::Client | Kind::Domain => row.extend([
                (&new.identity).into(),
                new.private_metadata.to_string().into(),
                (&new.secret_digest).into(),
                (&new.secret_sealed).into(),
                new.anonymous.into(),
                1_i64.into(),
            ]),
        }
        row
    });
    query.build().noted().execute(c).await?;
    Ok(())
}
