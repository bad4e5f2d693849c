//! Control's own metrics, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Control;

/// The mark with which an OpenMetrics text ends.
const END: &str = "# EOF\n";

/// The broker's metrics with their content type: OpenMetrics if they end so.
pub(crate) fn typed(broker: String) -> (String, &'static str) {
    let content_type = if broker.ends_with(END) {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    (broker, content_type)
}

/// Joins the broker's metrics with control's. The result is OpenMetrics if the broker's text is.
pub(crate) fn text(control: &Control, broker: &str) -> (String, &'static str) {
    let (mut text, content_type) = typed(broker.to_owned());
    let end = if text.ends_with(END) { END } else { "" };
    text.truncate(text.len() - end.len());
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let counts = control.0.identifier.counts();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (name, help, value) in [
        (
            "auth_failures",
            "Logins with a wrong secret or an unknown name.",
            count(&counts.failures),
        ),
        (
            "auth_throttled",
            "Logins refused without a look at the secret.",
            count(&counts.throttled),
        ),
        (
            "control_questions",
            "Questions of brokers.",
            count(&counts.questions),
        ),
        (
            "control_questions_unanswered",
            "Questions of brokers that could not be answered.",
            count(&counts.unavailable),
        ),
        (
            "control_reports_lost",
            "Reports of what clients did that came faster than they can be written down.",
            count(&counts.reports_lost),
        ),
        (
            "control_mails_refused",
            "Mails that were not sent because too many were under way.",
            control.mailer().map_or(0, crate::api::Mailer::refused),
        ),
        (
            "control_rates_refused",
            "Mails and registrations refused because there were too many.",
            control.0.rates.refused(),
        ),
        (
            "control_logins_elsewhere_busy",
            "Logins at a provider refused because too many were under way.",
            count(&control.0.oauth.counts().busy),
        ),
        (
            "control_logins_elsewhere_failed",
            "Logins at a provider that did not say who it is.",
            count(&control.0.oauth.counts().failed),
        ),
    ] {
        // The family of a counter is named without `_total` in OpenMetrics and with it before.
        let family = if end.is_empty() {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        write_metric(
            &mut text,
            &family,
            &format!("{name}_total"),
            "counter",
            help,
            value,
        );
    }
    for (name, help, value) in [
        (
            "control_revision",
            "Last revision told to brokers.",
            control.0.feed.revision(),
        ),
        (
            "control_brokers_leased",
            "Brokers that hold a lease.",
            control.0.feed.leased() as u64,
        ),
        (
            "control_writers_waiting",
            "Calls that wait for the one transaction that writes.",
            control.0.store.waiting(),
        ),
    ] {
        write_metric(&mut text, name, name, "gauge", help, value);
    }
    text.push_str(end);
    (text, content_type)
}

fn write_metric(text: &mut String, family: &str, name: &str, kind: &str, help: &str, value: u64) {
    let written = write!(
        text,
        "# HELP turnpike_{family} {help}\n# TYPE turnpike_{family} {kind}\nturnpike_{name} {value}\n"
    );
    written.expect("a string takes every text");
}
