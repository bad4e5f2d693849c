//! Channels and connections in the database.

use std::collections::BTreeMap;

use super::sql::{self, Builder, Connection, Row};
use authcache::{Action, EntityId, Right, Status};
use sqlx::AssertSqlSafe;

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

/// What somebody may do, channel by channel.
pub(crate) type Rights = Vec<(EntityId, Right)>;

/// Rights that are read with one statement: more than one client may have.
pub(crate) const RIGHTS_AT_ONCE: i64 = 65_536;

/// Connections that one statement reads or writes.
const PAIRS_AT_ONCE: usize = 512;

/// Selects what [`push_right`] reads, of clients that the caller adds.
const RIGHTS: &str = "SELECT connections.client_id, connections.channel_id, connections.rights, channels.open \
    FROM connections JOIN channels ON channels.id = connections.channel_id \
    WHERE connections.client_id";

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

    /// What connections permit now; those that do not exist are left out.
    pub(crate) async fn connection_rights(
        &mut self,
        pairs: &[(EntityId, EntityId)],
    ) -> Result<BTreeMap<(EntityId, EntityId), Right>, StoreError> {
        let mut found = BTreeMap::new();
        for part in pairs.chunks(PAIRS_AT_ONCE) {
            let mut query = Builder::new("WITH wanted (client, channel) AS (");
            push_pairs(&mut query, part);
            // A join that SQLite does not turn around: what is wanted is looked up, not the other way.
            query.push(
                ") SELECT client_id, channel_id, rights FROM wanted CROSS JOIN connections \
                 WHERE client_id = client AND channel_id = channel",
            );
            let rows: Vec<(Vec<u8>, Vec<u8>, i64)> =
                query.build_as().fetch_all(self.connection()).await?;
            for (client, channel, number) in rows {
                let pair = (rows::id(&client)?, rows::id(&channel)?);
                found.insert(pair, rows::right(number)?);
            }
        }
        Ok(found)
    }

    /// Sets what connections permit; nothing removes one.
    pub(crate) async fn set_connection_rights(
        &mut self,
        rights: &BTreeMap<(EntityId, EntityId), Right>,
        now: Time,
    ) -> Result<(), StoreError> {
        let pairs = |gone| {
            let some = rights
                .iter()
                .filter(move |(_, right)| right.is_empty() == gone);
            some.map(|(pair, _)| *pair).collect::<Vec<_>>()
        };
        for part in pairs(true).chunks(PAIRS_AT_ONCE) {
            // SQLite looks pairs up by their clients, and goes through the whole table without.
            let mut query = Builder::new("DELETE FROM connections WHERE client_id IN (");
            query.push_list(part.iter().map(|(client, _)| blob(*client)));
            query.push(") AND (client_id, channel_id) IN (");
            push_pairs(&mut query, part);
            query.push(")");
            query.build().execute(self.connection()).await?;
        }
        for part in pairs(false).chunks(PAIRS_AT_ONCE) {
            let mut query = Builder::new(
                "INSERT INTO connections (client_id, channel_id, rights, created_at) ",
            );
            query.push_rows(part, |pair| {
                let right = rights.get(pair).map_or(0, |right| right.bits());
                vec![
                    blob(pair.0).into(),
                    blob(pair.1).into(),
                    i64::from(right).into(),
                    now.micros().into(),
                ]
            });
            query.push(
                " ON CONFLICT (client_id, channel_id) DO UPDATE SET rights = excluded.rights",
            );
            query.build().execute(self.connection()).await?;
        }
        Ok(())
    }

    /// The one of these clients that has most connections, and how many.
    pub(crate) async fn most_connected(
        &mut self,
        clients: &[EntityId],
    ) -> Result<Option<(EntityId, u64)>, StoreError> {
        let mut most = None;
        for part in clients.chunks(PAIRS_AT_ONCE) {
            let mut query = Builder::new(
                "SELECT client_id, COUNT(*) AS count FROM connections WHERE client_id IN (",
            );
            query
                .push_list(rows::set(part))
                .push(") GROUP BY client_id ORDER BY count DESC LIMIT 1");
            let found: Option<(Vec<u8>, i64)> =
                query.build_as().fetch_optional(self.connection()).await?;
            if let Some((client, count)) = found {
                most = most.max(Some((count.cast_unsigned(), rows::id(&client)?)));
            }
        }
        Ok(most.map(|(count, client)| (client, count)))
    }
}

/// Adds `VALUES` with these pairs.
fn push_pairs(query: &mut Builder, pairs: &[(EntityId, EntityId)]) {
    query.push_rows(pairs, |(client, channel)| {
        vec![blob(*client).into(), blob(*channel).into()]
    });
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

/// What a client may do, channel by channel.
pub(crate) async fn rights_of(
    connection: &mut Connection,
    client: EntityId,
) -> Result<Rights, StoreError> {
    let sql = format!("{RIGHTS} = $1");
    let found = sql::query(AssertSqlSafe(sql))
        .bind(blob(client))
        .fetch_all(connection)
        .await?;
    let mut rights = Vec::with_capacity(found.len());
    for row in &found {
        push_right(&mut rights, row)?;
    }
    Ok(rights)
}

/// What the first of these clients may do, channel by channel, and the others. The clients are in
/// order, each once; those are read who have less than `limit` rights together.
pub(crate) async fn rights_of_first(
    connection: &mut Connection,
    clients: &[EntityId],
    limit: i64,
) -> Result<(Vec<(EntityId, Rights)>, Vec<EntityId>), StoreError> {
    let mut query = Builder::new(format!("{RIGHTS} IN ("));
    query
        .push_list(rows::set(clients))
        .push(") ORDER BY connections.client_id LIMIT ")
        .push_bind(limit);
    let found = query.build().fetch_all(connection).await?;
    let mut read: BTreeMap<EntityId, Rights> =
        clients.iter().map(|client| (*client, Vec::new())).collect();
    let mut last = None;
    for row in &found {
        let client = rows::id(&row.get::<Vec<u8>>("client_id")?)?;
        if let Some(rights) = read.get_mut(&client) {
            push_right(rights, row)?;
        }
        last = Some(client);
    }
    // The one at which the rows ended may have more, and those behind it have not been reached.
    let whole = i64::try_from(found.len()).is_ok_and(|count| count < limit);
    let rest = match last.filter(|_| !whole) {
        Some(last) => read.split_off(&last).into_keys().collect(),
        None => Vec::new(),
    };
    Ok((read.into_iter().collect(), rest))
}

/// Who reads the open namespace reads `$SYS` with it, as its tools expect of a broker without
/// tenants.
fn push_right(rights: &mut Rights, row: &Row) -> Result<(), StoreError> {
    let right = rows::right(row.get("rights")?)?;
    if row.get("open")? && right.contains(Action::Subscribe) {
        rights.push((EntityId::SYS, Right::SUBSCRIBE));
    }
    rights.push((rows::id(&row.get::<Vec<u8>>("channel_id")?)?, right));
    Ok(())
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
