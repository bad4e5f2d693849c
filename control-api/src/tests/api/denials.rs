//! What is refused: other tenants, wrong requests, and how little a refusal tells.

use super::*;

/// What a field of a body is filled with: ids of the victim where an id belongs.
fn filler(name: &str, schema: &Value, ids: &Ids) -> Value {
    let id = match name {
        "client_ids" | "client_id" | "thing_ids" | "thing_id" => &ids.client,
        "channel_ids" | "channel_id" => &ids.channel,
        "parent_group_id" | "parent_id" | "group_id" | "group_ids" | "groups" | "children_ids" => {
            &ids.group
        }
        "members" | "member_ids" | "user_ids" | "invitee_user_id" | "user_id"
        | "optional_members" => &ids.user,
        "domain_id" => &ids.domain,
        "role_id" => &ids.role,
        "types" | "type" => return json!(["publish"]),
        "actions" | "optional_actions" => return json!(["read"]),
        "relation" => return json!("viewer"),
        "status" => return json!("enabled"),
        // Two lists of different lengths do not fit together, whoever asks.
        "pairwise" => return json!(false),
        // Made anew where none is given.
        "id" | "route" | "alias" => return Value::Null,
        _ => {
            return match schema["type"].as_str() {
                Some("array") => json!(["x"]),
                Some("object") => json!({}),
                Some("boolean") => json!(true),
                Some("integer") => json!(1),
                _ => json!(format!("x{}", crate::secret::random_id())),
            };
        }
    };
    if schema["type"] == "array" {
        json!([id])
    } else {
        json!(id)
    }
}

/// Ids of one tenant's things, or of things that nobody has.
struct Ids {
    domain: String,
    client: String,
    channel: String,
    group: String,
    user: String,
    role: String,
}

impl Ids {
    fn unknown() -> Ids {
        let id = || crate::secret::random_id().to_string();
        Ids {
            domain: id(),
            client: id(),
            channel: id(),
            group: id(),
            user: id(),
            role: "domain_0000000000000000000000".to_owned(),
        }
    }

    fn path(&self, pattern: &str, domain: &str) -> String {
        let entity = if pattern.contains("/clients/{id}") {
            &self.client
        } else if pattern.contains("/channels/{id}") {
            &self.channel
        } else {
            &self.group
        };
        pattern
            .replace("{domain}", domain)
            .replace("{kind}/{id}", &format!("client/{}", self.client))
            .replace("{id}", entity)
            .replace("{client}", &self.client)
            .replace("{user}", &self.user)
            .replace("{role}", &self.role)
    }

    /// An answer without the ids that it repeats.
    fn mask(&self, answer: &Value) -> String {
        let mut text = answer.to_string();
        for id in [
            &self.domain,
            &self.client,
            &self.channel,
            &self.group,
            &self.user,
            &self.role,
        ] {
            text = text.replace(id.as_str(), "ID");
        }
        text
    }
}

async fn tenant(world: &World, owner: &Person, route: &str) -> Ids {
    let domain = world.domain(owner, route).await;
    let role = world
        .role(owner, &format!("/domains/{domain}"), &["read"], &[])
        .await;
    Ids {
        client: world
            .entity(owner, &domain, "clients", json!({ "name": "c" }))
            .await,
        channel: world
            .entity(owner, &domain, "channels", json!({ "name": "ch" }))
            .await,
        group: world
            .entity(owner, &domain, "groups", json!({ "name": "g" }))
            .await,
        user: owner.id.clone(),
        role,
        domain,
    }
}

