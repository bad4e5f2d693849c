//! The text of a personal access token: whose it is, which one, and what makes it secret.

use authcache::EntityId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::{Secret, random};

/// Label of the digest under which the random part is kept.
pub(crate) const LABEL: &[u8] = b"personal access token";
const PREFIX: &str = "pat_";
/// Bytes of the two ids in base64.
const IDS: usize = 43;
/// Characters of the random part: 62 to the 43rd power is 256 bits.
const RANDOM: usize = 43;

/// A new text for a token, and its random part.
pub(crate) fn make(user: EntityId, id: EntityId) -> (Secret, String) {
    let ids = URL_SAFE_NO_PAD.encode([user.to_bytes(), id.to_bytes()].concat());
    let part = random_part();
    (Secret::new(format!("{PREFIX}{ids}_{part}")), part)
}

/// Whether bytes look like a token at all.
pub(crate) fn is_pat_like(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

/// Owner, id and random part.
pub(crate) type Parsed<'t> = (EntityId, EntityId, &'t [u8]);

/// What a text says.
pub(crate) fn parse(text: &[u8]) -> Option<Parsed<'_>> {
    let rest = text.strip_prefix(PREFIX.as_bytes())?;
    let (ids, rest) = rest.split_at_checked(IDS)?;
    let part = rest
        .strip_prefix(b"_")
        .filter(|part| part.len() == RANDOM)?;
    let ids = URL_SAFE_NO_PAD.decode(ids).ok()?;
    let (user, id) = ids.split_first_chunk::<16>()?;
    let id = id.try_into().ok()?;
    Some((EntityId::from_bytes(*user), EntityId::from_bytes(id), part))
}

/// Letters and digits only, so that it passes through URLs, passwords and shells.
fn random_part() -> String {
    const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(RANDOM);
    while text.len() < RANDOM {
        // Bytes above the last whole multiple of 62 would make some digits likelier.
        let picked = random::<64>().into_iter().filter(|byte| *byte < 248);
        let digits = picked.map(|byte| char::from(DIGITS[usize::from(byte % 62)]));
        text.extend(digits.take(RANDOM - text.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_owner_and_itself() {
        let (user, id) = (EntityId::from_u128(1), EntityId::from_u128(2));
        let (text, part) = make(user, id);
        let text = text.reveal().as_bytes();
        assert_eq!(parse(text), Some((user, id, part.as_bytes())));
        assert!(is_pat_like(text));
        assert!(part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let (text, _) = make(EntityId::from_u128(1), EntityId::from_u128(2));
        let text = text.reveal();
        for bad in [
            "",
            "pat_",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}x"),
            &text.replacen("pat_", "pot_", 1),
            &text.replacen("AAAA", "!!!!", 1),
            &format!("pat_{}", "ä".repeat(60)),
        ] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
