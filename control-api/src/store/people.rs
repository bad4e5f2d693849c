//! Users as people see them: profiles, search, and what hangs on an account.

use super::sql::{self, Builder, Connection, Row};
use authcache::{EntityId, Status};
use serde_json::Value;

use super::marks::{self, Marked};
use super::paging::{List, order};
use super::rows::{self, blob};
use super::{StoreError, Write};
use crate::model::{Page, Time};

/// Number of users among the kinds that have tags.
pub(super) const KIND: i64 = 4;

/// A user with its profile.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: EntityId,
    pub(crate) username: String,
    pub(crate) email: Option<String>,
    pub(crate) first_name: String,
    pub(crate) last_name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Value,
    pub(crate) private_metadata: Value,
    pub(crate) profile_picture: String,
    pub(crate) auth_provider: String,
    pub(crate) administrator: bool,
    pub(crate) status: Status,
    pub(crate) credential: u64,
    pub(crate) verified_at: Option<Time>,
    pub(crate) created_at: Time,
    pub(crate) updated_at: Option<Time>,
    pub(crate) updated_by: Option<EntityId>,
    pub(crate) deleted_at: Option<Time>,
}

/// What a list of users is narrowed by. Texts match parts, in any letter case.
#[derive(Debug, Default)]
pub(crate) struct PeopleFilter {
    pub(crate) id: Option<EntityId>,
    pub(crate) username: Option<String>,
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) tags: Option<super::listing::Tags>,
    pub(crate) metadata: Vec<(String, Value)>,
    /// None for all but deleted ones.
    pub(crate) status: Option<Status>,
    pub(crate) deleted: bool,
    pub(crate) ordinary_only: bool,
    pub(crate) order: &'static str,
    pub(crate) ascending: bool,
}

const COLUMNS: &str = "e.id, e.username, e.email, e.first_name, e.last_name, e.tags, e.metadata, \
    e.private_metadata, e.profile_picture, e.auth_provider, e.administrator, e.status, e.credential, \
    e.verified_at, e.created_at, e.updated_at, e.updated_by, e.deleted_at";

fn read(row: &Row) -> Result<Person, StoreError> {
    let time = |name| -> Result<Option<Time>, StoreError> {
        Ok(row.get::<Option<i64>>(name)?.map(Time::from_micros))
    };
    Ok(Person {
        id: rows::id(&row.get::<Vec<u8>>("id")?)?,
        username: row.get("username")?,
        email: row.get("email")?,
        first_name: row.get("first_name")?,
        last_name: row.get("last_name")?,
        tags: rows::json(&row.get::<String>("tags")?)?,
        metadata: rows::json(&row.get::<String>("metadata")?)?,
        private_metadata: rows::json(&row.get::<String>("private_metadata")?)?,
        profile_picture: row.get("profile_picture")?,
        auth_provider: row.get("auth_provider")?,
        administrator: row.get("administrator")?,
        status: rows::status(row.get("status")?)?,
        credential: row.get::<i64>("credential")?.cast_unsigned(),
        verified_at: time("verified_at")?,
        created_at: Time::from_micros(row.get("created_at")?),
        updated_at: time("updated_at")?,
        updated_by: rows::maybe_id(row.get("updated_by")?)?,
        deleted_at: time("deleted_at")?,
    })
}

/// The user with this id, unless it is deleted.
pub(crate) async fn person(
    connection: &mut Connection,
    id: EntityId,
) -> Result<Option<Person>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(COLUMNS)
        .push(" FROM users e WHERE e.deleted_at IS NULL AND e.id = ")
        .push_bind(blob(id));
    let row = query.build().fetch_optional(connection).await?;
    row.map(|row| read(&row)).transpose()
}

/// The user with this e-mail address, unless it is deleted.
pub(crate) async fn person_by_email(
    connection: &mut Connection,
    email: &str,
) -> Result<Option<Person>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(COLUMNS)
        .push(" FROM users e WHERE e.deleted_at IS NULL AND e.email = ")
        .push_bind(email);
    let row = query.build().fetch_optional(connection).await?;
    row.map(|row| read(&row)).transpose()
}

/// A page of users.
pub(crate) async fn list(
    connection: &mut Connection,
    filter: &PeopleFilter,
    page: Page,
    only_total: bool,
) -> Result<(u64, Vec<Person>), StoreError> {
    let list = List {
        select: COLUMNS,
        from: "users e",
        order: &order(filter.order, filter.ascending),
    };
    let page = (!only_total).then_some(page);
    let narrow = |query: &mut Builder| narrow(query, filter);
    list.page(connection, narrow, page, read).await
}

