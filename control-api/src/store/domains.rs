//! Domains in the database.

use super::sql::{self, Builder, Connection};
use authcache::{EntityId, Status};

use super::marks::{self, Marked};
use super::paging::{List, order};
use super::rows::{self, blob};
use super::{Store, StoreError, Write, roles};
use crate::grant::Kind;
use crate::model::{Domain, Page, Time};

fn marked(domain: &Domain) -> Marked<'_> {
    Marked {
        domain: EntityId::SYS,
        kind: Kind::Domain.number(),
        id: domain.id,
        status: 0,
        moved_at: 0,
        tags: &domain.tags,
        metadata: &domain.metadata,
    }
}

impl Write {
    /// Inserts a domain. A route or id that is taken is a unique violation.
    pub(crate) async fn insert_domain(&mut self, domain: &Domain) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO domains (id, route, name, status, created_at, tags, metadata, created_by, \
             groups_block) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(blob(domain.id))
        .bind(&domain.route)
        .bind(&domain.name)
        .bind(rows::status_number(domain.status))
        .bind(domain.created_at.micros())
        .bind(rows::json_text(&domain.tags))
        .bind(domain.metadata.to_string())
        .bind(domain.created_by.map(blob))
        .bind(domain.groups_block)
        .execute(self.connection())
        .await?;
        marks::insert(self.connection(), &[marked(domain)]).await?;
        let (id, kind) = (domain.id, Kind::Domain);
        let creator = domain.created_by;
        roles::insert_builtin(self.connection(), id, kind, id, creator, domain.created_at).await
    }

    /// Writes name, tags, metadata, status and settings back.
    pub(crate) async fn update_domain(&mut self, domain: &Domain) -> Result<(), StoreError> {
        sql::query(
            "UPDATE domains SET name = $1, tags = $2, metadata = $3, status = $4, updated_at = $5, \
             updated_by = $6, deleted_at = $7, groups_block = $8 WHERE id = $9",
        )
        .bind(&domain.name)
        .bind(rows::json_text(&domain.tags))
        .bind(domain.metadata.to_string())
        .bind(rows::status_number(domain.status))
        .bind(domain.updated_at.map(Time::micros))
        .bind(domain.updated_by.map(blob))
        .bind(domain.deleted_at.map(Time::micros))
        .bind(domain.groups_block)
        .bind(blob(domain.id))
        .execute(self.connection())
        .await?;
        marks::replace(self.connection(), marked(domain)).await
    }

    /// Sets the status of a domain, which is not deleted from then on.
    pub(crate) async fn set_domain_status(
        &mut self,
        id: EntityId,
        status: Status,
        now: Time,
    ) -> Result<(), StoreError> {
        sql::query(
            "UPDATE domains SET status = $1, updated_at = $2, deleted_at = NULL WHERE id = $3",
        )
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
            sql::query(sql)
                .bind(blob(id))
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }
}

impl Store {
    pub(crate) async fn list_domains(&self, page: Page) -> Result<(u64, Vec<Domain>), StoreError> {
        let filter = DomainFilter {
            order: "e.created_at",
            ascending: true,
            ..DomainFilter::default()
        };
        list(&mut self.read().await?, &filter, page, false).await
    }
}

/// The domain with this id or this route; one that was deleted is none.
pub(crate) async fn domain(
    connection: &mut Connection,
    name: &str,
) -> Result<Option<Domain>, StoreError> {
    let found = kept_domain(connection, name).await?;
    Ok(found.filter(|domain| domain.deleted_at.is_none()))
}

/// Domains that were deleted before this time.
pub(crate) async fn deleted_before(
    connection: &mut Connection,
    before: Time,
) -> Result<Vec<EntityId>, StoreError> {
    let found: Vec<(Vec<u8>,)> =
        sql::query_as("SELECT id FROM domains WHERE deleted_at <= $1 ORDER BY deleted_at")
            .bind(before.micros())
            .fetch_all(connection)
            .await?;
    found.iter().map(|(id,)| rows::id(id)).collect()
}

/// The domain with this id or this route, deleted or not.
pub(crate) async fn kept_domain(
    connection: &mut Connection,
    name: &str,
) -> Result<Option<Domain>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query.push(rows::DOMAIN).push(" FROM domains e WHERE ");
    match EntityId::from_text(name) {
        // A UUID can only be the domain's own id, as route too.
        Some(id) => query.push("e.id = ").push_bind(blob(id)),
        None => query.push("e.route = ").push_bind(name),
    };
    let found = query.build().fetch_optional(connection).await?;
    found.as_ref().map(rows::domain).transpose()
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
    /// Whether those that were deleted are wanted, or the others; all if nobody says.
    pub(crate) deleted: Option<bool>,
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
    connection: &mut Connection,
    filter: &DomainFilter,
    page: Page,
    only_total: bool,
) -> Result<(u64, Vec<Domain>), StoreError> {
    let list = List {
        select: rows::DOMAIN,
        from: "domains e",
        order: &order(filter.order, filter.ascending),
    };
    let page = (!only_total).then_some(page);
    let narrow = |query: &mut Builder| narrow(query, filter);
    list.page(connection, narrow, page, rows::domain).await
}

fn narrow(query: &mut Builder, filter: &DomainFilter) {
    query.push(match filter.deleted {
        None => "1 = 1",
        Some(true) => "e.deleted_at IS NOT NULL",
        Some(false) => "e.deleted_at IS NULL",
    });
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
    let (tags, metadata) = (filter.tags.as_ref(), &filter.metadata);
    let kind = Kind::Domain.number();
    super::listing::marked(query, EntityId::SYS, kind, tags, metadata);
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
pub(crate) async fn all_domains(connection: &mut Connection) -> Result<Vec<Domain>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(rows::DOMAIN)
        .push(" FROM domains e ORDER BY e.created_at, e.id");
    let found = query.build().fetch_all(connection).await?;
    found.iter().map(rows::domain).collect()
}
