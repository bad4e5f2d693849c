//! Domains, clients, channels, groups and what connects them.

use authcache::EntityId;
use authcache::feed::{Answer, Question, Refusal, SharedKey};

use super::*;

#[tokio::test]
async fn a_domain_is_made_changed_switched_and_removed() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let body = json!({ "name": "Plant", "alias": "plant", "tags": ["x"], "metadata": { "a": 1 } });
    let made = world
        .expect("POST", "/domains", &ann.token, Some(body.clone()), 201)
        .await;
    assert_eq!(
        (&made["route"], &made["alias"]),
        (&json!("plant"), &json!("plant"))
    );
    world
        .expect("POST", "/domains", &ann.token, Some(body), 409)
        .await;
    let path = format!("/domains/{}", text(&made["id"]));
    let shown = world
        .expect("GET", &format!("{path}?roles=true"), &ann.token, None, 200)
        .await;
    assert_eq!(shown["roles"][0]["role_name"], "admin");
    world
        .expect("GET", "/domains/plant", &ann.token, None, 200)
        .await;
    let list = world.expect("GET", "/domains", &ann.token, None, 200).await;
    assert_eq!(names(&list, "domains"), ["Plant"]);
    let list = world.expect("GET", "/domains", &bob.token, None, 200).await;
    assert_eq!(list["total"], 0);
    let body = json!({ "name": "New", "metadata": null });
    let changed = world
        .expect("PATCH", &path, &ann.token, Some(body), 200)
        .await;
    assert_eq!(
        (&changed["name"], &changed["metadata"], &changed["tags"]),
        (&json!("New"), &json!({}), &json!(["x"]))
    );
    world
        .expect("POST", &format!("{path}/disable"), &ann.token, None, 200)
        .await;
    world
        .expect("POST", &format!("{path}/disable"), &ann.token, None, 409)
        .await;
    world.expect("GET", &path, &ann.token, None, 200).await;
    world
        .expect("POST", &format!("{path}/enable"), &ann.token, None, 200)
        .await;
    world
        .expect("POST", &format!("{path}/freeze"), &ann.token, None, 403)
        .await;
    world
        .expect("POST", &format!("{path}/freeze"), &world.admin, None, 200)
        .await;
    world.expect("GET", &path, &ann.token, None, 403).await;
    world
        .expect("POST", &format!("{path}/enable"), &world.admin, None, 200)
        .await;
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    world.expect("GET", &path, &world.admin, None, 404).await;
    for bad in [
        json!({ "route": "x" }),
        json!({ "name": "x" }),
        json!({ "name": "x", "route": "a b" }),
    ] {
        world
            .expect("POST", "/domains", &ann.token, Some(bad), 400)
            .await;
    }
}

