//! What a conversion will write: every tensor with its type, and the metadata.

use ds4_gguf::{GgufLayout, Metadata, TensorSpec, Value};
use ds4_quant::TensorType;

use crate::blueprint::{Block, Blueprint, Role, main_model, mtp_block};
use crate::checkpoint::Checkpoint;
use crate::error::QuantizeError;
use crate::importance::ImportanceMatrix;
use crate::metadata::model_metadata;
use crate::recipe::{Recipe, TypeRule, fallback};
use crate::source::{Form, Source};
use crate::tokenizer::add_tokenizer;

/// What to make of a checkpoint.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Types by the tensors' roles.
    pub recipe: Recipe,
    /// Exceptions; of several that match, the last counts.
    pub rules: Vec<TypeRule>,
    /// Importance of columns, for types of 4 bits and fewer.
    pub importance: Option<ImportanceMatrix>,
    /// `general.name`; none takes the folder's.
    pub name: Option<String>,
    /// `tokenizer.chat_template`; none takes the checkpoint's, where it has one.
    pub chat_template: Option<String>,
    /// More metadata, such as `general.license`; a key that the plan sets itself is refused.
    pub metadata: Vec<(String, Value)>,
}

impl PlanOptions {
    /// A recipe without exceptions.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            rules: Vec::new(),
            importance: None,
            name: None,
            chat_template: None,
            metadata: Vec::new(),
        }
    }
}

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct PlannedTensor {
    /// Name, dimensions and type in the GGUF file.
    pub spec: TensorSpec,
    /// What it is for.
    pub role: Role,
    /// How the checkpoint stores it.
    pub form: Form,
    /// The type that recipe and rules ask for, where its blocks do not divide the rows.
    pub fell_back_from: Option<TensorType>,
    /// Bytes in the file.
    pub bytes: u64,
    pub(crate) source: Source,
    /// Importance of the columns, once or for each matrix.
    pub(crate) importance: Option<Vec<f32>>,
}

/// A GGUF file to be written.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) metadata: Metadata,
    tensors: Vec<PlannedTensor>,
    layout: GgufLayout,
    unused: Vec<String>,
    importance_hash: Option<blake3::Hash>,
}

impl Plan {
    /// The main model. With `include_mtp` the MTP block is in the same file, which llama.cpp refuses.
    ///
    /// # Errors
    /// A tensor that is missing or has the wrong shape or type, a rule that cannot be applied, a
    /// tokenizer that does not fit.
    pub fn main_model(
        checkpoint: &Checkpoint,
        options: &PlanOptions,
        include_mtp: bool,
    ) -> Result<Self, QuantizeError> {
        let config = checkpoint.config();
        let mut blueprints = main_model(config);
        if include_mtp && has_mtp(checkpoint) {
            blueprints.extend(mtp_block(config));
        }
        Self::new(checkpoint, options, blueprints, true)
    }

    /// The MTP block as a file of its own, under the reference engine's names; none when the checkpoint
    /// has no such block.
    ///
    /// # Errors
    /// As [`Plan::main_model`].
    pub fn mtp_block(
        checkpoint: &Checkpoint,
        options: &PlanOptions,
    ) -> Result<Option<Self>, QuantizeError> {
        if !has_mtp(checkpoint) {
            return Ok(None);
        }
        let blueprints = mtp_block(checkpoint.config());
        Self::new(checkpoint, options, blueprints, false).map(Some)
    }

    fn new(
        checkpoint: &Checkpoint,
        options: &PlanOptions,
        blueprints: Vec<Blueprint>,
        with_tokenizer: bool,
    ) -> Result<Self, QuantizeError> {
        let config = checkpoint.config();
        let tensors = blueprints
            .iter()
            .map(|blueprint| plan_tensor(checkpoint, options, blueprint))
            .collect::<Result<Vec<_>, _>>()?;
        check_rules(&options.rules, &tensors, with_tokenizer)?;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => folder_name(checkpoint),
        };
        let mut metadata = model_metadata(config, &name, options.recipe.file_type())?;
        if with_tokenizer {
            add_tokenizer(checkpoint, options.chat_template.as_deref(), &mut metadata)?;
        }
        let weighted = tensors
            .iter()
            .filter(|tensor| tensor.importance.is_some())
            .count();
        let importance = options.importance.as_ref().filter(|_| weighted > 0);
        if let Some(matrix) = importance {
            let file = matrix
                .path()
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            metadata.insert("quantize.imatrix.file", &*file)?;
            metadata.insert("quantize.imatrix.entries_count", matrix.len() as u32)?;
            if let Some(dataset) = matrix.dataset() {
                metadata.insert("quantize.imatrix.dataset", dataset)?;
            }
            if let Some(chunks) = matrix.chunks() {
                metadata.insert("quantize.imatrix.chunks_count", chunks)?;
            }
        }
        for (key, value) in &options.metadata {
            metadata.insert(key.as_str(), value.clone())?;
        }
        let specs: Vec<TensorSpec> = tensors.iter().map(|tensor| tensor.spec.clone()).collect();
        let layout = GgufLayout::new("the GGUF file", &metadata, &specs)?;
        Ok(Self {
            unused: unused(checkpoint, &blueprints, with_tokenizer),
            importance_hash: importance.map(|matrix| *matrix.hash()),
            metadata,
            tensors,
            layout,
        })
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> &[PlannedTensor] {
        &self.tensors
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The head of the file and the places of its tensors.
    pub fn layout(&self) -> &GgufLayout {
        &self.layout
    }

    /// Tensors of the checkpoint that the file leaves out and that are not part of another file: those
    /// of unknown names, and selection biases of layers that route by token id.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Stands for what is going to be written: tensors, metadata, and where they come from.
    pub(crate) fn fingerprint(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<blake3::Hash, QuantizeError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.layout.header());
        checkpoint.identify(&mut hasher)?;
        if let Some(hash) = &self.importance_hash {
            hasher.update(hash.as_bytes());
        }
        Ok(hasher.finalize())
    }
}

