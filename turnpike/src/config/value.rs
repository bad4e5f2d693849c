//! Values as people write them.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text in a file.
    Text(String),
    /// A whole number in a file.
    Integer(i64),
    /// `true` or `false` in a file.
    Boolean(bool),
    /// Something a file can say and no key accepts.
    Other(&'static str),
    /// The text of a variable or flag, which may stand for any kind.
    Loose(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A URL with a user or parameters may hold a password.
            Value::Text(text) | Value::Loose(text) => match text.split_once("://") {
                Some((scheme, rest)) if rest.contains(['@', '?']) => write!(f, "\"{scheme}://…\""),
                Some(_) | None => write!(f, "{text:?}"),
            },
            Value::Integer(number) => write!(f, "{number}"),
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Other(kind) => f.write_str(kind),
        }
    }
}

impl Value {
    /// Text that is not empty.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Loose(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Text that may be empty, which stands for nothing.
    pub(crate) fn text_or_nothing(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Loose(text) => Some(text),
            Value::Integer(_) | Value::Boolean(_) | Value::Other(_) => None,
        }
    }

    /// One of these words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self {
            Value::Boolean(value) => Some(*value),
            Value::Loose(text) => text.parse().ok(),
            Value::Text(_) | Value::Integer(_) | Value::Other(_) => None,
        }
    }

    pub(crate) fn integer<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        let number = match self {
            Value::Integer(number) => u64::try_from(*number).ok()?,
            Value::Loose(text) => text.parse().ok()?,
            Value::Text(_) | Value::Boolean(_) | Value::Other(_) => return None,
        };
        within(number, range)
    }

    /// Bytes: a whole number, or text such as `64KiB`.
    pub(crate) fn size<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        const UNITS: [(&str, u64); 4] = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("B", 1),
        ];
        within(self.with_unit(&UNITS, 1)?, range)
    }

    /// A time: whole seconds, or text such as `250ms`, `5s`, `10m`, `24h`, `7d`.
    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        const UNITS: [(&str, u64); 5] = [
            ("ms", 1),
            ("s", 1_000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ];
        let duration = Duration::from_millis(self.with_unit(&UNITS, 1_000)?);
        range.contains(&duration).then_some(duration)
    }

    /// An address with a port: `127.0.0.1:1883`, `[::]:1883`. Host names are not looked up.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.text()?.parse().ok()
    }

    fn with_unit(&self, units: &[(&str, u64)], bare: u64) -> Option<u64> {
        let text = match self {
            Value::Integer(number) => return u64::try_from(*number).ok()?.checked_mul(bare),
            Value::Text(text) | Value::Loose(text) => text,
            Value::Boolean(_) | Value::Other(_) => return None,
        };
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let (number, unit) = text.split_at(text.len() - digits.len());
        let factor = match unit.trim_start() {
            "" => bare,
            unit => units.iter().find(|(name, _)| *name == unit)?.1,
        };
        number.parse::<u64>().ok()?.checked_mul(factor)
    }
}

fn within<T: TryFrom<u64>>(number: u64, range: RangeInclusive<u64>) -> Option<T> {
    if range.contains(&number) {
        T::try_from(number).ok()
    } else {
        None
    }
}

/// Bytes as they would be written in a file.
pub(crate) fn show_size(bytes: u64) -> String {
    match bytes {
        1.. if bytes.is_multiple_of(1 << 30) => format!("\"{}GiB\"", bytes >> 30),
        1.. if bytes.is_multiple_of(1 << 20) => format!("\"{}MiB\"", bytes >> 20),
        1.. if bytes.is_multiple_of(1 << 10) => format!("\"{}KiB\"", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// A time as it would be written in a file.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        1.. if ms.is_multiple_of(86_400_000) => format!("\"{}d\"", ms / 86_400_000),
        1.. if ms.is_multiple_of(3_600_000) => format!("\"{}h\"", ms / 3_600_000),
        _ if ms.is_multiple_of(1_000) => format!("\"{}s\"", ms / 1_000),
        _ => format!("\"{ms}ms\""),
    }
}

/// Whether a text is the origin of a page, as browsers send it.
pub(super) fn is_origin(text: &str) -> bool {
    let scheme = text.starts_with("http://") || text.starts_with("https://");
    scheme && !text.ends_with('/')
}

/// Text in TOML's basic strings. What `{:?}` escapes beyond them does not occur in these values.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_are_bytes() {
        let size = |value: Value| value.size::<u32>(1..=u64::MAX);
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(size(Value::Integer(5)), Some(5));
        assert_eq!(size(text("64KiB")), Some(65_536));
        assert_eq!(size(text("1 MiB")), Some(1 << 20));
        assert_eq!(size(Value::Loose("7".into())), Some(7));
        for bad in [
            "",
            "KiB",
            "1kb",
            "-1",
            "1.5MiB",
            "4GiB",
            "99999999999999999999",
            "1 0",
        ] {
            assert_eq!(size(text(bad)), None, "{bad}");
        }
        assert_eq!(size(Value::Integer(0)), None);
        assert_eq!(size(Value::Boolean(true)), None);
    }

    #[test]
    fn times_have_units_or_are_seconds() {
        let time = |text: &str| {
            Value::Loose(text.into()).duration(Duration::ZERO..=Duration::from_secs(864_000))
        };
        assert_eq!(time("5"), Some(Duration::from_secs(5)));
        assert_eq!(time("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(time("7d"), Some(Duration::from_secs(604_800)));
        for bad in ["", "s", "5 min", "11d", "-5s", "1.5s"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_must_use_the_kind_a_key_has() {
        assert_eq!(Value::Text("true".into()).boolean(), None);
        assert_eq!(Value::Loose("true".into()).boolean(), Some(true));
        assert_eq!(Value::Text("5".into()).integer::<u32>(0..=9), None);
        assert_eq!(Value::Loose("5".into()).integer::<u32>(0..=9), Some(5));
        assert_eq!(Value::Integer(10).integer::<u32>(0..=9), None);
        assert_eq!(Value::Integer(-1).integer::<u32>(0..=9), None);
    }

    #[test]
    fn shown_values_are_read_back() {
        for bytes in [0, 1, 1_000, 1 << 10, 3 << 20, 1 << 30] {
            let text = show_size(bytes);
            let value = Value::Loose(text.trim_matches('"').to_owned());
            assert_eq!(value.size::<u64>(0..=u64::MAX), Some(bytes), "{text}");
        }
        for ms in [0, 1, 1_000, 61_000, 3_600_000, 86_400_000] {
            let text = show_duration(Duration::from_millis(ms));
            let value = Value::Loose(text.trim_matches('"').to_owned());
            let range = Duration::ZERO..=Duration::MAX;
            assert_eq!(
                value.duration(range),
                Some(Duration::from_millis(ms)),
                "{text}"
            );
        }
    }
}
