//! Hands committed revisions to the feed, in order, each once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::feed::Feed;
use crate::store::{Store, StoreError};

/// Revisions read at a time.
const BATCH: i64 = 256;
/// A commit whose caller went away before it could wake anybody is found within this time.
const POLL: Duration = Duration::from_millis(500);
/// Between two tries to begin anew on a restored database, of which the first should do.
const RETRY: Duration = Duration::from_millis(50);

/// Wakes the task that reads the outbox. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Notify>);

impl Outbox {
    /// Something was committed.
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Publishes what is committed and waits for more, for ever.
    pub(crate) async fn run(self, store: Store, feed: Feed) {
        let mut reads = true;
        loop {
            let published = feed.revision();
            let found = store.outbox(published, BATCH).await;
            if let Err(error) = &found
                && reads
            {
                tracing::error!(%error, "committed changes wait: the outbox cannot be read");
            }
            reads = found.is_ok();
            match found {
                Ok(rows) if rows.is_empty() => {
                    // Cancellation safe: a wake-up that comes meanwhile is kept for the next wait.
                    let _ = tokio::time::timeout(POLL, self.0.notified()).await;
                }
                Ok(rows) => {
                    for (revision, changes) in rows {
                        feed.publish(revision, changes);
                    }
                }
                Err(StoreError::Older { .. }) => {
                    feed.begin_anew().await;
                    tokio::time::sleep(RETRY).await;
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}
