//! The database: SQLite or PostgreSQL through sqlx, one writer, a few readers.
//!
//! Every statement is written once, in the subset that both understand ([`sql`]). What a table means is in `rows.rs`, what a call does in `provision`.

pub(crate) mod access;
pub(crate) mod activity;
pub(crate) mod certificates;
pub(crate) mod channels;
pub(crate) mod clients;
pub(crate) mod domains;
pub(crate) mod entities;
mod fold;
pub(crate) mod foreign;
pub(crate) mod groups;
mod held;
pub(crate) mod journal;
pub(crate) mod keys;
mod lead;
pub(crate) mod lineage;
pub(crate) mod listing;
mod made;
pub(crate) mod mailed;
mod marks;
mod migrations;
mod paging;
pub(crate) mod people;
pub(crate) mod place;
pub(crate) mod roles;
mod rows;
mod seen;
pub(crate) mod sql;
mod totals;
pub(crate) mod users;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use authcache::{Change, EntityId};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{PgPool, SqlitePool};
use thiserror::Error;
use tokio::sync::watch;

use crate::model::Time;
use crate::secret::random_id;
use fold::Fold;
use lead::Lead;
pub(crate) use lead::TRUST_MS;
use lineage::Committed;
use place::Place;
use sql::{Connection, Tx};
use totals::Totals;

/// Readers beside the one writer. Reads are short; four keep two cores busy.
const READERS: u32 = 4;
/// How long a call waits for a connection to PostgreSQL, which may be away.
const AWAY: Duration = Duration::from_secs(5);
/// Revisions kept in the outbox after they were published.
const OUTBOX_KEPT: i64 = 4_096;

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
    /// The database gives no answer.
    #[error("the database gave no answer within {0:?}")]
    Silent(Duration),
    /// The database is older than what was committed to it: a backup was restored.
    #[error(
        "the database stands at revision {revision}, though {newest} was committed: it was restored from a backup"
    )]
    Older {
        /// Where it stands.
        revision: u64,
        /// Where it stood.
        newest: u64,
    },
    /// What was committed is gone: a backup was restored over it before brokers had it.
    #[error("a backup was restored over what was just committed")]
    Restored,
    /// Another process leads on this database.
    #[error(
        "another control process leads on this database; stop that one, or give this one another database or schema"
    )]
    Led,
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
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    pools: Pools,
    totals: Arc<Totals>,
    /// Those who wait for the one transaction that writes.
    waiting: AtomicU64,
    /// What this process has committed.
    committed: Committed,
    /// Number of this start, once it is counted. On PostgreSQL nothing is written under another.
    incarnation: OnceLock<i64>,
}

enum Pools {
    Sqlite {
        writer: SqlitePool,
        reader: SqlitePool,
        fold: Fold,
    },
    Postgres {
        writer: PgPool,
        reader: PgPool,
        lead: Box<Lead>,
    },
}

/// What a start finds.
pub(crate) struct Start {
    /// The node's id, made at the first start.
    pub(crate) node: EntityId,
    /// Number of this start, from 1.
    pub(crate) incarnation: u64,
    /// Whether brokers may still listen to a control before this one that was not told to stop.
    pub(crate) followed: bool,
}

impl Store {
    /// Opens the database, makes it if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// On PostgreSQL also [`StoreError::Led`]: one process at a time leads on a schema.
    pub(crate) async fn open(place: &Place) -> Result<Store, StoreError> {
        let pools = match place {
            Place::Sqlite(path) => {
                let options = place::sqlite(path);
                let pool = || {
                    SqlitePoolOptions::new()
                        .idle_timeout(None)
                        .max_lifetime(None)
                };
                let writer = pool().max_connections(1).min_connections(1);
                let writer = writer.connect_with(options.clone()).await?;
                migrations::sqlite().run(&writer).await?;
                let reader = pool().max_connections(READERS);
                let reader = reader.connect_with(options.clone()).await?;
                let fold = Fold::new(options);
                Pools::Sqlite {
                    writer,
                    reader,
                    fold,
                }
            }
            Place::Postgres(options) => {
                let lead = Box::new(Lead::take(options).await?);
                let pool = || PgPoolOptions::new().acquire_timeout(AWAY);
                let writer = pool().max_connections(1);
                let writer = writer.connect_with((**options).clone()).await?;
                migrations::postgres().run(&writer).await?;
                let reader = pool().max_connections(READERS);
                let reader = reader.connect_lazy_with((**options).clone());
                Pools::Postgres {
                    writer,
                    reader,
                    lead,
                }
            }
        };
        let store = Store(Arc::new(Inner {
            pools,
            totals: Arc::default(),
            waiting: AtomicU64::new(0),
            committed: Committed::default(),
            incarnation: OnceLock::new(),
        }));
        let mut write = store.write().await?;
        marks::complete(write.connection()).await?;
        certificates::complete(write.connection()).await?;
        write.commit().await?;
        Ok(store)
    }

