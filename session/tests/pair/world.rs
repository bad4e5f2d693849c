//! What machines are judged by: one domain, a few channels, and who may do what on them.

use std::sync::Arc;

use authcache::{
    AuthCache, Capacity, Change, EntityId, Gate, Identity, PrincipalIndex, PrincipalRecord, Right,
    Status, Writer,
};
use router::{ShardId, SlotId};
use session::{IdSource, Limits, ListenerRules, Now, Origin, Rules};

pub(crate) const DOMAIN: EntityId = EntityId::from_u128(1);
/// Everybody may publish and subscribe; its route is `plant/line`.
pub(crate) const LINE: EntityId = EntityId::from_u128(2);
/// Nobody may do anything.
pub(crate) const SECRET: EntityId = EntityId::from_u128(3);
/// `dev` may subscribe only.
pub(crate) const NEWS: EntityId = EntityId::from_u128(4);
const OPEN: EntityId = EntityId::from_u128(5);

pub(crate) struct World {
    cache: Arc<AuthCache>,
    gate: Gate,
    pub(crate) writer: Writer,
    pub(crate) limits: Limits,
    pub(crate) listener: ListenerRules,
    pub(crate) now: Now,
    ids: IdSource,
    /// A client of the domain.
    pub(crate) dev: PrincipalIndex,
    /// Another one.
    pub(crate) other: PrincipalIndex,
    /// A user whose rights are unknown until control says them.
    pub(crate) user: PrincipalIndex,
}

impl World {
    pub(crate) fn new() -> World {
        let (cache, mut writer) = AuthCache::new(Capacity::default());
        cache.lease().unlimited();
        let status = Status::Enabled;
        writer.apply(&Change::DomainSet {
            id: DOMAIN,
            route: "plant".into(),
            status,
        });
        for (id, route) in [
            (LINE, "line"),
            (SECRET, "secret"),
            (NEWS, "news"),
            (OPEN, "open"),
        ] {
            let (route, open) = (Some(route.to_owned()), id == OPEN);
            writer.apply(&Change::ChannelSet {
                id,
                domain: DOMAIN,
                route,
                status,
                open,
            });
        }
        let client = PrincipalRecord::Client { domain: DOMAIN };
        let mut hold = |id, kind, rights: Vec<(EntityId, Right)>| {
            let id = EntityId::from_u128(id);
            writer.hold(&Identity {
                id,
                kind,
                status,
                credential: 1,
                rights,
            })
        };
        let rights = vec![
            (LINE, Right::BOTH),
            (NEWS, Right::SUBSCRIBE),
            (OPEN, Right::BOTH),
        ];
        let dev = hold(10, client, rights.clone());
        let other = hold(11, client, rights);
        let user = hold(20, PrincipalRecord::User, Vec::new());
        World {
            gate: cache.gate(),
            cache,
            writer,
            limits: Limits::default(),
            listener: ListenerRules::default(),
            now: Now::from_millis(1_000_000),
            ids: IdSource::new(7),
            dev,
            other,
            user,
        }
    }

    /// Topics outside the grammar are let in.
    pub(crate) fn open(&mut self) {
        let directory = self.cache.directory();
        let domain = directory.domain(DOMAIN).unwrap();
        self.listener.open = directory.open_channel(domain);
        assert!(self.listener.open.is_some());
    }

    pub(crate) fn rules(&self, slot: usize) -> Rules<'_> {
        Rules {
            gate: &self.gate,
            directory: self.cache.directory(),
            limits: &self.limits,
            listener: &self.listener,
            now: self.now,
            origin: Origin {
                shard: ShardId::new(0),
                slot: Some(SlotId::new(slot as u32)),
            },
            ids: &self.ids,
        }
    }

    pub(crate) fn channel(&self, id: EntityId) -> authcache::ChannelIndex {
        self.cache.directory().channel(id).unwrap()
    }

    /// Who has these credentials.
    pub(crate) fn who(&self, name: &str) -> Option<PrincipalIndex> {
        match name {
            "dev" => Some(self.dev),
            "other" => Some(self.other),
            "user" => Some(self.user),
            _ => None,
        }
    }
}

/// A topic or filter on the channel that everybody may use.
pub(crate) fn line(subtopic: &str) -> String {
    on(LINE, subtopic)
}

/// A topic or filter on a channel.
pub(crate) fn on(channel: EntityId, subtopic: &str) -> String {
    let slash = if subtopic.is_empty() { "" } else { "/" };
    format!("m/{DOMAIN}/c/{channel}{slash}{subtopic}")
}
