//! The database: SQLite through sqlx, one writer, a few readers.
//!
//! SQL is the portable subset with `$1` placeholders, so that PostgreSQL can become a second store
//! with the same texts. What a table means is in `rows.rs`, what a call does in `provision`.

pub(crate) mod access;
pub(crate) mod channels;
pub(crate) mod clients;
pub(crate) mod domains;
pub(crate) mod entities;
pub(crate) mod groups;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod listing;
pub(crate) mod people;
pub(crate) mod roles;
mod rows;
pub(crate) mod users;

use std::path::Path;
use std::time::Duration;

use authcache::{Change, EntityId};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlSafeStr, Sqlite, SqliteConnection, SqlitePool, Transaction};
use thiserror::Error;

use crate::model::Time;
use crate::secret::random_id;

/// Readers beside the one writer. Reads are short; four keep two cores busy.
const READERS: u32 = 4;
/// How long a statement waits for another process that holds the database.
const BUSY: Duration = Duration::from_secs(5);
/// Revisions kept in the outbox after they were published.
const OUTBOX_KEPT: i64 = 4_096;

/// The schema's history: number, name, text.
const MIGRATIONS: [(i64, &str, &str); 4] = [
    (
        1,
        "control",
        include_str!("../../migrations/sqlite/0001_control.sql"),
    ),
    (
        2,
        "model",
        include_str!("../../migrations/sqlite/0002_model.sql"),
    ),
    (
        3,
        "names",
        include_str!("../../migrations/sqlite/0003_names.sql"),
    ),
    (
        4,
        "names and states",
        include_str!("../../migrations/sqlite/0004_names_and_states.sql"),
    ),
];

/// The database failed; what was asked may work later.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A statement failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row holds what it never should.
    #[error("the database holds a broken row: {0}")]
    BrokenRow(&'static str),
}

impl StoreError {
    /// Whether a uniqueness constraint refused the statement.
    pub(crate) fn is_unique_violation(&self) -> bool {
        match self {
            StoreError::Database(sqlx::Error::Database(error)) => error.is_unique_violation(),
            _ => false,
        }
    }
}

/// The database of one control.
#[derive(Clone)]
pub(crate) struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl Store {
    /// Opens the database, makes it if there is none, and brings its schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Store, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        migrator(&MIGRATIONS).run(&writer).await?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        Ok(Store { writer, reader })
    }

    /// Begins the one transaction that writes; others wait for it.
    pub(crate) async fn write(&self) -> Result<Write, StoreError> {
        let tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write {
            tx,
            changes: Vec::new(),
            journal_end: None,
        })
    }

    /// A connection that reads, each statement for itself.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.reader.acquire().await?)
    }

    /// Begins a transaction that reads, all of it as of the revision that comes with it.
    pub(crate) async fn read_at(&self) -> Result<(Transaction<'static, Sqlite>, u64), StoreError> {
        let mut tx = self.reader.begin().await?;
        let revision = revision(&mut tx).await?;
        Ok((tx, revision))
    }

    /// Committed revisions behind `after`, in order, at most `limit`.
    pub(crate) async fn outbox(
        &self,
        after: u64,
        limit: i64,
    ) -> Result<Vec<(u64, Vec<Change>)>, StoreError> {
        let mut connection = self.read().await?;
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT revision, changes FROM outbox WHERE revision > $1 ORDER BY revision LIMIT $2",
        )
        .bind(after.cast_signed())
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter()
            .map(|(revision, changes)| {
                let changes = postcard::from_bytes(&changes)
                    .map_err(|_| StoreError::BrokenRow("a revision that is no list of changes"))?;
                Ok((revision.cast_unsigned(), changes))
            })
            .collect()
    }

    /// The node's id, made at the first start, and the number of this start.
    pub(crate) async fn start(&self) -> Result<(EntityId, u64), StoreError> {
        let mut write = self.write().await?;
        let connection = write.connection();
        let node: Option<(Vec<u8>,)> = sqlx::query_as("SELECT id FROM node")
            .fetch_optional(&mut *connection)
            .await?;
        let node = match node {
            Some((bytes,)) => rows::id(&bytes)?,
            None => {
                let id = random_id();
                sqlx::query("INSERT INTO node (id) VALUES ($1)")
                    .bind(rows::blob(id))
                    .execute(&mut *connection)
                    .await?;
                id
            }
        };
        let incarnation = raise(connection, "incarnation").await?;
        write.commit().await?;
        Ok((node, incarnation))
    }

    /// Closes all connections; the log is folded into the database.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

