//! The element types of tensors, with ggml's ids, names and block sizes.

use std::fmt;
use std::str::FromStr;

use crate::QuantError;

/// Element type of a tensor. Ids and layouts are ggml's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TensorType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// 4 bits, blocks of 32 with one F16 scale.
    Q4_0,
    /// 8 bits, blocks of 32 with one F16 scale.
    Q8_0,
    /// 2 bits, super-blocks of 256 with 16 four-bit scales and minima.
    Q2K,
    /// 3 bits, super-blocks of 256 with 16 six-bit scales.
    Q3K,
    /// 4 bits, super-blocks of 256 with 8 six-bit scales and minima.
    Q4K,
    /// 5 bits, super-blocks of 256 with 8 six-bit scales and minima.
    Q5K,
    /// 6 bits, super-blocks of 256 with 16 eight-bit scales.
    Q6K,
    /// 2.06 bits, codebook of 256 entries of 8 magnitudes.
    Iq2Xxs,
    /// 2.31 bits, codebook of 512 entries of 8 magnitudes.
    Iq2Xs,
    /// 3.06 bits, codebook of 256 entries of 4 magnitudes.
    Iq3Xxs,
    /// 32-bit signed integers; indices, not weights.
    I32,
    /// The upper half of a single.
    Bf16,
    /// E2M1 floats, blocks of 32 with one E8M0 scale.
    Mxfp4,
    /// E2M1 floats, blocks of 64 with four unsigned E4M3 scales.
    Nvfp4,
}

/// id, ggml name, elements of a block, bytes of a block
type Row = (TensorType, u32, &'static str, usize, usize);

const TYPES: [Row; 16] = [
    (TensorType::F32, 0, "F32", 1, 4),
    (TensorType::F16, 1, "F16", 1, 2),
    (TensorType::Q4_0, 2, "Q4_0", 32, 18),
    (TensorType::Q8_0, 8, "Q8_0", 32, 34),
    (TensorType::Q2K, 10, "Q2_K", 256, 84),
    (TensorType::Q3K, 11, "Q3_K", 256, 110),
    (TensorType::Q4K, 12, "Q4_K", 256, 144),
    (TensorType::Q5K, 13, "Q5_K", 256, 176),
    (TensorType::Q6K, 14, "Q6_K", 256, 210),
    (TensorType::Iq2Xxs, 16, "IQ2_XXS", 256, 66),
    (TensorType::Iq2Xs, 17, "IQ2_XS", 256, 74),
    (TensorType::Iq3Xxs, 18, "IQ3_XXS", 256, 98),
    (TensorType::I32, 26, "I32", 1, 4),
    (TensorType::Bf16, 30, "BF16", 1, 2),
    (TensorType::Mxfp4, 39, "MXFP4", 32, 17),
    (TensorType::Nvfp4, 40, "NVFP4", 64, 36),
];

impl TensorType {
    /// All types, in order of their ids.
    pub const ALL: [Self; 16] = {
        let mut all = [Self::F32; 16];
        let mut i = 0;
        while i < TYPES.len() {
            // `row` finds a type by its position in the enum.
            assert!(TYPES[i].0 as usize == i);
            all[i] = TYPES[i].0;
            i += 1;
        }
        all
    };

    /// The type with that ggml id.
    pub fn from_id(id: u32) -> Option<Self> {
        TYPES.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    const fn row(self) -> &'static Row {
        &TYPES[self as usize]
    }

    /// The id that GGUF files use.
    pub const fn id(self) -> u32 {
        self.row().1
    }

    /// The name as ggml spells it, such as `Q8_0` or `IQ2_XXS`.
    pub const fn name(self) -> &'static str {
        self.row().2
    }

    /// Elements of one block; 1 for plain numbers.
    pub const fn block_elements(self) -> usize {
        self.row().3
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.row().4
    }

    /// Bytes of a row of `elements` elements.
    ///
    /// # Errors
    /// [`QuantError::PartialBlock`] when `elements` is not a multiple of the block,
    /// [`QuantError::Overflow`] when the size does not fit `usize`.
    pub fn row_bytes(self, elements: usize) -> Result<usize, QuantError> {
        let block = self.block_elements();
        if !elements.is_multiple_of(block) {
            return Err(QuantError::PartialBlock {
                ty: self,
                elements,
                block,
            });
        }
        (elements / block)
            .checked_mul(self.block_bytes())
            .ok_or(QuantError::Overflow { ty: self, elements })
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TensorType {
    type Err = QuantError;

    /// Reads a ggml name; case does not matter.
    fn from_str(name: &str) -> Result<Self, QuantError> {
        TYPES
            .iter()
            .find(|row| row.2.eq_ignore_ascii_case(name))
            .map(|row| row.0)
            .ok_or_else(|| QuantError::UnknownName(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_lead_back() {
        for ty in TensorType::ALL {
            assert_eq!(TensorType::from_id(ty.id()), Some(ty));
            assert_eq!(ty.name().parse::<TensorType>(), Ok(ty));
            assert_eq!(ty.name().to_lowercase().parse::<TensorType>(), Ok(ty));
        }
        // Ids of types that ggml withdrew or that V4 files do not use.
        for id in [3, 4, 5, 9, 15, 31, 41, u32::MAX] {
            assert_eq!(TensorType::from_id(id), None);
        }
    }

    #[test]
    fn row_bytes_refuses_what_it_cannot_hold() {
        assert_eq!(TensorType::Q2K.row_bytes(4096), Ok(16 * 84));
        assert_eq!(TensorType::Q2K.row_bytes(0), Ok(0));
        assert!(matches!(
            TensorType::Q2K.row_bytes(4095),
            Err(QuantError::PartialBlock {
                elements: 4095,
                block: 256,
                ..
            })
        ));
        assert!(matches!(
            TensorType::F32.row_bytes(usize::MAX / 2),
            Err(QuantError::Overflow { .. })
        ));
        assert!(TensorType::Q8_0.row_bytes(usize::MAX - 31).is_err());
    }
}
