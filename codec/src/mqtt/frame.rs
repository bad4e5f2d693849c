//! Where a packet ends: the fixed header. MQTT 5, 2.1; MQTT 3.1.1, 2.2.

use crate::error::DecodeError;
use crate::varint;

/// One whole packet in a read buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// First byte: packet type and flags.
    pub first: u8,
    /// Everything behind the fixed header.
    pub body: &'a [u8],
    /// The whole packet, fixed header included.
    pub bytes: &'a [u8],
}

impl Frame<'_> {
    /// Type of the packet; `None` for the reserved type 0.
    #[inline]
    pub const fn packet_type(&self) -> Option<PacketType> {
        PacketType::from_first_byte(self.first)
    }

    /// Bits 3-0 of the first byte.
    #[inline]
    pub(crate) const fn flags(&self) -> u8 {
        self.first & 0x0F
    }
}

/// Splits the first packet off `input`. `None` means that it is not all there yet.
///
/// `maximum_packet_size` is in bytes and counts the fixed header. The size is judged from the
/// fixed header alone, so a packet that is too large is refused before its body arrives.
///
/// # Errors
/// The Remaining Length is longer than four bytes or not in its shortest form, or the packet is
/// larger than `maximum_packet_size`.
#[inline]
pub fn split_frame(
    input: &[u8],
    maximum_packet_size: u32,
) -> Result<Option<Frame<'_>>, DecodeError> {
    let [first, behind @ ..] = input else {
        return Ok(None);
    };
    let Some((remaining, length_bytes)) = varint::read(behind, "Remaining Length")? else {
        return Ok(None);
    };
    let header = 1 + length_bytes;
    // At most 5 + 2^28 - 1, far from overflow; the cast back is lossless too.
    let packet_size = remaining + header as u32;
    if packet_size > maximum_packet_size {
        return Err(DecodeError::TooLarge {
            packet_size,
            maximum: maximum_packet_size,
        });
    }
    let Some(bytes) = input.get(..packet_size as usize) else {
        return Ok(None);
    };
    Ok(Some(Frame {
        first: *first,
        body: &bytes[header..],
        bytes,
    }))
}

/// Longest fixed header: a byte and a Remaining Length of four. MQTT 5, 2.1.4.
pub const FIXED_HEADER_MAX: usize = 5;

/// Bytes of the packet that begins with `input`, by its fixed header, which is counted. `None` while
/// that is not all there, or if it is malformed.
#[inline]
pub fn packet_len(input: &[u8]) -> Option<usize> {
    let (remaining, length_bytes) = varint::read(input.get(1..)?, "Remaining Length").ok()??;
    Some(1 + length_bytes + remaining as usize)
}

/// Type of a packet. MQTT 5, 2.1.2.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum PacketType {
    /// Connection request.
    Connect = 1,
    /// Connect acknowledgement.
    ConnAck = 2,
    /// Publish message.
    Publish = 3,
    /// Publish acknowledgement (QoS 1).
    PubAck = 4,
    /// Publish received (QoS 2, first answer).
    PubRec = 5,
    /// Publish release (QoS 2, second request).
    PubRel = 6,
    /// Publish complete (QoS 2, second answer).
    PubComp = 7,
    /// Subscribe request.
    Subscribe = 8,
    /// Subscribe acknowledgement.
    SubAck = 9,
    /// Unsubscribe request.
    Unsubscribe = 10,
    /// Unsubscribe acknowledgement.
    UnsubAck = 11,
    /// Ping request.
    PingReq = 12,
    /// Ping response.
    PingResp = 13,
    /// Disconnect notification.
    Disconnect = 14,
    /// Authentication exchange, MQTT 5 only.
    Auth = 15,
}

impl PacketType {
    /// Type in the high four bits of a packet's first byte; `None` for the reserved type 0.
    #[inline]
    pub const fn from_first_byte(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// Name in the specification's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }

    /// First byte of such a packet with its listed flags; flags of a PUBLISH are its own.
    #[inline]
    pub(crate) const fn first_byte(self) -> u8 {
        let flags = match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Malformed;

    #[test]
    fn the_packet_ends_where_its_header_says() {
        let input = [0xC0, 0x00, 0x30, 0x03, 0, 1, b'a', 0xD0];
        let frame = split_frame(&input, 100).unwrap().unwrap();
        assert_eq!(
            frame,
            Frame {
                first: 0xC0,
                body: &[],
                bytes: &input[..2]
            }
        );
        assert_eq!(frame.packet_type(), Some(PacketType::PingReq));
        let frame = split_frame(&input[2..], 100).unwrap().unwrap();
        assert_eq!(
            frame,
            Frame {
                first: 0x30,
                body: &input[4..7],
                bytes: &input[2..7]
            }
        );
    }

    #[test]
    fn t_frm_2_too_large_is_known_from_the_header_alone() {
        let error = DecodeError::TooLarge {
            packet_size: 268_435_460,
            maximum: 1024,
        };
        assert_eq!(
            split_frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], 1024),
            Err(error)
        );
        assert_eq!(error.reason_code().get(), 0x95);
        // The limit counts the fixed header.
        assert_eq!(split_frame(&[0x30, 0x0A], 12), Ok(None));
        let error = DecodeError::TooLarge {
            packet_size: 12,
            maximum: 11,
        };
        assert_eq!(split_frame(&[0x30, 0x0A], 11), Err(error));
    }

    #[test]
    fn t_frm_3_an_endless_or_padded_length_is_refused() {
        // [MQTT-1.5.5-1]
        let field = "Remaining Length";
        let endless = Malformed::VariableByteIntegerTooLong { field };
        let input = [0x30, 0x80, 0x80, 0x80, 0x80];
        assert_eq!(split_frame(&input, u32::MAX), Err(endless.into()));
        assert_eq!(split_frame(&input[..4], u32::MAX), Ok(None));
        let padded = Malformed::VariableByteIntegerNotMinimal { field };
        assert_eq!(
            split_frame(&[0xC0, 0x80, 0x00], u32::MAX),
            Err(padded.into())
        );
    }

    #[test]
    fn t_frm_6_any_prefix_is_incomplete() {
        let mut input = vec![0x30, 0x80, 0x01];
        input.resize(3 + 128, 7);
        for cut in 0..input.len() {
            assert_eq!(split_frame(&input[..cut], 1024), Ok(None));
        }
        assert_eq!(split_frame(&input, 1024).unwrap().unwrap().body, [7; 128]);
    }

    #[test]
    fn every_type_but_zero_has_a_name() {
        assert_eq!(PacketType::from_first_byte(0x0F), None);
        for first in 1..=15u8 {
            let packet_type = PacketType::from_first_byte(first << 4).unwrap();
            assert_eq!(packet_type as u8, first);
            assert_eq!(packet_type.first_byte() >> 4, first);
            assert_eq!(packet_type.name(), packet_type.name().to_uppercase());
        }
    }
}
