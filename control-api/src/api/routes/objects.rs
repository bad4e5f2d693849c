//! Routes of groups, channels and clients, and of what connects them.

use axum::http::Method;

use super::{CREATED, ID, LIST, NAME, NO_CONTENT, OK, by, field, needed, relation, route};
use crate::api::route::{Handler, Holds, Route};
use crate::api::{aliases, connect, entities, explain, groups, parents};
use crate::grant::Kind;

pub(super) fn of_entities(all: &mut Vec<Route>, kind: Kind) {
    let (word, plural) = (kind.word(), kind.plural());
    let (schema, page) = schemas(kind);
    let base = format!("/{{domain}}/{plural}");
    let one = format!("{base}/{{id}}");
    let mut making = vec![
        field("name", NAME),
        field("tags", Holds::Texts),
        field("metadata", Holds::Object),
        field("status", ID),
    ];
    match kind {
        Kind::Group => making.extend([field("description", NAME), field("parent_id", ID)]),
        Kind::Channel => {
            making.extend([
                field("id", ID),
                field("route", ID),
                field("parent_group_id", ID),
            ]);
        }
        Kind::Client | Kind::Domain => making.extend([
            field("id", ID),
            field("credentials", Holds::Object),
            field("private_metadata", Holds::Object),
            field("parent_group_id", ID),
            field("psk", Holds::Flag),
        ]),
    }
    let changing = [
        field("name", NAME),
        field("tags", Holds::Texts),
        field("metadata", Holds::Object),
        field("private_metadata", Holds::Object),
        field("description", NAME),
    ];
    let of = |method, path: String, operation: &str, summary: &str, handler| {
        let operation = format!("{word}.{operation}");
        route(
            method,
            path,
            operation,
            format!("{summary} {word}"),
            handler,
        )
        .kind(kind)
    };
    let (get, post, patch) = (Method::GET, Method::POST, Method::PATCH);
    let update = if kind == Kind::Group {
        Method::PUT
    } else {
        patch.clone()
    };
    all.extend([
        of(
            post.clone(),
            base.clone(),
            "create",
            "Make a",
            by!(entities::create),
        )
        .scope(plural, format!("create_{plural}"))
        .body(&making)
        .answers(CREATED, schema),
        of(
            get.clone(),
            base.clone(),
            "list",
            "List those the caller may see:",
            by!(entities::list),
        )
        .scope(plural, format!("list_{plural}"))
        .query(&LIST)
        .query(&[
            "client",
            "channel",
            "connection_type",
            "group",
            "user",
            "root_group",
        ])
        .answers(OK, page),
        of(
            get.clone(),
            one.clone(),
            "view",
            "Show a",
            by!(entities::view),
        )
        .scope(plural, "view")
        .query(&["roles"])
        .answers(OK, schema),
        of(
            update,
            one.clone(),
            "update",
            "Change a",
            by!(entities::update),
        )
        .scope(plural, "update")
        .body(&changing)
        .answers(OK, schema),
        of(
            patch.clone(),
            format!("{one}/tags"),
            "update_tags",
            "Change the tags of a",
            by!(entities::update_tags),
        )
        .scope(plural, "update_tags")
        .body(&[field("tags", Holds::Texts)])
        .answers(OK, schema),
        of(
            post.clone(),
            format!("{one}/enable"),
            "enable",
            "Enable a",
            by!(entities::enable),
        )
        .scope(plural, "enable")
        .answers(OK, schema),
        of(
            post.clone(),
            format!("{one}/disable"),
            "disable",
            "Disable a",
            by!(entities::disable),
        )
        .scope(plural, "disable")
        .answers(OK, schema),
        of(
            Method::DELETE,
            one.clone(),
            "remove",
            "Delete a",
            by!(entities::delete),
        )
        .scope(plural, "delete")
        .empty(NO_CONTENT),
        of(
            get.clone(),
            format!("{one}/permissions"),
            "permissions",
            "List what the caller may do with a",
            by!(entities::permissions),
        )
        .scope(plural, "view")
        .answers(OK, "Permissions"),
        of(
            get.clone(),
            format!("{one}/access"),
            "access",
            "List who reaches a",
            by!(explain::access),
        )
        .scope(plural, "role_list_members")
        .answers(OK, "Access"),
        of(
            post.clone(),
            format!("{one}/assign"),
            "add_members",
            "Give users a relation to a",
            by!(aliases::assign),
        )
        .scope(plural, "role_add_members")
        .body(&relation())
        .answers(CREATED, "Members"),
        of(
            post.clone(),
            format!("{one}/unassign"),
            "remove_members",
            "Take users off a",
            by!(aliases::unassign),
        )
        .scope(plural, "role_remove_members")
        .body(&relation())
        .empty(NO_CONTENT),
        // Lists of one user's, by the paths that the JavaScript SDK knows.
        of(
            get,
            format!("/{{domain}}/users/{{user}}/{plural}"),
            "list",
            "List those a user may see:",
            by!(entities::list_of_user),
        )
        .scope(plural, format!("list_{plural}"))
        .query(&LIST)
        .answers(OK, page),
    ]);
    if kind == Kind::Group {
        return;
    }
    all.extend([
        of(
            post.clone(),
            format!("{base}/bulk"),
            "create",
            "Make many of:",
            by!(entities::create_bulk),
        )
        .scope(plural, format!("create_{plural}"))
        .list_body(&making)
        .answers(OK, page),
        of(
            post,
            format!("{one}/parent"),
            "set_parent",
            "Set the parent group of a",
            by!(aliases::set_parent),
        )
        .scope(plural, "set_parent_group")
        .body(&[
            field("parent_group_id", ID),
            field("group_id", ID),
            field("parent_id", ID),
            field("group_ids", Holds::Texts),
        ])
        .empty(OK),
        of(
            Method::DELETE,
            format!("{one}/parent"),
            "remove_parent",
            "Remove the parent group of a",
            by!(parents::remove),
        )
        .scope(plural, "remove_parent_group")
        .empty(NO_CONTENT),
    ]);
    if kind == Kind::Client {
        all.push(
            of(
                patch,
                format!("{one}/secret"),
                "update_secret",
                "Change the secret of a",
                by!(entities::update_secret),
            )
            .scope(plural, "update_secret")
            .body(&[needed("secret", Holds::Secret)])
            .answers(OK, schema),
        );
    }
}

