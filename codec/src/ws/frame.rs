//! Heads of frames and the mask. RFC 6455, 5.

use crate::ws::close::Violation;

/// Bytes of the longest head.
pub const HEAD_BYTES_MAX: usize = 14;

/// Payload of the longest control frame.
pub(crate) const CONTROL_BYTES_MAX: u64 = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opcode {
    /// More of the message before.
    Continuation,
    /// A message in UTF-8.
    Text,
    /// A message of any bytes.
    Binary,
    /// The end.
    Close,
    /// Asks for a Pong with the same payload.
    Ping,
    /// Answers a Ping, or nothing at all.
    Pong,
}

impl Opcode {
    const fn read(bits: u8) -> Result<Opcode, Violation> {
        Ok(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode(bits)),
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Whether it may stand between the fragments of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// The key of a masked payload.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload, below 2^63.
    pub payload_len: u64,
}

impl Head {
    /// The head at the start of `input` and its bytes; `None` while it is not all there. Whatever is
    /// wrong is told by the first byte that shows it.
    ///
    /// # Errors
    /// What no frame may have, whoever sends it.
    pub fn read(input: &[u8]) -> Result<Option<(Head, usize)>, Violation> {
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode = Opcode::read(first & 0x0F)?;
        if opcode.is_control() && !fin {
            return Err(Violation::FragmentedControl);
        }
        let Some(&second) = input.get(1) else {
            return Ok(None);
        };
        let short = second & 0x7F;
        if opcode.is_control() && u64::from(short) > CONTROL_BYTES_MAX {
            return Err(Violation::LongControl);
        }
        let (payload_len, at) = match short {
            126 => {
                let Some(&bytes) = input.get(2..).and_then(|rest| rest.first_chunk()) else {
                    return Ok(None);
                };
                let len = u64::from(u16::from_be_bytes(bytes));
                if len < 126 {
                    return Err(Violation::Length);
                }
                (len, 4)
            }
            127 => {
                let Some(&bytes) = input.get(2..).and_then(|rest| rest.first_chunk()) else {
                    return Ok(None);
                };
                let len = u64::from_be_bytes(bytes);
                if len <= u64::from(u16::MAX) || len >> 63 != 0 {
                    return Err(Violation::Length);
                }
                (len, 10)
            }
            short => (u64::from(short), 2),
        };
        let mut head = Head {
            fin,
            opcode,
            mask: None,
            payload_len,
        };
        if second & 0x80 == 0 {
            return Ok(Some((head, at)));
        }
        let Some(&mask) = input.get(at..).and_then(|rest| rest.first_chunk()) else {
            return Ok(None);
        };
        head.mask = Some(mask);
        Ok(Some((head, at + 4)))
    }

    /// Appends the head; the payload follows, masked by whoever writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(if self.fin { 0x80 } else { 0 } | self.opcode.bits());
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        match self.payload_len {
            len @ 0..126 => out.push(masked | len as u8),
            len @ 126..0x1_0000 => {
                out.push(masked | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(masked | 127);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
        if let Some(mask) = self.mask {
            out.extend_from_slice(&mask);
        }
    }
}

/// Appends a server's whole frame.
pub fn put_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let head = Head {
        fin: true,
        opcode,
        mask: None,
        payload_len: payload.len() as u64,
    };
    head.write(out);
    out.extend_from_slice(payload);
}

/// Masks or unmasks in place: `bytes` begin `offset` bytes into the payload. 8 bytes at a time,
/// which compilers widen further.
#[inline]
pub fn unmask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}
