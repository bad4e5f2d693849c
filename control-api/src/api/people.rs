//! Users: registered, found, changed, switched and removed.

use authcache::{Change, EntityId, PrincipalRecord, Status};
use axum::http::StatusCode;
use serde_json::json;

use super::call::Call;
use super::entities::check_tags;
use super::failure::Failure;
use super::fields::Fields;
use super::query::wrong;
use super::{Reply, show};
use crate::model::{Time, status_word};
use crate::name::{Name, Username, parse_id};
use crate::secret::{Secret, random_id};
use crate::store::people::{self, PeopleFilter, Person};
use crate::store::users::{self, NewUserRow};
use crate::store::{Write, access};

/// Characters that a password must have.
const PASSWORD_CHARACTERS_MIN: usize = 8;
const EMAIL_BYTES_MAX: usize = 254;
/// Characters that a search needs, so that nobody lists everybody letter by letter.
const SEARCH_CHARACTERS_MIN: usize = 3;

/// Registers a user: an administrator anybody, everybody else itself where that is wanted.
pub(super) async fn create(call: Call) -> Result<Reply, Failure> {
    let by_admin = call.caller.as_ref().is_some_and(|caller| caller.admin);
    if !by_admin && !call.control.settings().self_registration {
        return Err(match call.caller {
            Some(_) => Failure::forbidden(),
            None => Failure::unauthorized(
                "users do not register themselves here; expected an administrator's access token",
            ),
        });
    }
    let body = call.body();
    let credentials = body.object("credentials").unwrap_or_default();
    let username = Username::parse(
        credentials
            .any_text(&["username", "identity"])
            .unwrap_or(""),
    )?;
    let secret = Secret::new(credentials.text("secret").unwrap_or_default().to_owned());
    check_password(&secret)?;
    let now = Time::now();
    let mut person = Person {
        id: random_id(),
        username: username.as_str().to_owned(),
        email: Some(check_email(body.text("email").unwrap_or_default())?),
        first_name: String::new(),
        last_name: String::new(),
        tags: Vec::new(),
        metadata: json!({}),
        private_metadata: json!({}),
        profile_picture: String::new(),
        auth_provider: String::new(),
        administrator: false,
        status: Status::Enabled,
        credential: 1,
        verified_at: None,
        created_at: now,
        updated_at: None,
        updated_by: None,
        deleted_at: None,
    };
    apply(&mut person, &body)?;
    if let Some(tags) = body.texts("tags") {
        person.tags = check_tags(tags)?;
    }
    if let Some(picture) = body.text("profile_picture") {
        person.profile_picture = check_picture(picture)?;
    }
    // What somebody says of himself does not make him an administrator.
    if by_admin {
        person.administrator = is_admin(body.text("role").unwrap_or("user"))?;
        person.status = match body.text("status") {
            None | Some("" | "enabled") => Status::Enabled,
            Some("disabled") => Status::Disabled,
            Some(_) => {
                return Err(Failure::bad(
                    "status is not valid; expected enabled or disabled",
                ));
            }
        };
    }
    let token = body.text("invitation");
    if !by_admin {
        let open = match token {
            Some(token) if super::mailed::is_open(&call, token).await? => Some(token),
            Some(_) | None => None,
        };
        call.control.0.rates.registration(call.peer, open)?;
    }
    let hash = call.control.0.identifier.passwords().hash(&secret).await?;
    let mut write = call.write().await?;
    let row = NewUserRow {
        id: person.id,
        username: &person.username,
        administrator: person.administrator,
        password: &hash,
        now,
    };
    write.insert_user(row).await.map_err(taken)?;
    // Whoever shows an invitation reads the mail that went to its address.
    let mut invited = None;
    if let Some(token) = token {
        let invitation = super::mailed::claim(&call, &mut write, token, person.id).await?;
        invited = Some(json!({
            "domain_id": invitation.domain.to_string(),
            "domain_name": invitation.domain_name,
        }));
        if person.email.as_deref() == Some(&*invitation.email) {
            person.verified_at = Some(now);
            super::mailed::claim_proven(&mut write, &person).await?;
        }
    }
    write.update_person(&person).await.map_err(taken)?;
    let id = person.id.to_string();
    call.record(
        &mut write,
        None,
        &id,
        json!({ "username": person.username }),
    )
    .await?;
    call.commit(write).await?;
    if person.verified_at.is_none() && call.control.settings().require_verified_email {
        // The user is there whether or not the mail arrives, and can ask for another one.
        if let Err(failure) = super::tokens::send_verification_to(&call, &person, None).await {
            tracing::warn!(
                reason = failure.message,
                "a user got no link to verify its address"
            );
        }
    }
    let mut shown = show::person(&person);
    if let Some(invited) = invited {
        shown["invitation"] = invited;
    }
    Ok(Reply::created(format!("/users/{id}"), shown))
}

