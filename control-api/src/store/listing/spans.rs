//! Lists in spans of time.
//!
//! The database keeps how many objects of each status were made, or changed last, in which span of
//! time, some 16 000 in each (`entity_spans`). So a page in the middle of everything is found without
//! walking to it. What a filter lets pass is counted span by span: after a change only the spans that
//! it touched are counted again, and a page lies in one of them.
//!
//! What members of groups see lies in as many places as there are groups, and each count goes through
//! all of them. So for a page the spans are halved until few rows are left, which are sorted; SQLite
//! finds the first ones of all as fast, PostgreSQL does not.

use super::{Branch, List, MOVED, Plan};
use crate::model::Page;
use crate::store::StoreError;
use crate::store::rows::{self, blob};
use crate::store::sql::{Builder, Connection};
use crate::store::totals::Extent;
use authcache::{EntityId, Status};

use crate::grant::Kind;

/// Rows of members of groups that are sorted without a search. Fewer in tests, which have fewer rows.
const SORTED: u64 = if cfg!(test) { 16 } else { 4_096 };

/// Times between which rows are looked at, both included; all of them without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
}

/// A span as the database keeps it: it ends where the next one of its status begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) status: Status,
    since: i64,
    /// Objects in it.
    pub(super) count: u64,
}

/// The spans of a kind of object in a domain, in order of status and time.
pub(super) async fn spans(
    connection: &mut Connection,
    domain: EntityId,
    kind: Kind,
) -> Result<Vec<Span>, StoreError> {
    let mut query =
        Builder::new("SELECT status, since, count FROM entity_spans WHERE domain_id = ");
    query.push_bind(blob(domain)).push(" AND kind = ");
    query.push_bind(kind.number());
    query.push(" ORDER BY status, since");
    let found: Vec<(i64, i64, i64)> = query.build_as().fetch_all(connection).await?;
    let span = |(status, since, count): (i64, i64, i64)| {
        Ok(Span {
            status: rows::status(status)?,
            since,
            count: u64::try_from(count).unwrap_or(0),
        })
    };
    found.into_iter().map(span).collect()
}

/// Spans that follow each other, with the rows before the first of them and inside.
struct Part {
    first: usize,
    behind: usize,
    before: u64,
    rows: u64,
}

