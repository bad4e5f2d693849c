//! Groups, channels and clients: made, listed, viewed, changed, switched and removed.

use std::collections::HashMap;

use crate::store::sql::Connection;
use authcache::{Change, EntityId, Right, Status};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::authorize::Inside;
use super::call::Call;
use super::failure::Failure;
use super::fields::Fields;
use super::query::wrong;
use super::{Reply, show};
use crate::grant::{Kind, Place, Verb, Verbs};
use crate::model::{Time, status_word};
use crate::name::{self, Name, Route, parse_id, parse_types};
use crate::secret::{Secret, new_id};
use crate::snapshot::effective;
use crate::store::Write;
use crate::store::entities::{self, Entity};
use crate::store::groups::DEPTH_MAX;
use crate::store::listing::{self, Access, Filter, Viewer};
use crate::store::roles::{self, Role};
use crate::{authz, token};

/// Tags that one object may have, and characters of one.
const TAGS_MAX: usize = 100;
const TAG_CHARACTERS_MAX: usize = 254;
/// Characters of a client's identity.
const IDENTITY_CHARACTERS_MAX: usize = 254;

/// Makes one.
pub(super) async fn create(call: Call) -> Result<Reply, Failure> {
    let (mut made, domain) = make(&call).await?;
    let (entity, shown) = made.pop().ok_or_else(Failure::unavailable)?;
    let location = format!("/{domain}/{}/{}", entity.kind.plural(), entity.id);
    Ok(Reply::created(location, shown))
}

/// Makes many, or none at all.
pub(super) async fn create_bulk(call: Call) -> Result<Reply, Failure> {
    let (made, _) = make(&call).await?;
    let kind = call.route.kind.unwrap_or(Kind::Client);
    let total = made.len();
    let items: Vec<Value> = made.into_iter().map(|(_, shown)| shown).collect();
    let body = json!({ "total": total, "offset": 0, "limit": total, kind.plural(): items });
    Ok(Reply::ok(body))
}

async fn make(call: &Call) -> Result<(Vec<(Entity, Value)>, EntityId), Failure> {
    let kind = call.route.kind.unwrap_or(Kind::Client);
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let now = Time::now();
    let (mut entities, mut secrets) = (Vec::new(), Vec::new());
    // Each group is looked up once, however many are made in it.
    let mut parents: HashMap<Option<String>, Option<Entity>> = HashMap::new();
    for fields in call.items() {
        let parent = fields
            .any_text(&["parent_group_id", "parent_id"])
            .filter(|parent| !parent.is_empty());
        let name = parent.map(str::to_owned);
        let parent = match parents.get(&name) {
            Some(parent) => parent.clone(),
            None => {
                let parent = inside.may_create(write.connection(), kind, parent).await?;
                parents.entry(name).or_insert(parent).clone()
            }
        };
        let (entity, secret) = new_entity(call, &inside, &fields, parent, now)?;
        entities.push(entity);
        secrets.push(secret);
    }
    insert(&mut write, kind, &entities).await?;
    let notes = entities
        .iter()
        .map(|entity| (entity.id, json!({ "name": entity.name })));
    call.record_all(&mut write, inside.domain.id, notes).await?;
    let made: Vec<(Entity, Value)> = entities
        .into_iter()
        .zip(&secrets)
        .map(|(entity, secret)| {
            let shown = show::entity(&entity, secret.as_ref().map(Secret::reveal));
            (entity, shown)
        })
        .collect();
    // A disabled channel is told as such; clients are not known to brokers before they connect.
    for (entity, _) in &made {
        if kind == Kind::Channel {
            write.change(channel_set(entity));
        }
    }
    call.commit(write).await?;
    Ok((made, inside.domain.id))
}

async fn insert(write: &mut Write, kind: Kind, new: &[Entity]) -> Result<(), Failure> {
    write.insert_entities(new).await.map_err(|error| {
        if !error.is_unique_violation() {
            return error.into();
        }
        Failure::conflict(match kind {
            Kind::Channel => "the id or route is taken; expected another one, or none",
            Kind::Client => {
                "the id or secret is taken; expected another one, or none to have one made"
            }
            Kind::Group | Kind::Domain => "the id is taken",
        })
    })
}

