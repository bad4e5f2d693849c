//! Users, logins, personal access tokens and invitations.

use super::*;

#[tokio::test]
async fn a_user_is_registered_found_changed_and_removed() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let bob = world.person("bob").await;
    let path = format!("/users/{}", ann.id);
    let own = world
        .expect("GET", "/users/profile", &ann.token, None, 200)
        .await;
    assert_eq!(own["email"], "ann@example.com");
    assert_eq!(own["role"], "user");
    let brief = world.expect("GET", &path, &bob.token, None, 200).await;
    assert!(brief.get("email").is_none(), "{brief}");
    for (method, tail, body, field, value) in [
        (
            "PATCH",
            "",
            json!({ "first_name": "Anna" }),
            "first_name",
            json!("Anna"),
        ),
        (
            "PATCH",
            "/tags",
            json!({ "tags": ["a", "b"] }),
            "tags",
            json!(["a", "b"]),
        ),
        (
            "PATCH",
            "/email",
            json!({ "email": "anna@example.com" }),
            "email",
            json!("anna@example.com"),
        ),
        (
            "PATCH",
            "/picture",
            json!({ "profile_picture": "https://x.example/p" }),
            "profile_picture",
            json!("https://x.example/p"),
        ),
        (
            "PATCH",
            "/username",
            json!({ "username": "anna" }),
            "credentials",
            json!({ "username": "anna" }),
        ),
    ] {
        let shown = world
            .expect(
                method,
                &format!("{path}{tail}"),
                &ann.token,
                Some(body.clone()),
                200,
            )
            .await;
        assert_eq!(shown[field], value);
        world
            .expect(
                method,
                &format!("{path}{tail}"),
                &bob.token,
                Some(body),
                403,
            )
            .await;
    }
    let page = world
        .expect("GET", "/users?username=ANN", &world.admin, None, 200)
        .await;
    assert_eq!(
        (page["total"].clone(), page["limit"].clone()),
        (json!(1), json!(10))
    );
    world.expect("GET", "/users", &ann.token, None, 403).await;
    let found = world
        .expect("GET", "/users/search?username=ann", &bob.token, None, 200)
        .await;
    assert_eq!(found["users"][0]["credentials"]["username"], "anna");
    world
        .expect("GET", "/users/search?username=an", &bob.token, None, 400)
        .await;
    world
        .expect("GET", "/users/search", &bob.token, None, 400)
        .await;

    let made = world
        .expect(
            "PATCH",
            &format!("{path}/role"),
            &world.admin,
            Some(json!({ "role": "admin" })),
            200,
        )
        .await;
    assert_eq!(made["role"], "admin");
    world
        .expect(
            "PATCH",
            &format!("{path}/role"),
            &bob.token,
            Some(json!({ "role": "admin" })),
            403,
        )
        .await;
    world
        .expect("POST", &format!("{path}/disable"), &world.admin, None, 200)
        .await;
    world
        .expect("POST", &format!("{path}/disable"), &world.admin, None, 409)
        .await;
    world
        .expect("GET", "/users/profile", &ann.token, None, 401)
        .await;
    world
        .expect("POST", &format!("{path}/enable"), &world.admin, None, 200)
        .await;
    world
        .expect("GET", "/users/profile", &ann.token, None, 401)
        .await;
    world.expect("DELETE", &path, &world.admin, None, 204).await;
    world.expect("GET", &path, &world.admin, None, 404).await;
}

#[tokio::test]
async fn wrong_and_taken_values_of_users_are_refused() {
    let world = World::new().await;
    world.person("ann").await;
    let user = |username: &str, email: &str, secret: &str| json!({ "email": email, "credentials": { "username": username, "secret": secret } });
    for (body, status) in [
        (user("ann", "new@example.com", PASSWORD), 409),
        (user("new", "Ann@Example.com", PASSWORD), 409),
        (user("n", "nothing", PASSWORD), 400),
        (user("a@b", "x@example.com", PASSWORD), 400),
        (user("n", "x@example.com", "short"), 400),
        (json!({ "email": "x@example.com" }), 400),
        (json!({ "email": 7, "credentials": {} }), 400),
        (json!([]), 400),
    ] {
        world
            .expect("POST", "/users", &world.admin, Some(body), status)
            .await;
    }
    let body = user("self", "self@example.com", PASSWORD);
    world.expect("POST", "/users", "", Some(body), 401).await;
}

