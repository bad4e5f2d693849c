//! From a Topic Name or Topic Filter to the channel it means.

use std::sync::Arc;

use authcache::{ChannelIndex, DomainIndex};
use codec::mqtt::ReasonCode;
use router::{ParsedTopic, TopicError, parse_filter, parse_topic};

use crate::message::Address;
use crate::rules::Rules;

/// What a Topic Name means.
#[derive(Debug)]
pub(crate) enum Target<'t> {
    /// A place that messages are routed to.
    Place {
        address: Address,
        spelling: Spelling<'t>,
    },
    /// A sign of life of a client of this domain; `None` for a domain nobody knows.
    Health(Option<DomainIndex>),
}

/// How the topic was written.
#[derive(Debug)]
pub(crate) enum Spelling<'t> {
    /// As it is routed.
    Canonical(&'t str),
    /// By routes or with a leading slash: the canonical prefix takes the place of the written one.
    Other {
        prefix: Arc<str>,
        subtopic: Option<&'t str>,
    },
}

impl<'t> Spelling<'t> {
    /// The topic as it is routed, in pieces.
    pub(crate) fn pieces<'p>(&'p self, room: &'p mut [&'p str; 3]) -> &'p [&'p str] {
        match self {
            Spelling::Canonical(topic) => {
                room[0] = topic;
                &room[..1]
            }
            Spelling::Other {
                prefix,
                subtopic: None,
            } => {
                room[0] = prefix;
                &room[..1]
            }
            Spelling::Other {
                prefix,
                subtopic: Some(subtopic),
            } => {
                *room = [prefix, "/", subtopic];
                room
            }
        }
    }
}

/// Why a topic leads nowhere.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Unroutable {
    /// Outside the grammar, or over a limit.
    Topic(TopicError),
    /// Outside `m/…` on a listener without an open namespace.
    OutsideGrammar,
    /// Well formed, but a place where this client can never publish or subscribe.
    Forbidden,
    /// A domain or channel that does not exist; answered like a missing right, so that nobody
    /// learns which names exist.
    Unknown,
}

/// Finds what `topic` means.
pub(crate) fn resolve<'t>(topic: &'t str, rules: &Rules<'_>) -> Result<Target<'t>, Unroutable> {
    match parse_topic(topic, &rules.limits.topic).map_err(Unroutable::Topic)? {
        ParsedTopic::Channel(parts) => {
            let channel = rules
                .directory
                .resolve(parts.domain, parts.channel)
                .ok_or(Unroutable::Unknown)?;
            if parts.canonical {
                let behind = usize::from(parts.subtopic.is_some());
                let subtopic_at = (parts.prefix_len + behind) as u16;
                let address = Address {
                    channel,
                    wild: None,
                    subtopic_at,
                };
                return Ok(Target::Place {
                    address,
                    spelling: Spelling::Canonical(topic),
                });
            }
            let prefix = rules.directory.prefix(channel).ok_or(Unroutable::Unknown)?;
            let behind = usize::from(parts.subtopic.is_some());
            // Ids may be longer than the routes they take the place of.
            let len = prefix.len() + behind + parts.subtopic.map_or(0, str::len);
            if len > usize::from(u16::MAX) {
                let error = TopicError::TooLong(usize::from(u16::MAX));
                return Err(Unroutable::Topic(error));
            }
            let subtopic_at = (prefix.len() + behind) as u16;
            let address = Address {
                channel,
                wild: None,
                subtopic_at,
            };
            let spelling = Spelling::Other {
                prefix,
                subtopic: parts.subtopic,
            };
            Ok(Target::Place { address, spelling })
        }
        ParsedTopic::Health { domain } => {
            Ok(Target::Health(rules.directory.domain_by_name(domain)))
        }
        // Only the broker publishes below `$`. (Threats T-TOP-6.)
        ParsedTopic::Sys(_) => Err(Unroutable::Forbidden),
        ParsedTopic::Open(topic) => {
            let open = rules.listener.open.ok_or(Unroutable::OutsideGrammar)?;
            let address = Address {
                channel: open.of_topic(topic),
                wild: Some(open.wild()),
                subtopic_at: 0,
            };
            Ok(Target::Place {
                address,
                spelling: Spelling::Canonical(topic),
            })
        }
    }
}

/// What a Topic Filter means.
#[derive(Debug)]
pub(crate) struct FilterTarget<'t> {
    pub(crate) channel: ChannelIndex,
    /// The filter below the channel; in the open namespace and for `$SYS` the whole filter.
    pub(crate) filter: &'t str,
    pub(crate) share: Option<&'t str>,
    /// The prefix as written, where that is not the canonical one.
    pub(crate) prefix: Option<&'t str>,
}

/// Finds what the Topic Filter `text` means.
pub(crate) fn resolve_filter<'t>(
    text: &'t str,
    rules: &Rules<'_>,
) -> Result<FilterTarget<'t>, Unroutable> {
    let parsed = parse_filter(text, &rules.limits.topic).map_err(Unroutable::Topic)?;
    let share = parsed.share.map(|name| name.as_str());
    match parsed.target {
        ParsedTopic::Channel(parts) => {
            let channel = rules
                .directory
                .resolve(parts.domain, parts.channel)
                .ok_or(Unroutable::Unknown)?;
            let inner = inner_filter(text, share);
            let prefix = (!parts.canonical).then(|| &inner[..parts.prefix_len]);
            Ok(FilterTarget {
                channel,
                filter: parts.subtopic.unwrap_or(""),
                share,
                prefix,
            })
        }
        ParsedTopic::Health { .. } => Err(Unroutable::Forbidden),
        ParsedTopic::Sys(filter) => Ok(FilterTarget {
            channel: ChannelIndex::SYS,
            filter,
            share,
            prefix: None,
        }),
        ParsedTopic::Open(filter) => {
            let open = rules.listener.open.ok_or(Unroutable::OutsideGrammar)?;
            Ok(FilterTarget {
                channel: open.of_filter(filter),
                filter,
                share,
                prefix: None,
            })
        }
    }
}

/// The filter behind `$share/<ShareName>/`.
fn inner_filter<'t>(text: &'t str, share: Option<&str>) -> &'t str {
    share.map_or(text, |name| &text["$share/".len() + name.len() + 1..])
}

impl Unroutable {
    /// What a PUBLISH to such a topic is answered with.
    pub(crate) fn publish_code(self) -> ReasonCode {
        match self {
            Unroutable::Topic(_) | Unroutable::OutsideGrammar => ReasonCode::TOPIC_NAME_INVALID,
            Unroutable::Forbidden | Unroutable::Unknown => ReasonCode::NOT_AUTHORIZED,
        }
    }

    /// What a SUBSCRIBE with such a filter is answered with.
    pub(crate) fn subscribe_code(self) -> ReasonCode {
        match self {
            Unroutable::Topic(_) | Unroutable::OutsideGrammar => ReasonCode::TOPIC_FILTER_INVALID,
            Unroutable::Forbidden | Unroutable::Unknown => ReasonCode::NOT_AUTHORIZED,
        }
    }
}
