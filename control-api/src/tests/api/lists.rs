//! Long lists: every way to find a page gives the same rows and the same total.

use super::*;

/// More than are looked up one by one.
const MANY: usize = 5_200;

struct Long {
    world: World,
    ann: Person,
    domain: String,
    group: String,
}

/// A domain with many clients, half of them in a group below another.
async fn long() -> Long {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let top = world
        .entity(&ann, &domain, "groups", json!({ "name": "top" }))
        .await;
    let below = json!({ "name": "low", "parent_id": top });
    let low = world.entity(&ann, &domain, "groups", below).await;
    let clients: Vec<Value> = (0..MANY)
        .map(|at| {
            let parent = if at % 2 == 0 { low.as_str() } else { "" };
            json!({
                "name": format!("Pump {at:04}"), "tags": ["all", format!("t{}", at % 100)],
                "metadata": { "every": true, "serial": at }, "parent_group_id": parent,
            })
        })
        .collect();
    let path = format!("/{domain}/clients/bulk");
    let made = world
        .expect("POST", &path, &ann.token, Some(json!(clients)), 200)
        .await;
    assert_eq!(made["total"], MANY);
    Long {
        world,
        ann,
        domain,
        group: top,
    }
}

impl Long {
    async fn page(&self, who: &Person, query: &str) -> (usize, Vec<String>) {
        let path = format!("/{}/clients?{query}", self.domain);
        let page = self.world.expect("GET", &path, &who.token, None, 200).await;
        let total = usize::try_from(page["total"].as_u64().unwrap()).unwrap();
        (total, names(&page, "clients"))
    }

    /// Goes through a list by pages; whoever has a name is in it once, in order.
    async fn whole(&self, who: &Person, query: &str, step: usize) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            let at = found.len();
            let query = format!("{query}&order=name&dir=asc&limit=100&offset={at}");
            let (total, page) = self.page(who, &query).await;
            found.extend(page);
            if found.len() >= total {
                assert_eq!(found.len(), total);
                return found;
            }
            assert!(found.len() - at == step, "{query}");
        }
    }
}

fn numbered(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|at| format!("Pump {at:04}")).collect()
}

#[tokio::test]
async fn pages_of_a_long_list_join_from_either_end() {
    let long = long().await;
    let all = long.whole(&long.ann, "", 100).await;
    assert_eq!(all, numbered(0..MANY));
    let (_, last) = long
        .page(
            &long.ann,
            &format!("order=name&dir=asc&offset={}", MANY - 3),
        )
        .await;
    assert_eq!(last, numbered(MANY - 3..MANY));
    let (total, beyond) = long.page(&long.ann, &format!("offset={MANY}")).await;
    assert_eq!((total, beyond.len()), (MANY, 0));
}

#[tokio::test]
async fn what_many_and_what_few_have_is_found_alike() {
    let long = long().await;
    for query in [
        "name=pump",
        "name=PU",
        "tags=all",
        "metadata=%7B%22every%22%3Atrue%7D",
    ] {
        let deep = format!("{query}&order=name&dir=asc&limit=5&offset={}", MANY - 7);
        let (total, page) = long.page(&long.ann, &deep).await;
        assert_eq!(total, MANY, "{query}");
        assert_eq!(page, numbered(MANY - 7..MANY - 2), "{query}");
    }
    let expected = numbered((0..MANY).filter(|at| at % 100 == 7));
    let sevens = long.whole(&long.ann, "tags=t7", 100).await;
    assert_eq!(sevens, expected);
    let both = long.whole(&long.ann, "tags=t7%2Ball&name=mp%20", 100).await;
    assert_eq!(both, expected);
    let (total, one) = long
        .page(&long.ann, "metadata=%7B%22serial%22%3A77%7D")
        .await;
    assert_eq!((total, one), (1, numbered(77..78)));
    for (query, total) in [("name=%22", 0), ("name=mp%20007", 10), ("name=x%25y", 0)] {
        assert_eq!(long.page(&long.ann, query).await.0, total, "{query}");
    }
}

