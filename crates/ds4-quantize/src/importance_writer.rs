//! Writing what was collected for an importance matrix, in either of its formats.

use std::io::{BufWriter, Write};
use std::path::Path;

use ds4_gguf::{Array, GgufWriter, Metadata, TensorSpec};
use ds4_quant::TensorType;
use tempfile::NamedTempFile;

use crate::error::{QuantizeError, io};
use crate::importance::{COUNTS, SUMS, UNSEEN};

/// Sums of squares of the inputs that one weight, or several with the same inputs, met.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectedInputs {
    /// GGUF names of the weights.
    pub names: Vec<String>,
    /// Width of an input.
    pub columns: usize,
    /// `[matrices, columns]`: sums of squares.
    pub sums: Vec<f64>,
    /// `[matrices]`: inputs that each matrix met.
    pub counts: Vec<u64>,
}

impl CollectedInputs {
    /// Nothing seen so far, for `matrices` stacked matrices of `columns` columns.
    pub fn new(names: Vec<String>, columns: usize, matrices: usize) -> Self {
        Self {
            names,
            columns,
            sums: vec![0.0; columns * matrices],
            counts: vec![0; matrices],
        }
    }

    /// Counts an input of matrix `matrix`. A matrix that is not there, or an input of another width, counts
    /// for nothing.
    pub fn add(&mut self, matrix: usize, input: &[f32]) {
        let start = matrix * self.columns;
        let (Some(sums), Some(count)) = (
            self.sums.get_mut(start..start + self.columns),
            self.counts.get_mut(matrix),
        ) else {
            return;
        };
        if input.len() == sums.len() {
            for (sum, &x) in sums.iter_mut().zip(input) {
                *sum += f64::from(x) * f64::from(x);
            }
            *count += 1;
        }
    }

    /// Mean squares, `[matrices, columns]`; 1 for a matrix that met no input.
    pub fn means(&self) -> impl Iterator<Item = f32> + '_ {
        let rows = self.sums.chunks_exact(self.columns.max(1));
        rows.zip(&self.counts).flat_map(|(sums, &count)| {
            sums.iter().map(move |&sum| match count {
                0 => UNSEEN,
                count => (sum / count as f64) as f32,
            })
        })
    }
}

/// Everything that was collected on a text.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectedImportance {
    /// In the order of the forward pass.
    pub inputs: Vec<CollectedInputs>,
    /// Name of the text.
    pub dataset: String,
    /// Pieces that it was run in.
    pub chunks: u32,
    /// Longest piece in tokens.
    pub chunk_tokens: u32,
}

impl CollectedImportance {
    /// Writes a file beside its place and moves it there when it is complete and on disk: llama.cpp's GGUF
    /// form if `path` ends in `.gguf`, else its older `.dat`.
    ///
    /// # Errors
    /// A number that the format cannot hold, or what the system says.
    pub fn write(&self, path: &Path) -> Result<(), QuantizeError> {
        if path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
        {
            self.write_gguf(path)
        } else {
            self.write_dat(path)
        }
    }

    fn write_gguf(&self, path: &Path) -> Result<(), QuantizeError> {
        let mut metadata = Metadata::new();
        metadata.insert("general.type", "imatrix")?;
        metadata.insert("imatrix.datasets", Array::of_strings([&self.dataset]))?;
        metadata.insert("imatrix.chunk_count", self.chunks)?;
        metadata.insert("imatrix.chunk_size", self.chunk_tokens)?;
        let named = || {
            let inputs = self.inputs.iter();
            inputs.flat_map(|inputs| inputs.names.iter().map(move |name| (name, inputs)))
        };
        let mut specs = Vec::new();
        for (name, inputs) in named() {
            let matrices = inputs.counts.len() as u64;
            for (ending, columns) in [(SUMS, inputs.columns as u64), (COUNTS, 1)] {
                specs.push(TensorSpec {
                    name: format!("{name}{ending}"),
                    dims: vec![columns, matrices],
                    ty: TensorType::F32,
                });
            }
        }
        let mut writer = GgufWriter::create(path, &metadata, &specs)?;
        for (name, inputs) in named() {
            let sums = inputs.sums.iter().map(|&sum| sum as f32);
            let counts = inputs.counts.iter().map(|&count| count as f32);
            writer.write_tensor(&format!("{name}{SUMS}"), &bytes_of(sums))?;
            writer.write_tensor(&format!("{name}{COUNTS}"), &bytes_of(counts))?;
        }
        Ok(writer.finish()?)
    }

