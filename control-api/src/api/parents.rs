//! Which group a client or channel is in.

use authcache::Change;
use axum::http::StatusCode;
use serde_json::json;

use super::authorize::check_takes;
use super::call::Call;
use super::failure::Failure;
use super::{Reply, query};
use crate::grant::{Kind, Verb};
use crate::model::Time;

/// Puts one into a group.
pub(super) async fn set(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, mut entity) = call.entity(write.connection(), Verb::SetParent).await?;
    let body = call.body();
    let wanted = body
        .any_text(&["parent_group_id", "group_id", "parent_id"])
        .map(str::to_owned)
        .or_else(|| body.texts("group_ids").filter(|ids| ids.len() == 1)?.pop());
    let wanted = wanted.ok_or_else(|| {
        Failure::bad("parent_group_id is missing").with_detail("expected the id of one group")
    })?;
    let c = write.connection();
    let group = inside
        .entity(c, Kind::Group, &wanted, Verb::SetChild)
        .await?;
    check_takes(&group)?;
    if entity.parent.is_some_and(|parent| parent != group.id) {
        let kind = entity.kind.word();
        let message = format!("the {kind} has a parent group; expected it to be removed first");
        return Err(Failure::conflict(message));
    }
    entity.parent = Some(group.id);
    write.regroup(entity.domain);
    entity.updated_at = Some(Time::now());
    entity.updated_by = Some(inside.user);
    write.update_entity(&entity).await?;
    let domain = inside.domain.id;
    if entity.kind == Kind::Channel {
        write.change(Change::UserRightsStale { domain });
    }
    let attributes = json!({ "parent_group_id": group.id.to_string() });
    let id = entity.id.to_string();
    call.record(&mut write, Some(domain), &id, attributes)
        .await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// Takes one out of its group; one that is in none stays so.
pub(super) async fn remove(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let (inside, mut entity) = call.entity(write.connection(), Verb::SetParent).await?;
    if let Some(group) = entity.parent {
        let c = write.connection();
        let group = group.to_string();
        inside
            .entity(c, Kind::Group, &group, Verb::SetChild)
            .await?;
        entity.parent = None;
        write.regroup(entity.domain);
        entity.updated_at = Some(Time::now());
        entity.updated_by = Some(inside.user);
        write.update_entity(&entity).await?;
        let domain = inside.domain.id;
        if entity.kind == Kind::Channel {
            write.change(Change::UserRightsStale { domain });
        }
        let attributes = json!({ "parent_group_id": group });
        let id = entity.id.to_string();
        call.record(&mut write, Some(domain), &id, attributes)
            .await?;
    }
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Levels of groups that a list of children is about, relative to the group.
pub(super) fn levels(call: &Call, own: usize) -> Result<Option<(usize, usize)>, Failure> {
    let start = call.query.integer("start_level")?.unwrap_or(1);
    let end = call.query.integer("end_level")?.unwrap_or(0);
    let level = |relative: i64| usize::try_from(relative).map(|relative| own + relative);
    let range = match (start, end) {
        (0, ..0) => return Ok(None),
        (1.., 0) => level(start).map(|level| (level, level)),
        (1.., ..0) => level(start).map(|level| (level, usize::MAX / 64)),
        (1.., _) if start <= end => level(start).and_then(|from| Ok((from, level(end)?))),
        _ => {
            let expected = "start_level from 1 with end_level 0, -1 or not below it";
            return Err(query::wrong("start_level", &start.to_string(), expected));
        }
    };
    let wrong = |_| query::wrong("start_level", &start.to_string(), "a level");
    range.map(Some).map_err(wrong)
}
