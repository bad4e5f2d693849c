//! Deep pages of what members of groups see.
//!
//! It lies in as many places as there are groups, so it has to be sorted, and a page in the middle
//! takes half of it. Counting what was changed before some time is cheaper: so the stretch of time
//! in which the page lies is searched for first, and only what is in it is sorted.

use super::{Branch, List, MOVED};
use crate::model::Page;
use crate::store::StoreError;
use crate::store::entities::table;
use crate::store::rows::{self, blob};
use crate::store::sql::{Builder, Connection};

/// Rows that are sorted without a search. Fewer in tests, which have fewer rows.
const SORTED: u64 = if cfg!(test) { 16 } else { 4_096 };
/// Counts that a search takes, at most: each goes through all groups.
const PROBES: u32 = 8;

/// Times between which rows are looked at, both included; all of them without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
}

impl List<'_> {
    /// The stretch of time in which a page lies. From the page's offset is taken what is outside.
    pub(super) async fn stretch(
        &self,
        connection: &mut Connection,
        branches: &[Branch],
        ascending: bool,
        page: &mut Page,
        total: u64,
    ) -> Result<Stretch, StoreError> {
        let mut stretch = Stretch::default();
        let in_groups = branches
            .iter()
            .any(|branch| matches!(branch, Branch::InGroups(_)));
        if !in_groups || self.filter.order != MOVED || page.offset < SORTED {
            return Ok(stretch);
        }
        let Some((mut low, mut high)) = self.times(connection).await? else {
            return Ok(stretch);
        };
        // Of all rows in order, those before the stretch and those up to its end.
        let (mut before, mut through) = (0, total);
        for probe in 0..PROBES {
            if through - before <= SORTED || low >= high {
                break;
            }
            // Where the page would be if rows came evenly; every other time the middle, as they may not.
            let share = (page.offset - before) as f64 / (through - before) as f64;
            let share = match (probe % 2, ascending) {
                (1, _) => 0.5,
                (_, true) => share,
                (_, false) => 1.0 - share,
            };
            let split = low + ((high - low) as f64 * share) as i64;
            let split = split.clamp(low, high - 1);
            let (older, newer) = (Some(split), Some(split + 1));
            let first = if ascending {
                Stretch {
                    from: None,
                    to: older,
                }
            } else {
                Stretch {
                    from: newer,
                    to: None,
                }
            };
            let count = self.count_in(connection, branches, first).await?;
            let is_behind = count <= page.offset;
            if is_behind {
                before = count;
            } else if count >= page.offset + page.limit {
                through = count;
            } else {
                break;
            }
            if is_behind == ascending {
                (low, stretch.from) = (split + 1, newer);
            } else {
                (high, stretch.to) = (split, older);
            }
        }
        page.offset -= before;
        Ok(stretch)
    }

    /// The first and the last time of the domain's objects, if all have one status.
    async fn times(&self, connection: &mut Connection) -> Result<Option<(i64, i64)>, StoreError> {
        let Some(status) = self.filter.status else {
            return Ok(None);
        };
        let mut ends = [None; 2];
        for (end, direction) in ends.iter_mut().zip(["ASC", "DESC"]) {
            let mut query = Builder::new(format!(
                "SELECT {MOVED} FROM {} e WHERE e.domain_id = ",
                table(self.kind)
            ));
            query.push_bind(blob(self.domain)).push(" AND e.status = ");
            query.push_bind(rows::status_number(status));
            query.push(format!(" ORDER BY {MOVED} {direction} LIMIT 1"));
            let found: Option<(i64,)> = query.build_as().fetch_optional(connection).await?;
            *end = found.map(|(time,)| time);
        }
        Ok(ends[0].zip(ends[1]))
    }

    async fn count_in(
        &self,
        connection: &mut Connection,
        branches: &[Branch],
        stretch: Stretch,
    ) -> Result<u64, StoreError> {
        let mut count = Builder::new("SELECT COUNT(*) FROM (");
        self.push_rows(&mut count, branches, false, stretch);
        count.push(") found");
        let (found,): (i64,) = count.build_as().fetch_one(connection).await?;
        Ok(found.cast_unsigned())
    }
}
