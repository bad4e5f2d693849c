//! What control tells a broker, and what the broker's shards must hear of it.
//!
//! A [`Change`] is one row of a committed control transaction. An [`Identity`] is the answer to a
//! verified credential. [`Writer::apply`](crate::Writer::apply) turns changes into stores in the
//! shared tables and into [`Notice`]s, which are posted to every shard before the fence.

use serde::{Deserialize, Serialize};

use crate::index::{ChannelIndex, DomainIndex, EntityId, PrincipalIndex};
use crate::right::Right;

/// Whether something may take part in traffic. Only `Enabled` is live.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// In use.
    Enabled,
    /// Switched off by its owner.
    Disabled,
    /// Switched off by the platform.
    Frozen,
}

impl Status {
    /// Whether messages may pass.
    #[must_use]
    pub const fn is_live(self) -> bool {
        match self {
            Self::Enabled => true,
            Self::Disabled | Self::Frozen => false,
        }
    }
}

/// What a principal is, as control writes it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PrincipalRecord {
    /// A device. Its rights come from connections, are few, and travel with its identity.
    Client {
        /// The domain it belongs to. It has rights nowhere else but on `$SYS`.
        domain: EntityId,
    },
    /// A person or its token. Its rights are computed by control on first use.
    User,
}

/// One committed change of control's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A domain is created or altered.
    DomainSet {
        /// Its id.
        id: EntityId,
        /// Its route, unique on the platform; empty for none.
        route: String,
        /// Whether it is live.
        status: Status,
    },
    /// A domain is gone, and with it its channels and clients.
    DomainRemoved {
        /// Its id.
        id: EntityId,
    },
    /// A channel is created or altered.
    ChannelSet {
        /// Its id.
        id: EntityId,
        /// The domain it belongs to.
        domain: EntityId,
        /// Its route, unique in the domain.
        route: Option<String>,
        /// Whether it is live.
        status: Status,
        /// Whether it is the domain's open channel. Fixed at creation.
        open: bool,
    },
    /// A channel is gone.
    ChannelRemoved {
        /// Its id.
        id: EntityId,
    },
    /// A principal is altered. Ignored by brokers that do not hold it.
    PrincipalSet {
        /// Its id.
        id: EntityId,
        /// What it is. Fixed at creation.
        kind: PrincipalRecord,
        /// Whether it may be connected.
        status: Status,
        /// Generation of its secret: differs when the secret was changed.
        credential: u64,
    },
    /// A principal is gone. Ignored by brokers that do not hold it.
    PrincipalRemoved {
        /// Its id.
        id: EntityId,
    },
    /// One right of one principal. Ignored by brokers that do not hold the principal.
    RightSet {
        /// Whose.
        principal: EntityId,
        /// Where.
        channel: EntityId,
        /// What; empty means that it was taken away.
        right: Right,
    },
    /// Roles, groups or members changed: what was computed for users in the domain is void.
    UserRightsStale {
        /// The domain concerned.
        domain: EntityId,
    },
}

/// A verified principal with all that its connection needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub id: EntityId,
    /// What it is.
    pub kind: PrincipalRecord,
    /// Whether it may be connected.
    pub status: Status,
    /// Generation of its secret.
    pub credential: u64,
    /// Of a client: all its rights. Of a user: those that control knows already.
    pub rights: Vec<(EntityId, Right)>,
}

/// Why connections of a principal must end.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It was disabled or frozen. Its sessions may stay parked.
    Disabled,
    /// It exists no more: its sessions end. Its index is reused after the next fence.
    Removed,
    /// Its secret was changed. It may come back with the new one.
    CredentialChanged,
}

/// What each shard does before it acknowledges the fence.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Cached rights and list stamps of the domain are stale. Nothing to do for correctness of new
    /// messages; what waits in queues is judged again.
    EpochBumped(DomainIndex),
    /// Clear the right caches of its slots, judge its entries and its backlog again.
    RightsChanged(PrincipalIndex),
    /// Close its connections.
    PrincipalClosed(PrincipalIndex, Cause),
    /// Close the connections of all clients of the domain.
    DomainClosed(DomainIndex),
    /// Drop subscriptions and retained messages of the channel. An open channel gives one notice for
    /// each of its 257 indexes. The index is reused after the next fence.
    ChannelRemoved(ChannelIndex),
}
