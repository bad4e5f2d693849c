//! Users in the database.

use super::sql::{self, Connection};
use authcache::{EntityId, Status};
use sqlx::AssertSqlSafe;

use super::rows::{self, blob};
use super::{StoreError, Write};
use crate::model::Time;

/// A user to insert.
pub(crate) struct NewUserRow<'a> {
    pub(crate) id: EntityId,
    pub(crate) username: &'a str,
    pub(crate) administrator: bool,
    /// Hash of the password, in the PHC string format.
    pub(crate) password: &'a str,
    pub(crate) now: Time,
}

/// What identifying a user takes.
pub(crate) struct UserAuth {
    pub(crate) id: EntityId,
    pub(crate) administrator: bool,
    pub(crate) password: String,
    pub(crate) credential: u64,
    pub(crate) status: Status,
    /// Tokens of earlier generations are void.
    pub(crate) tokens_from: u64,
    /// Whether its e-mail address was verified.
    pub(crate) verified: bool,
}

type AuthRow = (Vec<u8>, bool, String, i64, i64, i64, Option<i64>);

const AUTH: &str = "SELECT id, administrator, password, credential, status, tokens_from, \
    verified_at FROM users WHERE deleted_at IS NULL AND ";

fn auth(row: AuthRow) -> Result<UserAuth, StoreError> {
    let (id, administrator, password, credential, status, tokens_from, verified_at) = row;
    Ok(UserAuth {
        id: rows::id(&id)?,
        administrator,
        password,
        credential: credential.cast_unsigned(),
        status: rows::status(status)?,
        tokens_from: tokens_from.cast_unsigned(),
        verified: verified_at.is_some(),
    })
}

impl Write {
    /// Inserts a user, enabled.
    pub(crate) async fn insert_user(&mut self, new: NewUserRow<'_>) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO users (id, username, administrator, password, credential, tokens_from, \
             status, created_at) VALUES ($1, $2, $3, $4, 1, 1, $5, $6)",
        )
        .bind(blob(new.id))
        .bind(new.username)
        .bind(new.administrator)
        .bind(new.password)
        .bind(rows::status_number(Status::Enabled))
        .bind(new.now.micros())
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

/// Whether nobody has this user name, deleted users included.
pub(crate) async fn username_is_free(
    connection: &mut Connection,
    username: &str,
) -> Result<bool, StoreError> {
    is_free(connection, "username", username).await
}

/// Whether nobody has this e-mail address, deleted users included.
pub(crate) async fn email_is_free(
    connection: &mut Connection,
    email: &str,
) -> Result<bool, StoreError> {
    is_free(connection, "email", email).await
}

async fn is_free(
    connection: &mut Connection,
    column: &'static str,
    value: &str,
) -> Result<bool, StoreError> {
    let sql = format!("SELECT 1 FROM users WHERE {column} = $1");
    let found: Option<(i64,)> = sql::query_as(AssertSqlSafe(sql))
        .bind(value)
        .fetch_optional(connection)
        .await?;
    Ok(found.is_none())
}

/// Whether there is any user: if not, this is the first run.
pub(crate) async fn any_user(connection: &mut Connection) -> Result<bool, StoreError> {
    let found: Option<(i64,)> = sql::query_as("SELECT 1 FROM users LIMIT 1")
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// The user with this id.
pub(crate) async fn user_auth(
    connection: &mut Connection,
    id: EntityId,
) -> Result<Option<UserAuth>, StoreError> {
    let found: Option<AuthRow> = sql::query_as(AssertSqlSafe(format!("{AUTH} id = $1")))
        .bind(blob(id))
        .fetch_optional(connection)
        .await?;
    found.map(auth).transpose()
}

/// The user with this user name or e-mail address. Neither can be mistaken for the other.
pub(crate) async fn user_auth_by_login(
    connection: &mut Connection,
    login: &str,
) -> Result<Option<UserAuth>, StoreError> {
    let sql = format!("{AUTH} (username = $1 OR email = $1)");
    let found: Option<AuthRow> = sql::query_as(AssertSqlSafe(sql))
        .bind(login)
        .fetch_optional(connection)
        .await?;
    found.map(auth).transpose()
}
