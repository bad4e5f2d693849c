//! Invitations to domains.

use authcache::{Change, EntityId};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::authorize::Inside;
use super::call::Call;
use super::failure::Failure;
use super::people::existing;
use super::{Reply, mailed, show};
use crate::grant::{Kind, Verb};
use crate::model::{Page, Time};
use crate::name::parse_id;
use crate::store::access::{self, Invitation, InvitationFilter};
use crate::store::sql::Connection;
use crate::store::{Write, domains, people, roles};

/// Invites a user to a role of a domain.
pub(super) async fn send(call: Call) -> Result<Reply, Failure> {
    let body = call.body();
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let target = inside.itself(Verb::ManageRole)?;
    if !inside.is_administrator() {
        return Err(Failure::forbidden());
    }
    let domain = inside.domain.id;
    // An invitation by relation is one to the role of that name.
    let role = body.any_text(&["role_id", "relation"]).unwrap_or_default();
    let role = match body.text("role_id") {
        None if call.old => {
            super::aliases::relation_role(&mut write, &inside, &target, role).await?
        }
        _ => roles::role(write.connection(), domain, role)
            .await?
            .ok_or_else(|| Failure::not_found("role"))?,
    };
    if let Some(email) = body.text("invitee_email") {
        return mailed::send(&call, write, &inside, role, email).await;
    }
    let named = body
        .any_text(&["invitee_user_id", "user_id"])
        .unwrap_or_default();
    let invitee = existing(&mut write, "invitee_user_id", named).await?;
    if roles::is_member(write.connection(), domain, invitee.id).await? {
        return Err(Failure::conflict(
            "the user is a member of the domain already",
        ));
    }
    let known = access::invitation(write.connection(), domain, invitee.id).await?;
    let now = Time::now();
    let mut invitation = Invitation {
        domain,
        domain_name: inside.domain.name.clone(),
        invitee: invitee.id,
        invited_by: inside.user,
        role: role.id,
        role_name: role.name,
        created_at: now,
        updated_at: None,
        confirmed_at: None,
        rejected_at: None,
    };
    if let Some(known) = known {
        let again = body.flag("resend") == Some(true) || known.is_over(now);
        if known.confirmed_at.is_some() || !again {
            return Err(Failure::conflict("the user is invited already"));
        }
        invitation.created_at = known.created_at;
        invitation.updated_at = Some(now);
    }
    let mailing = match call.control.mailer() {
        Some(mailer) => {
            let place = mailer.place().ok_or_else(Failure::unavailable)?;
            call.control.0.rates.mail(inside.user)?;
            Some((mailer, place))
        }
        None => None,
    };
    write.put_invitation(&invitation).await?;
    note(&call, &mut write, &invitation).await?;
    call.commit(write).await?;
    if let (Some((mailer, place)), Some(email)) = (mailing, invitee.email)
        && call.control.0.rates.invited(&email)
    {
        let text = format!(
            "You are invited to the domain {:?}. Log in to accept or reject.\n",
            inside.domain.name
        );
        mailer.send_beside(place, email, "You are invited", text);
    }
    Ok(Reply::empty(StatusCode::CREATED))
}

async fn note(call: &Call, write: &mut Write, invitation: &Invitation) -> Result<(), Failure> {
    let attributes = json!({
        "invitee_user_id": invitation.invitee.to_string(),
        "role_id": invitation.role,
    });
    let domain = invitation.domain;
    call.record(write, Some(domain), &domain.to_string(), attributes)
        .await
}

fn state(call: &Call) -> Result<Option<&'static str>, Failure> {
    let words = ["all", "pending", "accepted", "rejected"];
    let word = call.query.word("state", &words, "all")?;
    Ok((word != "all").then_some(word))
}

async fn listed(call: &Call, filter: InvitationFilter) -> Result<Reply, Failure> {
    let page = call.query.page()?;
    let mut tx = call.read().await?;
    let found = access::invitations(&mut tx, &filter, page).await?;
    page_of(call, &mut tx, page, found, show::invitation).await
}

