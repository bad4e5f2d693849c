//! Content-Formats and the content types that they are (RFC 7252, 12.3, and the registry of IANA).

/// Numbers and names; where one name has two numbers the first is written.
const FORMATS: [(u16, &str); 24] = [
    (0, "text/plain;charset=utf-8"),
    (0, "text/plain"),
    (40, "application/link-format"),
    (41, "application/xml"),
    (42, "application/octet-stream"),
    (47, "application/exi"),
    (50, "application/json"),
    (51, "application/json-patch+json"),
    (52, "application/merge-patch+json"),
    (60, "application/cbor"),
    (61, "application/cwt"),
    (62, "application/multipart-core"),
    (63, "application/cbor-seq"),
    (101, "application/cose-key"),
    (110, "application/senml+json"),
    (111, "application/sensml+json"),
    (112, "application/senml+cbor"),
    (113, "application/sensml+cbor"),
    (114, "application/senml-exi"),
    (310, "application/senml+xml"),
    (311, "application/sensml+xml"),
    (432, "application/td+json"),
    (10000, "application/vnd.ocf+cbor"),
    (11542, "application/vnd.oma.lwm2m+tlv"),
];

/// text/plain in UTF-8.
pub(super) const TEXT: u16 = 0;

/// The number of application/link-format.
pub(super) const LINKS: u16 = 40;

/// The content type that a number stands for.
pub(super) fn name(number: u16) -> Option<&'static str> {
    let found = FORMATS.iter().find(|(known, _)| *known == number);
    found.map(|(_, name)| *name)
}

/// The number of a content type, parameters but for the charset of text aside.
pub(super) fn number(name: &str) -> Option<u16> {
    let plain = |text: &str| text.replace(' ', "").to_ascii_lowercase();
    let (whole, essence) = (plain(name), plain(name.split(';').next().unwrap_or("")));
    let find = |wanted: &str| FORMATS.iter().find(|(_, known)| *known == wanted);
    find(&whole)
        .or_else(|| find(&essence))
        .map(|(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_content_types_are_found_from_each_other() {
        for (number_of, name_of) in FORMATS {
            assert_eq!(number(name_of), Some(number_of));
            assert!(name(number_of).is_some());
        }
        assert_eq!(number("text/plain; charset=UTF-8"), Some(0));
        assert_eq!(number("application/json; a=b"), Some(50));
        assert_eq!(number("x/y"), None);
        assert_eq!(name(9999), None);
    }
}