#[tokio::test]
async fn clients_and_channels_are_made_found_changed_and_removed() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    for plural in ["clients", "channels"] {
        let base = format!("/{domain}/{plural}");
        let body = json!({ "name": "Pump one", "tags": ["wet", "old"], "metadata": { "hall": { "no": 2 } } });
        let made = world
            .expect("POST", &base, &ann.token, Some(body), 201)
            .await;
        let id = text(&made["id"]);
        let path = format!("{base}/{id}");
        let bulk = json!([{ "name": "b1", "tags": ["wet"] }, { "name": "b2" }]);
        let bulk = world
            .expect("POST", &format!("{base}/bulk"), &ann.token, Some(bulk), 200)
            .await;
        assert_eq!(bulk["total"], 2);
        for (query, found) in [
            ("", 3),
            ("?name=PUMP", 1),
            ("?name=%25", 0),
            ("?tags=wet", 2),
            ("?tags=wet%2Bold", 1),
            ("?tags=old,none", 1),
            ("?metadata=%7B%22hall%22%3A%7B%22no%22%3A2%7D%7D", 1),
            ("?metadata=%7B%22hall%22%3A%7B%22no%22%3A3%7D%7D", 0),
            ("?status=disabled", 0),
            ("?actions=update,delete", 3),
            ("?access_type=direct", 3),
            ("?created_from=2100-01-01T00:00:00Z", 0),
            ("?group=", 3),
        ] {
            let page = world
                .expect("GET", &format!("{base}{query}"), &ann.token, None, 200)
                .await;
            assert_eq!(page["total"], found, "{plural}{query}: {page}");
        }
        let page = world
            .expect(
                "GET",
                &format!("{base}?order=name&dir=asc&limit=2"),
                &ann.token,
                None,
                200,
            )
            .await;
        assert_eq!(names(&page, plural), ["Pump one", "b1"]);
        assert_eq!(page["limit"], 2);
        assert_eq!(page[plural][0]["role_name"], "admin");
        for query in [
            "?limit=0",
            "?limit=101",
            "?order=color",
            "?dir=up",
            "?status=x",
            "?metadata=x",
            "?name=a&name=b",
            "?actions=fly",
            "?access_type=none",
        ] {
            world
                .expect("GET", &format!("{base}{query}"), &ann.token, None, 400)
                .await;
        }
        let body = json!({ "name": "New", "id": "ignored", "status": "disabled" });
        let changed = world
            .expect("PATCH", &path, &ann.token, Some(body), 200)
            .await;
        assert_eq!(
            (&changed["name"], &changed["status"]),
            (&json!("New"), &json!("enabled"))
        );
        let body = json!({ "tags": ["dry"] });
        world
            .expect(
                "PATCH",
                &format!("{path}/tags"),
                &ann.token,
                Some(body),
                200,
            )
            .await;
        let page = world
            .expect("GET", &format!("{base}?tags=wet"), &ann.token, None, 200)
            .await;
        assert_eq!(page["total"], 1);
        world
            .expect("POST", &format!("{path}/disable"), &ann.token, None, 200)
            .await;
        world
            .expect("POST", &format!("{path}/disable"), &ann.token, None, 409)
            .await;
        world
            .expect("POST", &format!("{path}/enable"), &ann.token, None, 200)
            .await;
        world.expect("DELETE", &path, &ann.token, None, 204).await;
        world.expect("GET", &path, &ann.token, None, 404).await;
    }
}

#[tokio::test]
async fn secret_of_a_psk_client_is_kept_for_its_handshakes_and_shown_to_nobody() {
    let world = World::with(ApiSettings {
        reveal_client_secrets: false,
        ..ApiSettings::default()
    })
    .await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let base = format!("/{domain}/clients");
    let key = async |id: &Value| {
        let id = EntityId::from_text(&text(id)).unwrap();
        let identifier = &world.at.control.0.identifier;
        let question = Question::Key {
            client: id,
            peer: None,
        };
        identifier.answer(&question).await.1
    };
    let refused = Answer::Refused(Refusal::BadCredentials);
    let secret = |secret: &str| json!({ "secret": secret });
    for psk in [true, false] {
        let body = json!({ "name": "pump", "psk": psk, "credentials": secret(&format!("s{psk}")) });
        let made = world
            .expect("POST", &base, &ann.token, Some(body), 201)
            .await;
        let told = |secret: &str| match psk {
            true => Answer::Key(SharedKey(secret.as_bytes().to_vec())),
            false => refused.clone(),
        };
        assert_eq!(key(&made["id"]).await, told(&format!("s{psk}")));
        let path = format!("{base}/{}", text(&made["id"]));
        let shown = world.expect("GET", &path, &ann.token, None, 200).await;
        assert_eq!(shown["credentials"]["secret"].as_str(), None);
        let body = Some(secret(&format!("new{psk}")));
        world
            .expect("PATCH", &format!("{path}/secret"), &ann.token, body, 200)
            .await;
        assert_eq!(key(&made["id"]).await, told(&format!("new{psk}")));
        world
            .expect("POST", &format!("{path}/disable"), &ann.token, None, 200)
            .await;
        assert_eq!(key(&made["id"]).await, refused);
    }
}