#[tokio::test]
async fn who_registers_himself_is_an_ordinary_user_whatever_he_says() {
    let world = World::with(ApiSettings {
        self_registration: true,
        ..ApiSettings::default()
    })
    .await;
    let body = json!({
        "email": "eve@example.com", "role": "admin", "status": "disabled",
        "credentials": { "username": "eve", "secret": PASSWORD },
    });
    // The token that the JavaScript SDK sends when it has none.
    let made = world
        .expect("POST", "/users", "undefined", Some(body), 201)
        .await;
    assert_eq!(
        (made["role"].clone(), made["status"].clone()),
        (json!("user"), json!("enabled"))
    );
}

#[tokio::test]
async fn refresh_tokens_are_good_once_and_a_second_use_ends_the_login() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let login = json!({ "username": "ann", "password": PASSWORD, "description": "laptop" });
    let tokens = world
        .server
        .made("/users/tokens/issue", "", 201, login)
        .await;
    let (access, first) = (
        text(&tokens["access_token"]),
        text(&tokens["refresh_token"]),
    );
    world
        .expect("GET", "/users/profile", &first, None, 401)
        .await;
    world
        .expect("POST", "/users/tokens/refresh", &access, None, 401)
        .await;
    let list = world
        .expect("GET", "/users/tokens/refresh-tokens", &access, None, 200)
        .await;
    let described = list["refresh_tokens"].as_array().unwrap();
    assert!(
        described
            .iter()
            .any(|token| token["description"] == "laptop"),
        "{list}"
    );
    let again = world
        .expect("POST", "/users/tokens/refresh", &first, None, 201)
        .await;
    let (access, second) = (text(&again["access_token"]), text(&again["refresh_token"]));
    world
        .expect("GET", "/users/profile", &access, None, 200)
        .await;
    world
        .expect("POST", "/users/tokens/refresh", &first, None, 401)
        .await;
    world
        .expect("POST", "/users/tokens/refresh", &second, None, 401)
        .await;
    world
        .expect("GET", "/users/profile", &access, None, 401)
        .await;
    let path = format!("/journal/user/{}?operation=user.refresh_token", ann.id);
    let page = world.expect("GET", &path, &world.admin, None, 200).await;
    let noted = page["journals"].as_array().unwrap();
    let noted: Vec<&Value> = noted.iter().map(|row| &row["outcome"]).collect();
    assert_eq!(noted, ["denied", "done"]);
}

#[tokio::test]
async fn a_revoked_login_ends_alone_and_another_password_ends_all() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let other = world.server.login("ann", PASSWORD).await;
    let list = world
        .expect("GET", "/users/tokens/refresh-tokens", &other, None, 200)
        .await;
    let newest = text(&list["refresh_tokens"][0]["id"]);
    let body = json!({ "token_id": newest });
    world
        .expect(
            "POST",
            "/users/tokens/revoke",
            &ann.token,
            Some(body.clone()),
            204,
        )
        .await;
    world
        .expect("POST", "/users/tokens/revoke", &ann.token, Some(body), 404)
        .await;
    world
        .expect("GET", "/users/profile", &other, None, 401)
        .await;
    world
        .expect("GET", "/users/profile", &ann.token, None, 200)
        .await;
    let wrong = json!({ "old_secret": "wrong", "new_secret": "battery staple" });
    world
        .expect("PATCH", "/users/secret", &ann.token, Some(wrong), 401)
        .await;
    let right = json!({ "old_secret": PASSWORD, "new_secret": "battery staple" });
    world
        .expect("PATCH", "/users/secret", &ann.token, Some(right), 200)
        .await;
    world
        .expect("GET", "/users/profile", &ann.token, None, 401)
        .await;
    world.server.login("ann", "battery staple").await;
}

#[tokio::test]
async fn tokens_are_checked_with_published_keys_that_can_be_changed() {
    let world = World::new().await;
    let keys = world
        .expect("GET", "/keys/.well-known/jwks.json", "", None, 200)
        .await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    world.at.control.provision().rotate_keys().await.unwrap();
    let keys = world
        .expect("GET", "/keys/.well-known/jwks.json", "", None, 200)
        .await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    world
        .expect("GET", "/users/profile", &world.admin, None, 200)
        .await;
    let ann = world.person("ann").await;
    world
        .expect("GET", "/users/profile", &ann.token, None, 200)
        .await;
}

