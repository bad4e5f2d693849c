//! Clients in the database.

use super::sql::{self, Builder, Connection};
use authcache::{Change, EntityId, PrincipalRecord, Status};
use sqlx::AssertSqlSafe;

use super::entities::Entity;
use super::paging::List;
use super::rows::{self, blob};
use super::{Store, StoreError, Write};
use crate::grant::Kind;
use crate::model::{Client, Page, Time};

/// A client to insert.
pub(crate) struct NewClientRow<'a> {
    pub(crate) id: EntityId,
    pub(crate) domain: EntityId,
    pub(crate) name: &'a str,
    /// None for the client that stands for peers without credentials.
    pub(crate) secret_digest: Option<&'a [u8]>,
    pub(crate) secret_sealed: Option<Vec<u8>>,
    pub(crate) anonymous: bool,
    pub(crate) now: Time,
}

/// What identifying a client takes.
pub(crate) struct ClientAuth {
    pub(crate) id: EntityId,
    pub(crate) domain: EntityId,
    pub(crate) name: String,
    pub(crate) secret_digest: Option<Vec<u8>>,
    pub(crate) credential: u64,
    pub(crate) status: Status,
    pub(crate) domain_status: Status,
}

impl ClientAuth {
    /// Whether it may come in: neither it nor its domain is disabled.
    pub(crate) fn is_live(&self) -> bool {
        self.status.is_live() && self.domain_status.is_live()
    }
}

type AuthRow = (Vec<u8>, Vec<u8>, String, Option<Vec<u8>>, i64, i64, i64);

/// What [`auth`] reads; a client that a disabled group holds counts as disabled.
const AUTH: &str = "SELECT c.id, c.domain_id, c.name, c.secret_digest, c.credential, \
    CASE WHEN c.held = 1 THEN 1 ELSE c.status END, d.status \
    FROM clients c JOIN domains d ON d.id = c.domain_id WHERE";

fn auth(row: AuthRow) -> Result<ClientAuth, StoreError> {
    let (id, domain, name, secret_digest, credential, status, domain_status) = row;
    Ok(ClientAuth {
        id: rows::id(&id)?,
        domain: rows::id(&domain)?,
        name,
        secret_digest,
        credential: credential.cast_unsigned(),
        status: rows::status(status)?,
        domain_status: rows::status(domain_status)?,
    })
}

impl Write {
    /// Inserts a client, enabled. An id that is taken, or a secret that another client of the domain
    /// has, is a unique violation.
    pub(crate) async fn insert_client(&mut self, new: NewClientRow<'_>) -> Result<(), StoreError> {
        let entity = Entity {
            secret_digest: new.secret_digest.map(<[u8]>::to_vec),
            secret_sealed: new.secret_sealed,
            anonymous: new.anonymous,
            ..Entity::new(Kind::Client, new.id, new.domain, new.name, new.now)
        };
        self.insert_entity(&entity).await
    }

