//! The OpenAPI document, made from the table of routes.

use serde_json::{Map, Value, json};

use super::route::{Auth, BodyShape, Field, Holds, Route};
use super::routes;

/// The document (OpenAPI 3.0.3).
pub(crate) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route);
    }
    paths.insert("/health".to_owned(), health());
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Turnpike control API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "responses": failures(),
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut shown = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "tags": [tag(route)],
        "parameters": parameters(route),
        "responses": responses(route),
    });
    let body = match &route.body {
        BodyShape::None => None,
        BodyShape::Object(fields) => Some((object(fields), true)),
        BodyShape::Optional(fields) => Some((object(fields), false)),
        BodyShape::List(fields) => {
            let items = object(fields);
            let list =
                json!({ "type": "array", "minItems": 1, "maxItems": 10_000, "items": items });
            Some((list, true))
        }
    };
    if let Some((schema, required)) = body {
        shown["requestBody"] = json!({
            "required": required,
            "content": { "application/json": { "schema": schema } },
        });
    }
    shown["security"] = match route.auth {
        Auth::Open => json!([]),
        Auth::Optional => json!([{}, { "bearer": [] }]),
        Auth::Any | Auth::Login | Auth::Session | Auth::Unverified => {
            json!([{ "bearer": [] }])
        }
    };
    shown
}

/// Every status that an error may have, and what it says.
const FAILURES: [(u16, &str); 11] = [
    (400, "Something in the request is not valid"),
    (401, "No token, or one that is not good"),
    (403, "Not permitted"),
    (404, "It does not exist"),
    (405, "Not served with this method"),
    (409, "It contradicts what is there"),
    (413, "The body is too long"),
    (415, "The body is not JSON"),
    (422, "It cannot be done in this installation"),
    (429, "Too many failed logins, mails or registrations"),
    (503, "It cannot be done now"),
];

fn failures() -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Error" });
    let content = json!({ "application/json": { "schema": schema } });
    let shown = FAILURES.map(|(status, description)| {
        let shown = json!({ "description": description, "content": content });
        (status.to_string(), shown)
    });
    Value::Object(shown.into_iter().collect())
}

/// The one route that is not in the table: it needs the broker.
fn health() -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Health" });
    let content = json!({ "application/health+json": { "schema": schema } });
    json!({ "get": {
        "summary": "Whether the installation serves",
        "operationId": "getHealth",
        "tags": ["health"],
        "security": [],
        "responses": {
            "200": { "description": "It does", "content": content },
            "503": { "description": "It does not, or not yet", "content": content },
        },
    } })
}

/// Method and path in letters: unique, and the same as long as those are.
fn operation_id(route: &Route) -> String {
    let mut id = route.method.as_str().to_lowercase();
    for part in route.path.split(['/', '{', '}', '-', '.', '_']) {
        let mut characters = part.chars();
        if let Some(first) = characters.next() {
            id.extend(first.to_uppercase());
            id.push_str(characters.as_str());
        }
    }
    id
}

fn tag(route: &Route) -> &str {
    let segments: Vec<&str> = route.path.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        ["{domain}", kind, ..] => kind,
        ["password" | "verify-email", ..] => "users",
        [first, ..] => first,
        [] => "platform",
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let schema = json!({ "type": "string" });
        Some(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
    });
    let in_query = route.query.iter().map(|name| {
        let schema = match *name {
            "offset" => json!({ "type": "integer", "minimum": 0, "default": 0 }),
            "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 10 }),
            "mailed" | "only_total" | "purge" | "roles" | "tree" | "root_group"
            | "with_attributes" | "with_metadata" => json!({ "type": "boolean" }),
            "level" | "start_level" | "end_level" | "from" | "to" => json!({ "type": "integer" }),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "query", "required": false, "schema": schema })
    });
    in_path.chain(in_query).collect()
}

fn responses(route: &Route) -> Value {
    let mut success = json!({ "description": route.summary });
    if let Some(schema) = route.answers {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        success["content"] = json!({ "application/json": { "schema": schema } });
    }
    let mut responses = Map::new();
    responses.insert(route.success.as_u16().to_string(), success);
    for (status, _) in FAILURES {
        let shown = json!({ "$ref": format!("#/components/responses/{status}") });
        responses.insert(status.to_string(), shown);
    }
    Value::Object(responses)
}

fn object(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let schema = match field.holds {
            Holds::Text(most) => json!({ "type": "string", "maxLength": most }),
            Holds::Secret => json!({ "type": "string", "maxLength": 4096, "writeOnly": true }),
            Holds::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Holds::TextOrTexts => json!({ "oneOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" } },
            ] }),
            Holds::Object => json!({ "type": "object" }),
            Holds::Objects => json!({ "type": "array", "items": { "type": "object" } }),
            Holds::Flag => json!({ "type": "boolean" }),
            Holds::Whole => json!({ "type": "integer" }),
        };
        properties.insert(field.name.to_owned(), schema);
    }
    let required: Vec<&str> = fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// Fields of what is answered, in a small notation: a name, and what it holds.
