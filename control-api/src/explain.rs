//! Why somebody may do something, or what is missing.

use crate::store::sql::Connection;
use authcache::EntityId;
use serde_json::{Value, json};

use crate::authz;
use crate::grant::{Kind, Place, Slot, Verb, verb};
use crate::model::{Domain, right_words};
use crate::store::listing::Access;
use crate::store::roles::{self, Role};
use crate::store::{StoreError, channels, entities, users};

/// What kind of object of a domain has this id.
pub(crate) async fn kind_of(
    c: &mut Connection,
    domain: EntityId,
    object: EntityId,
) -> Result<Option<Kind>, StoreError> {
    if object == domain {
        return Ok(Some(Kind::Domain));
    }
    for kind in [Kind::Group, Kind::Channel, Kind::Client] {
        if entities::entity(c, kind, domain, object).await?.is_some() {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// The verb that an action of this name asks for on an object of the kind.
pub(crate) fn verb_named(kind: Kind, name: &str) -> Option<Verb> {
    let action = verb::action(kind, name)?;
    (action.slot == Slot::Own).then_some(action.verb)
}

/// Explains one decision: whether, by which roles or connection, or what is missing.
pub(crate) async fn explain(
    c: &mut Connection,
    domain: &Domain,
    subject: EntityId,
    verb: Verb,
    place: &Place<'_>,
) -> Result<Value, StoreError> {
    let client = entities::entity(c, Kind::Client, domain.id, subject).await?;
    let (allowed, path, missing) = match client {
        Some(client) => of_client(c, client.id, place, verb).await?,
        None => of_user(c, domain, subject, place, verb).await?,
    };
    Ok(json!({
        "subject": subject.to_string(),
        "action": verb.word(place.kind),
        "object": place.id.to_string(),
        "object_kind": place.kind.word(),
        "allowed": allowed,
        "path": path,
        "missing": missing,
    }))
}

type Explained = (bool, Vec<Value>, Vec<String>);

/// A client reaches channels by its connections alone.
async fn of_client(
    c: &mut Connection,
    client: EntityId,
    place: &Place<'_>,
    verb: Verb,
) -> Result<Explained, StoreError> {
    let rights = channels::rights_of(c, client).await?;
    let right = rights.iter().find(|(channel, _)| *channel == place.id);
    let words = right.map_or_else(Vec::new, |(_, right)| right_words(*right));
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
    c: &mut Connection,
    domain: &Domain,
    user: EntityId,
    place: &Place<'_>,
    verb: Verb,
) -> Result<Explained, StoreError> {
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
    if !admin && !domain.status.is_live() {
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

pub(crate) fn step(role: &Role, place: &Place<'_>) -> Value {
    json!({
        "role_id": role.id,
        "role_name": role.name,
        "entity_kind": role.kind.word(),
        "entity_id": role.entity.to_string(),
        "access_type": access_of(role, place).word(),
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

/// Where a role stands to an object that it reaches.
pub(crate) fn access_of(role: &Role, place: &Place<'_>) -> Access {
    if role.entity == place.id {
        Access::Direct
    } else if role.kind == Kind::Domain {
        Access::Domain
    } else if place.groups.first() == Some(&role.entity) {
        Access::DirectGroup
    } else {
        Access::IndirectGroup
    }
}
