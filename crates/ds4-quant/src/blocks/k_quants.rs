//! Q2_K to Q6_K: super-blocks of 256 with quantised scales.

use bytemuck::{Pod, Zeroable};

use super::scalar16::F16Bits;
use super::unpacked::{Block, SuperBlock, UnpackedSuper, super_block};
use crate::TensorType;

/// Q2_K: 16 groups of 16; `d * (scales[g] & 15) * q - dmin * (scales[g] >> 4)`, q in 0..=3.
///
/// Byte `32 h + l` of `qs` holds elements `128 h + 32 k + l` at bits `2 k`, for `h` in 0..2, `k` in
/// 0..4, `l` in 0..32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// Scale (low nibble) and minimum (high nibble) of each group.
    pub scales: [u8; 16],
    /// Quants.
    pub qs: [u8; 64],
    /// Scale of the scales.
    pub d: F16Bits,
    /// Scale of the minima.
    pub dmin: F16Bits,
}

/// Q3_K: 16 groups of 16; `d * (scale[g] - 32) * q`, q in -4..=3.
///
/// `qs` as in Q2_K; bit `4 h + k` of `hmask[l]` set adds 4 to q, whose two low bits less 4 count from
/// -4. The 6-bit scale `g` has its low nibble in byte `g % 8` (low half for `g` below 8) and its high
/// two bits in byte `8 + g % 4` at bits `2 (g / 4)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// High bits of the quants.
    pub hmask: [u8; 32],
    /// Low two bits of the quants.
    pub qs: [u8; 64],
    /// Packed 6-bit scales.
    pub scales: [u8; 12],
    /// Scale of the scales.
    pub d: F16Bits,
}

/// Q4_K: 8 groups of 32; `d * scale[g] * q - dmin * min[g]`, q in 0..=15.
///
/// Byte `32 h + l` of `qs` holds elements `64 h + l` (low) and `64 h + 32 + l` (high). The scales
/// and minima are packed as [`unpack_scales_k4`] reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale of the scales.
    pub d: F16Bits,
    /// Scale of the minima.
    pub dmin: F16Bits,
    /// Packed 6-bit scales and minima.
    pub scales: [u8; 12],
    /// Quants.
    pub qs: [u8; 128],
}

/// Q5_K: as Q4_K with q in 0..=31; bit `2 h + k` of `qh[l]` is bit 4 of element `64 h + 32 k + l`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the scales.
    pub d: F16Bits,
    /// Scale of the minima.
    pub dmin: F16Bits,
    /// Packed 6-bit scales and minima.
    pub scales: [u8; 12],
    /// Bit 4 of the quants.
    pub qh: [u8; 32],
    /// Low 4 bits of the quants.
    pub qs: [u8; 128],
}

/// Q6_K: 16 groups of 16; `d * scales[g] * (q - 32)`, q in 0..=63.
///
/// For each half `h` and `l` in 0..32: the low nibbles of elements `128 h + 32 k + l` are in
/// `ql[64 h + 32 (k % 2) + l]` (low half for `k` below 2), their high two bits in `qh[32 h + l]` at
/// bits `2 k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// Low 4 bits of the quants.
    pub ql: [u8; 128],
    /// High 2 bits of the quants.
    pub qh: [u8; 64],
    /// Scale of each group.
    pub scales: [i8; 16],
    /// Scale of the scales.
    pub d: F16Bits,
}

super_block!(BlockQ2K, TensorType::Q2K);
super_block!(BlockQ3K, TensorType::Q3K);
super_block!(BlockQ4K, TensorType::Q4K);
super_block!(BlockQ5K, TensorType::Q5K);
super_block!(BlockQ6K, TensorType::Q6K);

/// The 8 six-bit scales and 8 six-bit minima of Q4_K and Q5_K.
///
/// Scale `g` and minimum `g` below 4 are the low 6 bits of bytes `g` and `g + 4`; from 4 on, their low
/// nibbles are the halves of byte `g + 4`, their high two bits the top bits of bytes `g - 4` and `g`.
pub fn unpack_scales_k4(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scale, mut min) = ([0; 8], [0; 8]);
    for g in 0..4 {
        scale[g] = packed[g] & 63;
        min[g] = packed[g + 4] & 63;
        scale[g + 4] = (packed[g + 8] & 15) | (packed[g] >> 6) << 4;
        min[g + 4] = (packed[g + 8] >> 4) | (packed[g + 4] >> 6) << 4;
    }
    (scale, min)
}

