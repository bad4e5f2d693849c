//! What has to hold for any datagram; `tests/corpus.rs` replays the corpus with it.

use codec::coap::{Head, Message, OptionNumber, Writer};

/// Reads `input` as a message, and writes it again.
///
/// # Panics
/// A promise of the codec is broken.
pub(crate) fn check(input: &[u8]) {
    let Ok(message) = Message::parse(input) else {
        return;
    };
    let head = Head::read(input).expect("a message has a head");
    assert_eq!(
        (head.kind, head.code, head.id),
        (message.kind, message.code, message.id)
    );
    let mut again = Vec::new();
    let mut writer = Writer::new(
        &mut again,
        message.kind,
        message.code,
        message.id,
        message.token,
    );
    let mut last = OptionNumber(0);
    for option in message.options() {
        assert!(last <= option.number);
        last = option.number;
        writer = writer.option(option.number, option.value);
    }
    writer.payload(message.payload);
    // Extended deltas and lengths have one form only, so nothing else can have been read.
    assert_eq!(again, input);
    if let Some(number) = message.unacceptable_option() {
        assert!(number.is_critical());
    }
    for number in [OptionNumber::BLOCK1, OptionNumber::BLOCK2] {
        if let Some(Some(block)) = message.block(number) {
            assert!(block.size() <= 1024 && block.offset() < 1 << 30);
        }
    }
}
