//! NumPy's file format for one matrix of singles (NEP 1, version 1.0).

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

use crate::output_file::OutputFile;

/// Writes `[rows, columns]` F32, row by row. The file appears whole, when it is finished.
pub(crate) struct NpyWriter {
    file: OutputFile,
}

impl NpyWriter {
    /// Begins the file that will be at `path`.
    pub(crate) fn create(path: &Path, rows: usize, columns: usize) -> anyhow::Result<Self> {
        let mut file = OutputFile::create(path)?;
        file.write_all(&header(rows, columns))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self { file })
    }

    /// Appends a row.
    pub(crate) fn write_row(&mut self, row: &[f32]) -> io::Result<()> {
        for value in row {
            self.file.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    }

    /// Puts the file in its place.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.file.finish()
    }
}

/// Magic, version, length of what follows, and a Python dictionary, padded so that data begin at
/// a multiple of 64.
fn header(rows: usize, columns: usize) -> Vec<u8> {
    let mut dictionary =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    const BEFORE: usize = 10;
    let length = (BEFORE + dictionary.len() + 1).next_multiple_of(64) - BEFORE;
    dictionary.push_str(&" ".repeat(length - 1 - dictionary.len()));
    dictionary.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    // Two numbers of at most 20 digits: far below 64 KiB.
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(dictionary.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_numpy_writes() {
        // np.save(…, np.zeros((3, 7), np.float32))
        let mut expected = b"\x93NUMPY\x01\x00v\x00".to_vec();
        expected.extend(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 7), }");
        expected.resize(127, b' ');
        expected.push(b'\n');
        assert_eq!(header(3, 7), expected);
    }
}
