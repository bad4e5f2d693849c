//! Roles: what they let their members do, and who may give what away.

use super::*;

#[tokio::test]
async fn actions_that_a_role_can_hold_are_listed_for_each_kind() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    for (path, count) in [
        ("/domains".to_owned(), 42),
        (format!("/{domain}/groups"), 65),
        (format!("/{domain}/channels"), 11),
        (format!("/{domain}/clients"), 9),
    ] {
        let path = format!("{path}/roles/available-actions");
        let shown = world.expect("GET", &path, &ann.token, None, 200).await;
        assert_eq!(
            shown["available_actions"].as_array().unwrap().len(),
            count,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_role_is_made_changed_and_removed_on_every_kind_of_object() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[&bob])
        .await;
    let mut bases = vec![format!("/domains/{domain}")];
    for plural in ["groups", "channels", "clients"] {
        let id = world
            .entity(&ann, &domain, plural, json!({ "name": "x" }))
            .await;
        bases.push(format!("/{domain}/{plural}/{id}"));
    }
    for (at, base) in bases.iter().enumerate() {
        let roles = format!("{base}/roles");
        let body =
            json!({ "role_name": "crew", "optional_actions": ["read", "update_permission"] });
        let made = world
            .expect("POST", &roles, &ann.token, Some(body.clone()), 201)
            .await;
        let id = text(&made["id"]);
        assert_eq!(made["optional_actions"], json!(["read", "update"]));
        world
            .expect("POST", &roles, &ann.token, Some(body), 409)
            .await;
        let body = json!({ "role_name": "bad", "optional_actions": ["fly"] });
        world
            .expect("POST", &roles, &ann.token, Some(body), 400)
            .await;
        let role = format!("{roles}/{id}");
        world.expect("GET", &role, &ann.token, None, 200).await;
        world
            .expect("GET", &format!("{roles}/crew"), &ann.token, None, 200)
            .await;
        let body = json!({ "name": "staff" });
        world
            .expect("PUT", &role, &ann.token, Some(body), 200)
            .await;
        let body = json!({ "actions": ["delete"] });
        let added = world
            .expect(
                "POST",
                &format!("{role}/actions"),
                &ann.token,
                Some(body.clone()),
                200,
            )
            .await;
        assert_eq!(added["actions"], json!(["delete"]));
        let listed = world
            .expect("GET", &format!("{role}/actions"), &ann.token, None, 200)
            .await;
        assert_eq!(listed["actions"].as_array().unwrap().len(), 3);
        world
            .expect(
                "POST",
                &format!("{role}/actions/delete"),
                &ann.token,
                Some(body),
                204,
            )
            .await;
        world
            .expect(
                "POST",
                &format!("{role}/actions/delete-all"),
                &ann.token,
                None,
                204,
            )
            .await;
        let listed = world
            .expect("GET", &format!("{role}/actions"), &ann.token, None, 200)
            .await;
        assert_eq!(listed["actions"], json!([]));
        let members = json!({ "members": [bob.id] });
        let add = format!("{role}/members");
        if at == 0 {
            // Bob has a role in the domain already.
            world
                .expect("POST", &add, &ann.token, Some(members), 409)
                .await;
        } else {
            world
                .expect("POST", &add, &ann.token, Some(members.clone()), 200)
                .await;
            let page = world.expect("GET", &add, &ann.token, None, 200).await;
            assert_eq!(page["members"], json!([bob.id]));
            let page = world
                .expect("GET", &format!("{roles}/members"), &ann.token, None, 200)
                .await;
            assert_eq!(page["total"], 2, "{page}");
            world
                .expect(
                    "POST",
                    &format!("{add}/delete"),
                    &ann.token,
                    Some(members),
                    204,
                )
                .await;
            world
                .expect("POST", &format!("{add}/delete-all"), &ann.token, None, 204)
                .await;
        }
        world.expect("DELETE", &role, &ann.token, None, 204).await;
        world.expect("DELETE", &role, &ann.token, None, 404).await;
        let admin = format!("{roles}/admin");
        world.expect("DELETE", &admin, &ann.token, None, 400).await;
        world
            .expect("PUT", &admin, &ann.token, Some(json!({ "name": "x" })), 400)
            .await;
        world
            .expect(
                "POST",
                &format!("{admin}/actions/delete-all"),
                &ann.token,
                None,
                400,
            )
            .await;
    }
    let admin = format!("/domains/{domain}/roles/admin/members");
    world
        .expect(
            "POST",
            &format!("{admin}/delete-all"),
            &ann.token,
            None,
            400,
        )
        .await;
    let body = json!({ "members": [ann.id] });
    world
        .expect(
            "POST",
            &format!("{admin}/delete"),
            &ann.token,
            Some(body),
            400,
        )
        .await;
}

