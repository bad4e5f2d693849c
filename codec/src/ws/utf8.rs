//! UTF-8 that comes in pieces: a character may be cut anywhere.

/// The bytes of a character that is not whole yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8 {
    tail: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Whether `bytes`, behind all that came before, can still become UTF-8.
    #[must_use]
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((&first, rest)) = bytes.split_first() else {
                return true;
            };
            bytes = rest;
            // Four bytes are always a character or an error, so there is room.
            self.tail[usize::from(self.len)] = first;
            self.len += 1;
            match std::str::from_utf8(&self.tail[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match simdutf8::compat::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let cut = &bytes[error.valid_up_to()..];
                self.tail[..cut.len()].copy_from_slice(cut);
                self.len = cut.len() as u8;
                true
            }
        }
    }

    /// Whether no character is cut.
    pub(crate) fn is_whole(self) -> bool {
        self.len == 0
    }
}
