//! Domains in the database.

use authcache::{EntityId, Status};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::entities::{insert_tags, replace_tags};
use super::rows::{self, blob};
use super::{Store, StoreError, Write, roles};
use crate::grant::Kind;
use crate::model::{Domain, Page, Time};

impl Write {
    /// Inserts a domain. A route or id that is taken is a unique violation.
    pub(crate) async fn insert_domain(&mut self, domain: &Domain) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO domains (id, route, name, status, created_at, tags, metadata, created_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(blob(domain.id))
        .bind(&domain.route)
        .bind(&domain.name)
        .bind(rows::status_number(domain.status))
        .bind(domain.created_at.micros())
        .bind(rows::json_text(&domain.tags))
        .bind(domain.metadata.to_string())
        .bind(domain.created_by.map(blob))
        .execute(self.connection())
        .await?;
        let (id, kind) = (domain.id, Kind::Domain);
        insert_tags(
            self.connection(),
            EntityId::SYS,
            kind.number(),
            id,
            &domain.tags,
        )
        .await?;
        let creator = domain.created_by;
        roles::insert_builtin(self.connection(), id, kind, id, creator, domain.created_at).await
    }

    /// Writes name, tags, metadata and status back.
    pub(crate) async fn update_domain(&mut self, domain: &Domain) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE domains SET name = $1, tags = $2, metadata = $3, status = $4, updated_at = $5, \
             updated_by = $6 WHERE id = $7",
        )
        .bind(&domain.name)
        .bind(rows::json_text(&domain.tags))
        .bind(domain.metadata.to_string())
        .bind(rows::status_number(domain.status))
        .bind(domain.updated_at.map(Time::micros))
        .bind(domain.updated_by.map(blob))
        .bind(blob(domain.id))
        .execute(self.connection())
        .await?;
        let (kind, id) = (Kind::Domain.number(), domain.id);
        replace_tags(self.connection(), EntityId::SYS, kind, id, &domain.tags).await
    }

    pub(crate) async fn set_domain_status(
        &mut self,
        id: EntityId,
        status: Status,
        now: Time,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE domains SET status = $1, updated_at = $2 WHERE id = $3")
            .bind(rows::status_number(status))
            .bind(now.micros())
            .bind(blob(id))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Removes a domain and everything inside.
    pub(crate) async fn delete_domain(&mut self, id: EntityId) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM entity_tags WHERE domain_id = $1 OR entity_id = $1",
            "DELETE FROM pat_scopes WHERE domain_id = $1",
            "DELETE FROM domains WHERE id = $1",
        ] {
            sqlx::query(sql)
                .bind(blob(id))
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }
}