fn new_entity(
    call: &Call,
    inside: &Inside,
    fields: &Fields,
    parent: Option<Entity>,
    now: Time,
) -> Result<(Entity, Option<Secret>), Failure> {
    let kind = call.route.kind.unwrap_or(Kind::Client);
    let given = fields
        .text("id")
        .filter(|id| !id.is_empty() && kind != Kind::Group);
    let id = given.map_or_else(|| Ok(new_id(now)), |id| parse_id("id", id))?;
    let name = Name::parse(fields.text("name").unwrap_or_default())?;
    if kind == Kind::Group && name.as_str().is_empty() {
        return Err(Failure::bad("name is empty; expected 1 to 1024 characters"));
    }
    let mut entity = Entity::new(kind, id, inside.domain.id, name.as_str(), now);
    entity.created_by = Some(inside.user);
    apply(&mut entity, fields)?;
    let status = fields.text("status").filter(|status| !status.is_empty());
    if let Some(status) = status {
        entity.status = status_of(status)?;
    }
    if let Some(parent) = &parent {
        entity.parent = Some(parent.id);
        if kind == Kind::Group && parent.level() >= DEPTH_MAX {
            return Err(too_deep());
        }
    }
    let mut secret = None;
    match kind {
        Kind::Group => {
            entity.path = match &parent {
                Some(parent) => format!("{}.{id}", parent.path),
                None => id.to_string(),
            };
        }
        Kind::Channel => {
            let route = fields.text("route").filter(|route| !route.is_empty());
            let route = route.map(Route::parse_channel).transpose()?;
            entity.route = route.map(|route| route.as_str().to_owned());
        }
        Kind::Client | Kind::Domain => {
            let credentials = fields.object("credentials").unwrap_or_default();
            let identity = credentials.text("identity").unwrap_or_default();
            check_identity(identity)?.clone_into(&mut entity.identity);
            let given = credentials
                .text("secret")
                .filter(|secret| !secret.is_empty());
            let made = given.map_or_else(Secret::random, |text| Secret::new(text.to_owned()));
            let psk = fields.flag("psk").unwrap_or(false);
            seal(call, &mut entity, &made, psk)?;
            secret = Some(made);
        }
    }
    Ok((entity, secret))
}

fn check_identity(identity: &str) -> Result<&str, Failure> {
    let length = identity.chars().count();
    if length > IDENTITY_CHARACTERS_MAX || identity.chars().any(char::is_control) {
        let message = format!("credentials.identity has {length} characters");
        let expected = format!("expected at most {IDENTITY_CHARACTERS_MAX}, printable");
        return Err(Failure::bad(message).with_detail(expected));
    }
    Ok(identity)
}

/// Keeps the digest of a client's secret, and the secret itself, sealed, where secrets are revealed or
/// it is the key of the client's DTLS handshakes.
fn seal(call: &Call, entity: &mut Entity, secret: &Secret, psk: bool) -> Result<(), Failure> {
    name::check_secret(secret.reveal())?;
    let pepper = call.control.0.identifier.pepper();
    let digest = pepper.device_secret(entity.domain, secret.reveal().as_bytes());
    entity.secret_digest = Some(digest.as_bytes().to_vec());
    entity.secret_sealed = None;
    if psk || call.control.settings().reveal_client_secrets {
        let sealed = token::seal(pepper, &entity.id.to_string(), secret.reveal().as_bytes());
        entity.secret_sealed = Some(sealed.map_err(|_| Failure::unavailable())?);
    }
    Ok(())
}

/// A client's secret in the clear, if this installation keeps it.
fn unseal(call: &Call, entity: &Entity) -> Option<String> {
    let sealed = entity.secret_sealed.clone()?;
    if !call.control.settings().reveal_client_secrets {
        return None;
    }
    let pepper = call.control.0.identifier.pepper();
    let bytes = token::unseal(pepper, &entity.id.to_string(), sealed).ok()?;
    String::from_utf8(bytes).ok()
}

/// Sets what an update may set: name, description, tags and metadata, each only if it is given.
fn apply(entity: &mut Entity, fields: &Fields) -> Result<(), Failure> {
    if let Some(name) = fields.text("name") {
        let name = Name::parse(name)?;
        if entity.kind == Kind::Group && name.as_str().is_empty() {
            return Err(Failure::bad("name is empty; expected 1 to 1024 characters"));
        }
        name.as_str().clone_into(&mut entity.name);
    }
    if let Some(description) = fields.text("description") {
        description.clone_into(&mut entity.description);
    }
    if let Some(tags) = fields.texts("tags") {
        entity.tags = check_tags(tags)?;
    }
    for (name, place) in [
        ("metadata", &mut entity.metadata),
        ("private_metadata", &mut entity.private_metadata),
    ] {
        if fields.has(name) {
            *place = fields.value(name).cloned().unwrap_or_else(|| json!({}));
        }
    }
    Ok(())
}

