//! The value of Block1 and Block2 (RFC 7959, 2.2).

/// Which block of a body is meant, and whether more follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    /// Number of the block, below 2^20.
    pub number: u32,
    /// Whether more blocks follow.
    pub more: bool,
    /// Exponent of the block's size, 0 to 6: a block has 2^(4 + exponent) bytes.
    pub exponent: u8,
}

impl Block {
    /// The exponent of the largest block, 1024 bytes.
    pub const LARGEST: u8 = 6;

    /// Blocks are counted in 20 bits.
    const NUMBER_MAX: u32 = (1 << 20) - 1;

    /// Reads the option's value; `None` with the reserved exponent 7.
    pub fn new(value: u32) -> Option<Block> {
        let exponent = (value & 7) as u8;
        (exponent <= Block::LARGEST && value >> 4 <= Block::NUMBER_MAX).then_some(Block {
            number: value >> 4,
            more: value & 8 != 0,
            exponent,
        })
    }

    /// The option's value.
    pub fn value(self) -> u32 {
        self.number << 4 | u32::from(self.more) << 3 | u32::from(self.exponent)
    }

    /// Bytes of a whole block, 16 to 1024.
    pub fn size(self) -> usize {
        1 << (4 + self.exponent)
    }

    /// Where the block begins in its body.
    pub fn offset(self) -> usize {
        self.number as usize * self.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_values_are_read_as_they_are_written() {
        for value in [0, 8, 0x16, 0xFF_FFFE, 0x1E] {
            let block = Block::new(value).unwrap();
            assert_eq!(block.value(), value);
        }
        assert_eq!(Block::new(7), None, "reserved");
        assert_eq!(Block::new(1 << 24), None, "too many blocks");
        let block = Block::new(0x26).unwrap();
        assert_eq!(
            (block.size(), block.offset(), block.more),
            (1024, 2048, false)
        );
    }
}
