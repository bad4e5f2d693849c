//! Everything a broker must know, as of one revision.

use authcache::feed::Snapshot;
use authcache::{Change, EntityId, Status};

use crate::identify::{client_identity, pat_identity, user_identity};
use crate::model::{Channel, Domain, Time};
use crate::store::{Store, StoreError, access, channels, clients, domains, lineage, users};

/// Reads the directory, and the principals a broker holds; those that are gone are left out. `told`
/// is what the broker knows, which may be of a database that this one was restored over.
pub(crate) async fn read(
    store: &Store,
    told: (Option<EntityId>, u64),
    held: &[EntityId],
) -> Result<Snapshot, StoreError> {
    let (mut tx, revision) = store.read_at().await?;
    let afresh = match told {
        (Some(id), told) => !lineage::holds(&mut tx, id, told).await?,
        (None, _) => false,
    };
    let domains = domains::all_domains(&mut tx).await?;
    let channels = channels::all_channels(&mut tx).await?;
    let changes = domains
        .iter()
        .map(domain_set)
        .chain(channels.iter().map(channel_set))
        .collect();
    let mut identities = Vec::new();
    for &id in held {
        if let Some(client) = clients::client_auth(&mut tx, id).await? {
            identities.push(client_identity(&mut tx, &client).await?);
        } else if let Some(user) = users::user_auth(&mut tx, id).await? {
            identities.push(user_identity(&user));
        } else if let Some(pat) = access::pat(&mut tx, id).await?
            && pat.is_good(Time::now())
            && let Some(owner) = users::user_auth(&mut tx, pat.user).await?
        {
            identities.push(pat_identity(&pat, &owner));
        }
    }
    Ok(Snapshot {
        revision,
        afresh,
        changes,
        identities,
    })
}

/// A domain as brokers hear of it.
pub(crate) fn domain_set(domain: &Domain) -> Change {
    Change::DomainSet {
        id: domain.id,
        route: domain.route.clone(),
        status: domain.status,
    }
}

/// What brokers hear of the status of something that a disabled group may hold.
pub(crate) const fn effective(status: Status, held: bool) -> Status {
    if held { Status::Disabled } else { status }
}

/// A channel as brokers hear of it.
pub(crate) fn channel_set(channel: &Channel) -> Change {
    Change::ChannelSet {
        id: channel.id,
        domain: channel.domain_id,
        route: channel.route.clone(),
        status: effective(channel.status, channel.held),
        open: channel.open,
    }
}
