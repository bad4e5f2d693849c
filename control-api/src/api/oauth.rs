//! Logins at a provider elsewhere: the way there, and the way back.

use authcache::Status;
use serde_json::json;

use super::call::Call;
use super::failure::Failure;
use super::people::check_email;
use super::{Reply, tokens};
use crate::model::Time;
use crate::name::{Name, Username};
use crate::oauth::{AskError, Binding, Profile, Provider};
use crate::secret::random_id;
use crate::store::journal::Outcome;
use crate::store::people::{self, Person};
use crate::store::users::{self, NewUserRow, UserAuth};
use crate::store::{Write, foreign};

/// What no password has as its hash.
const NO_PASSWORD: &str = "-";
/// The cookie that holds a login's binding, and for how many seconds. Only its own way back needs it.
const BINDING: &str = "turnpike_oauth";
const BINDING_SECONDS: u32 = 600;
/// Of the two tokens, as long as they are good.
const ACCESS_SECONDS: u32 = 3_600;
const REFRESH_SECONDS: u32 = 86_400;
/// Longest authorization code.
const CODE_BYTES_MAX: usize = 4_096;
/// Characters of a name that a provider gives.
const USERNAME_CHARACTERS: usize = 24;

/// Why somebody who came back is not let in, as the page is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// The provider, or the user there, refused.
    Denied,
    /// The provider did not say who it is.
    Provider,
    /// The provider does not say that the address is the user's.
    EmailUnverified,
    /// Somebody has the address here who has not proven it, or administers the platform.
    EmailTaken,
    /// The user administers the platform, and has a password here.
    PasswordNeeded,
    /// Nobody knows the user, and people do not register themselves.
    Unknown,
    Disabled,
    Busy,
}

impl Refused {
    const fn word(self) -> &'static str {
        match self {
            Refused::Denied => "access_denied",
            Refused::Provider => "provider_failed",
            Refused::EmailUnverified => "email_unverified",
            Refused::EmailTaken => "email_taken",
            Refused::PasswordNeeded => "password_needed",
            Refused::Unknown => "not_registered",
            Refused::Disabled => "account_disabled",
            Refused::Busy => "try_again",
        }
    }
}

/// Sends the browser to a provider.
pub(super) async fn begin(call: Call) -> Result<Reply, Failure> {
    let oauth = &call.control.0.oauth;
    let provider = provider(&call)?;
    let return_to = oauth.return_to(call.query.raw("return"));
    let return_to = return_to.ok_or_else(|| {
        Failure::bad("return is no page to return to; expected one of control.return_urls")
    })?;
    let pepper = call.control.0.identifier.pepper();
    let begun = oauth.begin(pepper, provider, return_to, Time::now());
    let path = format!("/oauth/callback/{}", provider.name());
    let binding = cookie(
        &call,
        BINDING,
        begun.binding.reveal(),
        &path,
        BINDING_SECONDS,
    );
    Ok(Reply::found(begun.location).with_cookie(binding))
}

/// Takes the browser back, and lets it in.
pub(super) async fn callback(call: Call) -> Result<Reply, Failure> {
    let oauth = &call.control.0.oauth;
    let provider = provider(&call)?;
    let pepper = call.control.0.identifier.pepper();
    let now = Time::now();
    // Until the state is known to be this browser's, nothing of the request is believed.
    let binding = call.cookie(BINDING).and_then(Binding::parse);
    let state = call.query.text("state").unwrap_or_default();
    let came = binding.as_ref().and_then(|binding| {
        let return_to = oauth.came_back(pepper, provider, state, binding, now)?;
        oauth.return_url(return_to)
    });
    let (Some(binding), Some(page)) = (&binding, came) else {
        let message =
            "state is not that of a login of this browser; expected one begun within ten minutes";
        return Err(Failure::bad(message));
    };
    let path = format!("/oauth/callback/{}", provider.name());
    let spent = cookie(&call, BINDING, "", &path, 0);
    match enter(&call, provider, binding, now).await? {
        Ok(pair) => Ok(Reply::found(page.to_owned())
            .with_cookie(spent)
            .with_cookie(cookie(
                &call,
                "access_token",
                pair.access.reveal(),
                "/",
                ACCESS_SECONDS,
            ))
            .with_cookie(cookie(
                &call,
                "refresh_token",
                pair.refresh.reveal(),
                "/",
                REFRESH_SECONDS,
            ))),
        Err(refused) => {
            let joint = if page.contains('?') { '&' } else { '?' };
            let page = format!("{page}{joint}error={}", refused.word());
            Ok(Reply::found(page).with_cookie(spent))
        }
    }
}

