//! Routes of domains, invitations, roles and the journal.

use axum::http::Method;

use super::{CREATED, ID, LIST, NO_CONTENT, OK, PAGE, by, field, needed, relation, route};
use crate::api::route::{Auth, Holds, Route};
use crate::api::{aliases, domains, explain, invitations, journal, roles};
use crate::grant::Kind;

pub(super) fn of_domains(all: &mut Vec<Route>) {
    let (get, post) = (Method::GET, Method::POST);
    let fields = [
        field("name", ID),
        field("tags", Holds::Texts),
        field("metadata", Holds::Object),
        field("disabled_group_blocks_messaging", Holds::Flag),
    ];
    let making = [
        needed("name", ID),
        field("route", ID),
        field("alias", ID),
        field("id", ID),
        field("tags", Holds::Texts),
        field("metadata", Holds::Object),
        field("disabled_group_blocks_messaging", Holds::Flag),
    ];
    let of = |method, path: &str, operation: &str, summary: &str, handler| {
        let operation = format!("domain.{operation}");
        route(method, path, operation, summary, handler)
    };
    all.extend([
        of(
            post.clone(),
            "/domains",
            "create",
            "Make a domain",
            by!(domains::create),
        )
        .auth(Auth::Login)
        .body(&making)
        .answers(CREATED, "Domain"),
        of(
            get.clone(),
            "/domains",
            "list",
            "List domains",
            by!(domains::list),
        )
        .auth(Auth::Login)
        .query(&LIST)
        .answers(OK, "DomainPage"),
        of(
            get.clone(),
            "/domains/{domain}",
            "retrieve",
            "Show a domain",
            by!(domains::view),
        )
        .scope("domains", "view")
        .query(&["roles"])
        .answers(OK, "Domain"),
        of(
            Method::PATCH,
            "/domains/{domain}",
            "update",
            "Change a domain",
            by!(domains::update),
        )
        .scope("domains", "update")
        .body(&fields)
        .answers(OK, "Domain"),
        of(
            post.clone(),
            "/domains/{domain}/enable",
            "enable",
            "Enable a domain",
            by!(domains::enable),
        )
        .scope("domains", "enable")
        .empty(OK),
        of(
            post.clone(),
            "/domains/{domain}/disable",
            "disable",
            "Disable a domain",
            by!(domains::disable),
        )
        .scope("domains", "disable")
        .empty(OK),
        of(
            post.clone(),
            "/domains/{domain}/freeze",
            "freeze",
            "Freeze a domain",
            by!(domains::freeze),
        )
        .scope("domains", "freeze")
        .empty(OK),
        of(
            Method::DELETE,
            "/domains/{domain}",
            "delete",
            "Delete a domain and everything inside",
            by!(domains::delete),
        )
        .scope("domains", "delete")
        .query(&["purge"])
        .empty(NO_CONTENT),
        of(
            get,
            "/domains/{domain}/permissions",
            "permissions",
            "List what the caller may do with a domain",
            by!(domains::permissions),
        )
        .scope("domains", "view")
        .answers(OK, "Permissions"),
        of(
            post.clone(),
            "/domains/{domain}/assign",
            "add_members",
            "Give users a relation to a domain",
            by!(aliases::assign),
        )
        .scope("domains", "role_add_members")
        .body(&relation())
        .answers(CREATED, "Members"),
        of(
            post,
            "/domains/{domain}/unassign",
            "remove_members",
            "Take users out of a domain",
            by!(aliases::unassign),
        )
        .scope("domains", "role_remove_members")
        .body(&relation())
        .empty(NO_CONTENT),
    ]);
}

