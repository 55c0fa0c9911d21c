//! Servers that fail, for a while or for good.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ds4_download::{DownloadError, Presence, presence};

use crate::fixture::{LENGTH, PIECE, fails, good, names_of, run, settings, source, succeeds};
use crate::server::{Reply, Request, Server, content};

#[test]
fn a_stalled_connection_is_left() {
    let started = Instant::now();
    let (_, told) = succeeds(|request, data| Reply {
        stall: request
            .number
            .is_multiple_of(4)
            .then_some((1000, Duration::from_secs(15))),
        ..good(request, data)
    });
    assert!(
        told.retries
            .iter()
            .any(|reason| reason.contains("nothing arrived")),
        "{told:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn failures_that_pass_are_waited_for() {
    for status in [408, 416, 429, 500, 502, 503, 504] {
        let (_, told) = succeeds(move |request, data| {
            if matches!(request.number, 1 | 4 | 7) {
                Reply::status(status)
            } else {
                good(request, data)
            }
        });
        if status != 416 {
            assert!(
                told.retries
                    .iter()
                    .any(|reason| reason.contains(&status.to_string())),
                "{told:?}"
            );
        }
    }
}

#[test]
fn retry_after_is_honoured_within_reason() {
    for is_date in [false, true] {
        let asked = if is_date {
            httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2))
        } else {
            "1".to_owned()
        };
        let started = Instant::now();
        succeeds(move |request, data| {
            if request.number == 0 {
                Reply::status(429).with("Retry-After", &asked)
            } else {
                good(request, data)
            }
        });
        // A date has whole seconds only.
        assert!(
            started.elapsed() >= Duration::from_millis(900),
            "{:?}",
            started.elapsed()
        );
    }
    let (server, error, _) = fails(|_, _| Reply::status(503).with("Retry-After", "86400"));
    assert!(
        matches!(error, DownloadError::Wait { seconds: 86400, .. }),
        "{error}"
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_server_that_stays_down_is_given_up_and_the_next_run_goes_on() {
    let data = Arc::new(content(LENGTH, 7));
    let served = Arc::clone(&data);
    let is_down = Arc::new(AtomicBool::new(false));
    let (down, answered) = (Arc::clone(&is_down), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        if answered.fetch_add(1, Ordering::SeqCst) == 6 {
            down.store(true, Ordering::SeqCst);
        }
        if down.load(Ordering::SeqCst) {
            return Reply::status(500);
        }
        good(request, &served)
    });
    let directory = tempfile::tempdir().unwrap();
    let (source, settings) = (source(&data), settings(&server.url()));
    let (result, _) = run(&source, directory.path(), &settings);
    let error = result.unwrap_err();
    assert!(
        matches!(error, DownloadError::Unreachable { attempts: 4, .. }),
        "{error}"
    );
    let Presence::Unfinished { arrived, length } = presence(&source, directory.path()) else {
        panic!("it is gone");
    };
    // The probe and five pieces.
    assert_eq!((arrived, length), (5 * PIECE as u64, LENGTH as u64));

    is_down.store(false, Ordering::SeqCst);
    let sent = server.sent();
    let (result, told) = run(&source, directory.path(), &settings);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), *data);
    assert_eq!(told.resumed, [arrived]);
    assert_eq!(server.sent() - sent, LENGTH as u64 - arrived + 1);
}

#[test]
fn garbage_instead_of_http_is_survived() {
    let garbage = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = garbage.local_addr().unwrap();
    thread::spawn(move || {
        for stream in garbage.incoming().take(4) {
            let mut stream = stream.unwrap();
            let _ = std::io::Write::write_all(&mut stream, &[0xff; 5000]);
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let (result, _) = run(
        &source(b""),
        directory.path(),
        &settings(&format!("http://{address}")),
    );
    assert!(
        matches!(result, Err(DownloadError::Unreachable { .. })),
        "{result:?}"
    );
}

#[test]
fn refusals_and_empty_files_are_told_at_once() {
    for (status, expected) in [
        (401, "access denied"),
        (403, "access denied"),
        (404, "no such file"),
        (410, "no such file"),
        (418, "418"),
    ] {
        let (server, error, names) = fails(move |_, _| Reply::status(status));
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!((server.requests().len(), names.len()), (1, 0));
    }
    for empty in [good, |_, _| Reply::status(200)] as [fn(&Request, &[u8]) -> Reply; 2] {
        let (_, error, _) = fails(move |request, _| empty(request, b""));
        assert!(error.to_string().contains("empty"), "{error}");
    }
}

#[test]
fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let directory = tempfile::tempdir().unwrap();
    let (result, told) = run(
        &source(b""),
        directory.path(),
        &settings(&format!("http://{address}")),
    );
    assert!(
        matches!(result, Err(DownloadError::Unreachable { attempts: 4, .. })),
        "{result:?}"
    );
    assert_eq!((told.retries.len(), names_of(directory.path())), (3, 0));
}

/// Whatever a server does, the file is right or there is none, and a good server finishes it.
#[test]
fn random_misbehaviour_never_gives_a_wrong_file() {
    for seed in 1..25_u64 {
        let data = Arc::new(content(LENGTH, seed));
        let served = Arc::clone(&data);
        let is_good = Arc::new(AtomicBool::new(false));
        let good_now = Arc::clone(&is_good);
        let server = Server::start(move |request| {
            let reply = good(request, &served);
            let dice = content(8, seed * 1000 + request.number as u64);
            if good_now.load(Ordering::SeqCst) || dice[0] > 160 {
                return reply;
            }
            let length = reply.body.len();
            match dice[1] % 10 {
                0 => Reply {
                    cut_after: Some(usize::from(dice[2]) * 64),
                    ..reply
                },
                1 => Reply {
                    stated_length: Some(length / 2),
                    ..reply
                },
                2 => Reply {
                    chunked: true,
                    body: vec![0; length + 1],
                    ..reply
                },
                3 => Reply::status(503),
                4 => Reply {
                    body: served.to_vec(),
                    ..Reply::status(200)
                },
                5 => reply.with("Content-Range", format!("bytes 7-8/{LENGTH}")),
                6 => Reply::status(416),
                7 => reply.with("ETag", "\"other\""),
                8 => Reply {
                    body: vec![0; length],
                    ..reply
                },
                _ => Reply {
                    stated_length: Some(0),
                    cut_after: Some(0),
                    ..reply
                },
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let (source, settings) = (source(&data), settings(&server.url()));
        let target = directory.path().join("tiny.gguf");
        for attempt in 0..4 {
            is_good.store(attempt >= 2, Ordering::SeqCst);
            match run(&source, directory.path(), &settings).0 {
                Ok(summary) => assert_eq!(fs::read(summary.path).unwrap(), *data, "seed {seed}"),
                Err(error) => {
                    assert!(!target.exists(), "seed {seed}: {error}");
                    // Bytes that an earlier run took from a liar are found out at the end, and removed.
                    let late = matches!(error, DownloadError::WrongHash { .. });
                    assert!(attempt < 2 || attempt == 2 && late, "seed {seed}: {error}");
                }
            }
        }
        assert!(target.exists());
    }
}
