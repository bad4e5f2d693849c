//! Domains: made, listed, changed, switched and removed.

use authcache::{Change, EntityId, Status};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::authorize::Inside;
use super::call::Call;
use super::entities::check_tags;
use super::failure::Failure;
use super::fields::Fields;
use super::{Reply, show};
use crate::grant::Verb;
use crate::model::{Domain, Time, status_word};
use crate::name::{Name, Route, parse_id};
use crate::secret::random_id;
use crate::snapshot::domain_set;
use crate::store::domains::{self, DomainFilter};
use crate::store::{Write, roles};

/// Makes a domain, whose administrator the caller is.
pub(super) async fn create(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?.id;
    let body = call.body();
    let given = body.text("id").filter(|id| !id.is_empty());
    let id = given.map_or_else(|| Ok(random_id()), |id| parse_id("id", id))?;
    let route = body.any_text(&["route", "alias"]).unwrap_or_default();
    let route = Route::parse_domain(route, id)?;
    let name = Name::parse_domain(body.text("name").unwrap_or_default())?;
    let mut domain = Domain::new(id, route.as_str(), name.as_str(), Time::now());
    domain.created_by = Some(caller);
    apply(&mut domain, &body)?;
    let mut write = call.write().await?;
    let inserted = write.insert_domain(&domain).await;
    inserted.map_err(|error| {
        if error.is_unique_violation() {
            return Failure::conflict("the id or route is taken; expected another one");
        }
        error.into()
    })?;
    write.change(domain_set(&domain));
    let text = id.to_string();
    let attributes = json!({ "name": domain.name, "route": domain.route });
    call.record(&mut write, Some(id), &text, attributes).await?;
    let role = roles::of_member(write.connection(), id, caller).await?;
    call.commit(write).await?;
    let mut shown = show::domain(&domain);
    if let Some(role) = role {
        show::domain_role(&mut shown, &role);
    }
    Ok(Reply::created(format!("/domains/{id}"), shown))
}

fn apply(domain: &mut Domain, fields: &Fields) -> Result<(), Failure> {
    if let Some(name) = fields.text("name") {
        let name = Name::parse_domain(name)?;
        name.as_str().clone_into(&mut domain.name);
    }
    if fields.has("tags") {
        domain.tags = check_tags(fields.texts("tags").unwrap_or_default())?;
    }
    if let Some(block) = fields.flag("disabled_group_blocks_messaging") {
        domain.groups_block = block;
    }
    if fields.has("metadata") {
        domain.metadata = fields
            .value("metadata")
            .cloned()
            .unwrap_or_else(|| json!({}));
    }
    Ok(())
}

/// Lists the domains that the caller is in; all of them to an administrator.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?;
    let query = &call.query;
    // An older path and the administrator's filter name somebody else.
    let wanted = match call.param("id") {
        "" => query.id("user")?,
        text => Some(parse_id("id", text)?),
    };
    let member = match wanted {
        Some(user) if caller.admin || user == caller.id => Some(user),
        Some(_) => return Err(Failure::forbidden()),
        None if caller.admin => None,
        None => Some(caller.id),
    };
    let status = query.word(
        "status",
        &["enabled", "disabled", "freezed", "deleted", "all"],
        "enabled",
    )?;
    let order = query.word("order", &["name", "created_at", "updated_at"], "updated_at")?;
    let filter = DomainFilter {
        member,
        id: query.id("id")?,
        name: query.text("name").map(str::to_owned),
        route: query
            .text("route")
            .or(query.text("alias"))
            .map(str::to_owned),
        tags: query.tags()?,
        metadata: query.metadata()?,
        // What was deleted is for administrators of the platform only, until it is removed for good.
        deleted: match status {
            "deleted" => Some(true),
            "all" if caller.admin => None,
            _ => Some(false),
        },
        status: match status {
            "enabled" => Some(Status::Enabled),
            "disabled" => Some(Status::Disabled),
            "freezed" => Some(Status::Frozen),
            _ => None,
        },
        role_id: query.text("role_id").map(str::to_owned),
        role_name: query.text("role_name").map(str::to_owned),
        created_from: query.time("created_from")?,
        created_to: query.time("created_to")?,
        order: match order {
            "name" => "e.name",
            "created_at" => "e.created_at",
            _ => "COALESCE(e.updated_at, e.created_at)",
        },
        ascending: query.word("dir", &["asc", "desc"], "desc")? == "asc",
    };
    let (page, only_total) = (query.page()?, query.flag("only_total")?);
    let mut tx = call.read().await?;
    let (total, found) = domains::list(&mut tx, &filter, page, only_total).await?;
    if only_total {
        return Ok(Reply::ok(json!({ "total": total })));
    }
    let ids: Vec<_> = found.iter().map(|domain| domain.id).collect();
    let held = roles::held(&mut tx, member.unwrap_or(caller.id), &ids).await?;
    let items = found.iter().map(|domain| {
        let mut shown = show::domain(domain);
        if let Some(role) = held.iter().find(|role| role.entity == domain.id) {
            show::domain_role(&mut shown, role);
        }
        shown
    });
    Ok(Reply::ok(show::page(
        "domains",
        total,
        page,
        items.collect(),
    )))
}

