//! What is finished of an interrupted conversion.
//!
//! Beside the unfinished file lies a text file: `ds4-quantize 1 JOB`, then for each finished tensor a
//! line `HASH OFFSET BYTES NAME` with BLAKE3 hashes in hexadecimal. JOB stands for everything that decides
//! the output; a journal of another job is of no use. A line is appended after the tensor's bytes, and
//! the bytes are compared with the hash before they are relied on, so the order in which the system brings
//! them to disk does not matter. A last line that is cut off does not count.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ds4_gguf::TensorPlace;

use crate::error::{QuantizeError, io};

const MAGIC: &str = "ds4-quantize 1";

/// The journal of one output, locked against other processes.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Hash by tensor.
    finished: HashMap<String, blake3::Hash>,
}

impl Journal {
    /// Opens or begins the journal at `path` for the tensors at `places`.
    pub(crate) fn open(
        path: &Path,
        output: &Path,
        job: &blake3::Hash,
        places: &[TensorPlace],
    ) -> Result<Self, QuantizeError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io(path, "open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(QuantizeError::Busy {
                    path: output.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(path, "lock")(source)),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io(path, "read"))?;
        let head = format!("{MAGIC} {job}\n");
        let mut finished = HashMap::new();
        let mut end = 0;
        if text.starts_with(head.as_bytes()) {
            end = head.len();
            let by_name: HashMap<&str, &TensorPlace> = places
                .iter()
                .map(|place| (place.name.as_str(), place))
                .collect();
            for line in text[end..].split_inclusive(|&byte| byte == b'\n') {
                let Some((name, hash)) = parse(line, &by_name) else {
                    break;
                };
                finished.insert(name, hash);
                end += line.len();
            }
        }
        file.set_len(end as u64).map_err(io(path, "shorten"))?;
        file.seek(SeekFrom::End(0)).map_err(io(path, "seek in"))?;
        if end == 0 {
            file.write_all(head.as_bytes()).map_err(io(path, "write"))?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            finished,
        })
    }

    /// The hash of a tensor that is finished.
    pub(crate) fn finished(&self, name: &str) -> Option<&blake3::Hash> {
        self.finished.get(name)
    }

    /// Notes that a tensor is finished.
    pub(crate) fn append(
        &mut self,
        place: &TensorPlace,
        hash: &blake3::Hash,
    ) -> Result<(), QuantizeError> {
        let line = format!("{hash} {} {} {}\n", place.offset, place.bytes, place.name);
        self.file
            .write_all(line.as_bytes())
            .map_err(io(&self.path, "write"))
    }

    /// Removes the journal; the output is complete.
    pub(crate) fn remove(self) -> Result<(), QuantizeError> {
        std::fs::remove_file(&self.path).map_err(io(&self.path, "remove"))
    }
}

/// A whole line about a tensor of this job.
fn parse(line: &[u8], places: &HashMap<&str, &TensorPlace>) -> Option<(String, blake3::Hash)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let mut fields = line.splitn(4, ' ');
    let hash = blake3::Hash::from_hex(fields.next()?).ok()?;
    let offset: u64 = fields.next()?.parse().ok()?;
    let bytes: u64 = fields.next()?.parse().ok()?;
    let place = places.get(fields.next()?)?;
    (place.offset == offset && place.bytes == bytes).then(|| (place.name.clone(), hash))
}