fn migrator(history: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = history.iter().map(|(version, name, text)| {
        let (name, kind) = ((*name).into(), MigrationType::Simple);
        Migration::new(*version, name, kind, text.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Last committed revision.
pub(crate) async fn revision(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let (value,): (i64,) = sqlx::query_as("SELECT value FROM counters WHERE name = 'revision'")
        .fetch_one(connection)
        .await?;
    Ok(value.cast_unsigned())
}

async fn raise(connection: &mut SqliteConnection, name: &str) -> Result<u64, StoreError> {
    let (value,): (i64,) =
        sqlx::query_as("UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value")
            .bind(name)
            .fetch_one(connection)
            .await?;
    Ok(value.cast_unsigned())
}

/// A transaction that writes: rows, and the changes that brokers must hear of.
pub(crate) struct Write {
    tx: Transaction<'static, Sqlite>,
    changes: Vec<Change>,
    /// Number and hash of the last row of the journal, once it was looked up.
    pub(super) journal_end: Option<(i64, Vec<u8>)>,
}

impl Write {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Notes what brokers must hear of, in the order in which they must hear it.
    pub(crate) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Commits rows and changes as one revision; without changes there is no new one.
    /// Answers with the last revision.
    pub(crate) async fn commit(mut self) -> Result<u64, StoreError> {
        if self.changes.is_empty() {
            let last = revision(&mut self.tx).await?;
            self.tx.commit().await?;
            return Ok(last);
        }
        let number = raise(&mut self.tx, "revision").await?;
        let changes = postcard::to_stdvec(&self.changes)
            .map_err(|_| StoreError::BrokenRow("changes that cannot be written"))?;
        sqlx::query("INSERT INTO outbox (revision, changes, created_at) VALUES ($1, $2, $3)")
            .bind(number.cast_signed())
            .bind(changes)
            .bind(Time::now().micros())
            .execute(&mut *self.tx)
            .await?;
        sqlx::query("DELETE FROM outbox WHERE revision <= $1")
            .bind(number.cast_signed() - OUTBOX_KEPT)
            .execute(&mut *self.tx)
            .await?;
        self.tx.commit().await?;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::{Actions, Kind};
    use crate::model::Page;

    #[tokio::test]
    async fn a_database_of_the_first_schema_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        migrator(&MIGRATIONS[..1]).run(&pool).await.unwrap();
        for sql in [
            "INSERT INTO users (id, username, administrator, password, credential, status, created_at) \
             VALUES (x'00000000000000000000000000000001', 'ann', 0, 'x', 3, 0, 7)",
            "INSERT INTO domains (id, route, name, status, created_at) \
             VALUES (x'00000000000000000000000000000002', 'plant', 'Plant', 0, 7)",
            "INSERT INTO channels (id, domain_id, name, status, open, created_at) \
             VALUES (x'00000000000000000000000000000003', x'00000000000000000000000000000002', 'line', 0, 0, 7)",
            "INSERT INTO clients (id, domain_id, name, anonymous, credential, status, created_at) \
             VALUES (x'00000000000000000000000000000004', x'00000000000000000000000000000002', 'pump', 0, 1, 0, 7)",
        ] {
            sqlx::query(sql).execute(&pool).await.unwrap();
        }
        pool.close().await;

        let store = Store::open(&path).await.unwrap();
        let mut connection = store.read().await.unwrap();
        for (number, kind) in [(2, Kind::Domain), (3, Kind::Channel), (4, Kind::Client)] {
            let id = EntityId::from_u128(number);
            let (total, found) = roles::list(&mut connection, id, Page::default())
                .await
                .unwrap();
            assert_eq!((total, found[0].kind, found[0].builtin), (1, kind, true));
            assert_eq!(found[0].actions, Actions::all(kind));
        }
        let user = users::user_auth(&mut connection, EntityId::from_u128(1)).await;
        assert_eq!(user.unwrap().unwrap().tokens_from, 3);
        let (domain, client) = (EntityId::from_u128(2), EntityId::from_u128(4));
        let found = entities::entity(&mut connection, Kind::Client, domain, client).await;
        assert_eq!(found.unwrap().unwrap().name, "pump");
    }
}
