//! Typed access to golden tensors.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};

/// Path of a file in this crate's `data/`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name)
}

/// Numbers with a shape, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Vec<T>,
}

impl<T> Array<T> {
    /// Elements below the first dimension.
    pub fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Everything at `index` of the first dimension.
    pub fn row(&self, index: usize) -> &[T] {
        &self.values[index * self.width()..(index + 1) * self.width()]
    }
}

/// A safetensors file.
pub struct Golden {
    name: String,
    bytes: Vec<u8>,
}

impl Golden {
    /// Reads a file of `data/`.
    ///
    /// # Errors
    /// No such file.
    pub fn open(name: &str) -> Result<Self> {
        let bytes = std::fs::read(path(name)).with_context(|| format!("golden file {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            bytes,
        })
    }

    fn tensor<const N: usize>(&self, key: &str, dtype: Dtype) -> Result<Array<[u8; N]>> {
        let file = SafeTensors::deserialize(&self.bytes)
            .with_context(|| format!("golden file {}", self.name))?;
        let view = file
            .tensor(key)
            .with_context(|| format!("{} of {}", key, self.name))?;
        ensure!(
            view.dtype() == dtype,
            "{key} of {} is {:?}, expected {dtype:?}",
            self.name,
            view.dtype()
        );
        Ok(Array {
            shape: view.shape().to_vec(),
            values: view.data().as_chunks().0.to_vec(),
        })
    }

    /// Whether there is a tensor of that name.
    ///
    /// # Errors
    /// A file that is no safetensors file.
    pub fn has(&self, key: &str) -> Result<bool> {
        Ok(SafeTensors::deserialize(&self.bytes)?.tensor(key).is_ok())
    }

    /// Singles.
    ///
    /// # Errors
    /// A missing key or another type.
    pub fn floats(&self, key: &str) -> Result<Array<f32>> {
        Ok(self.tensor(key, Dtype::F32)?.map(f32::from_le_bytes))
    }

    /// Doubles.
    ///
    /// # Errors
    /// A missing key or another type.
    pub fn doubles(&self, key: &str) -> Result<Array<f64>> {
        Ok(self.tensor(key, Dtype::F64)?.map(f64::from_le_bytes))
    }

    /// Bytes, 16-bit or 32-bit integers.
    ///
    /// # Errors
    /// A missing key or another type.
    pub fn integers(&self, key: &str) -> Result<Array<i64>> {
        if let Ok(array) = self.tensor(key, Dtype::I32) {
            return Ok(array.map(|bytes| i32::from_le_bytes(bytes).into()));
        }
        if let Ok(array) = self.tensor(key, Dtype::I16) {
            return Ok(array.map(|bytes| i16::from_le_bytes(bytes).into()));
        }
        if let Ok(array) = self.tensor(key, Dtype::U8) {
            return Ok(array.map(|[byte]| byte.into()));
        }
        bail!("{} has no integers `{key}`", self.name)
    }
}

impl<T: Copy> Array<T> {
    fn map<U>(&self, convert: impl Fn(T) -> U) -> Array<U> {
        Array {
            shape: self.shape.clone(),
            values: self.values.iter().map(|&value| convert(value)).collect(),
        }
    }
}