    /// Whether this process leads: always on SQLite, where the data directory is locked; on
    /// PostgreSQL as long as the database confirms it.
    pub(crate) fn leading(&self) -> watch::Receiver<bool> {
        match &self.0.pools {
            Pools::Sqlite { .. } => watch::channel(true).1,
            Pools::Postgres { lead, .. } => lead.leading(),
        }
    }

    /// Begins the one transaction that writes; others wait for it.
    ///
    /// On PostgreSQL the row that counts starts is locked, so that commits are in the order of their
    /// revisions even if another process writes, and nothing is written once another one leads.
    pub(crate) async fn write(&self) -> Result<Write, StoreError> {
        let changes = self.0.totals.changes();
        let waiting = Waiting::enter(&self.0.waiting);
        let tx = match &self.0.pools {
            Pools::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres { writer, .. } => Tx::Postgres(sql::patiently(writer.begin()).await?),
        };
        drop(waiting);
        let mut tx = Connection::new(tx, self.0.totals.clone(), changes);
        if tx.is_postgres() {
            let sql = "SELECT value FROM counters WHERE name = 'incarnation' FOR UPDATE";
            let (last,): (i64,) = sql::query_as(sql).fetch_one(&mut tx).await?;
            if self.0.incarnation.get().is_some_and(|own| *own != last) {
                return Err(StoreError::Led);
            }
        }
        Ok(Write {
            lineage: self.0.committed.lineages(),
            store: self.clone(),
            tx,
            changes: Vec::new(),
            regrouped: None,
            journal_end: None,
        })
    }

    /// How many wait to write.
    pub(crate) fn waiting(&self) -> u64 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Begins a transaction that reads, all of it as of one moment.
    pub(crate) async fn read(&self) -> Result<Connection, StoreError> {
        let changes = self.0.totals.changes();
        let tx = match &self.0.pools {
            Pools::Sqlite { reader, .. } => Tx::Sqlite(reader.begin().await?),
            Pools::Postgres { reader, .. } => {
                let begun = reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
                Tx::Postgres(sql::patiently(begun).await?)
            }
        };
        Ok(Connection::new(tx, self.0.totals.clone(), changes))
    }

    /// Begins a transaction that [reads](Self::read), with the revision that it sees.
    ///
    /// # Errors
    /// Also [`StoreError::Older`].
    pub(crate) async fn read_at(&self) -> Result<(Connection, u64), StoreError> {
        let newest = self.0.committed.newest();
        let mut tx = self.read().await?;
        let revision = revision(&mut tx).await?;
        if revision < newest {
            return Err(StoreError::Older { revision, newest });
        }
        Ok((tx, revision))
    }

    /// Committed revisions behind `after`, in order, at most `limit`.
    pub(crate) async fn outbox(
        &self,
        after: u64,
        limit: i64,
    ) -> Result<Vec<(u64, Vec<Change>)>, StoreError> {
        let (mut connection, _) = self.read_at().await?;
        let rows: Vec<(i64, Vec<u8>)> = sql::query_as(
            "SELECT revision, changes FROM outbox WHERE revision > $1 ORDER BY revision LIMIT $2",
        )
        .bind(after.cast_signed())
        .bind(limit)
        .fetch_all(&mut connection)
        .await?;
        rows.into_iter()
            .map(|(revision, changes)| {
                let changes = postcard::from_bytes(&changes)
                    .map_err(|_| StoreError::BrokenRow("a revision that is no list of changes"))?;
                Ok((revision.cast_unsigned(), changes))
            })
            .collect()
    }

