//! Messages of the feed, and their frames: a 32-bit length, then the message in postcard.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::EntityId;
use crate::Right;
use crate::change::{Change, Identity};
use crate::feed::ShownCertificate;

/// Largest message in bytes, its length prefix left out.
///
/// The largest legitimate one is a transaction of 10 000 rights (0.4 MB) or an identity with
/// 100 000 of them (1.9 MB). A follower holds at most one unfinished message of this size.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Principals named in one message; a longer list is told in several, before the Hello.
pub(super) const HELD_PART: usize = 32_768;
/// Principals one follower may name (64 MiB of ids).
pub(super) const HELD_MAX: usize = 4 * 1024 * 1024;

/// One message of the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A part of the principals held, told before the Hello that ends the list.
    Held {
        /// Principals whose rights the broker holds.
        held: Vec<EntityId>,
    },
    /// A broker joins, or rejoins after a gap.
    Hello {
        /// The broker's node.
        node: EntityId,
        /// Number of the node's start.
        incarnation: u64,
        /// The lineage of the revision that it was told last; none if it was told none.
        lineage: Option<EntityId>,
        /// Last revision it was told, 0 for none.
        revision: u64,
        /// The rest of the principals held.
        held: Vec<EntityId>,
    },
    /// A part of everything, as of one revision. Parts are numbered from 0.
    Snapshot {
        /// The lineage that it belongs to: what one database committed, in one line.
        lineage: EntityId,
        /// Whether what the broker was told before is not part of it, so that all it holds begin
        /// anew.
        afresh: bool,
        /// The revision this is the state of.
        revision: u64,
        /// Number of this part.
        part: u32,
        /// Whether it is the last one.
        last: bool,
        /// The directory: domains before their channels.
        changes: Vec<Change>,
        /// Principals held that still exist, with their rights.
        identities: Vec<Identity>,
    },
    /// One committed transaction.
    Delta {
        /// Its revision: one more than the one told before.
        revision: u64,
        /// What it changed, in the order in which it was changed.
        changes: Vec<Change>,
    },
    /// A question of the broker.
    Ask {
        /// The broker's number for it.
        number: u64,
        /// What it wants to know.
        question: Question,
    },
    /// The answer to a question.
    Answer {
        /// The broker's number.
        number: u64,
        /// Revision up to which the answer is right: that of the stream at this place.
        revision: u64,
        /// What was found.
        answer: Answer,
    },
    /// Nothing that was judged before this revision is in any queue of the broker.
    Applied {
        /// The revision.
        revision: u64,
    },
    /// What clients did since this was told last.
    Activity {
        /// At most [`ACTIVITY_MAX`](super::ACTIVITY_MAX) of them, each once.
        clients: Vec<Activity>,
    },
    /// Asks for the lease again.
    Renew {
        /// The broker's clock before it sent this.
        sent_ms: u64,
    },
    /// The broker may trust what it knows.
    Lease {
        /// Until its own clock shows this; [`LEASE_UNLIMITED`](super::LEASE_UNLIMITED) while the pipe lives.
        until_ms: u64,
        /// Provided it has applied this revision.
        revision: u64,
    },
}

/// What one client did at one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// The client.
    pub client: EntityId,
    /// Messages that it published since it was told last.
    pub inbound: u64,
    /// Messages that it was given since.
    pub outbound: u64,
    /// Subscriptions that it has at this broker now.
    pub subscriptions: u32,
}

/// What a broker asks control.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Who is this?
    Identify(Credentials),
    /// What may this user do on this channel?
    Rights {
        /// The user.
        principal: EntityId,
        /// The channel.
        channel: EntityId,
    },
    /// Whose access token is this? (Enhanced authentication.)
    Token(Vec<u8>),
    /// Whose certificate is this? It was verified by the broker.
    Certificate(ShownCertificate),
    /// What is the secret of the client with this id? It is the key of its DTLS handshake; there
    /// is an answer where control keeps secrets sealed.
    Key {
        /// The client.
        client: EntityId,
        /// Where the peer is, for the budget of failures.
        peer: Option<IpAddr>,
    },
    /// A peer did not know the secret of the client with this id: always refused, and counted.
    WrongKey {
        /// The client.
        client: EntityId,
        /// Where the peer is.
        peer: Option<IpAddr>,
    },
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Identify(credentials) => {
                f.debug_tuple("Identify").field(credentials).finish()
            }
            Question::Rights { principal, channel } => f
                .debug_struct("Rights")
                .field("principal", principal)
                .field("channel", channel)
                .finish(),
            Question::Token(_) => f.write_str("Token(..)"),
            Question::Certificate(shown) => f.debug_tuple("Certificate").field(shown).finish(),
            Question::Key { client, peer } => {
                f.debug_tuple("Key").field(client).field(peer).finish()
            }
            Question::WrongKey { client, peer } => {
                f.debug_tuple("WrongKey").field(client).field(peer).finish()
            }
        }
    }
}

