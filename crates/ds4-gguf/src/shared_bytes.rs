//! Bytes of a mapped file that keep their mapping alive.

use std::fmt;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

#[cfg(unix)]
use crate::guard::Registration;

/// What the bytes lie in.
enum Backing {
    Map {
        /// Declared first: it must go before the mapping does.
        #[cfg(unix)]
        _registration: Option<Registration>,
        map: Mmap,
    },
    Static(&'static [u8]),
    Owned(Box<[u8]>),
}

impl Backing {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Map { map, .. } => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A range of a mapped file (or of a static or owned buffer), cheap to clone and to send to other
/// threads. The mapping lives as long as any of its ranges.
#[derive(Clone)]
pub struct SharedBytes {
    backing: Arc<Backing>,
    start: usize,
    len: usize,
}

/// The data of a tensor.
pub type TensorBytes = SharedBytes;

impl SharedBytes {
    /// Maps a file read-only.
    #[expect(unsafe_code, reason = "the one place where a file becomes memory")]
    pub(crate) fn map(file: &File, path: &Path) -> std::io::Result<Self> {
        // SAFETY: the mapping is read-only and private to readers through `&[u8]`. Another process that
        // changes the file under us could break that; no operating system offers a lock against it,
        // `GgufFile::check_unchanged` reports it and `guard` turns a truncation into a message.
        let map = unsafe { Mmap::map(file)? };
        #[cfg(not(unix))]
        let _ = path;
        let backing = Backing::Map {
            #[cfg(unix)]
            _registration: Registration::new(path, map.as_ptr().addr(), map.len()),
            map,
        };
        Ok(Self::whole(backing))
    }

    /// Bytes that are part of the program.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self::whole(Backing::Static(bytes))
    }

    fn whole(backing: Backing) -> Self {
        let len = backing.bytes().len();
        Self {
            backing: Arc::new(backing),
            start: 0,
            len,
        }
    }

    /// A part of these bytes; none when the range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        Some(Self {
            backing: Arc::clone(&self.backing),
            start: self.start + range.start,
            len: range.end - range.start,
        })
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.backing.bytes()[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::whole(Backing::Owned(bytes.into_boxed_slice()))
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len)
    }
}