#[tokio::test]
async fn t_id_3_no_route_reaches_another_tenant_or_tells_what_exists_there() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let victim = tenant(&world, &ann, "victim").await;
    let own = tenant(&world, &bob, "own").await;
    let mut asked = 0;
    for (pattern, methods) in crate::api::document()["paths"].as_object().unwrap() {
        if !pattern.contains("{domain}") {
            continue;
        }
        for (method, route) in methods.as_object().unwrap() {
            let method = method.to_uppercase();
            let ask = async |ids: &Ids, domain: &str| {
                let path = ids.path(pattern, domain);
                let schema = &route["requestBody"]["content"]["application/json"]["schema"];
                let item = if schema["type"] == "array" {
                    &schema["items"]
                } else {
                    schema
                };
                let mut body = json!({});
                for (name, schema) in item["properties"].as_object().into_iter().flatten() {
                    body[name] = filler(name, schema, ids);
                }
                let body = if schema["type"] == "array" {
                    json!([body])
                } else {
                    body
                };
                world
                    .server
                    .call(&method, &path, &bob.token, Some(&body))
                    .await
            };
            // Into the other's domain, whatever is named there. An invitation of one's own is the
            // one thing that somebody outside may ask for.
            let (status, inside) = ask(&victim, &victim.domain).await;
            let unknown = Ids::unknown();
            let (unknown_status, nowhere) = ask(&unknown, &unknown.domain).await;
            let open = pattern.ends_with("/available-actions");
            assert!(
                open || status >= 400,
                "{method} {pattern}: {status} {inside}"
            );
            assert_eq!(
                (status, victim.mask(&inside)),
                (unknown_status, unknown.mask(&nowhere)),
                "{method} {pattern}: an outsider can tell that the domain exists"
            );
            // The other's things, asked for in a domain of one's own: by the path or in the body.
            if !names_things(pattern, route) {
                continue;
            }
            let (status, foreign) = ask(
                &Ids {
                    user: bob.id.clone(),
                    domain: own.domain.clone(),
                    ..ids_of(&victim)
                },
                &own.domain,
            )
            .await;
            let unknown = Ids {
                user: bob.id.clone(),
                domain: own.domain.clone(),
                ..Ids::unknown()
            };
            let (unknown_status, nowhere) = ask(&unknown, &own.domain).await;
            let own_list = status == 200 && foreign["total"] == 0;
            assert!(
                open || own_list || status >= 400,
                "{method} {pattern}: {status} {foreign}"
            );
            assert_eq!(
                (status, victim.mask(&foreign)),
                (unknown_status, unknown.mask(&nowhere)),
                "{method} {pattern}: a tenant can tell that another's thing exists"
            );
            asked += 1;
        }
    }
    assert!(asked > 100, "{asked}");
    for kind in ["clients", "channels", "groups"] {
        for query in ["id", "group", "channel", "client"] {
            let of = |ids: &Ids| match query {
                "channel" => ids.channel.clone(),
                "client" => ids.client.clone(),
                _ => ids.group.clone(),
            };
            let (domain, unknown) = (&own.domain, Ids::unknown());
            let list = async |ids: &Ids| {
                let path = format!("/{domain}/{kind}?{query}={}", of(ids));
                world.server.call("GET", &path, &bob.token, None).await
            };
            let (foreign, nowhere) = (list(&victim).await, list(&unknown).await);
            assert_eq!(foreign.0, nowhere.0, "{kind}?{query}");
            assert_eq!(
                victim.mask(&foreign.1),
                unknown.mask(&nowhere.1),
                "{kind}?{query}"
            );
            // A kind is connected to another one; elsewhere the filter means nothing.
            let filters = match query {
                "client" => kind == "channels",
                "channel" => kind == "clients",
                _ => true,
            };
            assert!(
                !filters || foreign.1["total"] == 0 || foreign.0 == 404,
                "{kind}?{query}: {foreign:?}"
            );
        }
    }
    let explain = async |ids: &Ids, subject: &str, object: &str| {
        let path = format!(
            "/{}/authz/explain?subject={subject}&action=read&object={object}",
            own.domain
        );
        let (status, answer) = world.server.call("GET", &path, &bob.token, None).await;
        (status, ids.mask(&answer))
    };
    let unknown = Ids::unknown();
    for of in [
        |ids: &Ids| ids.client.clone(),
        |ids: &Ids| ids.channel.clone(),
        |ids: &Ids| ids.group.clone(),
    ] {
        assert_eq!(
            explain(&victim, &bob.id, &of(&victim)).await,
            explain(&unknown, &bob.id, &of(&unknown)).await
        );
        assert_eq!(
            explain(&victim, &of(&victim), &own.channel).await,
            explain(&unknown, &of(&unknown), &own.channel).await
        );
    }
    // Nothing of the victim's was changed on the way.
    let shown = world
        .expect(
            "GET",
            &format!("/{}/clients", victim.domain),
            &ann.token,
            None,
            200,
        )
        .await;
    assert_eq!(names(&shown, "clients"), ["c"]);
}

