//! Characters of UTF-8 text, read at byte positions.

use crate::unicode_class::{Class, class_of};

/// A character of UTF-8 text at a byte position.
#[derive(Clone, Copy)]
pub(crate) struct Character {
    pub(crate) code_point: u32,
    pub(crate) length: usize,
}

impl Character {
    /// Decodes the character that starts at `position`, or nothing at the end. `text` must be
    /// UTF-8 and `position` a character boundary; elsewhere the result is meaningless but safe.
    #[inline]
    pub(crate) fn at(text: &[u8], position: usize) -> Option<Self> {
        let rest = text.get(position..)?;
        let tail = |byte: u8| u32::from(byte & 0x3f);
        let (code_point, length) = match *rest {
            [] => return None,
            [a, ..] if a < 0x80 => (u32::from(a), 1),
            [a, b, ..] if a < 0xe0 => (u32::from(a & 0x1f) << 6 | tail(b), 2),
            [a, b, c, ..] if a < 0xf0 => (u32::from(a & 0x0f) << 12 | tail(b) << 6 | tail(c), 3),
            [a, b, c, d, ..] => (
                u32::from(a & 0x07) << 18 | tail(b) << 12 | tail(c) << 6 | tail(d),
                4,
            ),
            [a, ..] => (u32::from(a), 1),
        };
        Some(Self { code_point, length })
    }

    pub(crate) fn class(self) -> Class {
        class_of(self.code_point)
    }

    pub(crate) fn is_newline(self) -> bool {
        self.code_point == 0x0a || self.code_point == 0x0d
    }

    /// `[一-龥぀-ゟ゠-ヿ]`
    pub(crate) fn is_cjk_or_kana(self) -> bool {
        matches!(self.code_point, 0x4e00..=0x9fa5 | 0x3040..=0x30ff)
    }
}