/// Shows a domain.
pub(super) async fn view(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let target = inside.itself(Verb::Read)?;
    let mut shown = show::domain(&inside.domain);
    if let Some(role) = target.roles.first() {
        show::domain_role(&mut shown, role);
    }
    if call.query.flag("roles")? {
        shown["roles"] = show::access_roles(&target, inside.domain.id).into();
    }
    Ok(Reply::ok(shown))
}

async fn begin(call: &Call, verb: Verb) -> Result<(Write, Inside), Failure> {
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    inside.itself(verb)?;
    Ok((write, inside))
}

async fn finish(
    call: &Call,
    mut write: Write,
    domain: &mut Domain,
    by: EntityId,
) -> Result<Value, Failure> {
    domain.updated_at = Some(Time::now());
    domain.updated_by = Some(by);
    write.update_domain(domain).await?;
    let attributes = json!({ "name": domain.name, "status": show::domain_status(domain) });
    let id = domain.id.to_string();
    call.record(&mut write, Some(domain.id), &id, attributes)
        .await?;
    call.commit(write).await?;
    Ok(show::domain(domain))
}

/// Changes name, tags and metadata.
pub(super) async fn update(call: Call) -> Result<Reply, Failure> {
    let (mut write, mut inside) = begin(&call, Verb::Update).await?;
    let blocked = inside.domain.groups_block;
    apply(&mut inside.domain, &call.body())?;
    if inside.domain.groups_block != blocked {
        write.regroup(inside.domain.id);
    }
    let by = inside.user;
    Ok(Reply::ok(
        finish(&call, write, &mut inside.domain, by).await?,
    ))
}

/// Lets messages pass again. Administrators of the platform bring back what was deleted.
pub(super) async fn enable(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?;
    if caller.admin {
        let mut write = call.write().await?;
        let name = call.param("domain");
        let found = domains::kept_domain(write.connection(), name).await?;
        if let Some(mut domain) = found.filter(|domain| domain.deleted_at.is_some()) {
            domain.deleted_at = None;
            domain.status = Status::Enabled;
            write.change(domain_set(&domain));
            finish(&call, write, &mut domain, caller.id).await?;
            return Ok(Reply::empty(StatusCode::OK));
        }
    }
    switch(call, Verb::Enable, Status::Enabled).await
}

/// Stops all messages, and everybody but the domain's administrators.
pub(super) async fn disable(call: Call) -> Result<Reply, Failure> {
    switch(call, Verb::Disable, Status::Disabled).await
}

/// Stops all messages, and everybody but the platform's administrators.
pub(super) async fn freeze(call: Call) -> Result<Reply, Failure> {
    call.administrator()?;
    switch(call, Verb::Disable, Status::Frozen).await
}

async fn switch(call: Call, verb: Verb, status: Status) -> Result<Reply, Failure> {
    let (mut write, mut inside) = begin(&call, verb).await?;
    if inside.domain.status == status {
        let message = format!("domain is already {}", status_word(status));
        return Err(Failure::conflict(message));
    }
    inside.domain.status = status;
    write.change(domain_set(&inside.domain));
    let by = inside.user;
    finish(&call, write, &mut inside.domain, by).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// Removes a domain and everything inside: at once for everybody, for good when it was kept long
/// enough.
pub(super) async fn delete(call: Call) -> Result<Reply, Failure> {
    let (mut write, mut inside) = begin(&call, Verb::Delete).await?;
    let id = inside.domain.id;
    let purge = call.query.flag("purge")?;
    if purge && !inside.admin {
        return Err(Failure::forbidden());
    }
    if purge || call.control.settings().deleted_domains_kept.is_zero() {
        write.delete_domain(id).await?;
        write.change(Change::DomainRemoved { id });
    } else {
        let now = Time::now();
        inside.domain.status = Status::Disabled;
        inside.domain.deleted_at = Some(now);
        inside.domain.updated_at = Some(now);
        inside.domain.updated_by = Some(inside.user);
        write.update_domain(&inside.domain).await?;
        write.change(domain_set(&inside.domain));
    }
    let attributes = json!({ "name": inside.domain.name, "route": inside.domain.route });
    call.record(&mut write, Some(id), &id.to_string(), attributes)
        .await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// What the caller may do with a domain: older texts call it its permissions.
pub(super) async fn permissions(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let held = roles::of_member(&mut tx, inside.domain.id, inside.user).await?;
    let actions = match held {
        Some(role) => role.actions,
        None => crate::grant::Actions::all(crate::grant::Kind::Domain),
    };
    let names = actions.names(crate::grant::Kind::Domain);
    Ok(Reply::ok(json!({ "permissions": names })))
}
