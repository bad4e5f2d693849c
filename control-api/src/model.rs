//! What control keeps and shows.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use authcache::{EntityId, Right, Status};
use serde::{Deserialize, Serialize, Serializer};

/// A point in time: microseconds since 1970, shown as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(i64);

impl Time {
    /// The wall clock.
    #[must_use]
    pub fn now() -> Time {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// The time with this many microseconds since 1970.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Time {
        Time(micros)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

impl Time {
    /// This time and so many seconds.
    pub(crate) const fn plus_seconds(self, seconds: i64) -> Time {
        Time(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// Reads RFC 3339, in UTC or with an offset.
    pub(crate) fn parse(text: &str) -> Option<Time> {
        let (date, rest) = text.split_once(['T', 't', ' '])?;
        let mut date = date.splitn(3, '-').map(str::parse::<i64>);
        let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
        let zone_at = rest.find(['Z', 'z', '+', '-'])?;
        let (clock, zone) = rest.split_at(zone_at);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
        let (hour, minute, second) = (
            clock.next()?.ok()?,
            clock.next()?.ok()?,
            clock.next()?.ok()?,
        );
        let offset = match zone {
            "Z" | "z" => 0,
            _ => {
                let (hours, minutes) = zone.get(1..)?.split_once(':')?;
                let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
                if !((0..24).contains(&hours) && (0..60).contains(&minutes)) {
                    return None;
                }
                let seconds = hours * 3_600 + minutes * 60;
                if zone.starts_with('-') {
                    -seconds
                } else {
                    seconds
                }
            }
        };
        let valid = (0..=9_999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && (0..24).contains(&hour)
            && (0..60).contains(&minute)
            && (0..=60).contains(&second)
            && fraction.bytes().all(|digit| digit.is_ascii_digit());
        if !valid {
            return None;
        }
        // The inverse of how times are shown: years begin in March, so that the leap day is last.
        let years = if month <= 2 { year - 1 } else { year };
        let (cycle, of_era) = (years.div_euclid(400), years.rem_euclid(400));
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = cycle * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset;
        let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
        Some(Time(seconds * 1_000_000 + micros.parse::<i64>().ok()?))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days to a date of the Gregorian calendar, counted from 1 March of year 0 in cycles of 400
        // years, so that the leap day is the last of its year.
        let shifted = days + 719_468;
        let (cycle, of_cycle) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let of_era = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
        let of_year = of_cycle - (365 * of_era + of_era / 4 - of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = cycle * 400 + of_era + i64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        let micros = self.0.rem_euclid(1_000_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Its id.
    #[serde(with = "id_text")]
    pub id: EntityId,
    /// Short name in topics, unique on the platform.
    pub route: String,
    /// Name for people.
    pub name: String,
    /// Whether messages pass.
    #[serde(with = "status_text")]
    pub status: Status,
    /// When it was made.
    pub created_at: Time,
    /// When it was changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// Words to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whatever its owner keeps with it: a JSON object.
    #[serde(skip_serializing_if = "is_empty_object")]
    pub metadata: serde_json::Value,
    /// When it was deleted; it is removed for good later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Time>,
    /// Whether a disabled group stops the messages of clients and channels in it and below.
    #[serde(
        rename = "disabled_group_blocks_messaging",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub groups_block: bool,
    /// The user that made it.
    #[serde(skip)]
    pub created_by: Option<EntityId>,
    /// The user that changed it last.
    #[serde(skip)]
    pub updated_by: Option<EntityId>,
}

impl Domain {
    /// An enabled one with nothing but its names.
    pub(crate) fn new(id: EntityId, route: &str, name: &str, now: Time) -> Domain {
        Domain {
            id,
            route: route.to_owned(),
            name: name.to_owned(),
            status: Status::Enabled,
            created_at: now,
            updated_at: None,
            tags: Vec::new(),
            metadata: serde_json::Value::Object(serde_json::Map::new()),
            deleted_at: None,
            groups_block: false,
            created_by: None,
            updated_by: None,
        }
    }
}

fn is_empty_object(value: &serde_json::Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Channel {
    /// Its id.
    #[serde(with = "id_text")]
    pub id: EntityId,
    /// The domain it belongs to.
    #[serde(with = "id_text")]
    pub domain_id: EntityId,
    /// Short name in topics, unique in the domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Name for people.
    pub name: String,
    /// Whether messages pass.
    #[serde(with = "status_text")]
    pub status: Status,
    /// Whether it carries the domain's open namespace.
    pub open: bool,
    /// Whether a disabled group stops it, in a domain that wants it so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it was changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
}

/// A client: a device, or whatever connects with an id and a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Client {
    /// Its id, which is its user name at CONNECT.
    #[serde(with = "id_text")]
    pub id: EntityId,
    /// The domain it belongs to.
    #[serde(with = "id_text")]
    pub domain_id: EntityId,
    /// Name for people.
    pub name: String,
    /// Whether it may connect.
    #[serde(with = "status_text")]
    pub status: Status,
    /// When it was made.
    pub created_at: Time,
    /// When it was changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing<T> {
    /// How many there are in all.
    pub total: u64,
    /// How many were left out before these.
    pub offset: u64,
    /// How many were asked for at most.
    pub limit: u64,
    /// The ones asked for, oldest first.
    pub items: Vec<T>,
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// How many to leave out.
    pub offset: u64,
    /// How many to show: 1 to [`Page::LIMIT_MAX`].
    pub limit: u64,
}

impl Page {
    /// Longest page.
    pub const LIMIT_MAX: u64 = 100;
}

impl Default for Page {
    fn default() -> Page {
        Page {
            offset: 0,
            limit: 10,
        }
    }
}

/// The word for a status on the wire.
#[must_use]
pub const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Enabled => "enabled",
        Status::Disabled => "disabled",
        Status::Frozen => "freezed",
    }
}

/// The words for a set of rights on the wire.
pub(crate) fn right_words(right: Right) -> Vec<&'static str> {
    let words = [(Right::PUBLISH, "publish"), (Right::SUBSCRIBE, "subscribe")];
    words
        .into_iter()
        .filter(|(bit, _)| !(right & *bit).is_empty())
        .map(|(_, word)| word)
        .collect()
}

mod status_text {
    use super::{Serializer, Status, status_word};

    // The signature is serde's: it hands references to every field.
    #[expect(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(status: &Status, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(status_word(*status))
    }
}

pub(crate) mod id_text {
    use super::{EntityId, Serializer};

    pub(crate) fn serialize<S: Serializer>(id: &EntityId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (4_102_444_800, "2100-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(Time::from_micros(seconds * 1_000_000).to_string(), text);
        }
        assert_eq!(
            Time::from_micros(1_500_000).to_string(),
            "1970-01-01T00:00:01.500000Z"
        );
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for micros in [0, 951_782_400_000_001, 1_709_251_199_500_000, -1] {
            let time = Time::from_micros(micros);
            assert_eq!(Time::parse(&time.to_string()), Some(time));
        }
        let noon = Time::parse("2024-02-29T12:00:00Z");
        assert_eq!(Time::parse("2024-02-29T13:30:00+01:30"), noon);
        assert_eq!(Time::parse("2024-02-29T11:00:00.0-01:00"), noon);
        for bad in [
            "",
            "2024-02-29",
            "yesterday",
            "2024-13-01T00:00:00Z",
            "2024-02-29T12:00:00",
            "2024-02-29T12:00:00+24:00",
            "2024-02-29T12:00:00+9223372036854775807:00",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_and_states_are_text_on_the_wire() {
        let domain = Domain {
            status: Status::Frozen,
            ..Domain::new(
                EntityId::from_u128(1),
                "plant",
                "Plant",
                Time::from_micros(0),
            )
        };
        let text = serde_json::to_string(&domain).unwrap();
        assert_eq!(
            text,
            r#"{"id":"00000000-0000-0000-0000-000000000001","route":"plant","name":"Plant","status":"freezed","created_at":"1970-01-01T00:00:00.000000Z"}"#
        );
    }
}
