//! Older paths, and the relations that came before roles.
//!
//! An older path named no domain: that was in the token. It is found in the token still, or in the
//! header `X-Domain-ID`, and the path becomes the one of today.

use authcache::EntityId;
use axum::http::{Method, StatusCode, request};
use serde_json::json;

use super::authorize::{Inside, Target};
use super::call::Call;
use super::failure::Failure;
use super::fields::Body;
use super::roles::Editing;
use super::route::{self, Found};
use super::{Reply, parents, roles as role_calls};
use crate::Control;
use crate::grant::{Actions, Kind, Slot, Verb};
use crate::model::Time;
use crate::store::Write;
use crate::store::roles::{self, Role};

/// The route of today for an older path.
///
/// # Errors
/// There is none, or nothing says which domain is meant.
pub(super) fn find(
    control: &Control,
    head: &request::Parts,
    segments: &[String],
    bearer: Option<&[u8]>,
) -> Result<Found, Failure> {
    let unknown = || Failure::new(StatusCode::NOT_FOUND, "no such route");
    let (method, rest) = translate(&head.method, segments).ok_or_else(unknown)?;
    let domain = domain_of(control, head, bearer).ok_or_else(|| {
        Failure::bad("no domain is named")
            .with_detail("expected a token issued for a domain, or the header X-Domain-ID")
    });
    let mut path: Vec<String> = Vec::with_capacity(rest.len());
    for part in rest {
        path.push(if part == "{domain}" {
            domain.as_ref().map_err(copy)?.to_string()
        } else {
            part
        });
    }
    route::find(&method, &path)?.ok_or_else(unknown)
}

fn copy(failure: &Failure) -> Failure {
    Failure::new(failure.status, failure.message.clone()).with_detail(&failure.detail)
}

fn domain_of(control: &Control, head: &request::Parts, bearer: Option<&[u8]>) -> Option<EntityId> {
    if let Some(header) = head.headers.get("x-domain-id") {
        return EntityId::from_text(header.to_str().ok()?);
    }
    control
        .0
        .identifier
        .tokens()
        .verify_access(bearer?)
        .ok()?
        .domain
}

/// The path of today, with `{domain}` where the domain belongs.
fn translate(method: &Method, segments: &[String]) -> Option<(Method, Vec<String>)> {
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    // Updates of channels and things were PUT.
    let update = |method: &Method| {
        if *method == Method::PUT {
            Method::PATCH
        } else {
            method.clone()
        }
    };
    let plural = |word: &str| match word {
        "things" => Some("clients"),
        "channels" => Some("channels"),
        "groups" => Some("groups"),
        _ => None,
    };
    let same = || method.clone();
    let (method, path): (Method, Vec<&str>) = match parts.as_slice() {
        ["users", "password", rest @ ("reset-request" | "reset")] => {
            (same(), vec!["password", rest])
        }
        ["users", id, "identity"] => (same(), vec!["users", id, "email"]),
        ["domain", rest @ ..] => (same(), [&["domains"], rest].concat()),
        ["connect"] => (same(), vec!["{domain}", "channels", "connect"]),
        ["disconnect"] => (same(), vec!["{domain}", "channels", "disconnect"]),
        [
            "channels",
            channel,
            "things",
            client,
            verb @ ("connect" | "disconnect"),
        ] => {
            let path = vec!["{domain}", "channels", channel, "clients", client, verb];
            (same(), path)
        }
        ["channels", channel, "groups", "assign"] => {
            (same(), vec!["{domain}", "channels", channel, "parent"])
        }
        ["channels", channel, "groups", "unassign"] => (
            Method::DELETE,
            vec!["{domain}", "channels", channel, "parent"],
        ),
        ["channels", channel, "things"] => {
            (same(), vec!["{domain}", "channels", channel, "clients"])
        }
        ["things", client, "channels"] => (same(), vec!["{domain}", "clients", client, "channels"]),
        ["groups", group, "channels"] => (same(), vec!["{domain}", "groups", group, "channels"]),
        ["users", user, "things"] => (same(), vec!["{domain}", "users", user, "clients"]),
        ["users", user, kind @ ("channels" | "groups")] => {
            (same(), vec!["{domain}", "users", user, kind])
        }
        ["things", client, "share"] => (same(), vec!["{domain}", "clients", client, "assign"]),
        ["things", client, "unshare"] => (same(), vec!["{domain}", "clients", client, "unassign"]),
        [
            kind @ ("channels" | "groups"),
            id,
            "users",
            verb @ ("assign" | "unassign"),
        ] => (same(), vec!["{domain}", kind, id, verb]),
        ["groups", id, "groups", "assign"] => (same(), vec!["{domain}", "groups", id, "children"]),
        ["groups", id, "groups", "unassign"] => {
            (Method::DELETE, vec!["{domain}", "groups", id, "children"])
        }
        ["groups", id, "parents"] => (same(), vec!["{domain}", "groups", id, "hierarchy"]),
        [kind @ ("things" | "channels" | "groups"), id, "users"] => (
            same(),
            vec!["{domain}", plural(kind)?, id, "roles", "members"],
        ),
        ["domains", id, "users"] => (same(), vec!["domains", id, "roles", "members"]),
        ["domains", id, "users", verb @ ("assign" | "unassign")] => {
            (same(), vec!["domains", id, verb])
        }
        ["invitations"] => (same(), vec!["domains", "{domain}", "invitations"]),
        ["invitations", user, domain] => (same(), vec!["domains", domain, "invitations", user]),
        [domain, "groups", group, "parents"] => (same(), vec![domain, "groups", group, "parent"]),
        [kind @ ("things" | "channels" | "groups"), rest @ ..] => {
            let kind = plural(kind)?;
            // Groups are still updated by PUT.
            let method = if kind == "groups" {
                method.clone()
            } else {
                update(method)
            };
            (method, [&["{domain}", kind], rest].concat())
        }
        [domain, "things", rest @ ..] => (same(), [&[*domain, "clients"], rest].concat()),
        _ => return None,
    };
    Some((method, path.into_iter().map(str::to_owned).collect()))
}

