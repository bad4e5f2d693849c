//! The journal: rows that are only ever added, each hashed together with the one before.

use authcache::EntityId;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::entities::ROWS_AT_ONCE;
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
                sqlx::query_as("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1")
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
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO journal (seq, id, operation, outcome, domain_id, kind, entity_id, user_id, \
             peer, attributes, occurred_at, hash) ",
        );
        query.push_values(rows, |mut values, (seq, id, event, attributes, hash)| {
            values
                .push_bind(seq)
                .push_bind(blob(id))
                .push_bind(&event.operation)
                .push_bind(event.outcome.number())
                .push_bind(event.domain.map(blob))
                .push_bind(event.kind)
                .push_bind(&event.entity)
                .push_bind(event.user.map(blob))
                .push_bind(&event.peer)
                .push_bind(attributes)
                .push_bind(now.micros())
                .push_bind(hash);
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
    connection: &mut SqliteConnection,
    filter: &EntryFilter,
    page: Page,
) -> Result<(u64, Vec<Entry>), StoreError> {
    let narrow = |query: &mut QueryBuilder<Sqlite>| {
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
    let mut count = QueryBuilder::<Sqlite>::new("SELECT COUNT(*) FROM journal WHERE ");
    narrow(&mut count);
    let (total,): (i64,) = count.build_query_as().fetch_one(&mut *connection).await?;
    let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM journal WHERE ");
    narrow(&mut query);
    query
        .push(if filter.ascending {
            " ORDER BY seq ASC LIMIT "
        } else {
            " ORDER BY seq DESC LIMIT "
        })
        .push_bind(page.limit.cast_signed())
        .push(" OFFSET ")
        .push_bind(page.offset.cast_signed());
    let found = query.build().fetch_all(connection).await?;
    let found = found.iter().map(read).collect::<Result<_, _>>()?;
    Ok((total.cast_unsigned(), found))
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Entry, StoreError> {
    Ok(Entry {
        id: rows::id(&row.try_get::<Vec<u8>, _>("id")?)?,
        operation: row.try_get("operation")?,
        denied: row.try_get::<i64, _>("outcome")? == Outcome::Denied.number(),
        domain: rows::maybe_id(row.try_get("domain_id")?)?,
        kind: row.try_get("kind")?,
        entity: row.try_get("entity_id")?,
        user: rows::maybe_id(row.try_get("user_id")?)?,
        peer: row.try_get("peer")?,
        attributes: rows::json(row.try_get("attributes")?)?,
        occurred_at: Time::from_micros(row.try_get("occurred_at")?),
    })
}

/// Goes through the whole journal; answers with the number of its first row that does not belong
/// where it stands.
pub(crate) async fn verify(connection: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
    const PART: i64 = 1_000;
    let (mut last, mut before) = (0, Vec::new());
    loop {
        let found = sqlx::query("SELECT * FROM journal WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(last)
            .bind(PART)
            .fetch_all(&mut *connection)
            .await?;
        if found.is_empty() {
            return Ok(None);
        }
        for row in &found {
            let seq: i64 = row.try_get("seq")?;
            let bytes = |name| -> Result<Vec<u8>, StoreError> {
                Ok(row.try_get::<Option<Vec<u8>>, _>(name)?.unwrap_or_default())
            };
            let text = |name| -> Result<Vec<u8>, StoreError> {
                Ok(row.try_get::<String, _>(name)?.into_bytes())
            };
            let number = |name| -> Result<[u8; 8], StoreError> {
                Ok(row.try_get::<i64, _>(name)?.to_be_bytes())
            };
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
