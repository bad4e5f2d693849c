//! The table of routes.

mod certificates;
mod domains;
mod objects;
mod people;

use std::sync::LazyLock;

use axum::http::{Method, StatusCode};

use super::route::{Auth, BodyShape, Field, Handler, Holds, Route};
use crate::grant::Kind;

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(make);

/// All routes.
pub(super) fn all() -> &'static [Route] {
    &ROUTES
}

macro_rules! by {
    ($operation:path) => {
        |call| Box::pin($operation(call))
    };
}

use by;

/// Length of names, in characters.
const NAME: Holds = Holds::Text(1024);
const ID: Holds = Holds::Text(254);
/// Query parameters of every list.
const PAGE: [&str; 2] = ["offset", "limit"];
const LIST: [&str; 16] = [
    "offset",
    "limit",
    "order",
    "dir",
    "status",
    "name",
    "id",
    "metadata",
    "tags",
    "only_total",
    "created_from",
    "created_to",
    "actions",
    "role_id",
    "role_name",
    "access_type",
];

fn field(name: &'static str, holds: Holds) -> Field {
    Field {
        name,
        holds,
        required: false,
    }
}

fn needed(name: &'static str, holds: Holds) -> Field {
    Field {
        required: true,
        ..field(name, holds)
    }
}

impl Route {
    fn body(mut self, fields: &[Field]) -> Route {
        self.body = BodyShape::Object(fields.to_vec());
        self
    }

    fn optional_body(mut self, fields: &[Field]) -> Route {
        self.body = BodyShape::Optional(fields.to_vec());
        self
    }

    fn list_body(mut self, fields: &[Field]) -> Route {
        self.body = BodyShape::List(fields.to_vec());
        self
    }

    fn auth(mut self, auth: Auth) -> Route {
        self.auth = auth;
        self
    }

    fn scope(mut self, kind: &'static str, operation: impl Into<String>) -> Route {
        self.scope = Some((kind, operation.into()));
        self
    }

    fn scope_in_body(mut self) -> Route {
        self.scope_in_body = true;
        self
    }

    fn kind(mut self, kind: Kind) -> Route {
        self.kind = Some(kind);
        self
    }

    fn query(mut self, names: &[&'static str]) -> Route {
        self.query.extend(names);
        self
    }

    fn stands_for(mut self, name: &'static str, parameter: &'static str) -> Route {
        self.default_query = Some((name, parameter));
        self
    }

    fn answers(mut self, status: StatusCode, schema: &'static str) -> Route {
        self.success = status;
        self.answers = Some(schema);
        self
    }

    fn empty(mut self, status: StatusCode) -> Route {
        self.success = status;
        self.answers = None;
        self
    }
}

fn route(
    method: Method,
    path: impl Into<String>,
    operation: impl Into<String>,
    summary: impl Into<String>,
    handler: Handler,
) -> Route {
    Route {
        method,
        path: path.into(),
        auth: Auth::Any,
        operation: operation.into(),
        kind: None,
        scope: None,
        scope_in_body: false,
        body: BodyShape::None,
        query: Vec::new(),
        default_query: None,
        success: StatusCode::OK,
        answers: None,
        summary: summary.into(),
        handler,
    }
}

const OK: StatusCode = StatusCode::OK;
const CREATED: StatusCode = StatusCode::CREATED;
const FOUND: StatusCode = StatusCode::FOUND;
const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

fn make() -> Vec<Route> {
    let mut all = Vec::new();
    people::of_people(&mut all);
    people::of_tokens(&mut all);
    people::of_pats(&mut all);
    people::of_keys(&mut all);
    domains::of_domains(&mut all);
    domains::of_invitations(&mut all);
    for kind in [Kind::Client, Kind::Channel, Kind::Group] {
        objects::of_entities(&mut all, kind);
    }
    certificates::of_certificates(&mut all);
    objects::of_groups(&mut all);
    objects::of_connections(&mut all);
    for kind in Kind::ALL {
        domains::of_roles(&mut all, kind);
    }
    domains::of_journal(&mut all);
    all
}

fn relation() -> [Field; 2] {
    [needed("user_ids", Holds::Texts), field("relation", ID)]
}
