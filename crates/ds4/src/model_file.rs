//! Finding the model that the user means.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ds4_gguf::GgufFile;
use ds4_model::{ModelShape, bind};

use crate::built_in_model;
use crate::directories::DataDirectory;
use crate::failure::Hint;
use crate::output::Output;
use crate::table::bytes;

/// An open model file and what to call it.
pub(crate) struct ModelFile {
    pub(crate) file: GgufFile,
    /// How the user would name it.
    pub(crate) label: String,
    pub(crate) is_built_in: bool,
    /// A file of its own with the MTP block.
    pub(crate) mtp: Option<GgufFile>,
}

impl ModelFile {
    /// Opens what `--model` says, or the built-in model.
    ///
    /// A value is a path if it has a separator, ends in `.gguf` or is the name of a file here;
    /// otherwise it is the name of a model in the models directory.
    pub(crate) fn open(choice: Option<&str>) -> anyhow::Result<Self> {
        match choice {
            None => Self::built_in(),
            Some(name) if is_path(name) => Self::at(Path::new(name), name.to_owned()),
            Some(built_in_model::NAME) => Self::built_in(),
            Some(name) => Self::named(name),
        }
    }

    fn built_in() -> anyhow::Result<Self> {
        let file = GgufFile::from_static(built_in_model::NAME, built_in_model::bytes())?;
        Ok(Self {
            file,
            label: built_in_model::NAME.to_owned(),
            is_built_in: true,
            mtp: None,
        })
    }

    fn at(path: &Path, label: String) -> anyhow::Result<Self> {
        let file = GgufFile::open(path)?;
        Ok(Self {
            file,
            label,
            is_built_in: false,
            mtp: None,
        })
    }

    fn named(name: &str) -> anyhow::Result<Self> {
        let directory = DataDirectory::of_user()?.models();
        match find(&directory, name) {
            Some(path) => Self::at(&path, name.to_owned()),
            None => Err(anyhow!(
                "no model `{name}`: looked for a file `{name}` here and for `{name}.gguf` in `{}`",
                directory.display()
            ))
            .hint(|| {
                if let Some(entry) = ds4_download::find(name) {
                    let size = bytes(entry.length);
                    return format!("`ds4 download {name}` fetches it, {size}");
                }
                let models = ds4_download::CATALOGUE
                    .iter()
                    .filter(|entry| entry.is_model);
                let known: Vec<&str> = models.map(|entry| entry.name).collect();
                let (built_in, known) = (built_in_model::NAME, known.join(", "));
                format!(
                    "put the file there, or give its path; known names are {built_in}, {known}; \
                     `ds4 download` fetches them"
                )
            }),
        }
    }

    /// Opens the file that `--mtp` names.
    pub(crate) fn open_mtp(&mut self, choice: Option<&str>) -> anyhow::Result<()> {
        if let Some(name) = choice {
            self.mtp = Some(Self::open(Some(name))?.file);
        }
        Ok(())
    }

    /// Whether it has an MTP block, in a file of its own or in the model's.
    pub(crate) fn has_mtp(&self, shape: &ModelShape) -> bool {
        self.mtp.is_some() || bind::has_mtp(&self.file, shape)
    }

    /// The label, and that the weights are random where they are.
    pub(crate) fn title(&self) -> String {
        if self.is_synthetic() {
            format!("{} (synthetic: random weights)", self.label)
        } else {
            self.label.clone()
        }
    }

    /// Whether the file says that its weights are random.
    pub(crate) fn is_synthetic(&self) -> bool {
        matches!(
            self.file.metadata().optional_bool(ds4_synthetic::MARK),
            Ok(Some(true))
        )
    }

    /// Says on standard error what is not a real model.
    pub(crate) fn introduce(&self, output: &mut Output) {
        if self.is_synthetic() {
            output.note(&format!(
                "`{}` is synthetic: its weights are random, and what it says means nothing",
                self.label
            ));
        }
        if self.is_built_in {
            output.note(
                "using the built-in ds4-nano, a small demonstration model that knows a little \
                 about ds4; `--model` takes a real one",
            );
        }
    }

    /// Refuses to go on with a file that changed under the program.
    pub(crate) fn check_unchanged(&self) -> anyhow::Result<()> {
        Ok(self.file.check_unchanged()?)
    }
}

fn is_path(name: &str) -> bool {
    name.contains(std::path::is_separator)
        || name.to_ascii_lowercase().ends_with(".gguf")
        || Path::new(name).exists()
}

/// `NAME.gguf`, the first part of a split `NAME-00001-of-….gguf`, or the published file of that name.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let whole = directory.join(format!("{name}.gguf"));
    if whole.exists() {
        return Some(whole);
    }
    if let Some(entry) = ds4_download::find(name) {
        let published = directory.join(entry.file);
        if published.exists() {
            return Some(published);
        }
    }
    let first_part = format!("{name}-00001-of-");
    let entries = fs::read_dir(directory).ok()?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            let file_name = path.file_name().and_then(|name| name.to_str());
            file_name.is_some_and(|name| name.starts_with(&first_part) && name.ends_with(".gguf"))
        })
}

/// Reads a whole text file, or standard input for `-`.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)
            .context("cannot read standard input")?;
        bytes
    } else {
        fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow!(
            "`{}` is not UTF-8 text: byte {at} begins no character",
            path.display()
        )
    })
}
