//! Routes of users, logins and personal access tokens.

use axum::http::{Method, StatusCode};

use super::{CREATED, FOUND, ID, LIST, NAME, NO_CONTENT, OK, PAGE, by, field, needed, route};
use crate::api::route::{Auth, Holds, Route};
use crate::api::{domains, keys, oauth, pats, people, tokens};

pub(super) fn of_people(all: &mut Vec<Route>) {
    let own = |method, path: &str, operation: &str, summary: &str, handler| {
        route(method, path, operation, summary, handler).auth(Auth::Login)
    };
    let (get, post, patch) = (Method::GET, Method::POST, Method::PATCH);
    all.extend([
        route(
            post.clone(),
            "/users",
            "user.create",
            "Register a user",
            by!(people::create),
        )
        .auth(Auth::Optional)
        .body(&[
            field("first_name", NAME),
            field("last_name", NAME),
            needed("email", ID),
            needed("credentials", Holds::Object),
            field("tags", Holds::Texts),
            field("metadata", Holds::Object),
            field("private_metadata", Holds::Object),
            field("profile_picture", NAME),
            field("status", ID),
            field("role", ID),
            field("invitation", Holds::Secret),
        ])
        .answers(CREATED, "NewUser"),
        own(
            get.clone(),
            "/users",
            "user.list",
            "List users",
            by!(people::list),
        )
        .query(&LIST[..10])
        .query(&["username", "first_name", "last_name", "email"])
        .answers(OK, "UserPage"),
        own(
            get.clone(),
            "/users/search",
            "user.search",
            "Find users by name",
            by!(people::search),
        )
        .query(&PAGE)
        .query(&["username", "first_name", "last_name", "id"])
        .answers(OK, "UserPage"),
        own(
            get.clone(),
            "/users/profile",
            "user.profile",
            "Show the caller",
            by!(people::profile),
        )
        .auth(Auth::Unverified)
        .answers(OK, "User"),
        own(
            patch.clone(),
            "/users/secret",
            "user.update_secret",
            "Change the own password",
            by!(people::update_secret),
        )
        .body(&[
            needed("old_secret", Holds::Secret),
            needed("new_secret", Holds::Secret),
        ])
        .answers(OK, "User"),
        own(
            get,
            "/users/{id}",
            "user.view",
            "Show a user",
            by!(people::view),
        )
        .answers(OK, "User"),
        own(
            patch.clone(),
            "/users/{id}",
            "user.update",
            "Change a user",
            by!(people::update),
        )
        .body(&[
            field("first_name", NAME),
            field("last_name", NAME),
            field("metadata", Holds::Object),
            field("private_metadata", Holds::Object),
        ])
        .answers(OK, "User"),
        own(
            patch.clone(),
            "/users/{id}/tags",
            "user.update_tags",
            "Change a user's tags",
            by!(people::update_tags),
        )
        .body(&[needed("tags", Holds::Texts)])
        .answers(OK, "User"),
        own(
            patch.clone(),
            "/users/{id}/username",
            "user.update_username",
            "Change a user's name",
            by!(people::update_username),
        )
        .body(&[needed("username", ID)])
        .answers(OK, "User"),
        own(
            patch.clone(),
            "/users/{id}/email",
            "user.update_email",
            "Change a user's e-mail address",
            by!(people::update_email),
        )
        .auth(Auth::Unverified)
        .body(&[field("email", ID), field("identity", ID)])
        .answers(OK, "User"),
        own(
            patch.clone(),
            "/users/{id}/picture",
            "user.update_picture",
            "Change a user's picture",
            by!(people::update_picture),
        )
        .body(&[needed("profile_picture", NAME)])
        .answers(OK, "User"),
        own(
            patch,
            "/users/{id}/role",
            "user.update_role",
            "Make a user an administrator of the platform, or not",
            by!(people::update_role),
        )
        .body(&[needed("role", ID)])
        .answers(OK, "User"),
        own(
            post.clone(),
            "/users/{id}/enable",
            "user.enable",
            "Enable a user",
            by!(people::enable),
        )
        .answers(OK, "User"),
        own(
            post,
            "/users/{id}/disable",
            "user.disable",
            "Disable a user",
            by!(people::disable),
        )
        .answers(OK, "User"),
        own(
            Method::DELETE,
            "/users/{id}",
            "user.delete",
            "Delete a user",
            by!(people::delete),
        )
        .empty(NO_CONTENT),
        own(
            Method::GET,
            "/users/{id}/domains",
            "domain.list",
            "List a user's domains",
            by!(domains::list),
        )
        .query(&LIST)
        .answers(OK, "DomainPage"),
    ]);
}

