//! Logs, on standard error only: standard output belongs to what was asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Reads log directives; none if they make no sense.
pub(crate) fn parse_filter(text: &str) -> Option<EnvFilter> {
    // A level that is none would be taken for the name of a module.
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric());
    if plain && !["error", "warn", "info", "debug", "trace", "off"].contains(&text) {
        return None;
    }
    text.parse().ok()
}

/// Starts logging.
pub(crate) fn start(config: &Config) {
    let filter = parse_filter(&config.log_filter).unwrap_or_else(|| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if config.log_json {
        logs.json().init()
    } else {
        logs.init()
    }
}
