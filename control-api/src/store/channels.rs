//! Channels and connections in the database.

use super::sql::{self, Builder, Connection};
use authcache::{Action, EntityId, Right, Status};

use super::entities::Entity;
use super::paging::List;
use super::rows::{self, blob};
use super::{Store, StoreError, Write};
use crate::grant::Kind;
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
        let entity = Entity {
            route: new.route.map(str::to_owned),
            open: new.open,
            ..Entity::new(Kind::Channel, new.id, new.domain, new.name, new.now)
        };
        self.insert_entity(&entity).await
    }

    pub(crate) async fn set_channel_status(
        &mut self,
        id: EntityId,
        status: Status,
        now: Time,
    ) -> Result<(), StoreError> {
        sql::query("UPDATE channels SET status = $1, updated_at = $2 WHERE id = $3")
            .bind(rows::status_number(status))
            .bind(now.micros())
            .bind(blob(id))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Removes a channel and its connections.
    pub(crate) async fn delete_channel(&mut self, id: EntityId) -> Result<(), StoreError> {
        self.delete_entity(Kind::Channel, id).await
    }

    /// What a connection permits now; nothing if there is none.
    pub(crate) async fn connection_right(
        &mut self,
        client: EntityId,
        channel: EntityId,
    ) -> Result<Right, StoreError> {
        let found: Option<(i64,)> = sql::query_as(
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
            sql::query("DELETE FROM connections WHERE client_id = $1 AND channel_id = $2")
                .bind(blob(client))
                .bind(blob(channel))
        } else {
            sql::query(
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
            sql::query_as("SELECT COUNT(*) FROM connections WHERE client_id = $1")
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
        let list = List {
            select: rows::CHANNEL,
            from: "channels e",
            order: "e.created_at, e.id",
        };
        let narrow = |query: &mut Builder| {
            query.push("e.domain_id = ").push_bind(blob(domain));
        };
        let mut tx = self.read().await?;
        list.page(&mut tx, narrow, Some(page), rows::channel).await
    }
}

/// The channel of this domain with this id or this route.
pub(crate) async fn channel(
    connection: &mut Connection,
    domain: EntityId,
    name: &str,
) -> Result<Option<Channel>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(rows::CHANNEL)
        .push(" FROM channels e WHERE e.domain_id = ")
        .push_bind(blob(domain));
    match EntityId::from_text(name) {
        Some(id) => query.push(" AND e.id = ").push_bind(blob(id)),
        None => query.push(" AND e.route = ").push_bind(name),
    };
    let found = query.build().fetch_optional(connection).await?;
    found.as_ref().map(rows::channel).transpose()
}

/// The open channel of a domain.
pub(crate) async fn open_channel(
    connection: &mut Connection,
    domain: EntityId,
) -> Result<Option<Channel>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(rows::CHANNEL)
        .push(" FROM channels e WHERE e.open = 1 AND e.domain_id = ")
        .push_bind(blob(domain));
    let found = query.build().fetch_optional(connection).await?;
    found.as_ref().map(rows::channel).transpose()
}

/// The domain of a channel, wherever it is.
pub(crate) async fn domain_of(
    connection: &mut Connection,
    id: EntityId,
) -> Result<Option<EntityId>, StoreError> {
    let found: Option<(Vec<u8>,)> = sql::query_as("SELECT domain_id FROM channels WHERE id = $1")
        .bind(blob(id))
        .fetch_optional(connection)
        .await?;
    found.map(|(domain,)| rows::id(&domain)).transpose()
}

/// All channels, oldest first.
pub(crate) async fn all_channels(connection: &mut Connection) -> Result<Vec<Channel>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(rows::CHANNEL)
        .push(" FROM channels e ORDER BY e.created_at, e.id");
    let found = query.build().fetch_all(connection).await?;
    found.iter().map(rows::channel).collect()
}

/// What a client may do, channel by channel. Who reads the open namespace reads `$SYS` with it,
/// as its tools expect of a broker without tenants.
pub(crate) async fn rights_of(
    connection: &mut Connection,
    client: EntityId,
) -> Result<Vec<(EntityId, Right)>, StoreError> {
    let found: Vec<(Vec<u8>, i64, i64)> = sql::query_as(
        "SELECT connections.channel_id, connections.rights, channels.open FROM connections \
         JOIN channels ON channels.id = connections.channel_id WHERE connections.client_id = $1",
    )
    .bind(blob(client))
    .fetch_all(connection)
    .await?;
    let mut rights = Vec::with_capacity(found.len());
    for (channel, number, open) in found {
        let right = rows::right(number)?;
        if open != 0 && right.contains(Action::Subscribe) {
            rights.push((EntityId::SYS, Right::SUBSCRIBE));
        }
        rights.push((rows::id(&channel)?, right));
    }
    Ok(rights)
}

/// Clients connected to a channel, at most so many.
pub(crate) async fn clients_of(
    connection: &mut Connection,
    channel: EntityId,
    limit: i64,
) -> Result<Vec<(EntityId, Right)>, StoreError> {
    let found: Vec<(Vec<u8>, i64)> = sql::query_as(
        "SELECT client_id, rights FROM connections WHERE channel_id = $1 ORDER BY client_id LIMIT $2",
    )
    .bind(blob(channel))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    found
        .iter()
        .map(|(client, number)| Ok((rows::id(client)?, rows::right(*number)?)))
        .collect()
}
