//! Downloads from a server that misbehaves.

mod server;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ds4_download::{
    DownloadError, Presence, Progress, RetryPolicy, Settings, Source, Summary, part_path, presence,
    state_path,
};
use server::{Reply, Request, Server, content, sha256};

const PIECE: usize = 32 << 10;
const LENGTH: usize = 10 * PIECE + 123;

fn settings(endpoint: &str) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        connections: 3,
        range_bytes: PIECE as u64,
        connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_millis(300),
        retry: RetryPolicy {
            attempts: 4,
            first_wait: Duration::from_millis(2),
            longest_wait: Duration::from_millis(10),
            longest_asked: Duration::from_secs(2),
        },
        ..Settings::default()
    }
}

fn source(data: &[u8]) -> Source {
    Source {
        sha256: Some(sha256(data).parse().unwrap()),
        ..unpinned()
    }
}

fn unpinned() -> Source {
    "owner/models:folder/tiny.gguf".parse().unwrap()
}

/// Things that were told while it ran.
#[derive(Debug, Default)]
struct Told {
    resumed: Vec<u64>,
    started_over: Vec<(String, u64)>,
    retries: Vec<String>,
}

fn run(
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
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs against a server that answers so, and expects the whole file and nothing else on disk.
#[track_caller]
fn succeeds(answer: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> (Server, Told) {
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
fn fails(
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

fn good(request: &Request, data: &[u8]) -> Reply {
    Reply::file(data, "one", request)
}

#[test]
fn every_byte_is_asked_for_once() {
    let (server, told) = succeeds(good);
    assert_eq!((told.resumed.as_slice(), told.retries.len()), (&[0][..], 0));
    let mut ranges: Vec<_> = server
        .requests()
        .iter()
        .filter(|request| !request.is_probe())
        .map(|request| request.range().unwrap())
        .collect();
    ranges.sort_by_key(|range| range.start);
    assert_eq!(ranges.len(), 11);
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!((ranges[0].start, ranges[10].end), (0, LENGTH));
    assert_eq!(server.sent(), LENGTH as u64 + 1);
    let first = &server.requests()[0];
    assert_eq!(first.target, "/owner/models/resolve/main/folder/tiny.gguf");
    assert_eq!(first.header("accept-encoding"), Some("identity"));
    assert_eq!(first.header("authorization"), None);
}

#[test]
fn several_connections_work_at_a_time() {
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let counted = Arc::clone(&running);
    succeeds(move |request, data| {
        let (now, most) = &*counted;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(10));
        now.fetch_sub(1, Ordering::SeqCst);
        good(request, data)
    });
    assert_eq!(running.1.load(Ordering::SeqCst), 3);
}

#[test]
fn cut_off_bodies_are_continued_where_they_ended() {
    let (server, _) = succeeds(|request, data| Reply {
        cut_after: (!request.is_probe()).then_some(20_000),
        ..good(request, data)
    });
    // Nothing is sent twice.
    assert_eq!(server.sent(), LENGTH as u64 + 1);
}

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
            if request.number % 3 == 1 {
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
fn the_token_goes_to_the_hub_alone() {
    let data = Arc::new(content(LENGTH, 7));
    let served = Arc::clone(&data);
    let files = Server::start(move |request| good(request, &served));
    let target = format!("{}/blob?signature=1", files.url());
    let hash = sha256(&data);
    let hub = Server::start(move |request| {
        if request.target.starts_with("/owner") {
            // As hubs do for repositories that were renamed.
            return Reply::status(307).with("Location", "/renamed/tiny.gguf");
        }
        Reply::status(302)
            .with("Location", &target)
            .with("X-Linked-Etag", format!("\"{hash}\""))
            .with("X-Linked-Size", LENGTH)
    });
    let settings = Settings {
        token: Some("hf_secret".to_owned()),
        ..settings(&hub.url())
    };
    let directory = tempfile::tempdir().unwrap();
    // The hub states the hash.
    let (result, _) = run(&unpinned(), directory.path(), &settings);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), *data);
    let authorization = |request: &Request| request.header("authorization").map(str::to_owned);
    let at_hub: Vec<_> = hub.requests().iter().map(authorization).collect();
    assert_eq!(
        at_hub,
        [
            Some("Bearer hf_secret".to_owned()),
            Some("Bearer hf_secret".to_owned())
        ]
    );
    assert!(files.requests().len() > 10);
    assert!(
        files
            .requests()
            .iter()
            .all(|request| authorization(request).is_none())
    );
}

#[test]
fn an_expired_address_is_asked_for_again() {
    let data = Arc::new(content(LENGTH, 7));
    let served = Arc::clone(&data);
    // Every signature is good for four requests.
    let uses = Mutex::new(std::collections::HashMap::<String, usize>::new());
    let files = Server::start(move |request| {
        let mut uses = uses.lock().unwrap();
        let used = uses.entry(request.target.clone()).or_default();
        *used += 1;
        if *used > 4 {
            return Reply::status(403);
        }
        good(request, &served)
    });
    let address = files.url();
    let hub = Server::start(move |request| {
        Reply::status(302).with(
            "Location",
            format!("{address}/blob?signature={}", request.number),
        )
    });
    let directory = tempfile::tempdir().unwrap();
    let (result, told) = run(&source(&data), directory.path(), &settings(&hub.url()));
    assert_eq!(fs::read(result.unwrap().path).unwrap(), *data);
    assert_eq!(told.started_over, []);
    assert!(hub.requests().len() >= 4, "{}", hub.requests().len());
}

#[test]
fn redirects_that_lead_nowhere_are_refused() {
    for (target, problem) in [
        (
            Some("/owner/models/resolve/main/folder/tiny.gguf"),
            "in circles",
        ),
        (Some("file:///etc/passwd"), "redirects wrongly"),
        (Some("http://"), "redirects wrongly"),
        (None, "to nowhere"),
    ] {
        let (_, error, names) = fails(move |_, _| {
            let reply = Reply::status(302);
            match target {
                Some(target) => reply.with("Location", target),
                None => reply,
            }
        });
        assert!(error.to_string().contains(problem), "{error}");
        assert_eq!(names, [""; 0]);
    }
}

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
fn a_server_without_ranges_will_do() {
    let whole = |data: &[u8]| Reply {
        body: data.to_vec(),
        ..Reply::status(200)
    };
    let (server, told) = succeeds(move |_, data| whole(data));
    assert_eq!((told.started_over.len(), told.retries.len()), (0, 0));
    // The probe's answer is not read to its end.
    assert_eq!(server.requests().len(), 2);
    // Cut off, it begins from the start each time, and each time brings more.
    succeeds(move |request, data| Reply {
        cut_after: Some(70_000 * request.number),
        ..whole(data)
    });
}

#[test]
fn lies_about_lengths_and_ranges_are_survived_or_told() {
    // Lies that pass.
    succeeds(|request, data| Reply {
        stated_length: request.number.is_multiple_of(3).then_some(PIECE + 999),
        ..good(request, data)
    });
    succeeds(
        |request, data| match (request.number % 3, request.range()) {
            (1, Some(range)) if range.len() > 100 => Reply {
                stated_length: Some(100),
                cut_after: Some(100),
                ..good(request, data)
            },
            _ => good(request, data),
        },
    );
    succeeds(|request, data| match request.number % 3 {
        1 => good(request, data).with("Content-Range", format!("bytes 0-9/{LENGTH}")),
        _ => good(request, data),
    });
    succeeds(|request, data| match request.number % 3 {
        1 => good(request, data).with("Content-Range", "nonsense"),
        _ => good(request, data),
    });
    // A shorter range than asked for is allowed.
    succeeds(|request, data| match request.range() {
        Some(range) if range.len() > 1000 => {
            let range = range.start..range.start + 1000 + range.len() / 2;
            Reply {
                body: data[range.clone()].to_vec(),
                ..Reply::status(206)
            }
            .with("ETag", "\"one\"")
            .with(
                "Content-Range",
                format!("bytes {}-{}/{LENGTH}", range.start, range.end - 1),
            )
        }
        _ => good(request, data),
    });
    // More than promised: the bytes are not taken.
    succeeds(
        |request, data| match (request.number % 3, request.range()) {
            (1, Some(range)) => {
                let mut reply = good(request, data);
                reply.body = vec![0xee; range.len() + 1];
                reply.chunked = true;
                reply
            }
            _ => good(request, data),
        },
    );
    // Lies that stay.
    let (_, error, _) = fails(|request, data| match request.is_probe() {
        true => good(request, data),
        false => good(request, data).with("Content-Range", "bytes 1-2/3"),
    });
    assert!(
        matches!(error, DownloadError::Unreachable { .. }),
        "{error}"
    );
    let (_, error, _) = fails(|_, data| {
        let reply = Reply::status(206).with("Content-Range", "bytes 0-0/9223372036854775807");
        Reply {
            body: data[..1].to_vec(),
            ..reply
        }
    });
    assert!(matches!(error, DownloadError::DiskSpace { .. }), "{error}");
    let (_, error, _) = fails(|request, data| good(request, data).with("X-Linked-Size", 5));
    assert!(
        error.to_string().contains("the hub states 5 bytes"),
        "{error}"
    );
    let (_, error, _) = fails(|request, data| good(request, data).with("Content-Encoding", "gzip"));
    assert!(error.to_string().contains("packs"), "{error}");
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
fn a_wrong_hash_leaves_nothing() {
    let (_, error, names) = fails(|request, data| {
        let mut data = data.to_vec();
        data[LENGTH / 2] ^= 1;
        good(request, &data)
    });
    assert!(matches!(error, DownloadError::WrongHash { .. }), "{error}");
    assert_eq!(names, [""; 0]);
}

#[test]
fn what_the_hub_contradicts_is_not_begun() {
    let (server, error, names) = fails(|request, data| {
        good(request, data).with("X-Linked-Etag", format!("\"{}\"", sha256(b"")))
    });
    assert!(
        matches!(error, DownloadError::Republished { .. }),
        "{error}"
    );
    assert_eq!((server.requests().len(), names.len()), (1, 0));

    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| good(request, &served));
    let directory = tempfile::tempdir().unwrap();
    let longer = Source {
        length: Some(LENGTH as u64 + 1),
        ..source(&data)
    };
    let (result, _) = run(&longer, directory.path(), &settings(&server.url()));
    let error = result.unwrap_err();
    assert!(
        matches!(error, DownloadError::Length { found, expected, .. } if found + 1 == expected),
        "{error}"
    );
    let (result, _) = run(&unpinned(), directory.path(), &settings(&server.url()));
    assert!(
        matches!(result, Err(DownloadError::NoHash { .. })),
        "{result:?}"
    );
    assert_eq!(names_of(directory.path()), 0);
}

fn names_of(directory: &Path) -> usize {
    names(directory).len()
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

#[test]
fn a_finished_file_is_not_loaded_again() {
    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| good(request, &served));
    let directory = tempfile::tempdir().unwrap();
    let known = Source {
        length: Some(LENGTH as u64),
        ..source(&data)
    };
    let settings = settings(&server.url());
    assert_eq!(presence(&known, directory.path()), Presence::Missing);
    run(&known, directory.path(), &settings).0.unwrap();
    // Killed between renaming and tidying up.
    fs::write(state_path(&directory.path().join("tiny.gguf")), "{}").unwrap();
    let asked = server.requests().len();
    let (result, _) = run(&known, directory.path(), &settings);
    assert!(result.unwrap().was_there);
    assert_eq!(
        (server.requests().len(), names_of(directory.path())),
        (asked, 1)
    );
    let never = AtomicBool::new(false);
    let verify = || ds4_download::verify(&known, directory.path(), &settings, &never, &mut |_| {});
    verify().unwrap();

    let path = directory.path().join("tiny.gguf");
    let mut damaged = data.clone();
    damaged[9] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert!(matches!(verify(), Err(DownloadError::WrongHash { .. })));
    assert_eq!(fs::read(&path).unwrap(), damaged);
    fs::write(&path, "short").unwrap();
    let (result, _) = run(&known, directory.path(), &settings);
    assert!(
        matches!(result, Err(DownloadError::Exists { found: 5, .. })),
        "{result:?}"
    );
    assert_eq!(presence(&known, directory.path()), Presence::InTheWay);
    assert_eq!(fs::read(&path).unwrap(), b"short");
}

#[test]
fn links_are_followed_only_where_they_lead_to_the_file() {
    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| good(request, &served));
    let settings = settings(&server.url());
    let known = Source {
        length: Some(LENGTH as u64),
        ..source(&data)
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "precious").unwrap();

    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("tiny.gguf");
    for link in [part_path(&target), state_path(&target), target.clone()] {
        for leads_to in [victim.clone(), elsewhere.path().join("nowhere")] {
            symlink(&leads_to, &link).unwrap();
            let (result, _) = run(&known, directory.path(), &settings);
            let error = result.unwrap_err();
            assert!(
                matches!(
                    error,
                    DownloadError::NotAFile { .. } | DownloadError::Exists { .. }
                ),
                "{error}"
            );
            fs::remove_file(&link).unwrap();
            assert_eq!(
                (names_of(directory.path()), names_of(elsewhere.path())),
                (0, 1)
            );
        }
    }
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    // A model kept on another disk.
    fs::write(&victim, &data).unwrap();
    symlink(&victim, &target).unwrap();
    assert!(
        run(&known, directory.path(), &settings)
            .0
            .unwrap()
            .was_there
    );
}

#[test]
fn sources_that_lead_elsewhere_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["..", "../x.gguf", "/x.gguf", "a/../x.gguf", ""] {
        let evil = Source {
            file: file.to_owned(),
            ..source(b"")
        };
        let (result, _) = run(&evil, directory.path(), &settings("http://127.0.0.1:9"));
        assert!(
            matches!(result, Err(DownloadError::Source { .. })),
            "{file}: {result:?}"
        );
    }
    for (endpoint, token) in [
        ("nonsense", None),
        ("http://127.0.0.1:9", Some("a\r\nX: b")),
    ] {
        let settings = Settings {
            token: token.map(str::to_owned),
            ..settings(endpoint)
        };
        let error = run(&source(b""), directory.path(), &settings)
            .0
            .unwrap_err();
        assert!(
            matches!(error, DownloadError::Endpoint { .. } | DownloadError::Token),
            "{error}"
        );
    }
    assert_eq!(names_of(directory.path()), 0);
}

