//! Removes for good what was deleted long enough ago.

use std::time::Duration;

use crate::model::Time;
use crate::provision::{Provision, ProvisionError};
use crate::store::{Store, StoreError};

/// How often it is looked for it, and how often at most: each look is a write.
const EVERY: Duration = Duration::from_secs(24 * 3_600);
const EVERY_MIN: Duration = Duration::from_secs(60);
/// How long a deleted user stays: its name and address are taken as long.
const KEPT_SECONDS: i64 = 720 * 3_600;

/// Looks at the start and then from time to time, for ever. Domains are kept for `domains`.
pub(crate) async fn run(store: Store, provision: Provision, domains: Duration) {
    loop {
        match purge_users(&store, Time::now()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "deleted users were removed for good"),
            Err(error) => tracing::warn!(%error, "deleted users could not be removed"),
        }
        match purge_domains(&provision, Time::now(), domains).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "deleted domains were removed for good"),
            Err(error) => tracing::warn!(%error, "deleted domains could not be removed"),
        }
        tokio::time::sleep(wait(domains)).await;
    }
}

/// How long it is waited for the next look. Where domains are removed at once none waits for it.
fn wait(domains: Duration) -> Duration {
    if domains.is_zero() {
        return EVERY;
    }
    domains.clamp(EVERY_MIN, EVERY)
}

async fn purge_users(store: &Store, now: Time) -> Result<u64, StoreError> {
    let mut write = store.write().await?;
    let count = write.purge_users(now.plus_seconds(-KEPT_SECONDS)).await?;
    write.commit().await?;
    Ok(count)
}

async fn purge_domains(
    provision: &Provision,
    now: Time,
    kept: Duration,
) -> Result<usize, ProvisionError> {
    let kept = i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
    provision.purge_domains(now.plus_seconds(-kept)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_seldom_however_short_domains_are_kept() {
        let seconds = Duration::from_secs;
        assert_eq!(wait(Duration::ZERO), EVERY);
        assert_eq!(wait(seconds(1)), EVERY_MIN);
        assert_eq!(wait(seconds(3_600)), seconds(3_600));
        assert_eq!(wait(seconds(720 * 3_600)), EVERY);
    }
}