#[tokio::test]
async fn a_name_is_found_as_it_is_now() {
    let long = long().await;
    let path = format!("/{}/clients", long.domain);
    let find = async |name: &str| {
        let (_, found) = long.page(&long.ann, &format!("name={name}")).await;
        found
    };
    let body = Some(json!({ "name": "Valve \"A\"" }));
    let list = format!("{path}?name=Pump%200042");
    let token = &long.ann.token;
    let page = long.world.expect("GET", &list, token, None, 200).await;
    let one = format!("{path}/{}", text(&page["clients"][0]["id"]));
    long.world.expect("PATCH", &one, token, body, 200).await;
    assert_eq!(find("Pump%200042").await, [""; 0]);
    assert_eq!(find("valve%20%22a%22").await, ["Valve \"A\""]);
    assert_eq!(long.page(&long.ann, "").await.0, MANY);
    long.world.expect("DELETE", &one, token, None, 204).await;
    assert_eq!(find("valve").await, [""; 0]);
    assert_eq!(long.page(&long.ann, "").await.0, MANY - 1);
}

#[tokio::test]
async fn a_member_of_a_group_sees_what_is_below_it_and_what_it_has_itself() {
    let long = long().await;
    let bob = long.world.person("bob").await;
    let base = format!("/domains/{}", long.domain);
    long.world.role(&long.ann, &base, &["read"], &[&bob]).await;
    assert_eq!(long.page(&bob, "").await.0, 0);
    let base = format!("/{}/groups/{}", long.domain, long.group);
    let actions = ["client_read", "subgroup_client_read"];
    long.world.role(&long.ann, &base, &actions, &[&bob]).await;
    let mut expected = numbered((0..MANY).filter(|at| at % 2 == 0));
    assert_eq!(long.whole(&bob, "", 100).await, expected);
    // One outside the group, and one that is inside as well, by roles of their own.
    for name in ["Pump%200007", "Pump%200008"] {
        let list = format!("/{}/clients?name={name}", long.domain);
        let token = &long.ann.token;
        let page = long.world.expect("GET", &list, token, None, 200).await;
        let id = text(&page["clients"][0]["id"]);
        let base = format!("/{}/clients/{id}", long.domain);
        long.world.role(&long.ann, &base, &["read"], &[&bob]).await;
    }
    expected.insert(4, "Pump 0007".to_owned());
    assert_eq!(long.whole(&bob, "", 100).await, expected);
    assert_eq!(long.page(&bob, "access_type=direct").await.0, 2);
    let inside = long.page(&bob, "access_type=indirect_group").await.0;
    assert_eq!(inside, MANY / 2);
    assert_eq!(long.page(&bob, "tags=t9").await.0, 0);
    assert_eq!(long.page(&bob, "name=pump").await.0, MANY / 2 + 1);
}

/// Spans of time are full with so few objects from now on.
async fn small_spans(world: &World, rows: i64) {
    let mut write = world.at.control.0.store.write().await.unwrap();
    let sql = "UPDATE counters SET value = $1 WHERE name = 'span_rows'";
    let query = crate::store::sql::query(sql).bind(rows);
    assert_eq!(query.execute(write.connection()).await.unwrap(), 1);
    write.commit().await.unwrap();
}

