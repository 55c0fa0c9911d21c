use super::table::{BLOCK_OF, DIGITS};

/// The class of a code point. The discriminants are the digits of the generated table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// None of the classes below: controls, formats, private use, unassigned.
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{M}`
    Mark,
    /// `\p{N}`
    Number,
    /// `[\p{P}\p{S}]`
    PunctuationOrSymbol,
    /// `\s`
    WhiteSpace,
}

/// Returns the class of `code_point`; anything above U+10FFFF is [`Class::Other`].
pub(crate) fn class_of(code_point: u32) -> Class {
    let Some(&block) = BLOCK_OF.get((code_point >> 7) as usize) else {
        return Class::Other;
    };
    match DIGITS[usize::from(block)][(code_point & 127) as usize] {
        b'1' => Class::Letter,
        b'2' => Class::Mark,
        b'3' => Class::Number,
        b'4' => Class::PunctuationOrSymbol,
        b'5' => Class::WhiteSpace,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use regex_syntax::hir::{Class as HirClass, HirKind};

    use super::*;

    /// `regex-syntax` carries its own copy of the Unicode tables.
    fn members(pattern: &str) -> Vec<bool> {
        let parsed = regex_syntax::parse(pattern).unwrap();
        let HirKind::Class(HirClass::Unicode(class)) = parsed.kind() else {
            panic!("{pattern} is not a class");
        };
        let mut members = vec![false; 0x11_0000];
        for range in class.iter() {
            members[range.start() as usize..=range.end() as usize].fill(true);
        }
        members
    }

    #[test]
    fn every_code_point_has_the_class_that_regex_syntax_gives_it() {
        for (pattern, class) in [
            (r"\p{L}", Class::Letter),
            (r"\p{M}", Class::Mark),
            (r"\p{N}", Class::Number),
            (r"[\p{P}\p{S}]", Class::PunctuationOrSymbol),
            (r"\s", Class::WhiteSpace),
            (r"[^\p{L}\p{M}\p{N}\p{P}\p{S}\s]", Class::Other),
        ] {
            let members = members(pattern);
            for code_point in (0..0x11_0000u32).filter(|&c| char::from_u32(c).is_some()) {
                assert_eq!(
                    class_of(code_point) == class,
                    members[code_point as usize],
                    "U+{code_point:04X} and {pattern}"
                );
            }
        }
    }

    #[test]
    fn code_points_beyond_unicode_belong_to_no_class() {
        assert_eq!(class_of(0x11_0000), Class::Other);
        assert_eq!(class_of(u32::MAX), Class::Other);
    }
}
