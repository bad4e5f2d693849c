//! Certificates of clients.

use authcache::EntityId;
use authcache::feed::CertificatePrint;

use super::clients::{ClientAuth, client_auth};
use super::paging::List;
use super::rows::{self, blob};
use super::sql::{self, Builder, Connection, Row};
use super::{StoreError, Write};
use crate::model::{Page, Time};

/// A certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateRow {
    pub(crate) client: EntityId,
    /// Its serial number, as it is written.
    pub(crate) serial: String,
    /// All of it, in DER.
    pub(crate) der: Vec<u8>,
    pub(crate) created_at: Time,
}

impl Write {
    /// Registers a certificate. One that is registered, whoever has it, is a unique violation.
    pub(crate) async fn insert_certificate(
        &mut self,
        print: &CertificatePrint,
        new: &CertificateRow,
    ) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO client_certificates (print, client_id, serial, certificate, created_at) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(print.as_bytes().to_vec())
        .bind(blob(new.client))
        .bind(&new.serial)
        .bind(&new.der)
        .bind(new.created_at.micros())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Forgets the certificates of a client with this serial number; how many there were.
    pub(crate) async fn delete_certificates(
        &mut self,
        client: EntityId,
        serial: &str,
    ) -> Result<u64, StoreError> {
        sql::query("DELETE FROM client_certificates WHERE client_id = $1 AND serial = $2")
            .bind(blob(client))
            .bind(serial)
            .execute(self.connection())
            .await
    }

    /// A client has to show again who it is: its connections end.
    pub(crate) async fn end_credential(&mut self, client: EntityId) -> Result<(), StoreError> {
        sql::query("UPDATE clients SET credential = credential + 1 WHERE id = $1")
            .bind(blob(client))
            .noted()
            .execute(self.connection())
            .await?;
        self.client_changed(client).await
    }
}

/// A page of the certificates of a client, oldest first, and how many there are.
pub(crate) async fn certificates(
    connection: &mut Connection,
    client: EntityId,
    page: Page,
) -> Result<(u64, Vec<CertificateRow>), StoreError> {
    let list = List {
        select: "*",
        from: "client_certificates",
        order: "created_at, print",
    };
    let narrow = |query: &mut Builder| {
        query.push("client_id = ").push_bind(blob(client));
    };
    list.page(connection, narrow, Some(page), read).await
}

/// Marks a database in which prints are those of whole certificates.
const WHOLE: &str = "certificates printed whole";

/// Prints certificates anew in a database from when a print was that of issuer and serial number.
pub(crate) async fn complete(connection: &mut Connection) -> Result<(), StoreError> {
    let sql = "INSERT INTO counters (name, value) VALUES ($1, 1) ON CONFLICT DO NOTHING";
    if sql::query(sql).bind(WHOLE).execute(connection).await? == 0 {
        return Ok(());
    }
    let prints = sql::query_as("SELECT print FROM client_certificates");
    let prints: Vec<(Vec<u8>,)> = prints.fetch_all(connection).await?;
    for (print,) in prints {
        let sql = "SELECT certificate FROM client_certificates WHERE print = $1";
        let found = sql::query_as(sql).bind(print.clone());
        let (der,): (Vec<u8>,) = found.fetch_one(connection).await?;
        sql::query("UPDATE client_certificates SET print = $1 WHERE print = $2")
            .bind(CertificatePrint::of(&der).as_bytes().to_vec())
            .bind(print)
            .execute(connection)
            .await?;
    }
    Ok(())
}

fn read(row: &Row) -> Result<CertificateRow, StoreError> {
    Ok(CertificateRow {
        client: rows::id(&row.get::<Vec<u8>>("client_id")?)?,
        serial: row.get("serial")?,
        der: row.get("certificate")?,
        created_at: Time::from_micros(row.get("created_at")?),
    })
}

/// The client whose certificate this is.
pub(crate) async fn client_of(
    connection: &mut Connection,
    print: &CertificatePrint,
) -> Result<Option<ClientAuth>, StoreError> {
    let found: Option<(Vec<u8>,)> =
        sql::query_as("SELECT client_id FROM client_certificates WHERE print = $1")
            .bind(print.as_bytes().to_vec())
            .fetch_optional(&mut *connection)
            .await?;
    match found {
        Some((id,)) => client_auth(connection, rows::id(&id)?).await,
        None => Ok(None),
    }
}