/// Whether a request of this route names things of a domain besides the domain itself.
fn names_things(pattern: &str, route: &Value) -> bool {
    const NAMES: [&str; 16] = [
        "client_ids",
        "client_id",
        "thing_ids",
        "thing_id",
        "channel_ids",
        "channel_id",
        "parent_group_id",
        "parent_id",
        "group_id",
        "group_ids",
        "groups",
        "children_ids",
        "role_id",
        "group",
        "channel",
        "client",
    ];
    let schema = &route["requestBody"]["content"]["application/json"]["schema"];
    let fields = [&schema["properties"], &schema["items"]["properties"]];
    let in_body = |name: &str| fields.iter().any(|fields| !fields[name].is_null());
    ["{id}", "{client}", "{role}"]
        .iter()
        .any(|part| pattern.contains(part))
        || NAMES.iter().any(|name| in_body(name))
}

#[tokio::test]
async fn t_id_3_what_belongs_to_another_user_is_not_told_from_what_nobody_has() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "victim").await;
    let pat = json!({ "name": "p", "duration": "1h" });
    let pat = text(&world.server.made("/pats", &ann.token, 201, pat).await["id"]);
    let key = json!({ "type": 3, "duration": 3600 });
    let key = text(&world.server.made("/keys", &ann.token, 201, key).await["id"]);
    let path = "/users/tokens/refresh-tokens";
    let logins = world.expect("GET", path, &ann.token, None, 200).await;
    let login = text(&logins["refresh_tokens"][0]["id"]);
    let mut asked = 0;
    for (pattern, methods) in crate::api::document()["paths"].as_object().unwrap() {
        // Users see each other, briefly; what they may change there is nothing, whoever it is.
        let of_users = pattern.starts_with("/users/{id}") || pattern == "/journal/user/{id}";
        if pattern.contains("{domain}") {
            continue;
        }
        for (method, route) in methods.as_object().unwrap() {
            let fields =
                &route["requestBody"]["content"]["application/json"]["schema"]["properties"];
            let in_body = ["domain_id", "token_id"]
                .iter()
                .find(|name| !fields[**name].is_null());
            let security = route["security"].as_array().unwrap();
            if security.is_empty() || !pattern.contains("{id}") && in_body.is_none() {
                continue;
            }
            let unknown = crate::secret::random_id().to_string();
            let ask = async |foreign: bool| {
                let of = |own: &str| {
                    if foreign {
                        own.to_owned()
                    } else {
                        unknown.clone()
                    }
                };
                let id = match pattern {
                    _ if of_users => of(&ann.id),
                    _ if pattern.starts_with("/keys") => of(&key),
                    _ => of(&pat),
                };
                let mut body = json!({});
                for (name, schema) in fields.as_object().into_iter().flatten() {
                    body[name] = match name.as_str() {
                        "domain_id" => json!(of(&domain)),
                        "token_id" => json!(of(&login)),
                        // Another way to name an invitation, which takes precedence.
                        "token" => continue,
                        "duration" => json!("1h"),
                        _ if schema["type"] == "string" => json!("xxxxxxxx"),
                        _ => json!([]),
                    };
                }
                let method = method.to_uppercase();
                let path = pattern.replace("{id}", &id);
                let (status, answer) = world
                    .server
                    .call(&method, &path, &bob.token, Some(&body))
                    .await;
                let mut shown = answer.to_string();
                for own in [&id, &of(&domain), &of(&login)] {
                    shown = shown.replace(own.as_str(), "ID");
                }
                (status, shown)
            };
            if of_users
                && method == "get"
                && !pattern.ends_with("/domains")
                && pattern != "/journal/user/{id}"
            {
                let (status, shown) = ask(true).await;
                assert!(
                    status == 200 && !shown.contains("email"),
                    "{pattern}: {shown}"
                );
                continue;
            }
            let (foreign, nobody) = (ask(true).await, ask(false).await);
            assert!(foreign.0 >= 400, "{method} {pattern}: {foreign:?}");
            assert_eq!(foreign, nobody, "{method} {pattern}");
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked}");
    // Ann's things are still hers.
    world
        .expect("GET", &format!("/pats/{pat}"), &ann.token, None, 200)
        .await;
    world
        .expect("GET", &format!("/keys/{key}"), &ann.token, None, 200)
        .await;
}

