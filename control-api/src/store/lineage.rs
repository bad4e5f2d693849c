//! What a database committed in one line. A backup that is restored begins another one: revisions
//! that brokers were told are gone, and the same numbers come again for something else.
//!
//! This process knows the newest revision that it committed, and neither reads nor writes for
//! brokers below it until it has begun another lineage. Each start begins one as well, behind the
//! last; so of whatever lineage and revision a broker was told, the database says whether it is part
//! of its own past.

use std::sync::atomic::{AtomicU64, Ordering};

use authcache::EntityId;

use super::rows::blob;
use super::sql::{self, Connection};
use super::{Store, StoreError, Write, revision};
use crate::secret::random_id;

/// Lineages that are remembered. A broker that was told an older one is told everything afresh.
const REMEMBERED: i64 = 1_000;

/// What this process has committed.
#[derive(Default)]
pub(super) struct Committed {
    newest: AtomicU64,
    /// Lineages that it has begun.
    lineages: AtomicU64,
}

impl Committed {
    /// The newest revision; one that is read afterwards is no older, unless the database is.
    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    pub(super) fn note(&self, revision: u64) {
        self.newest.fetch_max(revision, Ordering::AcqRel);
    }

    pub(super) fn lineages(&self) -> u64 {
        self.lineages.load(Ordering::Acquire)
    }
}

impl Store {
    /// How many lineages this process has begun: what was committed in an earlier one settles no
    /// more.
    pub(crate) fn lineages(&self) -> u64 {
        self.0.committed.lineages()
    }

    /// Begins a lineage behind what the database holds. `begun` hears its name and revision while
    /// nothing else is written.
    pub(crate) async fn begin_lineage(
        &self,
        begun: impl FnOnce(EntityId, u64),
    ) -> Result<EntityId, StoreError> {
        let mut write = self.write().await?;
        let revision = revision(write.connection()).await?;
        let id = random_id();
        sql::query(
            "INSERT INTO lineages (id, number, revision) \
             SELECT $1, COALESCE(MAX(number), 0) + 1, $2 FROM lineages",
        )
        .bind(blob(id))
        .bind(revision.cast_signed())
        .execute(write.connection())
        .await?;
        sql::query("DELETE FROM lineages WHERE number <= (SELECT MAX(number) FROM lineages) - $1")
            .bind(REMEMBERED)
            .execute(write.connection())
            .await?;
        self.0.committed.lineages.fetch_add(1, Ordering::AcqRel);
        begun(id, revision);
        self.0.committed.newest.store(revision, Ordering::Release);
        write.commit().await?;
        Ok(id)
    }
}

impl Write {
    /// Which of the lineages of this process it belongs to.
    pub(crate) fn lineage(&self) -> u64 {
        self.lineage
    }
}

#[cfg(test)]
impl Write {
    /// Commits what nobody here noted: as if a backup had been restored that ends with `revision`.
    pub(crate) async fn restore(mut self, revision: u64) -> Result<(), StoreError> {
        for sql in [
            "UPDATE counters SET value = $1 WHERE name = 'revision'",
            "DELETE FROM outbox WHERE revision > $1",
        ] {
            sql::query(sql)
                .bind(revision.cast_signed())
                .execute(self.connection())
                .await?;
        }
        self.tx.commit().await
    }
}

/// Whether a revision of a lineage is part of this database's past.
pub(crate) async fn holds(
    connection: &mut Connection,
    lineage: EntityId,
    told: u64,
) -> Result<bool, StoreError> {
    let known: Option<(i64,)> = sql::query_as("SELECT number FROM lineages WHERE id = $1")
        .bind(blob(lineage))
        .fetch_optional(connection)
        .await?;
    let Some((number,)) = known else {
        return Ok(false);
    };
    let next: Option<(i64,)> =
        sql::query_as("SELECT revision FROM lineages WHERE number > $1 ORDER BY number LIMIT 1")
            .bind(number)
            .fetch_optional(connection)
            .await?;
    let end = match next {
        Some((end,)) => end.cast_unsigned(),
        None => revision(connection).await?,
    };
    Ok(told <= end)
}
