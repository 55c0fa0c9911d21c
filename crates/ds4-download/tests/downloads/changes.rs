//! Files that change on the server.

use std::fs;
use std::path::Path;

use ds4_download::{DownloadError, state_path};

use crate::fixture::{LENGTH, PIECE, fails, good, names, run, settings, source};
use crate::server::{Reply, Server, content};

/// Half of the file arrives, then the server has another file.
fn interrupted(directory: &Path, data: &[u8], etag: &'static str) {
    let served = data.to_vec();
    let server = Server::start(move |request| match request.number {
        0..5 => Reply::file(&served, etag, request),
        _ => Reply::status(404),
    });
    let (result, _) = run(&source(data), directory, &settings(&server.url()));
    assert!(
        matches!(result, Err(DownloadError::NotFound { .. })),
        "{result:?}"
    );
    assert!(state_path(&directory.join("tiny.gguf")).exists());
}

#[test]
fn another_entity_tag_than_last_time_starts_over() {
    let directory = tempfile::tempdir().unwrap();
    let data = content(LENGTH, 7);
    interrupted(directory.path(), &data, "one");
    let served = data.clone();
    let server = Server::start(move |request| Reply::file(&served, "two", request));
    let (result, told) = run(&source(&data), directory.path(), &settings(&server.url()));
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data);
    let [(reason, discarded)] = &told.started_over[..] else {
        panic!("{told:?}");
    };
    assert!(
        reason.contains("entity tag") && *discarded == 4 * PIECE as u64,
        "{told:?}"
    );
    assert_eq!(
        (told.resumed.as_slice(), server.sent()),
        (&[0][..], LENGTH as u64 + 1)
    );
}

#[test]
fn another_file_than_last_time_starts_over() {
    let directory = tempfile::tempdir().unwrap();
    interrupted(directory.path(), &content(LENGTH, 7), "one");
    let data = content(LENGTH / 2, 8);
    let served = data.clone();
    let server = Server::start(move |request| Reply::file(&served, "one", request));
    let (result, told) = run(&source(&data), directory.path(), &settings(&server.url()));
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data);
    assert_eq!(told.started_over.len(), 1);
}

#[test]
fn a_file_that_changes_under_way_starts_over() {
    let old = content(LENGTH, 1);
    let new = content(LENGTH + 5, 2);
    let served = new.clone();
    let server = Server::start(move |request| match request.number {
        0..6 => Reply::file(&old, "one", request),
        _ => Reply::file(&served, "two", request),
    });
    let directory = tempfile::tempdir().unwrap();
    let (result, told) = run(&source(&new), directory.path(), &settings(&server.url()));
    assert_eq!(fs::read(result.unwrap().path).unwrap(), new);
    assert_eq!(told.started_over.len(), 1, "{told:?}");
    assert_eq!(names(directory.path()), ["tiny.gguf"]);
}

#[test]
fn a_file_that_never_stays_the_same_is_given_up() {
    let (server, error, _) =
        fails(|request, data| Reply::file(data, &request.number.to_string(), request));
    assert!(matches!(error, DownloadError::Changing { .. }), "{error}");
    assert!(server.requests().len() < 60);
}

#[test]
fn a_wrong_hash_leaves_nothing() {
    let (_, error, names) = fails(|request, data| {
        let mut data = data.to_vec();
        data[LENGTH / 2] ^= 1;
        good(request, &data)
    });
    assert!(matches!(error, DownloadError::WrongHash { .. }), "{error}");
    assert_eq!(names, [""; 0]);
}
