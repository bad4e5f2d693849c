//! The tree of groups: who is above and below, and moves.

use std::collections::{HashMap, HashSet};

use authcache::{Change, EntityId};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::authorize::{Inside, check_takes};
use super::call::Call;
use super::entities::{filter, listed, too_deep};
use super::failure::Failure;
use super::{Reply, parents, query, show};
use crate::authz;
use crate::grant::{Kind, Place, Verb};
use crate::model::Time;
use crate::store::entities::{self, Entity};
use crate::store::groups::{self, DEPTH_MAX};
use crate::store::{Write, roles};

/// Groups that one answer shows, at most: what is further down is left out.
const HIERARCHY_MAX: usize = 10_000;

/// Shows what is above or below a group.
pub(super) async fn hierarchy(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let (inside, group) = call.entity(&mut tx, Verb::Read).await?;
    let level = call.query.integer("level")?.unwrap_or(DEPTH_MAX as i64);
    let level = usize::try_from(level)
        .ok()
        .filter(|level| *level <= DEPTH_MAX);
    let level = level.ok_or_else(|| query::wrong("level", "it", "a whole number from 0 to 20"))?;
    let direction = match call.query.integer("dir")? {
        Some(direction) => direction,
        None => call.query.integer("direction")?.unwrap_or(-1),
    };
    let tree = call.query.flag("tree")?;
    let mut found = vec![group.clone()];
    if direction >= 0 {
        for id in entities::groups_of(&mut tx, &group)
            .await?
            .into_iter()
            .take(level)
        {
            let domain = inside.domain.id;
            found.extend(entities::entity(&mut tx, Kind::Group, domain, id).await?);
        }
        found.reverse();
    } else {
        let deepest = group.level() + level;
        let below = groups::below(&mut tx, &group.path).await?;
        found.extend(below.into_iter().filter(|group| group.level() <= deepest));
    }
    found.truncate(HIERARCHY_MAX);
    // Only what the caller may read; its roles are looked up once.
    let mut reaching = vec![inside.domain.id];
    for group in &found {
        reaching.extend(entities::path_ids(&group.path));
    }
    reaching.sort_unstable();
    reaching.dedup();
    let mut held = Vec::new();
    for part in reaching.chunks(1_000) {
        held.extend(roles::held(&mut tx, inside.user, part).await?);
    }
    found.retain(|group| {
        let path = entities::path_ids(&group.path);
        let place = Place {
            kind: Kind::Group,
            id: group.id,
            domain: group.domain,
            groups: path.get(1..).unwrap_or_default(),
        };
        inside.admin || authz::permitted(&held, &place).contains(Verb::Read)
    });
    let shown = if tree {
        nest(&found)
    } else {
        found
            .iter()
            .map(|group| show::entity(group, None))
            .collect()
    };
    let body = json!({ "level": level, "direction": direction, "groups": shown });
    Ok(Reply::ok(body))
}

/// Groups in their parents, as far as those are shown.
fn nest(groups: &[Entity]) -> Vec<Value> {
    let shown: HashSet<EntityId> = groups.iter().map(|group| group.id).collect();
    let mut children: HashMap<EntityId, Vec<Value>> = HashMap::new();
    let mut roots = Vec::new();
    let mut deepest_first: Vec<&Entity> = groups.iter().collect();
    deepest_first.sort_by_key(|group| std::cmp::Reverse(group.level()));
    for group in deepest_first {
        let mut item = show::entity(group, None);
        item["children"] = children.remove(&group.id).unwrap_or_default().into();
        match group.parent.filter(|parent| shown.contains(parent)) {
            Some(parent) => children.entry(parent).or_default().push(item),
            None => roots.push(item),
        }
    }
    roots
}

/// Lists groups below a group.
pub(super) async fn children(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let (inside, group) = call.entity(&mut tx, Verb::Read).await?;
    let mut filter = filter(&call, &mut tx, &inside, Kind::Group).await?;
    filter.levels = parents::levels(&call, group.level())?;
    filter.below = Some(group.path);
    listed(&call, &mut tx, &inside, Kind::Group, filter).await
}