/// What a list of everything shows of those that pass, in its order, next to what is asked for.
async fn agrees(world: &World, ann: &Person, path: &str, kind: &str) {
    let list = async |query: &str| {
        let path = format!("{path}?limit=100&{query}");
        world.expect("GET", &path, &ann.token, None, 200).await
    };
    for order in ["name", "updated_at"] {
        let query = format!("status=all&order={order}");
        let whole = list(&query).await;
        let key = |item: &Value| {
            let moved = [&item["updated_at"], &item["created_at"]];
            let moved = moved.iter().find_map(|time| time.as_str()).unwrap();
            let first = if order == "name" {
                item["name"].as_str().unwrap()
            } else {
                moved
            };
            (first.to_owned(), text(&item["id"]))
        };
        let keys: Vec<_> = whole[kind].as_array().unwrap().iter().map(key).collect();
        assert!(
            keys.is_sorted_by(|one, next| one > next),
            "{query}: {keys:?}"
        );
    }
    let whole = list("status=all").await;
    assert_eq!(whole["total"], whole[kind].as_array().unwrap().len());
    for status in ["enabled", "disabled", "all"] {
        for tag in ["", "hot", "cold", "none"] {
            let passes = |item: &&Value| {
                let tags = item["tags"].as_array();
                let tagged = tag.is_empty() || tags.is_some_and(|tags| tags.contains(&json!(tag)));
                tagged && (status == "all" || item["status"] == status)
            };
            let ids = |items: &mut dyn Iterator<Item = &Value>| {
                items.map(|item| text(&item["id"])).collect::<Vec<_>>()
            };
            let expected = ids(&mut whole[kind].as_array().unwrap().iter().filter(passes));
            let tags = if tag.is_empty() {
                String::new()
            } else {
                format!("&tags={tag}")
            };
            let found = list(&format!("status={status}{tags}")).await;
            let query = format!("{kind} {status} {tag:?}");
            assert_eq!(
                ids(&mut found[kind].as_array().unwrap().iter()),
                expected,
                "{query}"
            );
            assert_eq!(found["total"], expected.len(), "{query}");
            let path = format!("{path}?limit=1&offset=1&status={status}{tags}");
            let second = world.expect("GET", &path, &ann.token, None, 200).await;
            let second = ids(&mut second[kind].as_array().unwrap().iter());
            assert!(second.iter().eq(expected.get(1)), "{query}");
        }
        // Parts that are too short for an index of parts.
        for part in ["s ", "na", "zz"] {
            let passes = |item: &&Value| {
                item["name"].as_str().unwrap().contains(part)
                    && (status == "all" || item["status"] == status)
            };
            let items = whole[kind].as_array().unwrap().iter().filter(passes);
            let expected: Vec<_> = items.map(|item| text(&item["id"])).collect();
            for at in 0..=expected.len() {
                let query = format!("name={part}&status={status}&offset={at}&limit=2");
                let path = format!("{path}?{}", query.replace(' ', "%20"));
                let found = world.expect("GET", &path, &ann.token, None, 200).await;
                let page = found[kind].as_array().unwrap().iter();
                let page: Vec<_> = page.map(|item| text(&item["id"])).collect();
                let end = expected.len().min(at + 2);
                assert_eq!(page, expected[at..end], "{query}");
                assert_eq!(found["total"], expected.len(), "{query}");
            }
        }
    }
}

#[tokio::test]
async fn totals_and_the_order_of_lists_follow_every_change() {
    let world = World::new().await;
    small_spans(&world, 2).await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    for kind in ["clients", "channels", "groups"] {
        let path = format!("/{domain}/{kind}");
        let mut ids = Vec::new();
        for at in 0..6 {
            let tags: &[&str] = [&["hot"][..], &["hot", "cold"], &["cold"]][at % 3];
            let body = json!({ "name": format!("{kind} {at}"), "tags": tags });
            ids.push(world.entity(&ann, &domain, kind, body).await);
        }
        agrees(&world, &ann, &path, kind).await;
        let call = async |method: &str, tail: &str, body: Option<Value>, status: u16| {
            let path = format!("{path}/{tail}");
            world.expect(method, &path, &ann.token, body, status).await;
        };
        for id in [&ids[1], &ids[4]] {
            call("POST", &format!("{id}/disable"), None, 200).await;
            agrees(&world, &ann, &path, kind).await;
        }
        call("POST", &format!("{}/enable", ids[1]), None, 200).await;
        agrees(&world, &ann, &path, kind).await;
        let name = json!({ "name": "renamed" });
        let update = if kind == "groups" { "PUT" } else { "PATCH" };
        call(update, &ids[0], Some(name), 200).await;
        agrees(&world, &ann, &path, kind).await;
        let tags = json!({ "tags": ["cold"] });
        call("PATCH", &format!("{}/tags", ids[3]), Some(tags), 200).await;
        agrees(&world, &ann, &path, kind).await;
        for id in [&ids[0], &ids[4]] {
            call("DELETE", id, None, 204).await;
            agrees(&world, &ann, &path, kind).await;
        }
    }
}