fn narrow(query: &mut Builder, filter: &PeopleFilter) {
    query.push(if filter.deleted {
        "e.deleted_at IS NOT NULL"
    } else {
        "e.deleted_at IS NULL"
    });
    if let Some(status) = filter.status {
        query
            .push(" AND e.status = ")
            .push_bind(rows::status_number(status));
    }
    if let Some(id) = filter.id {
        query.push(" AND e.id = ").push_bind(blob(id));
    }
    if filter.ordinary_only {
        query.push(" AND e.administrator = 0");
    }
    for (column, part) in [
        ("e.username", &filter.username),
        ("e.first_name", &filter.first_name),
        ("e.last_name", &filter.last_name),
        ("e.email", &filter.email),
    ] {
        if let Some(part) = part {
            super::listing::contains(query, column, part);
        }
    }
    let (tags, metadata) = (filter.tags.as_ref(), &filter.metadata);
    super::listing::marked(query, EntityId::SYS, KIND, tags, metadata);
}

impl Write {
    /// Writes a profile back: everything but password and credential.
    pub(crate) async fn update_person(&mut self, person: &Person) -> Result<(), StoreError> {
        sql::query(
            "UPDATE users SET username = $1, email = $2, first_name = $3, last_name = $4, tags = $5, \
             metadata = $6, private_metadata = $7, profile_picture = $8, administrator = $9, \
             status = $10, verified_at = $11, updated_at = $12, updated_by = $13, deleted_at = $14 \
             WHERE id = $15",
        )
        .bind(&person.username)
        .bind(&person.email)
        .bind(&person.first_name)
        .bind(&person.last_name)
        .bind(rows::json_text(&person.tags))
        .bind(person.metadata.to_string())
        .bind(person.private_metadata.to_string())
        .bind(&person.profile_picture)
        .bind(person.administrator)
        .bind(rows::status_number(person.status))
        .bind(person.verified_at.map(Time::micros))
        .bind(person.updated_at.map(Time::micros))
        .bind(person.updated_by.map(blob))
        .bind(person.deleted_at.map(Time::micros))
        .bind(blob(person.id))
        .execute(self.connection())
        .await?;
        let marked = Marked {
            domain: EntityId::SYS,
            kind: KIND,
            id: person.id,
            status: 0,
            moved_at: 0,
            tags: &person.tags,
            metadata: &person.metadata,
        };
        marks::replace(self.connection(), marked).await
    }

    /// Begins a new credential generation; answers with it. With `void` the tokens of the earlier
    /// ones are good no longer.
    pub(crate) async fn raise_credential(
        &mut self,
        user: EntityId,
        void: bool,
    ) -> Result<u64, StoreError> {
        let (credential,): (i64,) = sql::query_as(
            "UPDATE users SET credential = credential + 1, \
             tokens_from = CASE WHEN $1 <> 0 THEN credential + 1 ELSE tokens_from END \
             WHERE id = $2 RETURNING credential",
        )
        .bind(void)
        .bind(blob(user))
        .fetch_one(self.connection())
        .await?;
        if void {
            sql::query("DELETE FROM sessions WHERE user_id = $1")
                .bind(blob(user))
                .execute(self.connection())
                .await?;
        }
        Ok(credential.cast_unsigned())
    }

    /// Sets another password.
    pub(crate) async fn set_password(
        &mut self,
        user: EntityId,
        hash: &str,
    ) -> Result<(), StoreError> {
        sql::query("UPDATE users SET password = $1 WHERE id = $2")
            .bind(hash)
            .bind(blob(user))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Removes everything that lets a user act: memberships, tokens, invitations.
    pub(crate) async fn strip_user(&mut self, user: EntityId) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM role_members WHERE user_id = $1",
            "DELETE FROM sessions WHERE user_id = $1",
            "DELETE FROM pats WHERE user_id = $1",
            "DELETE FROM invitations WHERE invitee = $1",
            "DELETE FROM mail_tokens WHERE user_id = $1",
            "DELETE FROM foreign_logins WHERE user_id = $1",
        ] {
            sql::query(sql)
                .bind(blob(user))
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }

    /// Removes for good the users that were deleted before `before`.
    pub(crate) async fn purge_users(&mut self, before: Time) -> Result<u64, StoreError> {
        sql::query(
            "DELETE FROM entity_tags WHERE entity_id IN \
             (SELECT id FROM users WHERE deleted_at < $1)",
        )
        .bind(before.micros())
        .execute(self.connection())
        .await?;
        let done = sql::query("DELETE FROM users WHERE deleted_at < $1")
            .bind(before.micros())
            .execute(self.connection())
            .await?;
        Ok(done)
    }
}
