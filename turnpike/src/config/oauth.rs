//! Providers of logins: a table for each below `control.oauth`, with a name of its own.

use std::path::PathBuf;

use control_api::OauthProvider;

use super::value::{Value, quoted};

/// Characters of a provider's name.
const NAME_MAX: usize = 32;

/// One key of a provider's table.
pub(super) struct Field {
    name: &'static str,
    /// What it accepts, in words.
    pub(super) expected: &'static str,
    set: fn(&mut OauthProvider, &Value) -> Option<()>,
    show: fn(&OauthProvider) -> Option<String>,
}

macro_rules! text {
    ($name:literal, $field:ident, $expected:literal, $good:expr) => {
        Field {
            name: $name,
            expected: $expected,
            set: |provider, value| {
                let good: fn(&str) -> bool = $good;
                let text = value.text().filter(|text| good(text))?;
                provider.$field = text.to_owned();
                Some(())
            },
            show: |provider| Some(quoted(&provider.$field)),
        }
    };
}

macro_rules! url {
    ($name:literal, $field:ident) => {
        text!(
            $name,
            $field,
            "https://…, or http://… on this machine",
            OauthProvider::is_url
        )
    };
}

macro_rules! file {
    ($name:literal, $field:ident, $expected:literal) => {
        Field {
            name: $name,
            expected: $expected,
            set: |provider, value| {
                provider.$field = Some(PathBuf::from(value.text()?));
                Some(())
            },
            show: |provider| {
                let path = provider.$field.as_ref()?;
                Some(quoted(&path.to_string_lossy()))
            },
        }
    };
}

macro_rules! boolean {
    ($name:literal, $field:ident) => {
        Field {
            name: $name,
            expected: "true or false",
            set: |provider, value| {
                provider.$field = value.boolean()?;
                Some(())
            },
            show: |provider| Some(provider.$field.to_string()),
        }
    };
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

const FIELDS: &[Field] = &[
    text!("client_id", client_id, "printable ASCII", is_printable),
    file!(
        "client_secret_file",
        client_secret_file,
        "the path of a file with the secret"
    ),
    Field {
        name: "client_secret_in",
        expected: "\"header\" or \"body\"",
        set: |provider, value| {
            provider.secret_in_body = value.word(&[("header", false), ("body", true)])?;
            Some(())
        },
        show: |provider| {
            let place = if provider.secret_in_body {
                "body"
            } else {
                "header"
            };
            Some(quoted(place))
        },
    },
    url!("authorize_url", authorize_url),
    url!("token_url", token_url),
    url!("userinfo_url", userinfo_url),
    text!(
        "scope",
        scope,
        "words with spaces between them",
        is_printable
    ),
    file!("ca", ca, "the path of a PEM file"),
    boolean!("register", register),
    boolean!("emails_verified", emails_verified),
];

/// The provider and the field that a path names; none if it is no path of a provider's.
pub(super) fn find(path: &str) -> Option<(&str, &'static Field)> {
    let (name, field) = path.strip_prefix("control.oauth.")?.split_once('.')?;
    let good = (1..=NAME_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let field = FIELDS.iter().find(|known| known.name == field)?;
    good.then_some((name, field))
}

/// Sets a field of a provider, which is there from then on; none if the value is not accepted.
pub(super) fn set(
    providers: &mut Vec<OauthProvider>,
    name: &str,
    field: &Field,
    value: &Value,
) -> Option<()> {
    let known = providers.iter().position(|provider| provider.name == name);
    let at = known.unwrap_or_else(|| {
        providers.push(OauthProvider::new(name));
        providers.len() - 1
    });
    (field.set)(&mut providers[at], value)
}

/// Every key of a provider: its path and its value in TOML.
pub(super) fn shown(provider: &OauthProvider) -> impl Iterator<Item = (String, String)> {
    FIELDS.iter().filter_map(|field| {
        let path = format!("control.oauth.{}.{}", provider.name, field.name);
        Some((path, (field.show)(provider)?))
    })
}

/// What a provider lacks, as key and sentence.
pub(super) fn faults(provider: &OauthProvider) -> impl Iterator<Item = (String, String)> {
    let needed = [
        (
            "client_id",
            &provider.client_id,
            "what this installation is called there",
        ),
        (
            "authorize_url",
            &provider.authorize_url,
            "where browsers are sent",
        ),
        (
            "token_url",
            &provider.token_url,
            "where a code becomes a token",
        ),
        (
            "userinfo_url",
            &provider.userinfo_url,
            "where a token becomes a profile",
        ),
    ];
    let missing = needed.into_iter().filter(|(_, value, _)| value.is_empty());
    missing.map(|(field, _, expected)| {
        let path = format!("control.oauth.{}.{field}", provider.name);
        let text = format!("{path} is not set; expected {expected}");
        (path, text)
    })
}
