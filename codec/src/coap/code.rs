//! Codes: methods and what is answered (RFC 7252, 12.1).

use std::fmt;

/// The code of a message: three bits of class, five of detail.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Code(u8);

impl Code {
    /// An empty message.
    pub const EMPTY: Code = Code(0);
    /// GET.
    pub const GET: Code = Code(1);
    /// POST.
    pub const POST: Code = Code(2);
    /// PUT.
    pub const PUT: Code = Code(3);
    /// DELETE.
    pub const DELETE: Code = Code(4);
    /// 2.01 Created.
    pub const CREATED: Code = Code::of(2, 1);
    /// 2.03 Valid.
    pub const VALID: Code = Code::of(2, 3);
    /// 2.04 Changed.
    pub const CHANGED: Code = Code::of(2, 4);
    /// 2.05 Content.
    pub const CONTENT: Code = Code::of(2, 5);
    /// 2.31 Continue (RFC 7959, 2.9.1).
    pub const CONTINUE: Code = Code::of(2, 31);
    /// 4.00 Bad Request.
    pub const BAD_REQUEST: Code = Code::of(4, 0);
    /// 4.01 Unauthorized.
    pub const UNAUTHORIZED: Code = Code::of(4, 1);
    /// 4.02 Bad Option.
    pub const BAD_OPTION: Code = Code::of(4, 2);
    /// 4.03 Forbidden.
    pub const FORBIDDEN: Code = Code::of(4, 3);
    /// 4.04 Not Found.
    pub const NOT_FOUND: Code = Code::of(4, 4);
    /// 4.05 Method Not Allowed.
    pub const METHOD_NOT_ALLOWED: Code = Code::of(4, 5);
    /// 4.06 Not Acceptable.
    pub const NOT_ACCEPTABLE: Code = Code::of(4, 6);
    /// 4.08 Request Entity Incomplete (RFC 7959, 2.9.2).
    pub const REQUEST_ENTITY_INCOMPLETE: Code = Code::of(4, 8);
    /// 4.13 Request Entity Too Large.
    pub const REQUEST_ENTITY_TOO_LARGE: Code = Code::of(4, 13);
    /// 4.29 Too Many Requests (RFC 8516).
    pub const TOO_MANY_REQUESTS: Code = Code::of(4, 29);
    /// 5.00 Internal Server Error.
    pub const INTERNAL_SERVER_ERROR: Code = Code::of(5, 0);
    /// 5.03 Service Unavailable.
    pub const SERVICE_UNAVAILABLE: Code = Code::of(5, 3);
    /// 5.05 Proxying Not Supported.
    pub const PROXYING_NOT_SUPPORTED: Code = Code::of(5, 5);

    const fn of(class: u8, detail: u8) -> Code {
        Code(class << 5 | detail)
    }

    /// The code in one byte of a header.
    pub const fn new(byte: u8) -> Code {
        Code(byte)
    }

    /// The byte of a header.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The first digit, 0 to 7.
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// Whether a message with it is a request.
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }

    /// Whether a message with it is an answer.
    pub const fn is_response(self) -> bool {
        matches!(self.class(), 2 | 4 | 5)
    }

    /// Whether it says that something was not done.
    pub const fn is_error(self) -> bool {
        self.class() >= 4
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.0 & 0x1f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_the_rfc_writes_them() {
        assert_eq!(Code::CONTENT.to_string(), "2.05");
        assert_eq!(Code::REQUEST_ENTITY_TOO_LARGE.to_string(), "4.13");
        assert_eq!(Code::CONTENT.get(), 69);
        assert!(Code::GET.is_request() && !Code::EMPTY.is_request());
        assert!(Code::SERVICE_UNAVAILABLE.is_response() && Code::SERVICE_UNAVAILABLE.is_error());
        assert!(!Code::new(0xE1).is_response() && !Code::new(0x20).is_request());
    }
}
