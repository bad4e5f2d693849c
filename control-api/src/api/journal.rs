//! The journal, for those who may read what it is about.

use serde_json::{Value, json};

use super::call::Call;
use super::failure::Failure;
use super::query::wrong;
use super::{Reply, show};
use crate::grant::{Kind, Verb};
use crate::model::Time;
use crate::store::activity;
use crate::store::journal::{self, Entry, EntryFilter};

/// Lists what was done to a group, channel or client, or to the domain.
pub(super) async fn of_entity(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let word = call.param("kind");
    let entity = match Kind::ALL.into_iter().find(|kind| kind.word() == word) {
        Some(Kind::Domain) => inside.itself(Verb::Read)?.id,
        Some(kind) => {
            let name = call.param("id");
            inside.target(&mut tx, kind, name, Verb::Read).await?.id
        }
        None => return Err(Failure::bad("expected group, channel, client or domain")),
    };
    drop(tx);
    let filter = EntryFilter {
        domain: Some(inside.domain.id),
        entity: Some(entity.to_string()),
        ..filter(&call)?
    };
    listed(&call, filter).await
}

/// Lists what a user did, and what was done to it.
pub(super) async fn of_user(call: Call) -> Result<Reply, Failure> {
    let caller = call.caller()?;
    let user = call.id("id")?;
    if !caller.admin && caller.id != user {
        return Err(Failure::forbidden());
    }
    let filter = EntryFilter {
        user: Some(user),
        ..filter(&call)?
    };
    listed(&call, filter).await
}

fn filter(call: &Call) -> Result<EntryFilter, Failure> {
    let query = &call.query;
    let time = |name: &str| -> Result<Option<Time>, Failure> {
        let seconds = query.integer(name)?.filter(|seconds| *seconds != 0);
        // What is no time of day any more is some other unit: clients send nanoseconds too.
        let micros = seconds.map(|number| match number {
            0..100_000_000_000 => Some(number * 1_000_000),
            100_000_000_000.. => Some(number / 1_000),
            _ => None,
        });
        match micros {
            None => Ok(None),
            Some(Some(micros)) => Ok(Some(Time::from_micros(micros))),
            Some(None) => Err(wrong(name, "negative", "seconds since 1970")),
        }
    };
    Ok(EntryFilter {
        operation: query.text("operation").map(str::to_owned),
        from: time("from")?,
        to: time("to")?,
        ascending: query.word("dir", &["asc", "desc"], "desc")? == "asc",
        ..EntryFilter::default()
    })
}

async fn listed(call: &Call, filter: EntryFilter) -> Result<Reply, Failure> {
    let page = call.query.page()?;
    let attributes = call.query.flag("with_attributes")?;
    let metadata = call.query.flag("with_metadata")?;
    let mut tx = call.read().await?;
    let (total, found) = journal::entries(&mut tx, &filter, page).await?;
    let items = found
        .iter()
        .map(|entry| shown(entry, attributes, metadata))
        .collect();
    Ok(Reply::ok(show::page("journals", total, page, items)))
}

fn shown(entry: &Entry, attributes: bool, metadata: bool) -> Value {
    let mut shown = json!({
        "id": entry.id.to_string(),
        "operation": entry.operation,
        "outcome": if entry.denied { "denied" } else { "done" },
        "occurred_at": entry.occurred_at,
    });
    if let Some(domain) = entry.domain {
        shown["domain"] = domain.to_string().into();
    }
    if attributes {
        let mut all = entry.attributes.clone();
        all["id"] = entry.entity.as_str().into();
        all["kind"] = entry.kind.as_str().into();
        shown["attributes"] = all;
    }
    if metadata {
        let mut who = json!({ "peer": entry.peer });
        if let Some(user) = entry.user {
            who["user_id"] = user.to_string().into();
        }
        shown["metadata"] = who;
    }
    shown
}

/// Shows what a client did at all brokers.
pub(super) async fn telemetry(call: Call) -> Result<Reply, Failure> {
    let mut tx = call.read().await?;
    let inside = call.enter(&mut tx).await?;
    let name = call.param("id");
    let target = inside
        .target(&mut tx, Kind::Client, name, Verb::Read)
        .await?;
    let seen = activity::telemetry(&mut tx, target.id).await?;
    let mut shown = json!({
        "client_id": target.id.to_string(),
        "domain_id": inside.domain.id.to_string(),
        "subscriptions": seen.subscriptions,
        "inbound_messages": seen.inbound,
        "outbound_messages": seen.outbound,
    });
    for (name, time) in [
        ("first_seen", seen.first_seen),
        ("last_seen", seen.last_seen),
    ] {
        if let Some(time) = time {
            shown[name] = json!(time);
        }
    }
    Ok(Reply::ok(shown))
}

/// Goes through the whole journal and says whether every row belongs where it stands.
pub(super) async fn verify(call: Call) -> Result<Reply, Failure> {
    call.administrator()?;
    let mut tx = call.read().await?;
    let broken = journal::verify(&mut tx).await?;
    Ok(Reply::ok(
        json!({ "whole": broken.is_none(), "first_broken": broken }),
    ))
}
