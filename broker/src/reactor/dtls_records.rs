//! What is looked at of a handshake before the library does: which kind it is, and whose (RFC 6347,
//! 4.1 and 4.2).

/// The type of a record that carries a handshake, and those of two messages.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// TLS_PSK_WITH_AES_128_CCM_8 (RFC 6655), the suite that RFC 7252 asks for.
const PSK_AES_128_CCM_8: [u8; 2] = [0xC0, 0xA8];

/// Whether a datagram holds a sealed part of a handshake: its Finished.
pub(crate) fn has_sealed_handshake(mut datagram: &[u8]) -> bool {
    while let Some((head, rest)) = datagram.split_first_chunk::<13>() {
        if head[0] == HANDSHAKE && head[3..5] != [0, 0] {
            return true;
        }
        let len = usize::from(u16::from_be_bytes([head[11], head[12]]));
        let Some((_, behind)) = rest.split_at_checked(len) else {
            return false;
        };
        datagram = behind;
    }
    false
}

/// The body of the first message of a type that is whole in its record, of those that are not
/// encrypted.
fn message(mut datagram: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (head, rest) = datagram.split_first_chunk::<13>()?;
        let len = usize::from(u16::from_be_bytes([head[11], head[12]]));
        let (record, behind) = rest.split_at_checked(len)?;
        datagram = behind;
        let plain = head[3..5] == [0, 0];
        if head[0] != HANDSHAKE || !plain {
            continue;
        }
        let mut messages = record;
        while let Some((head, rest)) = messages.split_first_chunk::<12>() {
            let number = |at: usize| u32::from_be_bytes([0, head[at], head[at + 1], head[at + 2]]);
            let (len, offset, here) = (number(1), number(6), number(9));
            let Some((body, behind)) = rest.split_at_checked(here as usize) else {
                break;
            };
            if head[0] == wanted && offset == 0 && here == len {
                return Some(body);
            }
            messages = behind;
        }
    }
}

/// Whether a ClientHello offers a pre-shared key; `None` where it is no ClientHello.
pub(crate) fn offers_psk(datagram: &[u8]) -> Option<bool> {
    let hello = message(datagram, CLIENT_HELLO)?;
    // Version and random, session id, cookie.
    let rest = hello.get(34..)?;
    let rest = skip(rest)?;
    let rest = skip(rest)?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let suites = rest.get(..usize::from(u16::from_be_bytes(*len)))?;
    Some(
        suites
            .chunks_exact(2)
            .any(|suite| suite == PSK_AES_128_CCM_8),
    )
}

/// Behind a vector whose length is one byte.
fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first()?;
    rest.get(usize::from(*len)..)
}

/// The identity in a ClientKeyExchange with a pre-shared key (RFC 4279, 2). (One of an exchange by
/// elliptic curves has another form: its length is one byte, and at least 32.)
pub(crate) fn identity_in(datagram: &[u8]) -> Option<&[u8]> {
    let exchange = message(datagram, CLIENT_KEY_EXCHANGE)?;
    let (len, identity) = exchange.split_first_chunk::<2>()?;
    (usize::from(u16::from_be_bytes(*len)) == identity.len()).then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = body.len() as u32;
        let mut record = vec![HANDSHAKE, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1];
        record.extend_from_slice(&(len as u16 + 12).to_be_bytes());
        record.push(kind);
        record.extend_from_slice(&len.to_be_bytes()[1..]);
        record.extend_from_slice(&[0, 1, 0, 0, 0]);
        record.extend_from_slice(&len.to_be_bytes()[1..]);
        record.extend_from_slice(body);
        record
    }

    #[test]
    fn hellos_and_identities_are_found_and_nothing_else() {
        let hello = |suites: &[u8]| {
            let mut body = vec![0; 34];
            body.extend_from_slice(&[1, 7, 2, 8, 8]);
            body.extend_from_slice(&(suites.len() as u16).to_be_bytes());
            body.extend_from_slice(suites);
            record(CLIENT_HELLO, &body)
        };
        assert_eq!(offers_psk(&hello(&[0xC0, 0x2B, 0xC0, 0xA8])), Some(true));
        assert_eq!(offers_psk(&hello(&[0xC0, 0x2B])), Some(false));
        assert_eq!(offers_psk(&record(CLIENT_KEY_EXCHANGE, &[0; 60])), None);
        assert_eq!(offers_psk(b"\x40\x01\x00\x01"), None);
        let exchange = record(CLIENT_KEY_EXCHANGE, b"\0\x03abc");
        assert_eq!(identity_in(&exchange), Some(&b"abc"[..]));
        let behind = [hello(&[0, 1]), exchange.clone()].concat();
        assert_eq!(identity_in(&behind), Some(&b"abc"[..]));
        assert_eq!(
            identity_in(&record(CLIENT_KEY_EXCHANGE, &[65; 66])),
            None,
            "a point"
        );
        for end in 0..exchange.len() {
            assert_eq!(identity_in(&exchange[..end]), None);
        }
        let mut encrypted = exchange;
        encrypted[4] = 1;
        assert_eq!(identity_in(&encrypted), None);
        assert!(has_sealed_handshake(&[behind, encrypted].concat()));
        assert!(!has_sealed_handshake(&hello(&[0, 1])));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_looked_at(bytes: Vec<u8>) {
            let with_head = [&[HANDSHAKE, 254, 253][..], &bytes].concat();
            for bytes in [&bytes, &with_head] {
                let _ = (offers_psk(bytes), identity_in(bytes), has_sealed_handshake(bytes));
            }
        }
    }
}
