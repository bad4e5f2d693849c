//! Why somebody may, or may not; and who reaches an object.

use std::collections::BTreeMap;

use authcache::EntityId;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::authorize::Inside;
use super::call::Call;
use super::failure::Failure;
use super::query::wrong;
use super::{Reply, show};
use crate::authz;
use crate::grant::{Kind, Place, Slot, Verb, verb};
use crate::name::parse_id;
use crate::store::roles::{self, Role};
use crate::store::{channels, entities, users};

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
    let kind = kind_of(&mut tx, &inside, object).await?;
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
    let action = verb::action(target.kind, wanted).filter(|action| action.slot == Slot::Own);
    let expected = || {
        let names = target.kind.all_verbs().words(target.kind);
        wrong("action", wanted, &format!("one of {}", names.join(", ")))
    };
    let verb = action.ok_or_else(expected)?.verb;
    let place = target.place(inside.domain.id);
    let client = entities::entity(&mut tx, Kind::Client, inside.domain.id, subject).await?;
    let (allowed, path, missing) = if let Some(client) = client {
        of_client(&mut tx, client.id, &place, verb).await?
    } else {
        of_user(&mut tx, &inside, subject, &place, verb).await?
    };
    Ok(Reply::ok(json!({
        "subject": subject.to_string(),
        "action": verb.word(target.kind),
        "object": object.to_string(),
        "object_kind": target.kind.word(),
        "allowed": allowed,
        "path": path,
        "missing": missing,
    })))
}

async fn kind_of(
    c: &mut SqliteConnection,
    inside: &Inside,
    object: EntityId,
) -> Result<Option<Kind>, Failure> {
    if object == inside.domain.id {
        return Ok(Some(Kind::Domain));
    }
    for kind in [Kind::Group, Kind::Channel, Kind::Client] {
        if entities::entity(c, kind, inside.domain.id, object)
            .await?
            .is_some()
        {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

type Explained = (bool, Vec<Value>, Vec<String>);

/// A client reaches channels by its connections alone.
async fn of_client(
    c: &mut SqliteConnection,
    client: EntityId,
    place: &Place<'_>,
    verb: Verb,
) -> Result<Explained, Failure> {
    let rights = channels::rights_of(c, client).await?;
    let right = rights.iter().find(|(channel, _)| *channel == place.id);
    let words = right.map_or_else(Vec::new, |(_, right)| crate::model::right_words(*right));
    let wanted = verb.word(place.kind);
    if words.contains(&wanted) {
        let path = json!({ "connection": { "client": client.to_string(),
            "channel": place.id.to_string(), "types": words } });
        return Ok((true, vec![path], Vec::new()));
    }
    let missing = format!("a connection of type {wanted} between the client and the channel");
    Ok((false, Vec::new(), vec![missing]))
}

async fn of_user(
    c: &mut SqliteConnection,
    inside: &Inside,
    user: EntityId,
    place: &Place<'_>,
    verb: Verb,
) -> Result<Explained, Failure> {
    let known = users::user_auth(c, user).await?;
    let held = roles::held(c, user, &authz::reaching(place)).await?;
    let member = held.iter().any(|role| role.kind == Kind::Domain);
    let mut missing = Vec::new();
    let admin = known.as_ref().is_some_and(|user| user.administrator);
    if !known.as_ref().is_some_and(|user| user.status.is_live()) {
        missing.push("the subject is no enabled user or client of the domain".to_owned());
    }
    if !admin && !member {
        missing.push("the subject has no role in the domain".to_owned());
    }
    if !admin && !inside.domain.status.is_live() {
        missing.push("the domain is not enabled".to_owned());
    }
    let mut path: Vec<Value> = held
        .iter()
        .filter(|role| authz::permitted([*role], place).contains(verb))
        .map(|role| step(role, place))
        .collect();
    if admin {
        path.push(json!({ "platform": "administrator" }));
    }
    if path.is_empty() {
        missing.push(format!("a role that gives it: {}", sources(place, verb)));
    }
    Ok((missing.is_empty(), path, missing))
}

fn step(role: &Role, place: &Place<'_>) -> Value {
    json!({
        "role_id": role.id,
        "role_name": role.name,
        "entity_kind": role.kind.word(),
        "entity_id": role.entity.to_string(),
        "access_type": show::access_of(role, place).word(),
    })
}

/// The actions that would give the right, and where.
fn sources(place: &Place<'_>, verb: Verb) -> String {
    let (action, word) = (verb.word(place.kind), place.kind.word());
    let mut sources = vec![format!("{action} on the {word}")];
    match place.kind {
        Kind::Domain => {}
        Kind::Group => {
            if !place.groups.is_empty() {
                sources.push(format!("subgroup_{action} on a group above"));
            }
            sources.push(format!("group_{action} on the domain"));
        }
        Kind::Channel | Kind::Client => {
            if !place.groups.is_empty() {
                sources.push(format!("{word}_{action} on its parent group"));
                sources.push(format!("subgroup_{word}_{action} on a group further up"));
            }
            sources.push(format!("{word}_{action} on the domain"));
        }
    }
    sources.join(", or ")
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