#[tokio::test]
async fn tokens_of_revoked_keys_are_refused_everywhere_and_logins_begin_anew() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let login = json!({ "username": "ann", "password": PASSWORD });
    let tokens = world
        .server
        .made("/users/tokens/issue", "", 201, login)
        .await;
    let refresh = text(&tokens["refresh_token"]);
    let pat = json!({ "name": "ci", "duration": "20h" });
    let pat = world.server.made("/pats", &ann.token, 201, pat).await;
    let key = json!({ "type": 3, "duration": 3600 });
    let key = text(&world.server.made("/keys", &ann.token, 201, key).await["value"]);
    let provision = world.at.control.provision();
    // Tokens of a key that was changed in an orderly way are void as well.
    provision.rotate_keys().await.unwrap();
    let newer = world.server.login("ann", PASSWORD).await;
    let jwks = "/keys/.well-known/jwks.json";
    let before = world.expect("GET", jwks, "", None, 200).await;
    provision.revoke_keys().await.unwrap();
    let after = world.expect("GET", jwks, "", None, 200).await;
    let kids = |keys: &Value| -> Vec<String> {
        let keys = keys["keys"].as_array().unwrap().iter();
        keys.map(|key| text(&key["kid"])).collect()
    };
    assert_eq!((kids(&before).len(), kids(&after).len()), (2, 1));
    assert!(!kids(&before).contains(&kids(&after)[0]));
    for token in [&ann.token, &newer, &world.admin] {
        world
            .expect("GET", "/users/profile", token, None, 401)
            .await;
    }
    world
        .expect("POST", "/users/tokens/refresh", &refresh, None, 401)
        .await;
    world.expect("GET", "/users/profile", &key, None, 200).await;
    let fresh = world.server.login("ann", PASSWORD).await;
    let listed = world
        .expect("GET", "/users/tokens/refresh-tokens", &fresh, None, 200)
        .await;
    assert_eq!(
        listed["refresh_tokens"].as_array().unwrap().len(),
        1,
        "{listed}"
    );
    world
        .expect(
            "GET",
            &format!("/pats/{}", text(&pat["id"])),
            &fresh,
            None,
            200,
        )
        .await;
}

#[tokio::test]
async fn a_personal_access_token_does_what_its_scopes_say_and_its_owner_may() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let client = world
        .entity(&ann, &domain, "clients", json!({ "name": "pump" }))
        .await;
    let body = json!({ "name": "ci", "duration": "20h", "description": "d" });
    let made = world
        .expect("POST", "/pats", &ann.token, Some(body), 201)
        .await;
    let (id, pat) = (text(&made["id"]), text(&made["secret"]));
    let path = format!("/pats/{id}");
    let clients = format!("/{domain}/clients");
    let one = format!("{clients}/{client}");
    let denied = world.expect("GET", &one, &pat, None, 403).await;
    assert_eq!(denied["message"], "failed to authorize PAT");
    world.expect("GET", "/pats", &pat, None, 401).await;
    let scope = |operation: &str, entity: &str| {
        json!({ "scopes": [{ "domain_id": domain, "entity_type": "clients",
            "entity_id": entity, "operation": operation }] })
    };
    let add = format!("{path}/scope/add");
    world
        .expect("PATCH", &add, &ann.token, Some(scope("view", &client)), 200)
        .await;
    world.expect("GET", &one, &pat, None, 200).await;
    world.expect("GET", &clients, &pat, None, 403).await;
    world
        .expect("PATCH", &one, &pat, Some(json!({ "name": "n" })), 403)
        .await;
    world
        .expect("PATCH", &add, &ann.token, Some(scope("update", "*")), 200)
        .await;
    world
        .expect("PATCH", &one, &pat, Some(json!({ "name": "n" })), 200)
        .await;
    world
        .expect("POST", &format!("{one}/disable"), &pat, None, 200)
        .await;
    world
        .expect("PATCH", &add, &ann.token, Some(scope("list", "*")), 200)
        .await;
    world
        .expect("GET", &format!("{clients}?status=all"), &pat, None, 200)
        .await;
    for bad in [
        scope("fly", "*"),
        scope("view", "no id"),
        json!({ "scopes": [] }),
    ] {
        world
            .expect("PATCH", &add, &ann.token, Some(bad), 400)
            .await;
    }
    let scopes = world
        .expect("GET", &format!("{path}/scope"), &ann.token, None, 200)
        .await;
    assert_eq!(scopes["total"], 3);
    let first = scopes["scopes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["operation"] == "view");
    let remove = json!({ "scopes_id": [first.unwrap()["id"]] });
    world
        .expect(
            "PATCH",
            &format!("{path}/scope/remove"),
            &ann.token,
            Some(remove),
            200,
        )
        .await;
    world.expect("GET", &one, &pat, None, 403).await;
    world
        .expect("DELETE", &format!("{path}/scope"), &ann.token, None, 200)
        .await;
    world.expect("GET", &clients, &pat, None, 403).await;

    world
        .expect(
            "PATCH",
            &format!("{path}/name"),
            &ann.token,
            Some(json!({ "name": "x" })),
            202,
        )
        .await;
    let body = json!({ "description": "y" });
    world
        .expect(
            "PATCH",
            &format!("{path}/description"),
            &ann.token,
            Some(body),
            202,
        )
        .await;
    let body = json!({ "duration": "1h" });
    let reset = world
        .expect(
            "PATCH",
            &format!("{path}/secret/reset"),
            &ann.token,
            Some(body),
            200,
        )
        .await;
    assert_ne!(reset["secret"], pat);
    world.expect("GET", &one, &pat, None, 401).await;
    let pat = text(&reset["secret"]);
    world.expect("GET", &one, &pat, None, 403).await;
    world
        .expect(
            "PATCH",
            &format!("{path}/secret/revoke"),
            &ann.token,
            None,
            204,
        )
        .await;
    world.expect("GET", &one, &pat, None, 401).await;
    let list = world
        .expect("GET", "/pats?status=revoked", &ann.token, None, 200)
        .await;
    assert_eq!(
        (list["total"].clone(), list["pats"][0]["status"].clone()),
        (json!(1), json!("revoked"))
    );
    let bob = world.person("bob").await;
    world.expect("GET", &path, &bob.token, None, 404).await;
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    world.expect("DELETE", "/pats", &ann.token, None, 200).await;
}