pub(super) fn of_invitations(all: &mut Vec<Route>) {
    let of = |method, path: &str, operation: &str, summary: &str, handler| {
        let operation = format!("invitation.{operation}");
        route(method, path, operation, summary, handler)
    };
    let base = "/domains/{domain}/invitations";
    let one = "/domains/{domain}/invitations/{user}";
    let answer = [field("domain_id", ID), field("token", Holds::Secret)];
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    all.extend([
        of(
            post.clone(),
            base,
            "send",
            "Invite a user to a role",
            by!(invitations::send),
        )
        .scope("domains", "send_invitation")
        .body(&[
            field("invitee_user_id", ID),
            field("user_id", ID),
            field("invitee_email", ID),
            field("role_id", ID),
            field("relation", ID),
            field("resend", Holds::Flag),
        ])
        .empty(CREATED),
        of(
            get.clone(),
            base,
            "list_domain",
            "List a domain's invitations",
            by!(invitations::list_of_domain),
        )
        .scope("domains", "list_domain_invitation")
        .query(&PAGE)
        .query(&[
            "invitee_user_id",
            "user_id",
            "invited_by",
            "role_id",
            "state",
            "mailed",
            "only_total",
        ])
        .answers(OK, "InvitationPage"),
        of(
            delete.clone(),
            base,
            "delete",
            "Take an invitation back",
            by!(invitations::delete),
        )
        .scope("domains", "delete_invitation")
        .optional_body(&[
            field("user_id", ID),
            field("invitee_user_id", ID),
            field("invitee_email", ID),
        ])
        .empty(NO_CONTENT),
        of(
            get.clone(),
            one,
            "view",
            "Show an invitation",
            by!(invitations::view),
        )
        .scope("domains", "list_domain_invitation")
        .answers(OK, "Invitation"),
        of(
            delete,
            one,
            "delete",
            "Take an invitation back",
            by!(invitations::delete),
        )
        .scope("domains", "delete_invitation")
        .empty(NO_CONTENT),
        of(
            get,
            "/invitations",
            "list",
            "List the own invitations",
            by!(invitations::list_own),
        )
        .auth(Auth::Login)
        .query(&PAGE)
        .query(&["domain_id", "invited_by", "role_id", "state", "only_total"])
        .answers(OK, "InvitationPage"),
        of(
            post.clone(),
            "/invitations/accept",
            "accept",
            "Accept an invitation",
            by!(invitations::accept),
        )
        .auth(Auth::Login)
        .body(&answer)
        .empty(NO_CONTENT),
        of(
            post,
            "/invitations/reject",
            "reject",
            "Reject an invitation",
            by!(invitations::reject),
        )
        .auth(Auth::Login)
        .body(&answer)
        .empty(NO_CONTENT),
    ]);
}

