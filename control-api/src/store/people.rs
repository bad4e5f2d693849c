//! Users as people see them: profiles, search, and what hangs on an account.

use authcache::{EntityId, Status};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::entities::replace_tags;
use super::rows::{self, blob};
use super::{StoreError, Write};
use crate::model::{Page, Time};

/// Number of users among the kinds that have tags.
const KIND: i64 = 4;

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

fn read(row: &SqliteRow) -> Result<Person, StoreError> {
    let time = |name| -> Result<Option<Time>, StoreError> {
        Ok(row.try_get::<Option<i64>, _>(name)?.map(Time::from_micros))
    };
    Ok(Person {
        id: rows::id(&row.try_get::<Vec<u8>, _>("id")?)?,
        username: row.try_get("username")?,
        email: row.try_get("email")?,
        first_name: row.try_get("first_name")?,
        last_name: row.try_get("last_name")?,
        tags: rows::json(row.try_get("tags")?)?,
        metadata: rows::json(row.try_get("metadata")?)?,
        private_metadata: rows::json(row.try_get("private_metadata")?)?,
        profile_picture: row.try_get("profile_picture")?,
        auth_provider: row.try_get("auth_provider")?,
        administrator: row.try_get("administrator")?,
        status: rows::status(row.try_get("status")?)?,
        credential: row.try_get::<i64, _>("credential")?.cast_unsigned(),
        verified_at: time("verified_at")?,
        created_at: Time::from_micros(row.try_get("created_at")?),
        updated_at: time("updated_at")?,
        updated_by: rows::maybe_id(row.try_get("updated_by")?)?,
        deleted_at: time("deleted_at")?,
    })
}

/// The user with this id, unless it is deleted.
pub(crate) async fn person(
    connection: &mut SqliteConnection,
    id: EntityId,
) -> Result<Option<Person>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
    query
        .push(COLUMNS)
        .push(" FROM users e WHERE e.deleted_at IS NULL AND e.id = ")
        .push_bind(blob(id));
    let row = query.build().fetch_optional(connection).await?;
    row.map(|row| read(&row)).transpose()
}

/// The user with this e-mail address, unless it is deleted.
pub(crate) async fn person_by_email(
    connection: &mut SqliteConnection,
    email: &str,
) -> Result<Option<Person>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
    query
        .push(COLUMNS)
        .push(" FROM users e WHERE e.deleted_at IS NULL AND e.email = ")
        .push_bind(email);
    let row = query.build().fetch_optional(connection).await?;
    row.map(|row| read(&row)).transpose()
}

/// A page of users.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    filter: &PeopleFilter,
    page: Page,
    only_total: bool,
) -> Result<(u64, Vec<Person>), StoreError> {
    let mut count = QueryBuilder::<Sqlite>::new("SELECT COUNT(*) FROM users e WHERE ");
    narrow(&mut count, filter);
    let (total,): (i64,) = count.build_query_as().fetch_one(&mut *connection).await?;
    if only_total {
        return Ok((total.cast_unsigned(), Vec::new()));
    }
    let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
    query.push(COLUMNS).push(" FROM users e WHERE ");
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
    let found = query.build().fetch_all(connection).await?;
    let found = found.iter().map(read).collect::<Result<_, _>>()?;
    Ok((total.cast_unsigned(), found))
}

fn narrow(query: &mut QueryBuilder<Sqlite>, filter: &PeopleFilter) {
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
    if let Some(tags) = &filter.tags {
        super::listing::tagged(query, EntityId::SYS, KIND, tags);
    }
    super::listing::metadata(query, &filter.metadata);
}

impl Write {
    /// Writes a profile back: everything but password and credential.
    pub(crate) async fn update_person(&mut self, person: &Person) -> Result<(), StoreError> {
        sqlx::query(
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
        replace_tags(
            self.connection(),
            EntityId::SYS,
            KIND,
            person.id,
            &person.tags,
        )
        .await
    }

    /// Begins a new credential generation; answers with it. With `void` the tokens of the earlier
    /// ones are good no longer.
    pub(crate) async fn raise_credential(
        &mut self,
        user: EntityId,
        void: bool,
    ) -> Result<u64, StoreError> {
        let (credential,): (i64,) = sqlx::query_as(
            "UPDATE users SET credential = credential + 1, \
             tokens_from = CASE WHEN $1 THEN credential + 1 ELSE tokens_from END \
             WHERE id = $2 RETURNING credential",
        )
        .bind(void)
        .bind(blob(user))
        .fetch_one(self.connection())
        .await?;
        if void {
            sqlx::query("DELETE FROM sessions WHERE user_id = $1")
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
        sqlx::query("UPDATE users SET password = $1 WHERE id = $2")
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
        ] {
            sqlx::query(sql)
                .bind(blob(user))
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }

    /// Removes for good the users that were deleted before `before`.
    pub(crate) async fn purge_users(&mut self, before: Time) -> Result<u64, StoreError> {
        sqlx::query(
            "DELETE FROM entity_tags WHERE entity_id IN \
             (SELECT id FROM users WHERE deleted_at < $1)",
        )
        .bind(before.micros())
        .execute(self.connection())
        .await?;
        let done = sqlx::query("DELETE FROM users WHERE deleted_at < $1")
            .bind(before.micros())
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected())
    }
}
