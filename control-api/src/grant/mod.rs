//! What a role permits: pure functions over what was read from the database.
//!
//! A role is compiled into at most seven [`Grant`]s: verbs on a [`Scope`]. A decision collects the
//! grants of all roles that somebody holds and asks which of them cover the object. The tests hold
//! it against a literal reading of the permission matrix.

pub(crate) mod verb;

use authcache::EntityId;

pub(crate) use verb::{Actions, Kind, Slot, Verb, Verbs};

/// Which objects a grant is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One object.
    Object(EntityId),
    /// All objects of a kind in a domain.
    Domain(EntityId, Kind),
    /// Direct members of a group, of a kind.
    Children(EntityId, Kind),
    /// Members, of a kind, of the groups below a group; of groups: those groups themselves.
    Below(EntityId, Kind),
}

/// Verbs on a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) scope: Scope,
    pub(crate) verbs: Verbs,
}

/// Where an object stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) kind: Kind,
    pub(crate) id: EntityId,
    pub(crate) domain: EntityId,
    /// Its parent group, that one's parent, and so on to the root.
    pub(crate) groups: &'a [EntityId],
}

impl Scope {
    /// Whether the object is one of those meant.
    pub(crate) fn covers(self, place: &Place<'_>) -> bool {
        match self {
            Scope::Object(id) => id == place.id,
            Scope::Domain(domain, kind) => domain == place.domain && kind == place.kind,
            Scope::Children(group, kind) => {
                kind == place.kind && place.groups.first() == Some(&group)
            }
            Scope::Below(group, kind) => {
                let direct = usize::from(kind != Kind::Group);
                kind == place.kind && place.groups.iter().skip(direct).any(|id| *id == group)
            }
        }
    }
}

/// The grants of a role with these actions on this object.
pub(crate) fn compile(
    kind: Kind,
    object: EntityId,
    actions: &Actions,
) -> impl Iterator<Item = Grant> + use<> {
    let actions = *actions;
    Slot::ALL.into_iter().filter_map(move |slot| {
        let scope = scope(kind, object, slot)?;
        let verbs = actions.in_slot(slot);
        (!verbs.is_empty()).then_some(Grant { scope, verbs })
    })
}

fn scope(kind: Kind, object: EntityId, slot: Slot) -> Option<Scope> {
    Some(match (kind, slot) {
        (_, Slot::Own) => Scope::Object(object),
        (Kind::Domain, Slot::Clients) => Scope::Domain(object, Kind::Client),
        (Kind::Domain, Slot::Channels) => Scope::Domain(object, Kind::Channel),
        (Kind::Domain, Slot::Groups) => Scope::Domain(object, Kind::Group),
        (Kind::Group, Slot::Clients) => Scope::Children(object, Kind::Client),
        (Kind::Group, Slot::Channels) => Scope::Children(object, Kind::Channel),
        (Kind::Group, Slot::Groups) => Scope::Below(object, Kind::Group),
        (Kind::Group, Slot::BelowClients) => Scope::Below(object, Kind::Client),
        (Kind::Group, Slot::BelowChannels) => Scope::Below(object, Kind::Channel),
        (Kind::Domain | Kind::Channel | Kind::Client, _) => return None,
    })
}

/// What grants permit on an object.
pub(crate) fn permitted<'a>(
    grants: impl IntoIterator<Item = &'a Grant>,
    place: &Place<'_>,
) -> Verbs {
    grants
        .into_iter()
        .filter(|grant| grant.scope.covers(place))
        .fold(Verbs::NONE, |verbs, grant| verbs.union(grant.verbs))
}

#[cfg(test)]
mod tests;