/// An invitation of either kind: to a role of a domain.
pub(super) trait ToRole {
    fn domain(&self) -> EntityId;
    fn role(&self) -> &str;
}

impl ToRole for Invitation {
    fn domain(&self) -> EntityId {
        self.domain
    }

    fn role(&self) -> &str {
        &self.role
    }
}

/// What the role of an invitation lets its members do.
async fn actions_of(
    c: &mut Connection,
    invitation: &impl ToRole,
) -> Result<Vec<&'static str>, Failure> {
    let role = roles::role(c, invitation.domain(), invitation.role()).await?;
    Ok(role.map_or_else(Vec::new, |role| role.actions.names(Kind::Domain)))
}

/// A page of invitations of either kind.
pub(super) async fn page_of<T: ToRole>(
    call: &Call,
    c: &mut Connection,
    page: Page,
    (total, found): (u64, Vec<T>),
    show: fn(&T, &[&'static str]) -> Value,
) -> Result<Reply, Failure> {
    if call.query.flag("only_total")? {
        return Ok(Reply::ok(json!({ "total": total })));
    }
    let mut items = Vec::with_capacity(found.len());
    for invitation in &found {
        items.push(show(invitation, &actions_of(c, invitation).await?));
    }
    Ok(Reply::ok(show::page("invitations", total, page, items)))
}

/// Lists the invitations of a domain.
pub(super) async fn list_of_domain(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    inside.itself(Verb::ManageRole)?;
    drop(tx);
    let query = &call.query;
    if query.flag("mailed")? {
        return mailed::list(&call, &inside).await;
    }
    let invitee = match query.id("invitee_user_id")? {
        Some(invitee) => Some(invitee),
        None => query.id("user_id")?,
    };
    let filter = InvitationFilter {
        domain: Some(inside.domain.id),
        invitee,
        invited_by: query.id("invited_by")?,
        role: query.text("role_id").map(str::to_owned),
        state: state(&call)?,
    };
    listed(&call, filter).await
}

/// Lists the caller's invitations.
pub(super) async fn list_own(call: Call) -> Result<Reply, Failure> {
    let filter = InvitationFilter {
        domain: call.query.id("domain_id")?,
        invitee: Some(call.caller()?.id),
        invited_by: call.query.id("invited_by")?,
        role: call.query.text("role_id").map(str::to_owned),
        state: state(&call)?,
    };
    listed(&call, filter).await
}

/// Shows an invitation, to the invitee and to those who manage the domain's.
pub(super) async fn view(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let invitee = parse_id("user", call.param("user"))?;
    let domain = reachable(&call, &mut tx, invitee).await?;
    let found = access::invitation(&mut tx, domain, invitee).await?;
    let found = found.ok_or_else(|| Failure::not_found("invitation"))?;
    let actions = actions_of(&mut tx, &found).await?;
    Ok(Reply::ok(show::invitation(&found, &actions)))
}

/// The domain that the path names, if the caller is the invitee or manages the domain's roles.
async fn reachable(
    call: &Call,
    c: &mut Connection,
    invitee: EntityId,
) -> Result<EntityId, Failure> {
    if call.caller()?.id == invitee {
        // It need not be a member to see or decline its own.
        let domain = domains::domain(c, call.param("domain")).await?;
        let domain = domain.ok_or_else(|| Failure::not_found("invitation"))?;
        return Ok(domain.id);
    }
    let inside: Inside = call.enter(c).await?;
    inside.itself(Verb::ManageRole)?;
    Ok(inside.domain.id)
}

/// Takes an invitation back. The invitee may always remove its own.
pub(super) async fn delete(call: Call) -> Result<Reply, Failure> {
    let body = call.body();
    if let ("", Some(email)) = (call.param("user"), body.text("invitee_email")) {
        let mut write = call.write().await?;
        let inside = call.enter(write.connection()).await?;
        inside.itself(Verb::ManageRole)?;
        return mailed::delete(&call, write, &inside, email).await;
    }
    let named = match call.param("user") {
        "" => body
            .any_text(&["user_id", "invitee_user_id"])
            .unwrap_or_default(),
        user => user,
    };
    let invitee = parse_id("user_id", named)?;
    let mut write = call.write().await?;
    let domain = reachable(&call, write.connection(), invitee).await?;
    let found = access::invitation(write.connection(), domain, invitee).await?;
    let found = found.ok_or_else(|| Failure::not_found("invitation"))?;
    if found.confirmed_at.is_some() && call.caller()?.id != invitee {
        return Err(Failure::conflict("the invitation is accepted already"));
    }
    write.delete_invitation(domain, invitee).await?;
    note(&call, &mut write, &found).await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Makes the invitee a member of the role.
pub(super) async fn accept(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?.id;
    let now = Time::now();
    let (mut write, mut invitation) = pending(&call, caller).await?;
    invitation.confirmed_at = Some(now);
    invitation.updated_at = Some(now);
    write.put_invitation(&invitation).await?;
    let domain = invitation.domain;
    let role = roles::role(write.connection(), domain, &invitation.role).await?;
    let role = role.ok_or_else(|| Failure::not_found("role"))?;
    let added = roles::add_member(write.connection(), &role, caller, now).await;
    added.map_err(|error| {
        if error.is_unique_violation() {
            return Failure::conflict("you are a member of the domain already");
        }
        error.into()
    })?;
    write.change(Change::UserRightsStale { domain });
    finish(&call, write, &invitation).await
}

/// Declines.
pub(super) async fn reject(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?.id;
    let now = Time::now();
    let (mut write, mut invitation) = pending(&call, caller).await?;
    invitation.rejected_at = Some(now);
    invitation.updated_at = Some(now);
    write.put_invitation(&invitation).await?;
    finish(&call, write, &invitation).await
}

async fn pending(call: &Call, caller: EntityId) -> Result<(Write, Invitation), Failure> {
    let body = call.body();
    let mut write = call.write().await?;
    let domain = match body.text("token") {
        Some(token) => mailed::claim(call, &mut write, token, caller).await?.domain,
        None => parse_id("domain_id", body.text("domain_id").unwrap_or_default())?,
    };
    let found = access::invitation(write.connection(), domain, caller).await?;
    let found = found.ok_or_else(|| Failure::not_found("invitation"))?;
    if found.confirmed_at.is_some() {
        return Err(Failure::conflict("the invitation is accepted already"));
    }
    if found.rejected_at.is_some() {
        return Err(Failure::conflict("the invitation is rejected already"));
    }
    if found.is_over(Time::now()) {
        let message = "the invitation is over; expected an answer within a week";
        return Err(Failure::conflict(message));
    }
    let named = domain.to_string();
    if domains::domain(write.connection(), &named).await?.is_none() {
        return Err(Failure::not_found("invitation"));
    }
    Ok((write, found))
}

async fn finish(call: &Call, mut write: Write, invitation: &Invitation) -> Result<Reply, Failure> {
    note(call, &mut write, invitation).await?;
    let inviter = people::person(write.connection(), invitation.invited_by).await?;
    call.commit(write).await?;
    let email = inviter.and_then(|inviter| inviter.email);
    if let (Some(mailer), Some(email)) = (call.control.mailer(), email)
        && call.control.0.rates.mail(invitation.invitee).is_ok()
        && let Some(place) = mailer.place()
    {
        let what = if invitation.confirmed_at.is_some() {
            "accepted"
        } else {
            "rejected"
        };
        let text = format!(
            "Your invitation to {:?} was {what}.\n",
            invitation.domain_name
        );
        mailer.send_beside(place, email, "Your invitation", text);
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