#[test]
fn a_place_where_nothing_can_be_written_is_told() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let settings = settings("http://127.0.0.1:9");
    let (result, _) = run(&source(b""), &directory.path().join("file"), &settings);
    assert!(
        matches!(result, Err(DownloadError::Io { .. })),
        "{result:?}"
    );
    // Not even root can create files there.
    if cfg!(target_os = "linux") {
        let (result, _) = run(&source(b""), Path::new("/sys/kernel"), &settings);
        assert!(
            matches!(result, Err(DownloadError::Io { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn a_second_download_of_the_same_file_is_refused() {
    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| Reply {
        speed: Some(200),
        ..good(request, &served)
    });
    let directory = tempfile::tempdir().unwrap();
    let (source, settings) = (source(&data), settings(&server.url()));
    thread::scope(|scope| {
        let first = scope.spawn(|| run(&source, directory.path(), &settings).0);
        while server.sent() == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        let (second, _) = run(&source, directory.path(), &settings);
        assert!(
            matches!(second, Err(DownloadError::Busy { .. })),
            "{second:?}"
        );
        assert_eq!(fs::read(first.join().unwrap().unwrap().path).unwrap(), data);
    });
}

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

/// Space that is reserved cannot be taken by others. Needs a small disk, which only root can make.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_meanwhile_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(directory.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("skipped: no small disk can be mounted here");
        return;
    }
    struct Mount<'a>(&'a Path);
    impl Drop for Mount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(self.0).status();
        }
    }
    let _mount = Mount(directory.path());

    let data = content(LENGTH, 7);
    let (served, path) = (data.clone(), directory.path().to_owned());
    let server = Server::start(move |request| {
        if request.number == 3 {
            // Somebody else takes what is left.
            let _ = fs::write(path.join("other"), vec![1; 1 << 20]);
        }
        good(request, &served)
    });
    let settings = settings(&server.url());
    let (result, _) = run(&source(&data), directory.path(), &settings);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data);

    fs::remove_file(directory.path().join("tiny.gguf")).unwrap();
    fs::write(directory.path().join("other"), vec![1; 900 << 10]).unwrap();
    let asked = server.requests().len();
    let (result, _) = run(&source(&data), directory.path(), &settings);
    let error = result.unwrap_err();
    let DownloadError::DiskSpace {
        needed,
        free,
        missing,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*needed, needed - free), (LENGTH as u64, *missing));
    // Only the probe was sent.
    assert_eq!(
        (server.requests().len(), names(directory.path())),
        (asked + 1, vec!["other".to_owned()])
    );
}

