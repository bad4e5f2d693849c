//! Removes for good the users that were deleted long enough ago.

use std::time::Duration;

use crate::model::Time;
use crate::store::{Store, StoreError};

/// How often it is looked for them.
const EVERY: Duration = Duration::from_secs(24 * 3_600);
/// How long a deleted user stays: its name and address are taken as long.
const KEPT_SECONDS: i64 = 720 * 3_600;

/// Looks at the start and then once a day, for ever.
pub(crate) async fn run(store: Store) {
    loop {
        match purge(&store, Time::now()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "deleted users were removed for good"),
            Err(error) => tracing::warn!(%error, "deleted users could not be removed"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn purge(store: &Store, now: Time) -> Result<u64, StoreError> {
    let mut write = store.write().await?;
    let count = write.purge_users(now.plus_seconds(-KEPT_SECONDS)).await?;
    write.commit().await?;
    Ok(count)
}
