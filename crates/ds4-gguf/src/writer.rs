//! Writing a GGUF file in one pass: header, metadata and tensor list first, then the data.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::GgufError;
use crate::layout::{GgufLayout, TensorSpec};
use crate::metadata::Metadata;

/// Writes a file under a temporary name beside its place and moves it there when it is complete. A
/// writer that is dropped before [`GgufWriter::finish`] leaves nothing behind.
pub struct GgufWriter {
    out: BufWriter<NamedTempFile>,
    path: PathBuf,
    alignment: u64,
    /// Name and size of each tensor in order.
    tensors: Vec<(String, u64)>,
    /// Tensor being written, and how much of it is there.
    current: usize,
    written: u64,
}

impl GgufWriter {
    /// Starts a file at `path`. The data are aligned to `general.alignment` of the metadata, else 32.
    ///
    /// # Errors
    /// An impossible tensor (named), a bad alignment, or what the system says.
    pub fn create(
        path: &Path,
        metadata: &Metadata,
        tensors: &[TensorSpec],
    ) -> Result<Self, GgufError> {
        let layout = GgufLayout::new(&path.display().to_string(), metadata, tensors)?;
        let out = temporary(path).map_err(|source| io(path, "create the file", source))?;
        let mut writer = Self {
            out: BufWriter::with_capacity(1 << 20, out),
            path: path.to_owned(),
            alignment: layout.alignment,
            tensors: layout
                .tensors()
                .iter()
                .map(|place| (place.name.clone(), place.bytes))
                .collect(),
            current: 0,
            written: 0,
        };
        writer.put(layout.header())?;
        Ok(writer)
    }

    /// Writes a whole tensor. Tensors come in the order of the list given to [`GgufWriter::create`].
    ///
    /// # Errors
    /// [`GgufError::Write`] for another tensor or size than the next one's, [`GgufError::Io`].
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), GgufError> {
        let expected = self.remaining(name)?;
        if expected != bytes.len() as u64 || self.written != 0 {
            let problem = format!("it has {} bytes, expected {expected}", bytes.len());
            return Err(GgufError::Write {
                tensor: name.to_owned(),
                problem,
            });
        }
        self.write_part(name, bytes)
    }

    /// Writes the next bytes of a tensor, for data that do not fit memory at once.
    ///
    /// # Errors
    /// As [`GgufWriter::write_tensor`]; more bytes than the tensor still lacks are refused.
    pub fn write_part(&mut self, name: &str, bytes: &[u8]) -> Result<(), GgufError> {
        let left = self.remaining(name)?;
        let len = bytes.len() as u64;
        if len > left {
            let problem = format!("{len} more bytes, but it lacks only {left}");
            return Err(GgufError::Write {
                tensor: name.to_owned(),
                problem,
            });
        }
        self.put(bytes)?;
        self.written += len;
        if len == left {
            let padding = self.written.next_multiple_of(self.alignment) - self.written;
            self.put(&vec![0; padding as usize])?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Leaves out what tensor `name` still lacks: it reads as zeros, which take no space where the file
    /// system knows holes.
    ///
    /// # Errors
    /// As [`GgufWriter::write_tensor`].
    pub fn leave_hole(&mut self, name: &str) -> Result<(), GgufError> {
        let left = self.remaining(name)?;
        let end = (self.written + left).next_multiple_of(self.alignment);
        self.out
            .seek(SeekFrom::Current((end - self.written) as i64))
            .map_err(|source| io(&self.path, "leave a hole", source))?;
        self.current += 1;
        self.written = 0;
        Ok(())
    }

    /// Bytes that tensor `name` still lacks; it must be the next one.
    fn remaining(&self, name: &str) -> Result<u64, GgufError> {
        let problem = match self.tensors.get(self.current) {
            Some((expected, size)) if expected == name => return Ok(size - self.written),
            Some((expected, _)) => format!("the next tensor is `{expected}`"),
            None => "all tensors are written".to_owned(),
        };
        Err(GgufError::Write {
            tensor: name.to_owned(),
            problem,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        self.out
            .write_all(bytes)
            .map_err(|source| io(&self.path, "write", source))
    }

    /// Brings everything to disk and moves the file to its place, replacing what was there.
    ///
    /// # Errors
    /// [`GgufError::Write`] when a tensor is missing, [`GgufError::Io`].
    pub fn finish(mut self) -> Result<(), GgufError> {
        if let Some((name, size)) = self.tensors.get(self.current) {
            let problem = format!("{} of its {size} bytes are missing", size - self.written);
            return Err(GgufError::Write {
                tensor: name.clone(),
                problem,
            });
        }
        let path = self.path;
        let end = self
            .out
            .stream_position()
            .map_err(|source| io(&path, "write", source))?;
        let out = self
            .out
            .into_inner()
            .map_err(|error| io(&path, "write", error.into_error()))?;
        // The last tensor may be a hole.
        out.as_file()
            .set_len(end)
            .map_err(|source| io(&path, "write", source))?;
        out.as_file()
            .sync_all()
            .map_err(|source| io(&path, "bring to disk", source))?;
        out.persist(&path)
            .map_err(|error| io(&path, "move into place", error.error))?;
        sync_directory(&path)
    }
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> GgufError {
    GgufError::Io {
        path: path.to_owned(),
        action,
        source,
    }
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".gguf.tmp");
    #[cfg(unix)]
    {
        // As any new file, less the umask; the default would keep the file to its owner.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory(path))
}

/// Makes the new name last a power cut.
fn sync_directory(path: &Path) -> Result<(), GgufError> {
    #[cfg(unix)]
    {
        std::fs::File::open(directory(path))
            .and_then(|directory| directory.sync_all())
            .map_err(|source| io(path, "bring the directory to disk", source))?;
    }
    Ok(())
}
