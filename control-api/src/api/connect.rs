//! Connections between clients and channels.

use authcache::{EntityId, Right, Status};
use axum::http::StatusCode;
use serde_json::json;

use super::Reply;
use super::authorize::Inside;
use super::call::Call;
use super::failure::Failure;
use crate::grant::{Kind, Verb};
use crate::model::status_word;
use crate::name::parse_types;
use crate::provision::{TRIPLES_MAX, apply_connect, apply_disconnect, every_pair};
use crate::store::Write;

/// Connects every client named with every channel named, for every type named; pairwise only each
/// client with the channel in the same place.
pub(super) async fn connect(call: Call) -> Result<Reply, Failure> {
    change(&call, true).await?;
    Ok(Reply::empty(StatusCode::CREATED))
}

/// Takes those types away; what is not there is no error.
pub(super) async fn disconnect(call: Call) -> Result<Reply, Failure> {
    change(&call, false).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

async fn change(call: &Call, connect: bool) -> Result<(), Failure> {
    let body = call.body();
    let mut types = ["types", "type"]
        .iter()
        .find_map(|name| body.texts(name))
        .unwrap_or_default();
    if types.is_empty() && call.old {
        // There was one kind of connection, for both directions.
        types = vec!["publish".to_owned(), "subscribe".to_owned()];
    }
    let right = parse_types(&types)?;
    let named = |own: &str, names: &[&str]| match call.param(own) {
        "" => names
            .iter()
            .find_map(|name| body.texts(name))
            .unwrap_or_default(),
        id => vec![id.to_owned()],
    };
    let clients = named(
        "client",
        &["client_ids", "client_id", "thing_ids", "thing_id"],
    );
    let channels = named("id", &["channel_ids", "channel_id"]);
    for (name, list) in [("client_ids", &clients), ("channel_ids", &channels)] {
        if list.is_empty() {
            return Err(
                Failure::bad(format!("{name} is missing")).with_detail("expected at least one id")
            );
        }
    }
    if body.flag("pairwise") == Some(true) {
        if !connect || clients.len() != channels.len() {
            let expected = "expected as many client_ids as channel_ids, to be connected";
            return Err(Failure::bad("pairwise does not fit").with_detail(expected));
        }
        return connect_pairs(call, &clients, &channels, right, &types).await;
    }
    if clients.len().saturating_mul(channels.len()) > TRIPLES_MAX {
        let message = format!("too many connections; expected at most {TRIPLES_MAX}");
        return Err(Failure::bad(message));
    }
    let (of_channel, of_client) = if connect {
        ("connect_client", "connect_to_channel")
    } else {
        ("disconnect_client", "disconnect_from_channel")
    };
    call.require_scopes("channels", &channels, of_channel)
        .await?;
    call.require_scopes("clients", &clients, of_client).await?;
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let channels = find(&mut write, &inside, Kind::Channel, &channels, connect).await?;
    let clients = find(&mut write, &inside, Kind::Client, &clients, connect).await?;
    let pairs = every_pair(&clients, &channels);
    if connect {
        apply_connect(&mut write, &pairs, right).await?;
    } else {
        apply_disconnect(&mut write, &pairs, right).await?;
    }
    let texts = |ids: &[EntityId]| ids.iter().map(EntityId::to_string).collect::<Vec<_>>();
    let attributes = json!({
        "client_ids": texts(&clients), "channel_ids": texts(&channels), "types": types,
    });
    let notes = channels.iter().map(|id| (*id, attributes.clone()));
    call.record_all(&mut write, inside.domain.id, notes).await?;
    call.commit(write).await
}

/// Connects each client with the channel in the same place.
async fn connect_pairs(
    call: &Call,
    clients: &[String],
    channels: &[String],
    right: Right,
    types: &[String],
) -> Result<(), Failure> {
    if clients.len() > TRIPLES_MAX {
        let message = format!("too many connections; expected at most {TRIPLES_MAX}");
        return Err(Failure::bad(message));
    }
    call.require_scopes("channels", channels, "connect_client")
        .await?;
    call.require_scopes("clients", clients, "connect_to_channel")
        .await?;
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let channels = named(&mut write, &inside, Kind::Channel, channels, true).await?;
    let clients = named(&mut write, &inside, Kind::Client, clients, true).await?;
    let pairs: Vec<(EntityId, EntityId)> = clients.into_iter().zip(channels).collect();
    apply_connect(&mut write, &pairs, right).await?;
    let notes = pairs.iter().map(|(client, channel)| {
        let attributes = json!({
            "client_ids": [client.to_string()],
            "channel_ids": [channel.to_string()],
            "types": types,
        });
        (*channel, attributes)
    });
    call.record_all(&mut write, inside.domain.id, notes).await?;
    call.commit(write).await
}

/// Those named, each once, all of which the caller may connect.
async fn find(
    write: &mut Write,
    inside: &Inside,
    kind: Kind,
    names: &[String],
    connect: bool,
) -> Result<Vec<EntityId>, Failure> {
    let mut found = named(write, inside, kind, names, connect).await?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Those named, in their order, all of which the caller may connect.
async fn named(
    write: &mut Write,
    inside: &Inside,
    kind: Kind,
    names: &[String],
    connect: bool,
) -> Result<Vec<EntityId>, Failure> {
    let c = write.connection();
    let found = inside.several(c, kind, names, Verb::Connect).await?;
    for (id, status) in &found {
        if connect {
            enabled(kind, *id, *status)?;
        }
    }
    Ok(found.into_iter().map(|(id, _)| id).collect())
}

fn enabled(kind: Kind, id: EntityId, status: Status) -> Result<(), Failure> {
    if status.is_live() {
        return Ok(());
    }
    let (kind, status) = (kind.word(), status_word(status));
    let message = format!("{kind} is {status}; only enabled ones can be connected");
    Err(Failure::bad(message).with_detail(id))
}