#[tokio::test]
async fn a_clients_secret_is_shown_to_whom_and_when_the_installation_says() {
    for reveal in [true, false] {
        let world = World::with(ApiSettings {
            reveal_client_secrets: reveal,
            ..ApiSettings::default()
        })
        .await;
        let ann = world.person("ann").await;
        let domain = world.domain(&ann, "plant").await;
        let base = format!("/{domain}/clients");
        let body = json!({ "name": "pump", "credentials": { "identity": "i", "secret": "given" } });
        let made = world
            .expect("POST", &base, &ann.token, Some(body.clone()), 201)
            .await;
        assert_eq!(
            made["credentials"],
            json!({ "identity": "i", "secret": "given" })
        );
        world
            .expect("POST", &base, &ann.token, Some(body), 409)
            .await;
        let path = format!("{base}/{}", text(&made["id"]));
        let shown = world.expect("GET", &path, &ann.token, None, 200).await;
        let seen = |value: &Value| value["credentials"]["secret"].as_str().map(str::to_owned);
        assert_eq!(seen(&shown), reveal.then(|| "given".to_owned()));
        let body = json!({ "secret": "other" });
        let changed = world
            .expect(
                "PATCH",
                &format!("{path}/secret"),
                &ann.token,
                Some(body),
                200,
            )
            .await;
        assert_eq!(seen(&changed).as_deref(), Some("other"));
        let shown = world.expect("GET", &path, &ann.token, None, 200).await;
        assert_eq!(seen(&shown), reveal.then(|| "other".to_owned()));
    }
}

#[tokio::test]
async fn pairwise_connects_each_client_with_the_channel_in_the_same_place_only() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let (mut clients, mut channels) = (Vec::new(), Vec::new());
    for at in 0..3 {
        let named = json!({ "name": format!("n{at}") });
        clients.push(world.entity(&ann, &domain, "clients", named.clone()).await);
        channels.push(world.entity(&ann, &domain, "channels", named).await);
    }
    let path = format!("/{domain}/channels/connect");
    let pairs = |clients: &[String], channels: &[String]| {
        json!({
            "client_ids": clients, "channel_ids": channels, "types": ["publish"], "pairwise": true,
        })
    };
    // Lists of different lengths, and taking away, are no pairs.
    for (path, body) in [
        (path.clone(), pairs(&clients, &channels[1..])),
        (
            format!("/{domain}/channels/disconnect"),
            pairs(&clients, &channels),
        ),
    ] {
        world
            .expect("POST", &path, &ann.token, Some(body), 400)
            .await;
    }
    let body = pairs(&clients, &channels);
    world
        .expect("POST", &path, &ann.token, Some(body.clone()), 201)
        .await;
    for client in &clients {
        let path = format!("/{domain}/clients/{client}/channels");
        let page = world.expect("GET", &path, &ann.token, None, 200).await;
        assert_eq!(page["total"], 1, "{page}");
    }
    // All or nothing: the last pair exists already.
    let again = [clients[0].clone(), clients[1].clone()];
    let onto = [channels[1].clone(), channels[1].clone()];
    world
        .expect("POST", &path, &ann.token, Some(pairs(&again, &onto)), 409)
        .await;
    let path = format!("/{domain}/clients/{}/channels", clients[0]);
    let page = world.expect("GET", &path, &ann.token, None, 200).await;
    assert_eq!(page["total"], 1, "{page}");
}

