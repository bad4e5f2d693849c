//! Whether a caller may: into a domain, and at an object in it.
//!
//! It is authorized before it is loaded: an id that does not exist is a denial for everybody whose
//! rights do not cover all objects of its kind, so that denials tell nothing of what exists.

use crate::store::sql::Connection;
use authcache::{EntityId, Status};

use super::call::Call;
use super::failure::Failure;
use crate::authz;
use crate::grant::{Actions, Kind, Place, Slot, Verb, Verbs};
use crate::model::Domain;
use crate::name::parse_id;
use crate::store::domains;
use crate::store::entities::{self, Entity};
use crate::store::roles::{self, Role};

/// A domain that the caller may act in.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) domain: Domain,
    pub(super) user: EntityId,
    /// Whether the caller administers the platform.
    pub(super) admin: bool,
    /// The caller's role in the domain itself.
    role: Option<Role>,
    /// Whether roles are given without asking what the giver holds.
    unchecked_grants: bool,
}

/// An object of the caller's, and what it may do with it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) id: EntityId,
    /// None for the domain itself.
    pub(super) entity: Option<Entity>,
    pub(super) groups: Vec<EntityId>,
    /// Roles of the caller that reach it.
    pub(super) roles: Vec<Role>,
}

impl Target {
    /// Where it stands.
    pub(super) fn place(&self, domain: EntityId) -> Place<'_> {
        Place {
            kind: self.kind,
            id: self.id,
            domain,
            groups: &self.groups,
        }
    }
}

impl Call {
    /// The domain that the path names, if the caller may act in it.
    ///
    /// # Errors
    /// It may not, or there is none and an administrator asks.
    pub(super) async fn enter(&self, c: &mut Connection) -> Result<Inside, Failure> {
        let caller = self.caller()?;
        let Some(domain) = domains::domain(c, self.param("domain")).await? else {
            return Err(if caller.admin {
                Failure::not_found("domain")
            } else {
                Failure::forbidden()
            });
        };
        let role = roles::of_member(c, domain.id, caller.id).await?;
        let inside = Inside {
            domain,
            user: caller.id,
            admin: caller.admin,
            role,
            unchecked_grants: self.control.settings().unchecked_role_grants,
        };
        if inside.is_open() {
            return Ok(inside);
        }
        Err(Failure::forbidden())
    }

    /// The object that the path names, if the caller may do this with it.
    ///
    /// # Errors
    /// It may not, or there is none and its rights cover all objects of the kind.
    pub(super) async fn target(
        &self,
        c: &mut Connection,
        inside: &Inside,
        verb: Verb,
    ) -> Result<Target, Failure> {
        match self.route.kind {
            None | Some(Kind::Domain) => inside.itself(verb),
            Some(kind) => inside.target(c, kind, self.param("id"), verb).await,
        }
    }

    /// The group, channel or client that the path names, if the caller may do this with it.
    ///
    /// # Errors
    /// As for [`Call::target`].
    pub(super) async fn entity(
        &self,
        c: &mut Connection,
        verb: Verb,
    ) -> Result<(Inside, Entity), Failure> {
        let inside = self.enter(c).await?;
        let kind = self.route.kind.unwrap_or(Kind::Client);
        let entity = inside.entity(c, kind, self.param("id"), verb).await?;
        Ok((inside, entity))
    }
}

impl Inside {
    fn is_open(&self) -> bool {
        if self.admin {
            return true;
        }
        let Some(role) = self.role.as_ref().filter(|role| !role.actions.is_empty()) else {
            return false;
        };
        match self.domain.status {
            Status::Enabled => true,
            Status::Disabled => is_full(role),
            Status::Frozen => false,
        }
    }

    /// Whether the caller administers the domain: holds everything that can be held on it.
    pub(super) fn is_administrator(&self) -> bool {
        self.admin || self.role.as_ref().is_some_and(is_full)
    }