pub(super) fn of_roles(all: &mut Vec<Route>, kind: Kind) {
    let (word, plural) = (kind.word(), kind.plural());
    let (kinds, entity) = match kind {
        Kind::Domain => ("/domains".to_owned(), "/domains/{domain}".to_owned()),
        Kind::Group | Kind::Channel | Kind::Client => {
            let kinds = format!("/{{domain}}/{plural}");
            (kinds.clone(), format!("{kinds}/{{id}}"))
        }
    };
    let base = format!("{entity}/roles");
    let one = format!("{base}/{{role}}");
    let of = |method, path: &str, operation: &str, summary: &str, handler| {
        let summary = format!("{summary} on a {word}");
        let kind_operation = format!("{word}.{operation}");
        route(method, path, kind_operation, summary, handler)
            .kind(kind)
            .scope(plural, operation)
    };
    let actions = [needed("actions", Holds::Texts)];
    let members = [needed("members", Holds::Texts)];
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    all.extend([
        route(
            get.clone(),
            format!("{kinds}/roles/available-actions"),
            format!("{word}.list_available_actions"),
            format!("List the actions that roles on a {word} can hold"),
            by!(roles::available_actions),
        )
        .kind(kind)
        .auth(Auth::Login)
        .answers(OK, "AvailableActions"),
        of(
            post.clone(),
            &base,
            "role_add",
            "Make a role",
            by!(roles::create),
        )
        .body(&[
            field("role_name", Holds::Text(200)),
            field("name", Holds::Text(200)),
            field("optional_actions", Holds::Texts),
            field("optional_members", Holds::Texts),
        ])
        .answers(CREATED, "NewRole"),
        of(
            get.clone(),
            &base,
            "role_retrieve_all",
            "List the roles",
            by!(roles::list),
        )
        .query(&PAGE)
        .answers(OK, "RolePage"),
        of(
            get.clone(),
            &format!("{base}/members"),
            "role_list_members",
            "List everybody with a role",
            by!(roles::entity_members),
        )
        .query(&PAGE)
        .query(&[
            "order",
            "dir",
            "access_provider_id",
            "access_type",
            "role_id",
            "role_name",
            "actions",
        ])
        .answers(OK, "EntityMemberPage"),
        of(
            delete.clone(),
            &base,
            "role_remove_members",
            "Take users out of all roles",
            by!(roles::expel),
        )
        .body(&[
            field("member_ids", Holds::Texts),
            field("members", Holds::Texts),
            field("user_ids", Holds::Texts),
        ])
        .empty(NO_CONTENT),
        of(
            get.clone(),
            &one,
            "role_retrieve",
            "Show a role",
            by!(roles::view),
        )
        .answers(OK, "Role"),
        of(
            Method::PUT,
            &one,
            "role_update",
            "Rename a role",
            by!(roles::rename),
        )
        .body(&[
            field("name", Holds::Text(200)),
            field("role_name", Holds::Text(200)),
        ])
        .answers(OK, "Role"),
        of(
            delete,
            &one,
            "role_remove",
            "Delete a role",
            by!(roles::delete),
        )
        .empty(NO_CONTENT),
        of(
            post.clone(),
            &format!("{one}/actions"),
            "role_add_actions",
            "Add actions to a role",
            by!(roles::add_actions),
        )
        .body(&actions)
        .answers(OK, "Actions"),
        of(
            get.clone(),
            &format!("{one}/actions"),
            "role_list_actions",
            "List the actions of a role",
            by!(roles::list_actions),
        )
        .answers(OK, "Actions"),
        of(
            post.clone(),
            &format!("{one}/actions/delete"),
            "role_remove_actions",
            "Take actions from a role",
            by!(roles::remove_actions),
        )
        .body(&actions)
        .empty(NO_CONTENT),
        of(
            post.clone(),
            &format!("{one}/actions/delete-all"),
            "role_remove_all_actions",
            "Take all actions from a role",
            by!(roles::remove_all_actions),
        )
        .empty(NO_CONTENT),
        of(
            post.clone(),
            &format!("{one}/members"),
            "role_add_members",
            "Add members to a role",
            by!(roles::add_members),
        )
        .body(&members)
        .answers(OK, "Members"),
        of(
            get,
            &format!("{one}/members"),
            "role_list_members",
            "List the members of a role",
            by!(roles::list_members),
        )
        .query(&PAGE)
        .answers(OK, "MemberPage"),
        of(
            post.clone(),
            &format!("{one}/members/delete"),
            "role_remove_members",
            "Take members out of a role",
            by!(roles::remove_members),
        )
        .body(&members)
        .empty(NO_CONTENT),
        of(
            post,
            &format!("{one}/members/delete-all"),
            "role_remove_all_members",
            "Take all members out of a role",
            by!(roles::remove_all_members),
        )
        .empty(NO_CONTENT),
    ]);
}

pub(super) fn of_journal(all: &mut Vec<Route>) {
    let query = [
        "operation",
        "from",
        "to",
        "with_attributes",
        "with_metadata",
        "dir",
    ];
    let get = Method::GET;
    all.extend([
        route(
            get.clone(),
            "/{domain}/journal/{kind}/{id}",
            "platform.journal",
            "List what was done to an object",
            by!(journal::of_entity),
        )
        .auth(Auth::Login)
        .query(&PAGE)
        .query(&query)
        .answers(OK, "JournalPage"),
        route(
            get.clone(),
            "/{domain}/journal/client/{id}/telemetry",
            "platform.telemetry",
            "Show what a client sent, got and subscribed to",
            by!(journal::telemetry),
        )
        .auth(Auth::Login)
        .answers(OK, "Telemetry"),
        route(
            get.clone(),
            "/journal/user/{id}",
            "platform.journal",
            "List what a user did",
            by!(journal::of_user),
        )
        .auth(Auth::Login)
        .query(&PAGE)
        .query(&query)
        .answers(OK, "JournalPage"),
        route(
            get.clone(),
            "/journal/verify",
            "platform.journal",
            "Check that nothing in the journal was changed",
            by!(journal::verify),
        )
        .auth(Auth::Login)
        .answers(OK, "JournalState"),
        route(
            get,
            "/{domain}/authz/explain",
            "platform.explain",
            "Explain why somebody may or may not",
            by!(explain::explain),
        )
        .auth(Auth::Login)
        .query(&["subject", "action", "object"])
        .answers(OK, "Explanation"),
    ]);
}
