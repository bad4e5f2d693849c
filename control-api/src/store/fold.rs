//! SQLite's log, folded into the database behind the commits that fill it.
//!
//! SQLite would do it within a commit: whoever makes 10 000 clients would wait until 140 MB are written
//! a second time and are on the disk. What is committed is in the log, and safe there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Semaphore;
use tracing::warn;

/// Rows written since the last time with which the log is folded: some 40 changes, or 1000 pages, as
/// SQLite would by itself.
const ROWS: u64 = 256;
/// Pages in the log with which a commit folds it after all: 256 MiB. It gets there if calls of many
/// objects follow each other without a pause.
pub(super) const PAGES: &str = "65536";

/// Who folds the log.
pub(super) struct Fold {
    /// One connection, opened when it is needed first.
    pool: SqlitePool,
    rows: AtomicU64,
    turn: Arc<Semaphore>,
}

impl Fold {
    pub(super) fn new(options: SqliteConnectOptions) -> Fold {
        let pool = SqlitePoolOptions::new()
            .idle_timeout(None)
            .max_lifetime(None)
            .max_connections(1);
        Fold {
            pool: pool.connect_lazy_with(options),
            rows: AtomicU64::new(0),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// So many rows were committed: if there are enough by now, and nobody is at it, the log is folded
    /// while others go on.
    pub(super) fn committed(&self, rows: u64) {
        if self.rows.fetch_add(rows, Ordering::Relaxed) + rows < ROWS {
            return;
        }
        let Ok(turn) = self.turn.clone().try_acquire_owned() else {
            return;
        };
        self.rows.store(0, Ordering::Relaxed);
        let pool = self.pool.clone();
        // It ends by itself; whoever closes waits for its connection.
        tokio::spawn(async move {
            let _turn = turn;
            let sql = "PRAGMA wal_checkpoint(PASSIVE)";
            match sqlx::query(sql).execute(&pool).await {
                Ok(_) | Err(sqlx::Error::PoolClosed) => {}
                Err(error) => warn!(%error, "the database's log could not be folded; it grows"),
            }
        });
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::ROWS;
    use crate::Database;
    use crate::store::{Pools, Store, sql};

    #[tokio::test]
    async fn what_many_commits_wrote_is_folded_without_closing_and_what_few_wrote_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let store = Store::open(Database::file(path.clone()).place())
            .await
            .unwrap();
        let Pools::Sqlite { fold, .. } = &store.0.pools else {
            unreachable!("it is a file");
        };
        let bytes = || std::fs::metadata(&path).unwrap().len();
        let before = bytes();
        for number in 0..2 * ROWS {
            let mut write = store.write().await.unwrap();
            let name = format!("{number}{}", "x".repeat(1_000));
            let row = sql::query("INSERT INTO counters (name, value) VALUES ($1, 1)").bind(name);
            row.execute(write.connection()).await.unwrap();
            write.commit().await.unwrap();
            if number < ROWS / 4 {
                assert_eq!(bytes(), before);
            }
        }
        // Behind the one that was begun.
        let _turn = fold.turn.acquire().await.unwrap();
        assert!(bytes() > before, "{before} bytes all the time");
    }
}
