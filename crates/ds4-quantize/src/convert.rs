//! Carrying out a plan: streaming, in parallel over rows, resumable.
//!
//! A tensor is cut into units of rows. Threads read, decode and encode a wave of units; then the wave is
//! written in order. So memory holds one wave, and the bytes do not depend on the number of threads.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ds4_gguf::TensorPlace;
use ds4_quant::{TensorType, encode, encode_weighted};

use crate::blueprint::Role;
use crate::checkpoint::Checkpoint;
use crate::error::{QuantizeError, io};
use crate::journal::Journal;
use crate::plan::{Plan, PlannedTensor};
use crate::source::Form;

/// Elements that a unit has at most, unless a row or an FP8 tile of rows has more.
const UNIT_ELEMENTS: usize = 1 << 18;
/// Units of a wave for each thread: enough that the last to finish is not waited for long.
const UNITS_PER_THREAD: usize = 8;
/// Changes when the same plan gives other bytes than before, so that old journals are not gone on with.
const ENCODER_VERSION: u32 = 1;

/// How to carry out a plan.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// Threads that decode and encode.
    pub workers: NonZeroUsize,
    /// Replace an output that is there already.
    pub overwrite: bool,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            overwrite: false,
        }
    }
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// What an earlier run finished is being checked, or was.
    Checking {
        /// Tensor being checked.
        name: &'a str,
        /// Bytes of the output that are known to be good.
        bytes: u64,
    },
    /// A tensor is being made.
    Converting {
        /// Its name.
        name: &'a str,
        /// Its type.
        ty: TensorType,
        /// Bytes of the output that are done, those of this tensor included.
        bytes: u64,
    },
    /// All bytes are on their way to the disk.
    Syncing,
}

/// What a conversion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Tensors made in this run.
    pub converted: usize,
    /// Tensors taken over from an interrupted run.
    pub resumed: usize,
    /// Size of the file.
    pub bytes: u64,
}

/// Name under which an output lies until it is complete.
pub fn part_path(output: &Path) -> PathBuf {
    with_suffix(output, ".part")
}

/// Name of the journal of an incomplete output.
pub fn journal_path(output: &Path) -> PathBuf {
    with_suffix(output, ".part.journal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes the file that `plan` describes to `output`. An interrupted conversion of the same plan goes on
/// where it ended: at most the tensor in flight is lost. `cancel` stops it between two waves.
///
/// # Errors
/// A weight that the target type cannot hold, a file that cannot be read or written, an output that
/// exists, [`QuantizeError::Cancelled`].
pub fn convert(
    checkpoint: &Checkpoint,
    plan: &Plan,
    output: &Path,
    options: &ConvertOptions,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Summary, QuantizeError> {
    if !options.overwrite && output.try_exists().map_err(io(output, "look for"))? {
        return Err(QuantizeError::OutputExists {
            path: output.to_owned(),
        });
    }
    let layout = plan.layout();
    let job = {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&ENCODER_VERSION.to_le_bytes());
        hasher.update(plan.fingerprint(checkpoint)?.as_bytes());
        hasher.finalize()
    };
    let mut journal = Journal::open(&journal_path(output), output, &job, layout.tensors())?;
    let part = part_path(output);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&part)
        .map_err(io(&part, "open"))?;
    file.set_len(layout.file_bytes())
        .map_err(io(&part, "extend"))?;
    put(&mut file, &part, 0, layout.header())?;

    let mut done = layout.header().len() as u64;
    let mut resumed = 0;
    let mut missing = Vec::new();
    let ends = layout.tensors().iter().skip(1).map(|next| next.offset);
    let ends = ends.chain([layout.file_bytes()]);
    for ((tensor, place), end) in plan.tensors().iter().zip(layout.tensors()).zip(ends) {
        let is_good = match journal.finished(&place.name) {
            Some(expected) => {
                stop_if(cancel)?;
                progress(Progress::Checking {
                    name: &place.name,
                    bytes: done,
                });
                hash_of(&mut file, &part, place)? == *expected
            }
            None => false,
        };
        if is_good {
            done += place.bytes;
            resumed += 1;
        } else {
            missing.push((tensor, place, end));
        }
    }
    let converted = missing.len();
    for (tensor, place, end) in missing {
        let mut report = |written: u64| {
            progress(Progress::Converting {
                name: &place.name,
                ty: tensor.spec.ty,
                bytes: done + written,
            });
        };
        report(0);
        let work = Work {
            checkpoint,
            tensor,
            workers: options.workers,
            cancel,
        };
        let hash = work.write(&mut file, &part, place, &mut report)?;
        // Zeros up to the next tensor: the file may hold an earlier job's bytes.
        let written = place.offset + place.bytes;
        put(
            &mut file,
            &part,
            written,
            &vec![0; (end - written) as usize],
        )?;
        journal.append(place, &hash)?;
        done += place.bytes;
    }
    progress(Progress::Syncing);
    file.sync_all().map_err(io(&part, "bring to disk"))?;
    drop(file);
    fs::rename(&part, output).map_err(io(output, "move into place"))?;
    journal.remove()?;
    sync_folder(output)?;
    Ok(Summary {
        converted,
        resumed,
        bytes: layout.file_bytes(),
    })
}

fn stop_if(cancel: &AtomicBool) -> Result<(), QuantizeError> {
    match cancel.load(Ordering::Relaxed) {
        true => Err(QuantizeError::Cancelled),
        false => Ok(()),
    }
}

fn put(file: &mut File, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), QuantizeError> {
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.write_all(bytes))
        .map_err(io(path, "write"))
}

