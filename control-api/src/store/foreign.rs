//! Users who log in elsewhere: the provider's name for each.

use authcache::EntityId;

use super::rows::{self, blob};
use super::sql::{self, Connection};
use super::{StoreError, Write};

/// The user whom a provider calls this.
pub(crate) async fn user(
    connection: &mut Connection,
    provider: &str,
    subject: &str,
) -> Result<Option<EntityId>, StoreError> {
    let found: Option<(Vec<u8>,)> =
        sql::query_as("SELECT user_id FROM foreign_logins WHERE provider = $1 AND subject = $2")
            .bind(provider)
            .bind(subject)
            .fetch_optional(connection)
            .await?;
    found.map(|(id,)| rows::id(&id)).transpose()
}

impl Write {
    /// Notes what a provider calls a user; whoever was called that before is forgotten.
    pub(crate) async fn know_user(
        &mut self,
        provider: &str,
        subject: &str,
        user: EntityId,
    ) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO foreign_logins (provider, subject, user_id) VALUES ($1, $2, $3) \
             ON CONFLICT (provider, subject) DO UPDATE SET user_id = excluded.user_id",
        )
        .bind(provider)
        .bind(subject)
        .bind(blob(user))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Lets a provider keep a user's name, address and picture.
    pub(crate) async fn set_auth_provider(
        &mut self,
        user: EntityId,
        provider: &str,
    ) -> Result<(), StoreError> {
        sql::query("UPDATE users SET auth_provider = $1 WHERE id = $2")
            .bind(provider)
            .bind(blob(user))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
