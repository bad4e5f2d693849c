//! What somebody sees of the objects of a domain: where a role gives a verb, and how far it reaches.

use authcache::EntityId;

use super::listing::{Access, Viewer};
use super::roles::mask_column;
use super::rows::blob;
use super::sql::Builder;
use crate::grant::{Kind, Slot, Verb, Verbs};

impl Viewer {
    /// Verbs that must be held on each object, from wherever `access` lets them come; those that a
    /// role in the domain gives on all of them are left out.
    pub(super) fn verbs(self, access: Option<Access>) -> impl Iterator<Item = Verb> {
        let by_domain = access.is_none_or(|wanted| wanted == Access::Domain);
        Verb::ALL.into_iter().filter(move |verb| {
            self.needed.contains(*verb) && !(by_domain && self.everywhere.contains(*verb))
        })
    }
}

/// Objects of a kind as somebody sees them.
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) domain: EntityId,
    pub(super) viewer: Viewer,
    pub(super) access: Option<Access>,
}

impl Seen {
    /// A role on the object itself gives the verb.
    pub(super) fn push_itself(&self, query: &mut Builder, verb: Verb) {
        if !self.counts(Access::Direct) {
            query.push("1 = 0");
            return;
        }
        query.push("e.id IN (");
        self.push_holding(query, verb, Slot::Own);
        query.push(")");
    }

    /// A role on a group above the object gives the verb.
    pub(super) fn push_in_groups(&self, query: &mut Builder, verb: Verb) {
        let (children, below) = match self.kind {
            Kind::Client => (Some(Slot::Clients), Slot::BelowClients),
            Kind::Channel => (Some(Slot::Channels), Slot::BelowChannels),
            Kind::Group | Kind::Domain => (None, Slot::Groups),
        };
        let column = if children.is_some() {
            "e.parent_group_id"
        } else {
            "e.id"
        };
        query.push(column).push(" IN (");
        let mut is_first = true;
        if let Some(slot) = children.filter(|_| self.counts(Access::DirectGroup)) {
            self.push_holding(query, verb, slot);
            is_first = false;
        }
        if self.counts(Access::IndirectGroup) {
            query.push(if is_first { "" } else { " UNION " }).push(
                "SELECT low.id FROM object_groups high JOIN object_groups low \
                 ON low.path > high.path || '.' AND low.path < high.path || '/' WHERE high.id IN (",
            );
            self.push_holding(query, verb, below);
            query.push(")");
            is_first = false;
        }
        // Of no group it must be false, not null, so that its opposite holds.
        query.push(if is_first {
            "SELECT id FROM object_groups WHERE 1 = 0)"
        } else {
            ")"
        });
    }

    fn counts(&self, from: Access) -> bool {
        self.access.is_none_or(|wanted| wanted == from)
    }

    /// Objects on which a role of the viewer has the verb in the slot.
    fn push_holding(&self, query: &mut Builder, verb: Verb, slot: Slot) {
        query
            .push(
                "SELECT m.entity_id FROM role_members m JOIN roles r ON r.id = m.role_id \
                 WHERE m.user_id = ",
            )
            .push_bind(blob(self.viewer.user))
            .push(" AND m.domain_id = ")
            .push_bind(blob(self.domain))
            .push(" AND r.kind <> 0 AND (r.")
            .push(mask_column(slot))
            .push(" & ")
            .push_bind(Verbs::NONE.with(verb).mask())
            .push(") <> 0");
    }
}
