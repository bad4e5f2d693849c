//! What clients did, as brokers told it.

use authcache::EntityId;
use authcache::feed::Activity;

use super::rows::{self, blob};
use super::sql::{self, Connection};
use super::{StoreError, Write};
use crate::model::Time;

/// What one client did at all brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Telemetry {
    /// Subscriptions that it has now.
    pub(crate) subscriptions: i64,
    /// Messages that it published.
    pub(crate) inbound: i64,
    /// Messages that it was given.
    pub(crate) outbound: i64,
    pub(crate) first_seen: Option<Time>,
    pub(crate) last_seen: Option<Time>,
}

impl Write {
    /// Notes a start of a broker.
    pub(crate) async fn broker_began(
        &mut self,
        node: EntityId,
        incarnation: u64,
    ) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO brokers (node_id, incarnation) VALUES ($1, $2) \
             ON CONFLICT (node_id) DO UPDATE SET incarnation = excluded.incarnation",
        )
        .bind(blob(node))
        .bind(incarnation.cast_signed())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Adds what clients did at a broker; clients that are gone are left out.
    pub(crate) async fn add_activity(
        &mut self,
        node: EntityId,
        incarnation: u64,
        clients: &[Activity],
        now: Time,
    ) -> Result<(), StoreError> {
        for activity in clients {
            sql::query(
                "INSERT INTO client_activity (client_id, node_id, incarnation, inbound, outbound, \
                 subscriptions, first_seen, last_seen) \
                 SELECT id, $2, $3, $4, $5, $6, $7, $7 FROM clients WHERE id = $1 \
                 ON CONFLICT (client_id, node_id) DO UPDATE SET \
                 incarnation = excluded.incarnation, \
                 inbound = client_activity.inbound + excluded.inbound, \
                 outbound = client_activity.outbound + excluded.outbound, \
                 subscriptions = excluded.subscriptions, last_seen = excluded.last_seen",
            )
            .bind(blob(activity.client))
            .bind(blob(node))
            .bind(incarnation.cast_signed())
            .bind(activity.inbound.cast_signed())
            .bind(activity.outbound.cast_signed())
            .bind(i64::from(activity.subscriptions))
            .bind(now.micros())
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }
}

/// What a client did; all zero if no broker ever saw it.
pub(crate) async fn telemetry(
    connection: &mut Connection,
    client: EntityId,
) -> Result<Telemetry, StoreError> {
    let rows = sql::query(
        "SELECT a.inbound, a.outbound, a.first_seen, a.last_seen, \
         CASE WHEN b.incarnation = a.incarnation THEN a.subscriptions ELSE 0 END AS subscriptions \
         FROM client_activity a LEFT JOIN brokers b ON b.node_id = a.node_id \
         WHERE a.client_id = $1",
    )
    .bind(blob(client))
    .fetch_all(connection)
    .await?;
    let mut sum = Telemetry::default();
    for row in &rows {
        sum.inbound = sum.inbound.saturating_add(row.get("inbound")?);
        sum.outbound = sum.outbound.saturating_add(row.get("outbound")?);
        sum.subscriptions = sum.subscriptions.saturating_add(row.get("subscriptions")?);
        let (first, last) = (
            rows::time(row, "first_seen")?,
            rows::time(row, "last_seen")?,
        );
        sum.first_seen = [sum.first_seen, first].into_iter().flatten().min();
        sum.last_seen = sum.last_seen.max(last);
    }
    Ok(sum)
}
