//! `turnpike explain`: one decision, and what made it.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::Context;
use control_api::Request;
use serde_json::Value;

use crate::cli;
use crate::provision::Target;

/// Asks for one decision and prints it.
///
/// # Errors
/// Something named does not exist, or there is no installation.
pub(crate) async fn run(arguments: cli::Explain) -> anyhow::Result<()> {
    let config = arguments.place.config()?;
    let request = Request::Explain {
        domain: arguments.within.domain,
        subject: arguments.subject,
        action: arguments.action,
        object: arguments.object,
    };
    let target = Target::find(&config).await?;
    let result = target.one(&request).await;
    target.close().await;
    let value = result?;
    let text = if arguments.json {
        format!("{value}\n")
    } else {
        text(&value)
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("the result cannot be printed")
}

fn text(value: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let verdict = if value["allowed"] == true {
        "allowed"
    } else {
        "denied"
    };
    let mut out = format!(
        "{verdict}: {} on {} {}\n",
        word(&value["action"]),
        word(&value["object_kind"]),
        word(&value["object"])
    );
    for step in value["path"].as_array().into_iter().flatten() {
        let line = if let Some(types) = step["connection"]["types"].as_array() {
            let types: Vec<String> = types.iter().map(word).collect();
            format!("a connection for {}", types.join(" and "))
        } else if step["platform"].is_string() {
            "administrator of the platform".to_owned()
        } else {
            format!(
                "role {:?} on {} {}",
                word(&step["role_name"]),
                word(&step["entity_kind"]),
                word(&step["entity_id"])
            )
        };
        let _ = writeln!(out, "  by {line}");
    }
    for missing in value["missing"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "  missing: {}", word(missing));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decision_is_told_with_what_made_it_or_what_is_missing() {
        let role = json!({ "role_name": "crew", "entity_kind": "group", "entity_id": "g" });
        let allowed = json!({ "allowed": true, "action": "publish", "object_kind": "channel",
            "object": "c", "path": [role, { "platform": "administrator" }], "missing": [] });
        assert_eq!(
            text(&allowed),
            "allowed: publish on channel c\n  by role \"crew\" on group g\n  \
             by administrator of the platform\n"
        );
        let denied = json!({ "allowed": false, "action": "read", "object_kind": "client",
            "object": "c", "path": [], "missing": ["a role"] });
        assert_eq!(
            text(&denied),
            "denied: read on client c\n  missing: a role\n"
        );
    }
}