#[tokio::test]
async fn connections_are_made_listed_and_taken_away() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let client = world
        .entity(&ann, &domain, "clients", json!({ "name": "pump" }))
        .await;
    let channel = world
        .entity(
            &ann,
            &domain,
            "channels",
            json!({ "name": "line", "route": "line" }),
        )
        .await;
    let base = format!("/{domain}/channels");
    let body = json!({ "client_ids": [client], "channel_ids": [channel], "types": ["Publish"] });
    world
        .expect(
            "POST",
            &format!("{base}/connect"),
            &ann.token,
            Some(body.clone()),
            201,
        )
        .await;
    world
        .expect(
            "POST",
            &format!("{base}/connect"),
            &ann.token,
            Some(body),
            409,
        )
        .await;
    let one = json!({ "client_ids": [client], "types": "subscribe" });
    world
        .expect(
            "POST",
            &format!("{base}/{channel}/connect"),
            &ann.token,
            Some(one.clone()),
            201,
        )
        .await;
    for (path, plural, count) in [
        (format!("/{domain}/clients?channel={channel}"), "clients", 1),
        (
            format!("/{domain}/clients?channel={channel}&connection_type=publish"),
            "clients",
            1,
        ),
        (format!("{base}?client={client}"), "channels", 1),
        (format!("{base}/{channel}/clients"), "clients", 1),
    ] {
        let page = world.expect("GET", &path, &ann.token, None, 200).await;
        assert_eq!(
            page[plural].as_array().unwrap().len(),
            count,
            "{path}: {page}"
        );
    }
    world
        .expect(
            "POST",
            &format!("{base}/{channel}/disconnect"),
            &ann.token,
            Some(one.clone()),
            204,
        )
        .await;
    world
        .expect(
            "POST",
            &format!("{base}/{channel}/disconnect"),
            &ann.token,
            Some(one),
            204,
        )
        .await;
    let left = format!("/{domain}/clients?channel={channel}&connection_type=subscribe");
    let page = world.expect("GET", &left, &ann.token, None, 200).await;
    assert_eq!(page["total"], 0);
    for bad in [
        json!({ "client_ids": [], "channel_ids": [channel], "types": ["publish"] }),
        json!({ "client_ids": [client], "channel_ids": [channel], "types": [] }),
        json!({ "client_ids": [client], "channel_ids": [channel], "types": ["fly"] }),
    ] {
        world
            .expect(
                "POST",
                &format!("{base}/connect"),
                &ann.token,
                Some(bad),
                400,
            )
            .await;
    }
    world
        .expect(
            "POST",
            &format!("/{domain}/clients/{client}/disable"),
            &ann.token,
            None,
            200,
        )
        .await;
    let body = json!({ "client_ids": [client], "channel_ids": [channel], "types": ["subscribe"] });
    world
        .expect(
            "POST",
            &format!("{base}/connect"),
            &ann.token,
            Some(body),
            400,
        )
        .await;
}

