//! Roles on domains, groups, channels and clients, and who is in them.

use std::collections::BTreeMap;

use crate::store::sql::Connection;
use authcache::{Change, EntityId};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::authorize::{Inside, Target};
use super::call::Call;
use super::failure::Failure;
use super::query::wrong;
use super::{Reply, show};
use crate::authz;
use crate::grant::{Actions, Kind, Verb, verb};
use crate::model::Time;
use crate::name::{excerpt, parse_id};
use crate::store::roles::{self, Role};
use crate::store::{Write, people};

/// Characters of a role's name.
const NAME_CHARACTERS_MAX: usize = 200;
/// Roles that one object may have, and members that one call shows roles of.
const ROLES_MAX: u64 = 1_000;
const HOLDERS_MAX: i64 = 100_000;

/// The actions that roles on a kind of object can hold.
pub(super) async fn available_actions(call: Call) -> Result<Reply, Failure> {
    let kind = call.route.kind.unwrap_or(Kind::Domain);
    let names: Vec<&str> = verb::names(kind)
        .iter()
        .map(|action| action.name.as_str())
        .collect();
    Ok(Reply::ok(json!({ "available_actions": names })))
}

/// Makes a role.
pub(super) async fn create(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let target = call
        .target(write.connection(), &inside, Verb::ManageRole)
        .await?;
    let body = call.body();
    let name = check_name(body.any_text(&["role_name", "name"]).unwrap_or_default())?;
    let actions = parse_actions(&target, &body.texts("optional_actions").unwrap_or_default())?;
    inside.may_give(&target, &actions)?;
    let members = body.texts("optional_members").unwrap_or_default();
    let now = Time::now();
    let role = Role {
        id: roles::role_id(target.kind),
        domain: inside.domain.id,
        kind: target.kind,
        entity: target.id,
        name,
        builtin: false,
        actions,
        created_at: now,
        created_by: Some(inside.user),
        updated_at: None,
        updated_by: None,
    };
    let page = crate::model::Page {
        offset: 0,
        limit: 1,
    };
    let (known, _) = roles::list(write.connection(), target.id, page).await?;
    if known >= ROLES_MAX {
        return Err(Failure::bad(format!(
            "it has {known} roles; expected at most {ROLES_MAX}"
        )));
    }
    let inserted = roles::insert(write.connection(), &role).await;
    inserted.map_err(|error| {
        if error.is_unique_violation() {
            return Failure::conflict("there is a role of this name");
        }
        error.into()
    })?;
    if !members.is_empty() {
        call.target(write.connection(), &inside, Verb::AddRoleUsers)
            .await?;
    }
    add(&mut write, &inside, &role, &members).await?;
    let attributes = json!({
        "role_id": role.id, "role_name": role.name,
        "actions": role.actions.names(role.kind), "members": members,
    });
    done(&call, write, &inside, &target, attributes).await?;
    let mut shown = show::role(&role);
    shown["optional_actions"] = role.actions.names(role.kind).into();
    shown["optional_members"] = members.into();
    if call.old {
        shown["role_id"] = role.id.clone().into();
        shown["role_name"] = role.name.clone().into();
    }
    Ok(Reply::created(
        format!("{}/{}", role_base(&call), role.id),
        shown,
    ))
}

fn role_base(call: &Call) -> String {
    let (domain, id) = (call.param("domain"), call.param("id"));
    match call.route.kind {
        None | Some(Kind::Domain) => format!("/domains/{domain}/roles"),
        Some(kind) => format!("/{domain}/{}/{id}/roles", kind.plural()),
    }
}

fn check_name(name: &str) -> Result<String, Failure> {
    let length = name.chars().count();
    if !(1..=NAME_CHARACTERS_MAX).contains(&length) || name.chars().any(char::is_control) {
        let message = format!("role_name has {length} characters");
        return Err(Failure::bad(message)
            .with_detail(format!("expected 1 to {NAME_CHARACTERS_MAX}, printable")));
    }
    Ok(name.to_owned())
}

fn parse_actions(target: &Target, names: &[String]) -> Result<Actions, Failure> {
    let names = names.iter().map(String::as_str);
    Actions::parse(target.kind, names).map_err(|name| {
        let (kind, name) = (target.kind.word(), excerpt(name));
        Failure::bad(format!("{name:?} is no action of a {kind}"))
            .with_detail("expected one of those that available-actions lists")
    })
}