pub(super) fn of_groups(all: &mut Vec<Route>) {
    let one = "/{domain}/groups/{id}";
    let of = |method, path: String, operation: &str, summary: &str, handler| {
        let operation = format!("group.{operation}");
        route(method, path, operation, summary, handler).kind(Kind::Group)
    };
    let children = [
        field("children_ids", Holds::Texts),
        field("groups", Holds::Texts),
        field("group_ids", Holds::Texts),
    ];
    let delete = Method::DELETE;
    all.extend([
        of(
            Method::GET,
            format!("{one}/hierarchy"),
            "retrieve_group_hierarchy",
            "Show what is above or below a group",
            by!(groups::hierarchy),
        )
        .scope("groups", "retrieve_group_hierarchy")
        .query(&["level", "dir", "direction", "tree"])
        .answers(OK, "Hierarchy"),
        of(
            Method::POST,
            format!("{one}/parent"),
            "add_parent_group",
            "Put a group below another",
            by!(groups::set_parent),
        )
        .scope("groups", "add_parent_group")
        .body(&[field("parent_id", ID), field("group_id", ID)])
        .empty(OK),
        of(
            delete.clone(),
            format!("{one}/parent"),
            "remove_parent_group",
            "Make a group a root",
            by!(groups::remove_parent),
        )
        .scope("groups", "remove_parent_group")
        .empty(NO_CONTENT),
        of(
            Method::POST,
            format!("{one}/children"),
            "add_children_groups",
            "Put groups below a group",
            by!(groups::add_children),
        )
        .scope("groups", "add_children_groups")
        .body(&children)
        .empty(OK),
        of(
            delete.clone(),
            format!("{one}/children"),
            "remove_children_groups",
            "Make children of a group roots",
            by!(groups::remove_children),
        )
        .scope("groups", "remove_children_groups")
        .body(&children)
        .empty(NO_CONTENT),
        of(
            delete,
            format!("{one}/children/all"),
            "remove_all_children_groups",
            "Make all children of a group roots",
            by!(groups::remove_all_children),
        )
        .scope("groups", "remove_all_children_groups")
        .empty(NO_CONTENT),
        of(
            Method::GET,
            format!("{one}/children"),
            "list_children_groups",
            "List groups below a group",
            by!(groups::children),
        )
        .scope("groups", "list_children_groups")
        .query(&LIST)
        .query(&["start_level", "end_level"])
        .answers(OK, "GroupPage"),
    ]);
}