pub(super) fn of_tokens(all: &mut Vec<Route>) {
    let (get, post) = (Method::GET, Method::POST);
    all.extend([
        route(
            post.clone(),
            "/users/tokens/issue",
            "user.issue_token",
            "Log in",
            by!(tokens::issue),
        )
        .auth(Auth::Open)
        .body(&[
            field("username", ID),
            field("identity", ID),
            field("email", ID),
            field("password", Holds::Secret),
            field("secret", Holds::Secret),
            field("description", NAME),
            field("domain_id", ID),
        ])
        .answers(CREATED, "Tokens"),
        route(
            post.clone(),
            "/users/tokens/refresh",
            "user.refresh_token",
            "Exchange a refresh token, sent as bearer",
            by!(tokens::refresh),
        )
        .auth(Auth::Open)
        .optional_body(&[field("domain_id", ID)])
        .answers(CREATED, "Tokens"),
        route(
            post.clone(),
            "/users/tokens/revoke",
            "user.revoke_refresh_token",
            "End one of the own logins",
            by!(tokens::revoke),
        )
        .auth(Auth::Unverified)
        .body(&[needed("token_id", ID)])
        .empty(NO_CONTENT),
        route(
            get.clone(),
            "/users/tokens/refresh-tokens",
            "user.list_refresh_tokens",
            "List the own logins",
            by!(tokens::list),
        )
        .auth(Auth::Session)
        .answers(OK, "RefreshTokens"),
        route(
            post.clone(),
            "/users/send-verification",
            "user.send_verification",
            "Send a link that verifies the own address",
            by!(tokens::send_verification),
        )
        .auth(Auth::Unverified)
        .empty(OK),
        route(
            get.clone(),
            "/verify-email",
            "user.verify_email",
            "Verify an address by the link that was sent",
            by!(tokens::verify_email),
        )
        .auth(Auth::Open)
        .query(&["token"])
        .empty(OK),
        route(
            post.clone(),
            "/verify-email",
            "user.verify_email",
            "Verify an address by the token that was sent",
            by!(tokens::verify_email),
        )
        .auth(Auth::Open)
        .body(&[needed("token", Holds::Secret)])
        .empty(OK),
        route(
            post,
            "/password/reset-request",
            "user.request_reset",
            "Send a link that lets set another password",
            by!(tokens::request_reset),
        )
        .auth(Auth::Open)
        .body(&[needed("email", ID), field("host", NAME)])
        .answers(CREATED, "Message"),
        route(
            Method::PUT,
            "/password/reset",
            "user.reset_secret",
            "Set another password by the link that was sent",
            by!(tokens::reset),
        )
        .auth(Auth::Open)
        .body(&[
            field("token", Holds::Secret),
            needed("password", Holds::Secret),
            field("confirm_password", Holds::Secret),
        ])
        .empty(CREATED),
        route(
            get.clone(),
            "/oauth/login/{provider}",
            "user.begin_oauth",
            "Go to a provider to log in there",
            by!(oauth::begin),
        )
        .auth(Auth::Open)
        .query(&["return"])
        .empty(FOUND),
        route(
            get.clone(),
            "/oauth/callback/{provider}",
            "user.oauth",
            "Come back from a provider, logged in",
            by!(oauth::callback),
        )
        .auth(Auth::Open)
        .query(&["state", "code", "error"])
        .empty(FOUND),
        route(
            get,
            "/keys/.well-known/jwks.json",
            "platform.keys",
            "The public keys of tokens",
            by!(tokens::jwks),
        )
        .auth(Auth::Open)
        .answers(OK, "Keys"),
    ]);
}