#[tokio::test]
async fn an_invitation_is_sent_rejected_sent_again_and_accepted() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let role = world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[])
        .await;
    let path = format!("/domains/{domain}/invitations");
    let mut body = json!({ "invitee_user_id": bob.id, "role_id": role });
    world
        .expect("POST", &path, &bob.token, Some(body.clone()), 403)
        .await;
    world
        .expect("POST", &path, &ann.token, Some(body.clone()), 201)
        .await;
    world
        .expect("POST", &path, &ann.token, Some(body.clone()), 409)
        .await;
    let own = world
        .expect("GET", "/invitations", &bob.token, None, 200)
        .await;
    assert_eq!(own["invitations"][0]["domain_id"], domain);
    let answer = json!({ "domain_id": domain });
    world
        .expect(
            "POST",
            "/invitations/reject",
            &bob.token,
            Some(answer.clone()),
            204,
        )
        .await;
    world
        .expect(
            "POST",
            "/invitations/accept",
            &bob.token,
            Some(answer.clone()),
            409,
        )
        .await;
    body["resend"] = json!(true);
    world
        .expect("POST", &path, &ann.token, Some(body.clone()), 201)
        .await;
    world
        .expect("GET", &format!("/domains/{domain}"), &bob.token, None, 403)
        .await;
    world
        .expect("POST", "/invitations/accept", &bob.token, Some(answer), 204)
        .await;
    world
        .expect("GET", &format!("/domains/{domain}"), &bob.token, None, 200)
        .await;
    let listed = world
        .expect(
            "GET",
            &format!("{path}?state=accepted"),
            &ann.token,
            None,
            200,
        )
        .await;
    assert_eq!(listed["total"], 1);
    let one = format!("{path}/{}", bob.id);
    world.expect("GET", &one, &ann.token, None, 200).await;
    world
        .expect("POST", &path, &ann.token, Some(body), 409)
        .await;
    let body = json!({ "user_id": bob.id });
    world
        .expect("DELETE", &path, &ann.token, Some(body), 409)
        .await;
    world.expect("DELETE", &one, &bob.token, None, 204).await;
}

