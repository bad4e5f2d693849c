//! Reading fields from the front of a packet's bytes.

use crate::error::Malformed;
use crate::mqtt::{PacketId, ProtocolError};
use crate::{error::DecodeError, text, varint};

/// The bytes of a packet that are not read yet. Nothing reaches beyond them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `length` bytes.
    #[inline]
    pub(crate) fn bytes(
        &mut self,
        length: usize,
        field: &'static str,
    ) -> Result<&'a [u8], Malformed> {
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            let found = self.rest.len();
            return Err(Malformed::Truncated {
                field,
                expected: length,
                found,
            });
        };
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else {
            let found = self.rest.len();
            return Err(Malformed::Truncated {
                field,
                expected: N,
                found,
            });
        };
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// A Variable Byte Integer.
    #[inline]
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u32, Malformed> {
        let found = self.rest.len();
        let Some((value, length)) = varint::read(self.rest, field)? else {
            return Err(Malformed::Truncated {
                field,
                expected: found + 1,
                found,
            });
        };
        self.bytes(length, field)?;
        Ok(value)
    }

    /// Binary Data: two bytes of length and as many bytes. MQTT 5, 1.5.6.
    #[inline]
    pub(crate) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u16(field)?;
        self.bytes(usize::from(length), field)
    }

    /// A UTF-8 Encoded String. MQTT 5, 1.5.4.
    #[inline]
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, Malformed> {
        text::check(self.binary(field)?, field)
    }

    /// A non-zero Packet Identifier of `packet`. MQTT 5, 2.2.1.
    #[inline]
    pub(crate) fn packet_id(&mut self, packet: &'static str) -> Result<PacketId, DecodeError> {
        let id = self.u16("Packet Identifier")?;
        // [MQTT3-2.3.1-1] MQTT 5 demands the same of the client, 2.2.1.
        Ok(PacketId::new(id).ok_or(ProtocolError::PacketIdZero { packet })?)
    }

    /// Everything that is left.
    #[inline]
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// What is left, without taking it.
    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the reading of `packet`.
    ///
    /// # Errors
    /// Bytes are left over.
    #[inline]
    pub(crate) fn end(self, packet: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Malformed::TrailingBytes {
            packet,
            count: self.rest.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_never_reaches_beyond_the_bytes() {
        let mut cursor = Cursor::new(&[0, 3, b'a', b'b']);
        let error = Malformed::Truncated {
            field: "x",
            expected: 3,
            found: 2,
        };
        assert_eq!(cursor.binary("x"), Err(error));
        assert_eq!(
            error.to_string(),
            "x ends too early: 3 bytes expected, 2 left"
        );
        let mut cursor = Cursor::new(&[1]);
        let error = Malformed::Truncated {
            field: "x",
            expected: 2,
            found: 1,
        };
        assert_eq!(cursor.u16("x"), Err(error));
        let mut cursor = Cursor::new(&[0x80]);
        let error = Malformed::Truncated {
            field: "x",
            expected: 2,
            found: 1,
        };
        assert_eq!(cursor.varint("x"), Err(error));
    }

    #[test]
    fn bytes_left_over_are_counted() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        assert_eq!(cursor.u8("x"), Ok(1));
        assert_eq!(cursor.rest(), [2, 3]);
        let error = Malformed::TrailingBytes {
            packet: "PUBACK",
            count: 2,
        };
        assert_eq!(cursor.end("PUBACK"), Err(error));
    }

    #[test]
    fn packet_identifier_zero_is_refused() {
        // [MQTT3-2.3.1-1]
        let mut cursor = Cursor::new(&[0, 0, 0, 9]);
        let error = ProtocolError::PacketIdZero { packet: "PUBACK" }.into();
        assert_eq!(cursor.packet_id("PUBACK"), Err(error));
        assert_eq!(cursor.packet_id("PUBACK").map(PacketId::get), Ok(9));
    }
}
