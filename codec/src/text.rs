//! UTF-8 Encoded Strings. MQTT 5, 1.5.4; MQTT 3.1.1, 1.5.3.

use crate::error::Malformed;

/// The string in `bytes`. A leading U+FEFF stays what it is: [MQTT-1.5.4-3], [MQTT3-1.5.3-3].
///
/// # Errors
/// Not UTF-8, or a U+0000.
#[inline]
pub(crate) fn check<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, Malformed> {
    let text = utf8(bytes, field)?;
    // [MQTT-1.5.4-2] [MQTT3-1.5.3-2]
    if memchr::memchr(0, bytes).is_some() {
        return Err(Malformed::Nul { field });
    }
    Ok(text)
}

/// The string in `bytes`, which may still contain U+0000.
///
/// # Errors
/// Not UTF-8.
#[inline]
pub(crate) fn utf8<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, Malformed> {
    // [MQTT-1.5.4-1] [MQTT3-1.5.3-1] Surrogates and overlong forms are not UTF-8.
    simdutf8::basic::from_utf8(bytes).map_err(|_| Malformed::NotUtf8 { field })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ill_formed_strings_are_refused() {
        // [MQTT-1.5.4-1] [MQTT3-1.5.3-1]
        for bytes in [
            &b"a\xED\xA0\x80"[..], // U+D800, first surrogate.
            b"\xED\xBF\xBF",       // U+DFFF, last surrogate.
            b"\xC0\x80",           // Overlong U+0000.
            b"\xC1\xBF",           // Overlong U+007F.
            b"\xE0\x80\xAF",       // Overlong '/'.
            b"\xF0\x80\x80\xAF",   // Overlong '/'.
            b"\xF4\x90\x80\x80",   // Above U+10FFFF.
            b"\x80",
            b"\xFF",
            b"\xC3", // Cut inside a character.
        ] {
            assert_eq!(
                check(bytes, "x"),
                Err(Malformed::NotUtf8 { field: "x" }),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn the_null_character_is_refused() {
        // [MQTT-1.5.4-2] [MQTT3-1.5.3-2]
        for bytes in [
            &b"\0"[..],
            b"a\0",
            b"\0a",
            b"a long string, longer than a vector: \0",
        ] {
            assert_eq!(check(bytes, "x"), Err(Malformed::Nul { field: "x" }));
        }
    }

    #[test]
    fn other_characters_are_kept_as_they_are() {
        // [MQTT-1.5.4-3] [MQTT3-1.5.3-3] U+FEFF is not stripped.
        assert_eq!(check(b"\xEF\xBB\xBFa", "x"), Ok("\u{FEFF}a"));
        // Control characters and non-characters are left to the receiver.
        for text in [
            "",
            "\u{1}",
            "\u{1F}",
            "\u{7F}",
            "\u{9F}",
            "\u{FFFE}",
            "\u{2A6D4}",
        ] {
            assert_eq!(check(text.as_bytes(), "x"), Ok(text));
        }
    }
}
