//! Invitations of addresses: who is known to have one is not asked, so nobody learns it. The mail
//! has a token that is good once, for a week. Whoever shows it, or proves the address, has the
//! invitation from then on.

use authcache::EntityId;
use axum::http::StatusCode;
use serde_json::json;

use super::Reply;
use super::authorize::Inside;
use super::call::Call;
use super::failure::Failure;
use super::invitations::{ToRole, page_of};
use super::people::check_email;
use super::show;
use crate::links;
use crate::model::Time;
use crate::secret::Secret;
use crate::store::Write;
use crate::store::access::{self, Invitation};
use crate::store::mailed::{self, Mailed};
use crate::store::people::Person;
use crate::store::roles::{self, Role};

/// Label of the digest under which tokens of invitations are kept.
const LABEL: &[u8] = b"invitation token";
const WEEK_SECONDS: i64 = 7 * 24 * 3_600;
/// Invitations by mail that a domain may have open: each may be sent to somebody who never asked.
const OPEN_MAX: u64 = 1_000;

/// Invites whoever has an address.
pub(super) async fn send(
    call: &Call,
    mut write: Write,
    inside: &Inside,
    role: Role,
    email: &str,
) -> Result<Reply, Failure> {
    let mailer = call
        .control
        .mailer()
        .ok_or_else(super::tokens::no_mail)?
        .clone();
    let place = mailer.place().ok_or_else(Failure::unavailable)?;
    let email = check_email(email)?;
    let now = Time::now();
    let domain = inside.domain.id;
    let known = mailed::one(write.connection(), domain, &email).await?;
    let known = known.filter(|known| known.expires_at > now);
    if known.is_some() && call.body().flag("resend") != Some(true) {
        return Err(Failure::conflict("the address is invited already"));
    }
    let page = crate::model::Page::default();
    let (open, _) = mailed::of_domain(write.connection(), domain, now, page).await?;
    if known.is_none() && open >= OPEN_MAX {
        let message =
            format!("{OPEN_MAX} invitations by mail are open; expected some to be taken back");
        return Err(Failure::conflict(message));
    }
    call.control.0.rates.mail(inside.user)?;
    let token = Secret::random();
    let invitation = Mailed {
        domain,
        domain_name: inside.domain.name.clone(),
        email: email.clone(),
        invited_by: inside.user,
        role: role.id,
        role_name: role.name,
        created_at: known.as_ref().map_or(now, |known| known.created_at),
        updated_at: known.map(|_| now),
        expires_at: now.plus_seconds(WEEK_SECONDS),
    };
    let digest = digest(call, token.reveal());
    write
        .put_mailed(&invitation, digest.as_bytes(), now)
        .await?;
    note(call, &mut write, &invitation).await?;
    call.commit(write).await?;
    let text = format!(
        "You are invited to the domain {:?} with the role {:?}. Register with this address, or log \
         in, and use this link within a week:\n\n{}\n",
        invitation.domain_name,
        invitation.role_name,
        links::link(mailer.public_url(), links::INVITED, token.reveal())
    );
    if call.control.0.rates.invited(&email) {
        mailer.send_beside(place, email, "You are invited", text);
    }
    Ok(Reply::empty(StatusCode::CREATED))
}

fn digest(call: &Call, token: &str) -> crate::secret::Digest {
    let pepper = call.control.0.identifier.pepper();
    pepper.digest(LABEL, &[token.as_bytes()])
}

async fn note(call: &Call, write: &mut Write, invitation: &Mailed) -> Result<(), Failure> {
    let attributes = json!({ "invitee_email": invitation.email, "role_id": invitation.role });
    let domain = invitation.domain;
    call.record(write, Some(domain), &domain.to_string(), attributes)
        .await
}

/// Lists a domain's invitations by mail.
pub(super) async fn list(call: &Call, inside: &Inside) -> Result<Reply, Failure> {
    let page = call.query.page()?;
    let mut tx = call.read().await?;
    let domain = inside.domain.id;
    let found = mailed::of_domain(&mut tx, domain, Time::now(), page).await?;
    page_of(call, &mut tx, page, found, show::mailed).await
}

impl ToRole for Mailed {
    fn domain(&self) -> EntityId {
        self.domain
    }

    fn role(&self) -> &str {
        &self.role
    }
}

/// Takes an invitation by mail back.
pub(super) async fn delete(
    call: &Call,
    mut write: Write,
    inside: &Inside,
    email: &str,
) -> Result<Reply, Failure> {
    let email = email.to_lowercase();
    let found = mailed::one(write.connection(), inside.domain.id, &email).await?;
    let found = found.ok_or_else(|| Failure::not_found("invitation"))?;
    write.delete_mailed(inside.domain.id, &email).await?;
    note(call, &mut write, &found).await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Whether a token is that of an open invitation.
pub(super) async fn is_open(call: &Call, token: &str) -> Result<bool, Failure> {
    let digest = digest(call, token);
    let mut connection = call.control.0.store.read().await?;
    Ok(mailed::is_open(&mut connection, digest.as_bytes(), Time::now()).await?)
}

/// Gives the invitation with this token to a user, as one of its own; answers with its domain.
pub(super) async fn claim(
    call: &Call,
    write: &mut Write,
    token: &str,
    user: EntityId,
) -> Result<Mailed, Failure> {
    let now = Time::now();
    let digest = digest(call, token);
    let found = write.take_mailed(digest.as_bytes(), now).await?;
    let found = found
        .ok_or_else(|| Failure::bad("the invitation's token is not valid, was used, or is over"))?;
    give(write, &found, user, now).await?;
    Ok(found)
}

/// Gives a user the invitations that went to its address, which it has proven.
pub(super) async fn claim_proven(write: &mut Write, person: &Person) -> Result<(), Failure> {
    let now = Time::now();
    let Some(email) = &person.email else {
        return Ok(());
    };
    for found in write.take_mailed_to(email, now).await? {
        give(write, &found, person.id, now).await?;
    }
    Ok(())
}

/// An invitation that the user has already, or had, stays as it is; members need none.
async fn give(write: &mut Write, found: &Mailed, user: EntityId, now: Time) -> Result<(), Failure> {
    let own = access::invitation(write.connection(), found.domain, user).await?;
    let open = own
        .as_ref()
        .is_some_and(|own| own.rejected_at.is_none() && !own.is_over(now));
    if open || roles::is_member(write.connection(), found.domain, user).await? {
        return Ok(());
    }
    let invitation = Invitation {
        domain: found.domain,
        domain_name: found.domain_name.clone(),
        invitee: user,
        invited_by: found.invited_by,
        role: found.role.clone(),
        role_name: found.role_name.clone(),
        created_at: own.as_ref().map_or(now, |own| own.created_at),
        // In place of one that is over or was rejected, it is sent again: its week begins now.
        updated_at: own.map(|_| now),
        confirmed_at: None,
        rejected_at: None,
    };
    Ok(write.put_invitation(&invitation).await?)
}
