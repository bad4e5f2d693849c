//! Topic Aliases (MQTT 5, 3.3.2.3.4), one table per direction, gone with the connection.
//! [MQTT-3.3.2-7]

/// What the client's aliases stand for; grows to the highest alias used.
#[derive(Debug, Default)]
pub(crate) struct IncomingAliases {
    topics: Vec<Option<Box<str>>>,
}

impl IncomingAliases {
    /// The topic bound to `alias`.
    pub(crate) fn get(&self, alias: u16) -> Option<&str> {
        self.topics.get(usize::from(alias) - 1)?.as_deref()
    }

    /// Binds `alias` (at least 1, at most the announced maximum) to `topic`. [MQTT-3.3.2-12]
    pub(crate) fn bind(&mut self, alias: u16, topic: &str) {
        let at = usize::from(alias) - 1;
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        if self.topics[at].as_deref() != Some(topic) {
            self.topics[at] = Some(topic.into());
        }
    }
}

/// Aliases the broker uses towards a client: the first topics that come, as many as both allow.
#[derive(Debug)]
pub(crate) struct OutgoingAliases {
    maximum: u16,
    topics: Vec<Box<str>>,
}

/// An alias to send.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Alias {
    pub(crate) number: u16,
    /// The client knows what it stands for, so the topic can be left out.
    pub(crate) known: bool,
}

impl OutgoingAliases {
    /// A table of at most `maximum` aliases.
    pub(crate) fn new(maximum: u16) -> OutgoingAliases {
        OutgoingAliases {
            maximum,
            topics: Vec::new(),
        }
    }

    /// The alias for `topic`, bound now if there is room; linear in at most a few dozen entries.
    pub(crate) fn alias(&mut self, topic: &str) -> Option<Alias> {
        if let Some(at) = self.topics.iter().position(|known| &**known == topic) {
            return Some(Alias {
                number: at as u16 + 1,
                known: true,
            });
        }
        if self.topics.len() >= usize::from(self.maximum) {
            return None;
        }
        self.topics.push(topic.into());
        Some(Alias {
            number: self.topics.len() as u16,
            known: false,
        })
    }

    /// Takes back the binding that was made last, because the packet that carries it is not sent.
    pub(crate) fn forget(&mut self, number: u16) {
        if usize::from(number) == self.topics.len() {
            self.topics.pop();
        }
    }

    /// Forgets all bindings, because packets that carried some were not sent.
    pub(crate) fn reset(&mut self) {
        self.topics.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incoming_alias_stands_for_the_topic_bound_last() {
        let mut aliases = IncomingAliases::default();
        assert_eq!(aliases.get(3), None);
        aliases.bind(3, "a");
        aliases.bind(3, "b");
        assert_eq!(aliases.get(3), Some("b"));
        assert_eq!(aliases.get(1), None);
    }

    #[test]
    fn outgoing_aliases_stay_within_the_maximum() {
        // [MQTT-3.3.2-11] [MQTT-3.1.2-29]
        let mut aliases = OutgoingAliases::new(1);
        assert_eq!(
            aliases.alias("a"),
            Some(Alias {
                number: 1,
                known: false
            })
        );
        assert_eq!(
            aliases.alias("a"),
            Some(Alias {
                number: 1,
                known: true
            })
        );
        assert_eq!(aliases.alias("b"), None);
        aliases.reset();
        assert_eq!(
            aliases.alias("b"),
            Some(Alias {
                number: 1,
                known: false
            })
        );
    }
}
