//! Signing keys in the database.

use super::sql::{self, Connection, Row};

use super::{StoreError, Write};
use crate::model::Time;

/// A signing key, its private half sealed.
pub(crate) struct KeyRow {
    pub(crate) kid: String,
    pub(crate) public_key: Vec<u8>,
    pub(crate) private_key: Vec<u8>,
    pub(crate) retired: bool,
    pub(crate) created_at: Time,
}

impl Write {
    /// Lets the keys there are sign no more, and forgets those that ceased to before `before`.
    pub(crate) async fn retire_keys(&mut self, now: Time, before: Time) -> Result<(), StoreError> {
        sql::query("UPDATE signing_keys SET retired_at = $1 WHERE retired_at IS NULL")
            .bind(now.micros())
            .execute(self.connection())
            .await?;
        sql::query("DELETE FROM signing_keys WHERE retired_at < $1")
            .bind(before.micros())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Forgets all keys.
    pub(crate) async fn delete_keys(&mut self) -> Result<(), StoreError> {
        sql::query("DELETE FROM signing_keys")
            .execute(self.connection())
            .await?;
        Ok(())
    }

    pub(crate) async fn insert_key(&mut self, key: &KeyRow) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO signing_keys (kid, public_key, private_key, created_at) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(&key.kid)
        .bind(&key.public_key)
        .bind(&key.private_key)
        .bind(key.created_at.micros())
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

/// All signing keys, newest first.
pub(crate) async fn keys(connection: &mut Connection) -> Result<Vec<KeyRow>, StoreError> {
    let found = sql::query("SELECT * FROM signing_keys ORDER BY created_at DESC, kid")
        .fetch_all(connection)
        .await?;
    found.iter().map(read).collect()
}

fn read(row: &Row) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        kid: row.get("kid")?,
        public_key: row.get("public_key")?,
        private_key: row.get("private_key")?,
        retired: row.get::<Option<i64>>("retired_at")?.is_some(),
        created_at: Time::from_micros(row.get("created_at")?),
    })
}