fn taken(error: crate::StoreError) -> Failure {
    if error.is_unique_violation() {
        return Failure::conflict("the username or e-mail address is taken");
    }
    error.into()
}

/// # Errors
/// It is too short or too long.
pub(super) fn check_password(secret: &Secret) -> Result<(), Failure> {
    let length = secret.reveal().chars().count();
    if length < PASSWORD_CHARACTERS_MIN || secret.reveal().len() > crate::name::SECRET_BYTES_MAX {
        return Err(
            Failure::bad("the password is not valid").with_detail(format!(
                "expected at least {PASSWORD_CHARACTERS_MIN} characters"
            )),
        );
    }
    Ok(())
}

/// An address in lower case.
///
/// # Errors
/// It is none.
pub(super) fn check_email(text: &str) -> Result<String, Failure> {
    let good = text.len() <= EMAIL_BYTES_MAX
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "<>,;\"".contains(c))
        && text.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !host.contains('@')
        });
    if good {
        return Ok(text.to_lowercase());
    }
    Err(Failure::bad("email is not valid")
        .with_detail("expected an address such as name@example.com"))
}

fn check_picture(text: &str) -> Result<String, Failure> {
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    if text.is_empty() || is_url {
        return Ok(text.to_owned());
    }
    Err(Failure::bad("profile_picture is not valid").with_detail("expected a URL"))
}

fn is_admin(role: &str) -> Result<bool, Failure> {
    match role {
        "user" => Ok(false),
        "admin" => Ok(true),
        _ => Err(Failure::bad("role is not valid; expected user or admin")),
    }
}

fn apply(person: &mut Person, fields: &Fields) -> Result<(), Failure> {
    for (name, place) in [
        ("first_name", &mut person.first_name),
        ("last_name", &mut person.last_name),
    ] {
        if let Some(text) = fields.text(name) {
            Name::parse(text)?.as_str().clone_into(place);
        }
    }
    for (name, place) in [
        ("metadata", &mut person.metadata),
        ("private_metadata", &mut person.private_metadata),
    ] {
        if fields.has(name) {
            *place = fields.value(name).cloned().unwrap_or_else(|| json!({}));
        }
    }
    Ok(())
}

/// Lists users, for administrators.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    call.administrator()?;
    let query = &call.query;
    let status = query.word(
        "status",
        &["enabled", "disabled", "deleted", "all"],
        "enabled",
    )?;
    let order = query.word(
        "order",
        &[
            "created_at",
            "updated_at",
            "first_name",
            "last_name",
            "username",
            "email",
        ],
        "updated_at",
    )?;
    let filter = PeopleFilter {
        id: query.id("id")?,
        username: query
            .text("username")
            .or(query.text("identity"))
            .map(str::to_owned),
        first_name: query
            .text("first_name")
            .or(query.text("name"))
            .map(str::to_owned),
        last_name: query.text("last_name").map(str::to_owned),
        email: query.text("email").map(str::to_owned),
        tags: query.tags()?,
        metadata: query.metadata()?,
        status: match status {
            "enabled" => Some(Status::Enabled),
            "disabled" => Some(Status::Disabled),
            _ => None,
        },
        deleted: status == "deleted",
        ordinary_only: false,
        order: match order {
            "created_at" => "e.created_at",
            "first_name" => "e.first_name",
            "last_name" => "e.last_name",
            "username" => "e.username",
            "email" => "e.email",
            _ => "COALESCE(e.updated_at, e.created_at)",
        },
        ascending: query.word("dir", &["asc", "desc"], "desc")? == "asc",
    };
    let (page, only_total) = (query.page()?, query.flag("only_total")?);
    let mut tx = call.read().await?;
    let (total, found) = people::list(&mut tx, &filter, page, only_total).await?;
    if only_total {
        return Ok(Reply::ok(json!({ "total": total })));
    }
    let items = found.iter().map(show::person).collect();
    Ok(Reply::ok(show::page("users", total, page, items)))
}

