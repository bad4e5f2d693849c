//! Domains in the database.

use authcache::{EntityId, Status};
use sqlx::SqliteConnection;

use super::rows::{self, blob};
use super::{Store, StoreError, Write};
use crate::model::{Domain, Page, Time};

impl Write {
    /// Inserts a domain. A route or id that is taken is a unique violation.
    pub(crate) async fn insert_domain(&mut self, domain: &Domain) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO domains (id, route, name, status, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(blob(domain.id))
        .bind(&domain.route)
        .bind(&domain.name)
        .bind(rows::status_number(domain.status))
        .bind(domain.created_at.micros())
        .execute(self.connection())
        .await?;
        Ok(())
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
        sqlx::query("DELETE FROM domains WHERE id = $1")
            .bind(blob(id))
            .execute(self.connection())
            .await?;
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
            "SELECT id, route, name, status, created_at, updated_at FROM domains \
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
            "SELECT id, route, name, status, created_at, updated_at FROM domains WHERE id = $1",
        )
        .bind(blob(id)),
        None => sqlx::query_as::<_, rows::DomainRow>(
            "SELECT id, route, name, status, created_at, updated_at FROM domains WHERE route = $1",
        )
        .bind(name.to_owned()),
    };
    query
        .fetch_optional(connection)
        .await?
        .map(rows::domain)
        .transpose()
}

/// All domains, oldest first.
pub(crate) async fn all_domains(
    connection: &mut SqliteConnection,
) -> Result<Vec<Domain>, StoreError> {
    let found: Vec<rows::DomainRow> = sqlx::query_as(
        "SELECT id, route, name, status, created_at, updated_at FROM domains ORDER BY created_at, id",
    )
    .fetch_all(connection)
    .await?;
    found.into_iter().map(rows::domain).collect()
}
