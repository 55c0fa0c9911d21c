//! Which type a tensor gets: recipes by name, and rules for single tensors.

use std::fmt;
use std::str::FromStr;

use ds4_quant::TensorType;

use crate::blueprint::{Block, Role};
use crate::error::QuantizeError;
use crate::source::Form;

/// How many of the last layers the recipe `q2-q4` keeps at 4 bits.
const BETTER_LAYERS: u64 = 6;

/// A set of types with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// The published 2-bit files: routed experts IQ2_XXS (gate, up) and Q2_K (down).
    Q2,
    /// As [`Recipe::Q2`], with the routed experts of the last six layers in Q4_K.
    Q2Q4,
    /// The published 4-bit files: routed experts Q4_K.
    Q4,
    /// llama.cpp's conversion: the official FP4 experts as they are, the rest Q8_0, BF16 and F32.
    Mxfp4,
    /// Everything large in Q8_0, the embedding included.
    Q8,
    /// All matrices F16.
    F16,
    /// All matrices BF16: exact for BF16 and FP8 weights.
    Bf16,
    /// Everything F32: exact, to compare with.
    F32,
}

impl Recipe {
    /// All recipes.
    pub const ALL: [Self; 8] = [
        Self::Q2,
        Self::Q2Q4,
        Self::Q4,
        Self::Mxfp4,
        Self::Q8,
        Self::F16,
        Self::Bf16,
        Self::F32,
    ];

    /// The name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q2 => "q2",
            Self::Q2Q4 => "q2-q4",
            Self::Q4 => "q4",
            Self::Mxfp4 => "mxfp4",
            Self::Q8 => "q8",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// One line for help texts.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Q2 => {
                "experts IQ2_XXS and Q2_K, the rest Q8_0 and F16: the published 2-bit files"
            }
            Self::Q2Q4 => "as q2, experts of the last six layers Q4_K",
            Self::Q4 => "experts Q4_K, the rest Q8_0 and F16: the published 4-bit files",
            Self::Mxfp4 => "official FP4 experts without loss, the rest Q8_0, BF16 and F32",
            Self::Q8 => "everything large Q8_0, for small models",
            Self::F16 => "all matrices F16",
            Self::Bf16 => "all matrices BF16",
            Self::F32 => "everything F32",
        }
    }

    /// `general.file_type`: llama.cpp's number for the type that most weights have.
    pub(crate) const fn file_type(self) -> u32 {
        match self {
            Self::Q2 | Self::Q2Q4 => 19,
            Self::Q4 => 14,
            Self::Mxfp4 => 38,
            Self::Q8 => 7,
            Self::F16 => 1,
            Self::Bf16 => 32,
            Self::F32 => 0,
        }
    }

    /// The type for a tensor of a model with `layers` layers whose weights have the form `form`.
    pub(crate) fn tensor_type(
        self,
        role: Role,
        block: Block,
        layers: u64,
        form: Form,
    ) -> TensorType {
        match role {
            Role::HashTable => return TensorType::I32,
            Role::Vector => return TensorType::F32,
            _ => {}
        }
        match self {
            Self::Q2 => published(role, block, |role| match role {
                Role::ExpertDown => TensorType::Q2K,
                _ => TensorType::Iq2Xxs,
            }),
            Self::Q2Q4 => match block {
                Block::Layer(layer) if layer + BETTER_LAYERS >= layers => {
                    Self::Q4.tensor_type(role, block, layers, form)
                }
                _ => Self::Q2.tensor_type(role, block, layers, form),
            },
            Self::Q4 => published(role, block, |_| TensorType::Q4K),
            Self::Mxfp4 => as_llama_cpp(role, form),
            Self::Q8 => match role {
                // Small tables that decide rather than carry; the engine adds positions as floats.
                Role::Position | Role::HyperFunction | Role::Router => TensorType::F16,
                _ => TensorType::Q8_0,
            },
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
            Self::F32 => TensorType::F32,
        }
    }
}

/// Types of the published reference files (gguf-layout section 2, column A); the MTP file has its
/// experts in Q4_K and its small matrices in F32.
fn published(role: Role, block: Block, expert: impl Fn(Role) -> TensorType) -> TensorType {
    match role {
        Role::ExpertGate | Role::ExpertUp | Role::ExpertDown if block == Block::Mtp => {
            TensorType::Q4K
        }
        Role::HyperFunction | Role::Router if block == Block::Mtp => TensorType::F32,
        Role::ExpertGate | Role::ExpertUp | Role::ExpertDown => expert(role),
        Role::Attention | Role::Shared | Role::Output | Role::MtpProjection => TensorType::Q8_0,
        Role::Embedding
        | Role::HyperFunction
        | Role::Compressor
        | Role::Position
        | Role::Indexer
        | Role::Router => TensorType::F16,
        Role::Vector => TensorType::F32,
        Role::HashTable => TensorType::I32,
    }
}