fn ids_of(ids: &Ids) -> Ids {
    Ids {
        domain: ids.domain.clone(),
        client: ids.client.clone(),
        channel: ids.channel.clone(),
        group: ids.group.clone(),
        user: ids.user.clone(),
        role: ids.role.clone(),
    }
}

#[tokio::test]
async fn every_route_wants_a_token_and_says_so_in_json() {
    let world = World::new().await;
    let ids = Ids::unknown();
    for (pattern, methods) in crate::api::document()["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let security = route["security"].as_array().unwrap();
            if security.is_empty() || security[0].as_object().unwrap().is_empty() {
                continue;
            }
            let path = ids.path(pattern, &ids.domain);
            for token in ["", "nonsense", "pat_nonsense", "eyJ.eyJ.x"] {
                let (status, _) = world
                    .server
                    .call(&method.to_uppercase(), &path, token, None)
                    .await;
                assert_eq!(status, 401, "{method} {path} {token:?}");
            }
        }
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_with_the_status_that_says_why() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let clients = format!("/{domain}/clients");
    let unknown = crate::secret::random_id();
    for (method, path, body, status) in [
        ("GET", "/nowhere".to_owned(), None, 404),
        ("PUT", clients.clone(), None, 405),
        ("DELETE", "/users/tokens/issue".to_owned(), None, 405),
        ("GET", format!("{clients}/no-id"), None, 400),
        ("GET", format!("{clients}/{unknown}"), None, 404),
        ("GET", format!("/{unknown}/clients"), None, 403),
        ("POST", clients.clone(), Some(json!({ "name": 7 })), 400),
        (
            "POST",
            clients.clone(),
            Some(json!({ "name": "x".repeat(1025) })),
            400,
        ),
        ("POST", clients.clone(), Some(json!({ "id": "x" })), 400),
        ("POST", clients.clone(), Some(json!({ "tags": [7] })), 400),
        ("POST", clients.clone(), Some(json!({ "tags": [""] })), 400),
        (
            "POST",
            clients.clone(),
            Some(json!({ "credentials": { "identity": "a\0" } })),
            400,
        ),
        (
            "POST",
            clients.clone(),
            Some(json!({ "credentials": { "identity": "x".repeat(255) } })),
            400,
        ),
        ("GET", format!("{clients}?name=a%00"), None, 400),
        ("GET", "/%00/clients".to_owned(), None, 400),
        (
            "POST",
            clients.clone(),
            Some(json!({ "metadata": [] })),
            400,
        ),
        (
            "POST",
            clients.clone(),
            Some(json!({ "status": "gone" })),
            400,
        ),
        ("POST", format!("{clients}/bulk"), Some(json!([])), 400),
        ("POST", format!("{clients}/bulk"), Some(json!({})), 400),
        (
            "POST",
            format!("{clients}/bulk"),
            Some(json!([{ "name": "a" }, { "name": 1 }])),
            400,
        ),
        (
            "POST",
            format!("/{domain}/channels"),
            Some(json!({ "route": "a b" })),
            400,
        ),
        ("POST", format!("/{domain}/groups"), Some(json!({})), 400),
        (
            "POST",
            "/pats".to_owned(),
            Some(json!({ "name": "x", "duration": "soon" })),
            400,
        ),
        ("POST", "/users/send-verification".to_owned(), None, 422),
    ] {
        world.expect(method, &path, &ann.token, body, status).await;
    }
    let raw = async |path: &str, content_type: &str, body: &str| {
        let (token, length) = (&ann.token, body.len());
        let answer = world
            .server
            .exchange(&format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
                 content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
            ))
            .await;
        assert!(answer.contains("x-request-id: "), "{answer}");
        answer[9..12].parse::<u16>().unwrap()
    };
    let json = "application/json";
    assert_eq!(raw(&clients, "text/plain", "{}").await, 415);
    assert_eq!(raw(&clients, "", "{}").await, 415);
    assert_eq!(raw(&clients, json, "{").await, 400);
    assert_eq!(raw(&clients, json, "").await, 400);
    let deep = format!(
        "{{\"metadata\":{}1{}}}",
        "{\"a\":".repeat(40),
        "}".repeat(40)
    );
    assert_eq!(raw(&clients, json, &deep).await, 400);
    let long = format!("{{\"name\":\"x\"}}{}", " ".repeat(1024 * 1024));
    assert_eq!(raw(&clients, json, &long).await, 413);
    assert_eq!(
        raw(
            &clients,
            "application/json; charset=utf-8",
            "{\"unknown\":1}"
        )
        .await,
        201
    );
}