    /// Whether the caller may do this with the domain itself.
    pub(super) fn may(&self, verb: Verb) -> bool {
        self.admin || self.held(Slot::Own).contains(verb)
    }

    /// What the caller may do with every object of a kind in the domain.
    pub(super) fn everywhere(&self, kind: Kind) -> Verbs {
        if self.admin {
            return kind.all_verbs().with(Verb::Create);
        }
        self.held(match kind {
            Kind::Domain => Slot::Own,
            Kind::Group => Slot::Groups,
            Kind::Channel => Slot::Channels,
            Kind::Client => Slot::Clients,
        })
    }

    fn held(&self, slot: Slot) -> Verbs {
        let role = self.role.as_ref();
        role.map_or(Verbs::NONE, |role| role.actions.in_slot(slot))
    }

    /// The domain itself, if the caller may do this with it.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn itself(&self, verb: Verb) -> Result<Target, Failure> {
        if !self.may(verb) {
            return Err(Failure::forbidden());
        }
        Ok(Target {
            kind: Kind::Domain,
            id: self.domain.id,
            entity: None,
            groups: Vec::new(),
            roles: self.role.clone().into_iter().collect(),
        })
    }

    /// An object of the domain, if the caller may do this with it.
    ///
    /// # Errors
    /// It may not, or there is none and its rights cover all objects of the kind.
    pub(super) async fn target(
        &self,
        c: &mut Connection,
        kind: Kind,
        name: &str,
        verb: Verb,
    ) -> Result<Target, Failure> {
        let id = parse_id("id", name)?;
        let entity = entities::entity(c, kind, self.domain.id, id).await?;
        let Some(entity) = entity else {
            return Err(if self.everywhere(kind).contains(verb) {
                Failure::not_found(kind.word())
            } else {
                Failure::forbidden()
            });
        };
        let groups = entities::groups_of(c, &entity).await?;
        let mut target = Target {
            kind,
            id,
            entity: Some(entity),
            groups,
            roles: Vec::new(),
        };
        target.roles = authz::roles_reaching(c, self.user, &target.place(self.domain.id)).await?;
        let verbs = authz::permitted(&target.roles, &target.place(self.domain.id));
        if self.admin || verbs.contains(verb) {
            return Ok(target);
        }
        Err(Failure::forbidden())
    }

    /// A group, channel or client of the domain, if the caller may do this with it.
    ///
    /// # Errors
    /// As for [`Inside::target`].
    pub(super) async fn entity(
        &self,
        c: &mut Connection,
        kind: Kind,
        name: &str,
        verb: Verb,
    ) -> Result<Entity, Failure> {
        let target = self.target(c, kind, name, verb).await?;
        target.entity.ok_or_else(|| Failure::not_found(kind.word()))
    }

    /// Checks that the caller may make an object of this kind, in this group if one is given.
    /// In a group it may with the right to make such objects there, or with the domain's together
    /// with the right to add to the group.
    ///
    /// # Errors
    /// It may not, or the group cannot take it.
    pub(super) async fn may_create(
        &self,
        c: &mut Connection,
        kind: Kind,
        parent: Option<&str>,
    ) -> Result<Option<Entity>, Failure> {
        let by_domain = self.everywhere(kind).contains(Verb::Create);
        let Some(name) = parent else {
            return if by_domain {
                Ok(None)
            } else {
                Err(Failure::forbidden())
            };
        };
        let id = parse_id("parent_group_id", name)?;
        let parent = entities::entity(c, Kind::Group, self.domain.id, id).await?;
        let groups = entities::chain(c, parent.as_ref().map(|group| group.id)).await?;
        let inside = Place {
            kind,
            id: EntityId::SYS,
            domain: self.domain.id,
            groups: &groups,
        };
        let above = groups.get(1..).unwrap_or_default();
        let group = Place {
            kind: Kind::Group,
            id,
            domain: self.domain.id,
            groups: above,
        };
        let roles = authz::roles_reaching(c, self.user, &group).await?;
        let may_add = authz::permitted(&roles, &group).contains(Verb::SetChild);
        let by_group = !groups.is_empty() && self.creates_in(&roles, &inside);
        if !(self.admin || by_group || (by_domain && may_add)) {
            return Err(Failure::forbidden());
        }
        let parent = parent.ok_or_else(|| Failure::not_found("group"))?;
        check_takes(&parent)?;
        Ok(Some(parent))
    }

    fn creates_in(&self, roles: &[Role], inside: &Place<'_>) -> bool {
        // The domain's right to create counts only together with the right to add to the group.
        let of_groups = roles.iter().filter(|role| role.kind == Kind::Group);
        authz::permitted(of_groups, inside).contains(Verb::Create)
    }

    /// Checks that the caller holds what it is about to give away on an object.
    ///
    /// # Errors
    /// It holds less.
    pub(super) fn may_give(&self, target: &Target, actions: &Actions) -> Result<(), Failure> {
        let unchecked = self.unchecked_grants || self.is_administrator();
        if unchecked || holdings(&target.roles, target).includes(actions) {
            return Ok(());
        }
        Err(Failure::forbidden().with_detail("nobody gives away what he does not hold"))
    }
}

