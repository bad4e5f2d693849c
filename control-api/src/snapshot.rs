//! Everything a broker must know, as of one revision.

use std::collections::HashMap;

use authcache::feed::Snapshot;
use authcache::{Change, EntityId, Identity, Status};

use crate::identify::{identity_of, pat_identity, user_identity};
use crate::model::{Channel, Domain, Time};
use crate::store::channels::RIGHTS_AT_ONCE;
use crate::store::clients::ClientAuth;
use crate::store::sql::Connection;
use crate::store::{Store, StoreError, access, channels, clients, domains, lineage, users};

/// Principals that are read with one statement.
const AT_ONCE: usize = 256;

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
    let mut held = held.to_vec();
    held.sort_unstable();
    let mut identities = Vec::with_capacity(held.len());
    for part in held.chunks(AT_ONCE) {
        let rest = read_clients(&mut tx, part, &mut identities).await?;
        for id in rest {
            identities.extend(read_other(&mut tx, id).await?);
        }
    }
    Ok(Snapshot {
        revision,
        afresh,
        changes,
        identities,
    })
}

/// Reads those that are clients; the others are given back.
async fn read_clients(
    tx: &mut Connection,
    ids: &[EntityId],
    identities: &mut Vec<Identity>,
) -> Result<Vec<EntityId>, StoreError> {
    let found = clients::clients_auth(tx, ids).await?;
    let known: HashMap<EntityId, ClientAuth> = found
        .into_iter()
        .map(|client| (client.id, client))
        .collect();
    let (mut left, others): (Vec<EntityId>, Vec<EntityId>) =
        ids.iter().partition(|id| known.contains_key(id));
    while !left.is_empty() {
        let (read, rest) = channels::rights_of_first(tx, &left, RIGHTS_AT_ONCE).await?;
        for (id, rights) in read {
            identities.extend(known.get(&id).map(|client| identity_of(client, rights)));
        }
        left = rest;
    }
    Ok(others)
}

/// Reads a user or a personal access token.
async fn read_other(tx: &mut Connection, id: EntityId) -> Result<Option<Identity>, StoreError> {
    if let Some(user) = users::user_auth(tx, id).await? {
        return Ok(Some(user_identity(&user)));
    }
    let Some(pat) = access::pat(tx, id)
        .await?
        .filter(|pat| pat.is_good(Time::now()))
    else {
        return Ok(None);
    };
    let owner = users::user_auth(tx, pat.user).await?;
    Ok(owner.map(|owner| pat_identity(&pat, &owner)))
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