fn schemas() -> Value {
    const ENTITY: &[&str] = &[
        "id",
        "name",
        "tags[]",
        "metadata{}",
        "status",
        "created_at",
        "created_by?",
        "updated_at?",
        "updated_by?",
        "role_id?",
        "role_name?",
        "actions[]?",
        "access_type?",
        "access_provider_id?",
        "access_provider_role_id?",
        "access_provider_role_name?",
        "access_provider_role_actions[]?",
        "roles[{}]?",
    ];
    const USER: &[&str] = &[
        "id",
        "first_name",
        "last_name",
        "metadata{}",
        "credentials{}",
        "tags[]?",
        "private_metadata{}?",
        "status?",
        "role?",
        "email?",
        "profile_picture?",
        "auth_provider?",
        "created_at?",
        "updated_at?",
        "updated_by?",
        "verified_at?",
    ];
    let entity = |more: &[&str]| answer(&[ENTITY, more].concat());
    let mut schemas = json!({
        "Error": answer(&["error", "message"]),
        "Message": answer(&["msg"]),
        "Health": answer(&["status", "version", "commit", "description", "build_time",
            "instance_id", "message?"]),
        "User": answer(USER),
        "NewUser": answer(&[USER, &["invitation{}?"]].concat()),
        "Tokens": answer(&["access_token", "refresh_token", "access_type"]),
        "RefreshTokens": answer(&["refresh_tokens[{}]"]),
        "Keys": answer(&["keys[{}]"]),
        "Domain": entity(&["route", "alias", "permission?",
            "disabled_group_blocks_messaging!"]),
        "Client": entity(&["domain_id", "credentials{}", "private_metadata{}",
            "parent_group_id?"]),
        "Certificate": answer(&["serial_number", "certificate", "entity_id", "created_at"]),
        "Channel": entity(&["domain_id", "route?", "parent_group_id?"]),
        "Group": entity(&["domain_id", "parent_id?", "description", "path", "level#",
            "children[{}]?"]),
        "Role": answer(&["id", "name", "entity_id", "actions[]?", "created_at", "created_by?",
            "updated_at?", "updated_by?"]),
        "NewRole": answer(&["id", "name", "entity_id", "optional_actions[]",
            "optional_members[]", "created_at", "created_by?", "role_id?", "role_name?"]),
        "Pat": answer(&["id", "user_id", "user", "name", "description", "secret?", "issued_at",
            "expires_at", "updated_at?", "last_used_at?", "revoked!", "revoked_at?", "status"]),
        "Scope": answer(&["id", "pat_id", "domain_id", "optional_domain_id", "entity_type",
            "entity_id", "operation"]),
        "Invitation": answer(&["invited_by", "invitee_user_id?", "invitee_email?", "domain_id", "domain_name",
            "role_id", "role_name", "actions[]", "created_at", "expires_at?", "updated_at?",
            "confirmed_at?", "rejected_at?"]),
        "Journal": answer(&["id", "operation", "outcome", "occurred_at", "domain?",
            "attributes{}?", "metadata{}?"]),
        "NewKey": answer(&["id", "value", "issued_at", "expires_at"]),
        "Key": answer(&["id", "issuer_id", "subject", "type#", "issued_at", "expires_at"]),
        "Telemetry": answer(&["client_id", "domain_id", "subscriptions#", "inbound_messages#",
            "outbound_messages#", "first_seen?", "last_seen?"]),
        "JournalState": answer(&["whole!"]),
        "Actions": answer(&["actions[]"]),
        "Members": answer(&["members[]"]),
        "AvailableActions": answer(&["available_actions[]"]),
        "Permissions": answer(&["permissions[]"]),
        "Hierarchy": answer(&["level#", "direction#", "groups[{}]"]),
        "Access": answer(&["users[{}]", "clients[{}]"]),
        "Explanation": answer(&["subject", "action", "object", "object_kind", "allowed!",
            "path[{}]", "missing[]"]),
        "MemberPage": answer(&["total#", "offset#", "limit#", "members[]"]),
        "EntityMemberPage": answer(&["total#", "offset#", "limit#", "members[{}]"]),
    });
    for (name, plural) in [
        ("User", "users"),
        ("Domain", "domains"),
        ("Client", "clients"),
        ("Certificate", "certificates"),
        ("Channel", "channels"),
        ("Group", "groups"),
        ("Role", "roles"),
        ("Pat", "pats"),
        ("Scope", "scopes"),
        ("Invitation", "invitations"),
        ("Journal", "journals"),
    ] {
        // With only_total nothing but the total is answered.
        let mut page = answer(&["total#", "offset#?", "limit#?"]);
        let item = json!({ "$ref": format!("#/components/schemas/{name}") });
        page["properties"][plural] = json!({ "type": "array", "items": item });
        schemas[format!("{name}Page")] = page;
    }
    schemas
}

fn answer(fields: &[&str]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let (name, optional) = match field.strip_suffix('?') {
            Some(name) => (name, true),
            None => (*field, false),
        };
        let text = json!({ "type": "string" });
        let (name, schema) = if let Some(name) = name.strip_suffix("[{}]") {
            (
                name,
                json!({ "type": "array", "items": { "type": "object" } }),
            )
        } else if let Some(name) = name.strip_suffix("[]") {
            (name, json!({ "type": "array", "items": text }))
        } else if let Some(name) = name.strip_suffix("{}") {
            (name, json!({ "type": "object" }))
        } else if let Some(name) = name.strip_suffix('#') {
            (name, json!({ "type": "integer" }))
        } else if let Some(name) = name.strip_suffix('!') {
            (name, json!({ "type": "boolean" }))
        } else {
            (name, text)
        };
        properties.insert(name.to_owned(), schema);
        if !optional {
            required.push(name);
        }
    }
    json!({ "type": "object", "properties": properties, "required": required })
}