impl List<'_> {
    /// How many of a branch pass.
    pub(super) async fn count_of(
        &self,
        connection: &mut Connection,
        branch: Branch,
    ) -> Result<u64, StoreError> {
        match branch {
            Branch::Whole(status) if self.is_all => {
                let spans = self.spans.iter();
                let wanted = spans.filter(|span| status.is_none_or(|status| status == span.status));
                Ok(wanted.map(|span| span.count).sum())
            }
            Branch::Whole(Some(status)) if self.is_counted_in_spans() => {
                let spans = self.spans_of(status);
                let counts = self.counts(connection, branch, &spans).await?;
                Ok(counts.into_iter().sum())
            }
            _ => {
                self.count_in(connection, &[branch], Stretch::default())
                    .await
            }
        }
    }

    /// Whether rows are counted span by span: not if each count looks up first who may see what.
    fn is_counted_in_spans(&self) -> bool {
        self.plan == Plan::Many && self.sees_all && self.filter.connected.is_none()
    }

    /// How many of a branch pass in each of these spans.
    async fn counts(
        &self,
        connection: &mut Connection,
        branch: Branch,
        spans: &[Span],
    ) -> Result<Vec<u64>, StoreError> {
        let mut counts = Vec::with_capacity(spans.len());
        for (at, span) in spans.iter().enumerate() {
            counts.push(if self.is_all {
                span.count
            } else {
                let stretch = stretch(spans, at, at + 1);
                self.count_in(connection, &[branch], stretch).await?
            });
        }
        Ok(counts)
    }

    fn spans_of(&self, status: Status) -> Vec<Span> {
        let spans = self.spans.iter().copied();
        spans.filter(|span| span.status == status).collect()
    }

    /// The stretch of time in which a page lies. From the page's offset is taken what is outside.
    pub(super) async fn stretch(
        &self,
        connection: &mut Connection,
        branches: &[Branch],
        ascending: bool,
        page: &mut Page,
        total: u64,
    ) -> Result<Stretch, StoreError> {
        let whole = Stretch::default();
        if self.filter.order != MOVED {
            return Ok(whole);
        }
        // The page among all rows, the oldest first.
        let behind = total.saturating_sub(page.offset + page.limit);
        let offset = if ascending { page.offset } else { behind };
        let wanted = offset..offset + page.limit;
        let (spans, part) = match (branches, self.filter.status) {
            ([branch @ Branch::Whole(Some(status))], _) if self.is_counted_in_spans() => {
                let spans = self.spans_of(*status);
                let counts = self.counts(connection, *branch, &spans).await?;
                let part = summed(&counts, &wanted);
                (spans, part)
            }
            ([Branch::InGroups(_) | Branch::Apart(_), ..], Some(status))
                if page.offset >= SORTED || connection.is_postgres() =>
            {
                let spans = self.spans_of(status);
                let all = Part {
                    first: 0,
                    behind: spans.len(),
                    before: 0,
                    rows: total,
                };
                let part = self.halved(connection, branches, &spans, all, &wanted);
                let part = part.await?;
                (spans, part)
            }
            _ => return Ok(whole),
        };
        let outside = if ascending {
            part.before
        } else {
            total.saturating_sub(part.before + part.rows)
        };
        // Counts that were remembered may be of a moment earlier than the rows.
        if outside > page.offset {
            return Ok(whole);
        }
        page.offset -= outside;
        Ok(stretch(&spans, part.first, part.behind))
    }

    /// Halves spans as long as the wanted rows are in one half, down to few rows.
    async fn halved(
        &self,
        connection: &mut Connection,
        branches: &[Branch],
        spans: &[Span],
        mut part: Part,
        wanted: &std::ops::Range<u64>,
    ) -> Result<Part, StoreError> {
        while part.rows > SORTED && part.behind - part.first > 1 {
            let middle = part.first.midpoint(part.behind);
            let older = stretch(spans, part.first, middle);
            let older = self.count_in(connection, branches, older).await?;
            let split = part.before + older;
            if wanted.end <= split {
                part.behind = middle;
                part.rows = older;
            } else if split <= wanted.start {
                part.first = middle;
                part.before = split;
                part.rows = part.rows.saturating_sub(older);
            } else {
                break;
            }
        }
        Ok(part)
    }

    /// How many of these branches pass in a stretch of time.
    async fn count_in(
        &self,
        connection: &mut Connection,
        branches: &[Branch],
        stretch: Stretch,
    ) -> Result<u64, StoreError> {
        let mut count = Builder::new("SELECT COUNT(*) FROM (");
        self.push_rows(&mut count, branches, false, stretch);
        count.push(") found");
        if self.filter.connected.is_some() {
            let (found,): (i64,) = count.build_as().fetch_one(connection).await?;
            return Ok(found.cast_unsigned());
        }
        let extent = Extent {
            domain: self.domain,
            kind: self.kind,
            from: stretch.from,
            to: stretch.to,
        };
        connection.total(count, &extent).await
    }
}

/// The time from the beginning of a span up to that of another one; the ends are open.
fn stretch(spans: &[Span], first: usize, behind: usize) -> Stretch {
    Stretch {
        from: spans
            .get(first)
            .filter(|_| first > 0)
            .map(|span| span.since),
        to: spans.get(behind).map(|span| span.since - 1),
    }
}

/// The spans in which the wanted rows are, as these are counted.
fn summed(counts: &[u64], wanted: &std::ops::Range<u64>) -> Part {
    let mut part = Part {
        first: 0,
        behind: 0,
        before: 0,
        rows: 0,
    };
    for count in counts {
        if part.before + part.rows + count <= wanted.start {
            part.first = part.behind + 1;
            part.before += part.rows + count;
            part.rows = 0;
        } else if part.before + part.rows < wanted.end {
            part.rows += count;
        } else {
            break;
        }
        part.behind += 1;
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_found_by_the_rows_that_are_wanted() {
        let counts = [3, 0, 4, 2, 0];
        for (wanted, (first, behind), (before, rows)) in [
            (0..1, (0, 1), (0, 3)),
            (0..3, (0, 1), (0, 3)),
            (2..4, (0, 3), (0, 7)),
            (3..7, (2, 3), (3, 4)),
            (4..9, (2, 4), (3, 6)),
            (8..9, (3, 4), (7, 2)),
            (0..9, (0, 4), (0, 9)),
        ] {
            let part = summed(&counts, &wanted);
            let found = ((part.first, part.behind), (part.before, part.rows));
            assert_eq!(found, ((first, behind), (before, rows)), "{wanted:?}");
        }
    }
}
