//! Routes of clients' certificates.

use axum::http::Method;

use super::{CREATED, NO_CONTENT, OK, PAGE, by, field, needed, route};
use crate::api::certificates::{self, PEM_CHARACTERS_MAX, PROOF_CHARACTERS_MAX};
use crate::api::route::{Holds, Route};
use crate::grant::Kind;

pub(super) fn of_certificates(all: &mut Vec<Route>) {
    let certificates = "/{domain}/clients/{id}/certs";
    let of = |method, path: String, operation: &str, summary: &str, handler| {
        let operation = format!("client.{operation}");
        route(method, path, operation, summary, handler).kind(Kind::Client)
    };
    all.extend([
        of(
            Method::POST,
            certificates.to_owned(),
            "add_certificate",
            "Register a certificate of a client",
            by!(certificates::create),
        )
        .scope("clients", "update_secret")
        .body(&[
            needed("certificate", Holds::Text(PEM_CHARACTERS_MAX)),
            field("proof", Holds::Text(PROOF_CHARACTERS_MAX)),
            field("proof_until", Holds::Whole),
        ])
        .answers(CREATED, "Certificate"),
        of(
            Method::GET,
            certificates.to_owned(),
            "list_certificates",
            "List the certificates of a client",
            by!(certificates::list),
        )
        .scope("clients", "view")
        .query(&PAGE)
        .answers(OK, "CertificatePage"),
        of(
            Method::DELETE,
            format!("{certificates}/{{serial}}"),
            "remove_certificate",
            "Forget a certificate of a client",
            by!(certificates::delete),
        )
        .scope("clients", "update_secret")
        .empty(NO_CONTENT),
    ]);
}
