//! A model: one GGUF file or all parts of a split one.

use std::collections::HashMap;
use std::fs::{File, FileType, Metadata as FileMetadata, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{GgufError, SplitProblem};
use crate::header::{Parsed, TensorInfo, parse};
use crate::metadata::Metadata;
use crate::shared_bytes::{SharedBytes, TensorBytes};

/// An open file and what it was when it was opened.
struct Part {
    name: String,
    path: PathBuf,
    /// None for data that is part of the program.
    file: Option<(File, Stamp)>,
    size: u64,
}

/// What changes when somebody writes to a file.
#[derive(PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &FileMetadata) -> Self {
        Self {
            size: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// A GGUF model, memory-mapped and checked: every tensor lies inside its file, on its alignment,
/// apart from the others, and has the size that its type and dimensions ask for.
pub struct GgufFile {
    parts: Vec<Part>,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
}

impl GgufFile {
    /// Opens a file. Any part of a split model (`NAME-00001-of-00003.gguf`) opens all of them.
    ///
    /// # Errors
    /// Everything that [`GgufError`] lists for reading.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let (part, bytes) = open_part(path)?;
        let parsed = parse(&part.name, &bytes, 0)?;
        let count = parsed.metadata.optional_u64(SPLIT_COUNT)?.unwrap_or(1);
        if count <= 1 {
            return Self::assemble(vec![(part, parsed)]);
        }
        let file = part.name.clone();
        let paths = part_paths(path, count).ok_or(GgufError::Split {
            file,
            problem: SplitProblem::Name { count },
        })?;
        drop((part, parsed, bytes));
        let mut parts = Vec::new();
        for (i, path) in paths.enumerate() {
            let (part, bytes) = open_part(&path)?;
            let parsed = parse(&part.name, &bytes, i)?;
            check_part(&part.name, &parsed.metadata, SPLIT_COUNT, count)?;
            check_part(&part.name, &parsed.metadata, SPLIT_NO, i as u64)?;
            parts.push((part, parsed));
        }
        let total = parts
            .iter()
            .map(|(_, parsed)| parsed.tensors.len() as u64)
            .sum();
        if let Some((part, parsed)) = parts.first()
            && parsed.metadata.get(SPLIT_TENSORS).is_some()
        {
            check_part(&part.name, &parsed.metadata, SPLIT_TENSORS, total)?;
        }
        Self::assemble(parts)
    }

    /// Reads a model that is part of the program. `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`GgufFile::open`]; split models are refused.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, GgufError> {
        Self::from_bytes(name, SharedBytes::from_static(bytes))
    }

    /// Reads a model that is already in memory. `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`GgufFile::open`]; split models are refused.
    pub fn from_bytes(name: &str, bytes: SharedBytes) -> Result<Self, GgufError> {
        let parsed = parse(name, &bytes, 0)?;
        let count = parsed.metadata.optional_u64(SPLIT_COUNT)?.unwrap_or(1);
        if count > 1 {
            let problem = SplitProblem::NoPath { count };
            return Err(GgufError::Split {
                file: name.to_owned(),
                problem,
            });
        }
        let size = bytes.len() as u64;
        let part = Part {
            name: name.to_owned(),
            path: PathBuf::from(name),
            file: None,
            size,
        };
        Self::assemble(vec![(part, parsed)])
    }

    fn assemble(read: Vec<(Part, Parsed)>) -> Result<Self, GgufError> {
        let mut model = Self {
            parts: Vec::new(),
            metadata: Metadata::new(),
            tensors: Vec::new(),
            index: HashMap::new(),
        };
        for (i, (part, parsed)) in read.into_iter().enumerate() {
            for tensor in parsed.tensors {
                if let Some(&other) = model.index.get(&tensor.name) {
                    let other = model.parts[model.tensors[other].part].name.clone();
                    let problem = SplitProblem::Duplicate {
                        tensor: tensor.name,
                        other,
                    };
                    return Err(GgufError::Split {
                        file: part.name,
                        problem,
                    });
                }
                model.index.insert(tensor.name.clone(), model.tensors.len());
                model.tensors.push(tensor);
            }
            if i == 0 {
                model.metadata = parsed.metadata;
            }
            model.parts.push(part);
        }
        Ok(model)
    }

    /// The metadata; of a split model, those of its first part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// The data of a tensor, which stay mapped as long as they are held.
    pub fn bytes(&self, tensor: &TensorInfo) -> TensorBytes {
        tensor.data.clone()
    }

    /// Size of the file in bytes; of a split model, of all its parts.
    pub fn file_size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }

    /// Paths of the file or of its parts; for data in memory, the name given.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }

    /// Whether the files are still what they were when they were opened, by size and time of change.
    ///
    /// # Errors
    /// [`GgufError::Changed`], or [`GgufError::Io`] when a file cannot be asked.
    pub fn check_unchanged(&self) -> Result<(), GgufError> {
        for part in &self.parts {
            let Some((file, opened)) = &part.file else {
                continue;
            };
            let now = file.metadata().map_err(|source| GgufError::Io {
                path: part.path.clone(),
                action: "ask for the size",
                source,
            })?;
            let now = Stamp::of(&now);
            if now.size != opened.size {
                return Err(GgufError::Changed {
                    path: part.path.clone(),
                    change: format!("its size went from {} to {} bytes", opened.size, now.size),
                });
            }
            if now != *opened {
                return Err(GgufError::Changed {
                    path: part.path.clone(),
                    change: "it was written to".to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgufFile")
            .field("paths", &self.paths().collect::<Vec<_>>())
            .field("metadata", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

fn check_part(
    file: &str,
    metadata: &Metadata,
    key: &'static str,
    expected: u64,
) -> Result<(), GgufError> {
    let found = metadata.u64(key)?;
    if found == expected {
        return Ok(());
    }
    let problem = SplitProblem::Mismatch {
        key,
        found,
        expected,
    };
    Err(GgufError::Split {
        file: file.to_owned(),
        problem,
    })
}

/// The paths of all parts, from the path of one of them; none when its name is not
/// `PREFIX-00001-of-00003.gguf` with the right count.
fn part_paths(path: &Path, count: u64) -> Option<impl Iterator<Item = PathBuf>> {
    let name = path.file_name()?.to_str()?;
    let prefix = name.strip_suffix(&format!("-of-{count:05}.gguf"))?;
    let (prefix, number) = prefix.rsplit_once('-')?;
    let number_is_valid = number.len() >= 5
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && number
            .parse::<u64>()
            .is_ok_and(|number| (1..=count).contains(&number));
    if !number_is_valid {
        return None;
    }
    let (path, prefix) = (path.to_owned(), prefix.to_owned());
    Some(
        (1..=count)
            .map(move |i| path.with_file_name(format!("{prefix}-{i:05}-of-{count:05}.gguf"))),
    )
}

/// Opens and maps one file. Never waits: a FIFO is refused and not read.
fn open_part(path: &Path) -> Result<(Part, SharedBytes), GgufError> {
    let failed = |action| {
        move |source| GgufError::Io {
            path: path.to_owned(),
            action,
            source,
        }
    };
    let check = |metadata: &FileMetadata| {
        if metadata.is_file() {
            return Ok(());
        }
        Err(GgufError::NotAFile {
            path: path.to_owned(),
            kind: kind(metadata.file_type()),
        })
    };
    // Asked before opening, since opening a device can do something, and again after it, since the
    // path may have been replaced in between.
    check(&std::fs::metadata(path).map_err(failed("open the model file"))?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    }
    let file = options.open(path).map_err(failed("open the model file"))?;
    let metadata = file.metadata().map_err(failed("ask for the size"))?;
    check(&metadata)?;
    let stamp = Stamp::of(&metadata);
    let bytes = if stamp.size == 0 {
        SharedBytes::from_static(&[])
    } else {
        SharedBytes::map(&file, path).map_err(failed("map the model file into memory"))?
    };
    let size = bytes.len() as u64;
    let name = path.display().to_string();
    Ok((
        Part {
            name,
            path: path.to_owned(),
            file: Some((file, stamp)),
            size,
        },
        bytes,
    ))
}

fn kind(file_type: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "a named pipe";
        }
        if file_type.is_socket() {
            return "a socket";
        }
        if file_type.is_block_device() || file_type.is_char_device() {
            return "a device";
        }
    }
    if file_type.is_dir() {
        "a directory"
    } else {
        "not a regular file"
    }
}
