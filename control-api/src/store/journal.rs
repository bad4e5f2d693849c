//! The journal: rows that are only ever added, each hashed together with the one before.

use super::sql::{self, Builder, Connection, Row};
use authcache::EntityId;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::entities::ROWS_AT_ONCE;
use super::paging::List;
use super::rows::{self, blob};
use super::{StoreError, Write};
use crate::model::{Page, Time};
use crate::secret::random_id;

/// How something that was asked for ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Denied,
}

impl Outcome {
    const fn number(self) -> i64 {
        match self {
            Outcome::Done => 0,
            Outcome::Denied => 1,
        }
    }
}

/// Something that was done or denied.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Kind and deed, such as `client.create`.
    pub(crate) operation: String,
    pub(crate) outcome: Outcome,
    pub(crate) domain: Option<EntityId>,
    /// What it was done to.
    pub(crate) kind: &'static str,
    pub(crate) entity: String,
    /// Who did it; none for somebody who was not identified.
    pub(crate) user: Option<EntityId>,
    /// Where from.
    pub(crate) peer: String,
    pub(crate) attributes: Value,
}

/// A row as it is shown.
pub(crate) struct Entry {
    pub(crate) id: EntityId,
    pub(crate) operation: String,
    pub(crate) denied: bool,
    pub(crate) domain: Option<EntityId>,
    pub(crate) kind: String,
    pub(crate) entity: String,
    pub(crate) user: Option<EntityId>,
    pub(crate) peer: String,
    pub(crate) attributes: Value,
    pub(crate) occurred_at: Time,
}

/// What a list of entries is narrowed by.
#[derive(Default)]
pub(crate) struct EntryFilter {
    pub(crate) domain: Option<EntityId>,
    pub(crate) entity: Option<String>,
    /// Done by this user, or to it.
    pub(crate) user: Option<EntityId>,
    pub(crate) operation: Option<String>,
    pub(crate) from: Option<Time>,
    pub(crate) to: Option<Time>,
    pub(crate) ascending: bool,
}

impl Write {
    /// Adds a row.
    pub(crate) async fn record(&mut self, event: &Event, now: Time) -> Result<(), StoreError> {
        self.record_all(std::slice::from_ref(event), now).await
    }

    /// Adds rows.
    pub(crate) async fn record_all(
        &mut self,
        events: &[Event],
        now: Time,
    ) -> Result<(), StoreError> {
        for part in events.chunks(ROWS_AT_ONCE) {
            self.record_part(part, now).await?;
        }
        Ok(())
    }

    async fn record_part(&mut self, events: &[Event], now: Time) -> Result<(), StoreError> {
        let last = match self.journal_end.take() {
            Some(last) => Some(last),
            None => {
                sql::query_as("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1")
                    .fetch_optional(self.connection())
                    .await?
            }
        };
        let (mut seq, mut before) = last.unwrap_or_default();
        let mut rows = Vec::with_capacity(events.len());
        for event in events {
            seq += 1;
            let id = random_id();
            let attributes = event.attributes.to_string();
            before = hash(
                &before,
                &[
                    &seq.to_be_bytes(),
                    &id.to_bytes(),
                    event.operation.as_bytes(),
                    &event.outcome.number().to_be_bytes(),
                    &event.domain.map_or_else(Vec::new, blob),
                    event.kind.as_bytes(),
                    event.entity.as_bytes(),
                    &event.user.map_or_else(Vec::new, blob),
                    event.peer.as_bytes(),
                    attributes.as_bytes(),
                    &now.micros().to_be_bytes(),
                ],
            );
            rows.push((seq, id, event, attributes, before.clone()));
        }
        let mut query = Builder::new(
            "INSERT INTO journal (seq, id, operation, outcome, domain_id, kind, entity_id, user_id, \
             peer, attributes, occurred_at, hash) ",
        );
        query.push_rows(rows, |(seq, id, event, attributes, hash)| {
            vec![
                seq.into(),
                blob(id).into(),
                (&event.operation).into(),
                event.outcome.number().into(),
                event.domain.map(blob).into(),
                event.kind.into(),
                (&event.entity).into(),
                event.user.map(blob).into(),
                (&event.peer).into(),
                attributes.into(),
                now.micros().into(),
                hash.into(),
            ]
        });
        query.build().execute(self.connection()).await?;
        self.journal_end = Some((seq, before));
        Ok(())
    }
}