    /// Counts a start.
    pub(crate) async fn start(&self) -> Result<Start, StoreError> {
        let mut write = self.write().await?;
        let connection = write.connection();
        let node: Option<(Vec<u8>,)> = sql::query_as("SELECT id FROM node")
            .fetch_optional(connection)
            .await?;
        let node = match node {
            Some((bytes,)) => rows::id(&bytes)?,
            None => {
                let id = random_id();
                sql::query("INSERT INTO node (id) VALUES ($1)")
                    .bind(rows::blob(id))
                    .execute(connection)
                    .await?;
                id
            }
        };
        let incarnation = raise(connection, "incarnation").await?;
        let followed = match &self.0.pools {
            Pools::Sqlite { .. } => false,
            Pools::Postgres { .. } => lead::begin(connection).await?,
        };
        write.commit().await?;
        let own = self.0.incarnation.get_or_init(|| incarnation.cast_signed());
        if let Pools::Postgres { lead, .. } = &self.0.pools {
            lead.keep(*own);
        }
        Ok(Start {
            node,
            incarnation,
            followed,
        })
    }

    /// Closes all connections. SQLite's log is folded into the database; on PostgreSQL the next
    /// control hears that no broker follows this one any more.
    pub(crate) async fn close(&self) {
        match &self.0.pools {
            Pools::Sqlite {
                writer,
                reader,
                fold,
            } => {
                fold.close().await;
                reader.close().await;
                writer.close().await;
            }
            Pools::Postgres {
                writer,
                reader,
                lead,
            } => {
                if let Ok(mut write) = self.write().await
                    && lead::end(write.connection()).await.is_ok()
                {
                    // If it fails the next control waits for leases that nobody holds.
                    let _ = write.commit().await;
                }
                lead.give_up().await;
                reader.close().await;
                writer.close().await;
            }
        }
    }
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicU64);

impl Waiting<'_> {
    fn enter(count: &AtomicU64) -> Waiting<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Last committed revision.
pub(crate) async fn revision(connection: &mut Connection) -> Result<u64, StoreError> {
    let (value,): (i64,) = sql::query_as("SELECT value FROM counters WHERE name = 'revision'")
        .fetch_one(connection)
        .await?;
    Ok(value.cast_unsigned())
}

async fn raise(connection: &mut Connection, name: &str) -> Result<u64, StoreError> {
    let (value,): (i64,) =
        sql::query_as("UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value")
            .bind(name)
            .fetch_one(connection)
            .await?;
    Ok(value.cast_unsigned())
}

/// A transaction that writes: rows, and the changes that brokers must hear of.
pub(crate) struct Write {
    store: Store,
    /// Which lineage of this process's it belongs to.
    lineage: u64,
    tx: Connection,
    changes: Vec<Change>,
    /// The domain in whose groups something happened.
    regrouped: Option<EntityId>,
    /// Number and hash of the last row of the journal, once it was looked up.
    pub(super) journal_end: Option<(i64, Vec<u8>)>,
}

impl Write {
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.tx
    }

    /// Notes what brokers must hear of, in the order in which they must hear it.
    pub(crate) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Commits rows and changes as one revision; without changes there is no new one.
    /// Answers with the last revision.
    pub(crate) async fn commit(mut self) -> Result<u64, StoreError> {
        let newest = self.store.0.committed.newest();
        if self.changes.is_empty() {
            let last = revision(&mut self.tx).await?;
            if last < newest {
                let revision = last;
                return Err(StoreError::Older { revision, newest });
            }
            self.finish().await?;
            return Ok(last);
        }
        let number = raise(&mut self.tx, "revision").await?;
        if number <= newest {
            let revision = number - 1;
            return Err(StoreError::Older { revision, newest });
        }
        let changes = postcard::to_stdvec(&self.changes)
            .map_err(|_| StoreError::BrokenRow("changes that cannot be written"))?;
        sql::query("INSERT INTO outbox (revision, changes, created_at) VALUES ($1, $2, $3)")
            .bind(number.cast_signed())
            .bind(changes)
            .bind(Time::now().micros())
            .execute(&mut self.tx)
            .await?;
        sql::query("DELETE FROM outbox WHERE revision <= $1")
            .bind(number.cast_signed() - OUTBOX_KEPT)
            .execute(&mut self.tx)
            .await?;
        let store = self.store.clone();
        self.finish().await?;
        store.0.committed.note(number);
        Ok(number)
    }

    async fn finish(self) -> Result<(), StoreError> {
        let rows = self.tx.rows_written();
        self.tx.commit().await?;
        if let Pools::Sqlite { fold, .. } = &self.store.0.pools {
            fold.committed(rows);
        }
        Ok(())
    }
}