    fn write_dat(&self, path: &Path) -> Result<(), QuantizeError> {
        let number = |number: usize| {
            i32::try_from(number).map_err(|_| QuantizeError::Importance {
                path: path.to_owned(),
                problem: format!("the .dat format cannot hold the number {number}; choose .gguf"),
            })
        };
        let mut header = number(self.inputs.iter().map(|inputs| inputs.names.len()).sum())?
            .to_le_bytes()
            .to_vec();
        let mut file = BufWriter::with_capacity(1 << 20, temporary(path)?);
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(io(path, "write"));
        for inputs in &self.inputs {
            let values = bytes_of(inputs.means());
            for name in &inputs.names {
                header.extend(number(name.len())?.to_le_bytes());
                header.extend(name.as_bytes());
                header.extend(1_i32.to_le_bytes());
                header.extend(number(inputs.sums.len())?.to_le_bytes());
                put(&header)?;
                put(&values)?;
                header.clear();
            }
        }
        header.extend(number(self.chunks as usize)?.to_le_bytes());
        header.extend(number(self.dataset.len())?.to_le_bytes());
        header.extend(self.dataset.as_bytes());
        put(&header)?;
        let file = file
            .into_inner()
            .map_err(|error| io(path, "write")(error.into_error()))?;
        file.as_file()
            .sync_all()
            .map_err(io(path, "bring to disk"))?;
        file.persist(path)
            .map_err(|error| io(path, "move into place")(error.error))?;
        #[cfg(unix)]
        std::fs::File::open(folder(path))
            .and_then(|folder| folder.sync_all())
            .map_err(io(path, "bring the directory to disk"))?;
        Ok(())
    }
}

fn bytes_of(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn temporary(path: &Path) -> Result<NamedTempFile, QuantizeError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".imatrix.tmp");
    // As any new file, less the umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
        .tempfile_in(folder(path))
        .map_err(io(path, "create the file"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ImportanceMatrix;

    #[test]
    fn both_formats_give_back_the_mean_squares() {
        let mut single = CollectedInputs::new(vec!["a".to_owned(), "b".to_owned()], 2, 1);
        single.add(0, &[1.0, -2.0]);
        single.add(0, &[3.0, 0.0]);
        let mut experts = CollectedInputs::new(vec!["experts".to_owned()], 2, 3);
        experts.add(2, &[0.5, 4.0]);
        experts.add(0, &[2.0, 0.0]);
        experts.add(3, &[9.0, 9.0]);
        experts.add(1, &[9.0]);
        let collected = CollectedImportance {
            inputs: vec![single, experts],
            dataset: "a text".to_owned(),
            chunks: 7,
            chunk_tokens: 2,
        };
        let folder = tempfile::tempdir().unwrap();
        for name in ["out.dat", "out.gguf"] {
            let path = folder.path().join(name);
            fs::write(&path, "an older file").unwrap();
            collected.write(&path).unwrap();
            let matrix = ImportanceMatrix::open(&path).unwrap();
            assert_eq!(matrix.len(), 3, "{name}");
            assert_eq!(
                (matrix.dataset(), matrix.chunks()),
                (Some("a text"), Some(7))
            );
            for (tensor, matrices, expected) in [
                ("a", 1, &[5.0, 2.0][..]),
                ("b", 1, &[5.0, 2.0]),
                ("experts", 3, &[4.0, 0.0, 1.0, 1.0, 0.25, 16.0]),
            ] {
                let found = matrix.columns(tensor, 2, matrices).unwrap();
                assert_eq!(found, Some(expected), "{name} {tensor}");
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
