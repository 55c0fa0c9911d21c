//! What a small model is like, and where it is written.

use std::path::Path;

use anyhow::{Result, ensure};
use ds4_gguf::{GgufFile, GgufWriter, Metadata, TensorBytes};
use ds4_quant::TensorType;

use super::metadata;
use super::random::Random;
use super::tensors::{Tensor, main_tensors, mtp_tensors};
use super::tokenizer::least_vocabulary;

/// Whose files the model's files are like (gguf-layout): keys, and how an MTP block is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The published reference files: `mtp.0.*`, two projections.
    Published,
    /// llama.cpp's conversions: `blk.N.nextn.*`, one fused projection.
    LlamaCpp,
}

/// Types of the weights. A tensor whose rows are no whole number of blocks becomes F16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightTypes {
    /// Token embedding.
    pub embedding: TensorType,
    /// Output matrix.
    pub output: TensorType,
    /// Attention projections and shared experts.
    pub dense: TensorType,
    /// Gate and up matrices of the routed experts.
    pub expert_in: TensorType,
    /// Down matrices of the routed experts.
    pub expert_out: TensorType,
    /// Router, compressors, indexer.
    pub small: TensorType,
    /// Functions of the hyper-connections.
    pub hyper: TensorType,
}

impl WeightTypes {
    /// Everything in F32.
    pub const F32: Self = Self::all(TensorType::F32);
    /// The published 2-bit recipe.
    pub const PUBLISHED: Self = Self {
        embedding: TensorType::F16,
        output: TensorType::Q8_0,
        dense: TensorType::Q8_0,
        expert_in: TensorType::Iq2Xxs,
        expert_out: TensorType::Q2K,
        small: TensorType::F16,
        hyper: TensorType::F16,
    };
    /// llama.cpp's conversion of the released checkpoint.
    pub const LLAMA_CPP: Self = Self {
        embedding: TensorType::Bf16,
        output: TensorType::Bf16,
        dense: TensorType::Q8_0,
        expert_in: TensorType::Mxfp4,
        expert_out: TensorType::Mxfp4,
        small: TensorType::Bf16,
        hyper: TensorType::F32,
    };

    /// One type for everything.
    pub const fn all(ty: TensorType) -> Self {
        Self {
            embedding: ty,
            output: ty,
            dense: ty,
            expert_in: ty,
            expert_out: ty,
            small: ty,
            hyper: ty,
        }
    }
}

/// A model with random weights. The fields are the dimensions of
/// [`ModelShape`](ds4_model::ModelShape).
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names of the shape's own dimensions")]
pub struct SmallModel {
    pub name: String,
    /// Decides every weight.
    pub seed: u64,
    pub dialect: Dialect,
    pub types: WeightTypes,
    pub hidden: usize,
    /// At least [`least_vocabulary`].
    pub vocabulary: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub rope_dim: usize,
    pub q_lora: usize,
    pub output_groups: usize,
    pub output_lora: usize,
    pub window: usize,
    pub index_heads: usize,
    pub index_dim: usize,
    pub index_top_k: usize,
    pub experts: usize,
    pub experts_used: usize,
    pub expert_hidden: usize,
    pub expert_scale: f32,
    /// One of 0, 4 and 128 for each layer.
    pub compress_ratios: Vec<u32>,
    pub hash_layers: usize,
    pub swiglu_clamp: f32,
    pub context: usize,
}

impl Default for SmallModel {
    /// Four layers of all three kinds, 32 experts in all, fit for FP8 rows and every weight type with
    /// blocks of 32; the published dialect in Q8_0 and MXFP4.
    fn default() -> Self {
        Self {
            name: "small".to_owned(),
            seed: 1,
            dialect: Dialect::Published,
            types: WeightTypes {
                dense: TensorType::Q8_0,
                ..WeightTypes::LLAMA_CPP
            },
            hidden: 64,
            vocabulary: 512,
            heads: 4,
            head_dim: 128,
            rope_dim: 64,
            q_lora: 32,
            output_groups: 2,
            output_lora: 32,
            window: 16,
            index_heads: 4,
            index_dim: 128,
            index_top_k: 8,
            experts: 8,
            experts_used: 3,
            expert_hidden: 64,
            expert_scale: 1.5,
            compress_ratios: vec![0, 4, 128, 4],
            hash_layers: 1,
            swiglu_clamp: 10.0,
            context: 4096,
        }
    }
}

