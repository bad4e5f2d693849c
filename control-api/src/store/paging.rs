//! Pages of lists, with the number of all that they are pages of.

use super::StoreError;
use super::sql::{Builder, Connection, Row};
use crate::model::Page;

/// A list: what it shows of which rows, and in which order.
pub(super) struct List<'a> {
    /// Columns.
    pub(super) select: &'a str,
    /// Tables, up to the conditions.
    pub(super) from: &'a str,
    /// Columns or expressions with their directions, the last one unique.
    pub(super) order: &'a str,
}

impl List<'_> {
    /// A page of the rows that `narrow`, which adds conditions, lets pass, and how many there are.
    /// Without a page they are only counted.
    pub(super) async fn page<T>(
        &self,
        connection: &mut Connection,
        narrow: impl Fn(&mut Builder),
        page: Option<Page>,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<(u64, Vec<T>), StoreError> {
        let mut count = Builder::new("SELECT COUNT(*) FROM ");
        count.push(self.from).push(" WHERE ");
        narrow(&mut count);
        let (total,): (i64,) = count.build_as().fetch_one(connection).await?;
        let Some(page) = page.filter(|_| total != 0) else {
            return Ok((total.cast_unsigned(), Vec::new()));
        };
        let mut query = Builder::new("SELECT ");
        query
            .push(self.select)
            .push(" FROM ")
            .push(self.from)
            .push(" WHERE ");
        narrow(&mut query);
        query.push(" ORDER BY ").push(self.order);
        push_page(&mut query, page);
        let found = query.build().fetch_all(connection).await?;
        let found = found.iter().map(read).collect::<Result<_, _>>()?;
        Ok((total.cast_unsigned(), found))
    }
}

/// Ends a statement with the bounds of a page.
pub(super) fn push_page(query: &mut Builder, page: Page) {
    query
        .push(" LIMIT ")
        .push_bind(page.limit.cast_signed())
        .push(" OFFSET ")
        .push_bind(page.offset.cast_signed());
}

/// An order by a column or expression and, among equals, by id.
pub(super) fn order(by: &str, ascending: bool) -> String {
    let direction = if ascending { "ASC" } else { "DESC" };
    format!("{by} {direction}, e.id {direction}")
}