#[tokio::test]
async fn lists_show_what_roles_let_read_from_wherever_they_come() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let top = world
        .entity(&ann, &domain, "groups", json!({ "name": "top" }))
        .await;
    let low = world
        .entity(
            &ann,
            &domain,
            "groups",
            json!({ "name": "low", "parent_id": top }),
        )
        .await;
    let client = async |name: &str, group: Option<&String>| {
        let body = json!({ "name": name, "parent_group_id": group });
        world.entity(&ann, &domain, "clients", body).await
    };
    let alone = client("alone", None).await;
    client("in top", Some(&top)).await;
    client("in low", Some(&low)).await;
    client("unseen", None).await;
    let list = format!("/{domain}/clients?order=name&dir=asc");
    world.expect("GET", &list, &bob.token, None, 403).await;
    world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[&bob])
        .await;
    let page = world.expect("GET", &list, &bob.token, None, 200).await;
    assert_eq!(page["total"], 0);
    world
        .role(
            &ann,
            &format!("/{domain}/clients/{alone}"),
            &["read"],
            &[&bob],
        )
        .await;
    let actions = ["client_read", "subgroup_client_read", "subgroup_read"];
    world
        .role(&ann, &format!("/{domain}/groups/{top}"), &actions, &[&bob])
        .await;
    let page = world.expect("GET", &list, &bob.token, None, 200).await;
    assert_eq!(names(&page, "clients"), ["alone", "in low", "in top"]);
    let from: Vec<String> = page["clients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| text(&c["access_type"]))
        .collect();
    assert_eq!(from, ["direct", "indirect_group", "direct_group"]);
    let groups = world
        .expect("GET", &format!("/{domain}/groups"), &bob.token, None, 200)
        .await;
    assert_eq!(names(&groups, "groups"), ["low"]);
    // An administrator looks through Bob's eyes, Bob not through others'.
    let page = world
        .expect(
            "GET",
            &format!("{list}&user={}", bob.id),
            &world.admin,
            None,
            200,
        )
        .await;
    assert_eq!(page["total"], 3);
    world
        .expect(
            "GET",
            &format!("{list}&user={}", ann.id),
            &bob.token,
            None,
            403,
        )
        .await;
    let why = format!(
        "/{domain}/authz/explain?subject={}&action=read&object={alone}",
        bob.id
    );
    let explained = world.expect("GET", &why, &ann.token, None, 200).await;
    assert_eq!(
        (&explained["allowed"], &explained["path"][0]["access_type"]),
        (&json!(true), &json!("direct"))
    );
    let why = format!(
        "/{domain}/authz/explain?subject={}&action=update&object={alone}",
        bob.id
    );
    let explained = world.expect("GET", &why, &ann.token, None, 200).await;
    assert_eq!(explained["allowed"], json!(false));
    assert!(
        explained["missing"][0]
            .as_str()
            .unwrap()
            .contains("client_update on the domain"),
        "{explained}"
    );
    let access = format!("/{domain}/clients/{alone}/access");
    let reached = world.expect("GET", &access, &ann.token, None, 200).await;
    assert_eq!(reached["users"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn nobody_gives_away_what_he_does_not_hold() {
    let world = World::new().await;
    let (ann, bob, eve) = (
        world.person("ann").await,
        world.person("bob").await,
        world.person("eve").await,
    );
    let domain = world.domain(&ann, "plant").await;
    let base = format!("/domains/{domain}");
    world
        .role(
            &ann,
            &base,
            &["read", "manage_role", "add_role_users"],
            &[&bob],
        )
        .await;
    let powerful = world.role(&ann, &base, &["delete"], &[]).await;
    let roles = format!("{base}/roles");
    let member = json!({ "members": [eve.id] });
    for role in ["admin", powerful.as_str()] {
        let path = format!("{roles}/{role}/members");
        world
            .expect("POST", &path, &bob.token, Some(member.clone()), 403)
            .await;
    }
    let body = json!({ "role_name": "mine", "optional_actions": ["delete"] });
    world
        .expect("POST", &roles, &bob.token, Some(body), 403)
        .await;
    let body = json!({ "role_name": "mine", "optional_actions": ["read"] });
    world
        .expect("POST", &roles, &bob.token, Some(body), 201)
        .await;
    let body = json!({ "actions": ["disable"] });
    world
        .expect(
            "POST",
            &format!("{roles}/mine/actions"),
            &bob.token,
            Some(body),
            403,
        )
        .await;
    world
        .expect(
            "POST",
            &format!("{roles}/mine/members"),
            &bob.token,
            Some(member),
            200,
        )
        .await;
}

#[tokio::test]
async fn making_something_in_a_group_needs_a_right_on_the_group() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let group = world
        .entity(&ann, &domain, "groups", json!({ "name": "g" }))
        .await;
    world
        .role(
            &ann,
            &format!("/domains/{domain}"),
            &["client_create"],
            &[&bob],
        )
        .await;
    let path = format!("/{domain}/clients");
    let inside = json!({ "name": "c", "parent_group_id": group });
    world
        .expect("POST", &path, &bob.token, Some(json!({ "name": "c" })), 201)
        .await;
    world
        .expect("POST", &path, &bob.token, Some(inside.clone()), 403)
        .await;
    let role = world
        .role(
            &ann,
            &format!("/{domain}/groups/{group}"),
            &["set_child"],
            &[&bob],
        )
        .await;
    world
        .expect("POST", &path, &bob.token, Some(inside.clone()), 201)
        .await;
    let actions = format!("/{domain}/groups/{group}/roles/{role}/actions");
    world
        .expect(
            "POST",
            &format!("{actions}/delete-all"),
            &ann.token,
            None,
            204,
        )
        .await;
    world
        .expect("POST", &path, &bob.token, Some(inside.clone()), 403)
        .await;
    let body = json!({ "actions": ["client_create"] });
    world
        .expect("POST", &actions, &ann.token, Some(body), 200)
        .await;
    world
        .expect("POST", &path, &bob.token, Some(inside), 201)
        .await;
}

#[tokio::test]
async fn who_leaves_a_domain_leaves_everything_in_it() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let role = world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[&bob])
        .await;
    let client = world
        .entity(&ann, &domain, "clients", json!({ "name": "c" }))
        .await;
    world
        .role(
            &ann,
            &format!("/{domain}/clients/{client}"),
            &["read"],
            &[&bob],
        )
        .await;
    let path = format!("/{domain}/clients/{client}");
    world.expect("GET", &path, &bob.token, None, 200).await;
    let members = format!("/domains/{domain}/roles/{role}/members");
    let body = json!({ "members": [bob.id] });
    world
        .expect(
            "POST",
            &format!("{members}/delete"),
            &ann.token,
            Some(body.clone()),
            204,
        )
        .await;
    world.expect("GET", &path, &bob.token, None, 403).await;
    world
        .expect("POST", &members, &ann.token, Some(body), 200)
        .await;
    world.expect("GET", &path, &bob.token, None, 403).await;
}