impl SmallModel {
    /// A random shape with random weights. With `fp8_rows` its heads fit FP8 rows.
    pub fn random(seed: u64, fp8_rows: bool) -> Self {
        let mut random = Random::new(seed);
        let rope_dim = 2 * random.between(1, 16);
        let head_dim = if fp8_rows {
            rope_dim + 64 * random.between(1, 2)
        } else {
            rope_dim + random.between(0, 40)
        };
        let output_groups = random.between(1, 3);
        let experts = random.between(1, 9);
        let layers = random.between(1, 4);
        Self {
            name: format!("random-{seed}"),
            seed,
            dialect: random.choose(&[Dialect::Published, Dialect::LlamaCpp]),
            types: random.choose(&[
                WeightTypes::F32,
                WeightTypes::all(TensorType::Bf16),
                WeightTypes::all(TensorType::Q8_0),
                WeightTypes::LLAMA_CPP,
            ]),
            hidden: random.choose(&[24, 32, 40, 64, 96]),
            vocabulary: least_vocabulary() + random.below(40),
            heads: output_groups * random.between(1, 3),
            head_dim,
            rope_dim,
            q_lora: random.between(5, 40),
            output_groups,
            output_lora: random.between(3, 20),
            window: random.between(1, 20),
            index_heads: random.between(1, 5),
            index_dim: if fp8_rows {
                128
            } else {
                rope_dim + random.below(30)
            },
            index_top_k: random.between(1, 6),
            experts,
            experts_used: random.between(1, experts.min(4)),
            expert_hidden: random.choose(&[16, 32, 50]),
            expert_scale: random.choose(&[1.0, 1.5, 2.5]),
            compress_ratios: (0..layers)
                .map(|_| random.choose(&[0, 4, 4, 128]))
                .collect(),
            hash_layers: random.between(0, layers),
            swiglu_clamp: random.choose(&[1.0, 10.0]),
            context: 1024,
        }
    }

    /// Writes the main model.
    ///
    /// # Errors
    /// A shape that contradicts itself, or what the system says.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check()?;
        write(path, &metadata::main(self)?, &main_tensors(self))
    }

    /// Writes the file of an MTP block for the model, in the model's dialect.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_mtp(&self, path: &Path) -> Result<()> {
        self.check()?;
        write(path, &metadata::mtp(self)?, &mtp_tensors(self))
    }

    /// The main model's file as bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn bytes(&self) -> Result<Vec<u8>> {
        in_folder(|path| self.write(path))
    }

    /// The main model, opened.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn file(&self) -> Result<GgufFile> {
        Ok(GgufFile::from_bytes(
            &self.name,
            TensorBytes::from(self.bytes()?),
        )?)
    }

    /// The MTP block, opened.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn mtp_file(&self) -> Result<GgufFile> {
        let bytes = in_folder(|path| self.write_mtp(path))?;
        Ok(GgufFile::from_bytes(&self.name, TensorBytes::from(bytes))?)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.vocabulary >= least_vocabulary(),
            "a vocabulary of {}, at least {} are needed",
            self.vocabulary,
            least_vocabulary()
        );
        ensure!(
            self.heads.is_multiple_of(self.output_groups) && self.experts_used <= self.experts,
            "{} heads in {} groups, {} of {} experts",
            self.heads,
            self.output_groups,
            self.experts_used,
            self.experts
        );
        Ok(())
    }
}

fn in_folder(write: impl FnOnce(&Path) -> Result<()>) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("small.gguf");
    write(&path)?;
    Ok(std::fs::read(path)?)
}

fn write(path: &Path, metadata: &Metadata, tensors: &[Tensor]) -> Result<()> {
    let specs: Vec<_> = tensors.iter().map(Tensor::spec).collect();
    let mut writer = GgufWriter::create(path, metadata, &specs)?;
    for tensor in tensors {
        writer.write_tensor(&tensor.name, &tensor.encode()?)?;
    }
    Ok(writer.finish()?)
}
