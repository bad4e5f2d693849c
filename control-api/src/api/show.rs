//! Objects as they are shown.

use authcache::EntityId;
use serde_json::{Map, Value, json};

use super::authorize::Target;
use crate::authz;
use crate::explain::access_of;
use crate::grant::{Kind, Place};
use crate::model::{Domain, Page, Time, status_word};
use crate::store::access::{Invitation, Pat, PatScope};
use crate::store::entities::Entity;
use crate::store::listing::Access;
use crate::store::mailed::Mailed;
use crate::store::people::Person;
use crate::store::roles::Role;

/// A page of a list, under the plural of what is listed.
pub(super) fn page(plural: &str, total: u64, page: Page, items: Vec<Value>) -> Value {
    json!({ "total": total, "offset": page.offset, "limit": page.limit, plural: items })
}

fn put(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value.into());
    }
}

fn put_id(object: &mut Value, name: &str, id: Option<EntityId>) {
    if let Some(id) = id {
        put(object, name, id.to_string());
    }
}

fn put_time(object: &mut Value, name: &str, time: Option<Time>) {
    if let Some(time) = time {
        put(object, name, time.to_string());
    }
}

fn put_text(object: &mut Value, name: &str, text: &str) {
    if !text.is_empty() {
        put(object, name, text);
    }
}

/// Everything about a user but its password.
pub(super) fn person(person: &Person) -> Value {
    let mut shown = json!({
        "id": person.id.to_string(),
        "first_name": person.first_name,
        "last_name": person.last_name,
        "tags": person.tags,
        "metadata": person.metadata,
        "private_metadata": person.private_metadata,
        "status": if person.deleted_at.is_some() { "deleted" } else { status_word(person.status) },
        "role": if person.administrator { "admin" } else { "user" },
        "credentials": { "username": person.username },
        "created_at": person.created_at,
    });
    put_text(
        &mut shown,
        "email",
        person.email.as_deref().unwrap_or_default(),
    );
    put_text(&mut shown, "profile_picture", &person.profile_picture);
    put_text(&mut shown, "auth_provider", &person.auth_provider);
    put_time(&mut shown, "verified_at", person.verified_at);
    put_time(&mut shown, "updated_at", person.updated_at);
    put_id(&mut shown, "updated_by", person.updated_by);
    shown
}

/// What others may know of a user.
pub(super) fn person_briefly(person: &Person) -> Value {
    json!({
        "id": person.id.to_string(),
        "first_name": person.first_name,
        "last_name": person.last_name,
        "metadata": person.metadata,
        "credentials": { "username": person.username },
    })
}

/// The word for a domain's status.
pub(super) fn domain_status(domain: &Domain) -> &'static str {
    match domain.deleted_at {
        Some(_) => "deleted",
        None => status_word(domain.status),
    }
}

/// A domain; its route also under the name that it had before.
pub(super) fn domain(domain: &Domain) -> Value {
    let mut shown = json!({
        "id": domain.id.to_string(),
        "name": domain.name,
        "route": domain.route,
        "alias": domain.route,
        "tags": domain.tags,
        "metadata": domain.metadata,
        "status": domain_status(domain),
        "disabled_group_blocks_messaging": domain.groups_block,
        "created_at": domain.created_at,
    });
    put_id(&mut shown, "created_by", domain.created_by);
    put_time(&mut shown, "updated_at", domain.updated_at);
    put_id(&mut shown, "updated_by", domain.updated_by);
    shown
}

/// Adds to a domain what the viewer is in it.
pub(super) fn domain_role(shown: &mut Value, role: &Role) {
    put(shown, "role_id", role.id.as_str());
    put(shown, "role_name", role.name.as_str());
    put(shown, "actions", role.actions.names(Kind::Domain));
    put(shown, "permission", role.name.as_str());
}

