//! Names of segments and checkpoints: hashes of everything they depend on.

use std::fmt;
use std::str::FromStr;

/// A token of the vocabulary, as the engine numbers them.
pub type TokenId = u32;

/// Largest span that a store accepts, in tokens.
pub const MAX_SPAN_TOKENS: u32 = 1 << 16;

/// Longest token sequence that a store accepts.
pub const MAX_TOKENS: usize = 1 << 24;

/// What compressed rows are valid for. Checkpoints of different keys never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelKey {
    /// Fingerprint of the model.
    pub fingerprint: [u8; 32],
    /// Number of the rows' format. Whatever changes the bytes of a segment or of a
    /// frontier, such as the KV format or their layout, needs a new number.
    pub format: u32,
    /// Tokens in a segment: the engine's page. 1 to [`MAX_SPAN_TOKENS`].
    pub span_tokens: u32,
}

impl ModelKey {
    /// Tokens in a segment.
    pub(crate) fn span(&self) -> usize {
        self.span_tokens as usize
    }
}

macro_rules! hash_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(crate) [u8; 32]);

        impl $name {
            /// The bytes of the hash.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0
                    .iter()
                    .try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            /// 64 lower-case hexadecimal digits.
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                parse_hex(text).map(Self).ok_or(InvalidName)
            }
        }
    };
}

hash_name! {
    /// Name of a segment: a hash of the model key and of all tokens up to the end of its span.
    SegmentName
}

hash_name! {
    /// Name of a checkpoint: a hash of the model key and of all its tokens.
    CheckpointId
}

/// A name that is not 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct InvalidName;

/// Strict, so that each hash has one file name.
fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The start of every chain of a key: the name of "no tokens".
pub(crate) fn root(key: &ModelKey) -> SegmentName {
    let mut hasher = blake3::Hasher::new_derive_key("ds4 kvstore 1 root");
    hasher.update(&key.fingerprint);
    hasher.update(&key.format.to_le_bytes());
    hasher.update(&key.span_tokens.to_le_bytes());
    SegmentName(*hasher.finalize().as_bytes())
}

/// The name of the segment that follows `parent` with `tokens`, a whole span.
pub(crate) fn next(parent: &SegmentName, tokens: &[TokenId]) -> SegmentName {
    SegmentName(link("ds4 kvstore 1 segment", parent, tokens))
}

/// The name of the checkpoint that ends `tail` tokens, less than a span, after `last`.
pub(crate) fn checkpoint(last: &SegmentName, tail: &[TokenId]) -> CheckpointId {
    CheckpointId(link("ds4 kvstore 1 checkpoint", last, tail))
}

fn link(context: &str, parent: &SegmentName, tokens: &[TokenId]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&parent.0);
    let mut bytes = [0; 1024];
    for part in tokens.chunks(bytes.len() / 4) {
        for (place, token) in bytes.chunks_exact_mut(4).zip(part) {
            place.copy_from_slice(&token.to_le_bytes());
        }
        hasher.update(&bytes[..4 * part.len()]);
    }
    *hasher.finalize().as_bytes()
}

/// Names of all whole spans of `tokens`, first to last.
pub(crate) fn segment_names(
    key: &ModelKey,
    tokens: &[TokenId],
) -> impl Iterator<Item = SegmentName> {
    let mut parent = root(key);
    tokens.chunks_exact(key.span()).map(move |span| {
        parent = next(&parent, span);
        parent
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ModelKey = ModelKey {
        fingerprint: [7; 32],
        format: 2,
        span_tokens: 4,
    };

    #[test]
    fn a_name_depends_on_key_and_every_token_before() {
        let tokens: Vec<TokenId> = (0..13).collect();
        let names: Vec<_> = segment_names(&KEY, &tokens).collect();
        assert_eq!(names.len(), 3);
        for changed in 0..tokens.len() {
            let mut other = tokens.clone();
            other[changed] = 99;
            for (span, (a, b)) in names.iter().zip(segment_names(&KEY, &other)).enumerate() {
                assert_eq!(*a == b, changed >= 4 * (span + 1), "{changed} {span}");
            }
        }
        let others = [
            ModelKey {
                fingerprint: [8; 32],
                ..KEY
            },
            ModelKey { format: 3, ..KEY },
        ];
        for key in others {
            assert!(
                segment_names(&key, &tokens)
                    .zip(&names)
                    .all(|(a, b)| a != *b)
            );
        }
        assert_ne!(
            checkpoint(&names[2], &tokens[12..]),
            checkpoint(&names[2], &[]),
        );
        assert_ne!(checkpoint(&names[2], &[]).0, names[2].0);
    }

    #[test]
    fn a_name_has_one_spelling() {
        let name = root(&KEY);
        assert_eq!(name.to_string().parse(), Ok(name));
        for text in [
            "",
            "00",
            &name.to_string().to_uppercase(),
            &format!("+{}", &name.to_string()[1..]),
        ] {
            assert!(text.parse::<SegmentName>().is_err(), "{text}");
        }
    }
}
