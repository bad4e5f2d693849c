//! The PROXY protocol: a proxy in front says whom it stands for. Versions 1 and 2, as published
//! by its authors (haproxy.org, proxy-protocol.txt).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the longest header that is read: the fixed part and addresses of version 2 with room
/// for extensions, which are skipped.
pub(crate) const HEADER_MAX: usize = 16 + 2048;

/// The longest line of version 1.
const LINE_MAX: usize = 107;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a header said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    /// Who is behind the proxy; `None` where the proxy speaks for itself, or knows nobody.
    pub(crate) source: Option<IpAddr>,
    /// Bytes of the header.
    pub(crate) len: usize,
}

/// The bytes are no PROXY header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoHeader;

/// Reads the header at the start of `input`; `None` while it is not all there.
///
/// # Errors
/// [`NoHeader`], from the first byte that cannot be part of one.
pub(crate) fn read(input: &[u8]) -> Result<Option<Header>, NoHeader> {
    let begins = |with: &[u8]| input.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        if input.len() < 16 {
            return Ok(None);
        }
        return version2(input);
    }
    if begins(b"PROXY ") {
        let seen = &input[..input.len().min(LINE_MAX)];
        let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
            return if input.len() >= LINE_MAX {
                Err(NoHeader)
            } else {
                Ok(None)
            };
        };
        let line = std::str::from_utf8(&input[..end]).map_err(|_| NoHeader)?;
        let source = version1(line).ok_or(NoHeader)?;
        return Ok(Some(Header {
            source,
            len: end + 2,
        }));
    }
    Err(NoHeader)
}

/// The source in a line; `None` if it is malformed.
fn version1(line: &str) -> Option<Option<IpAddr>> {
    let mut words = line.split(' ');
    words.next();
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let ports = (words.next()?, words.next()?);
    if words.next().is_some() || ports.0.parse::<u16>().is_err() || ports.1.parse::<u16>().is_err()
    {
        return None;
    }
    match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok().map(|ip| Some(ip.into()))
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            let source = source.parse::<Ipv6Addr>().ok()?;
            Some(Some(IpAddr::V6(source).to_canonical()))
        }
        _ => None,
    }
}

fn version2(input: &[u8]) -> Result<Option<Header>, NoHeader> {
    let addresses = usize::from(u16::from_be_bytes([input[14], input[15]]));
    let len = 16 + addresses;
    if input[12] >> 4 != 2 || len > HEADER_MAX {
        return Err(NoHeader);
    }
    let Some(body) = input.get(16..len) else {
        return Ok(None);
    };
    let source = match (input[12] & 0x0F, input[13]) {
        // LOCAL: the proxy's own, such as a check of health.
        (0, _) => None,
        (1, 0x11) => {
            let bytes = body.first_chunk::<4>().filter(|_| body.len() >= 12);
            Some(IpAddr::from(*bytes.ok_or(NoHeader)?))
        }
        (1, 0x21) => {
            let bytes = body.first_chunk::<16>().filter(|_| body.len() >= 36);
            Some(IpAddr::from(*bytes.ok_or(NoHeader)?).to_canonical())
        }
        // Other families have no address that is of use here.
        (1, _) => None,
        _ => return Err(NoHeader),
    };
    Ok(Some(Header { source, len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend_from_slice(&[0x20 | command, family]);
        out.extend_from_slice(&(body.len() as u16).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn both_versions_tell_the_source_and_leave_what_follows() {
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        let mut body6 = [0u8; 36];
        if let IpAddr::V6(ip) = v6 {
            body6[..16].copy_from_slice(&ip.octets());
        }
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0x07, 0x5B];
        let with_extension = [&four[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        for (bytes, source) in [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 1883\r\n".to_vec(),
                client,
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 12345 1883\r\n".to_vec(),
                Some(v6),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(1, 0x11, &four), client),
            (v2(1, 0x11, &with_extension), client),
            (v2(1, 0x21, &body6), Some(v6)),
            (v2(0, 0, &[]), None),
            (v2(1, 0x31, &[0; 216]), None),
        ] {
            let len = bytes.len();
            for end in 0..len {
                assert_eq!(read(&bytes[..end]), Ok(None), "{end} of {bytes:?}");
            }
            let followed = [&bytes[..], b"\x10\x00"].concat();
            assert_eq!(
                read(&followed),
                Ok(Some(Header { source, len })),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 120]].concat();
        for bytes in [
            &b"\x10\x0c"[..],
            b"GET / HTTP/1.1",
            b"\x16\x03\x01",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 99999\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n",
            &endless,
            &v2(1, 0x11, &[0; 4]),
            &v2(1, 0x21, &[0; 16]),
            &v2(2, 0x11, &[0; 12]),
            &[SIGNATURE, &[0x31, 0x11, 0, 12][..], &[0; 12]].concat(),
            &[SIGNATURE, &[0x21, 0x11, 0xFF, 0xFF][..]].concat(),
        ] {
            assert_eq!(read(bytes), Err(NoHeader), "{bytes:?}");
        }
    }
}