/// A group, channel or client. The secret of a client is shown only if one is handed in.
pub(super) fn entity(entity: &Entity, secret: Option<&str>) -> Value {
    let mut shown = json!({
        "id": entity.id.to_string(),
        "domain_id": entity.domain.to_string(),
        "name": entity.name,
        "tags": entity.tags,
        "metadata": entity.metadata,
        "status": status_word(entity.status),
        "created_at": entity.created_at,
    });
    put_id(&mut shown, "created_by", entity.created_by);
    put_time(&mut shown, "updated_at", entity.updated_at);
    put_id(&mut shown, "updated_by", entity.updated_by);
    match entity.kind {
        Kind::Group => {
            put_id(&mut shown, "parent_id", entity.parent);
            put(&mut shown, "description", entity.description.as_str());
            put(&mut shown, "level", entity.level());
            put(&mut shown, "path", entity.path.as_str());
        }
        Kind::Channel => {
            put_id(&mut shown, "parent_group_id", entity.parent);
            put_text(
                &mut shown,
                "route",
                entity.route.as_deref().unwrap_or_default(),
            );
        }
        Kind::Client | Kind::Domain => {
            put_id(&mut shown, "parent_group_id", entity.parent);
            let mut credentials = Map::new();
            if !entity.identity.is_empty() {
                credentials.insert("identity".to_owned(), entity.identity.as_str().into());
            }
            if let Some(secret) = secret {
                credentials.insert("secret".to_owned(), secret.into());
            }
            put(&mut shown, "credentials", credentials);
            put(
                &mut shown,
                "private_metadata",
                entity.private_metadata.clone(),
            );
        }
    }
    shown
}

/// Adds to an object what the viewer may do with it, and where that comes from.
pub(super) fn access(shown: &mut Value, roles: &[&Role], place: &Place<'_>, all: bool) {
    let verbs = if all {
        place.kind.all_verbs()
    } else {
        authz::permitted(roles.iter().copied(), place)
    };
    put(shown, "actions", verbs.words(place.kind));
    let mut best: Option<(Access, &Role)> = None;
    for role in roles {
        if authz::permitted([*role], place).is_empty() {
            continue;
        }
        let access = access_of(role, place);
        if best.is_none_or(|(known, _)| rank(access) < rank(known)) {
            best = Some((access, role));
        }
    }
    let Some((access, role)) = best else {
        return;
    };
    put(shown, "access_type", access_word(access, place.kind));
    if access == Access::Direct {
        put(shown, "role_id", role.id.as_str());
        put(shown, "role_name", role.name.as_str());
    } else {
        put(shown, "access_provider_id", role.entity.to_string());
        put(shown, "access_provider_role_id", role.id.as_str());
        put(shown, "access_provider_role_name", role.name.as_str());
        put(
            shown,
            "access_provider_role_actions",
            role.actions.names(role.kind),
        );
    }
}

/// The roles through which a viewer reaches an object.
pub(super) fn access_roles(target: &Target, domain: EntityId) -> Vec<Value> {
    let place = target.place(domain);
    let reaching = target
        .roles
        .iter()
        .filter(|role| !authz::permitted([*role], &place).is_empty());
    let shown = reaching.map(|role| {
        let access = access_of(role, &place);
        let mut shown = json!({
            "role_id": role.id,
            "role_name": role.name,
            "actions": role.actions.names(role.kind),
            "access_type": access_word(access, place.kind),
        });
        if access != Access::Direct {
            put(&mut shown, "access_provider_id", role.entity.to_string());
        }
        if role.kind == Kind::Group && access != Access::Direct {
            let from = place.groups.iter().position(|group| *group == role.entity);
            let above = place.groups.get(from.unwrap_or(0)..).unwrap_or_default();
            let path: Vec<String> = above.iter().rev().map(EntityId::to_string).collect();
            put(&mut shown, "access_provider_path", path.join("."));
        }
        shown
    });
    shown.collect()
}

const fn rank(access: Access) -> u8 {
    match access {
        Access::Direct => 0,
        Access::DirectGroup => 1,
        Access::IndirectGroup => 2,
        Access::Domain => 3,
    }
}

/// For groups every role above is indirect.
const fn access_word(access: Access, kind: Kind) -> &'static str {
    match (access, kind) {
        (Access::DirectGroup | Access::IndirectGroup, Kind::Group) => "indirect",
        _ => access.word(),
    }
}