/// Hash of a row: the hash before it, then each field with its length.
fn hash(before: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update((before.len() as u64).to_be_bytes());
    hasher.update(before);
    for field in fields {
        hasher.update((field.len() as u64).to_be_bytes());
        hasher.update(field);
    }
    hasher.finalize().to_vec()
}

/// A page of entries, newest first unless asked otherwise.
pub(crate) async fn entries(
    connection: &mut Connection,
    filter: &EntryFilter,
    page: Page,
) -> Result<(u64, Vec<Entry>), StoreError> {
    let narrow = |query: &mut Builder| {
        query.push("1 = 1");
        if let Some(domain) = filter.domain {
            query.push(" AND domain_id = ").push_bind(blob(domain));
        }
        if let Some(entity) = &filter.entity {
            query.push(" AND entity_id = ").push_bind(entity);
        }
        if let Some(user) = filter.user {
            query
                .push(" AND (user_id = ")
                .push_bind(blob(user))
                .push(" OR entity_id = ")
                .push_bind(user.to_string())
                .push(")");
        }
        if let Some(operation) = &filter.operation {
            query.push(" AND operation = ").push_bind(operation);
        }
        if let Some(from) = filter.from {
            query.push(" AND occurred_at >= ").push_bind(from.micros());
        }
        if let Some(to) = filter.to {
            query.push(" AND occurred_at <= ").push_bind(to.micros());
        }
    };
    let list = List {
        select: "*",
        from: "journal",
        order: if filter.ascending {
            "seq ASC"
        } else {
            "seq DESC"
        },
    };
    list.page(connection, narrow, Some(page), read).await
}

fn read(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry {
        id: rows::id(&row.get::<Vec<u8>>("id")?)?,
        operation: row.get("operation")?,
        denied: row.get::<i64>("outcome")? == Outcome::Denied.number(),
        domain: rows::maybe_id(row.get("domain_id")?)?,
        kind: row.get("kind")?,
        entity: row.get("entity_id")?,
        user: rows::maybe_id(row.get("user_id")?)?,
        peer: row.get("peer")?,
        attributes: rows::json(&row.get::<String>("attributes")?)?,
        occurred_at: Time::from_micros(row.get("occurred_at")?),
    })
}

/// Goes through the whole journal; answers with the number of its first row that does not belong
/// where it stands.
pub(crate) async fn verify(connection: &mut Connection) -> Result<Option<i64>, StoreError> {
    const PART: i64 = 1_000;
    let (mut last, mut before) = (0, Vec::new());
    loop {
        let found = sql::query("SELECT * FROM journal WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(last)
            .bind(PART)
            .fetch_all(connection)
            .await?;
        if found.is_empty() {
            return Ok(None);
        }
        for row in &found {
            let seq: i64 = row.get("seq")?;
            let bytes = |name| -> Result<Vec<u8>, StoreError> {
                Ok(row.get::<Option<Vec<u8>>>(name)?.unwrap_or_default())
            };
            let text =
                |name| -> Result<Vec<u8>, StoreError> { Ok(row.get::<String>(name)?.into_bytes()) };
            let number =
                |name| -> Result<[u8; 8], StoreError> { Ok(row.get::<i64>(name)?.to_be_bytes()) };
            let expected = hash(
                &before,
                &[
                    &seq.to_be_bytes(),
                    &bytes("id")?,
                    &text("operation")?,
                    &number("outcome")?,
                    &bytes("domain_id")?,
                    &text("kind")?,
                    &text("entity_id")?,
                    &bytes("user_id")?,
                    &text("peer")?,
                    &text("attributes")?,
                    &number("occurred_at")?,
                ],
            );
            if seq != last + 1 || expected != bytes("hash")? {
                return Ok(Some(seq));
            }
            (last, before) = (seq, expected);
        }
    }
}
