//! Connections between clients and channels.

use authcache::{EntityId, Right};
use axum::http::StatusCode;
use serde_json::json;

use super::Reply;
use super::authorize::Inside;
use super::call::Call;
use super::failure::Failure;
use crate::grant::{Kind, Verb};
use crate::model::status_word;
use crate::name::parse_types;
use crate::provision::{TRIPLES_MAX, apply_connect, apply_connect_pairs, apply_disconnect};
use crate::store::Write;
use crate::store::entities::Entity;

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
    for id in &channels {
        call.require_scope("channels", id, of_channel).await?;
    }
    for id in &clients {
        call.require_scope("clients", id, of_client).await?;
    }
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let channels = find(&mut write, &inside, Kind::Channel, &channels, connect).await?;
    let clients = find(&mut write, &inside, Kind::Client, &clients, connect).await?;
    if connect {
        apply_connect(&mut write, &clients, &channels, right).await?;
    } else {
        apply_disconnect(&mut write, &clients, &channels, right).await?;
    }
    let domain = Some(inside.domain.id);
    let texts = |ids: &[EntityId]| ids.iter().map(EntityId::to_string).collect::<Vec<_>>();
    let attributes = json!({
        "client_ids": texts(&clients), "channel_ids": texts(&channels), "types": types,
    });
    for channel in &channels {
        call.record(&mut write, domain, &channel.to_string(), attributes.clone())
            .await?;
    }
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
    for (client, channel) in clients.iter().zip(channels) {
        call.require_scope("channels", channel, "connect_client")
            .await?;
        call.require_scope("clients", client, "connect_to_channel")
            .await?;
    }
    let mut write = call.write().await?;
    let inside = call.enter(write.connection()).await?;
    let mut pairs = Vec::with_capacity(clients.len());
    for (client, channel) in clients.iter().zip(channels) {
        let c = write.connection();
        let channel = inside.entity(c, Kind::Channel, channel, Verb::Connect);
        let channel = channel.await?;
        enabled(&channel)?;
        let client = inside
            .entity(c, Kind::Client, client, Verb::Connect)
            .await?;
        enabled(&client)?;
        pairs.push((client.id, channel.id));
    }
    apply_connect_pairs(&mut write, &pairs, right).await?;
    let domain = Some(inside.domain.id);
    for (client, channel) in pairs {
        let attributes = json!({
            "client_ids": [client.to_string()],
            "channel_ids": [channel.to_string()],
            "types": types,
        });
        call.record(&mut write, domain, &channel.to_string(), attributes)
            .await?;
    }
    call.commit(write).await
}

/// Those named, each once, all of which the caller may connect.
async fn find(
    write: &mut Write,
    inside: &Inside,
    kind: Kind,
    named: &[String],
    connect: bool,
) -> Result<Vec<EntityId>, Failure> {
    let mut found: Vec<EntityId> = Vec::with_capacity(named.len());
    for id in named {
        let c = write.connection();
        let entity = inside.entity(c, kind, id, Verb::Connect).await?;
        if connect {
            enabled(&entity)?;
        }
        found.push(entity.id);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn enabled(entity: &Entity) -> Result<(), Failure> {
    if entity.status.is_live() {
        return Ok(());
    }
    let (kind, status) = (entity.kind.word(), status_word(entity.status));
    let message = format!("{kind} is {status}; only enabled ones can be connected");
    Err(Failure::bad(message).with_detail(entity.id))
}
