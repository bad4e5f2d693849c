//! Statements, written once for both databases.
//!
//! A statement is a text with `$1` placeholders and values of three types; a row is read by column.
//! Everything else in the store is written with these, so nothing else knows which database it is.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, ColumnIndex, Encode, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite,
    Transaction, Type,
};

use super::StoreError;
use super::totals::{Totals, is_change};

/// How long a statement on PostgreSQL may take until it counts as lost. SQLite has its own bound.
const PATIENCE: Duration = Duration::from_secs(10);

/// A transaction in either database. Dropped without a commit, it is rolled back.
pub(crate) struct Connection {
    tx: Tx,
    totals: Arc<Totals>,
    /// Changes before it began.
    began_after: u64,
    has_changed: bool,
}

pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Connection {
    /// What `begun` gives, which was asked for after `totals` had seen so many changes.
    pub(super) fn new(tx: Tx, totals: Arc<Totals>, began_after: u64) -> Connection {
        Connection {
            tx,
            totals,
            began_after,
            has_changed: false,
        }
    }

    pub(super) fn is_postgres(&self) -> bool {
        matches!(self.tx, Tx::Postgres(_))
    }

    /// What a statement counts, from memory if nothing has changed since. Not for counts of what
    /// `totals` does not watch.
    pub(super) async fn total(&mut self, count: Builder) -> Result<u64, StoreError> {
        let counted = (count.sql.clone(), count.values.clone());
        if !self.has_changed
            && let Some(total) = self.totals.get(&counted, Instant::now())
        {
            return Ok(total);
        }
        let (total,): (i64,) = count.build_as().fetch_one(self).await?;
        let total = total.cast_unsigned();
        if !self.has_changed {
            self.totals
                .put(counted, self.began_after, total, Instant::now());
        }
        Ok(total)
    }

    /// Makes everything that was done durable.
    ///
    /// # Errors
    /// The connection was lost: whether the transaction is committed is not known.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        let done = match self.tx {
            Tx::Sqlite(tx) => tx.commit().await.map_err(StoreError::from),
            Tx::Postgres(tx) => patiently(tx.commit()).await,
        };
        // A commit that failed may stand nevertheless.
        if self.has_changed {
            self.totals.changed();
        }
        done
    }
}

pub(super) async fn patiently<T>(
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::Silent(PATIENCE)),
    }
}

/// A value bound to a statement; none is null.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
}

macro_rules! values {
    ($($from:ty => $variant:ident($value:ident) $owned:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Value {
                Value::$variant(Some($owned))
            }
        }
        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Value {
                Value::$variant(value.map(|$value| $owned))
            }
        }
    )*};
}

values! {
    i64 => Integer(value) value;
    bool => Integer(value) i64::from(value);
    String => Text(value) value;
    &str => Text(value) value.to_owned();
    &String => Text(value) value.clone();
    Vec<u8> => Blob(value) value;
    &[u8] => Blob(value) value.to_vec();
    &Vec<u8> => Blob(value) value.clone();
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Value {
        Value::Text(value.clone())
    }
}

impl From<&Option<Vec<u8>>> for Value {
    fn from(value: &Option<Vec<u8>>) -> Value {
        Value::Blob(value.clone())
    }
}