pub(super) fn of_connections(all: &mut Vec<Route>) {
    let fields = [
        field("client_ids", Holds::Texts),
        field("client_id", ID),
        field("channel_ids", Holds::Texts),
        field("channel_id", ID),
        field("thing_ids", Holds::Texts),
        field("thing_id", ID),
        field("types", Holds::TextOrTexts),
        field("type", Holds::TextOrTexts),
        field("pairwise", Holds::Flag),
    ];
    // What a token needs a scope for is in the body too: the operation asks for it.
    let connect: Handler = by!(connect::connect);
    let disconnect: Handler = by!(connect::disconnect);
    let channel = "/{domain}/channels/{id}";
    for (path, optional) in [
        ("/{domain}/channels".to_owned(), false),
        (channel.to_owned(), false),
        (format!("{channel}/clients/{{client}}"), true),
    ] {
        for (verb, status, handler, scope) in [
            ("connect", CREATED, connect, "connect_client"),
            ("disconnect", NO_CONTENT, disconnect, "disconnect_client"),
        ] {
            let (operation, path) = (format!("channel.{verb}"), format!("{path}/{verb}"));
            let summary = format!("{verb} clients and channels");
            let route = route(Method::POST, path.clone(), operation, summary, handler)
                .kind(Kind::Channel)
                .empty(status);
            let route = if path.contains("{id}") {
                route.scope("channels", scope)
            } else {
                route.scope_in_body()
            };
            all.push(if optional {
                route.optional_body(&fields)
            } else {
                route.body(&fields)
            });
        }
    }
    all.extend([
        route(
            Method::GET,
            format!("{channel}/clients"),
            "client.list",
            "List the clients connected to a channel",
            by!(entities::list_connected),
        )
        .kind(Kind::Client)
        .stands_for("status", "all")
        .scope("channels", "view")
        .query(&LIST)
        .answers(OK, "ClientPage"),
        route(
            Method::GET,
            "/{domain}/clients/{id}/channels",
            "channel.list",
            "List the channels that a client is connected to",
            by!(entities::list_connected),
        )
        .kind(Kind::Channel)
        .stands_for("status", "all")
        .scope("clients", "view")
        .query(&LIST)
        .answers(OK, "ChannelPage"),
        route(
            Method::GET,
            "/{domain}/groups/{id}/channels",
            "channel.list",
            "List the channels in a group",
            by!(entities::list_in_group),
        )
        .kind(Kind::Channel)
        .scope("groups", "view")
        .query(&LIST)
        .answers(OK, "ChannelPage"),
    ]);
}

/// Names of the schemas of an object of the kind, and of a page of them.
const fn schemas(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Domain => ("Domain", "DomainPage"),
        Kind::Group => ("Group", "GroupPage"),
        Kind::Channel => ("Channel", "ChannelPage"),
        Kind::Client => ("Client", "ClientPage"),
    }
}
