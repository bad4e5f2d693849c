//! Why somebody may, or may not; and who reaches an object.

use std::collections::BTreeMap;

use authcache::EntityId;
use serde_json::{Value, json};

use super::Reply;
use super::call::Call;
use super::failure::Failure;
use super::query::wrong;
use crate::authz;
use crate::explain::{kind_of, step};
use crate::grant::{Kind, Verb};
use crate::name::parse_id;
use crate::store::channels;
use crate::store::roles::{self, Role};

/// Members whose access one answer shows at most.
const SHOWN_MAX: i64 = 10_000;

/// Explains one decision: `subject` is a user or a client, `object` an object of the domain.
pub(super) async fn explain(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let query = &call.query;
    let subject = parse_id("subject", query.text("subject").unwrap_or_default())?;
    let object = parse_id("object", query.text("object").unwrap_or_default())?;
    // Who may look at an object's members may know why somebody reaches it.
    let kind = kind_of(&mut tx, inside.domain.id, object).await?;
    let target = match kind {
        None => {
            return Err(inside
                .itself(Verb::ViewRoleUsers)
                .map_or_else(|denied| denied, |_| Failure::not_found("object")));
        }
        Some(Kind::Domain) => inside.itself(Verb::ViewRoleUsers)?,
        Some(kind) => {
            let name = object.to_string();
            inside
                .target(&mut tx, kind, &name, Verb::ViewRoleUsers)
                .await?
        }
    };
    let wanted = query.text("action").unwrap_or_default();
    let expected = || {
        let names = target.kind.all_verbs().words(target.kind);
        wrong("action", wanted, &format!("one of {}", names.join(", ")))
    };
    let verb = crate::explain::verb_named(target.kind, wanted).ok_or_else(expected)?;
    let place = target.place(inside.domain.id);
    let shown = crate::explain::explain(&mut tx, &inside.domain, subject, verb, &place).await?;
    Ok(Reply::ok(shown))
}

/// Lists everybody who reaches an object: users by roles, and for a channel the clients connected.
pub(super) async fn access(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = call.target(&mut tx, &inside, Verb::ViewRoleUsers).await?;
    let place = target.place(inside.domain.id);
    let mut by_user: BTreeMap<EntityId, Vec<Role>> = BTreeMap::new();
    for (user, role) in roles::holders(&mut tx, &authz::reaching(&place), SHOWN_MAX).await? {
        if !authz::permitted([&role], &place).is_empty() {
            by_user.entry(user).or_default().push(role);
        }
    }
    let people: Vec<Value> = by_user
        .iter()
        .map(|(user, held)| {
            let path: Vec<Value> = held.iter().map(|role| step(role, &place)).collect();
            json!({
                "user_id": user.to_string(),
                "actions": authz::permitted(held, &place).words(place.kind),
                "path": path,
            })
        })
        .collect();
    let mut clients = Vec::new();
    if target.kind == Kind::Channel {
        for (client, right) in channels::clients_of(&mut tx, target.id, SHOWN_MAX).await? {
            let words = crate::model::right_words(right);
            clients.push(json!({ "client_id": client.to_string(), "connection_types": words }));
        }
    }
    Ok(Reply::ok(json!({ "users": people, "clients": clients })))
}