/// The role that a relation has become, made if the object does not have it yet.
///
/// # Errors
/// There is no such relation on this kind of object.
pub(super) async fn relation_role(
    write: &mut Write,
    inside: &Inside,
    target: &Target,
    relation: &str,
) -> Result<Role, Failure> {
    let name = match relation {
        "administrator" | "admin" => roles::BUILTIN,
        "editor" | "viewer" => relation,
        "member" if target.kind != Kind::Client => relation,
        _ => {
            return Err(Failure::bad("relation is not valid")
                .with_detail("expected administrator, editor, viewer or member"));
        }
    };
    if let Some(role) = roles::role(write.connection(), target.id, name).await? {
        return Ok(role);
    }
    let role = Role {
        id: roles::role_id(target.kind),
        domain: inside.domain.id,
        kind: target.kind,
        entity: target.id,
        name: name.to_owned(),
        builtin: false,
        actions: relation_actions(target.kind, name),
        created_at: Time::now(),
        created_by: Some(inside.user),
        updated_at: None,
        updated_by: None,
    };
    roles::insert(write.connection(), &role).await?;
    Ok(role)
}

/// What holders of a relation could do, in actions.
fn relation_actions(kind: Kind, relation: &str) -> Actions {
    let mut actions = Actions::default();
    let all = Actions::all(kind);
    let editing = [
        Verb::Read,
        Verb::Update,
        Verb::SetParent,
        Verb::SetChild,
        Verb::Connect,
        Verb::Publish,
        Verb::Subscribe,
        Verb::Membership,
        Verb::ViewRoleUsers,
    ];
    let own: &[Verb] = match (relation, kind) {
        ("editor", Kind::Domain) => &[Verb::Read, Verb::Update, Verb::ViewRoleUsers],
        ("editor", _) => &editing,
        ("viewer", Kind::Group) => &[Verb::Read, Verb::SetChild],
        ("viewer", _) => &[Verb::Read],
        ("member", Kind::Group) => &[Verb::Membership],
        _ => &[],
    };
    let mut add = |slots: &[Slot], verbs: &[Verb]| {
        for slot in slots {
            for verb in verbs {
                if all.in_slot(*slot).contains(*verb) {
                    actions.add(*slot, *verb);
                }
            }
        }
    };
    add(&[Slot::Own], own);
    let containers = [Slot::Channels, Slot::Groups, Slot::BelowChannels];
    let clients = [Slot::Clients, Slot::BelowClients];
    if kind == Kind::Domain {
        let inside = [Slot::Clients, Slot::Channels, Slot::Groups];
        add(&inside, &[Verb::Create]);
    }
    match relation {
        "editor" => {
            add(&containers, &editing);
            add(&clients, &[Verb::Read]);
        }
        "viewer" => {
            add(&containers, &[Verb::Read]);
            add(&clients, &[Verb::Read]);
        }
        _ => {}
    }
    actions
}

/// Gives users a relation to an object.
pub(super) async fn assign(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let target = call
        .target(write.connection(), &inside, Verb::AddRoleUsers)
        .await?;
    let body = call.body();
    let relation = body.text("relation").unwrap_or("member");
    let role = relation_role(&mut write, &inside, &target, relation).await?;
    let at = Editing {
        write,
        inside,
        target,
        role,
    };
    let reply = role_calls::give(&call, at, "user_ids").await?;
    Ok(Reply {
        status: StatusCode::CREATED,
        ..reply
    })
}

/// Takes a relation to an object from users.
pub(super) async fn unassign(call: Call) -> Result<Reply, Failure> {
    let users = json!(call.body().texts("user_ids").unwrap_or_default());
    let call = Call {
        fields: Body::One(call.body().with("member_ids", users)),
        ..call
    };
    role_calls::expel(call).await
}

/// Puts a channel into a group; older calls answered with 201.
pub(super) async fn set_parent(call: Call) -> Result<Reply, Failure> {
    let old = call.old;
    let reply = parents::set(call).await?;
    Ok(if old {
        Reply::empty(StatusCode::CREATED)
    } else {
        reply
    })
}
