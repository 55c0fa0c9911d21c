//! Writing the file of a model.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ds4_gguf::{GgufFile, GgufLayout, GgufWriter, Metadata, TensorBytes, TensorSpec};

use crate::error::SyntheticError;
use crate::metadata;
use crate::model::SyntheticModel;
use crate::tensors::{RowPools, Tensor, main_tensors, mtp_tensors};

/// Tensors above this size become holes in a sparse file.
const HOLE_BYTES: u64 = 4 << 20;

/// How a file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The file of the MTP block instead of the main model's.
    pub mtp: bool,
    /// Leave the large tensors out of the file: the system reads zeros there, which take no space. The
    /// embedding and the routers are written, so that tokens differ and meet different experts.
    pub sparse: bool,
}

/// How a caller follows and stops the writing.
pub struct WriteControl<'a> {
    /// Set from anywhere to stop; nothing is left behind then.
    pub cancel: &'a AtomicBool,
    /// Called with the bytes done and the bytes of the file.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

/// A file before it is written.
struct Plan {
    metadata: Metadata,
    tensors: Vec<Tensor>,
    specs: Vec<TensorSpec>,
    layout: GgufLayout,
}

impl SyntheticModel {
    fn plan(&self, mtp: bool, name: &str) -> Result<Plan, SyntheticError> {
        self.check()?;
        let (metadata, tensors) = if mtp {
            (metadata::mtp(self)?, mtp_tensors(self))
        } else {
            (metadata::main(self)?, main_tensors(self))
        };
        let specs: Vec<_> = tensors.iter().map(Tensor::spec).collect();
        Ok(Plan {
            layout: GgufLayout::new(name, &metadata, &specs)?,
            metadata,
            tensors,
            specs,
        })
    }

    /// Size of the file, and what of it a file written so takes on the disk, in bytes.
    ///
    /// # Errors
    /// A shape that contradicts itself.
    pub fn file_bytes(&self, options: WriteOptions) -> Result<(u64, u64), SyntheticError> {
        let plan = self.plan(options.mtp, &self.name)?;
        let size = plan.layout.file_bytes();
        let places = plan.tensors.iter().zip(plan.layout.tensors());
        let holes: u64 = places
            .filter(|(tensor, place)| options.sparse && is_hole(tensor, place.bytes))
            .map(|(_, place)| place.bytes)
            .sum();
        Ok((size, size - holes))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// A shape that contradicts itself, what the system says, or [`SyntheticError::Cancelled`].
    pub fn write_with(
        &self,
        path: &Path,
        options: WriteOptions,
        control: &mut WriteControl<'_>,
    ) -> Result<(), SyntheticError> {
        let plan = self.plan(options.mtp, &path.display().to_string())?;
        let total = plan.layout.file_bytes();
        let mut writer = GgufWriter::create(path, &plan.metadata, &plan.specs)?;
        let mut pools = RowPools::default();
        for (tensor, place) in plan.tensors.iter().zip(plan.layout.tensors()) {
            let mut done = place.offset;
            if options.sparse && is_hole(tensor, place.bytes) {
                writer.leave_hole(&tensor.name)?;
                continue;
            }
            tensor.encode(&mut pools, &mut |part| {
                if control.cancel.load(Ordering::Relaxed) {
                    return Err(SyntheticError::Cancelled);
                }
                writer.write_part(&tensor.name, part)?;
                done += part.len() as u64;
                (control.progress)(done, total);
                Ok(())
            })?;
        }
        writer.finish()?;
        (control.progress)(total, total);
        Ok(())
    }

    /// Writes the main model.
    ///
    /// # Errors
    /// A shape that contradicts itself, or what the system says.
    pub fn write(&self, path: &Path) -> Result<(), SyntheticError> {
        self.write_quietly(path, false)
    }

    /// Writes the file of an MTP block for the model, in the model's dialect.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_mtp(&self, path: &Path) -> Result<(), SyntheticError> {
        self.write_quietly(path, true)
    }

    fn write_quietly(&self, path: &Path, mtp: bool) -> Result<(), SyntheticError> {
        let mut control = WriteControl {
            cancel: &AtomicBool::new(false),
            progress: &mut |_, _| {},
        };
        let options = WriteOptions { mtp, sparse: false };
        self.write_with(path, options, &mut control)
    }

    /// The main model's file as bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn bytes(&self) -> Result<Vec<u8>, SyntheticError> {
        in_folder(|path| self.write(path))
    }

    /// The main model, opened.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn file(&self) -> Result<GgufFile, SyntheticError> {
        let bytes = TensorBytes::from(self.bytes()?);
        Ok(GgufFile::from_bytes(&self.name, bytes)?)
    }

    /// The MTP block, opened.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn mtp_file(&self) -> Result<GgufFile, SyntheticError> {
        let bytes = in_folder(|path| self.write_mtp(path))?;
        Ok(GgufFile::from_bytes(&self.name, TensorBytes::from(bytes))?)
    }
}

fn is_hole(tensor: &Tensor, bytes: u64) -> bool {
    let is_needed = tensor.name == "token_embd.weight" || tensor.name.contains("ffn_gate_inp");
    bytes > HOLE_BYTES && !is_needed
}

fn in_folder(
    write: impl FnOnce(&Path) -> Result<(), SyntheticError>,
) -> Result<Vec<u8>, SyntheticError> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("synthetic.gguf");
    write(&path)?;
    Ok(std::fs::read(path)?)
}
