//! The OpenAPI document: committed, served, and the same.

use std::path::Path;

use super::*;

#[tokio::test]
async fn the_committed_document_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let text = serde_json::to_string_pretty(&crate::api::document()).unwrap() + "\n";
    if std::env::var_os("TURNPIKE_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/openapi.json is not what the routes say; write it anew with TURNPIKE_WRITE_OPENAPI=1"
    );
    let world = World::new().await;
    let served = world.expect("GET", "/openapi.json", "", None, 200).await;
    assert_eq!(served, crate::api::document());
    let page = world
        .server
        .exchange("GET /docs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("/openapi.json"),
        "{page}"
    );
}

#[test]
fn operations_have_names_of_their_own_and_schemas_that_exist() {
    let document = crate::api::document();
    let schemas = &document["components"]["schemas"];
    let mut names = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for route in methods.as_object().unwrap().values() {
            assert!(names.insert(text(&route["operationId"])), "{path}");
        }
    }
    for part in document.to_string().split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas[name].is_object(), "{name}");
    }
}

/// The codes that the Go SDK insists on, where a reader might expect another one.
#[test]
fn success_codes_are_the_ones_that_clients_insist_on() {
    let document = crate::api::document();
    for (method, path, status) in [
        ("post", "/users", "201"),
        ("patch", "/users/secret", "200"),
        ("delete", "/users/{id}", "204"),
        ("post", "/users/tokens/issue", "201"),
        ("post", "/users/tokens/refresh", "201"),
        ("post", "/users/tokens/revoke", "204"),
        ("post", "/users/send-verification", "200"),
        ("post", "/password/reset-request", "201"),
        ("put", "/password/reset", "201"),
        ("post", "/pats", "201"),
        ("delete", "/pats", "200"),
        ("patch", "/pats/{id}/name", "202"),
        ("patch", "/pats/{id}/description", "202"),
        ("patch", "/pats/{id}/secret/reset", "200"),
        ("patch", "/pats/{id}/secret/revoke", "204"),
        ("delete", "/pats/{id}", "204"),
        ("patch", "/pats/{id}/scope/add", "200"),
        ("patch", "/pats/{id}/scope/remove", "200"),
        ("delete", "/pats/{id}/scope", "200"),
        ("post", "/domains", "201"),
        ("post", "/domains/{domain}/enable", "200"),
        ("post", "/domains/{domain}/freeze", "200"),
        ("post", "/domains/{domain}/invitations", "201"),
        ("delete", "/domains/{domain}/invitations", "204"),
        ("post", "/invitations/accept", "204"),
        ("post", "/{domain}/groups", "201"),
        ("put", "/{domain}/groups/{id}", "200"),
        ("post", "/{domain}/groups/{id}/parent", "200"),
        ("delete", "/{domain}/groups/{id}/parent", "204"),
        ("post", "/{domain}/groups/{id}/children", "200"),
        ("delete", "/{domain}/groups/{id}/children", "204"),
        ("delete", "/{domain}/groups/{id}/children/all", "204"),
        ("post", "/{domain}/clients", "201"),
        ("post", "/{domain}/clients/bulk", "200"),
        ("patch", "/{domain}/clients/{id}/secret", "200"),
        ("post", "/{domain}/clients/{id}/parent", "200"),
        ("delete", "/{domain}/clients/{id}/parent", "204"),
        ("delete", "/{domain}/clients/{id}", "204"),
        ("post", "/{domain}/channels/bulk", "200"),
        ("post", "/{domain}/channels/connect", "201"),
        ("post", "/{domain}/channels/disconnect", "204"),
        ("post", "/{domain}/channels/{id}/connect", "201"),
        ("post", "/{domain}/channels/{id}/disconnect", "204"),
        ("post", "/domains/{domain}/roles", "201"),
        ("put", "/{domain}/clients/{id}/roles/{role}", "200"),
        ("delete", "/{domain}/clients/{id}/roles/{role}", "204"),
        ("post", "/{domain}/groups/{id}/roles/{role}/actions", "200"),
        (
            "post",
            "/{domain}/groups/{id}/roles/{role}/actions/delete",
            "204",
        ),
        (
            "post",
            "/{domain}/channels/{id}/roles/{role}/members",
            "200",
        ),
        (
            "post",
            "/{domain}/channels/{id}/roles/{role}/members/delete-all",
            "204",
        ),
    ] {
        let answers = &document["paths"][path][method]["responses"];
        let success: Vec<&String> = answers
            .as_object()
            .unwrap_or_else(|| panic!("{method} {path} is not served"))
            .keys()
            .filter(|code| code.starts_with('2'))
            .collect();
        assert_eq!(success, [status], "{method} {path}");
    }
}
