//! A disk that fills up on the way, which no file system does on demand.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::state::Identity;

#[path = "../../tests/downloads/server.rs"]
mod server;

use server::{Reply, Server, content, sha256};

#[test]
fn a_full_disk_ends_the_transfer_and_keeps_what_has_arrived() {
    let data = Arc::new(content(100_000, 1));
    let served = Arc::clone(&data);
    let server = Server::start(move |request| Reply::file(&served, "x", request));
    let source: crate::Source = "o/r:f.gguf".parse().unwrap();
    let settings = Settings {
        endpoint: server.url(),
        connections: 1,
        range_bytes: 10_000,
        ..Settings::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let (part_path, state_path) = (
        directory.path().join("part"),
        directory.path().join("state"),
    );
    let client = Arc::new(Client::new(&source, &settings).unwrap());
    let part = Arc::new(PartFile::open(&part_path).unwrap());
    let mut state = State::open(&state_path, &part_path).unwrap();
    let identity = Identity {
        length: 100_000,
        sha256: String::new(),
        etag: None,
    };
    state.reset(identity).unwrap();
    part.reserve(100_000).unwrap();
    let cancel = AtomicBool::new(false);
    let transfer_to = |state, disk_end| {
        part.disk_end.store(disk_end, Relaxed);
        let transfer = Transfer {
            client: Arc::clone(&client),
            remote: client.probe().unwrap(),
            part: Arc::clone(&part),
            state,
        };
        run(transfer, &settings, &cancel, &mut |_| {})
    };

    let (state, outcome) = transfer_to(state, 34_000);
    let Outcome::Failed(DownloadError::DiskFull { missing, .. }) = outcome else {
        panic!("the disk was full");
    };
    let state = state.unwrap();
    assert_eq!(missing, 70_000);
    assert!(state.finished().prefix() >= 30_000);
    let sent = server.sent();
    let (state, outcome) = transfer_to(state, u64::MAX);
    assert!(matches!(outcome, Outcome::Complete(hash) if hash.to_string() == sha256(&data)));
    assert_eq!(state.unwrap().finished().prefix(), 100_000);
    assert!(
        server.sent() - sent <= 70_001,
        "it loaded again what it had"
    );
    assert_eq!(fs::read(&part_path).unwrap(), *data);
}
