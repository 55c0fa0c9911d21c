//! Which instruction sets this machine has, as tokens that cannot be forged.
//!
//! A table of kernels for an instruction set is built from its token, and the token is only made when
//! the processor has every feature that those kernels are compiled with. Holding such a table is the
//! proof that calling its functions is sound.

use std::fmt;

/// An instruction set that kernels exist for, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// x86-64 with AVX-512 F, BW, VL, DQ, VNNI, VBMI and GFNI (Intel Ice Lake, AMD Zen 4, and later).
    Avx512,
    /// x86-64 with AVX2, FMA and F16C (Intel Haswell, AMD Zen, and later).
    Avx2,
    /// AArch64 with the dot product instructions (Armv8.2 and Apple M1, and later).
    Neon,
    /// Any machine; the reference that the others equal bit for bit.
    Scalar,
}

impl Isa {
    /// Every instruction set, best first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar];

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Neon::detect().is_some(),
            Self::Scalar => true,
            #[allow(
                unreachable_patterns,
                reason = "the arms above depend on the architecture"
            )]
            _ => false,
        }
    }

    /// The best that this machine has.
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .find(|isa| isa.is_available())
            .unwrap_or(Self::Scalar)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Avx512 => "AVX-512 VNNI",
            Self::Avx2 => "AVX2",
            Self::Neon => "NEON dot product",
            Self::Scalar => "scalar",
        })
    }
}

/// Proof that the AVX-512 kernels may run here.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// The features must be those in the `#[target_feature]` attributes of `kernels::avx512`; the ones
    /// not named here are implied by them (`avx512vbmi`: `avx512bw`, `avx512f`, `avx2`, `fma`, `f16c`).
    pub(crate) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("gfni");
        present.then_some(Self(()))
    }
}

/// Proof that the AVX2 kernels may run here.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The features must be those in the `#[target_feature]` attributes of `kernels::avx2`.
    pub(crate) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }
}

/// Proof that the NEON kernels may run here.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

#[cfg(target_arch = "aarch64")]
impl Neon {
    /// The features must be those in the `#[target_feature]` attributes of `kernels::neon`.
    pub(crate) fn detect() -> Option<Self> {
        let present = std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("dotprod");
        present.then_some(Self(()))
    }
}
