//! Why a WebSocket ends. RFC 6455, 7.4.

use thiserror::Error;

use crate::ws::frame::{Opcode, put_frame};

/// A status code of a Close frame.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server goes down.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// A kind of message that is not taken here.
    pub const UNSUPPORTED_DATA: CloseCode = CloseCode(1003);
    /// Text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// Against the rules of this server.
    pub const POLICY_VIOLATION: CloseCode = CloseCode(1008);
    /// Too large.
    pub const MESSAGE_TOO_BIG: CloseCode = CloseCode(1009);
    /// A fault of the server.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// Come back later.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// The code, if it may stand in a frame: not those that are reserved or only for local use.
    pub const fn new(code: u16) -> Option<CloseCode> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(code)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What a peer did that a WebSocket forbids, or that is over a limit. Display says what was
/// expected, without content.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Violation {
    /// A client's frame without mask, or a server's with one.
    #[error("a frame is masked by the wrong side; clients mask, servers do not")]
    Masking,
    /// Reserved bits are set, and no extension was agreed on.
    #[error("reserved bits are set; expected none without an extension")]
    ReservedBits,
    /// An opcode without meaning.
    #[error("opcode {0:#x} is reserved")]
    ReservedOpcode(u8),
    /// A control frame that is not final.
    #[error("a control frame is fragmented; expected one frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("a control frame has more than 125 bytes of payload")]
    LongControl,
    /// A length that could have been written shorter, or that has its highest bit set.
    #[error("a payload length is not in its shortest form")]
    Length,
    /// A continuation without a message.
    #[error("a continuation frame without a message to continue")]
    StrayContinuation,
    /// A new message before the last one ended.
    #[error("a new message began inside another one; expected a continuation frame")]
    Interleaved,
    /// A Close frame with half a code, or a code that may not be sent.
    #[error("a close frame has no valid status code")]
    CloseCode,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A frame or message over its limit.
    #[error("a message or frame is over its limit")]
    TooBig,
    /// More fragments than a message may have.
    #[error("a message has too many fragments")]
    Fragments,
}

impl Violation {
    /// What the peer is told.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Violation::Masking
            | Violation::ReservedBits
            | Violation::ReservedOpcode(_)
            | Violation::FragmentedControl
            | Violation::LongControl
            | Violation::Length
            | Violation::StrayContinuation
            | Violation::Interleaved
            | Violation::CloseCode => CloseCode::PROTOCOL_ERROR,
            Violation::NotUtf8 => CloseCode::INVALID_PAYLOAD,
            Violation::TooBig => CloseCode::MESSAGE_TOO_BIG,
            Violation::Fragments => CloseCode::POLICY_VIOLATION,
        }
    }
}

/// Appends a server's Close frame; without a code it has no payload.
pub fn put_close(code: Option<CloseCode>, out: &mut Vec<u8>) {
    match code {
        Some(code) => put_frame(Opcode::Close, &code.get().to_be_bytes(), out),
        None => put_frame(Opcode::Close, &[], out),
    }
}
