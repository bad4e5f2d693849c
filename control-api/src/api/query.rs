//! Query parameters.

use authcache::EntityId;
use serde_json::Value;

use super::failure::Failure;
use crate::model::{Page, Time};
use crate::name::{excerpt, parse_id};
use crate::store::listing::Tags;

/// Conditions that one metadata filter may make.
const METADATA_CONDITIONS_MAX: usize = 32;
/// Tags that one filter may name.
const TAGS_MAX: usize = 32;

/// The query of a request: each name once.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// A name stands twice, or something is no text.
    pub(super) fn parse(text: &str) -> Result<Query, Failure> {
        let mut query = Query::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name, true).zip(decode(value, true));
            let (name, value) = decoded
                .ok_or_else(|| Failure::bad("the query is no text; expected UTF-8 without NUL"))?;
            if query.0.iter().any(|(known, _)| *known == name) {
                let name = excerpt(&name);
                return Err(Failure::bad(format!(
                    "query parameter {name:?} stands more than once"
                )));
            }
            // What the JavaScript SDK makes of a value that is not set.
            if value != "undefined" {
                query.0.push((name, value));
            }
        }
        Ok(query)
    }

    pub(super) fn set(&mut self, name: &str, value: String) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
    }

    /// The value of a parameter, empty or not.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(wrong(name, other, "true or false")),
        }
    }

    pub(super) fn id(&self, name: &'static str) -> Result<Option<EntityId>, Failure> {
        let text = self.text(name);
        Ok(text.map(|text| parse_id(name, text)).transpose()?)
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.text(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| wrong(name, text, "a whole number"))
            })
            .transpose()
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<Time>, Failure> {
        let expected = "a time in RFC 3339, such as 2025-01-31T12:00:00Z";
        self.text(name)
            .map(|text| Time::parse(text).ok_or_else(|| wrong(name, text, expected)))
            .transpose()
    }

    /// One of a few words; the default if there is none.
    pub(super) fn word(
        &self,
        name: &str,
        words: &[&'static str],
        default: &'static str,
    ) -> Result<&'static str, Failure> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let found = words.iter().find(|word| **word == text);
        found
            .copied()
            .ok_or_else(|| wrong(name, text, &format!("one of {}", words.join(", "))))
    }

    /// Which part of a list is wanted.
    pub(super) fn page(&self) -> Result<Page, Failure> {
        let number = |name: &str, default: u64| match self.raw(name) {
            None => Ok(default),
            Some(text) => text
                .parse::<u64>()
                .map_err(|_| wrong(name, text, "a whole number from 0")),
        };
        let page = Page {
            offset: number("offset", 0)?,
            limit: number("limit", Page::default().limit)?,
        };
        Ok(crate::provision::check_page(page)?)
    }

    /// `a,b` is any of them, `a+b` all of them.
    pub(super) fn tags(&self) -> Result<Option<Tags>, Failure> {
        let Some(text) = self.text("tags").or_else(|| self.text("tag")) else {
            return Ok(None);
        };
        let split = |by: char| -> Vec<String> {
            let parts = text.split(by).map(str::trim);
            parts
                .filter(|tag| !tag.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let (any, all) = (split(','), split('+'));
        if any.len().max(all.len()) > TAGS_MAX {
            return Err(Failure::bad(format!(
                "tags names more than {TAGS_MAX} tags"
            )));
        }
        Ok(Some(if all.len() > 1 {
            Tags::All(all)
        } else {
            Tags::Any(any)
        }))
    }

    /// What metadata must contain: paths and their values.
    pub(super) fn metadata(&self) -> Result<Vec<(String, Value)>, Failure> {
        let Some(text) = self.text("metadata") else {
            return Ok(Vec::new());
        };
        let expected = "a JSON object, such as {\"location\":\"hall 2\"}";
        let parsed: Value =
            serde_json::from_str(text).map_err(|_| wrong("metadata", text, expected))?;
        if !parsed.is_object() {
            return Err(wrong("metadata", text, expected));
        }
        let mut conditions = Vec::new();
        flatten("$", &parsed, &mut conditions)
            .ok_or_else(|| wrong("metadata", text, "keys without quotation marks"))?;
        if conditions.len() > METADATA_CONDITIONS_MAX {
            let message = format!("metadata has more than {METADATA_CONDITIONS_MAX} conditions");
            return Err(Failure::bad(message));
        }
        Ok(conditions)
    }
}

fn flatten(path: &str, value: &Value, conditions: &mut Vec<(String, Value)>) -> Option<()> {
    match value {
        Value::Object(fields) if path == "$" || !fields.is_empty() => {
            for (name, value) in fields {
                if name.contains(['"', '\\']) || name.chars().any(char::is_control) {
                    return None;
                }
                flatten(&format!("{path}.\"{name}\""), value, conditions)?;
            }
        }
        Value::Object(_)
        | Value::Array(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_) => conditions.push((path.to_owned(), value.clone())),
    }
    Some(())
}

pub(super) fn wrong(name: &str, value: &str, expected: &str) -> Failure {
    Failure::bad(format!(
        "query parameter {name} is {:?}; expected {expected}",
        excerpt(value)
    ))
}

/// Undoes percent-encoding; in queries a plus is a space. None if it is no text: not UTF-8, or with a
/// NUL, which no database has to take.
pub(super) fn decode(text: &str, query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if query => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_each_name_stands_once() {
        let query = Query::parse("name=a%20b+c&tags=x%2By&empty=&gone=undefined").unwrap();
        assert_eq!(query.text("name"), Some("a b c"));
        assert!(matches!(query.tags(), Ok(Some(Tags::All(tags))) if tags == ["x", "y"]));
        assert_eq!((query.raw("empty"), query.text("empty")), (Some(""), None));
        assert_eq!(query.raw("gone"), None);
        for bad in ["a=1&a=2", "a=%", "a=%zz", "a=%ff", "a=%00", "%00=a"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_have_bounds() {
        let page = |text: &str| Query::parse(text).unwrap().page();
        assert_eq!(page("").unwrap(), Page::default());
        assert_eq!(page("limit=100&offset=7").unwrap().limit, 100);
        for bad in ["limit=0", "limit=101", "limit=", "limit=x", "offset=-1"] {
            assert!(page(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_becomes_paths_and_values() {
        let query = Query::parse("metadata=%7B%22a%22%3A%7B%22b%22%3A1%7D%7D").unwrap();
        let expected = ("$.\"a\".\"b\"".to_owned(), Value::from(1));
        assert_eq!(query.metadata().unwrap(), [expected]);
        for bad in [
            "metadata=x",
            "metadata=[1]",
            "metadata=%7B%22a%5C%22%22%3A1%7D",
        ] {
            assert!(Query::parse(bad).unwrap().metadata().is_err(), "{bad}");
        }
    }
}