/// Adds members to a role; one who has a role on the object already is a conflict.
async fn add(
    write: &mut Write,
    inside: &Inside,
    role: &Role,
    members: &[String],
) -> Result<(), Failure> {
    let now = Time::now();
    for member in members {
        let user = parse_id("member", member)?;
        let c = write.connection();
        // Users exist on the platform, members of a domain in it: neither is told apart further.
        let known = if role.kind == Kind::Domain {
            people::person(c, user).await?.is_some()
        } else {
            roles::is_member(c, inside.domain.id, user).await?
        };
        if !known {
            let whose = if role.kind == Kind::Domain {
                "platform"
            } else {
                "domain"
            };
            return Err(Failure::bad(format!(
                "{member} is no member of the {whose}"
            )));
        }
        let added = roles::add_member(c, role, user, now).await;
        added.map_err(|error| {
            if error.is_unique_violation() {
                return Failure::conflict("a member has a role on this already");
            }
            error.into()
        })?;
    }
    Ok(())
}

/// Notes what was done to roles of an object, and commits. What was computed for users is void.
async fn done(
    call: &Call,
    mut write: Write,
    inside: &Inside,
    target: &Target,
    attributes: Value,
) -> Result<(), Failure> {
    let domain = inside.domain.id;
    // Roles on clients say nothing about messages.
    if target.kind != Kind::Client {
        write.change(Change::UserRightsStale { domain });
    }
    let id = target.id.to_string();
    call.record(&mut write, Some(domain), &id, attributes)
        .await?;
    call.commit(write).await
}

/// Lists the roles of an object.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = call.target(&mut tx, &inside, Verb::ViewRoleUsers).await?;
    let page = call.query.page()?;
    let (total, found) = roles::list(&mut tx, target.id, page).await?;
    let items = found.iter().map(|role| {
        let mut shown = show::role(role);
        shown["actions"] = role.actions.names(role.kind).into();
        shown
    });
    Ok(Reply::ok(show::page("roles", total, page, items.collect())))
}

async fn named(c: &mut Connection, target: &Target, name: &str) -> Result<Role, Failure> {
    let found = roles::role(c, target.id, name).await?;
    found.ok_or_else(|| Failure::not_found("role"))
}

/// Shows a role.
pub(super) async fn view(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = call.target(&mut tx, &inside, Verb::ViewRoleUsers).await?;
    let role = named(&mut tx, &target, call.param("role")).await?;
    let mut shown = show::role(&role);
    shown["actions"] = role.actions.names(role.kind).into();
    Ok(Reply::ok(shown))
}

/// What a changing call works on: the transaction, the domain, the object and its role.
pub(super) struct Editing {
    pub(super) write: Write,
    pub(super) inside: Inside,
    pub(super) target: Target,
    pub(super) role: Role,
}

async fn begin(call: &Call, verb: Verb) -> Result<Editing, Failure> {
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let target = call.target(write.connection(), &inside, verb).await?;
    let role = named(write.connection(), &target, call.param("role")).await?;
    Ok(Editing {
        write,
        inside,
        target,
        role,
    })
}

fn not_builtin(role: &Role) -> Result<(), Failure> {
    if role.builtin {
        return Err(Failure::bad(
            "the built-in role cannot be changed or deleted",
        ));
    }
    Ok(())
}

/// Gives a role another name.
pub(super) async fn rename(call: Call) -> Result<Reply, Failure> {
    let mut at = begin(&call, Verb::ManageRole).await?;
    not_builtin(&at.role)?;
    let body = call.body();
    at.role.name = check_name(body.any_text(&["name", "role_name"]).unwrap_or_default())?;
    touch(&mut at);
    let updated = at.write.update_role(&at.role).await;
    updated.map_err(|error| {
        if error.is_unique_violation() {
            return Failure::conflict("there is a role of this name");
        }
        error.into()
    })?;
    let attributes = json!({ "role_id": at.role.id, "role_name": at.role.name });
    done(&call, at.write, &at.inside, &at.target, attributes).await?;
    Ok(Reply::ok(show::role(&at.role)))
}

fn touch(at: &mut Editing) {
    at.role.updated_at = Some(Time::now());
    at.role.updated_by = Some(at.inside.user);
}

