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