/// Checks that a group can be given members.
///
/// # Errors
/// It is not enabled.
pub(super) fn check_takes(group: &Entity) -> Result<(), Failure> {
    if group.status.is_live() {
        return Ok(());
    }
    Err(Failure::bad(
        "the group is not enabled; expected an enabled one",
    ))
}

fn is_full(role: &Role) -> bool {
    role.actions
        .in_slot(Slot::Own)
        .includes(Kind::Domain.all_verbs())
}

/// What these roles let somebody do at an object, in the words of a role on that object.
fn holdings(roles: &[Role], target: &Target) -> Actions {
    let mut held = Actions::default();
    for role in roles {
        if role.entity == target.id {
            held = held.union(role.actions);
            continue;
        }
        // Slots of a role further up that reach the object's own slots.
        let pairs: &[(Slot, Slot)] = match (role.kind, target.kind) {
            (Kind::Domain, Kind::Group) => &[
                (Slot::Groups, Slot::Own),
                (Slot::Groups, Slot::Groups),
                (Slot::Clients, Slot::Clients),
                (Slot::Channels, Slot::Channels),
                (Slot::Clients, Slot::BelowClients),
                (Slot::Channels, Slot::BelowChannels),
            ],
            (Kind::Group, Kind::Group) => &[
                (Slot::Groups, Slot::Own),
                (Slot::Groups, Slot::Groups),
                (Slot::BelowClients, Slot::Clients),
                (Slot::BelowChannels, Slot::Channels),
                (Slot::BelowClients, Slot::BelowClients),
                (Slot::BelowChannels, Slot::BelowChannels),
            ],
            (Kind::Domain, Kind::Channel) => &[(Slot::Channels, Slot::Own)],
            (Kind::Domain, Kind::Client) => &[(Slot::Clients, Slot::Own)],
            (Kind::Group, Kind::Channel) if target.groups.first() == Some(&role.entity) => {
                &[(Slot::Channels, Slot::Own)]
            }
            (Kind::Group, Kind::Client) if target.groups.first() == Some(&role.entity) => {
                &[(Slot::Clients, Slot::Own)]
            }
            (Kind::Group, Kind::Channel) => &[(Slot::BelowChannels, Slot::Own)],
            (Kind::Group, Kind::Client) => &[(Slot::BelowClients, Slot::Own)],
            (Kind::Channel | Kind::Client, _) | (_, Kind::Domain) => &[],
        };
        for (from, to) in pairs {
            held.add_all(*to, role.actions.in_slot(*from));
        }
    }
    held
}
