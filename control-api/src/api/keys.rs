//! Keys for programs: tokens that do whatever their owner may, but manage no tokens.
//!
//! They are kept as personal access tokens without scopes to check, so that they expire, are revoked
//! and are told to brokers like those.

use axum::http::StatusCode;
use serde_json::json;

use super::call::Call;
use super::failure::Failure;
use super::pats::{PATS_MAX, SECONDS_MAX, digest, note, remove};
use super::{Reply, show};
use crate::model::Time;
use crate::pat;
use crate::secret::random_id;
use crate::store::access::{self, Pat};
use crate::store::people;
use crate::store::sql::Connection;

/// Kinds of keys that are issued here, and how long one lives if nobody says.
const ACCESS: (i64, i64) = (0, 3_600);
const API: (i64, i64) = (3, SECONDS_MAX);

/// Makes a key; its text is shown here only.
pub(super) async fn create(call: Call) -> Result<Reply, Failure> {
    let user = call.caller()?.id;
    let body = call.body();
    let (kind, default) = match body.whole("type").unwrap_or(API.0) {
        0 => ACCESS,
        3 => API,
        other => {
            let message = format!("type is {other}; expected 0 (access) or 3 (API key)");
            let detail = "a password is reset by POST /password/reset-request";
            return Err(Failure::bad(message).with_detail(detail));
        }
    };
    let seconds = match body.whole("duration") {
        None | Some(0) => default,
        Some(seconds) if (1..=SECONDS_MAX).contains(&seconds) => seconds,
        Some(other) => {
            let message = format!("duration is {other}; expected seconds, at most ten years");
            return Err(Failure::bad(message));
        }
    };
    let (id, now) = (random_id(), Time::now());
    let (text, random) = pat::make(user, id);
    let key = Pat {
        id,
        user,
        name: kind.to_string(),
        description: String::new(),
        digest: digest(&call, id, &random),
        credential: 1,
        issued_at: now,
        expires_at: now.plus_seconds(seconds),
        updated_at: None,
        last_used_at: None,
        revoked_at: None,
        unlimited: true,
    };
    let mut write = call.write().await?;
    if access::pats_of(write.connection(), user).await?.len() >= PATS_MAX {
        let message = format!("you have {PATS_MAX} tokens and keys; expected fewer");
        return Err(Failure::bad(message));
    }
    write.put_pat(&key).await?;
    note(&call, &mut write, &key).await?;
    call.commit(write).await?;
    let shown = json!({
        "id": id.to_string(),
        "value": text.reveal(),
        "issued_at": key.issued_at,
        "expires_at": key.expires_at,
    });
    Ok(Reply::created(format!("/keys/{id}"), shown))
}

/// The caller's key that the path names.
async fn own(call: &Call, c: &mut Connection) -> Result<Pat, Failure> {
    let user = call.caller()?.id;
    let found = access::pat(c, call.id("id")?).await?;
    let found = found.filter(|key| key.user == user && key.unlimited);
    found.ok_or_else(|| Failure::not_found("key"))
}

/// Shows a key, without its text.
pub(super) async fn view(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let key = own(&call, &mut tx).await?;
    let owner = people::person(&mut tx, key.user).await?;
    let subject = owner.map(|owner| owner.email.unwrap_or(owner.username));
    Ok(Reply::ok(show::key(&key, &subject.unwrap_or_default())))
}

/// Ends a key and what was opened with it.
pub(super) async fn delete(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let key = own(&call, write.connection()).await?;
    remove(&call, &mut write, &key).await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
