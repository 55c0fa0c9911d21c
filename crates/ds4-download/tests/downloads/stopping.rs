//! Downloads that are stopped.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ds4_download::{DownloadError, Presence, Settings, Source, presence};

use crate::fixture::{LENGTH, PIECE, good, names_of, run, settings, source};
use crate::server::{Reply, Server, content};

/// Runs and cancels as soon as `is_time` says so.
fn cancelled(
    source: &Source,
    directory: &Path,
    settings: &Settings,
    is_time: impl Fn() -> bool + Send,
) -> Duration {
    let cancel = AtomicBool::new(false);
    thread::scope(|scope| {
        let run = scope
            .spawn(|| ds4_download::download(source, directory, settings, &cancel, &mut |_| {}));
        while !is_time() {
            thread::sleep(Duration::from_millis(2));
        }
        cancel.store(true, Ordering::SeqCst);
        let since = Instant::now();
        let result = run.join().unwrap();
        assert!(
            matches!(result, Err(DownloadError::Cancelled)),
            "{result:?}"
        );
        since.elapsed()
    })
}

#[test]
fn a_stop_loses_nothing_that_has_arrived() {
    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| Reply {
        speed: Some(100),
        ..good(request, &served)
    });
    let directory = tempfile::tempdir().unwrap();
    let (source, settings) = (source(&data), settings(&server.url()));
    cancelled(&source, directory.path(), &settings, || {
        server.sent() > 4 * PIECE as u64
    });
    let Presence::Unfinished { arrived, .. } = presence(&source, directory.path()) else {
        panic!("it is gone");
    };
    // All but what was in the sockets, 8 KiB for each connection on the server's side.
    assert!(arrived + 6 * 8192 > 4 * PIECE as u64, "{arrived}");
    let sent = server.sent();
    let (result, told) = run(&source, directory.path(), &settings);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data);
    assert_eq!(told.resumed, [arrived]);
    assert!(server.sent() - sent <= LENGTH as u64 - arrived + 1 + 6 * 8192);
}

#[test]
fn a_stop_does_not_wait_for_a_server_that_hangs() {
    let data = content(LENGTH, 7);
    for hangs_at_once in [true, false] {
        let served = data.clone();
        let server = Server::start(move |request| Reply {
            stall: (hangs_at_once || !request.is_probe()).then_some((0, Duration::from_secs(20))),
            ..good(request, &served)
        });
        let settings = Settings {
            read_timeout: Duration::from_secs(20),
            ..settings(&server.url())
        };
        let directory = tempfile::tempdir().unwrap();
        let asked = if hangs_at_once { 1 } else { 3 };
        let took = cancelled(&source(&data), directory.path(), &settings, || {
            server.requests().len() >= asked
        });
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(names_of(directory.path()), 0);
    }
}