fn arguments<A>(values: Vec<Value>) -> Result<A, sqlx::Error>
where
    A: Arguments,
    for<'v> Option<i64>: Encode<'v, A::Database> + Type<A::Database>,
    for<'v> Option<String>: Encode<'v, A::Database> + Type<A::Database>,
    for<'v> Option<Vec<u8>>: Encode<'v, A::Database> + Type<A::Database>,
{
    let mut arguments = A::default();
    for value in values {
        match value {
            Value::Integer(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Blob(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// A statement with its values.
pub(crate) struct Query {
    sql: SqlStr,
    values: Vec<Value>,
    /// Whether each value has one placeholder, in their order.
    in_order: bool,
}

/// A statement of which each row becomes a tuple.
pub(crate) struct QueryAs<T>(Query, PhantomData<T>);

/// A statement.
pub(crate) fn query(sql: impl SqlSafeStr) -> Query {
    Query {
        sql: sql.into_sql_str(),
        values: Vec::new(),
        in_order: false,
    }
}

/// A statement that selects the columns of a tuple, in order.
pub(crate) fn query_as<T: FromRow>(sql: impl SqlSafeStr) -> QueryAs<T> {
    QueryAs(query(sql), PhantomData)
}

/// Values whose placeholders have numbers on SQLite. It finds each of them among all of them, which
/// takes longer than the rest of a statement with hundreds.
const NUMBERED_MAX: usize = 16;

/// A statement put together by a [`Builder`] with placeholders that have no numbers.
fn unnumbered(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut parts = sql.split('$');
    text.extend(parts.next());
    for part in parts {
        text.push('?');
        text.push_str(part.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    }
    text
}

/// Runs a statement in whichever database it is, and makes of its answer what both have in common.
macro_rules! run {
    ($query:expr, $connection:expr, $method:ident, |$done:ident, $row:ident| $result:expr) => {{
        let Query {
            sql,
            values,
            in_order,
        } = $query;
        $connection.has_changed |= is_change(sql.as_str());
        match &mut $connection.tx {
            Tx::Sqlite(tx) => {
                let sql = if in_order && values.len() > NUMBERED_MAX {
                    AssertSqlSafe(unnumbered(sql.as_str())).into_sql_str()
                } else {
                    sql
                };
                let query = sqlx::query_with(sql, arguments::<SqliteArguments>(values)?);
                let ($done, $row) = (query.$method(&mut **tx).await?, Row::Sqlite);
                Ok($result)
            }
            Tx::Postgres(tx) => {
                let query = sqlx::query_with(sql, arguments::<PgArguments>(values)?);
                let ($done, $row) = (patiently(query.$method(&mut **tx)).await?, Row::Postgres);
                Ok($result)
            }
        }
    }};
}

impl Query {
    /// Binds the next placeholder.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Query {
        self.values.push(value.into());
        self
    }

    /// Runs it; answers with the number of rows that it changed.
    pub(crate) async fn execute(self, connection: &mut Connection) -> Result<u64, StoreError> {
        run!(self, connection, execute, |done, _row| done.rows_affected())
    }

    pub(crate) async fn fetch_all(
        self,
        connection: &mut Connection,
    ) -> Result<Vec<Row>, StoreError> {
        run!(self, connection, fetch_all, |rows, row| rows
            .into_iter()
            .map(row)
            .collect())
    }

    pub(crate) async fn fetch_optional(
        self,
        connection: &mut Connection,
    ) -> Result<Option<Row>, StoreError> {
        run!(self, connection, fetch_optional, |found, row| found
            .map(row))
    }

    pub(crate) async fn fetch_one(self, connection: &mut Connection) -> Result<Row, StoreError> {
        let found = self.fetch_optional(connection).await?;
        found.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }
}

impl<T: FromRow> QueryAs<T> {
    /// Binds the next placeholder.
    pub(crate) fn bind(self, value: impl Into<Value>) -> QueryAs<T> {
        QueryAs(self.0.bind(value), PhantomData)
    }

    pub(crate) async fn fetch_all(self, connection: &mut Connection) -> Result<Vec<T>, StoreError> {
        let rows = self.0.fetch_all(connection).await?;
        rows.iter().map(T::from_row).collect()
    }

    pub(crate) async fn fetch_optional(
        self,
        connection: &mut Connection,
    ) -> Result<Option<T>, StoreError> {
        let row = self.0.fetch_optional(connection).await?;
        row.as_ref().map(T::from_row).transpose()
    }

    pub(crate) async fn fetch_one(self, connection: &mut Connection) -> Result<T, StoreError> {
        T::from_row(&self.0.fetch_one(connection).await?)
    }
}

/// A statement put together from parts.
pub(crate) struct Builder {
    sql: String,
    values: Vec<Value>,
}

impl Builder {
    pub(crate) fn new(sql: impl Into<String>) -> Builder {
        Builder {
            sql: sql.into(),
            values: Vec::new(),
        }
    }

    /// Adds text, never a caller's, and without placeholders or dollars of its own.
    pub(crate) fn push(&mut self, sql: impl AsRef<str>) -> &mut Builder {
        self.sql.push_str(sql.as_ref());
        self
    }

    /// Adds a placeholder and what it stands for.
    pub(crate) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Builder {
        self.values.push(value.into());
        self.sql.push('$');
        self.sql.push_str(&self.values.len().to_string());
        self
    }

    /// Adds values, with commas between them; null, which equals nothing, for none.
    pub(crate) fn push_list<V: Into<Value>>(
        &mut self,
        values: impl IntoIterator<Item = V>,
    ) -> &mut Builder {
        let mut values = values.into_iter();
        match values.next() {
            Some(first) => self.push_bind(first),
            None => self.push("NULL"),
        };
        for value in values {
            self.push(", ").push_bind(value);
        }
        self
    }

    /// Adds `VALUES` with a row for each item.
    pub(crate) fn push_rows<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut columns: impl FnMut(T) -> Vec<Value>,
    ) -> &mut Builder {
        for (at, item) in items.into_iter().enumerate() {
            self.push(if at == 0 { "VALUES (" } else { ", (" });
            self.push_list(columns(item)).push(")");
        }
        self
    }

    pub(crate) fn build(self) -> Query {
        Query {
            sql: AssertSqlSafe(self.sql).into_sql_str(),
            values: self.values,
            in_order: true,
        }
    }

    pub(crate) fn build_as<T: FromRow>(self) -> QueryAs<T> {
        QueryAs(self.build(), PhantomData)
    }
}

/// A row of an answer.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// The number or the name of a column.
pub(crate) trait Column: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + Copy {}
impl<T: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + Copy> Column for T {}

impl Row {
    /// The value of a column.
    ///
    /// # Errors
    /// There is no such column, or it holds something else.
    pub(crate) fn get<T: Field>(&self, column: impl Column) -> Result<T, StoreError> {
        Ok(T::read(self, column)?)
    }
}

/// What can be read from a column.
pub(crate) trait Field: Sized {
    fn read(row: &Row, column: impl Column) -> Result<Self, sqlx::Error>;
}

impl Field for Option<i64> {
    /// Integers of any width: columns are wide, but PostgreSQL gives constants and lengths as
    /// narrow ones.
    fn read(row: &Row, column: impl Column) -> Result<Self, sqlx::Error> {
        match row {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column).or_else(|_| {
                let narrow: Option<i32> = row.try_get(column)?;
                Ok(narrow.map(i64::from))
            }),
        }
    }
}

impl Field for Option<bool> {
    fn read(row: &Row, column: impl Column) -> Result<Self, sqlx::Error> {
        Ok(Option::<i64>::read(row, column)?.map(|number| number != 0))
    }
}

macro_rules! fields {
    ($($optional:ty),*) => {$(
        impl Field for $optional {
            fn read(row: &Row, column: impl Column) -> Result<Self, sqlx::Error> {
                match row {
                    Row::Sqlite(row) => row.try_get(column),
                    Row::Postgres(row) => row.try_get(column),
                }
            }
        }
    )*};
}

fields!(Option<String>, Option<Vec<u8>>);

macro_rules! required {
    ($($required:ty),*) => {$(
        impl Field for $required {
            fn read(row: &Row, column: impl Column) -> Result<Self, sqlx::Error> {
                let value = Option::<$required>::read(row, column)?;
                value.ok_or_else(|| sqlx::Error::Decode("null where a value is expected".into()))
            }
        }
    )*};
}

required!(i64, bool, String, Vec<u8>);

/// A tuple with a value for each column of a row.
pub(crate) trait FromRow: Sized {
    fn from_row(row: &Row) -> Result<Self, StoreError>;
}

macro_rules! tuples {
    ($(($($type:ident $at:literal),+))*) => {$(
        impl<$($type: Field),+> FromRow for ($($type,)+) {
            fn from_row(row: &Row) -> Result<Self, StoreError> {
                Ok(($(row.get::<$type>($at)?,)+))
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_statements_lose_the_numbers_of_their_placeholders() {
        let mut query = Builder::new("SELECT 1 WHERE 2 IN (");
        query.push_list((0..11).map(i64::from)).push(") AND 3 = ");
        query.push_bind(4_i64);
        let sql = unnumbered(query.build().sql.as_str());
        let expected = "SELECT 1 WHERE 2 IN (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) AND 3 = ?";
        assert_eq!(sql, expected);
    }
}
