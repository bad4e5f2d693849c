//! Logins: issued, refreshed, listed and ended; and what arrives by mail to prove an address.

use std::net::IpAddr;

use authcache::EntityId;
use axum::http::StatusCode;
use serde_json::json;

use super::call::Call;
use super::failure::Failure;
use super::people::{check_password, set_password, tell};
use super::{Reply, mail};
use crate::identify::LoginError;
use crate::links;
use crate::model::Time;
use crate::name::parse_id;
use crate::rates::LINK_SECONDS;
use crate::secret::{Secret, random_id};
use crate::store::access::{self, Session};
use crate::store::journal::{Event, Outcome};
use crate::store::people::{self, Person};
use crate::store::users::{self, UserAuth};
use crate::store::{Write, roles};
use crate::token::{Issued, Login, Tokens};

/// A login that did not succeed, as it is answered.
pub(super) fn login_failure(error: LoginError) -> Failure {
    let status = match error {
        LoginError::BadCredentials => StatusCode::UNAUTHORIZED,
        LoginError::Throttled => StatusCode::TOO_MANY_REQUESTS,
        LoginError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure::new(status, error.to_string())
}

/// Logs a user in.
pub(super) async fn issue(call: Call) -> Result<Reply, Failure> {
    let body = call.body();
    let missing = |name: &str| Failure::bad(format!("{name} is missing"));
    let login = body
        .any_text(&["username", "identity", "email"])
        .ok_or_else(|| missing("username"))?;
    let password = body
        .any_text(&["password", "secret"])
        .ok_or_else(|| missing("password"))?;
    let identifier = &call.control.0.identifier;
    let user = match identifier
        .login(login, password.as_bytes(), Some(call.peer))
        .await
    {
        Ok(user) => user,
        Err(error) => {
            if error == LoginError::BadCredentials {
                note_failure(&call).await?;
            }
            return Err(login_failure(error));
        }
    };
    let now = Time::now();
    let mut write = call.write().await?;
    let domain = own_domain(&mut write, &user, body.text("domain_id")).await?;
    let description = body.text("description").unwrap_or_default().to_owned();
    let session = open_session(&mut write, &user, description, now).await?;
    let attributes = json!({ "session": session.id.to_string() });
    note(&call, &mut write, Some(&user), Outcome::Done, attributes).await?;
    call.commit(write).await?;
    issued(&call, &user, &session, domain, now)
}

/// Notes what became of a login, whose user no token says.
pub(super) async fn note(
    call: &Call,
    write: &mut Write,
    user: Option<&UserAuth>,
    outcome: Outcome,
    attributes: serde_json::Value,
) -> Result<(), Failure> {
    let event = Event {
        operation: call.route.operation.clone(),
        outcome,
        domain: None,
        kind: "user",
        entity: user.map(|user| user.id.to_string()).unwrap_or_default(),
        user: user.map(|user| user.id),
        peer: call.peer.to_string(),
        attributes,
    };
    Ok(write.record(&event, Time::now()).await?)
}

/// Begins a login; the oldest one of a user who has too many ends.
pub(super) async fn open_session(
    write: &mut Write,
    user: &UserAuth,
    description: String,
    now: Time,
) -> Result<Session, Failure> {
    let session = Session {
        id: random_id(),
        user: user.id,
        description,
        turn: 1,
        expires_at: Tokens::refresh_until(now),
    };
    write.insert_session(&session, now).await?;
    if let Some(oldest) = access::surplus_session(write.connection(), user.id).await? {
        end(write, user, oldest).await?;
    }
    Ok(session)
}

async fn note_failure(call: &Call) -> Result<(), Failure> {
    let mut write = call.write().await?;
    // Without what was typed: people type passwords where names belong.
    note(call, &mut write, None, Outcome::Denied, json!({})).await?;
    write.commit().await?;
    Ok(())
}

/// The domain that tokens are asked for, if the user is a member.
async fn own_domain(
    write: &mut Write,
    user: &UserAuth,
    wanted: Option<&str>,
) -> Result<Option<EntityId>, Failure> {
    let Some(text) = wanted.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let domain = parse_id("domain_id", text)?;
    let member = roles::is_member(write.connection(), domain, user.id).await?;
    if member || user.administrator {
        return Ok(Some(domain));
    }
    Err(Failure::forbidden())
}

fn issued(
    call: &Call,
    user: &UserAuth,
    session: &Session,
    domain: Option<EntityId>,
    now: Time,
) -> Result<Reply, Failure> {
    let issued = pair(call, user, session, domain, now)?;
    let body = json!({
        "access_token": issued.access,
        "refresh_token": issued.refresh,
        "access_type": "Bearer",
    });
    Ok(Reply::json(StatusCode::CREATED, body))
}

/// An access and a refresh token of a login.
pub(super) fn pair(
    call: &Call,
    user: &UserAuth,
    session: &Session,
    domain: Option<EntityId>,
    now: Time,
) -> Result<Issued, Failure> {
    let login = Login {
        user: user.id,
        administrator: user.administrator,
        verified: user.verified,
        credential: user.credential,
        session: session.id,
        turn: session.turn,
        domain,
    };
    let issued = call.control.0.identifier.tokens().issue(&login, now);
    issued.map_err(|_| Failure::unavailable())
}

/// Gives new tokens for a refresh token, which is good once. One that is used again was stolen from
/// somebody: its login ends.
pub(super) async fn refresh(call: Call) -> Result<Reply, Failure> {
    let refused = || Failure::unauthorized("the refresh token is not valid");
    let token = call.bearer.as_deref().ok_or_else(refused)?;
    let verified = call.control.0.identifier.tokens().verify_refresh(token);
    let verified = verified.map_err(|_| refused())?;
    let now = Time::now();
    let mut write = call.write().await?;
    // The key may have been revoked while others wrote.
    let tokens = call.control.0.identifier.tokens();
    tokens.verify_refresh(token).map_err(|_| refused())?;
    let user = users::user_auth(write.connection(), verified.user).await?;
    let user = user
        .filter(|user| user.status.is_live() && verified.credential >= user.tokens_from)
        .ok_or_else(refused)?;
    let session = access::session(write.connection(), verified.session).await?;
    let session = session.filter(|session| session.user == user.id && session.expires_at > now);
    let mut session = session.ok_or_else(refused)?;
    let attributes = json!({ "session": session.id.to_string() });
    if session.turn != verified.turn {
        end(&mut write, &user, session.id).await?;
        let outcome = Outcome::Denied;
        note(&call, &mut write, Some(&user), outcome, attributes).await?;
        call.commit(write).await?;
        tracing::warn!(user = %user.id, "a refresh token was used twice: its login was ended");
        return Err(refused());
    }
    session.expires_at = Tokens::refresh_until(now);
    session.turn = write.turn_session(session.id, session.expires_at).await?;
    let wanted = call.body().text("domain_id").map(str::to_owned);
    let domain = match &wanted {
        Some(_) => own_domain(&mut write, &user, wanted.as_deref()).await?,
        None => verified.domain,
    };
    note(&call, &mut write, Some(&user), Outcome::Done, attributes).await?;
    call.commit(write).await?;
    issued(&call, &user, &session, domain, now)
}

/// Ends a login: connections that came from it close, and those of the user's other logins come back.
async fn end(write: &mut Write, user: &UserAuth, session: EntityId) -> Result<bool, Failure> {
    if !write.delete_session(user.id, session).await? {
        return Ok(false);
    }
    let credential = write.raise_credential(user.id, false).await?;
    tell(write, user.id, user.status, credential);
    Ok(true)
}

/// Ends one of the caller's logins.
pub(super) async fn revoke(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?;
    if caller.key {
        // As for the other routes that manage tokens, which all want a verified address.
        return Err(Failure::unauthorized("the access token is not valid"));
    }
    let caller = caller.id;
    let session = parse_id("token_id", call.body().text("token_id").unwrap_or_default())?;
    let mut write = call.write().await?;
    let user = users::user_auth(write.connection(), caller).await?;
    let user = user.ok_or_else(|| Failure::not_found("user"))?;
    if !end(&mut write, &user, session).await? {
        return Err(Failure::not_found("refresh token"));
    }
    let attributes = json!({ "session": session.to_string() });
    call.record(&mut write, None, &caller.to_string(), attributes)
        .await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Lists the caller's logins.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?.id;
    let mut tx = call.read().await?;
    let found = access::sessions(&mut tx, caller, Time::now()).await?;
    let items: Vec<_> = found
        .iter()
        .map(|session| json!({ "id": session.id.to_string(), "description": session.description }))
        .collect();
    Ok(Reply::ok(json!({ "refresh_tokens": items })))
}

/// The public keys that tokens are signed with.
pub(super) async fn jwks(call: Call) -> Result<Reply, Failure> {
    let keys = call.control.0.identifier.tokens().jwks();
    Ok(Reply::ok(keys).cached("public, max-age=900"))
}

/// Sends the caller a link that verifies its address.
pub(super) async fn send_verification(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?.id;
    let mut tx = call.read().await?;
    let person = people::person(&mut tx, caller).await?;
    drop(tx);
    let person = person.ok_or_else(|| Failure::not_found("user"))?;
    if person.verified_at.is_some() {
        return Err(Failure::bad("the e-mail address is verified already"));
    }
    send_verification_to(&call, &person, Some((caller, call.peer))).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// Sends a user a link that verifies its address, which somebody asked for or which comes with a
/// registration.
pub(super) async fn send_verification_to(
    call: &Call,
    person: &Person,
    asked: Option<(EntityId, IpAddr)>,
) -> Result<(), Failure> {
    let mailer = call.control.mailer().ok_or_else(no_mail)?;
    let email = person.email.as_deref();
    let email = email.ok_or_else(|| Failure::bad("the user has no e-mail address"))?;
    call.control.0.rates.verification(asked, email)?;
    let token = new_mail_token(call, person.id, email, mail::VERIFY).await?;
    let url = links::link(mailer.public_url(), links::VERIFY, token.reveal());
    let text = format!("Open this link to verify your e-mail address:\n\n{url}\n");
    let sent = mailer
        .send(email, "Verify your e-mail address", &text)
        .await;
    sent.map_err(|error| {
        tracing::error!(%error, "a mail could not be sent");
        Failure::unavailable()
    })
}

pub(super) fn no_mail() -> Failure {
    Failure::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "no mail can be sent: none of the ways to send it is configured",
    )
}

async fn new_mail_token(
    call: &Call,
    user: EntityId,
    email: &str,
    kind: i64,
) -> Result<Secret, Failure> {
    let token = Secret::random();
    let digest = call
        .control
        .0
        .identifier
        .pepper()
        .digest(mail::TOKEN_LABEL, &[token.reveal().as_bytes()]);
    let ends = Time::now().plus_seconds(LINK_SECONDS);
    let mut write = call.write().await?;
    write
        .insert_mail_token(digest.as_bytes(), kind, user, email, ends)
        .await?;
    write.commit().await?;
    Ok(token)
}

/// The user and address that a token was mailed to; the token is good no longer.
async fn take_mail_token(
    call: &Call,
    write: &mut Write,
    token: &str,
    kind: i64,
) -> Result<Person, Failure> {
    let refused = || Failure::unauthorized("the token is not valid, or was used");
    let pepper = call.control.0.identifier.pepper();
    let digest = pepper.digest(mail::TOKEN_LABEL, &[token.as_bytes()]);
    let taken = write
        .take_mail_token(digest.as_bytes(), kind, Time::now())
        .await?;
    let (user, email) = taken.ok_or_else(refused)?;
    let person = people::person(write.connection(), user).await?;
    let person = person.filter(|person| person.email.as_deref() == Some(email.as_str()));
    person.ok_or_else(refused)
}

/// Verifies an address by the link that was sent to it.
pub(super) async fn verify_email(call: Call) -> Result<Reply, Failure> {
    let body = call.body();
    let token = body.text("token").or(call.query.text("token"));
    let token = token.unwrap_or_default();
    let mut write = call.write().await?;
    let mut person = take_mail_token(&call, &mut write, token, mail::VERIFY).await?;
    person.verified_at = Some(Time::now());
    write.update_person(&person).await?;
    super::mailed::claim_proven(&mut write, &person).await?;
    call.record(&mut write, None, &person.id.to_string(), json!({}))
        .await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// Sends a link that lets whoever reads an address set another password. The answer does not tell
/// whether somebody has the address.
pub(super) async fn request_reset(call: Call) -> Result<Reply, Failure> {
    let mailer = call.control.mailer().ok_or_else(no_mail)?.clone();
    let email = call.body().text("email").unwrap_or_default().to_lowercase();
    let body = json!({ "msg": "Email with reset link is sent" });
    let reply = Reply::json(StatusCode::CREATED, body);
    // What cannot be sent is not counted.
    let Some(place) = mailer.place() else {
        return Ok(reply);
    };
    call.control.0.rates.reset(call.peer, &email)?;
    let mut connection = call.control.0.store.read().await?;
    let person = people::person_by_email(&mut connection, &email).await?;
    drop(connection);
    // Who logs in elsewhere has no password here to forget.
    let person = person.filter(|person| person.auth_provider.is_empty());
    if let Some(person) = person.filter(|person| person.status.is_live()) {
        // Noted and sent beside the answer, which takes the same time for an address that nobody has.
        tokio::spawn(async move {
            // What goes wrong is logged where it does.
            let _ = send_reset(&call, &mailer, &person, &email).await;
            drop(place);
        });
    }
    Ok(reply)
}

async fn send_reset(
    call: &Call,
    mailer: &mail::Mailer,
    person: &Person,
    email: &str,
) -> Result<(), Failure> {
    let token = new_mail_token(call, person.id, email, mail::RESET).await?;
    let url = links::link(mailer.public_url(), links::RESET, token.reveal());
    let text = format!(
        "Somebody asked for another password for {}. If that was you, use this link within \
         15 minutes:\n\n{url}\n",
        person.username
    );
    let sent = mailer.send(email, "Reset your password", &text).await;
    sent.map_err(|error| {
        tracing::error!(%error, "a mail could not be sent");
        Failure::unavailable()
    })
}

/// Sets another password by the link that was sent.
pub(super) async fn reset(call: Call) -> Result<Reply, Failure> {
    let body = call.body();
    let from_header = call
        .bearer
        .as_deref()
        .and_then(|token| std::str::from_utf8(token).ok());
    let token = body.text("token").or(from_header).unwrap_or_default();
    let password = Secret::new(body.text("password").unwrap_or_default().to_owned());
    check_password(&password)?;
    let confirmed = body.any_text(&["confirm_password", "confirmPassword"]);
    if confirmed != Some(password.reveal()) {
        return Err(Failure::bad("confirm_password differs from password"));
    }
    let mut write = call.write().await?;
    let mut person = take_mail_token(&call, &mut write, token, mail::RESET).await?;
    let hash = call
        .control
        .0
        .identifier
        .passwords()
        .hash(&password)
        .await?;
    set_password(&mut write, &mut person, &hash).await?;
    call.record(&mut write, None, &person.id.to_string(), json!({}))
        .await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::CREATED))
}