/// Tags, each once.
///
/// # Errors
/// There are too many, or one is empty or too long.
pub(super) fn check_tags(tags: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut kept: Vec<String> = Vec::with_capacity(tags.len().min(TAGS_MAX));
    for tag in tags {
        let good = !tag.is_empty()
            && tag.chars().count() <= TAG_CHARACTERS_MAX
            && !tag.chars().any(char::is_control);
        if !good {
            let message =
                format!("a tag is not valid; expected 1 to {TAG_CHARACTERS_MAX} characters");
            return Err(Failure::bad(message));
        }
        if !kept.contains(&tag) {
            kept.push(tag);
        }
    }
    if kept.len() > TAGS_MAX {
        return Err(Failure::bad(format!("more than {TAGS_MAX} tags")));
    }
    Ok(kept)
}

fn status_of(word: &str) -> Result<Status, Failure> {
    match word {
        "enabled" => Ok(Status::Enabled),
        "disabled" => Ok(Status::Disabled),
        _ => Err(Failure::bad(
            "status is not valid; expected enabled or disabled",
        )),
    }
}

pub(super) fn too_deep() -> Failure {
    Failure::bad(format!("the group would be deeper than {DEPTH_MAX} levels"))
}

/// Shows one.
pub(super) async fn view(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = call.target(&mut tx, &inside, Verb::Read).await?;
    let Some(entity) = &target.entity else {
        return Err(Failure::unavailable());
    };
    let mut shown = show::entity(entity, unseal(&call, entity).as_deref());
    if call.query.flag("roles")? {
        shown["roles"] = show::access_roles(&target, inside.domain.id).into();
    }
    Ok(Reply::ok(shown))
}

/// Changes name, description, tags and metadata.
pub(super) async fn update(call: Call) -> Result<Reply, Failure> {
    change(call, apply).await
}

/// Changes the tags.
pub(super) async fn update_tags(call: Call) -> Result<Reply, Failure> {
    change(call, |entity, fields| {
        entity.tags = check_tags(fields.texts("tags").unwrap_or_default())?;
        Ok(())
    })
    .await
}

async fn change(
    call: Call,
    change: impl Fn(&mut Entity, &Fields) -> Result<(), Failure>,
) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, mut entity) = call.entity(write.connection(), Verb::Update).await?;
    change(&mut entity, &call.body())?;
    finish(&call, write, &inside, entity).await
}

/// Writes an object back, notes it, commits and shows it.
async fn finish(
    call: &Call,
    mut write: Write,
    inside: &Inside,
    mut entity: Entity,
) -> Result<Reply, Failure> {
    entity.updated_at = Some(Time::now());
    entity.updated_by = Some(inside.user);
    write.update_entity(&entity).await?;
    let attributes = json!({ "name": entity.name, "status": status_word(entity.status) });
    let id = entity.id.to_string();
    call.record(&mut write, Some(entity.domain), &id, attributes)
        .await?;
    call.commit(write).await?;
    let secret = unseal(call, &entity);
    Ok(Reply::ok(show::entity(&entity, secret.as_deref())))
}

/// Gives a client another secret: its connections end.
pub(super) async fn update_secret(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, mut entity) = call.entity(write.connection(), Verb::Update).await?;
    let secret = Secret::new(call.body().text("secret").unwrap_or_default().to_owned());
    let psk = entity.secret_sealed.is_some();
    seal(&call, &mut entity, &secret, psk)?;
    let digest = entity.secret_digest.clone().unwrap_or_default();
    let sealed = entity.secret_sealed.as_deref();
    let set = write.set_client_secret(entity.id, &digest, sealed).await;
    set.map_err(|error| {
        if error.is_unique_violation() {
            return Failure::conflict("another client of the domain has this secret");
        }
        error.into()
    })?;
    write.client_changed(entity.id).await?;
    let reply = finish(&call, write, &inside, entity).await?;
    Ok(with_secret(reply, secret.reveal()))
}

fn with_secret(mut reply: Reply, secret: &str) -> Reply {
    if let Some(body) = &mut reply.body {
        body["credentials"]["secret"] = secret.into();
    }
    reply
}

/// Lets one take part again.
pub(super) async fn enable(call: Call) -> Result<Reply, Failure> {
    switch(call, Status::Enabled).await
}

/// Lets one take part no more.
pub(super) async fn disable(call: Call) -> Result<Reply, Failure> {
    switch(call, Status::Disabled).await
}

