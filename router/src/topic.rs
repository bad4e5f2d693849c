//! The grammar of topics and filters.
//!
//! ```text
//! topic    = ["/"] "m/" domain "/c/" channel ["/" subtopic]      message topic
//!          | ["/"] "hc/" domain                                  health topic
//!          | "$" …                                               the broker's own
//!          | anything else                                       open namespace
//! ```
//! A subtopic has no empty level but perhaps the last one. Everything is decided in one scan, so
//! that length and levels are limited before any table or tree is touched.

use authcache::EntityId;
use thiserror::Error;

/// Bounds of a topic or filter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// Most bytes; at most 65 535 whatever it says.
    pub bytes: usize,
    /// Most levels.
    pub levels: usize,
}

impl Default for TopicLimits {
    fn default() -> Self {
        Self {
            bytes: 4096,
            levels: 128,
        }
    }
}

/// A topic, or the target of a filter, taken apart.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ParsedTopic<'a> {
    /// `m/<domain>/c/<channel>[/<subtopic>]`.
    Channel(ChannelTopic<'a>),
    /// `hc/<domain>`: counted, never routed.
    Health {
        /// Id or route.
        domain: &'a str,
    },
    /// Begins with `$`: the whole text.
    Sys(&'a str),
    /// Outside the grammar: the whole text. Refused by listeners without an open namespace.
    Open(&'a str),
}

/// A message topic taken apart.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ChannelTopic<'a> {
    /// Id or route.
    pub domain: &'a str,
    /// Id or route.
    pub channel: &'a str,
    /// What follows the channel, verbatim and not empty; of a filter it may have wildcards.
    pub subtopic: Option<&'a str>,
    /// Bytes before the `/` of the subtopic.
    pub prefix_len: usize,
    /// Both parts are canonical ids and there is no leading `/`: the topic is as it is forwarded.
    pub canonical: bool,
}

/// A topic filter taken apart.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ParsedFilter<'a> {
    /// The group, for a shared subscription.
    pub share: Option<ShareName<'a>>,
    /// The filter itself, without `$share/<name>/`.
    pub target: ParsedTopic<'a>,
}

/// Name of a group of a shared subscription: not empty, without `/`, `+`, `#`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShareName<'a>(&'a str);

impl<'a> ShareName<'a> {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// Why a topic or filter is refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("topic is empty")]
    Empty,
    /// Longer than the limit, in bytes.
    #[error("topic has more than {0} bytes")]
    TooLong(usize),
    /// More levels than the limit.
    #[error("topic has more than {0} levels")]
    TooManyLevels(usize),
    /// [MQTT-4.7.3-2]
    #[error("topic contains U+0000")]
    NullCharacter,
    /// [MQTT-4.7.0-1]
    #[error("wildcard in a topic name")]
    WildcardInTopicName,
    /// `#` that is not alone in the last level, or `+` that is not alone in its level.
    #[error("wildcard is not a whole level, or `#` is not the last one")]
    MisplacedWildcard,
    /// Begins like a message topic, but is none: `m/<domain>/c/<channel>` was expected.
    #[error("expected m/<domain>/c/<channel>")]
    NotAChannelTopic,
    /// Begins like a health topic, but is none: `hc/<domain>` was expected.
    #[error("expected hc/<domain>")]
    NotAHealthTopic,
    /// Domain or channel is empty or has a space or wildcard.
    #[error("domain or channel is empty or has a space or wildcard")]
    BadName,
    /// A level of the subtopic that is not the last one is empty, or the only one.
    #[error("empty level in the subtopic")]
    EmptyLevel,
    /// `$share` without a name and a filter, or with a wildcard in the name.
    #[error("expected $share/<name>/<filter>")]
    BadShare,
}