#[tokio::test]
async fn a_password_is_reset_and_an_address_verified_by_mail() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(ApiSettings {
        mail: Some(crate::MailSink::Folder(folder.path().to_owned())),
        ..ApiSettings::default()
    })
    .await;
    let ann = world.person("ann").await;
    world
        .expect("POST", "/users/send-verification", &ann.token, None, 200)
        .await;
    let token = mailed(folder.path(), "Verify").await;
    let body = json!({ "token": token });
    world
        .expect("POST", "/verify-email", "", Some(body), 200)
        .await;
    world
        .expect(
            "GET",
            &format!("/verify-email?token={token}"),
            "",
            None,
            401,
        )
        .await;
    let own = world
        .expect("GET", "/users/profile", &ann.token, None, 200)
        .await;
    assert!(own["verified_at"].is_string());
    for email in ["ann@example.com", "nobody@example.com"] {
        let body = json!({ "email": email });
        world
            .expect("POST", "/password/reset-request", "", Some(body), 201)
            .await;
    }
    let token = mailed(folder.path(), "Reset").await;
    let differs = json!({ "password": "battery staple", "confirm_password": "x" });
    world
        .expect("PUT", "/password/reset", &token, Some(differs), 400)
        .await;
    let body = json!({ "password": "battery staple", "confirm_password": "battery staple" });
    world
        .expect("PUT", "/password/reset", &token, Some(body.clone()), 201)
        .await;
    world
        .expect("PUT", "/password/reset", &token, Some(body), 401)
        .await;
    world
        .expect("GET", "/users/profile", &ann.token, None, 401)
        .await;
    world.server.login(&ann.username, "battery staple").await;
}

#[tokio::test]
async fn request_for_another_password_is_answered_alike_before_anything_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(ApiSettings {
        mail: Some(crate::MailSink::Folder(folder.path().to_owned())),
        ..ApiSettings::default()
    })
    .await;
    world.person("ann").await;
    // Nothing can be written meanwhile.
    let held = world.at.control.0.store.write().await.unwrap();
    for email in ["nobody@example.com", "ann@example.com"] {
        let body = json!({ "email": email });
        let asked = world.expect("POST", "/password/reset-request", "", Some(body), 201);
        let answered = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
        assert!(answered.is_ok(), "{email} waits for the database");
    }
    drop(held);
    mailed(folder.path(), "Reset").await;
}

/// The token in the mail with this subject.
async fn mailed(folder: &std::path::Path, subject: &str) -> String {
    let begun = std::time::Instant::now();
    loop {
        for file in std::fs::read_dir(folder).unwrap().flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let is_mail = file.path().extension().is_some_and(|end| end == "eml");
            if is_mail && text.contains(&format!("Subject: {subject}")) {
                let (_, token) = text.split_once("#token=").unwrap();
                return token.split_whitespace().next().unwrap().to_owned();
            }
        }
        assert!(begun.elapsed().as_secs() < 10, "no mail {subject}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn t_id_10_an_invitation_that_is_accepted_twice_at_once_is_accepted_once() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let role = world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[])
        .await;
    let path = format!("/domains/{domain}/invitations");
    let body = json!({ "invitee_user_id": bob.id, "role_id": role });
    world
        .expect("POST", &path, &ann.token, Some(body), 201)
        .await;
    let answer = json!({ "domain_id": domain });
    let accept = || {
        world
            .server
            .post("/invitations/accept", &bob.token, &answer)
    };
    let ((one, _), (other, _)) = tokio::join!(accept(), accept());
    let mut statuses = [one, other];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
}

#[tokio::test]
async fn logins_beyond_a_thousand_end_the_oldest() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let mut write = world.at.control.0.store.write().await.unwrap();
    let user = authcache::EntityId::from_text(&ann.id).unwrap();
    let now = crate::Time::now();
    for at in 0..998 {
        let session = crate::store::access::Session {
            id: crate::secret::random_id(),
            user,
            description: String::new(),
            turn: 1,
            expires_at: now.plus_seconds(3_600),
        };
        write
            .insert_session(&session, now.plus_seconds(at))
            .await
            .unwrap();
    }
    write.commit().await.unwrap();
    world.server.login("ann", PASSWORD).await;
    world
        .expect("GET", "/users/profile", &ann.token, None, 200)
        .await;
    world.server.login("ann", PASSWORD).await;
    world
        .expect("GET", "/users/profile", &ann.token, None, 401)
        .await;
}

#[tokio::test]
async fn token_that_is_void_once_the_body_has_come_is_good_for_nothing() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let body = json!({ "name": "plant", "route": "plant" }).to_string();
    let (token, length) = (&ann.token, body.len());
    let head = format!(
        "POST /domains HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n\
         authorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(&world.server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The body is asked for once the token was found to be good.
    let mut asked = [0; 12];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100");
    let path = format!("/users/{}/disable", ann.id);
    world.expect("POST", &path, &world.admin, None, 200).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 401"), "{answer}");
}