/// Whether the checkpoint has an MTP block and its weights.
fn has_mtp(checkpoint: &Checkpoint) -> bool {
    checkpoint.config().num_nextn_predict_layers > 0
        && checkpoint
            .tensor_names()
            .any(|name| name.starts_with("mtp.0."))
}

fn folder_name(checkpoint: &Checkpoint) -> String {
    let folder = checkpoint.folder();
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    whole
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn plan_tensor(
    checkpoint: &Checkpoint,
    options: &PlanOptions,
    blueprint: &Blueprint,
) -> Result<PlannedTensor, QuantizeError> {
    let source = Source::find(checkpoint, blueprint)?;
    let layers = checkpoint.config().num_hidden_layers;
    let (role, block) = (blueprint.role, blueprint.block);
    let mut wanted = options.recipe.tensor_type(role, block, layers, source.form);
    for rule in options
        .rules
        .iter()
        .filter(|rule| rule.matches(&blueprint.name))
    {
        // Patterns are about matrices; a vector is changed by its name only.
        if may_have(role, rule.ty()) && (role != Role::Vector || rule.is_exact()) {
            wanted = rule.ty();
        } else if rule.is_exact() {
            return Err(QuantizeError::Override {
                rule: rule.to_string(),
                problem: match role {
                    Role::HashTable => "this tensor holds expert ids, which stay I32".to_owned(),
                    _ => "this tensor must be F32, F16 or BF16".to_owned(),
                },
            });
        }
    }
    let ty = fallback(wanted, blueprint.columns);
    let importance = match &options.importance {
        Some(matrix) if uses_importance(ty) => matrix
            .columns(
                &blueprint.name,
                source.columns(),
                blueprint.matrices as usize,
            )?
            .map(<[f32]>::to_vec),
        _ => None,
    };
    let dims = blueprint.dims();
    let rows: u64 = dims[1..].iter().product();
    Ok(PlannedTensor {
        bytes: rows.saturating_mul(ty.row_bytes(source.columns())? as u64),
        spec: TensorSpec {
            name: blueprint.name.clone(),
            dims,
            ty,
        },
        role,
        form: source.form,
        fell_back_from: (ty != wanted).then_some(wanted),
        source,
        importance,
    })
}

/// Whether the engine lets a tensor of that role have that type.
fn may_have(role: Role, ty: TensorType) -> bool {
    match role {
        Role::HashTable => false,
        Role::Vector | Role::Position => {
            matches!(ty, TensorType::F32 | TensorType::F16 | TensorType::Bf16)
        }
        _ => true,
    }
}

fn uses_importance(ty: TensorType) -> bool {
    !matches!(
        ty,
        TensorType::F32
            | TensorType::F16
            | TensorType::Bf16
            | TensorType::I32
            | TensorType::Q8_0
            | TensorType::Mxfp4
    )
}

/// A rule that fits nothing is a misspelt one. Rules for the MTP block pass with the main model.
fn check_rules(
    rules: &[TypeRule],
    tensors: &[PlannedTensor],
    main_model: bool,
) -> Result<(), QuantizeError> {
    let idle = rules.iter().find(|rule| {
        let is_for_mtp = rule.to_string().starts_with("mtp.");
        main_model && !is_for_mtp && !tensors.iter().any(|tensor| rule.matches(&tensor.spec.name))
    });
    match idle {
        Some(rule) => Err(QuantizeError::Override {
            rule: rule.to_string(),
            problem: "no tensor has such a name; `--dry-run` lists the names".to_owned(),
        }),
        None => Ok(()),
    }
}

fn unused(checkpoint: &Checkpoint, blueprints: &[Blueprint], main_model: bool) -> Vec<String> {
    let mut used = std::collections::HashSet::new();
    for blueprint in blueprints {
        for matrix in 0..blueprint.matrices {
            let name = blueprint.source(matrix);
            if let Some(stem) = name.strip_suffix(".weight") {
                used.insert(format!("{stem}.scale"));
            }
            used.insert(name);
        }
    }
    let has_mtp = blueprints
        .iter()
        .any(|blueprint| blueprint.block == Block::Mtp);
    let belongs = |name: &str| match main_model {
        true => has_mtp || !name.starts_with("mtp.0."),
        false => name.starts_with("mtp."),
    };
    let mut unused: Vec<String> = checkpoint
        .tensor_names()
        .filter(|name| belongs(name) && !used.contains(*name))
        .map(str::to_owned)
        .collect();
    unused.sort_unstable();
    unused
}