/// A role.
pub(super) fn role(role: &Role) -> Value {
    let mut shown = json!({
        "id": role.id,
        "name": role.name,
        "entity_id": role.entity.to_string(),
        "created_at": role.created_at,
    });
    put_id(&mut shown, "created_by", role.created_by);
    put_time(&mut shown, "updated_at", role.updated_at);
    put_id(&mut shown, "updated_by", role.updated_by);
    shown
}

/// A member of an object with the roles that make it one.
pub(super) fn member_role(role: &Role, place: &Place<'_>) -> Value {
    let access = access_of(role, place);
    let mut shown = json!({
        "role_id": role.id,
        "role_name": role.name,
        "actions": role.actions.names(role.kind),
        "access_type": access_word(access, place.kind),
    });
    if access != Access::Direct {
        put(&mut shown, "access_provider_id", role.entity.to_string());
    }
    shown
}

/// An API key, whose name is the number of its type.
pub(super) fn key(key: &Pat, subject: &str) -> Value {
    json!({
        "id": key.id.to_string(),
        "issuer_id": key.user.to_string(),
        "subject": subject,
        "type": key.name.parse::<i64>().unwrap_or_default(),
        "issued_at": key.issued_at,
        "expires_at": key.expires_at,
    })
}

/// A personal access token; its text only where it is new.
pub(super) fn pat(pat: &Pat, secret: Option<&str>, now: Time) -> Value {
    let status = if pat.revoked_at.is_some() {
        "revoked"
    } else if pat.expires_at <= now {
        "expired"
    } else {
        "active"
    };
    let mut shown = json!({
        "id": pat.id.to_string(),
        "user_id": pat.user.to_string(),
        "user": pat.user.to_string(),
        "name": pat.name,
        "description": pat.description,
        "issued_at": pat.issued_at,
        "expires_at": pat.expires_at,
        "revoked": pat.revoked_at.is_some(),
        "status": status,
    });
    put_time(&mut shown, "updated_at", pat.updated_at);
    put_time(&mut shown, "last_used_at", pat.last_used_at);
    put_time(&mut shown, "revoked_at", pat.revoked_at);
    if let Some(secret) = secret {
        put(&mut shown, "secret", secret);
    }
    shown
}

/// What a personal access token may be used for.
pub(super) fn scope(scope: &PatScope, pat: EntityId) -> Value {
    json!({
        "id": scope.id.to_string(),
        "pat_id": pat.to_string(),
        "domain_id": scope.domain.to_string(),
        "optional_domain_id": scope.domain.to_string(),
        "entity_type": scope.entity_type,
        "entity_id": scope.entity,
        "operation": scope.operation,
    })
}

/// An invitation by mail. Its token is in the mail and nowhere else.
pub(super) fn mailed(invitation: &Mailed, actions: &[&str]) -> Value {
    let mut shown = json!({
        "invited_by": invitation.invited_by.to_string(),
        "invitee_email": invitation.email,
        "domain_id": invitation.domain.to_string(),
        "domain_name": invitation.domain_name,
        "role_id": invitation.role,
        "role_name": invitation.role_name,
        "actions": actions,
        "created_at": invitation.created_at,
        "expires_at": invitation.expires_at,
    });
    put_time(&mut shown, "updated_at", invitation.updated_at);
    shown
}

/// An invitation.
pub(super) fn invitation(invitation: &Invitation, actions: &[&str]) -> Value {
    let mut shown = json!({
        "invited_by": invitation.invited_by.to_string(),
        "invitee_user_id": invitation.invitee.to_string(),
        "domain_id": invitation.domain.to_string(),
        "domain_name": invitation.domain_name,
        "role_id": invitation.role,
        "role_name": invitation.role_name,
        "actions": actions,
        "created_at": invitation.created_at,
    });
    put_time(&mut shown, "updated_at", invitation.updated_at);
    put_time(&mut shown, "confirmed_at", invitation.confirmed_at);
    put_time(&mut shown, "rejected_at", invitation.rejected_at);
    shown
}