#[tokio::test]
async fn groups_form_a_tree_without_circles_and_not_too_deep() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let base = format!("/{domain}/groups");
    let mut chain: Vec<String> = Vec::new();
    for level in 1..=20 {
        let mut body = json!({ "name": format!("g{level}") });
        if let Some(parent) = chain.last() {
            body["parent_id"] = json!(parent);
        }
        let made = world
            .expect("POST", &base, &ann.token, Some(body), 201)
            .await;
        assert_eq!(made["level"], level);
        chain.push(text(&made["id"]));
    }
    let body = json!({ "name": "deep", "parent_id": chain[19] });
    world
        .expect("POST", &base, &ann.token, Some(body), 400)
        .await;
    let below = format!("{base}/{}/hierarchy?level=3", chain[0]);
    let shown = world.expect("GET", &below, &ann.token, None, 200).await;
    assert_eq!(names(&shown, "groups"), ["g1", "g2", "g3", "g4"]);
    let above = format!("{base}/{}/hierarchy?dir=1&level=2&tree=true", chain[4]);
    let shown = world.expect("GET", &above, &ann.token, None, 200).await;
    assert_eq!(
        shown["groups"][0]["children"][0]["children"][0]["name"], "g5",
        "{shown}"
    );
    for (query, count) in [
        ("", 1),
        ("?start_level=2&end_level=4", 3),
        ("?start_level=2&end_level=9223372036854775807", 10),
        ("?start_level=2&end_level=-1", 10),
        ("?start_level=0&end_level=-1&limit=100", 19),
    ] {
        let path = format!("{base}/{}/children{query}", chain[0]);
        let page = world.expect("GET", &path, &ann.token, None, 200).await;
        assert_eq!(
            page["groups"].as_array().unwrap().len(),
            count,
            "{query}: {page}"
        );
    }
    world
        .expect(
            "GET",
            &format!("{base}/{}/children?start_level=4&end_level=2", chain[0]),
            &ann.token,
            None,
            400,
        )
        .await;
    // The middle becomes a root with what is below it, and then goes elsewhere.
    let middle = format!("{base}/{}", chain[10]);
    let parent = |id: &str| Some(json!({ "parent_id": id }));
    world
        .expect(
            "POST",
            &format!("{middle}/parent"),
            &ann.token,
            parent(&chain[0]),
            409,
        )
        .await;
    world
        .expect("DELETE", &format!("{middle}/parent"), &ann.token, None, 204)
        .await;
    let shown = world
        .expect(
            "GET",
            &format!("{base}/{}", chain[19]),
            &ann.token,
            None,
            200,
        )
        .await;
    assert_eq!(shown["level"], 10);
    world
        .expect(
            "POST",
            &format!("{middle}/parent"),
            &ann.token,
            parent(&chain[10]),
            400,
        )
        .await;
    world
        .expect(
            "POST",
            &format!("{middle}/parent"),
            &ann.token,
            parent(&chain[15]),
            400,
        )
        .await;
    world
        .expect(
            "POST",
            &format!("{middle}/parent"),
            &ann.token,
            parent(&chain[0]),
            200,
        )
        .await;
    let shown = world
        .expect(
            "GET",
            &format!("{base}/{}", chain[19]),
            &ann.token,
            None,
            200,
        )
        .await;
    assert_eq!(shown["level"], 11);
    let first = format!("{base}/{}/children", chain[0]);
    let body = Some(json!({ "children_ids": [chain[10]] }));
    world
        .expect("DELETE", &first, &ann.token, body.clone(), 204)
        .await;
    world
        .expect("DELETE", &first, &ann.token, body.clone(), 400)
        .await;
    world.expect("POST", &first, &ann.token, body, 200).await;
    world
        .expect("DELETE", &format!("{first}/all"), &ann.token, None, 204)
        .await;
    let roots = world
        .expect(
            "GET",
            &format!("{base}?root_group=true"),
            &ann.token,
            None,
            200,
        )
        .await;
    assert_eq!(roots["total"], 3);
    // Members of a deleted group stay, without a parent.
    let client = world
        .entity(
            &ann,
            &domain,
            "clients",
            json!({ "parent_group_id": chain[1] }),
        )
        .await;
    let body = Some(json!({ "parent_group_id": chain[2] }));
    let of = format!("/{domain}/clients/{client}");
    world
        .expect("POST", &format!("{of}/parent"), &ann.token, body, 409)
        .await;
    world
        .expect(
            "DELETE",
            &format!("{base}/{}", chain[1]),
            &ann.token,
            None,
            204,
        )
        .await;
    let shown = world.expect("GET", &of, &ann.token, None, 200).await;
    assert!(shown.get("parent_group_id").is_none(), "{shown}");
    let shown = world
        .expect(
            "GET",
            &format!("{base}/{}", chain[2]),
            &ann.token,
            None,
            200,
        )
        .await;
    assert_eq!(shown["level"], 1);
    let group = format!("{base}/{}", chain[2]);
    world
        .expect("POST", &format!("{group}/disable"), &ann.token, None, 200)
        .await;
    let body = Some(json!({ "parent_group_id": chain[2] }));
    world
        .expect("POST", &format!("{of}/parent"), &ann.token, body, 400)
        .await;
    let body = json!({ "name": "renamed", "description": "d" });
    let shown = world
        .expect("PUT", &group, &ann.token, Some(body), 200)
        .await;
    assert_eq!(
        (&shown["name"], &shown["description"]),
        (&json!("renamed"), &json!("d"))
    );
}
