//! Log lines that anybody can cause, written once in a while.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::clock::lock;

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Lets one line through each minute and counts the others.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    kept_back: u64,
}

impl Seldom {
    /// Whether a line may be written now, and how many were kept back since the last one.
    pub fn passes(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.0);
        let early = |last| now.saturating_duration_since(last) < INTERVAL;
        if state.last.is_some_and(early) {
            state.kept_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_in_a_minute_and_tells_of_the_others() {
        let (seldom, begun) = (Seldom::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(seldom.passes(at(0)), Some(0));
        for second in 1..60 {
            assert_eq!(seldom.passes(at(second)), None);
        }
        assert_eq!(seldom.passes(at(60)), Some(59));
        assert_eq!(seldom.passes(at(119)), None);
        assert_eq!(seldom.passes(at(500)), Some(1));
    }
}
