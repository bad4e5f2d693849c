//! Keep Alive (MQTT 5, 3.1.2.10).

/// The longest that is watched over, in seconds: one and a half times it fills 16 bits of the hot
/// line. A client of MQTT 5 that asks for more is told; one of 3.1.1 has 18 hours then.
const WATCHED_MAX: u16 = u16::MAX / 3 * 2;

/// The Keep Alive in force: the client's, unless it is longer than `maximum` or none at all.
/// A `maximum` of 0 allows none. [MQTT-3.2.2-22]
pub(crate) fn in_force(asked: u16, maximum: u16) -> u16 {
    let seconds = match (asked, maximum) {
        (asked, 0) => asked,
        (0, maximum) => maximum,
        (asked, maximum) => asked.min(maximum),
    };
    seconds.min(WATCHED_MAX)
}

/// Seconds of silence that end the connection: one and a half times the Keep Alive, rounded up;
/// 0 for never. [MQTT-3.1.2-24] [MQTT3-3.1.2-24]
pub(crate) fn silence_max_s(keep_alive: u16) -> u16 {
    keep_alive.saturating_add(keep_alive.div_ceil(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_keep_alive_of_the_broker_replaces_longer_ones_and_none() {
        // [MQTT-3.2.2-22]
        assert_eq!(
            [0, 60, 3600, 65_535].map(|asked| in_force(asked, 3600)),
            [3600, 60, 3600, 3600]
        );
        assert_eq!(
            [0, 60, 65_535].map(|asked| in_force(asked, 0)),
            [0, 60, 43_690]
        );
    }

    #[test]
    fn silence_may_last_one_and_a_half_keep_alives() {
        // [MQTT-3.1.2-24] [MQTT3-3.1.2-24]
        assert_eq!(
            [0, 1, 2, 60, 65_535].map(silence_max_s),
            [0, 2, 3, 90, 65_535]
        );
    }
}