/// Removes a role.
pub(super) async fn delete(call: Call) -> Result<Reply, Failure> {
    let mut at = begin(&call, Verb::ManageRole).await?;
    not_builtin(&at.role)?;
    if at.role.kind == Kind::Domain {
        // Its members lose the domain with it, and whatever they held inside.
        for user in all_members(&mut at).await? {
            at.write.expel(at.inside.domain.id, user).await?;
        }
    }
    at.write.delete_role(&at.role.id).await?;
    let attributes = json!({ "role_id": at.role.id, "role_name": at.role.name });
    done(&call, at.write, &at.inside, &at.target, attributes).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

async fn all_members(at: &mut Editing) -> Result<Vec<EntityId>, Failure> {
    let all = crate::model::Page {
        offset: 0,
        limit: i64::MAX.cast_unsigned(),
    };
    Ok(roles::members(at.write.connection(), &at.role.id, all)
        .await?
        .1)
}

/// Adds actions to a role.
pub(super) async fn add_actions(call: Call) -> Result<Reply, Failure> {
    let mut at = begin(&call, Verb::ManageRole).await?;
    let names = wanted(&call, "actions")?;
    let actions = parse_actions(&at.target, &names)?;
    at.inside.may_give(&at.target, &actions)?;
    let added = actions.without(at.role.actions);
    at.role.actions = at.role.actions.union(actions);
    touch(&mut at);
    at.write.update_role(&at.role).await?;
    let attributes = json!({ "role_id": at.role.id, "actions": added.names(at.role.kind) });
    done(&call, at.write, &at.inside, &at.target, attributes).await?;
    Ok(Reply::ok(json!({ "actions": actions.names(at.role.kind) })))
}

fn wanted(call: &Call, name: &str) -> Result<Vec<String>, Failure> {
    let list = call.body().texts(name).filter(|list| !list.is_empty());
    list.ok_or_else(|| {
        Failure::bad(format!("{name} is empty")).with_detail("expected at least one")
    })
}

/// Lists the actions of a role.
pub(super) async fn list_actions(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = call.target(&mut tx, &inside, Verb::ViewRoleUsers).await?;
    let role = named(&mut tx, &target, call.param("role")).await?;
    Ok(Reply::ok(
        json!({ "actions": role.actions.names(role.kind) }),
    ))
}

/// Takes actions from a role.
pub(super) async fn remove_actions(call: Call) -> Result<Reply, Failure> {
    let at = begin(&call, Verb::ManageRole).await?;
    let taken = parse_actions(&at.target, &wanted(&call, "actions")?)?;
    set_actions(&call, at, |actions| actions.without(taken)).await
}

/// Takes all actions from a role.
pub(super) async fn remove_all_actions(call: Call) -> Result<Reply, Failure> {
    let at = begin(&call, Verb::ManageRole).await?;
    set_actions(&call, at, |_| Actions::default()).await
}

async fn set_actions(
    call: &Call,
    mut at: Editing,
    change: impl Fn(Actions) -> Actions,
) -> Result<Reply, Failure> {
    not_builtin(&at.role)?;
    let after = change(at.role.actions);
    let taken = at.role.actions.without(after);
    at.role.actions = after;
    touch(&mut at);
    at.write.update_role(&at.role).await?;
    let attributes = json!({ "role_id": at.role.id, "actions": taken.names(at.role.kind) });
    done(call, at.write, &at.inside, &at.target, attributes).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Adds members to a role.
pub(super) async fn add_members(call: Call) -> Result<Reply, Failure> {
    let at = begin(&call, Verb::AddRoleUsers).await?;
    give(&call, at, "members").await
}

/// Adds those whom a field of the body names to a role that the caller may give.
pub(super) async fn give(call: &Call, mut at: Editing, field: &str) -> Result<Reply, Failure> {
    at.inside.may_give(&at.target, &at.role.actions)?;
    let members = wanted(call, field)?;
    add(&mut at.write, &at.inside, &at.role, &members).await?;
    let attributes = json!({
        "role_id": at.role.id, "role_name": at.role.name, "members": members,
    });
    done(call, at.write, &at.inside, &at.target, attributes).await?;
    Ok(Reply::ok(json!({ "members": members })))
}

/// Lists the members of a role.
pub(super) async fn list_members(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = call.target(&mut tx, &inside, Verb::ViewRoleUsers).await?;
    let role = named(&mut tx, &target, call.param("role")).await?;
    let page = call.query.page()?;
    let (total, found) = roles::members(&mut tx, &role.id, page).await?;
    let items = found.iter().map(|user| user.to_string().into()).collect();
    Ok(Reply::ok(show::page("members", total, page, items)))
}

/// Takes members out of a role.
pub(super) async fn remove_members(call: Call) -> Result<Reply, Failure> {
    let mut at = begin(&call, Verb::RemoveRoleUsers).await?;
    let members = wanted(&call, "members")?;
    let present = all_members(&mut at).await?;
    let mut leaving = Vec::new();
    for member in &members {
        let user = parse_id("member", member)?;
        if present.contains(&user) && !leaving.contains(&user) {
            leaving.push(user);
        }
    }
    remove(&call, at, present.len(), leaving).await
}

/// Takes all members out of a role.
pub(super) async fn remove_all_members(call: Call) -> Result<Reply, Failure> {
    let mut at = begin(&call, Verb::RemoveRoleUsers).await?;
    let present = all_members(&mut at).await?;
    remove(&call, at, present.len(), present).await
}

async fn remove(
    call: &Call,
    mut at: Editing,
    present: usize,
    leaving: Vec<EntityId>,
) -> Result<Reply, Failure> {
    let is_domain = at.role.kind == Kind::Domain;
    if is_domain && at.role.builtin && leaving.len() >= present {
        return Err(Failure::bad(
            "the domain's admin role must retain at least one member",
        ));
    }
    for user in &leaving {
        if is_domain {
            at.write.expel(at.inside.domain.id, *user).await?;
        } else {
            at.write.remove_member(at.target.id, *user).await?;
        }
    }
    let members: Vec<String> = leaving.iter().map(EntityId::to_string).collect();
    let attributes = json!({ "role_id": at.role.id, "members": members });
    done(call, at.write, &at.inside, &at.target, attributes).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Takes users out of whatever roles they have on an object.
pub(super) async fn expel(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let target = call
        .target(write.connection(), &inside, Verb::RemoveRoleUsers)
        .await?;
    let members = ["member_ids", "members", "user_ids"]
        .iter()
        .find_map(|name| call.body().texts(name))
        .filter(|list| !list.is_empty());
    let members = members.ok_or_else(|| Failure::bad("member_ids is empty"))?;
    for member in &members {
        let user = parse_id("member", member)?;
        if target.kind != Kind::Domain {
            write.remove_member(target.id, user).await?;
            continue;
        }
        let role = roles::of_member(write.connection(), target.id, user).await?;
        if let Some(role) = role.filter(|role| role.builtin) {
            let page = crate::model::Page::default();
            let (count, _) = roles::members(write.connection(), &role.id, page).await?;
            if count <= 1 {
                let message = "the domain's admin role must retain at least one member";
                return Err(Failure::bad(message));
            }
        }
        write.expel(inside.domain.id, user).await?;
    }
    done(
        &call,
        write,
        &inside,
        &target,
        json!({ "members": members }),
    )
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Lists everybody who reaches an object by a role, with those roles.
pub(super) async fn entity_members(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = call.target(&mut tx, &inside, Verb::ViewRoleUsers).await?;
    let place = target.place(inside.domain.id);
    let page = call.query.page()?;
    let query = &call.query;
    let names: Vec<&str> = query
        .text("actions")
        .unwrap_or_default()
        .split(',')
        .collect();
    let mut needed = crate::grant::Verbs::NONE;
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        let verb = crate::explain::verb_named(target.kind, name);
        needed = needed.with(verb.ok_or_else(|| wrong("actions", name, "names of actions"))?);
    }
    let mut members: BTreeMap<EntityId, Vec<Role>> = BTreeMap::new();
    for (user, role) in roles::holders(&mut tx, &authz::reaching(&place), HOLDERS_MAX).await? {
        let reaches = role.entity == target.id || !authz::permitted([&role], &place).is_empty();
        let wanted = query.text("role_id").is_none_or(|id| id == role.id)
            && query.text("role_name").is_none_or(|name| name == role.name)
            && query
                .text("access_provider_id")
                .is_none_or(|id| id == role.entity.to_string())
            && query
                .text("access_type")
                .is_none_or(|word| word == crate::explain::access_of(&role, &place).word());
        if reaches && wanted {
            members.entry(user).or_default().push(role);
        }
    }
    members.retain(|_, held| authz::permitted(held.iter(), &place).includes(needed));
    let total = members.len() as u64;
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let take = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let items = members.iter().skip(skip).take(take).map(|(user, held)| {
        let held: Vec<Value> = held
            .iter()
            .map(|role| show::member_role(role, &place))
            .collect();
        json!({ "member_id": user.to_string(), "roles": held })
    });
    Ok(Reply::ok(show::page(
        "members",
        total,
        page,
        items.collect(),
    )))
}
