//! What can go wrong with a download.

use std::path::{Path, PathBuf};

use crate::digest::Sha256Hash;

/// Error of a download. URLs in it have no query, which may hold a signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The operating system refused something.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or directory concerned.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// A text that names no published file.
    #[error("`{text}` names no published file: {problem}")]
    Source {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The endpoint is no URL of a server.
    #[error("endpoint `{endpoint}`: {problem}")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The proxy cannot be used. Its URL may hold a password and is not repeated.
    #[error("the proxy cannot be used: expected a URL like `http://host:port`")]
    Proxy,
    /// The token has characters that do not fit into a header. It is not repeated.
    #[error("the token has characters that no token has")]
    Token,
    /// There is too little space for the file.
    #[error(
        "{}: {missing} bytes are missing: the download takes {needed} more, {free} are free",
        directory.display()
    )]
    DiskSpace {
        /// Where the file was to go.
        directory: PathBuf,
        /// Bytes still needed.
        needed: u64,
        /// Bytes free for this user.
        free: u64,
        /// What would have to be freed.
        missing: u64,
    },
    /// The disk filled up on the way.
    #[error("{}: the disk is full; {missing} bytes are missing", path.display())]
    DiskFull {
        /// The unfinished file.
        path: PathBuf,
        /// Bytes of the file that are not on disk.
        missing: u64,
    },
    /// Another process downloads the same file.
    #[error("{}: another process is downloading this file", path.display())]
    Busy {
        /// The file that both want.
        path: PathBuf,
    },
    /// A file of another size has the name already.
    #[error(
        "{}: there is a file of {found} bytes, the published one has {expected}",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size it should have.
        expected: u64,
    },
    /// Something that is no file has the name.
    #[error("{}: this is {kind}, not a file", path.display())]
    NotAFile {
        /// What is in the way.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The server could not be reached, or kept failing.
    #[error("{url}: {reason} ({attempts} attempts)")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The last failure.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server asked to wait for longer than is reasonable.
    #[error("{url}: the server asks to wait for {seconds} seconds")]
    Wait {
        /// What was asked for.
        url: String,
        /// How long.
        seconds: u64,
    },
    /// The server does not give the file to this user.
    #[error("{url}: access denied ({status})")]
    Denied {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// There is no such file on the server.
    #[error("{url}: there is no such file ({status})")]
    NotFound {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The server gave an answer that makes no sense.
    #[error("{url}: {problem}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The connection is not secure.
    #[error("{url}: no secure connection: {problem}")]
    Tls {
        /// What was asked for.
        url: String,
        /// What is wrong with the server's certificate.
        problem: String,
    },
    /// The published file has another size than expected.
    #[error("{url}: the server has {found} bytes, expected {expected}")]
    Length {
        /// The file on the server.
        url: String,
        /// Its size.
        found: u64,
        /// The size it should have.
        expected: u64,
    },
    /// The published file has another hash than expected.
    #[error("{url}: the server's file has the SHA-256 {found}, expected {expected}")]
    Republished {
        /// The file on the server.
        url: String,
        /// The hash that the server states.
        found: Sha256Hash,
        /// The hash it should have.
        expected: Sha256Hash,
    },
    /// Nobody says what the file's hash is.
    #[error("{url}: the server does not state the SHA-256 of the file")]
    NoHash {
        /// The file on the server.
        url: String,
    },
    /// The file on the server changed again and again.
    #[error("{url}: the file keeps changing on the server")]
    Changing {
        /// The file on the server.
        url: String,
    },
    /// The bytes are not those that were published. A download that ends so is removed.
    #[error("{}: the SHA-256 is {found}, expected {expected}", path.display())]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// Its hash.
        found: Sha256Hash,
        /// The hash it should have.
        expected: Sha256Hash,
    },
    /// The caller asked to stop. What has arrived stays for the next run.
    #[error("the download was stopped")]
    Cancelled,
}

/// For `map_err` of system calls.
pub(crate) fn io(
    path: &Path,
    action: &'static str,
) -> impl FnOnce(std::io::Error) -> DownloadError {
    move |source| DownloadError::Io {
        path: path.to_owned(),
        action,
        source,
    }
}
