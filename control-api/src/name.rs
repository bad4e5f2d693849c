//! Names people give: parsed once, valid ever after.

use std::fmt;

use authcache::{EntityId, Right};
use thiserror::Error;

/// Characters a name may have.
pub(crate) const NAME_CHARACTERS_MAX: usize = 1024;
/// Bytes a domain's name may have.
pub(crate) const DOMAIN_NAME_BYTES_MAX: usize = 254;
/// Bytes a client's secret may have.
pub(crate) const SECRET_BYTES_MAX: usize = 4096;
/// A value that was refused, with what is wrong and what is expected. Never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A required value is missing.
    #[error("{field} is empty; expected {expected}")]
    Empty {
        /// Which value.
        field: &'static str,
        /// What it must look like.
        expected: &'static str,
    },
    /// A value is too long.
    #[error("{field} has {length} {unit}; expected at most {most}")]
    TooLong {
        /// Which value.
        field: &'static str,
        /// What it has.
        length: usize,
        /// Of what.
        unit: &'static str,
        /// What it may have.
        most: usize,
    },
    /// A value contains a control character.
    #[error("{field} contains a control character; expected printable text")]
    ControlCharacter {
        /// Which value.
        field: &'static str,
    },
    /// An id is no canonical UUID.
    #[error(
        "{field} {value:?} is no id; expected a lower-case UUID such as 0190a5f3-7c1e-4b22-9f00-0123456789ab"
    )]
    Id {
        /// Which value.
        field: &'static str,
        /// What was given.
        value: String,
    },
    /// A route does not match the pattern.
    #[error(
        "{field} {value:?} is no route; expected a letter and then up to 35 letters, digits, '-' or '_', without \"--\" or \"__\""
    )]
    Route {
        /// Which value.
        field: &'static str,
        /// What was given.
        value: String,
    },
    /// The route of a channel is a UUID, which would be read as an id.
    #[error(
        "{field} {value:?} is a UUID; expected a route, or none: a channel is always reachable by its id"
    )]
    RouteIsId {
        /// Which value.
        field: &'static str,
        /// What was given.
        value: String,
    },
    /// The route of a domain is a UUID and not the domain's own id.
    #[error(
        "{field} {value:?} is a UUID other than the domain's id; expected the same value as id, or a route"
    )]
    RouteIsForeignId {
        /// Which value.
        field: &'static str,
        /// What was given.
        value: String,
    },
    /// A user name does not match the pattern.
    #[error(
        "{field} {value:?} is no user name; expected a letter or digit and then up to 31 letters, digits, '-' or '_', without \"--\" or \"__\""
    )]
    Username {
        /// Which value.
        field: &'static str,
        /// What was given.
        value: String,
    },
    /// A connection type is unknown.
    #[error("type {value:?} is unknown; expected \"publish\" or \"subscribe\"")]
    ConnectionType {
        /// What was given.
        value: String,
    },
    /// An action is unknown on its kind of object.
    #[error("{value:?} is no action of a {kind}; expected one of {expected}")]
    Action {
        /// What was given.
        value: String,
        /// On what kind of object.
        kind: &'static str,
        /// What there is.
        expected: String,
    },
    /// A page is larger than allowed.
    #[error("limit is {value}; expected 1 to {most}")]
    Limit {
        /// What was given.
        value: u64,
        /// What is allowed.
        most: u64,
    },
    /// A call names more than it may.
    #[error("{count} {what} in one call; expected at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were given.
        count: usize,
        /// How many are allowed.
        most: usize,
    },
}

