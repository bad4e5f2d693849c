//! Variable Byte Integers. MQTT 5, 1.5.5.

use crate::error::Malformed;

/// Largest value, 268 435 455.
pub(crate) const MAXIMUM: u32 = 0x0FFF_FFFF;

/// Reads a value from the start of `input`: the value and the bytes it took, at most 4.
/// `Ok(None)` means that more bytes are needed.
///
/// # Errors
/// More than four bytes, or more bytes than the value needs.
#[inline]
pub(crate) fn read(input: &[u8], field: &'static str) -> Result<Option<(u32, usize)>, Malformed> {
    match input {
        [] => Ok(None),
        [byte, ..] if *byte < 0x80 => Ok(Some((u32::from(*byte), 1))),
        [low, high @ 1..0x80, ..] => Ok(Some((u32::from(*low & 0x7F) | u32::from(*high) << 7, 2))),
        _ => read_long(input, field),
    }
}

fn read_long(input: &[u8], field: &'static str) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (index, byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1] A last byte of 0 adds nothing to the value.
            if *byte == 0 {
                return Err(Malformed::VariableByteIntegerNotMinimal { field });
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() >= 4 {
        // [MQTT-1.5.5-1]
        return Err(Malformed::VariableByteIntegerTooLong { field });
    }
    Ok(None)
}

/// Bytes that `value` takes, 1 to 4.
#[inline]
pub(crate) const fn len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Appends `value` in its shortest form.
///
/// # Panics
/// `value` is larger than [`MAXIMUM`]; nothing that was decoded or fits a packet is.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, value: u32) {
    let (bytes, length) = encoded(value);
    out.extend_from_slice(&bytes[..length]);
}

/// Puts the number of bytes behind `start` in front of them.
pub(crate) fn put_length_at(out: &mut Vec<u8>, start: usize) {
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    let (bytes, count) = encoded(length);
    out.splice(start..start, bytes[..count].iter().copied());
}

#[inline]
fn encoded(mut value: u32) -> ([u8; 4], usize) {
    assert!(value <= MAXIMUM, "a variable byte integer holds 28 bits");
    let mut bytes = [0; 4];
    let length = len(value);
    for (index, byte) in bytes[..length].iter_mut().enumerate() {
        let more = if index + 1 < length { 0x80 } else { 0 };
        // The mask makes the cast lossless.
        *byte = (value & 0x7F) as u8 | more;
        value >>= 7;
    }
    (bytes, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_take_the_bytes_of_the_specification() {
        // [MQTT-1.5.5-1] MQTT 5, table 1-1.
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (MAXIMUM, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(len(value), bytes.len());
            assert_eq!(read(bytes, "x"), Ok(Some((value, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut], "x"), Ok(None));
            }
        }
    }

    #[test]
    fn longer_than_needed_is_refused() {
        // [MQTT-1.5.5-1]
        let not_minimal = Err(Malformed::VariableByteIntegerNotMinimal { field: "x" });
        assert_eq!(read(&[0x80, 0x00], "x"), not_minimal);
        assert_eq!(read(&[0xFF, 0x00], "x"), not_minimal);
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x00], "x"), not_minimal);
    }

    #[test]
    fn the_fourth_byte_may_not_announce_a_fifth() {
        // [MQTT-1.5.5-1]
        let too_long = Err(Malformed::VariableByteIntegerTooLong { field: "x" });
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80], "x"), too_long);
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0xFF, 0x01], "x"), too_long);
        assert_eq!(read(&[0x80, 0x80, 0x80], "x"), Ok(None));
    }
}