/// Takes a topic name apart.
///
/// # Errors
/// When it is no valid topic name (MQTT 5, 4.7), exceeds a limit, or begins with `m/` or `hc/`
/// (or these after `/`) and does not follow the grammar.
pub fn parse_topic<'a>(
    topic: &'a str,
    limits: &TopicLimits,
) -> Result<ParsedTopic<'a>, TopicError> {
    if let Some(parts) = canonical_topic(topic, limits) {
        return Ok(ParsedTopic::Channel(parts));
    }
    parse_topic_by_rules(topic, limits)
}

fn parse_topic_by_rules<'a>(
    topic: &'a str,
    limits: &TopicLimits,
) -> Result<ParsedTopic<'a>, TopicError> {
    check_size(topic, limits)?;
    // [MQTT-4.7.0-1] [MQTT-4.7.1-1] [MQTT-3.3.2-2] [MQTT3-4.7.1-1] [MQTT3-3.3.2-2]
    if topic.bytes().any(is_wildcard) {
        return Err(TopicError::WildcardInTopicName);
    }
    parse_target(topic)
}

/// Takes a topic filter apart.
///
/// # Errors
/// When it is no valid topic filter (MQTT 5, 4.7 and 4.8.2), exceeds a limit, has a wildcard in
/// domain or channel, or does not follow the grammar that it begins like.
pub fn parse_filter<'a>(
    filter: &'a str,
    limits: &TopicLimits,
) -> Result<ParsedFilter<'a>, TopicError> {
    check_size(filter, limits)?;
    let (share, filter) = split_share(filter)?;
    check_wildcards(filter)?;
    Ok(ParsedFilter {
        share,
        target: parse_target(filter)?,
    })
}

/// A topic as it is forwarded, which nearly all are: two ids in their places, and a subtopic with
/// nothing wrong. `None` is for the rules to judge; they alone know what is wrong, if anything is.
#[inline]
fn canonical_topic<'a>(topic: &'a str, limits: &TopicLimits) -> Option<ChannelTopic<'a>> {
    // "m/", id, "/c/", id.
    const PREFIX: usize = 2 + ID + 3 + ID;
    const ID: usize = 36;
    if topic.len() > limits.bytes.min(usize::from(u16::MAX)) {
        return None;
    }
    let (prefix, subtopic) = topic.split_at_checked(PREFIX)?;
    let (domain, channel) = prefix.strip_prefix("m/")?.split_at_checked(ID)?;
    let channel = channel.strip_prefix("/c/")?;
    // An id has neither a wildcard nor U+0000 in it.
    EntityId::from_text(domain)?;
    EntityId::from_text(channel)?;
    let mut levels = 4;
    let mut subtopic_after_slash = None;
    if !subtopic.is_empty() {
        let text = subtopic.strip_prefix('/')?;
        let mut odd = text.is_empty();
        let mut last = b'/';
        for &byte in text.as_bytes() {
            let slash = byte == b'/';
            odd |= is_wildcard(byte) | (byte == 0) | (slash & (last == b'/'));
            levels += usize::from(slash);
            last = byte;
        }
        if odd {
            return None;
        }
        levels += 1;
        subtopic_after_slash = Some(text);
    }
    (levels <= limits.levels).then_some(ChannelTopic {
        domain,
        channel,
        subtopic: subtopic_after_slash,
        prefix_len: PREFIX,
        canonical: true,
    })
}

/// Length, levels and forbidden characters, in one scan.
fn check_size(text: &str, limits: &TopicLimits) -> Result<(), TopicError> {
    // [MQTT-4.7.3-1] [MQTT3-4.7.3-1]
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    // [MQTT-4.7.3-3] [MQTT3-4.7.3-3]
    let bytes_max = limits.bytes.min(usize::from(u16::MAX));
    if text.len() > bytes_max {
        return Err(TopicError::TooLong(bytes_max));
    }
    let mut levels = 1;
    for byte in text.bytes() {
        // [MQTT-4.7.3-2] [MQTT3-4.7.3-2]
        if byte == 0 {
            return Err(TopicError::NullCharacter);
        }
        levels += usize::from(byte == b'/');
    }
    if levels > limits.levels {
        return Err(TopicError::TooManyLevels(limits.levels));
    }
    Ok(())
}

