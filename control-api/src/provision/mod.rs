//! Every operation on domains, clients, channels and connections, with its rules.
//!
//! The HTTP API, the command line and the operator socket call this and nothing else. A change, its
//! outbox row and its revision are one transaction; a call returns once the revision has settled,
//! that is when every broker has applied it or its lease has ended. So what was taken away is gone,
//! and what was given works, when the caller reads the answer.

mod channel;
mod client;
mod connection;
mod domain;
mod explain;
mod keys;
mod request;

use crate::store::sql::Connection;
use authcache::{Change, EntityId, Status};
use thiserror::Error;

use crate::feed::Feed;
use crate::grant::Kind;
use crate::identify::Identifier;
use crate::model::{Channel, Client, Domain, Page, Time};
use crate::name::{Invalid, excerpt, parse_id};
use crate::outbox::Outbox;
use crate::store::journal::{Event, Outcome};
use crate::store::{Store, StoreError, Write, channels, clients, domains};

pub use channel::NewChannel;
pub use client::{ClientWithSecret, NewClient};
pub use connection::{CONNECTIONS_MAX, Connections, TRIPLES_MAX};
pub(crate) use connection::{apply_connect, apply_disconnect, every_pair};
pub use domain::NewDomain;
pub(crate) use keys::end_void_logins;
pub use request::{Request, Response};

/// Why an operation was refused, sorted by whose fault it is.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// A value is wrong: the caller must change the request.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// What was named does not exist, or not in that domain.
    #[error("{kind} {name:?} does not exist{}", within(.domain))]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// How it was named.
        name: String,
        /// The domain it was looked for in.
        domain: Option<String>,
    },
    /// The request contradicts what is there.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The database failed; the request may work later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What stands in the way of a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Conflict {
    /// Another one has this id.
    #[error("id {0} is taken; expected a new one, or none to have one made")]
    IdTaken(EntityId),
    /// Another one has this route.
    #[error("route {0:?} is taken; routes are unique and cannot be changed")]
    RouteTaken(String),
    /// Another client of the domain has this secret.
    #[error(
        "another client of the domain has this secret; expected a different one, or none to have one made"
    )]
    SecretTaken,
    /// It is in that state already.
    #[error("{kind} {name:?} is already {status}")]
    StatusAlready {
        /// What kind of thing.
        kind: &'static str,
        /// How it was named.
        name: String,
        /// The state.
        status: &'static str,
    },
    /// Only enabled clients and channels can be connected.
    #[error("{kind} {name:?} is {status}; only enabled ones can be connected")]
    NotEnabled {
        /// What kind of thing.
        kind: &'static str,
        /// How it was named.
        name: String,
        /// Its state.
        status: &'static str,
    },
    /// A connection to be made exists.
    #[error(
        "client {client} is already connected to channel {channel} for {types}; nothing was changed"
    )]
    AlreadyConnected {
        /// The client.
        client: EntityId,
        /// The channel.
        channel: EntityId,
        /// For what.
        types: String,
    },
    /// The client would have too many connections.
    #[error("client {client} would have {count} connections; expected at most {CONNECTIONS_MAX}")]
    TooManyConnections {
        /// The client.
        client: EntityId,
        /// How many it would have.
        count: u64,
    },
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is wrong.
    Invalid,
    /// What it names is not there.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// Control cannot do it now.
    Unavailable,
}

impl Fault {
    /// The word for it on the operator socket.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Fault::Invalid => "invalid",
            Fault::NotFound => "not_found",
            Fault::Conflict => "conflict",
            Fault::Unavailable => "unavailable",
        }
    }
}

impl ProvisionError {
    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            ProvisionError::Invalid(_) => Fault::Invalid,
            ProvisionError::NotFound { .. } => Fault::NotFound,
            ProvisionError::Conflict(_) => Fault::Conflict,
            ProvisionError::Store(_) => Fault::Unavailable,
        }
    }
}

fn within(domain: &Option<String>) -> String {
    domain
        .as_ref()
        .map_or_else(String::new, |domain| format!(" in domain {domain:?}"))
}

/// All operations. Cheap to clone.
#[derive(Clone)]
pub struct Provision {
    store: Store,
    feed: Feed,
    outbox: Outbox,
    identifier: Identifier,
}

impl Provision {
    pub(crate) fn new(
        store: Store,
        feed: Feed,
        outbox: Outbox,
        identifier: Identifier,
    ) -> Provision {
        Provision {
            store,
            feed,
            outbox,
            identifier,
        }
    }

    /// Notes what the operator did, then [commits](Self::commit).
    async fn finish(
        &self,
        mut write: Write,
        operation: &str,
        domain: EntityId,
        object: EntityId,
    ) -> Result<(), ProvisionError> {
        note(&mut write, operation, domain, object).await?;
        self.commit(write).await
    }