#[tokio::test]
async fn deep_pages_of_a_member_of_groups_join_in_either_direction() {
    let world = World::new().await;
    small_spans(&world, 20).await;
    let ann = world.person("ann").await;
    let bob = world.person("bob").await;
    let domain = world.domain(&ann, "plant").await;
    let mut groups = Vec::new();
    for name in ["one", "two"] {
        let group = json!({ "name": name });
        groups.push(world.entity(&ann, &domain, "groups", group).await);
    }
    let path = format!("/{domain}/clients");
    for call in 0..4 {
        // Those of one call are of one time; some are of a group that bob does not see.
        let clients: Vec<Value> = (0..30)
            .map(|at| json!({ "name": format!("{call} {at}"), "parent_group_id": groups[at % 5 / 4] }))
            .collect();
        let bulk = format!("{path}/bulk");
        world
            .expect("POST", &bulk, &ann.token, Some(json!(clients)), 200)
            .await;
    }
    let page = |query: String| format!("{path}?{query}");
    let all = page("limit=100&dir=asc".to_owned());
    let all = world.expect("GET", &all, &ann.token, None, 200).await;
    let mut spans = world.at.control.0.store.read().await.unwrap();
    let sql = "SELECT COUNT(*), CAST(SUM(count) AS BIGINT) FROM entity_spans WHERE kind = 3";
    let spans: (i64, i64) = crate::store::sql::query_as(sql)
        .fetch_one(&mut spans)
        .await
        .unwrap();
    // One behind each call, which is of one time.
    assert_eq!(spans, (5, 120));
    for item in all["clients"].as_array().unwrap().iter().step_by(9) {
        let one = format!("{path}/{}", text(&item["id"]));
        let name = Some(json!({ "name": "renamed" }));
        world.expect("PATCH", &one, &ann.token, name, 200).await;
    }
    world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[&bob])
        .await;
    let base = format!("/{domain}/groups/{}", groups[0]);
    world.role(&ann, &base, &["client_read"], &[&bob]).await;
    for direction in ["asc", "desc"] {
        let ids = async |who: &Person, query: String| {
            let path = page(format!("{query}&dir={direction}"));
            let found = world.expect("GET", &path, &who.token, None, 200).await;
            let items = found["clients"].as_array().unwrap().iter();
            items.map(|item| text(&item["id"])).collect::<Vec<_>>()
        };
        let expected = ids(&ann, format!("limit=100&group={}", groups[0])).await;
        assert_eq!(expected.len(), 96);
        for limit in [1, 7, 40] {
            let mut found = Vec::new();
            while found.len() < expected.len() {
                let offset = found.len();
                let part = ids(&bob, format!("limit={limit}&offset={offset}")).await;
                assert!(!part.is_empty(), "{direction} {limit} {offset}");
                found.extend(part);
            }
            assert_eq!(found, expected, "{direction} {limit}");
        }
    }
}

#[tokio::test]
async fn a_member_of_groups_connects_what_is_in_them_and_nothing_else() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let bob = world.person("bob").await;
    let domain = world.domain(&ann, "plant").await;
    let top = json!({ "name": "top" });
    let top = world.entity(&ann, &domain, "groups", top).await;
    let low = json!({ "name": "low", "parent_id": top });
    let low = world.entity(&ann, &domain, "groups", low).await;
    let mut ids = Vec::new();
    for group in [&top, &low, ""] {
        for kind in ["clients", "channels"] {
            let body = json!({ "name": "one", "parent_group_id": group });
            ids.push(world.entity(&ann, &domain, kind, body).await);
        }
    }
    world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[&bob])
        .await;
    let actions = [
        "client_connect_to_channel",
        "channel_connect_to_client",
        "subgroup_client_connect_to_channel",
        "subgroup_channel_connect_to_client",
    ];
    let base = format!("/{domain}/groups/{top}");
    world.role(&ann, &base, &actions, &[&bob]).await;
    let path = format!("/{domain}/channels/connect");
    let unknown = authcache::EntityId::from_u128(7).to_string();
    let (inside, outside) = (&ids[..4], &ids[4..]);
    for pairwise in [true, false] {
        for (client, channel) in [
            (&outside[0], &inside[1]),
            (&inside[0], &outside[1]),
            (&unknown, &inside[1]),
            (&inside[0], &unknown),
        ] {
            let body = json!({
                "client_ids": [inside[2], client], "channel_ids": [inside[3], channel],
                "types": ["publish"], "pairwise": pairwise,
            });
            world
                .expect("POST", &path, &bob.token, Some(body), 403)
                .await;
        }
    }
    let body = json!({
        "client_ids": [inside[0], inside[2]], "channel_ids": [inside[1], inside[3]],
        "types": ["publish"],
    });
    world
        .expect("POST", &path, &bob.token, Some(body), 201)
        .await;
}
