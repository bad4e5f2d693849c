//! What a key of the configuration is, and the kinds of keys that there are many of.

use super::Config;
use super::value::Value;

/// One key of the configuration.
pub(crate) struct Key {
    /// Tables and name, joined by dots.
    pub(crate) path: &'static str,
    /// What it accepts, in words.
    pub(crate) expected: &'static str,
    /// Sets it; none if the value is not accepted.
    pub(crate) set: fn(&mut Config, &Value) -> Option<()>,
    /// Its value in TOML; none if it is absent.
    pub(crate) show: fn(&Config) -> Option<String>,
}

macro_rules! boolean {
    ($path:literal, $($field:ident).+) => {
        Key {
            path: $path,
            expected: "true or false",
            set: |config, value| { config.$($field).+ = value.boolean()?; Some(()) },
            show: |config| Some(config.$($field).+.to_string()),
        }
    };
}

macro_rules! count {
    ($path:literal, $($field:ident).+, $least:literal, $most:literal) => {
        Key {
            path: $path,
            expected: concat!("a whole number from ", $least, " to ", $most),
            set: |config, value| { config.$($field).+ = value.integer($least..=$most)?; Some(()) },
            show: |config| Some(config.$($field).+.to_string()),
        }
    };
}

macro_rules! size {
    ($path:literal, $($field:ident).+, $least:literal, $most:literal) => {
        Key {
            path: $path,
            expected: concat!(
                "a size from ", $least, " to ", $most, " bytes, such as 65536 or \"64KiB\""
            ),
            set: |config, value| { config.$($field).+ = value.size($least..=$most)?; Some(()) },
            show: |config| Some(show_size(u64::from_size(config.$($field).+))),
        }
    };
}

/// A time in whole seconds, kept as a number of them.
macro_rules! seconds {
    ($path:literal, $($field:ident).+, $least:literal, $most:literal) => {
        Key {
            path: $path,
            expected: concat!(
                "a time from ", $least, " to ", $most, " whole seconds, such as 90 or \"2h\""
            ),
            set: |config, value| {
                let range = Duration::from_secs($least)..=Duration::from_secs($most);
                let duration = value.duration(range).filter(|time| time.subsec_millis() == 0)?;
                config.$($field).+ = duration.as_secs().try_into().ok()?;
                Some(())
            },
            show: |config| Some(show_duration(Duration::from_secs(u64::from(config.$($field).+)))),
        }
    };
}

/// A time kept as milliseconds.
macro_rules! milliseconds {
    ($path:literal, $($field:ident).+, $least:literal, $most:literal) => {
        Key {
            path: $path,
            expected: concat!(
                "a time from ", $least, " to ", $most, " milliseconds, such as \"250ms\" or \"5s\""
            ),
            set: |config, value| {
                let range = Duration::from_millis($least)..=Duration::from_millis($most);
                config.$($field).+ = value.duration(range)?.as_millis().try_into().ok()?;
                Some(())
            },
            show: |config| Some(show_duration(Duration::from_millis(config.$($field).+))),
        }
    };
}

macro_rules! duration {
    ($path:literal, $($field:ident).+, $most:literal) => {
        Key {
            path: $path,
            expected: concat!(
                "a time from 0 to ",
                $most,
                " seconds, such as 5 or \"500ms\""
            ),
            set: |config, value| {
                config.$($field).+ =
                    value.duration(Duration::ZERO..=Duration::from_secs($most))?;
                Some(())
            },
            show: |config| Some(show_duration(config.$($field).+)),
        }
    };
}

macro_rules! address {
    ($path:literal, $($field:ident).+) => {
        Key {
            path: $path,
            expected: "an IP address and a port, such as \"127.0.0.1:1883\" or \"[::]:1883\"",
            set: |config, value| { config.$($field).+ = value.address()?; Some(()) },
            show: |config| Some(quoted(&config.$($field).+.to_string())),
        }
    };
}

/// Texts with commas between them.
macro_rules! list {
    ($path:literal, $($field:ident).+, $expected:literal, $read:expr, $show:expr) => {
        Key {
            path: $path,
            expected: $expected,
            set: |config, value| {
                let text = value.text_or_nothing()?;
                let items = text.split(',').map(str::trim).filter(|_| !text.is_empty());
                config.$($field).+ = items.map($read).collect::<Option<_>>()?;
                Some(())
            },
            show: |config| {
                let items: Vec<String> = config.$($field).+.iter().map($show).collect();
                Some(quoted(&items.join(", ")))
            },
        }
    };
}

macro_rules! files {
    ($path:literal, $($field:ident).+) => {
        list!(
            $path,
            $($field).+,
            "paths of PEM files, with commas between them",
            |path| (!path.is_empty()).then(|| PathBuf::from(path)),
            |path| path.to_string_lossy().into_owned()
        )
    };
}

macro_rules! file {
    ($path:literal, $($field:ident).+) => {
        Key {
            path: $path,
            expected: "the path of a PEM file",
            set: |config, value| {
                let text = value.text_or_nothing()?;
                config.$($field).+ = (!text.is_empty()).then(|| PathBuf::from(text));
                Some(())
            },
            show: |config| {
                let path = config.$($field).+.as_deref();
                Some(quoted(&path.map(|path| path.to_string_lossy()).unwrap_or_default()))
            },
        }
    };
}

macro_rules! networks {
    ($path:literal, $($field:ident).+) => {
        list!(
            $path,
            $($field).+,
            "addresses or networks with commas between them, such as \"10.0.0.0/8, ::1\"",
            broker::Network::parse,
            ToString::to_string
        )
    };
}

macro_rules! origins {
    ($path:literal, $($field:ident).+) => {
        list!(
            $path,
            $($field).+,
            "origins with commas between them, such as \"https://console.example.com\"",
            |origin| is_origin(origin).then(|| origin.to_owned()),
            |origin| origin.clone()
        )
    };
}

/// One of two words.
macro_rules! either {
    ($path:literal, $($field:ident).+, $no:literal, $yes:literal) => {
        Key {
            path: $path,
            expected: concat!("\"", $no, "\" or \"", $yes, "\""),
            set: |config, value| {
                config.$($field).+ = value.word(&[($no, false), ($yes, true)])?;
                Some(())
            },
            show: |config| Some(quoted(if config.$($field).+ { $yes } else { $no })),
        }
    };
}

macro_rules! slow_consumer {
    ($path:literal, $($field:ident).+) => {
        Key {
            path: $path,
            expected: "\"drop_newest\", \"drop_oldest\" or \"close\"",
            set: |config, value| {
                config.$($field).+ = value.word(&[
                    ("drop_newest", SlowPolicy::DropNewest),
                    ("drop_oldest", SlowPolicy::DropOldest),
                    ("close", SlowPolicy::Close),
                ])?;
                Some(())
            },
            show: |config| {
                Some(quoted(match config.$($field).+ {
                    SlowPolicy::DropNewest => "drop_newest",
                    SlowPolicy::DropOldest => "drop_oldest",
                    SlowPolicy::Close => "close",
                }))
            },
        }
    };
}

/// Sizes are `u32`, `u64` or `usize`, all of them at most 64 bits here.
pub(super) trait FromSize<T> {
    fn from_size(size: T) -> u64;
}

impl FromSize<u32> for u64 {
    fn from_size(size: u32) -> u64 {
        size.into()
    }
}

impl FromSize<u64> for u64 {
    fn from_size(size: u64) -> u64 {
        size
    }
}

impl FromSize<usize> for u64 {
    fn from_size(size: usize) -> u64 {
        size as u64
    }
}