/// Hash of what lies at `place`.
fn hash_of(
    file: &mut File,
    path: &Path,
    place: &TensorPlace,
) -> Result<blake3::Hash, QuantizeError> {
    file.seek(SeekFrom::Start(place.offset))
        .map_err(io(path, "seek in"))?;
    let mut hasher = blake3::Hasher::new();
    let mut left = place.bytes;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let chunk = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..chunk])
            .map_err(io(path, "read"))?;
        hasher.update(&buffer[..chunk]);
        left -= chunk as u64;
    }
    Ok(hasher.finalize())
}

/// Makes the new name last a power cut.
fn sync_folder(output: &Path) -> Result<(), QuantizeError> {
    #[cfg(unix)]
    {
        let parent = output
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io(folder, "bring to disk"))?;
    }
    #[cfg(not(unix))]
    let _ = output;
    Ok(())
}

/// The bytes of a unit.
type Encoded = Result<Vec<u8>, QuantizeError>;

/// Rows of one matrix that are converted at a time.
#[derive(Debug, Clone, Copy)]
struct Unit {
    matrix: usize,
    first: usize,
    count: usize,
}

/// One tensor being made.
struct Work<'a> {
    checkpoint: &'a Checkpoint,
    tensor: &'a PlannedTensor,
    workers: NonZeroUsize,
    cancel: &'a AtomicBool,
}

