//! Writing fields.

use super::{PacketId, PacketType};
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

/// Appends a PUBLISH up to the length of its topic, and reserves space for the rest: the topic and
/// `behind_topic` bytes.
///
/// # Panics
/// The topic is longer than 65 535 bytes, or the packet than 268 435 455.
#[inline(always)]
pub(crate) fn publish_start(out: &mut Vec<u8>, first: u8, topic: usize, behind_topic: usize) {
    let remaining = 2 + topic + behind_topic;
    out.reserve(FIXED_HEADER_MAX + remaining);
    let length = u16::try_from(topic).expect("a field holds at most 65535 bytes");
    let [high, low] = length.to_be_bytes();
    // Nearly all packets; the casts keep 7 bits each.
    if remaining < 0x80 {
        out.extend_from_slice(&[first, remaining as u8, high, low]);
    } else if remaining < 0x4000 {
        let (lower, upper) = (remaining as u8 | 0x80, (remaining >> 7) as u8);
        out.extend_from_slice(&[first, lower, upper, high, low]);
    } else {
        out.push(first);
        varint::put(out, wire(remaining));
        out.extend_from_slice(&[high, low]);
    }
}

/// Most bytes of a fixed header.
const FIXED_HEADER_MAX: usize = 5;

/// A length as it goes on the wire; one that does not fit is refused by `varint::put`.
#[inline]
pub(crate) fn wire(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Bytes that [`packet_id`] appends.
#[inline]
pub(crate) const fn packet_id_len(packet_id: Option<PacketId>) -> usize {
    if packet_id.is_some() { 2 } else { 0 }
}

#[inline]
pub(crate) fn packet_id(out: &mut Vec<u8>, packet_id: Option<PacketId>) {
    if let Some(packet_id) = packet_id {
        u16(out, packet_id.get());
    }
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