async fn switch(call: Call, status: Status) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, mut entity) = call.entity(write.connection(), Verb::Update).await?;
    if entity.status == status {
        let (kind, word) = (entity.kind.word(), status_word(status));
        return Err(Failure::conflict(format!("{kind} is already {word}")));
    }
    entity.status = status;
    entity.updated_at = Some(Time::now());
    entity.updated_by = Some(inside.user);
    write.update_entity(&entity).await?;
    match entity.kind {
        Kind::Client => write.client_changed(entity.id).await?,
        Kind::Channel => write.change(channel_set(&entity)),
        // A group's status holds off new members; it stops messages only where the domain says so.
        Kind::Group => write.regroup(entity.domain),
        Kind::Domain => {}
    }
    finish(&call, write, &inside, entity).await
}

/// Removes one. A group's members stay, without a parent.
pub(super) async fn delete(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, entity) = call.entity(write.connection(), Verb::Delete).await?;
    let now = Time::now();
    if entity.kind == Kind::Group {
        let children = crate::store::groups::children(write.connection(), entity.id).await?;
        for child in &children {
            write.move_group(child, None, inside.user, now).await?;
        }
        write.empty_group(&entity).await?;
    }
    write.delete_entity(entity.kind, entity.id).await?;
    write.change(match entity.kind {
        Kind::Client => Change::PrincipalRemoved { id: entity.id },
        Kind::Channel => Change::ChannelRemoved { id: entity.id },
        Kind::Group | Kind::Domain => Change::UserRightsStale {
            domain: entity.domain,
        },
    });
    let attributes = json!({ "name": entity.name });
    let id = entity.id.to_string();
    call.record(&mut write, Some(entity.domain), &id, attributes)
        .await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// A channel as brokers hear of it.
fn channel_set(entity: &Entity) -> Change {
    Change::ChannelSet {
        id: entity.id,
        domain: entity.domain,
        route: entity.route.clone(),
        status: effective(entity.status, entity.held),
        open: entity.open,
    }
}

/// Lists those that the caller may see.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    let kind = call.route.kind.unwrap_or(Kind::Client);
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let filter = filter(&call, &mut tx, &inside, kind).await?;
    listed(&call, &mut tx, &inside, kind, filter).await
}

/// Lists those that a user may see, for administrators and the user itself.
pub(super) async fn list_of_user(mut call: Call) -> Result<Reply, Failure> {
    let user = call.param("user").to_owned();
    call.query.set("user", user);
    list(call).await
}

/// Lists the clients of a channel, or the channels of a client.
pub(super) async fn list_connected(mut call: Call) -> Result<Reply, Failure> {
    let peer = call.param("id").to_owned();
    let name = if call.route.kind == Some(Kind::Client) {
        "channel"
    } else {
        "client"
    };
    call.query.set(name, peer);
    list(call).await
}

/// Lists what is in a group.
pub(super) async fn list_in_group(mut call: Call) -> Result<Reply, Failure> {
    let group = call.param("id").to_owned();
    call.query.set("group", group);
    list(call).await
}

