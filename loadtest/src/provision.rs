//! A domain of the load's own: channels, clients and rights, made over the control API with calls
//! for ten thousand at a time.

use serde_json::{Value, json};

use crate::control::Control;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::plan::{Need, NeededRight};
use crate::target::{Login, Target};

/// What was made.
#[derive(Clone, Debug)]
pub struct Provisioned {
    /// The domain's id.
    pub domain: String,
    /// Clients, in the order of connections.
    pub logins: Vec<Login>,
    /// Ids of the clients and channels come in the order of the need.
    pub channels: Vec<String>,
}

/// Objects in one call: what the API takes.
const PER_CALL: usize = 10_000;

/// Makes what is needed in a new domain; `watch` is told of each step.
///
/// # Errors
/// The control side refuses.
pub fn provision(
    control: &mut Control,
    need: &Need,
    watch: &mut dyn FnMut(&str),
) -> Result<Provisioned, Error> {
    let route = format!("loadtest-{:08x}", crate::load::run_number());
    let body = json!({ "name": "Load test", "route": route });
    let domain = text(&control.call("POST", "/domains", &body)?, "id")?;
    let mut logins = Vec::with_capacity(need.clients);
    for from in (0..need.clients).step_by(PER_CALL) {
        let upto = (from + PER_CALL).min(need.clients);
        let wanted: Vec<Value> = (from..upto)
            .map(|at| json!({ "name": format!("load-{at}") }))
            .collect();
        let path = format!("/{domain}/clients/bulk");
        let mut made = control.call("POST", &path, &Value::Array(wanted))?;
        for client in list(&mut made, "clients", upto - from)? {
            logins.push(Login {
                username: text(&client, "id")?,
                password: text(&client["credentials"], "secret")?,
                client_id: None,
            });
        }
        watch(&format!("clients: {upto} of {}", need.clients));
    }
    let mut channels = Vec::with_capacity(need.channels);
    for from in (0..need.channels).step_by(PER_CALL) {
        let upto = (from + PER_CALL).min(need.channels);
        let wanted: Vec<Value> = (from..upto)
            .map(|at| json!({ "name": format!("load-{at}") }))
            .collect();
        let path = format!("/{domain}/channels/bulk");
        let mut made = control.call("POST", &path, &Value::Array(wanted))?;
        for channel in list(&mut made, "channels", upto - from)? {
            channels.push(text(&channel, "id")?);
        }
        watch(&format!("channels: {upto} of {}", need.channels));
    }
    let mut connected = 0;
    for publishes in [false, true] {
        let rights = need
            .rights
            .iter()
            .filter(|right| right.publishes == publishes);
        let rights: Vec<&NeededRight> = rights.collect();
        for part in rights.chunks(PER_CALL) {
            let clients: Vec<&str> = part
                .iter()
                .map(|right| logins[right.client].username.as_str())
                .collect();
            let of: Vec<&str> = part
                .iter()
                .map(|right| channels[right.channel].as_str())
                .collect();
            let body = json!({
                "client_ids": clients,
                "channel_ids": of,
                "types": [if publishes { "publish" } else { "subscribe" }],
                "pairwise": true,
            });
            control.call("POST", &format!("/{domain}/channels/connect"), &body)?;
            connected += part.len();
            watch(&format!("rights: {connected} of {}", need.rights.len()));
        }
    }
    Ok(Provisioned {
        domain,
        logins,
        channels,
    })
}

impl Provisioned {
    /// The broker at `endpoint` with these clients and channels.
    pub fn target(&self, endpoint: Endpoint) -> Target {
        let prefix = |channel: &String| format!("m/{}/c/{channel}", self.domain);
        Target {
            endpoint,
            logins: self.logins.clone(),
            prefixes: self.channels.iter().map(prefix).collect(),
            first_serial: 0,
        }
    }

    /// Removes the domain with everything in it.
    ///
    /// # Errors
    /// The control side refuses.
    pub fn remove(&self, control: &mut Control) -> Result<(), Error> {
        let path = format!("/domains/{}?purge=true", self.domain);
        control.call("DELETE", &path, &Value::Null).map(|_| ())
    }
}

fn text(value: &Value, name: &str) -> Result<String, Error> {
    let found = value[name].as_str();
    found.map(str::to_owned).ok_or_else(|| {
        Error::Control(format!(
            "an answer has no {name}; is it Turnpike's control API?"
        ))
    })
}

fn list(value: &mut Value, name: &str, count: usize) -> Result<Vec<Value>, Error> {
    match value[name].take() {
        Value::Array(items) if items.len() == count => Ok(items),
        _ => Err(Error::Control(format!("an answer has no {count} {name}"))),
    }
}
