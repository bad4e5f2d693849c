//! User Properties: names and values that a packet carries in order. MQTT 5, 3.3.2.3.7.

use std::fmt;

use super::property::{Property, id};
use super::put;
use crate::cursor::Cursor;
use crate::error::{DecodeError, ProtocolError};

/// The User Properties of one packet, borrowed from it and already checked.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// Whole properties, from the first to the last User Property; others may lie between.
    block: &'a [u8],
    marked: Marked,
}

impl<'a> UserProperties<'a> {
    /// Reads a block of encoded User Properties, as [`UserProperties::put`] appends them.
    ///
    /// # Errors
    /// The block is malformed or contains another property.
    pub fn parse(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(block);
        let mut marked = Marked::default();
        while !cursor.is_empty() {
            let start = block.len() - cursor.rest().len();
            let (id, _) = Property::read(&mut cursor)?;
            if id != id::USER_PROPERTY {
                let (property, packet) = ("another property", "a block of User Properties");
                return Err(ProtocolError::PropertyNotAllowed { property, packet }.into());
            }
            marked.mark(start, block.len() - cursor.rest().len());
        }
        Ok(Self::marked(block, marked))
    }

    pub(crate) fn marked(whole: &'a [u8], marked: Marked) -> Self {
        Self {
            block: marked.of(whole),
            marked,
        }
    }

    /// Appends one encoded User Property.
    ///
    /// # Panics
    /// The name or the value is longer than 65 535 bytes.
    pub fn put(out: &mut Vec<u8>, name: &str, value: &str) {
        out.push(id::USER_PROPERTY);
        put::text(out, name);
        put::text(out, value);
    }

    /// Names and values in the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        walk(self.block).filter_map(|property| match property {
            Property::User(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.marked.count == 0
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.marked.count as usize
    }

    /// Bytes they take in a packet, identifiers and lengths included.
    pub const fn len_bytes(&self) -> usize {
        self.marked.bytes as usize
    }

    /// Appends them as they are in the packet.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        if self.block.len() == self.len_bytes() {
            out.extend_from_slice(self.block);
            return;
        }
        for (name, value) in self.iter() {
            Self::put(out, name, value);
        }
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Where the properties of one kind lie among all properties of a packet.
#[derive(Clone, Copy, Default)]
pub(crate) struct Marked {
    start: u32,
    end: u32,
    /// Bytes of the marked properties alone, at most `end - start`.
    bytes: u32,
    pub(crate) count: u32,
}

impl Marked {
    /// Adds the property between two offsets; a packet has less than 2^28 bytes.
    pub(crate) fn mark(&mut self, start: usize, end: usize) {
        if self.count == 0 {
            self.start = start as u32;
        }
        self.end = end as u32;
        self.bytes += (end - start) as u32;
        self.count += 1;
    }

    /// The bytes from the first to the last marked property.
    pub(crate) fn of(self, whole: &[u8]) -> &[u8] {
        whole
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// The properties of a block that was checked before.
pub(crate) fn walk(block: &[u8]) -> impl Iterator<Item = Property<'_>> {
    let mut cursor = Cursor::new(block);
    std::iter::from_fn(move || {
        if cursor.is_empty() {
            return None;
        }
        Property::read(&mut cursor)
            .ok()
            .map(|(_, property)| property)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{Packet, ProtocolVersion, decode, split_frame};

    #[test]
    fn t_frm_11_ten_thousand_are_read_in_one_pass_and_can_be_limited() {
        let mut block = Vec::new();
        for number in 0..10_000 {
            UserProperties::put(&mut block, "name", &number.to_string());
        }
        let mut packet = vec![0x30];
        crate::mqtt::put::prefixed(&mut packet, |out| {
            crate::mqtt::put::text(out, "t");
            crate::mqtt::put::prefixed(out, |out| out.extend_from_slice(&block));
        });
        let frame = split_frame(&packet, u32::MAX).unwrap().expect("whole");
        let Ok(Packet::Publish(publish)) = decode(&frame, ProtocolVersion::V5) else {
            panic!()
        };
        let user_properties = publish.properties.user_properties;
        // What a limit is compared with costs nothing.
        assert_eq!(
            (user_properties.count(), user_properties.len_bytes()),
            (10_000, block.len())
        );
        // [MQTT-3.3.2-17] [MQTT-3.3.2-18] They are handed on as one block.
        let mut forwarded = Vec::new();
        publish.properties.forwarded_into(&mut forwarded);
        assert_eq!(forwarded, block);
    }

    #[test]
    fn a_block_of_other_properties_is_refused() {
        let mut block = Vec::new();
        UserProperties::put(&mut block, "", "");
        assert_eq!(
            UserProperties::parse(&block).map(|user| user.count()),
            Ok(1)
        );
        assert!(UserProperties::parse(&[0x01, 0x01]).is_err());
        assert!(UserProperties::parse(&block[..4]).is_err());
        assert!(UserProperties::parse(&[]).is_ok_and(|user| user.is_empty()));
    }
}