pub(super) fn of_pats(all: &mut Vec<Route>) {
    let own = |method, path: &str, operation: &str, summary: &str, handler| {
        let operation = format!("pat.{operation}");
        route(method, path, operation, summary, handler).auth(Auth::Session)
    };
    let (get, patch, delete) = (Method::GET, Method::PATCH, Method::DELETE);
    all.extend([
        own(
            Method::POST,
            "/pats",
            "create",
            "Make a personal access token",
            by!(pats::create),
        )
        .body(&[
            needed("name", NAME),
            field("description", NAME),
            needed("duration", ID),
            field("scope", Holds::Object),
            field("scopes", Holds::Objects),
        ])
        .answers(CREATED, "Pat"),
        own(
            get.clone(),
            "/pats",
            "list",
            "List the own personal access tokens",
            by!(pats::list),
        )
        .query(&PAGE)
        .query(&["name", "id", "status"])
        .answers(OK, "PatPage"),
        own(
            delete.clone(),
            "/pats",
            "delete_all",
            "Delete all own personal access tokens",
            by!(pats::delete_all),
        )
        .empty(OK),
        own(
            get.clone(),
            "/pats/{id}",
            "view",
            "Show a personal access token",
            by!(pats::view),
        )
        .answers(OK, "Pat"),
        own(
            delete.clone(),
            "/pats/{id}",
            "delete",
            "Delete a personal access token",
            by!(pats::delete),
        )
        .empty(NO_CONTENT),
        own(
            patch.clone(),
            "/pats/{id}/name",
            "rename",
            "Rename a personal access token",
            by!(pats::rename),
        )
        .body(&[needed("name", NAME)])
        .answers(StatusCode::ACCEPTED, "Pat"),
        own(
            patch.clone(),
            "/pats/{id}/description",
            "describe",
            "Describe a personal access token",
            by!(pats::describe),
        )
        .body(&[needed("description", NAME)])
        .answers(StatusCode::ACCEPTED, "Pat"),
        own(
            patch.clone(),
            "/pats/{id}/secret/reset",
            "reset",
            "Give a personal access token another text",
            by!(pats::reset),
        )
        .body(&[needed("duration", ID)])
        .answers(OK, "Pat"),
        own(
            patch.clone(),
            "/pats/{id}/secret/revoke",
            "revoke",
            "Revoke a personal access token",
            by!(pats::revoke),
        )
        .empty(NO_CONTENT),
        own(
            get,
            "/pats/{id}/scope",
            "list_scopes",
            "List what a token may be used for",
            by!(pats::scopes),
        )
        .query(&PAGE)
        .answers(OK, "ScopePage"),
        own(
            patch.clone(),
            "/pats/{id}/scope/add",
            "add_scope",
            "Let a token be used for more",
            by!(pats::add_scopes),
        )
        .body(&[needed("scopes", Holds::Objects)])
        .empty(OK),
        own(
            patch,
            "/pats/{id}/scope/remove",
            "remove_scope",
            "Let a token be used for less",
            by!(pats::remove_scopes),
        )
        .body(&[
            field("scopes_id", Holds::Texts),
            field("scope_ids", Holds::Texts),
            field("scopes_ids", Holds::Texts),
        ])
        .empty(OK),
        own(
            delete,
            "/pats/{id}/scope",
            "clear_scopes",
            "Let a token be used for nothing",
            by!(pats::clear_scopes),
        )
        .empty(OK),
    ]);
}

pub(super) fn of_keys(all: &mut Vec<Route>) {
    let own = |method, path: &str, operation: &str, summary: &str, handler| {
        let operation = format!("key.{operation}");
        route(method, path, operation, summary, handler).auth(Auth::Session)
    };
    all.extend([
        own(
            Method::POST,
            "/keys",
            "create",
            "Make an API key",
            by!(keys::create),
        )
        .body(&[field("type", Holds::Whole), field("duration", Holds::Whole)])
        .answers(CREATED, "NewKey"),
        own(
            Method::GET,
            "/keys/{id}",
            "view",
            "Show an API key",
            by!(keys::view),
        )
        .answers(OK, "Key"),
        own(
            Method::DELETE,
            "/keys/{id}",
            "delete",
            "End an API key",
            by!(keys::delete),
        )
        .empty(NO_CONTENT),
    ]);
}
