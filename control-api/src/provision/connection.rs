//! Connections: which clients may publish to and subscribe on which channels.

use std::collections::BTreeMap;

use authcache::{Change, EntityId, Right, Status};
use serde::{Deserialize, Serialize};

use super::{Conflict, Provision, ProvisionError, channel, client, domain, note};
use crate::model::{Channel, Client, Domain, Time, right_words, status_word};
use crate::name::{Invalid, parse_types};
use crate::store::Write;
use crate::store::channels::RIGHTS_AT_ONCE;

/// Client and channel pairs one call may name. The revision of such a call is 0.4 MB on the feed.
pub const TRIPLES_MAX: usize = 10_000;
/// Channels one client may be connected to: its identity travels as one message.
pub const CONNECTIONS_MAX: u64 = 10_000;
// What is read of several clients at a time is at least one of them.
const _: () = assert!(CONNECTIONS_MAX < RIGHTS_AT_ONCE as u64);

/// Every client named with every channel named, for every type named.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Ids of clients.
    pub clients: Vec<String>,
    /// Ids or routes of channels.
    pub channels: Vec<String>,
    /// `publish`, `subscribe`, in any letter case.
    pub types: Vec<String>,
}

impl Provision {
    /// Connects every client to every channel.
    ///
    /// # Errors
    /// Something named does not exist in the domain or is not enabled, a type is unknown, or one of
    /// the connections exists for one of the types: then nothing is changed.
    pub async fn connect(
        &self,
        domain_name: &str,
        connections: &Connections,
    ) -> Result<(), ProvisionError> {
        let right = check(connections)?;
        let mut write = self.store.write().await?;
        let (within, clients, channels) = find(&mut write, domain_name, connections).await?;
        for client in &clients {
            enabled("client", client.id.to_string(), client.status)?;
        }
        for channel in &channels {
            enabled("channel", channel.id.to_string(), channel.status)?;
        }
        let pairs = every_pair(&ids(&clients, |c| c.id), &ids(&channels, |c| c.id));
        apply_connect(&mut write, &pairs, right).await?;
        self.noted(write, "channel.connect", &within, &channels)
            .await
    }

    /// Takes the types away from every client on every channel. Connections that do not exist are
    /// ignored.
    ///
    /// # Errors
    /// Something named does not exist in the domain, or a type is unknown.
    pub async fn disconnect(
        &self,
        domain_name: &str,
        connections: &Connections,
    ) -> Result<(), ProvisionError> {
        let right = check(connections)?;
        let mut write = self.store.write().await?;
        let (within, clients, channels) = find(&mut write, domain_name, connections).await?;
        let pairs = every_pair(&ids(&clients, |c| c.id), &ids(&channels, |c| c.id));
        apply_disconnect(&mut write, &pairs, right).await?;
        // Without a change this waits for the last revision: another call may have taken the same
        // rights away and not be settled.
        self.noted(write, "channel.disconnect", &within, &channels)
            .await
    }

    /// Notes one row for each channel, then commits.
    async fn noted(
        &self,
        mut write: Write,
        operation: &str,
        within: &Domain,
        channels: &[Channel],
    ) -> Result<(), ProvisionError> {
        for channel in channels {
            note(&mut write, operation, within.id, channel.id).await?;
        }
        self.commit(write).await
    }
}

/// Each of these clients with each of these channels.
pub(crate) fn every_pair(clients: &[EntityId], channels: &[EntityId]) -> Vec<(EntityId, EntityId)> {
    let pairs = |client: &EntityId| {
        let client = *client;
        channels.iter().map(move |channel| (client, *channel))
    };
    clients.iter().flat_map(pairs).collect()
}

/// Connects each client with the channel beside it, or nothing if one of the connections exists.
pub(crate) async fn apply_connect(
    write: &mut Write,
    pairs: &[(EntityId, EntityId)],
    right: Right,
) -> Result<(), ProvisionError> {
    let mut held = write.connection_rights(pairs).await?;
    for &(client, channel) in pairs {
        let before = held.entry((client, channel)).or_insert(Right::NONE);
        let again = *before & right;
        if !again.is_empty() {
            let types = right_words(again).join(" and ");
            return Err(Conflict::AlreadyConnected {
                client,
                channel,
                types,
            }
            .into());
        }
        *before |= right;
        tell(write, client, channel, *before);
    }
    let now = Time::now();
    write.set_connection_rights(&held, now).await?;
    let mut clients: Vec<EntityId> = pairs.iter().map(|(client, _)| *client).collect();
    clients.sort_unstable();
    clients.dedup();
    match write.most_connected(&clients).await? {
        Some((client, count)) if count > CONNECTIONS_MAX => {
            Err(Conflict::TooManyConnections { client, count }.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Takes rights from each client on the channel beside it; what is not there stays so.
pub(crate) async fn apply_disconnect(
    write: &mut Write,
    pairs: &[(EntityId, EntityId)],
    right: Right,
) -> Result<(), ProvisionError> {
    let held = write.connection_rights(pairs).await?;
    let mut changed = BTreeMap::new();
    for (&(client, channel), &before) in &held {
        let after = without(before, right);
        if after != before {
            changed.insert((client, channel), after);
            tell(write, client, channel, after);
        }
    }
    write.set_connection_rights(&changed, Time::now()).await?;
    Ok(())
}

fn tell(write: &mut Write, principal: EntityId, channel: EntityId, right: Right) {
    write.change(Change::RightSet {
        principal,
        channel,
        right,
    });
}

fn ids<T>(items: &[T], id: impl Fn(&T) -> EntityId) -> Vec<EntityId> {
    items.iter().map(id).collect()
}

fn check(connections: &Connections) -> Result<Right, Invalid> {
    let right = parse_types(&connections.types)?;
    for (field, list) in [
        ("clients", &connections.clients),
        ("channels", &connections.channels),
    ] {
        if list.is_empty() {
            return Err(Invalid::Empty {
                field,
                expected: "at least one",
            });
        }
    }
    let count = connections
        .clients
        .len()
        .saturating_mul(connections.channels.len());
    if count > TRIPLES_MAX {
        let what = "pairs of client and channel";
        return Err(Invalid::TooMany {
            what,
            count,
            most: TRIPLES_MAX,
        });
    }
    Ok(right)
}

/// What a call names, each once: naming a client twice must not make its connection exist already.
async fn find(
    write: &mut Write,
    domain_name: &str,
    connections: &Connections,
) -> Result<(Domain, Vec<Client>, Vec<Channel>), ProvisionError> {
    let within = domain(write.connection(), domain_name).await?;
    let mut clients = Vec::with_capacity(connections.clients.len());
    for name in &connections.clients {
        clients.push(client(write.connection(), &within, name).await?);
    }
    let mut channels = Vec::with_capacity(connections.channels.len());
    for name in &connections.channels {
        channels.push(channel(write.connection(), &within, name).await?);
    }
    clients.sort_by_key(|client| client.id);
    clients.dedup_by_key(|client| client.id);
    channels.sort_by_key(|channel| channel.id);
    channels.dedup_by_key(|channel| channel.id);
    Ok((within, clients, channels))
}

fn enabled(kind: &'static str, name: String, status: Status) -> Result<(), Conflict> {
    if status.is_live() {
        return Ok(());
    }
    Err(Conflict::NotEnabled {
        kind,
        name,
        status: status_word(status),
    })
}

fn without(before: Right, taken: Right) -> Right {
    Right::from_bits(before.bits() & !taken.bits())
}