    pub(crate) async fn set_client_status(
        &mut self,
        id: EntityId,
        status: Status,
        now: Time,
    ) -> Result<(), StoreError> {
        sql::query("UPDATE clients SET status = $1, updated_at = $2 WHERE id = $3")
            .bind(rows::status_number(status))
            .bind(now.micros())
            .bind(blob(id))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Tells brokers what a client is now.
    pub(crate) async fn client_changed(&mut self, id: EntityId) -> Result<(), StoreError> {
        if let Some(client) = client_auth(self.connection(), id).await? {
            self.change(Change::PrincipalSet {
                id,
                kind: PrincipalRecord::Client {
                    domain: client.domain,
                },
                status: client.status,
                credential: client.credential,
            });
        }
        Ok(())
    }

    /// Removes a client and its connections.
    pub(crate) async fn delete_client(&mut self, id: EntityId) -> Result<(), StoreError> {
        self.delete_entity(Kind::Client, id).await
    }

    /// Whether another client of the domain has this secret.
    pub(crate) async fn secret_taken(
        &mut self,
        domain: EntityId,
        digest: &[u8],
    ) -> Result<bool, StoreError> {
        let found: Option<(i64,)> =
            sql::query_as("SELECT 1 FROM clients WHERE domain_id = $1 AND secret_digest = $2")
                .bind(blob(domain))
                .bind(digest)
                .fetch_optional(self.connection())
                .await?;
        Ok(found.is_some())
    }
}

impl Store {
    pub(crate) async fn list_clients(
        &self,
        domain: EntityId,
        page: Page,
    ) -> Result<(u64, Vec<Client>), StoreError> {
        let list = List {
            select: rows::CLIENT,
            from: "clients e",
            order: "e.created_at, e.id",
        };
        let narrow = |query: &mut Builder| {
            query.push("e.domain_id = ").push_bind(blob(domain));
        };
        let mut tx = self.read().await?;
        list.page(&mut tx, narrow, Some(page), rows::client).await
    }
}

/// The client of this domain with this id.
pub(crate) async fn client(
    connection: &mut Connection,
    domain: EntityId,
    id: EntityId,
) -> Result<Option<Client>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(rows::CLIENT)
        .push(" FROM clients e WHERE e.domain_id = ")
        .push_bind(blob(domain))
        .push(" AND e.id = ")
        .push_bind(blob(id));
    let found = query.build().fetch_optional(connection).await?;
    found.as_ref().map(rows::client).transpose()
}

/// The credential number of a client.
pub(crate) async fn client_auth(
    connection: &mut Connection,
    id: EntityId,
) -> Result<Option<ClientAuth>, StoreError> {
    let found: Option<AuthRow> = sql::query_as(AssertSqlSafe(format!("{AUTH} c.id = $1")))
        .bind(blob(id))
        .fetch_optional(connection)
        .await?;
    found.map(auth).transpose()
}

/// Those of these clients that there are.
pub(crate) async fn clients_auth(
    connection: &mut Connection,
    ids: &[EntityId],
) -> Result<Vec<ClientAuth>, StoreError> {
    let mut query = Builder::new(format!("{AUTH} c.id IN ("));
    query.push_list(rows::set(ids)).push(")");
    let found: Vec<AuthRow> = query.build_as().fetch_all(connection).await?;
    found.into_iter().map(auth).collect()
}

/// The client of this domain with this secret.
pub(crate) async fn client_auth_by_secret(
    connection: &mut Connection,
    domain: EntityId,
    digest: &[u8],
) -> Result<Option<ClientAuth>, StoreError> {
    let found: Option<AuthRow> = sql::query_as(AssertSqlSafe(format!(
        "{AUTH} c.domain_id = $1 AND c.secret_digest = $2"
    )))
    .bind(blob(domain))
    .bind(digest.to_vec())
    .fetch_optional(connection)
    .await?;
    found.map(auth).transpose()
}

/// Whether a client of this domain has this name and a secret.
pub(crate) async fn is_named(
    connection: &mut Connection,
    domain: EntityId,
    name: &str,
) -> Result<bool, StoreError> {
    let found: Option<(i64,)> = sql::query_as(
        "SELECT 1 FROM clients WHERE domain_id = $1 AND name = $2 AND anonymous = 0 LIMIT 1",
    )
    .bind(blob(domain))
    .bind(name)
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// The client of this domain that stands for peers without credentials.
pub(crate) async fn anonymous_client(
    connection: &mut Connection,
    domain: EntityId,
) -> Result<Option<ClientAuth>, StoreError> {
    let found: Option<AuthRow> = sql::query_as(AssertSqlSafe(format!(
        "{AUTH} c.domain_id = $1 AND c.anonymous = 1 ORDER BY c.created_at, c.id LIMIT 1"
    )))
    .bind(blob(domain))
    .fetch_optional(connection)
    .await?;
    found.map(auth).transpose()
}
