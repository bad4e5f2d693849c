//! Certificates by which a client is known where it shows one.
//!
//! Whoever registers one proves that he has its key, by a signature over what it is registered for and
//! until when that may be done (decision 0019). So nobody takes another's device by registering what it shows, and that a
//! certificate is registered elsewhere is told to its holder alone.

use authcache::feed::CertificatePrint;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::call::Call;
use super::failure::Failure;
use super::{Reply, show};
use crate::grant::Verb;
use crate::model::{Page, Time};
use crate::store::Write;
use crate::store::certificates::{self, CertificateRow};
use crate::store::entities::Entity;

/// Certificates of one client.
const CERTIFICATES_MAX: u64 = 16;

/// Longest certificate in PEM.
pub(super) const PEM_CHARACTERS_MAX: usize = 16_384;

/// Longest proof, in base64: what a key of 8192 bits signs has 1368 characters.
pub(super) const PROOF_CHARACTERS_MAX: usize = 2_048;

/// How far ahead a proof may end.
const PROOF_SECONDS_MAX: i64 = 24 * 3_600;

/// Registers a certificate as the client's own.
pub(super) async fn create(call: Call) -> Result<Reply, Failure> {
    let body = call.body();
    let (serial, der) = read(body.text("certificate").unwrap_or_default())?;
    let print = CertificatePrint::of(&der);
    let mut write = call.write().await?;
    let (inside, client) = call.entity(write.connection(), Verb::Update).await?;
    let caller = call.caller()?;
    let in_person = caller.pat.is_none() && !caller.key;
    match body.text("proof") {
        // Who administers the platform answers for it, logged in and by no token of a program.
        None if inside.admin && in_person => {}
        proof => {
            let until = body.whole("proof_until").unwrap_or_default();
            prove(&der, &client, proof.unwrap_or_default(), until)?;
        }
    }
    let page = Page::default();
    let (known, _) = certificates::certificates(write.connection(), client.id, page).await?;
    if known >= CERTIFICATES_MAX {
        let message = format!("the client has {CERTIFICATES_MAX} certificates; expected fewer");
        return Err(Failure::bad(message));
    }
    let row = CertificateRow {
        client: client.id,
        serial,
        der: der.to_vec(),
        created_at: Time::now(),
    };
    let inserted = write.insert_certificate(&print, &row).await;
    inserted.map_err(|error| {
        if error.is_unique_violation() {
            return Failure::conflict("the certificate is registered already");
        }
        error.into()
    })?;
    note(&call, &mut write, &row.serial, &client).await?;
    call.commit(write).await?;
    let (domain, client) = (client.domain, client.id);
    let location = format!("/{domain}/clients/{client}/certs/{}", row.serial);
    Ok(Reply::created(location, shown(&row)))
}

/// The client's certificates.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    let page = call.query.page()?;
    let mut tx = call.read().await?;
    let (_, client) = call.entity(&mut tx, Verb::Read).await?;
    let (total, found) = certificates::certificates(&mut tx, client.id, page).await?;
    let items = found.iter().map(shown).collect();
    Ok(Reply::ok(show::page("certificates", total, page, items)))
}

/// Forgets a certificate; the client's connections end, and come back with another proof only.
pub(super) async fn delete(call: Call) -> Result<Reply, Failure> {
    let serial = call.param("serial").to_ascii_lowercase();
    let mut write = call.write().await?;
    let (_, client) = call.entity(write.connection(), Verb::Update).await?;
    if write.delete_certificates(client.id, &serial).await? == 0 {
        return Err(Failure::not_found("certificate"));
    }
    write.end_credential(client.id).await?;
    note(&call, &mut write, &serial, &client).await?;
    call.commit(write).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Checks a signature, in base64, by the certificate's key over what it is registered for and until
/// when, in seconds since 1970.
///
/// # Errors
/// It is none, or is good no longer, or for too long.
fn prove(
    der: &CertificateDer<'_>,
    client: &Entity,
    proof: &str,
    until: i64,
) -> Result<(), Failure> {
    let now = Time::now().micros() / 1_000_000;
    if until <= now || until.saturating_sub(now) > PROOF_SECONDS_MAX {
        return Err(Failure::bad(format!(
            "proof_until: expected seconds since 1970, later than {now} by at most {PROOF_SECONDS_MAX}"
        )));
    }
    let (domain, id) = (client.domain, client.id);
    let signed = format!("turnpike certificate {domain} {id} until {until}");
    let proven = || {
        let signature = STANDARD.decode(proof).ok()?;
        let certificate = webpki::EndEntityCert::try_from(der).ok()?;
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        algorithms.all.iter().find(|algorithm| {
            let verified = certificate.verify_signature(**algorithm, signed.as_bytes(), &signature);
            verified.is_ok()
        })
    };
    if proven().is_some() {
        return Ok(());
    }
    Err(Failure::bad(format!(
        "proof: expected the signature in base64 of {signed:?} by the certificate's key"
    )))
}

/// Reads one certificate in PEM: its serial number as it is written, and all of it.
///
/// # Errors
/// It is none, or not one alone.
fn read(pem: &str) -> Result<(String, CertificateDer<'static>), Failure> {
    let wrong = || Failure::bad("certificate: expected one X.509 certificate, version 3, in PEM");
    let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
    let (Some(Ok(der)), None) = (found.next(), found.next()) else {
        return Err(wrong());
    };
    let certificate = webpki::EndEntityCert::try_from(&der).map_err(|_| wrong())?;
    let serial: Vec<String> = certificate
        .serial()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let serial = serial.join(":");
    Ok((serial, der))
}

async fn note(
    call: &Call,
    write: &mut Write,
    serial: &str,
    client: &Entity,
) -> Result<(), Failure> {
    let attributes = json!({ "name": client.name, "serial_number": serial });
    call.record(
        write,
        Some(client.domain),
        &client.id.to_string(),
        attributes,
    )
    .await
}

fn shown(row: &CertificateRow) -> Value {
    let base64 = STANDARD.encode(&row.der);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    );
    json!({
        "serial_number": row.serial,
        "certificate": pem,
        "entity_id": row.client.to_string(),
        "created_at": row.created_at,
    })
}
