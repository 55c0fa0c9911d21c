//! What all tests share.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ds4_download::{DownloadError, Progress, RetryPolicy, Settings, Source, Summary};

use crate::server::{Reply, Request, Server, content, sha256};

pub(crate) const PIECE: usize = 32 << 10;

pub(crate) const LENGTH: usize = 10 * PIECE + 123;

pub(crate) fn settings(endpoint: &str) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        connections: 3,
        range_bytes: PIECE as u64,
        connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_secs(1),
        retry: RetryPolicy {
            attempts: 4,
            first_wait: Duration::from_millis(2),
            longest_wait: Duration::from_millis(10),
            longest_asked: Duration::from_secs(2),
        },
        ..Settings::default()
    }
}

pub(crate) fn source(data: &[u8]) -> Source {
    Source {
        sha256: Some(sha256(data).parse().unwrap()),
        ..unpinned()
    }
}

pub(crate) fn unpinned() -> Source {
    "owner/models:folder/tiny.gguf".parse().unwrap()
}

/// Things that were told while it ran.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) resumed: Vec<u64>,
    pub(crate) started_over: Vec<(String, u64)>,
    pub(crate) retries: Vec<String>,
}

pub(crate) fn run(
    source: &Source,
    directory: &Path,
    settings: &Settings,
) -> (Result<Summary, DownloadError>, Told) {
    let mut told = Told::default();
    let result = ds4_download::download(
        source,
        directory,
        settings,
        &AtomicBool::new(false),
        &mut |progress| match progress {
            Progress::Started { resumed, .. } => told.resumed.push(resumed),
            Progress::StartingOver { reason, discarded } => {
                told.started_over.push((reason.to_owned(), discarded));
            }
            Progress::Retrying { reason, .. } => told.retries.push(reason.to_owned()),
            Progress::Transferring { arrived, total } => assert!(arrived <= total),
            _ => {}
        },
    );
    (result, told)
}

/// The names in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn names_of(directory: &Path) -> usize {
    names(directory).len()
}

/// Runs against a server that answers so, and expects the whole file and nothing else on disk.
#[track_caller]
pub(crate) fn succeeds(
    answer: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static,
) -> (Server, Told) {
    let data = Arc::new(content(LENGTH, 7));
    let served = Arc::clone(&data);
    let server = Server::start(move |request| answer(request, &served));
    let directory = tempfile::tempdir().unwrap();
    let (result, told) = run(&source(&data), directory.path(), &settings(&server.url()));
    let summary = result.unwrap();
    assert_eq!(fs::read(&summary.path).unwrap(), *data);
    assert_eq!(summary.sha256, source(&data).sha256);
    assert_eq!(names(directory.path()), ["tiny.gguf"]);
    (server, told)
}

/// Runs against a server that answers so, and expects a failure that leaves no file under the final name.
#[track_caller]
pub(crate) fn fails(
    answer: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static,
) -> (Server, DownloadError, Vec<String>) {
    let data = Arc::new(content(LENGTH, 7));
    let served = Arc::clone(&data);
    let server = Server::start(move |request| answer(request, &served));
    let directory = tempfile::tempdir().unwrap();
    let (result, _) = run(&source(&data), directory.path(), &settings(&server.url()));
    let names = names(directory.path());
    assert!(!names.contains(&"tiny.gguf".to_owned()));
    (server, result.unwrap_err(), names)
}

pub(crate) fn good(request: &Request, data: &[u8]) -> Reply {
    Reply::file(data, "one", request)
}
