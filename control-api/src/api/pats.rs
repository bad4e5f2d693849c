//! Personal access tokens, which their owners manage, logged in.

use authcache::{Change, EntityId};
use axum::http::StatusCode;
use serde_json::json;

use super::call::Call;
use super::failure::Failure;
use super::fields::Fields;
use super::people::tell;
use super::{Reply, show};
use crate::authz::scope_operations;
use crate::model::Time;
use crate::name::{Name, excerpt, parse_id};
use crate::pat;
use crate::secret::random_id;
use crate::store::access::{self, Pat, PatFilter, PatScope};
use crate::store::{Write, users};

/// Tokens that one user may have, and uses of one.
pub(super) const PATS_MAX: usize = 1_000;
const SCOPES_MAX: usize = 10_000;
/// Longest life: ten years.
pub(super) const SECONDS_MAX: i64 = 10 * 366 * 24 * 3_600;

/// Makes a token; its text is shown here only.
pub(super) async fn create(call: Call) -> Result<Reply, Failure> {
    let user = call.caller()?.id;
    let body = call.body();
    let now = Time::now();
    let (id, name) = (random_id(), check_name(&body)?);
    let ends = now.plus_seconds(duration(&body)?);
    let (text, random) = pat::make(user, id);
    let pat = Pat {
        id,
        user,
        name,
        description: body.text("description").unwrap_or_default().to_owned(),
        digest: digest(&call, id, &random),
        credential: 1,
        issued_at: now,
        expires_at: ends,
        updated_at: None,
        last_used_at: None,
        revoked_at: None,
        unlimited: false,
    };
    let mut scopes = Vec::new();
    for scope in body.objects("scopes").unwrap_or_default() {
        scopes.extend(read_scope(&scope)?);
    }
    if let Some(old) = body.object("scope") {
        scopes.extend(read_old_scope(&old)?);
    }
    let mut write = call.write().await?;
    if access::pats_of(write.connection(), user).await?.len() >= PATS_MAX {
        return Err(Failure::bad(format!(
            "you have {PATS_MAX} tokens; expected fewer"
        )));
    }
    write.put_pat(&pat).await?;
    insert_scopes(&mut write, id, &scopes).await?;
    note(&call, &mut write, &pat).await?;
    call.commit(write).await?;
    let shown = show::pat(&pat, Some(text.reveal()), now);
    Ok(Reply::created(format!("/pats/{id}"), shown))
}

pub(super) fn digest(call: &Call, id: EntityId, random: &str) -> Vec<u8> {
    let pepper = call.control.0.identifier.pepper();
    let parts = [&id.to_bytes()[..], random.as_bytes()];
    pepper.digest(pat::LABEL, &parts).as_bytes().to_vec()
}

pub(super) async fn note(call: &Call, write: &mut Write, pat: &Pat) -> Result<(), Failure> {
    let attributes = json!({ "name": pat.name });
    call.record(write, None, &pat.id.to_string(), attributes)
        .await
}

fn check_name(fields: &Fields) -> Result<String, Failure> {
    let name = Name::parse(fields.text("name").unwrap_or_default())?;
    if name.as_str().is_empty() {
        return Err(Failure::bad("name is empty; expected 1 to 1024 characters"));
    }
    Ok(name.as_str().to_owned())
}

/// Seconds that a text such as `20h`, `1h30m` or `2w` stands for.
fn duration(fields: &Fields) -> Result<i64, Failure> {
    let text = fields.text("duration").unwrap_or_default();
    parse_duration(text)
        .filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
        .ok_or_else(|| {
            Failure::bad(format!("duration is {:?}", excerpt(text)))
                .with_detail("expected a time such as 20h, 90m or 30d, at most ten years")
        })
}

fn parse_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "y" => 31_536_000.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    // Far below what a float counts exactly, and saturating above.
    (seconds > 0.0).then_some(seconds.ceil() as i64)
}

/// Lists the caller's tokens.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    let user = call.caller()?.id;
    let query = &call.query;
    let status = query.word("status", &["active", "revoked", "expired", "all"], "active")?;
    let filter = PatFilter {
        id: query.id("id")?,
        name: query.text("name").map(str::to_owned),
        status: (status != "all").then_some(status),
    };
    let (page, now) = (query.page()?, Time::now());
    let mut tx = call.read().await?;
    let (total, found) = access::pats(&mut tx, user, &filter, page, now).await?;
    let items = found.iter().map(|pat| show::pat(pat, None, now)).collect();
    Ok(Reply::ok(show::page("pats", total, page, items)))
}

/// The caller's token that the path names.
async fn own(call: &Call, c: &mut crate::store::sql::Connection) -> Result<Pat, Failure> {
    let user = call.caller()?.id;
    let found = access::pat(c, call.id("id")?).await?;
    let found = found.filter(|pat| pat.user == user && !pat.unlimited);
    found.ok_or_else(|| Failure::not_found("pat"))
}

