//! What the commands need of a model beside its weights: vocabulary and encoding.

use std::fs;

use anyhow::{Context, anyhow};
use ds4_chat::Vintage;
use ds4_gguf::{GgufFile, Metadata};
use ds4_tokenizer::{PreTokenizer, Tokenizer, VocabularySource};

use crate::arguments::{VintageName, VocabularyArguments};
use crate::failure::Hint;
use crate::model_file::ModelFile;

/// A tokenizer and the vintage of the model that it belongs to.
pub(crate) struct Vocabulary {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) vintage: Vintage,
}

impl Vocabulary {
    /// The vocabulary that the arguments name.
    pub(crate) fn open(arguments: &VocabularyArguments) -> anyhow::Result<Self> {
        let Some(path) = &arguments.tokenizer else {
            let model = ModelFile::open(arguments.model.model.as_deref())?;
            return Self::of_file(&model.file);
        };
        let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let tokenizer = Tokenizer::from_json(&bytes)
            .with_context(|| format!("cannot use `{}`", path.display()))?;
        Ok(Self {
            tokenizer,
            vintage: Vintage::default(),
        })
    }

    /// The vocabulary in a model file.
    pub(crate) fn of_file(file: &GgufFile) -> anyhow::Result<Self> {
        let tokenizer = tokenizer(file.metadata())
            .context("cannot use the vocabulary of the model")
            .hint(|| "`ds4 inspect` shows the file's tokenizer keys".to_owned())?;
        Ok(Self {
            tokenizer,
            vintage: vintage(file)?,
        })
    }

    /// The vintage asked for, or the model's.
    pub(crate) fn vintage(&self, asked: Option<VintageName>) -> Vintage {
        asked.map_or(self.vintage, Vintage::from)
    }
}

/// Builds the tokenizer from the `tokenizer.ggml.*` keys.
fn tokenizer(metadata: &Metadata) -> anyhow::Result<Tokenizer> {
    let model = metadata.str("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(anyhow!(
            "key `tokenizer.ggml.model` is `{model}`, expected `gpt2` (byte-level BPE)"
        ));
    }
    let pre_tokenizer = match metadata.optional_str("tokenizer.ggml.pre")? {
        None => PreTokenizer::default(),
        Some(name) => PreTokenizer::from_gguf_name(name).ok_or_else(|| {
            anyhow!("key `tokenizer.ggml.pre` is `{name}`, expected `joyai-llm` or `deepseek-v3`")
        })?,
    };
    let token_types = metadata
        .optional_integers("tokenizer.ggml.token_type")?
        .map(|types| {
            types
                .into_iter()
                .map(i32::try_from)
                .collect::<Result<Vec<_>, _>>()
        })
        .transpose()
        .context("key `tokenizer.ggml.token_type` holds a number beyond 32 bits")?;
    let source = VocabularySource {
        tokens: metadata.byte_strings("tokenizer.ggml.tokens")?.collect(),
        token_types,
        merges: metadata.byte_strings("tokenizer.ggml.merges")?.collect(),
        pre_tokenizer,
        bos: metadata.optional_u32("tokenizer.ggml.bos_token_id")?,
        eos: metadata.optional_u32("tokenizer.ggml.eos_token_id")?,
        pad: metadata.optional_u32("tokenizer.ggml.padding_token_id")?,
    };
    Ok(Tokenizer::from_vocabulary(&source)?)
}

/// The vintage by the names that converters write, or by the file's own: conversions of later releases took
/// over the metadata of the first.
pub(crate) fn vintage(file: &GgufFile) -> anyhow::Result<Vintage> {
    let metadata = file.metadata();
    for key in [
        "general.name",
        "general.basename",
        "general.version",
        "general.finetune",
    ] {
        let name = metadata.optional_bytes(key)?.map(String::from_utf8_lossy);
        if name.is_some_and(|name| Vintage::from_model_name(&name) == Vintage::Release0731) {
            return Ok(Vintage::Release0731);
        }
    }
    let mut names = file.paths().filter_map(|path| path.file_stem()?.to_str());
    let is_late = |name| Vintage::from_model_name(name) == Vintage::Release0731;
    Ok(if names.any(is_late) {
        Vintage::Release0731
    } else {
        Vintage::April
    })
}