impl Store {
    pub(crate) async fn list_domains(&self, page: Page) -> Result<(u64, Vec<Domain>), StoreError> {
        let (mut tx, _) = self.read_at().await?;
        let (total,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM domains")
            .fetch_one(&mut *tx)
            .await?;
        let found: Vec<rows::DomainRow> = sqlx::query_as(
            "SELECT id, route, name, status, created_at, updated_at, tags, metadata, created_by, updated_by \
             FROM domains \
             ORDER BY created_at, id LIMIT $1 OFFSET $2",
        )
        .bind(page.limit.cast_signed())
        .bind(page.offset.cast_signed())
        .fetch_all(&mut *tx)
        .await?;
        let found = found
            .into_iter()
            .map(rows::domain)
            .collect::<Result<_, _>>()?;
        Ok((total.cast_unsigned(), found))
    }
}

/// The domain with this id or this route.
pub(crate) async fn domain(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Domain>, StoreError> {
    let query = match EntityId::from_text(name) {
        // A UUID can only be the domain's own id, as route too.
        Some(id) => sqlx::query_as::<_, rows::DomainRow>(
            "SELECT id, route, name, status, created_at, updated_at, tags, metadata, created_by, updated_by \
             FROM domains WHERE id = $1",
        )
        .bind(blob(id)),
        None => sqlx::query_as::<_, rows::DomainRow>(
            "SELECT id, route, name, status, created_at, updated_at, tags, metadata, created_by, updated_by \
             FROM domains WHERE route = $1",
        )
        .bind(name.to_owned()),
    };
    query
        .fetch_optional(connection)
        .await?
        .map(rows::domain)
        .transpose()
}

/// What a list of domains is narrowed by.
#[derive(Debug, Default)]
pub(crate) struct DomainFilter {
    /// In which this user has a role.
    pub(crate) member: Option<EntityId>,
    pub(crate) id: Option<EntityId>,
    pub(crate) name: Option<String>,
    pub(crate) route: Option<String>,
    pub(crate) tags: Option<super::listing::Tags>,
    pub(crate) metadata: Vec<(String, serde_json::Value)>,
    /// Nothing passes.
    pub(crate) none: bool,
    pub(crate) status: Option<Status>,
    pub(crate) role_id: Option<String>,
    pub(crate) role_name: Option<String>,
    pub(crate) created_from: Option<Time>,
    pub(crate) created_to: Option<Time>,
    /// A column or expression, never a caller's text.
    pub(crate) order: &'static str,
    pub(crate) ascending: bool,
}

/// A page of domains.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    filter: &DomainFilter,
    page: Page,
    only_total: bool,
) -> Result<(u64, Vec<Domain>), StoreError> {
    let mut count = QueryBuilder::<Sqlite>::new("SELECT COUNT(*) FROM domains e WHERE ");
    narrow(&mut count, filter);
    let (total,): (i64,) = count.build_query_as().fetch_one(&mut *connection).await?;
    if only_total {
        return Ok((total.cast_unsigned(), Vec::new()));
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT e.id, e.route, e.name, e.status, e.created_at, e.updated_at, e.tags, e.metadata, \
         e.created_by, e.updated_by FROM domains e WHERE ",
    );
    narrow(&mut query, filter);
    let direction = if filter.ascending { "ASC" } else { "DESC" };
    query
        .push(format!(
            " ORDER BY {} {direction}, e.id {direction} LIMIT ",
            filter.order
        ))
        .push_bind(page.limit.cast_signed())
        .push(" OFFSET ")
        .push_bind(page.offset.cast_signed());
    let found: Vec<rows::DomainRow> = query.build_query_as().fetch_all(connection).await?;
    let found = found
        .into_iter()
        .map(rows::domain)
        .collect::<Result<_, _>>()?;
    Ok((total.cast_unsigned(), found))
}

fn narrow(query: &mut QueryBuilder<Sqlite>, filter: &DomainFilter) {
    query.push(if filter.none { "1 = 0" } else { "1 = 1" });
    if let Some(member) = filter.member {
        query
            .push(
                " AND e.id IN (SELECT m.entity_id FROM role_members m JOIN roles r \
                 ON r.id = m.role_id WHERE r.kind = 0 AND m.user_id = ",
            )
            .push_bind(blob(member));
        for (column, wanted) in [("id", &filter.role_id), ("name", &filter.role_name)] {
            if let Some(wanted) = wanted {
                query.push(format!(" AND r.{column} = ")).push_bind(wanted);
            }
        }
        query.push(")");
    }
    if let Some(id) = filter.id {
        query.push(" AND e.id = ").push_bind(blob(id));
    }
    if let Some(name) = &filter.name {
        super::listing::contains(query, "e.name", name);
    }
    if let Some(route) = &filter.route {
        query.push(" AND e.route = ").push_bind(route);
    }
    if let Some(tags) = &filter.tags {
        super::listing::tagged(query, EntityId::SYS, Kind::Domain.number(), tags);
    }
    super::listing::metadata(query, &filter.metadata);
    if let Some(status) = filter.status {
        query
            .push(" AND e.status = ")
            .push_bind(rows::status_number(status));
    }
    if let Some(from) = filter.created_from {
        query.push(" AND e.created_at >= ").push_bind(from.micros());
    }
    if let Some(to) = filter.created_to {
        query.push(" AND e.created_at <= ").push_bind(to.micros());
    }
}

/// All domains, oldest first.
pub(crate) async fn all_domains(
    connection: &mut SqliteConnection,
) -> Result<Vec<Domain>, StoreError> {
    let found: Vec<rows::DomainRow> = sqlx::query_as(
        "SELECT id, route, name, status, created_at, updated_at, tags, metadata, created_by, updated_by \
             FROM domains ORDER BY created_at, id",
    )
    .fetch_all(connection)
    .await?;
    found.into_iter().map(rows::domain).collect()
}