    /// Commits, wakes the outbox, and waits until the revision has settled.
    pub(crate) async fn commit(&self, write: Write) -> Result<(), ProvisionError> {
        let regrouped = write.regrouped();
        self.settle(write).await?;
        match regrouped {
            Some(domain) => self.settle_held(domain).await,
            None => Ok(()),
        }
    }

    async fn settle(&self, write: Write) -> Result<(), ProvisionError> {
        let lineage = write.lineage();
        let committed = write.commit().await;
        // Whoever reads the outbox also sees that the database is older than it was.
        self.outbox.wake();
        let revision = committed?;
        if self.feed.settled(lineage, revision).await {
            return Ok(());
        }
        Err(StoreError::Restored.into())
    }

    /// Removes domains for good that were deleted before this time; how many.
    pub(crate) async fn purge_domains(&self, before: Time) -> Result<usize, ProvisionError> {
        let mut connection = self.store.read().await?;
        let found = domains::deleted_before(&mut connection, before).await?;
        drop(connection);
        for &id in &found {
            let mut write = self.store.write().await?;
            write.delete_domain(id).await?;
            write.change(Change::DomainRemoved { id });
            self.finish(write, "domain.remove", id, id).await?;
        }
        Ok(found.len())
    }

    /// Holds what disabled groups stop, and lets go what they do not.
    pub(crate) async fn settle_held(&self, domain: EntityId) -> Result<(), ProvisionError> {
        loop {
            let mut write = self.store.write().await?;
            let more = write.settle_held(domain).await?;
            self.settle(write).await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn find_domain(&self, name: &str) -> Result<Domain, ProvisionError> {
        let mut connection = self.store.read().await?;
        domain(&mut connection, name).await
    }
}

/// Notes in the journal what the operator did.
async fn note(
    write: &mut Write,
    operation: &str,
    domain: EntityId,
    object: EntityId,
) -> Result<(), StoreError> {
    let word = operation.split('.').next().unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
    let event = Event {
        operation: operation.to_owned(),
        outcome: Outcome::Done,
        domain: Some(domain),
        kind: kind.map_or("platform", Kind::word),
        entity: object.to_string(),
        user: None,
        peer: "operator".to_owned(),
        attributes: serde_json::json!({}),
    };
    write.record(&event, Time::now()).await
}

/// The operation that sets a status.
const fn switched(kind: Kind, status: Status) -> &'static str {
    match (kind, status.is_live()) {
        (Kind::Domain, true) => "domain.enable",
        (Kind::Domain, false) => "domain.disable",
        (Kind::Group, true) => "group.enable",
        (Kind::Group, false) => "group.disable",
        (Kind::Channel, true) => "channel.enable",
        (Kind::Channel, false) => "channel.disable",
        (Kind::Client, true) => "client.enable",
        (Kind::Client, false) => "client.disable",
    }
}

/// The domain with this id or route.
async fn domain(connection: &mut Connection, name: &str) -> Result<Domain, ProvisionError> {
    let found = domains::domain(connection, name).await?;
    found.ok_or_else(|| not_found("domain", name, None))
}

/// The domain with this id or route, also one that was deleted and is not removed yet.
async fn kept(connection: &mut Connection, name: &str) -> Result<Domain, ProvisionError> {
    let found = domains::kept_domain(connection, name).await?;
    found.ok_or_else(|| not_found("domain", name, None))
}

/// The channel of the domain with this id or route.
async fn channel(
    connection: &mut Connection,
    domain: &Domain,
    name: &str,
) -> Result<Channel, ProvisionError> {
    let found = channels::channel(connection, domain.id, name).await?;
    found.ok_or_else(|| not_found("channel", name, Some(domain)))
}

/// The client of the domain with this id.
async fn client(
    connection: &mut Connection,
    domain: &Domain,
    name: &str,
) -> Result<Client, ProvisionError> {
    let id = parse_id("client", name)?;
    let found = clients::client(connection, domain.id, id).await?;
    found.ok_or_else(|| not_found("client", name, Some(domain)))
}

fn not_found(kind: &'static str, name: &str, domain: Option<&Domain>) -> ProvisionError {
    let domain = domain.map(|domain| domain.route.clone());
    ProvisionError::NotFound {
        kind,
        name: excerpt(name),
        domain,
    }
}

pub(crate) fn check_page(page: Page) -> Result<Page, Invalid> {
    if !(1..=Page::LIMIT_MAX).contains(&page.limit) {
        return Err(Invalid::Limit {
            value: page.limit,
            most: Page::LIMIT_MAX,
        });
    }
    // Offsets beyond what SQL counts are beyond every list.
    Ok(Page {
        offset: page.offset.min(i64::MAX.cast_unsigned()),
        ..page
    })
}