/// Finds ordinary users by name or id, for everybody.
pub(super) async fn search(call: Call) -> Result<Reply, Failure> {
    let query = &call.query;
    let (username, id) = (query.text("username"), query.text("id"));
    for (name, text) in [("username", username), ("id", id)] {
        if let Some(text) = text.filter(|text| text.chars().count() < SEARCH_CHARACTERS_MIN) {
            return Err(wrong(name, text, "at least 3 characters"));
        }
    }
    let (first_name, last_name) = (query.text("first_name"), query.text("last_name"));
    if [username, id, first_name, last_name]
        .iter()
        .all(Option::is_none)
    {
        let message = "nothing to search for; expected username, first_name, last_name or id";
        return Err(Failure::bad(message));
    }
    let filter = PeopleFilter {
        id: query.id("id")?,
        username: username.map(str::to_owned),
        first_name: first_name.map(str::to_owned),
        last_name: last_name.map(str::to_owned),
        status: Some(Status::Enabled),
        ordinary_only: true,
        order: "e.username",
        ascending: true,
        ..PeopleFilter::default()
    };
    let page = query.page()?;
    let mut tx = call.read().await?;
    let (total, found) = people::list(&mut tx, &filter, page, false).await?;
    let items = found.iter().map(show::person_briefly).collect();
    Ok(Reply::ok(show::page("users", total, page, items)))
}

/// Shows the caller its own profile.
pub(super) async fn profile(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?;
    let mut tx = call.read().await?;
    let person = people::person(&mut tx, caller.id).await?;
    let person = person.ok_or_else(|| Failure::not_found("user"))?;
    Ok(Reply::ok(show::person(&person)))
}

/// Shows a user, briefly to others.
pub(super) async fn view(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?;
    let id = call.id("id")?;
    let mut tx = call.read().await?;
    let person = people::person(&mut tx, id).await?;
    let person = person.ok_or_else(|| Failure::not_found("user"))?;
    let whole = caller.admin || caller.id == id;
    let shown = if whole {
        show::person(&person)
    } else {
        show::person_briefly(&person)
    };
    Ok(Reply::ok(shown))
}

/// The user that the path names, if the caller is that or an administrator.
async fn own(call: &Call, write: &mut Write) -> Result<Person, Failure> {
    let caller = call.caller()?;
    let id = call.id("id")?;
    if !caller.admin && caller.id != id {
        return Err(Failure::forbidden());
    }
    let person = people::person(write.connection(), id).await?;
    person.ok_or_else(|| Failure::not_found("user"))
}

async fn finish(call: &Call, mut write: Write, mut person: Person) -> Result<Reply, Failure> {
    person.updated_at = Some(Time::now());
    person.updated_by = Some(call.caller()?.id);
    write.update_person(&person).await.map_err(taken)?;
    let id = person.id.to_string();
    let attributes = json!({ "username": person.username, "status": status_word(person.status) });
    call.record(&mut write, None, &id, attributes).await?;
    call.commit(write).await?;
    Ok(Reply::ok(show::person(&person)))
}

/// Names and picture of those who log in elsewhere are kept there.
fn not_foreign(person: &Person) -> Result<(), Failure> {
    if person.auth_provider.is_empty() {
        return Ok(());
    }
    Err(Failure::bad(
        "this is kept where the user logs in, and cannot be changed here",
    ))
}

/// Changes names and metadata.
pub(super) async fn update(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut person = own(&call, &mut write).await?;
    let body = call.body();
    if body.text("first_name").is_some() || body.text("last_name").is_some() {
        not_foreign(&person)?;
    }
    apply(&mut person, &body)?;
    finish(&call, write, person).await
}

/// Changes the tags.
pub(super) async fn update_tags(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut person = own(&call, &mut write).await?;
    person.tags = check_tags(call.body().texts("tags").unwrap_or_default())?;
    finish(&call, write, person).await
}

/// Changes the user name.
pub(super) async fn update_username(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut person = own(&call, &mut write).await?;
    let username = Username::parse(call.body().text("username").unwrap_or_default())?;
    username.as_str().clone_into(&mut person.username);
    finish(&call, write, person).await
}

/// Changes the e-mail address, which is not verified then.
pub(super) async fn update_email(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut person = own(&call, &mut write).await?;
    not_foreign(&person)?;
    let body = call.body();
    let email = check_email(body.any_text(&["email", "identity"]).unwrap_or_default())?;
    if person.email.as_ref() == Some(&email) {
        return Err(Failure::bad(
            "email is the one that is known; expected another one",
        ));
    }
    person.email = Some(email);
    person.verified_at = None;
    finish(&call, write, person).await
}

/// Changes the picture.
pub(super) async fn update_picture(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut person = own(&call, &mut write).await?;
    not_foreign(&person)?;
    person.profile_picture = check_picture(call.body().text("profile_picture").unwrap_or(""))?;
    finish(&call, write, person).await
}

