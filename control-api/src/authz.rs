//! Decisions for users: which roles reach an object, and what they permit there.

use crate::store::sql::Connection;
use authcache::{EntityId, Right};

use crate::grant::{self, Grant, Kind, Place, Verb, Verbs};
use crate::store::access::PatScope;
use crate::store::roles::{self, Role};
use crate::store::users::UserAuth;
use crate::store::{StoreError, channels, domains, entities};

/// Roles of a user that may reach the object: on itself, on the groups above it, on its domain.
pub(crate) async fn roles_reaching(
    connection: &mut Connection,
    user: EntityId,
    place: &Place<'_>,
) -> Result<Vec<Role>, StoreError> {
    roles::held(connection, user, &reaching(place)).await
}

/// The objects on which a role may reach this one.
pub(crate) fn reaching(place: &Place<'_>) -> Vec<EntityId> {
    let mut objects = vec![place.id, place.domain];
    objects.extend(place.groups);
    objects
}

/// What these roles permit on an object.
pub(crate) fn permitted<'a>(roles: impl IntoIterator<Item = &'a Role>, place: &Place<'_>) -> Verbs {
    let grants: Vec<Grant> = roles
        .into_iter()
        .flat_map(|role| grant::compile(role.kind, role.entity, &role.actions))
        .collect();
    grant::permitted(&grants, place)
}

/// What a user may do with messages on a channel, and the channel's domain: nothing on one that does
/// not exist. A platform administrator may do everything, everybody else what roles give to members
/// of an enabled domain.
pub(crate) async fn message_right(
    connection: &mut Connection,
    user: &UserAuth,
    channel: EntityId,
) -> Result<(Right, Option<EntityId>), StoreError> {
    let Some(domain) = channels::domain_of(connection, channel).await? else {
        return Ok((Right::NONE, None));
    };
    if !user.status.is_live() {
        return Ok((Right::NONE, Some(domain)));
    }
    if user.administrator {
        return Ok((Right::BOTH, Some(domain)));
    }
    let (Some(entity), Some(within)) = (
        entities::entity(connection, Kind::Channel, domain, channel).await?,
        domains::domain(connection, &domain.to_string()).await?,
    ) else {
        return Ok((Right::NONE, Some(domain)));
    };
    let groups = entities::groups_of(connection, &entity).await?;
    let place = Place {
        kind: Kind::Channel,
        id: channel,
        domain,
        groups: &groups,
    };
    let roles = roles_reaching(connection, user.id, &place).await?;
    let member = roles
        .iter()
        .any(|role| role.kind == Kind::Domain && !role.actions.is_empty());
    if !member || !within.status.is_live() {
        return Ok((Right::NONE, Some(domain)));
    }
    let verbs = permitted(&roles, &place);
    let mut right = Right::NONE;
    if verbs.contains(Verb::Publish) {
        right |= Right::PUBLISH;
    }
    if verbs.contains(Verb::Subscribe) {
        right |= Right::SUBSCRIBE;
    }
    Ok((right, Some(domain)))
}

/// What of these rights a personal access token may use.
pub(crate) fn message_ceiling(scopes: &[PatScope], domain: EntityId, channel: EntityId) -> Right {
    let channel = channel.to_string();
    let mut right = Right::NONE;
    for (operation, bit) in [("publish", Right::PUBLISH), ("subscribe", Right::SUBSCRIBE)] {
        if scope_permits(scopes, domain, "messages", &channel, operation) {
            right |= bit;
        }
    }
    right
}

/// Whether a personal access token may be used for an operation on an entity, which is `*` for
/// operations on no entity in particular.
pub(crate) fn scope_permits(
    scopes: &[PatScope],
    domain: EntityId,
    entity_type: &str,
    entity: &str,
    operation: &str,
) -> bool {
    scopes.iter().any(|scope| {
        scope.domain == domain
            && scope.entity_type == entity_type
            && (scope.entity == "*" || scope.entity == entity)
            && operation_matches(&scope.operation, operation)
    })
}

/// Whether the word in a scope means the operation: by its own name, or as one of a coarser word.
fn operation_matches(word: &str, operation: &str) -> bool {
    if word == operation {
        return true;
    }
    match word {
        "create" => operation.starts_with("create_"),
        "list" => operation.starts_with("list_") && !operation.starts_with("list_domain_"),
        "read" => matches!(
            operation,
            "view"
                | "role_retrieve"
                | "role_retrieve_all"
                | "role_list_actions"
                | "role_list_members"
                | "retrieve_group_hierarchy"
                | "list_children_groups"
        ),
        "update" => matches!(
            operation,
            "update_tags"
                | "update_secret"
                | "enable"
                | "disable"
                | "set_parent_group"
                | "remove_parent_group"
                | "connect_client"
                | "disconnect_client"
                | "connect_to_channel"
                | "disconnect_from_channel"
                | "add_parent_group"
                | "add_children_groups"
                | "remove_children_groups"
                | "remove_all_children_groups"
        ),
        _ => false,
    }
}

/// Operations that scopes of an entity type may name; none if there is no such type.
pub(crate) fn scope_operations(entity_type: &str) -> Option<Vec<&'static str>> {
    const ROLES: [&str; 13] = [
        "role_add",
        "role_remove",
        "role_update",
        "role_retrieve",
        "role_retrieve_all",
        "role_add_actions",
        "role_list_actions",
        "role_remove_actions",
        "role_remove_all_actions",
        "role_add_members",
        "role_list_members",
        "role_remove_members",
        "role_remove_all_members",
    ];
    const COARSE: [&str; 5] = ["create", "read", "list", "update", "delete"];
    const ENTITY: [&str; 7] = [
        "view",
        "update_tags",
        "enable",
        "disable",
        "set_parent_group",
        "remove_parent_group",
        "delete",
    ];
    let own: &[&str] = match entity_type {
        "clients" => &[
            "create_clients",
            "list_clients",
            "update_secret",
            "connect_to_channel",
            "disconnect_from_channel",
        ],
        "channels" => &[
            "create_channels",
            "list_channels",
            "connect_client",
            "disconnect_client",
        ],
        "groups" => &[
            "create_groups",
            "list_groups",
            "retrieve_group_hierarchy",
            "add_parent_group",
            "remove_parent_group",
            "add_children_groups",
            "remove_children_groups",
            "remove_all_children_groups",
            "list_children_groups",
        ],
        "domains" => &[
            "view",
            "enable",
            "disable",
            "freeze",
            "send_invitation",
            "list_domain_invitation",
            "delete_invitation",
        ],
        "messages" => return Some(vec!["publish", "subscribe"]),
        "dashboards" => return Some([&COARSE[..], &["share", "unshare"]].concat()),
        _ => return None,
    };
    let entity: &[&str] = if entity_type == "domains" {
        &[]
    } else {
        &ENTITY
    };
    Some([&COARSE[..], entity, own, &ROLES].concat())
}