#[test]
fn a_proxy_is_used_but_for_the_hosts_that_are_excepted() {
    let data = content(LENGTH, 7);
    let served = data.clone();
    let server = Server::start(move |request| good(request, &served));
    // A proxy answers CONNECT and then passes bytes on, to the server whatever was asked for.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = ds4_download::Proxy {
        url: format!("http://user:pass@{}", listener.local_addr().unwrap()),
        except: "other.invalid, 127.0.0.1".to_owned(),
    };
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (seen, behind) = (Arc::clone(&heads), server.address());
    thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let (mut client, seen) = (stream.unwrap(), Arc::clone(&seen));
            thread::spawn(move || tunnel(&mut client, behind, &seen));
        }
    });
    let through = Settings {
        proxy: Some(proxy.clone()),
        ..settings("http://hub.invalid")
    };
    let directory = tempfile::tempdir().unwrap();
    let (result, _) = run(&source(&data), directory.path(), &through);
    assert_eq!(fs::read(result.unwrap().path).unwrap(), data);
    let seen = std::mem::take(&mut *heads.lock().unwrap());
    assert!(!seen.is_empty());
    for head in seen {
        assert!(head.starts_with("CONNECT hub.invalid:80 "), "{head}");
        // "user:pass"
        assert!(head.contains("Basic dXNlcjpwYXNz"), "{head}");
    }
    let direct = Settings {
        proxy: Some(proxy),
        ..settings(&server.url())
    };
    let directory = tempfile::tempdir().unwrap();
    run(&source(&data), directory.path(), &direct).0.unwrap();
    assert_eq!(heads.lock().unwrap().len(), 0);
    let broken = Settings {
        proxy: Some(ds4_download::Proxy {
            url: "://".to_owned(),
            except: String::new(),
        }),
        ..settings(&server.url())
    };
    let directory = tempfile::tempdir().unwrap();
    let (result, _) = run(&source(&data), directory.path(), &broken);
    assert!(matches!(result, Err(DownloadError::Proxy)), "{result:?}");
}

fn tunnel(
    client: &mut std::net::TcpStream,
    behind: std::net::SocketAddr,
    seen: &Mutex<Vec<String>>,
) {
    use std::io::{Read, Write};
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    seen.lock()
        .unwrap()
        .push(String::from_utf8_lossy(&head).into_owned());
    let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    let Ok(server) = std::net::TcpStream::connect(behind) else {
        return;
    };
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut &server, client);
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