/// Shows a token, without its text.
pub(super) async fn view(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let pat = own(&call, &mut tx).await?;
    Ok(Reply::ok(show::pat(&pat, None, Time::now())))
}

async fn change(
    call: Call,
    change: impl Fn(&mut Pat, &Fields) -> Result<(), Failure>,
) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut pat = own(&call, write.connection()).await?;
    change(&mut pat, &call.body())?;
    let now = Time::now();
    pat.updated_at = Some(now);
    write.put_pat(&pat).await?;
    note(&call, &mut write, &pat).await?;
    call.commit(write).await?;
    let shown = show::pat(&pat, None, now);
    Ok(Reply::json(StatusCode::ACCEPTED, shown))
}

/// Gives a token another name.
pub(super) async fn rename(call: Call) -> Result<Reply, Failure> {
    change(call, |pat, fields| {
        pat.name = check_name(fields)?;
        Ok(())
    })
    .await
}

/// Gives a token another description.
pub(super) async fn describe(call: Call) -> Result<Reply, Failure> {
    change(call, |pat, fields| {
        let text = fields.text("description").unwrap_or_default();
        text.clone_into(&mut pat.description);
        Ok(())
    })
    .await
}

/// Gives a token another text: what was opened with the old one ends. A revoked one is good again.
pub(super) async fn reset(call: Call) -> Result<Reply, Failure> {
    let seconds = duration(&call.body())?;
    let mut write = call.write().await?;
    let mut pat = own(&call, write.connection()).await?;
    let now = Time::now();
    let (text, random) = pat::make(pat.user, pat.id);
    pat.digest = digest(&call, pat.id, &random);
    pat.credential += 1;
    pat.issued_at = now;
    pat.expires_at = now.plus_seconds(seconds);
    pat.updated_at = Some(now);
    pat.revoked_at = None;
    write.put_pat(&pat).await?;
    tell_pat(&mut write, &pat).await?;
    note(&call, &mut write, &pat).await?;
    call.commit(write).await?;
    Ok(Reply::ok(show::pat(&pat, Some(text.reveal()), now)))
}

async fn tell_pat(write: &mut Write, pat: &Pat) -> Result<(), Failure> {
    if let Some(owner) = users::user_auth(write.connection(), pat.user).await? {
        tell(write, pat.id, owner.status, pat.credential);
    }
    Ok(())
}

/// Ends a token and what was opened with it.
pub(super) async fn revoke(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut pat = own(&call, write.connection()).await?;
    let now = Time::now();
    pat.credential += 1;
    pat.revoked_at = Some(pat.revoked_at.unwrap_or(now));
    pat.updated_at = Some(now);
    write.put_pat(&pat).await?;
    write.change(Change::PrincipalRemoved { id: pat.id });
    note(&call, &mut write, &pat).await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Removes a token.
pub(super) async fn delete(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let pat = own(&call, write.connection()).await?;
    remove(&call, &mut write, &pat).await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Removes a token or key, and what was opened with it.
pub(super) async fn remove(call: &Call, write: &mut Write, pat: &Pat) -> Result<(), Failure> {
    write.delete_pat(pat.id).await?;
    write.change(Change::PrincipalRemoved { id: pat.id });
    note(call, write, pat).await
}

/// Removes all tokens of the caller.
pub(super) async fn delete_all(call: Call) -> Result<Reply, Failure> {
    let user = call.caller()?.id;
    let mut write = call.write().await?;
    let all = access::pats_of(write.connection(), user).await?;
    for pat in all.iter().filter(|pat| !pat.unlimited) {
        remove(&call, &mut write, pat).await?;
    }
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::OK))
}

/// Lists what a token may be used for.
pub(super) async fn scopes(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let pat = own(&call, &mut tx).await?;
    let page = call.query.page()?;
    let found = access::scopes(&mut tx, pat.id).await?;
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let take = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let items = found.iter().skip(skip).take(take);
    let items = items.map(|scope| show::scope(scope, pat.id)).collect();
    Ok(Reply::ok(show::page(
        "scopes",
        found.len() as u64,
        page,
        items,
    )))
}

/// Lets a token be used for more.
pub(super) async fn add_scopes(call: Call) -> Result<Reply, Failure> {
    let mut scopes = Vec::new();
    for scope in call.body().objects("scopes").unwrap_or_default() {
        scopes.extend(read_scope(&scope)?);
    }
    if scopes.is_empty() {
        return Err(Failure::bad("scopes is empty; expected at least one"));
    }
    let mut write = call.write().await?;
    let pat = own(&call, write.connection()).await?;
    insert_scopes(&mut write, pat.id, &scopes).await?;
    for scope in &scopes {
        // Sessions of the token that ran into a denial may go on.
        write.change(Change::UserRightsStale {
            domain: scope.domain,
        });
    }
    note(&call, &mut write, &pat).await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::OK))
}

