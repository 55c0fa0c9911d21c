//! Q8_0: rounding to the nearest of 255 steps.

use crate::blocks::{BlockQ8_0, F16Bits};

pub(super) fn encode_q8_0(src: &[f32; 32]) -> BlockQ8_0 {
    let d = src.iter().fold(0.0_f32, |amax, x| amax.max(x.abs())) / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    BlockQ8_0 {
        d: F16Bits::from_f32(d),
        qs: src.map(|x| (x * inverse).round() as i8),
    }
}