/// Puts a group below another.
pub(super) async fn set_parent(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, group) = call.entity(write.connection(), Verb::SetParent).await?;
    let body = call.body();
    let wanted = body
        .any_text(&["parent_id", "group_id"])
        .unwrap_or_default();
    let c = write.connection();
    let parent = inside
        .entity(c, Kind::Group, wanted, Verb::SetChild)
        .await?;
    attach(&mut write, &inside, &group, &parent).await?;
    let attributes = json!({ "parent_id": parent.id.to_string() });
    done(&call, write, &inside, &group, attributes).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// Makes a group a root.
pub(super) async fn remove_parent(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, group) = call.entity(write.connection(), Verb::SetParent).await?;
    let mut attributes = json!({});
    if let Some(parent) = group.parent {
        let c = write.connection();
        let parent = parent.to_string();
        inside
            .entity(c, Kind::Group, &parent, Verb::SetParent)
            .await?;
        write
            .move_group(&group, None, inside.user, Time::now())
            .await?;
        attributes = json!({ "parent_id": parent });
    }
    done(&call, write, &inside, &group, attributes).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Puts groups below a group.
pub(super) async fn add_children(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, parent) = call.entity(write.connection(), Verb::SetChild).await?;
    let wanted = wanted_children(&call)?;
    for id in &wanted {
        let c = write.connection();
        let child = inside.entity(c, Kind::Group, id, Verb::SetParent).await?;
        attach(&mut write, &inside, &child, &parent).await?;
    }
    let attributes = json!({ "children_ids": wanted });
    done(&call, write, &inside, &parent, attributes).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// Makes children of a group roots.
pub(super) async fn remove_children(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, parent) = call.entity(write.connection(), Verb::SetChild).await?;
    let wanted = wanted_children(&call)?;
    for id in &wanted {
        let c = write.connection();
        let child = inside.entity(c, Kind::Group, id, Verb::SetParent).await?;
        if child.parent != Some(parent.id) {
            return Err(Failure::bad("a group named is no child of this group"));
        }
        write
            .move_group(&child, None, inside.user, Time::now())
            .await?;
    }
    let attributes = json!({ "children_ids": wanted });
    done(&call, write, &inside, &parent, attributes).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Makes all children of a group roots.
pub(super) async fn remove_all_children(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, parent) = call.entity(write.connection(), Verb::SetChild).await?;
    for child in groups::children(write.connection(), parent.id).await? {
        write
            .move_group(&child, None, inside.user, Time::now())
            .await?;
    }
    done(&call, write, &inside, &parent, json!({})).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

fn wanted_children(call: &Call) -> Result<Vec<String>, Failure> {
    let body = call.body();
    let names = ["children_ids", "groups", "group_ids"];
    let wanted = names.iter().find_map(|name| body.texts(name));
    wanted.filter(|ids| !ids.is_empty()).ok_or_else(|| {
        Failure::bad("children_ids is missing").with_detail("expected a list of ids of groups")
    })
}

async fn attach(
    write: &mut Write,
    inside: &Inside,
    child: &Entity,
    parent: &Entity,
) -> Result<(), Failure> {
    check_takes(parent)?;
    if child.id == parent.id {
        return Err(Failure::bad("a group cannot be its own parent"));
    }
    if child.parent.is_some() {
        let message = "the group has a parent; expected it to be removed first";
        return Err(Failure::conflict(message));
    }
    if entities::path_ids(&parent.path).contains(&child.id) {
        return Err(Failure::bad(
            "the parent is below the group: that would be a circle",
        ));
    }
    let height = groups::height(write.connection(), &child.path).await?;
    if parent.level() + 1 + height > DEPTH_MAX {
        return Err(too_deep());
    }
    write
        .move_group(child, Some(parent), inside.user, Time::now())
        .await?;
    Ok(())
}

async fn done(
    call: &Call,
    mut write: Write,
    inside: &Inside,
    group: &Entity,
    attributes: Value,
) -> Result<(), Failure> {
    let domain = inside.domain.id;
    write.change(Change::UserRightsStale { domain });
    let id = group.id.to_string();
    call.record(&mut write, Some(domain), &id, attributes)
        .await?;
    call.commit(write).await
}