fn provider(call: &Call) -> Result<&Provider, Failure> {
    let found = call.control.0.oauth.provider(call.param("provider"));
    found.ok_or_else(|| Failure::not_found("provider"))
}

/// No script reads it, no other site's form sends it, and it passes in TLS alone where there is TLS.
fn cookie(call: &Call, name: &str, value: &str, path: &str, seconds: u32) -> String {
    let secure = if call.control.0.oauth.is_secure() {
        "; Secure"
    } else {
        ""
    };
    format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

async fn enter(
    call: &Call,
    provider: &Provider,
    binding: &Binding,
    now: Time,
) -> Result<Result<crate::token::Issued, Refused>, Failure> {
    let code = call.query.text("code");
    let code =
        code.filter(|code| code.len() <= CODE_BYTES_MAX && call.query.raw("error").is_none());
    let Some(code) = code else {
        return Ok(Err(Refused::Denied));
    };
    let pepper = call.control.0.identifier.pepper();
    let oauth = &call.control.0.oauth;
    let profile = match oauth.profile(pepper, provider, code, binding).await {
        Ok(profile) => profile,
        Err(AskError::Busy) => return Ok(Err(Refused::Busy)),
        // Counted and told of where it is asked.
        Err(_) => return Ok(Err(Refused::Provider)),
    };
    let mut write = call.write().await?;
    let user = match user(call, &mut write, provider, &profile, now).await? {
        Ok(user) => user,
        Err(refused) => {
            // What a refusal found is let go; that there was one is noted.
            drop(write);
            let mut write = call.write().await?;
            let attributes = json!({ "provider": provider.name(), "error": refused.word() });
            tokens::note(call, &mut write, None, Outcome::Denied, attributes).await?;
            call.commit(write).await?;
            return Ok(Err(refused));
        }
    };
    let description = format!("login at {}", provider.name());
    let session = tokens::open_session(&mut write, &user, description, now).await?;
    let attributes = json!({ "provider": provider.name(), "session": session.id.to_string() });
    tokens::note(call, &mut write, Some(&user), Outcome::Done, attributes).await?;
    call.commit(write).await?;
    tokens::pair(call, &user, &session, None, now).map(Ok)
}

/// The user who logged in there: known by the provider's name for it; or by a verified address, then
/// known from now on; or new.
async fn user(
    call: &Call,
    write: &mut Write,
    provider: &Provider,
    profile: &Profile,
    now: Time,
) -> Result<Result<UserAuth, Refused>, Failure> {
    let name = provider.name();
    let email = profile
        .email
        .as_deref()
        .and_then(|email| check_email(email).ok());
    let email = email.filter(|_| profile.verified);
    let known = foreign::user(write.connection(), name, &profile.subject).await?;
    let person = match known {
        Some(id) => people::person(write.connection(), id).await?,
        None => None,
    };
    let person = match (person, email) {
        (Some(person), email) => follow(write, person, name, profile, email, now).await?,
        (None, None) => return Ok(Err(Refused::EmailUnverified)),
        (None, Some(email)) => {
            let person = match people::person_by_email(write.connection(), &email).await? {
                // An address that was never proven here may be that of somebody who waits for its
                // owner to come; and whoever administers the platform shows a password.
                Some(person) if person.verified_at.is_none() || person.administrator => {
                    return Ok(Err(Refused::EmailTaken));
                }
                Some(person) => person,
                // A deleted user's, until it is purged.
                None if !users::email_is_free(write.connection(), &email).await? => {
                    return Ok(Err(Refused::EmailTaken));
                }
                None if !provider.registers() && !call.control.settings().self_registration => {
                    return Ok(Err(Refused::Unknown));
                }
                None => register(call, write, name, profile, email, now).await?,
            };
            write.know_user(name, &profile.subject, person.id).await?;
            person
        }
    };
    if person.status != Status::Enabled {
        return Ok(Err(Refused::Disabled));
    }
    // However the provider came to know it: it may have been an ordinary user then.
    if person.administrator && person.auth_provider.is_empty() {
        return Ok(Err(Refused::PasswordNeeded));
    }
    let user = users::user_auth(write.connection(), person.id).await?;
    Ok(user.ok_or(Refused::Unknown))
}

/// What the provider keeps is kept up to date; an address that another user has here stays as it is.
async fn follow(
    write: &mut Write,
    mut person: Person,
    provider: &str,
    profile: &Profile,
    email: Option<String>,
    now: Time,
) -> Result<Person, Failure> {
    if person.auth_provider != provider {
        return Ok(person);
    }
    let before = person.clone();
    describe(&mut person, profile);
    if let Some(email) = email.filter(|email| person.email.as_ref() != Some(email))
        && users::email_is_free(write.connection(), &email).await?
    {
        person.email = Some(email);
        person.verified_at = Some(now);
    }
    let same = before.first_name == person.first_name
        && before.last_name == person.last_name
        && before.profile_picture == person.profile_picture
        && before.email == person.email;
    if !same {
        person.updated_at = Some(now);
        write.update_person(&person).await?;
    }
    if before.email != person.email {
        super::mailed::claim_proven(write, &person).await?;
    }
    Ok(person)
}

/// Names and picture, as far as they are fit to be kept.
fn describe(person: &mut Person, profile: &Profile) {
    for (given, kept) in [
        (&profile.first_name, &mut person.first_name),
        (&profile.last_name, &mut person.last_name),
    ] {
        if let Ok(name) = Name::parse(given) {
            name.as_str().clone_into(kept);
        }
    }
    let picture = &profile.picture;
    if picture.starts_with("https://") && Name::parse(picture).is_ok() {
        picture.clone_into(&mut person.profile_picture);
    }
}

async fn register(
    call: &Call,
    write: &mut Write,
    provider: &str,
    profile: &Profile,
    email: String,
    now: Time,
) -> Result<Person, Failure> {
    let wanted = username(&email);
    let username = if users::username_is_free(write.connection(), &wanted).await? {
        wanted
    } else {
        let id = random_id().to_string();
        format!("{wanted}-{}", &id[id.len() - 6..])
    };
    Username::parse(&username)?;
    let id = random_id();
    write
        .insert_user(NewUserRow {
            id,
            username: &username,
            administrator: false,
            password: NO_PASSWORD,
            now,
        })
        .await?;
    write.set_auth_provider(id, provider).await?;
    let person = people::person(write.connection(), id).await?;
    let mut person = person.ok_or_else(|| Failure::not_found("user"))?;
    describe(&mut person, profile);
    person.email = Some(email);
    person.verified_at = Some(now);
    write.update_person(&person).await?;
    super::mailed::claim_proven(write, &person).await?;
    call.record(
        write,
        None,
        &id.to_string(),
        json!({ "username": username }),
    )
    .await?;
    Ok(person)
}

/// A name made of what stands before the `@`: letters, digits and single dashes.
fn username(email: &str) -> String {
    let (before, _) = email.split_once('@').unwrap_or((email, ""));
    let mut name = String::new();
    for character in before.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => name.push(character),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
        if name.len() == USERNAME_CHARACTERS {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() {
        return "user".to_owned();
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_addresses() {
        for (email, name) in [
            ("ann@example.com", "ann"),
            ("ann.lee+x@example.com", "ann-lee-x"),
            ("..a..b..@example.com", "a-b"),
            ("é@example.com", "user"),
            (
                "a23456789012345678901234567890@b",
                "a23456789012345678901234",
            ),
            ("a2345678901234567890123.x@b", "a2345678901234567890123"),
        ] {
            assert_eq!(username(email), name);
            assert!(Username::parse(&username(email)).is_ok());
        }
    }
}
