//! Writing fields.

use super::PacketType;
use crate::varint;

/// Appends one packet whose body is written by `body`.
pub(crate) fn packet(out: &mut Vec<u8>, packet: PacketType, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(packet.first_byte());
    prefixed(out, body);
}

/// Appends what `write` writes behind its length as a Variable Byte Integer.
pub(crate) fn prefixed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    varint::put_length_at(out, start);
}

#[inline]
pub(crate) fn u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends Binary Data or a UTF-8 Encoded String with its two bytes of length.
///
/// # Panics
/// More than 65 535 bytes. Nothing that was decoded is longer, and what the broker writes itself
/// is bounded far below.
#[inline]
pub(crate) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len());
    out.extend_from_slice(bytes);
}

#[inline]
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    binary(out, text.as_bytes());
}

/// Appends the two bytes of length of a string or of Binary Data.
///
/// # Panics
/// As [`binary`].
#[inline]
pub(crate) fn length(out: &mut Vec<u8>, length: usize) {
    let length = u16::try_from(length).expect("a field holds at most 65535 bytes");
    u16(out, length);
}
