//! The byte-level alphabet: every byte has one printable character that stands for it.
//!
//! Printable Latin-1 bytes stand for themselves; the other 68 bytes take U+0100 onwards in
//! ascending order (GPT-2's `bytes_to_unicode`). Vocabulary files spell their tokens with it.

/// One past the largest code point of the alphabet.
const ALPHABET_END: usize = 0x100 + 68;

/// Marks characters outside the alphabet in [`BYTE_OF`].
const NOT_A_BYTE: u16 = 0x100;

/// The byte of each character of the alphabet, by code point.
static BYTE_OF: [u16; ALPHABET_END] = {
    let mut table = [NOT_A_BYTE; ALPHABET_END];
    let mut next = 0x100;
    let mut byte = 0usize;
    while byte < 256 {
        if matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
            table[byte] = byte as u16;
        } else {
            table[next] = byte as u16;
            next += 1;
        }
        byte += 1;
    }
    table
};

/// Appends the bytes that `text` stands for; false, with `bytes` as it was, when a character is
/// not of the alphabet.
pub(crate) fn decode(text: &str, bytes: &mut Vec<u8>) -> bool {
    let before = bytes.len();
    for character in text.chars() {
        match BYTE_OF.get(character as usize) {
            Some(&byte) if byte != NOT_A_BYTE => bytes.push(byte as u8),
            _ => {
                bytes.truncate(before);
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut bytes = vec![b'x'];
        decode(text, &mut bytes).then(|| bytes.split_off(1))
    }

    #[test]
    fn known_characters() {
        // Facts from GPT-2's vocabulary: "Ġ" is the space, "Ċ" the line feed, "Ń" byte 0xAD.
        assert_eq!(decoded("Ġhi"), Some(b" hi".to_vec()));
        assert_eq!(decoded("Ċĉ"), Some(b"\n\t".to_vec()));
        assert_eq!(decoded("ĀŃéÿ"), Some(vec![0x00, 0xad, 0xe9, 0xff]));
        assert_eq!(decoded("a b"), None);
        assert_eq!(decoded("｜"), None);
        assert_eq!(decoded("\u{144}"), None);
        assert_eq!(decoded("\u{ad}"), None);
    }

    #[test]
    fn every_byte_has_exactly_one_character() {
        let mut seen = [0; 256];
        for character in (0..0x1000u32).filter_map(char::from_u32) {
            if let Some(bytes) = decoded(&character.to_string()) {
                seen[usize::from(bytes[0])] += 1;
            }
        }
        assert_eq!(seen, [1; 256]);
    }
}