impl Work<'_> {
    /// Writes the tensor to its place and gives the hash of its bytes.
    fn write(
        &self,
        file: &mut File,
        path: &Path,
        place: &TensorPlace,
        report: &mut dyn FnMut(u64),
    ) -> Result<blake3::Hash, QuantizeError> {
        let mut hasher = blake3::Hasher::new();
        let mut written = 0;
        let mut units = self.units();
        loop {
            stop_if(self.cancel)?;
            let wave: Vec<Unit> = units
                .by_ref()
                .take(self.workers.get() * UNITS_PER_THREAD)
                .collect();
            if wave.is_empty() {
                return Ok(hasher.finalize());
            }
            for bytes in self.encode_wave(&wave)? {
                hasher.update(&bytes);
                put(file, path, place.offset + written, &bytes)?;
                written += bytes.len() as u64;
            }
            report(written);
        }
    }

    fn units(&self) -> impl Iterator<Item = Unit> {
        let source = &self.tensor.source;
        let rows = source.rows_of_matrix();
        let matrices = source.rows() / rows;
        let step = (UNIT_ELEMENTS / source.columns().max(1))
            .max(1)
            .next_multiple_of(source.granularity());
        (0..matrices).flat_map(move |matrix| {
            (0..rows).step_by(step).map(move |first| Unit {
                matrix,
                first,
                count: step.min(rows - first),
            })
        })
    }

    /// The bytes of each unit, in order.
    fn encode_wave(&self, wave: &[Unit]) -> Result<Vec<Vec<u8>>, QuantizeError> {
        let workers = self.workers.get().min(wave.len());
        if workers == 1 {
            return wave.iter().map(|&unit| self.encode_unit(unit)).collect();
        }
        let next = AtomicUsize::new(0);
        let results: Vec<OnceLock<Encoded>> = wave.iter().map(|_| OnceLock::new()).collect();
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let (Some(&unit), Some(result)) = (wave.get(index), results.get(index)) else {
                    return;
                };
                // Nobody else has this index, so the place is empty.
                let _ = result.set(self.encode_unit(unit));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
        // A scope ends when all units are done, or passes on a thread's panic: no place is empty.
        results
            .into_iter()
            .map(|result| result.into_inner().unwrap_or(Err(QuantizeError::Cancelled)))
            .collect()
    }

    fn encode_unit(&self, unit: Unit) -> Encoded {
        let source = &self.tensor.source;
        let ty = self.tensor.spec.ty;
        if self.tensor.role == Role::HashTable {
            return self.expert_ids(unit);
        }
        let Unit {
            matrix,
            first,
            count,
        } = unit;
        if (source.form, ty) == (Form::Fp4, TensorType::Mxfp4) {
            return source.repacked_rows(self.checkpoint, matrix, first, count);
        }
        let mut weights = Vec::new();
        source.decode_rows(self.checkpoint, matrix, first, count, &mut weights)?;
        self.check_values(&weights, unit)?;
        let columns = source.columns();
        let mut bytes = vec![0; count * ty.row_bytes(columns)?];
        match &self.tensor.importance {
            Some(all) => {
                let start = if all.len() == columns {
                    0
                } else {
                    matrix * columns
                };
                encode_weighted(ty, &weights, &all[start..start + columns], &mut bytes)?;
            }
            None => encode(ty, &weights, &mut bytes)?,
        }
        Ok(bytes)
    }

    /// Refuses weights that no type can hold, and those that are too large for half precision.
    fn check_values(&self, weights: &[f32], unit: Unit) -> Result<(), QuantizeError> {
        let ty = self.tensor.spec.ty;
        // Halfway between the largest half (65504) and the next step, where rounding gives infinity.
        let limit = if ty == TensorType::F16 {
            65520.0
        } else {
            f32::INFINITY
        };
        let Some(at) = weights.iter().position(|x| x.is_nan() || x.abs() >= limit) else {
            return Ok(());
        };
        let source = &self.tensor.source;
        let row = unit.matrix * source.rows_of_matrix() + unit.first + at / source.columns();
        Err(QuantizeError::Value {
            name: self.tensor.spec.name.clone(),
            row: row as u64,
            index: at % source.columns(),
            value: weights[at],
            ty,
        })
    }

    fn expert_ids(&self, unit: Unit) -> Encoded {
        let source = &self.tensor.source;
        let experts = self.checkpoint.config().n_routed_experts;
        let ids = source.index_rows(self.checkpoint, unit.first, unit.count)?;
        let mut bytes = Vec::with_capacity(4 * ids.len());
        for (i, id) in ids.into_iter().enumerate() {
            if !(0..experts as i64).contains(&id) {
                return Err(QuantizeError::Expert {
                    name: self.tensor.spec.name.clone(),
                    index: (unit.first * source.columns() + i) as u64,
                    value: id,
                    last: experts - 1,
                });
            }
            bytes.extend((id as i32).to_le_bytes());
        }
        Ok(bytes)
    }
}