/// Makes a user an administrator of the platform, or an ordinary one. Its connections end: what
/// they may do has changed everywhere.
pub(super) async fn update_role(call: Call) -> Result<Reply, Failure> {
    call.administrator()?;
    let mut write = call.write().await?;
    let mut person = own(&call, &mut write).await?;
    person.administrator = is_admin(call.body().text("role").unwrap_or_default())?;
    person.credential = write.raise_credential(person.id, false).await?;
    tell(&mut write, person.id, person.status, person.credential);
    for mut pat in access::pats_of(write.connection(), person.id).await? {
        pat.credential += 1;
        write.put_pat(&pat).await?;
        tell(&mut write, pat.id, person.status, pat.credential);
    }
    finish(&call, write, person).await
}

/// Changes the caller's own password: every login ends.
pub(super) async fn update_secret(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?.id;
    let body = call.body();
    let (old, new) = (
        body.text("old_secret").unwrap_or_default(),
        Secret::new(body.text("new_secret").unwrap_or_default().to_owned()),
    );
    let mut connection = call.control.0.store.read().await?;
    let user = users::user_auth(&mut connection, caller).await?;
    drop(connection);
    let login = caller.to_string();
    let identifier = &call.control.0.identifier;
    identifier
        .login(&login, old.as_bytes(), Some(call.peer))
        .await
        .map_err(super::tokens::login_failure)?;
    check_password(&new)?;
    let user = user.ok_or_else(|| Failure::not_found("user"))?;
    let hash = identifier.passwords().hash(&new).await?;
    let mut write = call.write().await?;
    let person = people::person(write.connection(), caller).await?;
    let mut person = person
        .filter(|person| person.credential == user.credential)
        .ok_or_else(|| Failure::conflict("the account was changed meanwhile; try again"))?;
    set_password(&mut write, &mut person, &hash).await?;
    finish(&call, write, person).await
}

/// Sets a password: tokens and connections of the old one end.
pub(super) async fn set_password(
    write: &mut Write,
    person: &mut Person,
    hash: &str,
) -> Result<(), Failure> {
    write.set_password(person.id, hash).await?;
    person.credential = write.raise_credential(person.id, true).await?;
    tell(write, person.id, person.status, person.credential);
    Ok(())
}

/// Tells brokers of a user or a token of its.
pub(super) fn tell(write: &mut Write, id: EntityId, status: Status, credential: u64) {
    write.change(Change::PrincipalSet {
        id,
        kind: PrincipalRecord::User,
        status,
        credential,
    });
}

/// Lets a user act again.
pub(super) async fn enable(call: Call) -> Result<Reply, Failure> {
    switch(call, Status::Enabled).await
}

/// Lets a user act no more: its tokens are void, its connections end.
pub(super) async fn disable(call: Call) -> Result<Reply, Failure> {
    switch(call, Status::Disabled).await
}

async fn switch(call: Call, status: Status) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut person = own(&call, &mut write).await?;
    if person.status == status {
        let message = format!("user is already {}", status_word(status));
        return Err(Failure::conflict(message));
    }
    person.status = status;
    person.credential = write.raise_credential(person.id, true).await?;
    tell(&mut write, person.id, status, person.credential);
    for pat in access::pats_of(write.connection(), person.id).await? {
        tell(&mut write, pat.id, status, pat.credential);
    }
    finish(&call, write, person).await
}

/// Removes a user: at once from everything it takes part in, and for good after a while.
pub(super) async fn delete(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut person = own(&call, &mut write).await?;
    let now = Time::now();
    write.change(Change::PrincipalRemoved { id: person.id });
    for pat in access::pats_of(write.connection(), person.id).await? {
        write.change(Change::PrincipalRemoved { id: pat.id });
    }
    write.raise_credential(person.id, true).await?;
    write.strip_user(person.id).await?;
    person.status = Status::Disabled;
    person.deleted_at = Some(now);
    person.updated_at = Some(now);
    person.updated_by = Some(call.caller()?.id);
    write.update_person(&person).await?;
    let id = person.id.to_string();
    call.record(
        &mut write,
        None,
        &id,
        json!({ "username": person.username }),
    )
    .await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// The user that a field or parameter names.
///
/// # Errors
/// It is no id, or nobody has it.
pub(super) async fn existing(
    write: &mut Write,
    field: &'static str,
    text: &str,
) -> Result<Person, Failure> {
    let id = parse_id(field, text)?;
    let person = people::person(write.connection(), id).await?;
    person.ok_or_else(|| Failure::not_found("user"))
}
