//! What is shown while a load runs: one line that changes on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use ::loadtest::Moment;

/// Shows how a load goes, on standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    quiet: bool,
    terminal: bool,
}

/// Seconds between two plain lines.
const EVERY_S: f64 = 5.0;

impl Watch {
    pub(super) fn new(quiet: bool) -> Watch {
        Watch {
            quiet,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// One step of the preparation.
    pub(super) fn step(self, text: &str) {
        match (self.quiet, self.terminal) {
            (true, _) => {}
            (false, true) => eprint!("\r\x1b[K{text}"),
            (false, false) => eprintln!("{text}"),
        }
        let _ = std::io::stderr().flush();
    }

    /// Shows each moment of a measurement; a terminal's line is cleared with the last one.
    pub(super) fn moments(self) -> impl FnMut(&Moment) {
        let mut next_s = EVERY_S;
        let end = Cleared(self);
        move |moment| {
            let watch = end.0;
            if watch.quiet || (!watch.terminal && moment.at_s < next_s) {
                return;
            }
            next_s = moment.at_s + EVERY_S;
            watch.step(&line(moment));
        }
    }
}

/// Clears the line when the measurement has ended.
struct Cleared(Watch);

impl Drop for Cleared {
    fn drop(&mut self) {
        if !self.0.quiet && self.0.terminal {
            self.0.step("");
        }
    }
}

fn line(moment: &Moment) -> String {
    let mut line = format!("{:6.1} s  {:>10.0}/s", moment.at_s, moment.per_s);
    if let Some(p99) = moment.p99_us {
        let _ = write!(line, "  p99 {p99:.0} us");
    }
    if let Some(cores) = moment.broker_cores {
        let _ = write!(line, "  broker {cores:.2} cores");
    }
    if let Some(bytes) = moment.broker_rss_bytes {
        let _ = write!(line, " {} MiB", bytes >> 20);
    }
    let _ = write!(line, "  load {:.2} cores", moment.own_cores);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_one_line_with_what_is_known() {
        let mut moment = Moment {
            at_s: 1.5,
            per_s: 1234.4,
            ..Moment::default()
        };
        assert_eq!(line(&moment), "   1.5 s        1234/s  load 0.00 cores");
        moment.p99_us = Some(99.6);
        moment.broker_cores = Some(0.5);
        moment.broker_rss_bytes = Some(3 << 20);
        assert!(line(&moment).contains("p99 100 us  broker 0.50 cores 3 MiB"));
    }
}