#[tokio::test]
async fn what_was_done_and_denied_is_in_a_journal_that_cannot_be_changed() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let client = world
        .entity(&ann, &domain, "clients", json!({ "name": "pump" }))
        .await;
    let path = format!("/{domain}/clients/{client}");
    world
        .expect(
            "PATCH",
            &path,
            &ann.token,
            Some(json!({ "name": "new" })),
            200,
        )
        .await;
    world.expect("DELETE", &path, &bob.token, None, 403).await;
    // Of a personal access token as well, where the domain is named by its route.
    let pat = json!({ "name": "p", "duration": "1h" });
    let pat = text(&world.server.made("/pats", &ann.token, 201, pat).await["secret"]);
    let by_route = path.replace(&domain, "plant");
    world.expect("DELETE", &by_route, &pat, None, 403).await;
    let journal = format!("/{domain}/journal/client/{client}");
    let query = format!("{journal}?with_attributes=true&with_metadata=true&dir=asc");
    let page = world.expect("GET", &query, &ann.token, None, 200).await;
    let rows: Vec<(String, String)> = page["journals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["operation"]), text(&row["outcome"])))
        .collect();
    let row = |operation: &str, outcome: &str| (operation.to_owned(), outcome.to_owned());
    let expected = [
        row("client.create", "done"),
        row("client.update", "done"),
        row("client.remove", "denied"),
        row("client.remove", "denied"),
    ];
    assert_eq!(rows, expected);
    assert_eq!(page["journals"][2]["metadata"]["user_id"], bob.id);
    assert_eq!(page["journals"][3]["metadata"]["user_id"], ann.id);
    assert_eq!(page["journals"][1]["attributes"]["name"], "new");
    assert!(!page.to_string().contains("secret"), "{page}");
    let filtered = format!("{journal}?operation=client.update");
    let page = world.expect("GET", &filtered, &ann.token, None, 200).await;
    assert_eq!(page["total"], 1);
    world.expect("GET", &journal, &bob.token, None, 403).await;
    let own = format!("/journal/user/{}", bob.id);
    let page = world.expect("GET", &own, &bob.token, None, 200).await;
    assert!(page["total"].as_u64().unwrap() >= 2, "{page}");
    world.expect("GET", &own, &ann.token, None, 403).await;

    let whole = world
        .expect("GET", "/journal/verify", &world.admin, None, 200)
        .await;
    assert_eq!(whole["whole"], true);
    let mut write = world.at.control.0.store.write().await.unwrap();
    crate::store::sql::query("UPDATE journal SET peer = 'elsewhere' WHERE seq = 3")
        .execute(write.connection())
        .await
        .unwrap();
    write.commit().await.unwrap();
    let broken = world
        .expect("GET", "/journal/verify", &world.admin, None, 200)
        .await;
    assert_eq!(
        (&broken["whole"], &broken["first_broken"]),
        (&json!(false), &json!(3))
    );
}