/// Packs what [`unpack_scales_k4`] reads; the values are below 64.
pub fn pack_scales_k4(scale: &[u8; 8], min: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for g in 0..4 {
        packed[g] = (scale[g] & 63) | (scale[g + 4] >> 4) << 6;
        packed[g + 4] = (min[g] & 63) | (min[g + 4] >> 4) << 6;
        packed[g + 8] = (scale[g + 4] & 15) | (min[g + 4] & 15) << 4;
    }
    packed
}

/// Bits `2 k` of byte `32 h + l` are element `128 h + 32 k + l`: the low bits of Q2_K and Q3_K, the high
/// bits of Q6_K.
fn two_bits(bytes: &[u8; 64], element: usize) -> u8 {
    let (h, k, l) = (element / 128, element / 32 % 4, element % 32);
    (bytes[32 * h + l] >> (2 * k)) & 3
}

/// Element `64 h + 32 k + l` is nibble `k` of byte `32 h + l`: the low bits of Q4_K and Q5_K.
fn nibble(bytes: &[u8; 128], element: usize) -> u8 {
    let (h, k, l) = (element / 64, element / 32 % 2, element % 32);
    (bytes[32 * h + l] >> (4 * k)) & 15
}

impl SuperBlock for BlockQ2K {
    fn unpack(&self) -> UnpackedSuper {
        UnpackedSuper {
            d: self.d.to_f32(),
            dmin: self.dmin.to_f32(),
            scale: self.scales.map(|s| i16::from(s & 15)),
            min: self.scales.map(|s| i16::from(s >> 4)),
            q: std::array::from_fn(|i| two_bits(&self.qs, i) as i8),
        }
    }
}

impl BlockQ3K {
    /// The 16 scales, less the bias of 32.
    pub fn unpack_scales(&self) -> [i8; 16] {
        std::array::from_fn(|g| {
            let low = (self.scales[g % 8] >> (4 * (g / 8))) & 15;
            let high = (self.scales[8 + g % 4] >> (2 * (g / 4))) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

impl SuperBlock for BlockQ3K {
    fn unpack(&self) -> UnpackedSuper {
        UnpackedSuper {
            d: self.d.to_f32(),
            scale: self.unpack_scales().map(i16::from),
            q: std::array::from_fn(|i| {
                let high = (self.hmask[i % 32] >> (i / 32)) & 1;
                (two_bits(&self.qs, i) | high << 2) as i8 - 4
            }),
            ..UnpackedSuper::ZERO
        }
    }
}

/// Scale and minimum of each group of 16, from those of each group of 32.
fn spread(per_32: [u8; 8]) -> [i16; 16] {
    std::array::from_fn(|g| i16::from(per_32[g / 2]))
}

impl SuperBlock for BlockQ4K {
    fn unpack(&self) -> UnpackedSuper {
        let (scale, min) = unpack_scales_k4(&self.scales);
        UnpackedSuper {
            d: self.d.to_f32(),
            dmin: self.dmin.to_f32(),
            scale: spread(scale),
            min: spread(min),
            q: std::array::from_fn(|i| nibble(&self.qs, i) as i8),
        }
    }
}

impl SuperBlock for BlockQ5K {
    fn unpack(&self) -> UnpackedSuper {
        let (scale, min) = unpack_scales_k4(&self.scales);
        UnpackedSuper {
            d: self.d.to_f32(),
            dmin: self.dmin.to_f32(),
            scale: spread(scale),
            min: spread(min),
            q: std::array::from_fn(|i| {
                let high = (self.qh[i % 32] >> (i / 32)) & 1;
                (nibble(&self.qs, i) | high << 4) as i8
            }),
        }
    }
}

impl SuperBlock for BlockQ6K {
    fn unpack(&self) -> UnpackedSuper {
        UnpackedSuper {
            d: self.d.to_f32(),
            scale: self.scales.map(i16::from),
            q: std::array::from_fn(|i| {
                let (h, k, l) = (i / 128, i / 32 % 4, i % 32);
                let low = (self.ql[64 * h + 32 * (k % 2) + l] >> (4 * (k / 2))) & 15;
                (low | two_bits(&self.qh, i) << 4) as i8 - 32
            }),
            ..UnpackedSuper::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_scales_survive_packing() {
        let scale = [0, 63, 17, 32, 63, 1, 48, 15];
        let min = [63, 0, 5, 62, 16, 63, 31, 33];
        assert_eq!(
            unpack_scales_k4(&pack_scales_k4(&scale, &min)),
            (scale, min)
        );
    }
}
