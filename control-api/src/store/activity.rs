//! What clients did, as brokers told it.

use std::collections::BTreeMap;

use authcache::EntityId;
use authcache::feed::Activity;

use super::rows::{self, blob};
use super::sql::{self, Builder, Connection};
use super::{StoreError, Write};
use crate::model::Time;

/// Clients of which one statement notes what they did.
const CLIENTS_AT_ONCE: usize = 64;

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
        // In the order of the table, so that neighbours share its pages.
        let mut sums: BTreeMap<EntityId, Activity> = BTreeMap::new();
        for activity in clients {
            let sum = sums.entry(activity.client);
            sum.and_modify(|sum| {
                sum.inbound = sum.inbound.saturating_add(activity.inbound);
                sum.outbound = sum.outbound.saturating_add(activity.outbound);
                sum.subscriptions = activity.subscriptions;
            })
            .or_insert(*activity);
        }
        let ids: Vec<EntityId> = sums.keys().copied().collect();
        for part in ids.chunks(CLIENTS_AT_ONCE) {
            let mut known = Builder::new("SELECT id FROM clients WHERE id IN (");
            known
                .push_list(part.iter().map(|id| blob(*id)))
                .push(") ORDER BY id");
            let known: Vec<(Vec<u8>,)> = known.build_as().fetch_all(self.connection()).await?;
            let known: Vec<EntityId> = known
                .iter()
                .map(|(id,)| rows::id(id))
                .collect::<Result<_, _>>()?;
            if known.is_empty() {
                continue;
            }
            let mut query = Builder::new(
                "INSERT INTO client_activity (client_id, node_id, incarnation, inbound, outbound, \
                 subscriptions, first_seen, last_seen) ",
            );
            query.push_rows(&known, |id| {
                let sum = sums.get(id);
                let count = |of: fn(&Activity) -> u64| sum.map_or(0, of).cast_signed();
                vec![
                    blob(*id).into(),
                    blob(node).into(),
                    incarnation.cast_signed().into(),
                    count(|sum| sum.inbound).into(),
                    count(|sum| sum.outbound).into(),
                    count(|sum| sum.subscriptions.into()).into(),
                    now.micros().into(),
                    now.micros().into(),
                ]
            });
            query.push(
                " ON CONFLICT (client_id, node_id) DO UPDATE SET \
                 incarnation = excluded.incarnation, \
                 inbound = client_activity.inbound + excluded.inbound, \
                 outbound = client_activity.outbound + excluded.outbound, \
                 subscriptions = excluded.subscriptions, last_seen = excluded.last_seen",
            );
            query.build().execute(self.connection()).await?;
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