/// Name of a channel or client: free text, possibly empty, need not be unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    /// A name that may be empty, up to [`NAME_CHARACTERS_MAX`] characters.
    pub(crate) fn parse(text: &str) -> Result<Name, Invalid> {
        no_control("name", text)?;
        let length = text.chars().count();
        if length > NAME_CHARACTERS_MAX {
            return Err(too_long("name", length, "characters", NAME_CHARACTERS_MAX));
        }
        Ok(Name(text.to_owned()))
    }

    /// A domain's name: not empty, up to [`DOMAIN_NAME_BYTES_MAX`] bytes.
    pub(crate) fn parse_domain(text: &str) -> Result<Name, Invalid> {
        if text.is_empty() {
            return Err(Invalid::Empty {
                field: "name",
                expected: "1 to 254 bytes of text",
            });
        }
        if text.len() > DOMAIN_NAME_BYTES_MAX {
            return Err(too_long("name", text.len(), "bytes", DOMAIN_NAME_BYTES_MAX));
        }
        no_control("name", text)?;
        Ok(Name(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Short name of a domain or channel in topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route(String);

impl Route {
    /// A domain's route, or the domain's own id in its place.
    pub(crate) fn parse_domain(text: &str, id: EntityId) -> Result<Route, Invalid> {
        let field = "route";
        if text.is_empty() {
            return Err(Invalid::Empty {
                field,
                expected: "a short name for topics",
            });
        }
        match EntityId::from_text(text) {
            Some(named) if named == id => Ok(Route(text.to_owned())),
            Some(_) => Err(Invalid::RouteIsForeignId {
                field,
                value: text.to_owned(),
            }),
            None if is_identifier(text, 36)
                && text.starts_with(|c: char| c.is_ascii_alphabetic()) =>
            {
                Ok(Route(text.to_owned()))
            }
            None => Err(Invalid::Route {
                field,
                value: excerpt(text),
            }),
        }
    }

    /// A channel's route.
    pub(crate) fn parse_channel(text: &str) -> Result<Route, Invalid> {
        let field = "route";
        if EntityId::from_text(text).is_some() {
            return Err(Invalid::RouteIsId {
                field,
                value: text.to_owned(),
            });
        }
        if is_identifier(text, 36) && text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Ok(Route(text.to_owned()));
        }
        Err(Invalid::Route {
            field,
            value: excerpt(text),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Login name of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Username(String);

impl Username {
    pub(crate) fn parse(text: &str) -> Result<Username, Invalid> {
        // An '@' is outside the pattern, so no user name can be taken for an e-mail address.
        if is_identifier(text, 32) {
            return Ok(Username(text.to_owned()));
        }
        Err(Invalid::Username {
            field: "username",
            value: excerpt(text),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks a user name, for a configuration that is read before control is opened.
///
/// # Errors
/// It does not match the pattern.
pub fn check_username(text: &str) -> Result<(), Invalid> {
    Username::parse(text).map(|_| ())
}

/// Reads an id that a caller supplies.
pub(crate) fn parse_id(field: &'static str, text: &str) -> Result<EntityId, Invalid> {
    // The nil UUID names `$SYS`.
    EntityId::from_text(text)
        .filter(|id| *id != EntityId::SYS)
        .ok_or_else(|| Invalid::Id {
            field,
            value: excerpt(text),
        })
}

/// Checks a client's secret that a caller supplies.
pub(crate) fn check_secret(text: &str) -> Result<(), Invalid> {
    let field = "secret";
    if text.is_empty() {
        return Err(Invalid::Empty {
            field,
            expected: "1 to 4096 bytes, or none to have one made",
        });
    }
    if text.len() > SECRET_BYTES_MAX {
        return Err(too_long(field, text.len(), "bytes", SECRET_BYTES_MAX));
    }
    Ok(())
}

/// Reads connection types, in any letter case; at least one.
pub(crate) fn parse_types<T: AsRef<str>>(types: &[T]) -> Result<Right, Invalid> {
    let mut right = Right::NONE;
    for value in types {
        right |= match value.as_ref().to_ascii_lowercase().as_str() {
            "publish" => Right::PUBLISH,
            "subscribe" => Right::SUBSCRIBE,
            _ => {
                return Err(Invalid::ConnectionType {
                    value: excerpt(value.as_ref()),
                });
            }
        };
    }
    if right.is_empty() {
        let expected = "\"publish\", \"subscribe\" or both";
        return Err(Invalid::Empty {
            field: "types",
            expected,
        });
    }
    Ok(right)
}

/// ASCII letters, digits, single '-' and '_', beginning with a letter or digit.
fn is_identifier(text: &str, characters_max: usize) -> bool {
    (1..=characters_max).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("--")
        && !text.contains("__")
}

fn no_control(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.chars().any(char::is_control) {
        return Err(Invalid::ControlCharacter { field });
    }
    Ok(())
}

fn too_long(field: &'static str, length: usize, unit: &'static str, most: usize) -> Invalid {
    Invalid::TooLong {
        field,
        length,
        unit,
        most,
    }
}

/// What of a refused value is shown: at most 64 characters.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0190a5f3-7c1e-4b22-9f00-0123456789ab";

    fn id() -> EntityId {
        EntityId::from_text(ID).unwrap()
    }

    #[test]
    fn routes_follow_the_pattern() {
        for good in ["a", "Plant-7", "a_b-c", &"x".repeat(36)] {
            assert!(Route::parse_domain(good, id()).is_ok(), "{good}");
            assert!(Route::parse_channel(good).is_ok(), "{good}");
        }
        for bad in [
            "7up",
            "-a",
            "_a",
            "a--b",
            "a__b",
            "a b",
            "a/b",
            "ä",
            "a+",
            "a#",
            &"x".repeat(37),
        ] {
            assert!(
                matches!(Route::parse_domain(bad, id()), Err(Invalid::Route { .. })),
                "{bad}"
            );
            assert!(
                matches!(Route::parse_channel(bad), Err(Invalid::Route { .. })),
                "{bad}"
            );
        }
        assert!(matches!(
            Route::parse_domain("", id()),
            Err(Invalid::Empty { .. })
        ));
        assert!(matches!(
            Route::parse_channel(""),
            Err(Invalid::Route { .. })
        ));
    }

    #[test]
    fn a_uuid_as_route_is_the_domains_own_id_or_refused() {
        assert!(Route::parse_domain(ID, id()).is_ok());
        let other = Route::parse_domain(ID, EntityId::from_u128(1));
        assert!(matches!(other, Err(Invalid::RouteIsForeignId { .. })));
        assert!(matches!(
            Route::parse_channel(ID),
            Err(Invalid::RouteIsId { .. })
        ));
    }

    #[test]
    fn names_have_bounds_and_no_control_characters() {
        assert!(Name::parse("").is_ok());
        assert!(Name::parse(&"ä".repeat(1024)).is_ok());
        assert!(matches!(
            Name::parse(&"a".repeat(1025)),
            Err(Invalid::TooLong { .. })
        ));
        assert!(matches!(
            Name::parse("a\nb"),
            Err(Invalid::ControlCharacter { .. })
        ));
        assert!(matches!(Name::parse_domain(""), Err(Invalid::Empty { .. })));
        assert!(Name::parse_domain(&"a".repeat(254)).is_ok());
        assert!(matches!(
            Name::parse_domain(&"a".repeat(255)),
            Err(Invalid::TooLong { .. })
        ));
    }

    #[test]
    fn ids_are_canonical_and_not_nil() {
        assert_eq!(parse_id("id", ID), Ok(id()));
        for bad in [
            "",
            "plant",
            "0190A5F3-7c1e-4b22-9f00-0123456789ab",
            &EntityId::SYS.to_string(),
        ] {
            assert!(
                matches!(parse_id("id", bad), Err(Invalid::Id { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn user_names_follow_the_pattern() {
        for good in ["a", "7up", "a-b_c", &"x".repeat(32)] {
            assert!(Username::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a--b", "a@b.c", "a b", &"x".repeat(33)] {
            assert!(
                matches!(Username::parse(bad), Err(Invalid::Username { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn secrets_have_bounds_and_are_not_repeated() {
        assert!(check_secret("s").is_ok() && check_secret(&"s".repeat(4096)).is_ok());
        assert!(matches!(check_secret(""), Err(Invalid::Empty { .. })));
        let text = check_secret(&"s".repeat(4097)).unwrap_err().to_string();
        assert_eq!(text, "secret has 4097 bytes; expected at most 4096");
    }

    #[test]
    fn connection_types_are_read_in_any_case() {
        assert_eq!(parse_types(&["Publish"]), Ok(Right::PUBLISH));
        assert_eq!(
            parse_types(&["SUBSCRIBE", "publish", "publish"]),
            Ok(Right::BOTH)
        );
        assert!(matches!(
            parse_types(&["read"]),
            Err(Invalid::ConnectionType { .. })
        ));
        assert!(matches!(
            parse_types::<&str>(&[]),
            Err(Invalid::Empty { .. })
        ));
    }

    #[test]
    fn long_values_are_shown_shortened() {
        let text = parse_id("id", &"x".repeat(5000)).unwrap_err().to_string();
        assert!(text.len() < 300, "{text}");
    }
}