/// Lists what passes the filter and the caller may see.
pub(super) async fn listed(
    call: &Call,
    tx: &mut Connection,
    inside: &Inside,
    kind: Kind,
    filter: Filter,
) -> Result<Reply, Failure> {
    let page = call.query.page()?;
    let only_total = call.query.flag("only_total")?;
    // An administrator of the platform may look through somebody else's eyes.
    let user = match call.query.id("user")? {
        Some(user) if inside.admin || user == inside.user => user,
        Some(_) => return Err(Failure::forbidden()),
        None => inside.user,
    };
    let sees_all = inside.admin && user == inside.user;
    let mut needed = Verbs::NONE.with(Verb::Read);
    for name in call.query.text("actions").unwrap_or_default().split(',') {
        if name.is_empty() {
            continue;
        }
        let verb = crate::explain::verb_named(kind, name);
        needed = needed.with(verb.ok_or_else(|| wrong("actions", name, "names of actions"))?);
    }
    let everywhere = if user == inside.user {
        inside.everywhere(kind)
    } else {
        let role = roles::of_member(tx, inside.domain.id, user).await?;
        let place = Place {
            kind,
            id: EntityId::SYS,
            domain: inside.domain.id,
            groups: &[],
        };
        authz::permitted(&role, &place)
    };
    let viewer = Viewer {
        user,
        everywhere,
        needed,
    };
    let viewer = (!sees_all || filter.access.is_some()).then_some(viewer);
    let (total, found) = listing::list(
        tx,
        kind,
        inside.domain.id,
        &filter,
        viewer,
        page,
        only_total,
    )
    .await?;
    let chains = entities::groups_of_each(tx, &found).await?;
    let mut reaching = vec![inside.domain.id];
    for (entity, groups) in found.iter().zip(&chains) {
        reaching.push(entity.id);
        reaching.extend(groups);
    }
    reaching.sort_unstable();
    reaching.dedup();
    let held = roles::held(tx, user, &reaching).await?;
    let mut held_on: HashMap<EntityId, Vec<&Role>> = HashMap::new();
    for role in &held {
        held_on.entry(role.entity).or_default().push(role);
    }
    let mut items = Vec::with_capacity(found.len());
    for (entity, groups) in found.iter().zip(&chains) {
        let place = Place {
            kind,
            id: entity.id,
            domain: entity.domain,
            groups,
        };
        let mut shown = show::entity(entity, unseal(call, entity).as_deref());
        // No other role reaches it.
        let near = [entity.id, inside.domain.id];
        let near = near.iter().chain(groups);
        let near = near.filter_map(|on| held_on.get(on)).flatten();
        let roles: Vec<&Role> = near.copied().collect();
        show::access(&mut shown, &roles, &place, sees_all);
        items.push(shown);
    }
    if only_total {
        return Ok(Reply::ok(json!({ "total": total })));
    }
    Ok(Reply::ok(show::page(kind.plural(), total, page, items)))
}

/// What a list is narrowed by, as the query says.
pub(super) async fn filter(
    call: &Call,
    tx: &mut Connection,
    inside: &Inside,
    kind: Kind,
) -> Result<Filter, Failure> {
    let query = &call.query;
    let order = query.word("order", &["name", "created_at", "updated_at"], "updated_at")?;
    let status = query.word(
        "status",
        &["enabled", "disabled", "deleted", "all"],
        "enabled",
    )?;
    let types = query
        .text("connection_type")
        .map(|word| parse_types(&[word]));
    let right = types.transpose()?.unwrap_or(Right::NONE);
    let peer_kind = if kind == Kind::Client {
        Kind::Channel
    } else {
        Kind::Client
    };
    let connected = match query.text(peer_kind.word()) {
        Some(peer) if kind != Kind::Group => {
            // Who is connected to what is told to those who may read both.
            let peer = inside.entity(tx, peer_kind, peer, Verb::Read).await?;
            Some((peer.id, right))
        }
        _ => None,
    };
    let group = match query.raw("group") {
        None => None,
        Some("") => Some(None),
        Some(group) => Some(Some(parse_id("group", group)?)),
    };
    let group = if query.flag("root_group")? && kind == Kind::Group {
        Some(None)
    } else {
        group
    };
    let access = query.word(
        "access_type",
        &[
            "direct",
            "direct_group",
            "indirect_group",
            "indirect",
            "domain",
            "all",
        ],
        "all",
    )?;
    Ok(Filter {
        id: query.id("id")?,
        name: query.text("name").map(str::to_owned),
        tags: query.tags()?,
        metadata: query.metadata()?,
        // Nothing deleted is kept.
        status: match status {
            "enabled" => Some(Status::Enabled),
            "disabled" => Some(Status::Disabled),
            "deleted" => Some(Status::Frozen),
            _ => None,
        },
        group,
        connected,
        created_from: query.time("created_from")?,
        created_to: query.time("created_to")?,
        below: None,
        levels: None,
        role_id: query.text("role_id").map(str::to_owned),
        role_name: query.text("role_name").map(str::to_owned),
        access: match access {
            "direct" => Some(Access::Direct),
            "direct_group" => Some(Access::DirectGroup),
            "indirect_group" | "indirect" => Some(Access::IndirectGroup),
            "domain" => Some(Access::Domain),
            _ => None,
        },
        order: match order {
            "name" => listing::NAME,
            "created_at" => "e.created_at",
            _ => listing::MOVED,
        },
        ascending: query.word("dir", &["asc", "desc"], "desc")? == "asc",
    })
}

/// What the caller may do with one: older texts call it its permissions.
pub(super) async fn permissions(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = call.target(&mut tx, &inside, Verb::Read).await?;
    let verbs = if inside.admin {
        target.kind.all_verbs()
    } else {
        authz::permitted(&target.roles, &target.place(inside.domain.id))
    };
    Ok(Reply::ok(
        json!({ "permissions": verbs.words(target.kind) }),
    ))
}
