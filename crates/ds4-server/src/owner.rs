//! Whose something is: nobody gets at what was said under another API key.

/// Separates the owners' names from other uses of the hash.
const CONTEXT: &str = "ds4 2026-11 owner of a conversation";

/// Who a request comes from: the holder of an API key, or anybody where the server has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner([u8; Self::BYTES]);

impl Owner {
    /// Length of its name.
    pub(crate) const BYTES: usize = 16;
    /// Everybody, on a server without keys.
    pub const ANYBODY: Self = Self([0; Self::BYTES]);

    /// The holder of `key`.
    pub(crate) fn of_key(key: &str) -> Self {
        let hash = blake3::derive_key(CONTEXT, key.as_bytes());
        let mut name = [0; Self::BYTES];
        name.copy_from_slice(&hash[..Self::BYTES]);
        Self(name)
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}