/// What llama.cpp's converter makes of a matrix of that form (gguf-layout section 2, column L).
fn as_llama_cpp(role: Role, form: Form) -> TensorType {
    match (role, form) {
        (Role::ExpertGate | Role::ExpertUp | Role::ExpertDown, _) => TensorType::Mxfp4,
        (_, Form::Fp8) => TensorType::Q8_0,
        (_, Form::Fp4) => TensorType::Mxfp4,
        (_, Form::Bf16) => TensorType::Bf16,
        (_, Form::F16) => TensorType::F16,
        (_, Form::F32) => TensorType::F32,
        (_, Form::Index { .. }) => TensorType::I32,
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Recipe {
    type Err = QuantizeError;

    fn from_str(name: &str) -> Result<Self, QuantizeError> {
        let found = Self::ALL.into_iter().find(|recipe| recipe.name() == name);
        found.ok_or_else(|| QuantizeError::Recipe {
            name: name.to_owned(),
        })
    }
}

/// `PATTERN=TYPE`: tensors whose GGUF name matches get that type. In a pattern `*` stands for any
/// characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRule {
    pattern: String,
    ty: TensorType,
}

impl FromStr for TypeRule {
    type Err = QuantizeError;

    fn from_str(text: &str) -> Result<Self, QuantizeError> {
        let refuse = |problem: String| QuantizeError::Override {
            rule: text.to_owned(),
            problem,
        };
        let Some((pattern, ty)) = text.split_once('=') else {
            return Err(refuse("expected PATTERN=TYPE".to_owned()));
        };
        if pattern.is_empty() {
            return Err(refuse("the pattern is empty".to_owned()));
        }
        let ty: TensorType = ty.trim().parse().map_err(|_| {
            refuse(format!(
                "there is no type `{ty}`; types are {}",
                type_names()
            ))
        })?;
        if ty == TensorType::I32 {
            return Err(refuse("I32 holds no weights".to_owned()));
        }
        Ok(Self {
            pattern: pattern.to_owned(),
            ty,
        })
    }
}

fn type_names() -> String {
    let weights = TensorType::ALL.iter().filter(|ty| **ty != TensorType::I32);
    weights.map(|ty| ty.name()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for TypeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.ty)
    }
}

impl TypeRule {
    pub(crate) fn ty(&self) -> TensorType {
        self.ty
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        matches(self.pattern.as_bytes(), name.as_bytes())
    }

    /// Whether the rule names one tensor, rather than a kind of them.
    pub(crate) fn is_exact(&self) -> bool {
        !self.pattern.contains(['*', '?'])
    }
}

/// Matching with `*` and `?`: on a mismatch, the last `*` takes one character more.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut retry {
                Some((star, taken)) => {
                    *taken += 1;
                    p = *star + 1;
                    n = *taken;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// The types to try in turn when a row is not a whole number of blocks: Q8_0, which needs 32, then F16.
pub(crate) fn fallback(ty: TensorType, columns: u64) -> TensorType {
    [ty, TensorType::Q8_0]
        .into_iter()
        .find(|ty| columns.is_multiple_of(ty.block_elements() as u64))
        .unwrap_or(TensorType::F16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("blk.*.attn_q_?.weight", "blk.12.attn_q_a.weight", true),
            (
                "blk.*.attn_q_?.weight",
                "blk.12.attn_q_a_norm.weight",
                false,
            ),
            ("*", "", true),
            ("**a*", "bab", true),
            ("*a", "aab", false),
            ("output.weight", "output.weight", true),
            ("output.weight", "output_weight", false),
            ("blk.1.*", "blk.10.attn_kv.weight", false),
            ("", "a", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn rows_that_do_not_divide_fall_back() {
        assert_eq!(fallback(TensorType::Q4K, 512), TensorType::Q4K);
        assert_eq!(fallback(TensorType::Q4K, 192), TensorType::Q8_0);
        assert_eq!(fallback(TensorType::Mxfp4, 48), TensorType::F16);
        assert_eq!(fallback(TensorType::Bf16, 7), TensorType::Bf16);
    }

    #[test]
    fn rules_are_read_and_refused() {
        let rule: TypeRule = "blk.*=q4_k".parse().unwrap();
        assert_eq!((rule.ty(), rule.is_exact()), (TensorType::Q4K, false));
        for bad in ["a", "=Q8_0", "a=Q9", "a=I32"] {
            assert!(bad.parse::<TypeRule>().is_err(), "{bad}");
        }
    }
}
