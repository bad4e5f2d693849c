//! From bytes to events: fragments, control frames, limits. RFC 6455, 5.4 to 5.7.

use std::ops::Range;

use crate::ws::close::{CloseCode, Violation};
use crate::ws::frame::{HEAD_BYTES_MAX, Head, Opcode, unmask};
use crate::ws::utf8::Utf8;

/// Whose frames are received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A client's, which are masked.
    Server,
    /// A server's, which are not.
    Client,
}

/// Bounds for what a peer sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReceiverLimits {
    /// Payload of one frame, in bytes.
    pub frame_bytes: u64,
    /// Payload of all fragments of a message, in bytes.
    pub message_bytes: u64,
    /// Fragments of one message.
    pub fragments: u32,
}

/// What came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A piece of a message, unmasked where it lies.
    Data {
        /// Its place in the input.
        range: Range<usize>,
        /// Whether it is a text message.
        text: bool,
        /// Whether the message ends with it.
        end: bool,
    },
    /// A Ping; its payload is [`Receiver::control`].
    Ping,
    /// A Pong; its payload is [`Receiver::control`].
    Pong,
    /// The peer closes, with this code if it gave one. Nothing after it is looked at.
    Close(Option<CloseCode>),
}

/// The receiving half of one WebSocket.
///
/// `head_len <= HEAD_BYTES_MAX`, and a head is kept only while it is cut. Payload is never kept, but
/// for that of a control frame (at most 125 bytes).
#[derive(Debug)]
pub struct Receiver {
    role: Role,
    limits: ReceiverLimits,
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    frame: Option<Frame>,
    message: Option<Message>,
    control: Vec<u8>,
    over: bool,
}

/// The frame whose payload is being received.
#[derive(Clone, Copy, Debug)]
struct Frame {
    head: Head,
    taken: u64,
}

/// The message whose fragments are being received.
#[derive(Clone, Copy, Debug)]
struct Message {
    text: bool,
    bytes: u64,
    fragments: u32,
    utf8: Utf8,
}

impl Receiver {
    /// The state behind an upgrade.
    pub fn new(role: Role, limits: ReceiverLimits) -> Receiver {
        Receiver {
            role,
            limits,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            over: false,
        }
    }

    /// The payload of the control frame that the last event told of.
    pub fn control(&self) -> &[u8] {
        &self.control
    }

    /// Takes bytes from `input`, unmasking them in place: how many, and what they bring. Without an
    /// event everything was taken.
    ///
    /// # Errors
    /// What the peer may not do; the connection is to be closed with the code of it.
    pub fn next(&mut self, input: &mut [u8]) -> Result<(usize, Option<Event>), Violation> {
        let mut at = 0;
        if self.over {
            return Ok((input.len(), None));
        }
        let frame = match self.frame {
            Some(frame) => frame,
            None => {
                let Some((head, taken)) = self.take_head(input)? else {
                    return Ok((input.len(), None));
                };
                at = taken;
                self.admit(&head)?;
                Frame { head, taken: 0 }
            }
        };
        let left = frame.head.payload_len - frame.taken;
        let here =
            usize::try_from(left).map_or(input.len() - at, |left| left.min(input.len() - at));
        let range = at..at + here;
        if let Some(key) = frame.head.mask {
            unmask(&mut input[range.clone()], key, (frame.taken % 4) as usize);
        }
        let taken = frame.taken + here as u64;
        let whole = taken == frame.head.payload_len;
        self.frame = (!whole).then_some(Frame {
            head: frame.head,
            taken,
        });
        let event = if frame.head.opcode.is_control() {
            self.control.extend_from_slice(&input[range.clone()]);
            whole
                .then(|| self.controlled(frame.head.opcode))
                .transpose()?
        } else {
            self.data(input, range.clone(), whole && frame.head.fin)?
        };
        Ok((range.end, event))
    }

    /// The head at the start of `input`, behind what is kept of it.
    fn take_head(&mut self, input: &[u8]) -> Result<Option<(Head, usize)>, Violation> {
        if self.head_len == 0
            && let Some(found) = Head::read(input)?
        {
            return Ok(Some(found));
        }
        let kept = usize::from(self.head_len);
        let more = input.len().min(HEAD_BYTES_MAX - kept);
        self.head[kept..kept + more].copy_from_slice(&input[..more]);
        match Head::read(&self.head[..kept + more])? {
            Some((head, len)) => {
                self.head_len = 0;
                Ok(Some((head, len - kept)))
            }
            None => {
                // A head that is not whole is shorter than the longest, so all of it fits.
                self.head_len = (kept + more) as u8;
                Ok(None)
            }
        }
    }

    /// Whether a frame may come now.
    fn admit(&mut self, head: &Head) -> Result<(), Violation> {
        if head.mask.is_some() != (self.role == Role::Server) {
            return Err(Violation::Masking);
        }
        if head.opcode.is_control() {
            self.control.clear();
            return Ok(());
        }
        match (&mut self.message, head.opcode) {
            (None, Opcode::Continuation) => return Err(Violation::StrayContinuation),
            (Some(_), Opcode::Text | Opcode::Binary) => return Err(Violation::Interleaved),
            (message, opcode) => {
                let message = message.get_or_insert(Message {
                    text: opcode == Opcode::Text,
                    bytes: 0,
                    fragments: 0,
                    utf8: Utf8::default(),
                });
                message.bytes = message.bytes.saturating_add(head.payload_len);
                message.fragments += 1;
                if head.payload_len > self.limits.frame_bytes
                    || message.bytes > self.limits.message_bytes
                {
                    return Err(Violation::TooBig);
                }
                if message.fragments > self.limits.fragments {
                    return Err(Violation::Fragments);
                }
            }
        }
        Ok(())
    }

    fn data(
        &mut self,
        input: &[u8],
        range: Range<usize>,
        end: bool,
    ) -> Result<Option<Event>, Violation> {
        let Some(message) = &mut self.message else {
            return Ok(None);
        };
        let text = message.text;
        // Text is refused at the first byte that cannot be UTF-8.
        if text && !(message.utf8.push(&input[range.clone()]) && (!end || message.utf8.is_whole()))
        {
            return Err(Violation::NotUtf8);
        }
        if end {
            self.message = None;
        }
        Ok((end || !range.is_empty()).then_some(Event::Data { range, text, end }))
    }

    fn controlled(&mut self, opcode: Opcode) -> Result<Event, Violation> {
        match opcode {
            Opcode::Ping => return Ok(Event::Ping),
            Opcode::Close => {}
            Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                return Ok(Event::Pong);
            }
        }
        self.over = true;
        match &self.control[..] {
            [] => Ok(Event::Close(None)),
            [_] => Err(Violation::CloseCode),
            [high, low, reason @ ..] => {
                let code = CloseCode::new(u16::from_be_bytes([*high, *low]));
                let code = code.ok_or(Violation::CloseCode)?;
                if simdutf8::basic::from_utf8(reason).is_err() {
                    return Err(Violation::NotUtf8);
                }
                Ok(Event::Close(Some(code)))
            }
        }
    }
}
