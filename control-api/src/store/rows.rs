//! How values stand in columns.

use authcache::{EntityId, Right, Status};

use super::StoreError;
use super::sql::Row;
use crate::model::{Channel, Client, Domain, Time};

/// An id as bound to a statement: 16 bytes in the order in which a UUID is written.
pub(super) fn blob(id: EntityId) -> Vec<u8> {
    id.to_bytes().to_vec()
}

/// Ids as a list in a statement. The last one is repeated up to the next power of two, so that there
/// are few such statements and each is prepared once.
pub(super) fn set(ids: &[EntityId]) -> impl Iterator<Item = Vec<u8>> {
    let repeated = ids.last().into_iter().cycle();
    let count = if ids.is_empty() {
        0
    } else {
        ids.len().next_power_of_two()
    };
    ids.iter().chain(repeated).take(count).map(|id| blob(*id))
}

pub(super) fn id(bytes: &[u8]) -> Result<EntityId, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::BrokenRow("an id that is not 16 bytes"))?;
    Ok(EntityId::from_bytes(bytes))
}

pub(super) const fn status_number(status: Status) -> i64 {
    match status {
        Status::Enabled => 0,
        Status::Disabled => 1,
        Status::Frozen => 2,
    }
}

pub(super) fn status(number: i64) -> Result<Status, StoreError> {
    match number {
        0 => Ok(Status::Enabled),
        1 => Ok(Status::Disabled),
        2 => Ok(Status::Frozen),
        _ => Err(StoreError::BrokenRow("an unknown status")),
    }
}

/// Rights as a number: 1 publish, 2 subscribe.
pub(super) fn right(number: i64) -> Result<Right, StoreError> {
    match number {
        1..=3 => Ok(Right::from_bits(number as u8)),
        _ => Err(StoreError::BrokenRow("unknown rights")),
    }
}

pub(super) const DOMAIN: &str = "e.id, e.route, e.name, e.status, e.created_at, e.updated_at, \
    e.tags, e.metadata, e.deleted_at, e.groups_block, e.created_by, e.updated_by";

pub(super) fn domain(row: &Row) -> Result<Domain, StoreError> {
    Ok(Domain {
        id: id(&row.get::<Vec<u8>>("id")?)?,
        route: row.get("route")?,
        name: row.get("name")?,
        status: status(row.get("status")?)?,
        created_at: Time::from_micros(row.get("created_at")?),
        updated_at: time(row, "updated_at")?,
        tags: json(&row.get::<String>("tags")?)?,
        metadata: json(&row.get::<String>("metadata")?)?,
        deleted_at: time(row, "deleted_at")?,
        groups_block: row.get("groups_block")?,
        created_by: maybe_id(row.get("created_by")?)?,
        updated_by: maybe_id(row.get("updated_by")?)?,
    })
}

pub(super) const CHANNEL: &str = "e.id, e.domain_id, e.route, e.name, e.status, e.open, \
    e.created_at, e.updated_at, e.held";

pub(super) fn channel(row: &Row) -> Result<Channel, StoreError> {
    Ok(Channel {
        id: id(&row.get::<Vec<u8>>("id")?)?,
        domain_id: id(&row.get::<Vec<u8>>("domain_id")?)?,
        route: row.get("route")?,
        name: row.get("name")?,
        status: status(row.get("status")?)?,
        open: row.get("open")?,
        held: row.get("held")?,
        created_at: Time::from_micros(row.get("created_at")?),
        updated_at: time(row, "updated_at")?,
    })
}

pub(super) const CLIENT: &str = "e.id, e.domain_id, e.name, e.status, e.created_at, e.updated_at";

pub(super) fn client(row: &Row) -> Result<Client, StoreError> {
    Ok(Client {
        id: id(&row.get::<Vec<u8>>("id")?)?,
        domain_id: id(&row.get::<Vec<u8>>("domain_id")?)?,
        name: row.get("name")?,
        status: status(row.get("status")?)?,
        created_at: Time::from_micros(row.get("created_at")?),
        updated_at: time(row, "updated_at")?,
    })
}

/// A time that may be missing.
pub(super) fn time(row: &Row, column: &str) -> Result<Option<Time>, StoreError> {
    Ok(row.get::<Option<i64>>(column)?.map(Time::from_micros))
}

pub(super) fn maybe_id(bytes: Option<Vec<u8>>) -> Result<Option<EntityId>, StoreError> {
    bytes.map(|bytes| id(&bytes)).transpose()
}

/// Reads JSON that control wrote.
pub(super) fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::BrokenRow("a text that is not JSON"))
}

pub(super) fn json_text(tags: &[String]) -> String {
    serde_json::Value::from(tags.to_vec()).to_string()
}