async fn insert_scopes(
    write: &mut Write,
    pat: EntityId,
    scopes: &[PatScope],
) -> Result<(), Failure> {
    let known = access::scopes(write.connection(), pat).await?.len();
    if known + scopes.len() > SCOPES_MAX {
        return Err(Failure::bad(format!("more than {SCOPES_MAX} scopes")));
    }
    for scope in scopes {
        write.insert_scope(pat, scope).await?;
    }
    Ok(())
}

/// Lets a token be used for less: what was opened with it ends.
pub(super) async fn remove_scopes(call: Call) -> Result<Reply, Failure> {
    let body = call.body();
    let wanted = ["scopes_id", "scope_ids", "scopes_ids"]
        .iter()
        .find_map(|name| body.texts(name))
        .filter(|ids| !ids.is_empty())
        .ok_or_else(|| Failure::bad("scopes_id is empty; expected at least one id"))?;
    let mut write = call.write().await?;
    let mut pat = own(&call, write.connection()).await?;
    for id in &wanted {
        let id = parse_id("scopes_id", id)?;
        write.delete_scope(pat.id, Some(id)).await?;
    }
    narrowed(&call, write, &mut pat).await
}

/// Lets a token be used for nothing.
pub(super) async fn clear_scopes(call: Call) -> Result<Reply, Failure> {
    let mut write = call.write().await?;
    let mut pat = own(&call, write.connection()).await?;
    write.delete_scope(pat.id, None).await?;
    narrowed(&call, write, &mut pat).await
}

async fn narrowed(call: &Call, mut write: Write, pat: &mut Pat) -> Result<Reply, Failure> {
    pat.credential += 1;
    pat.updated_at = Some(Time::now());
    write.put_pat(pat).await?;
    tell_pat(&mut write, pat).await?;
    note(call, &mut write, pat).await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::OK))
}

fn read_scope(fields: &Fields) -> Result<Vec<PatScope>, Failure> {
    let missing = |name: &str| Failure::bad(format!("{name} of a scope is missing"));
    let domain = fields
        .any_text(&["domain_id", "optional_domain_id"])
        .ok_or_else(|| missing("domain_id"))?;
    let domain = parse_id("domain_id", domain)?;
    let kind = fields
        .text("entity_type")
        .ok_or_else(|| missing("entity_type"))?;
    let entity = fields
        .text("entity_id")
        .ok_or_else(|| missing("entity_id"))?;
    let operation = fields
        .text("operation")
        .ok_or_else(|| missing("operation"))?;
    Ok(vec![new_scope(domain, kind, entity, operation)?])
}

fn new_scope(
    domain: EntityId,
    kind: &str,
    entity: &str,
    operation: &str,
) -> Result<PatScope, Failure> {
    let operations = scope_operations(kind).ok_or_else(|| {
        Failure::bad(format!("entity_type {:?} is unknown", excerpt(kind)))
            .with_detail("expected groups, channels, clients, domains, dashboards or messages")
    })?;
    if !operations.contains(&operation) {
        let message = format!("operation {:?} is unknown for {kind}", excerpt(operation));
        let detail = format!("expected one of {}", operations.join(", "));
        return Err(Failure::bad(message).with_detail(detail));
    }
    if entity != "*" {
        parse_id("entity_id", entity)?;
    }
    Ok(PatScope {
        id: random_id(),
        domain,
        entity_type: kind.to_owned(),
        entity: entity.to_owned(),
        operation: operation.to_owned(),
    })
}

/// The older form: domains, in them entities, in them operations with ids or `*`.
fn read_old_scope(fields: &Fields) -> Result<Vec<PatScope>, Failure> {
    let mut scopes = Vec::new();
    let domains = fields.object("domains").unwrap_or_default();
    for name in domains.as_map().keys() {
        let domain = parse_id("domain", name)?;
        let within = domains.object(name).unwrap_or_default();
        let entities = within.object("entities").unwrap_or_default();
        for kind in entities.as_map().keys() {
            let operations = entities.object(kind).unwrap_or_default();
            for operation in operations.as_map().keys() {
                for entity in operations.texts(operation).unwrap_or_default() {
                    scopes.push(new_scope(domain, kind, &entity, operation)?);
                }
            }
        }
    }
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them_and_in_longer_units() {
        for (text, seconds) in [
            ("20h", Some(72_000)),
            ("1h30m", Some(5_400)),
            ("1.5h", Some(5_400)),
            ("30d", Some(2_592_000)),
            ("2w", Some(1_209_600)),
            ("500ms", Some(1)),
            ("", None),
            ("20", None),
            ("h", None),
            ("-1h", None),
            ("1x", None),
        ] {
            assert_eq!(parse_duration(text), seconds, "{text}");
        }
    }
}
