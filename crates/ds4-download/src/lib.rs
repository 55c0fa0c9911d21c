//! Published model files to disk.
//!
//! [`CATALOGUE`] names the files, [`Source`] says where one of them lies, [`download`] brings it to a
//! directory: over several connections, resumable after a kill, verified by SHA-256 before the file gets its
//! name.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::atomic::AtomicBool;
//!
//! use ds4_download::{Settings, download, find};
//!
//! let entry = find("deepseek-v4-flash").expect("it is in the catalogue");
//! let (settings, never) = (Settings::default(), AtomicBool::new(false));
//! let summary = download(&entry.source(), Path::new("models"), &settings, &never, &mut |_| {})?;
//! println!("{}", summary.path.display());
//! # Ok::<(), ds4_download::DownloadError>(())
//! ```
//!
//! What a server says is not trusted: lengths, ranges, redirects and entity tags are checked against each
//! other and against the catalogue, and only the hash decides that a file is right.
//!
//! The crate deliberately does not print, read the environment, or know what is in a model file.

#![forbid(unsafe_code)]

mod backoff;
mod catalogue;
mod client;
mod digest;
mod download;
mod error;
mod location;
mod part_file;
mod ranges;
mod settings;
mod source;
mod state;
mod transfer;

pub use catalogue::{CATALOGUE, Entry, find};
pub use digest::{NotAHash, Sha256Hash};
pub use download::{
    Presence, Progress, Summary, download, part_path, presence, state_path, verify,
};
pub use error::DownloadError;
pub use part_file::free_space;
pub use settings::{Proxy, RetryPolicy, Settings};
pub use source::Source;
