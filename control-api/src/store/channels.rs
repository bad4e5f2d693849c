//! Channels and connections in the database.

use authcache::{EntityId, Right, Status};
use sqlx::SqliteConnection;

use super::rows::{self, blob};
use super::{Store, StoreError, Write};
use crate::model::{Channel, Page, Time};

/// A channel to insert.
pub(crate) struct NewChannelRow<'a> {
    pub(crate) id: EntityId,
    pub(crate) domain: EntityId,
    pub(crate) route: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) open: bool,
    pub(crate) now: Time,
}

impl Write {
    /// Inserts a channel, enabled. A route or id that is taken is a unique violation.
    pub(crate) async fn insert_channel(
        &mut self,
        new: NewChannelRow<'_>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO channels (id, domain_id, route, name, status, open, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(blob(new.id))
        .bind(blob(new.domain))
        .bind(new.route)
        .bind(new.name)
        .bind(rows::status_number(Status::Enabled))
        .bind(new.open)
        .bind(new.now.micros())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub(crate) async fn set_channel_status(
        &mut self,
        id: EntityId,
        status: Status,
        now: Time,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE channels SET status = $1, updated_at = $2 WHERE id = $3")
            .bind(rows::status_number(status))
            .bind(now.micros())
            .bind(blob(id))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Removes a channel and its connections.
    pub(crate) async fn delete_channel(&mut self, id: EntityId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM channels WHERE id = $1")
            .bind(blob(id))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// What a connection permits now; nothing if there is none.
    pub(crate) async fn connection_right(
        &mut self,
        client: EntityId,
        channel: EntityId,
    ) -> Result<Right, StoreError> {
        let found: Option<(i64,)> = sqlx::query_as(
            "SELECT rights FROM connections WHERE client_id = $1 AND channel_id = $2",
        )
        .bind(blob(client))
        .bind(blob(channel))
        .fetch_optional(self.connection())
        .await?;
        found.map_or(Ok(Right::NONE), |(number,)| rows::right(number))
    }

    /// Sets what a connection permits; nothing removes it.
    pub(crate) async fn set_connection_right(
        &mut self,
        client: EntityId,
        channel: EntityId,
        right: Right,
        now: Time,
    ) -> Result<(), StoreError> {
        let query = if right.is_empty() {
            sqlx::query("DELETE FROM connections WHERE client_id = $1 AND channel_id = $2")
                .bind(blob(client))
                .bind(blob(channel))
        } else {
            sqlx::query(
                "INSERT INTO connections (client_id, channel_id, rights, created_at) \
                 VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (client_id, channel_id) DO UPDATE SET rights = excluded.rights",
            )
            .bind(blob(client))
            .bind(blob(channel))
            .bind(i64::from(right.bits()))
            .bind(now.micros())
        };
        query.execute(self.connection()).await?;
        Ok(())
    }

    /// Connections of one client.
    pub(crate) async fn connections_of(&mut self, client: EntityId) -> Result<u64, StoreError> {
        let (count,): (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM connections WHERE client_id = $1")
                .bind(blob(client))
                .fetch_one(self.connection())
                .await?;
        Ok(count.cast_unsigned())
    }
}

impl Store {
    pub(crate) async fn list_channels(
        &self,
        domain: EntityId,
        page: Page,
    ) -> Result<(u64, Vec<Channel>), StoreError> {
        let (mut tx, _) = self.read_at().await?;
        let (total,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM channels WHERE domain_id = $1")
            .bind(blob(domain))
            .fetch_one(&mut *tx)
            .await?;
        let found: Vec<rows::ChannelRow> = sqlx::query_as(
            "SELECT id, domain_id, route, name, status, open, created_at, updated_at \
             FROM channels WHERE domain_id = $1 ORDER BY created_at, id LIMIT $2 OFFSET $3",
        )
        .bind(blob(domain))
        .bind(page.limit.cast_signed())
        .bind(page.offset.cast_signed())
        .fetch_all(&mut *tx)
        .await?;
        let found = found
            .into_iter()
            .map(rows::channel)
            .collect::<Result<_, _>>()?;
        Ok((total.cast_unsigned(), found))
    }
}

/// The channel of this domain with this id or this route.
pub(crate) async fn channel(
    connection: &mut SqliteConnection,
    domain: EntityId,
    name: &str,
) -> Result<Option<Channel>, StoreError> {
    let query = match EntityId::from_text(name) {
        Some(id) => sqlx::query_as::<_, rows::ChannelRow>(
            "SELECT id, domain_id, route, name, status, open, created_at, updated_at \
             FROM channels WHERE domain_id = $1 AND id = $2",
        )
        .bind(blob(domain))
        .bind(blob(id)),
        None => sqlx::query_as::<_, rows::ChannelRow>(
            "SELECT id, domain_id, route, name, status, open, created_at, updated_at \
             FROM channels WHERE domain_id = $1 AND route = $2",
        )
        .bind(blob(domain))
        .bind(name.to_owned()),
    };
    query
        .fetch_optional(connection)
        .await?
        .map(rows::channel)
        .transpose()
}

/// The open channel of a domain.
pub(crate) async fn open_channel(
    connection: &mut SqliteConnection,
    domain: EntityId,
) -> Result<Option<Channel>, StoreError> {
    let found: Option<rows::ChannelRow> = sqlx::query_as(
        "SELECT id, domain_id, route, name, status, open, created_at, updated_at \
         FROM channels WHERE domain_id = $1 AND open = 1",
    )
    .bind(blob(domain))
    .fetch_optional(connection)
    .await?;
    found.map(rows::channel).transpose()
}

/// Whether a channel with this id exists in any domain.
pub(crate) async fn channel_exists(
    connection: &mut SqliteConnection,
    id: EntityId,
) -> Result<bool, StoreError> {
    let found: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM channels WHERE id = $1")
        .bind(blob(id))
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// All channels, oldest first.
pub(crate) async fn all_channels(
    connection: &mut SqliteConnection,
) -> Result<Vec<Channel>, StoreError> {
    let found: Vec<rows::ChannelRow> = sqlx::query_as(
        "SELECT id, domain_id, route, name, status, open, created_at, updated_at \
         FROM channels ORDER BY created_at, id",
    )
    .fetch_all(connection)
    .await?;
    found.into_iter().map(rows::channel).collect()
}

/// What a client may do, channel by channel.
pub(crate) async fn rights_of(
    connection: &mut SqliteConnection,
    client: EntityId,
) -> Result<Vec<(EntityId, Right)>, StoreError> {
    let found: Vec<(Vec<u8>, i64)> =
        sqlx::query_as("SELECT channel_id, rights FROM connections WHERE client_id = $1")
            .bind(blob(client))
            .fetch_all(connection)
            .await?;
    found
        .into_iter()
        .map(|(channel, number)| Ok((rows::id(&channel)?, rows::right(number)?)))
        .collect()
}
