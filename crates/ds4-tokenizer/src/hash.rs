//! A seeded hash for tables whose keys come from files: cheap, and not predictable enough for a
//! file to make all its keys collide.

use std::hash::{BuildHasher, RandomState};

/// Odd constants with balanced bits: the fractional parts of pi and of the golden ratio.
const PI: u64 = 0x243f_6a88_85a3_08d3;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Keyed hash of byte strings and of pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash {
    seed: u64,
}

impl Hash {
    pub(crate) fn random() -> Self {
        Self {
            seed: RandomState::new().hash_one(PI),
        }
    }

    #[inline]
    pub(crate) fn pair(self, left: u32, right: u32) -> u64 {
        mix(u64::from(left) << 32 | u64::from(right), self.seed)
    }

    #[inline]
    pub(crate) fn bytes(self, bytes: &[u8]) -> u64 {
        let mut state = self.seed ^ (bytes.len() as u64).wrapping_mul(GOLDEN);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state = mix(u64::from_le_bytes(*word), state);
        }
        let mut last = 0;
        for &byte in rest {
            last = last << 8 | u64::from(byte);
        }
        mix(last, state)
    }
}

/// Folds the 128-bit product, so that every input bit reaches the low bits.
#[inline]
fn mix(value: u64, state: u64) -> u64 {
    let product = u128::from(value ^ state ^ PI) * u128::from(state | 1);
    ((product >> 64) as u64 ^ product as u64).wrapping_mul(GOLDEN)
}