#[tokio::test]
async fn older_paths_lead_to_the_routes_of_today() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let login = json!({ "identity": "ann", "secret": PASSWORD, "domain_id": domain });
    let tokens = world
        .server
        .made("/users/tokens/issue", "", 201, login)
        .await;
    let token = text(&tokens["access_token"]);
    let body = json!({ "name": "t", "credentials": { "secret": "s" } });
    let thing = text(&world.server.made("/things", &token, 201, body).await["id"]);
    let channel = text(
        &world
            .server
            .made("/channels", &token, 201, json!({ "name": "c" }))
            .await["id"],
    );
    let group = text(
        &world
            .server
            .made("/groups", &token, 201, json!({ "name": "g" }))
            .await["id"],
    );
    let expect = async |method: &str, path: String, body: Option<Value>, status: u16| {
        world.expect(method, &path, &token, body, status).await
    };
    expect(
        "POST",
        format!("/domains/{domain}/users/assign"),
        Some(json!({ "user_ids": [bob.id], "relation": "member" })),
        201,
    )
    .await;
    expect(
        "PATCH",
        format!("/things/{thing}"),
        Some(json!({ "name": "u" })),
        200,
    )
    .await;
    expect(
        "PUT",
        format!("/channels/{channel}"),
        Some(json!({ "name": "d" })),
        200,
    )
    .await;
    expect(
        "POST",
        "/connect".into(),
        Some(json!({ "thing_id": thing, "channel_id": channel })),
        201,
    )
    .await;
    let page = expect("GET", format!("/channels/{channel}/things"), None, 200).await;
    assert_eq!(page["total"], 1);
    let page = expect("GET", format!("/things/{thing}/channels"), None, 200).await;
    assert_eq!(names(&page, "channels"), ["d"]);
    expect(
        "POST",
        "/disconnect".into(),
        Some(json!({ "thing_id": thing, "channel_id": channel })),
        204,
    )
    .await;
    expect(
        "POST",
        format!("/channels/{channel}/things/{thing}/connect"),
        None,
        201,
    )
    .await;
    expect(
        "POST",
        format!("/channels/{channel}/groups/assign"),
        Some(json!({ "group_ids": [group] })),
        201,
    )
    .await;
    let page = expect("GET", format!("/groups/{group}/channels"), None, 200).await;
    assert_eq!(page["total"], 1);
    expect(
        "POST",
        format!("/channels/{channel}/groups/unassign"),
        Some(json!({ "group_ids": [group] })),
        204,
    )
    .await;
    // A relation that nobody gets makes no role.
    let share = json!({ "user_ids": [thing], "relation": "viewer" });
    expect("POST", format!("/things/{thing}/share"), Some(share), 400).await;
    let page = expect("GET", format!("/{domain}/clients/{thing}/roles"), None, 200).await;
    assert_eq!(page["total"], 1);
    let share = json!({ "user_ids": [bob.id], "relation": "viewer" });
    expect(
        "POST",
        format!("/things/{thing}/share"),
        Some(share.clone()),
        201,
    )
    .await;
    world
        .expect(
            "GET",
            &format!("/{domain}/clients/{thing}"),
            &bob.token,
            None,
            200,
        )
        .await;
    let shown = expect("GET", format!("/things/{thing}/permissions"), None, 200).await;
    assert_eq!(shown["permissions"].as_array().unwrap().len(), 9);
    expect(
        "POST",
        format!("/things/{thing}/unshare"),
        Some(share.clone()),
        204,
    )
    .await;
    world
        .expect(
            "GET",
            &format!("/{domain}/clients/{thing}"),
            &bob.token,
            None,
            403,
        )
        .await;
    expect("GET", format!("/domains/{domain}/permissions"), None, 200).await;
    expect("GET", format!("/domains/{domain}/users"), None, 200).await;
    expect("GET", format!("/users/{}/things", ann.id), None, 200).await;
    expect(
        "POST",
        format!("/{domain}/groups/{group}/parents"),
        Some(json!({ "parent_id": group })),
        400,
    )
    .await;
    expect("DELETE", format!("/things/{thing}"), None, 204).await;
    // A token that names no domain needs the header.
    world.expect("GET", "/things", &bob.token, None, 400).await;
    let answer = world
        .server
        .exchange(&format!(
            "GET /channels HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-domain-id: {domain}\r\n\
         authorization: Bearer {}\r\n\r\n",
            ann.token
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn t_id_4_a_personal_access_token_without_scopes_can_do_nothing() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let own = tenant(&world, &ann, "own").await;
    let body = json!({ "name": "p", "duration": "1h" });
    let made = world
        .expect("POST", "/pats", &ann.token, Some(body), 201)
        .await;
    let pat = text(&made["secret"]);
    for (pattern, methods) in crate::api::document()["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let security = route["security"].as_array().unwrap();
            if security.is_empty() {
                continue;
            }
            let method = method.to_uppercase();
            let path = own.path(pattern, &own.domain);
            let schema = &route["requestBody"]["content"]["application/json"]["schema"];
            let is_list = schema["type"] == "array";
            let item = if is_list { &schema["items"] } else { schema };
            let mut body = json!({});
            for (name, schema) in item["properties"].as_object().into_iter().flatten() {
                body[name] = filler(name, schema, &own);
            }
            let body = if is_list { json!([body]) } else { body };
            let (status, answer) = world.server.call(&method, &path, &pat, Some(&body)).await;
            assert!(
                matches!(status, 401 | 403),
                "{method} {path}: {status} {answer}"
            );
        }
    }
}
