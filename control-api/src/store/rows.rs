//! How values stand in columns.

use authcache::{EntityId, Right, Status};

use super::StoreError;
use crate::model::{Channel, Client, Domain, Time};

/// An id as bound to a statement: 16 bytes in the order in which a UUID is written.
pub(super) fn blob(id: EntityId) -> Vec<u8> {
    id.to_bytes().to_vec()
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

pub(super) type DomainRow = (
    Vec<u8>,
    String,
    String,
    i64,
    i64,
    Option<i64>,
    String,
    String,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

pub(super) fn domain(row: DomainRow) -> Result<Domain, StoreError> {
    let (row_id, route, name, row_status, created_at, updated_at, tags, metadata, by, updated_by) =
        row;
    Ok(Domain {
        tags: json(&tags)?,
        metadata: json(&metadata)?,
        created_by: maybe_id(by)?,
        updated_by: maybe_id(updated_by)?,
        id: id(&row_id)?,
        route,
        name,
        status: status(row_status)?,
        created_at: Time::from_micros(created_at),
        updated_at: updated_at.map(Time::from_micros),
    })
}

pub(super) type ChannelRow = (
    Vec<u8>,
    Vec<u8>,
    Option<String>,
    String,
    i64,
    bool,
    i64,
    Option<i64>,
);

pub(super) fn channel(row: ChannelRow) -> Result<Channel, StoreError> {
    let (row_id, domain_id, route, name, row_status, open, created_at, updated_at) = row;
    Ok(Channel {
        id: id(&row_id)?,
        domain_id: id(&domain_id)?,
        route,
        name,
        status: status(row_status)?,
        open,
        created_at: Time::from_micros(created_at),
        updated_at: updated_at.map(Time::from_micros),
    })
}

pub(super) type ClientRow = (Vec<u8>, Vec<u8>, String, i64, i64, Option<i64>);

pub(super) fn client(row: ClientRow) -> Result<Client, StoreError> {
    let (row_id, domain_id, name, row_status, created_at, updated_at) = row;
    Ok(Client {
        id: id(&row_id)?,
        domain_id: id(&domain_id)?,
        name,
        status: status(row_status)?,
        created_at: Time::from_micros(created_at),
        updated_at: updated_at.map(Time::from_micros),
    })
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