fn split_share(filter: &str) -> Result<(Option<ShareName<'_>>, &str), TopicError> {
    let Some(rest) = filter.strip_prefix("$share") else {
        return Ok((None, filter));
    };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Ok((None, filter));
    }
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    let (name, inner) = rest
        .strip_prefix('/')
        .and_then(|rest| rest.split_once('/'))
        .ok_or(TopicError::BadShare)?;
    let nested = inner == "$share" || inner.starts_with("$share/");
    if name.is_empty() || inner.is_empty() || name.bytes().any(is_wildcard) || nested {
        return Err(TopicError::BadShare);
    }
    Ok((Some(ShareName(name)), inner))
}

fn check_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fine = match level {
            "+" => true,
            // [MQTT-4.7.1-1] [MQTT3-4.7.1-2]
            "#" => levels.peek().is_none(),
            // [MQTT-4.7.1-2] [MQTT3-4.7.1-3]
            _ => !level.bytes().any(is_wildcard),
        };
        if !fine {
            return Err(TopicError::MisplacedWildcard);
        }
    }
    Ok(())
}

/// The grammar proper. Nothing is normalised. [MQTT-4.7.3-4] [MQTT3-4.7.3-4]
fn parse_target(text: &str) -> Result<ParsedTopic<'_>, TopicError> {
    let (slash, rest) = match text.strip_prefix('/') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if let Some(rest) = rest.strip_prefix("m/") {
        return parse_channel(text, rest, slash).map(ParsedTopic::Channel);
    }
    if let Some(domain) = rest.strip_prefix("hc/") {
        if domain.is_empty() || domain.contains('/') {
            return Err(TopicError::NotAHealthTopic);
        }
        check_name(domain)?;
        return Ok(ParsedTopic::Health { domain });
    }
    if text.starts_with('$') {
        return Ok(ParsedTopic::Sys(text));
    }
    Ok(ParsedTopic::Open(text))
}

fn parse_channel<'a>(
    whole: &'a str,
    rest: &'a str,
    slash: bool,
) -> Result<ChannelTopic<'a>, TopicError> {
    let (domain, rest) = rest.split_once('/').ok_or(TopicError::NotAChannelTopic)?;
    let rest = rest
        .strip_prefix("c/")
        .ok_or(TopicError::NotAChannelTopic)?;
    let (channel, subtopic) = match rest.split_once('/') {
        Some((channel, subtopic)) => (channel, Some(subtopic)),
        None => (rest, None),
    };
    check_name(domain)?;
    check_name(channel)?;
    if let Some(subtopic) = subtopic {
        check_subtopic(subtopic)?;
    }
    Ok(ChannelTopic {
        domain,
        channel,
        subtopic,
        prefix_len: whole.len() - subtopic.map_or(0, |subtopic| subtopic.len() + 1),
        canonical: !slash
            && EntityId::from_text(domain).is_some()
            && EntityId::from_text(channel).is_some(),
    })
}

fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() || name.bytes().any(|byte| byte == b' ' || is_wildcard(byte)) {
        return Err(TopicError::BadName);
    }
    Ok(())
}

/// An empty last level is a topic of its own; it may not be the only one, since without levels a
/// subtopic is none.
fn check_subtopic(subtopic: &str) -> Result<(), TopicError> {
    if subtopic.is_empty() || subtopic.starts_with('/') || subtopic.contains("//") {
        return Err(TopicError::EmptyLevel);
    }
    Ok(())
}

const fn is_wildcard(byte: u8) -> bool {
    byte == b'+' || byte == b'#'
}

#[cfg(test)]
#[path = "topic_tests.rs"]
mod tests;