/// What a peer presented at CONNECT, and where. Neither Debug nor an error ever shows the password.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User name as sent.
    pub username: Option<String>,
    /// Password as sent.
    pub password: Option<Vec<u8>>,
    /// Domain of the listener's open namespace.
    pub open: Option<EntityId>,
    /// Whether the listener admits peers that nobody knows.
    pub anonymous: bool,
    /// Where the peer is, for the budget of failures.
    pub peer: Option<IpAddr>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| ".."))
            .field("open", &self.open)
            .field("anonymous", &self.anonymous)
            .field("peer", &self.peer)
            .finish()
    }
}

/// What control answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The principal and its rights; the second field is when its token ends, in seconds since 1970.
    Identity(Identity, Option<u64>),
    /// No.
    Refused(Refusal),
    /// Rights of the user on the channel, none if empty.
    Rights(Right),
    /// The client's secret.
    Key(SharedKey),
}

/// The secret that a client and the broker share. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedKey(pub Vec<u8>);

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(..)")
    }
}

/// Why a principal was not identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Unknown, or the secret is wrong: the peer is not told which.
    BadCredentials,
    /// Known, and not admitted: it or its domain is not enabled.
    NotAuthorized,
    /// Too many failures; the secret was not looked at.
    Throttled,
    /// Control could not answer.
    Unavailable,
}

/// Why a pipe must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FeedError {
    /// The length prefix exceeds the bound.
    #[error("a feed message of {length} bytes exceeds the bound of {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// The length told.
        length: usize,
    },
    /// The bytes are no message.
    #[error("the feed carried bytes that are no message")]
    Malformed,
    /// A message from the wrong side or at the wrong time.
    #[error("the feed carried {message} where it has no place")]
    Misplaced {
        /// Name of the message.
        message: &'static str,
    },
    /// More questions or principals than one broker may have.
    #[error("the feed carried more {what} than one broker may have")]
    TooMany {
        /// What there was too much of.
        what: &'static str,
    },
}

impl Message {
    /// Appends the message with its length prefix.
    pub fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        let bytes = postcard::to_stdvec(self)
            .expect("every sequence of a message knows its length, and memory is the only sink");
        out.extend_from_slice(&bytes);
        let length = u32::try_from(bytes.len()).expect("senders cut messages to MESSAGE_BYTES_MAX");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Message::Held { .. } => "Held",
            Message::Hello { .. } => "Hello",
            Message::Snapshot { .. } => "Snapshot",
            Message::Delta { .. } => "Delta",
            Message::Ask { .. } => "Ask",
            Message::Answer { .. } => "Answer",
            Message::Applied { .. } => "Applied",
            Message::Activity { .. } => "Activity",
            Message::Renew { .. } => "Renew",
            Message::Lease { .. } => "Lease",
        }
    }
}

/// Bytes of a pipe on their way to messages. Holds less than one message between calls.
#[derive(Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    start: usize,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Option<Message>, FeedError> {
        let rest = &self.buffer[self.start..];
        let Some((prefix, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(FeedError::TooLong { length });
        }
        let Some(bytes) = rest.get(..length) else {
            return Ok(None);
        };
        let (message, behind) =
            postcard::take_from_bytes::<Message>(bytes).map_err(|_| FeedError::Malformed)?;
        if !behind.is_empty() {
            return Err(FeedError::Malformed);
        }
        self.start += 4 + length;
        Ok(Some(message))
    }

    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }
}
