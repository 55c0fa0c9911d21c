//! Which bytes are asked for, and servers that answer with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ds4_download::DownloadError;

use crate::fixture::{LENGTH, PIECE, fails, good, succeeds};
use crate::server::Reply;

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
        |request, data| match (lies(request.number), request.range()) {
            (true, Some(range)) if range.len() > 100 => Reply {
                stated_length: Some(100),
                cut_after: Some(100),
                ..good(request, data)
            },
            _ => good(request, data),
        },
    );
    succeeds(|request, data| match lies(request.number) {
        true => good(request, data).with("Content-Range", format!("bytes 0-9/{LENGTH}")),
        _ => good(request, data),
    });
    succeeds(|request, data| match lies(request.number) {
        true => good(request, data).with("Content-Range", "nonsense"),
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
        |request, data| match (lies(request.number), request.range()) {
            (true, Some(range)) => {
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

/// Some of the first requests; fewer than the attempts at a piece, however they fall on the connections.
fn lies(number: usize) -> bool {
    matches!(number, 1 | 4 | 7)
}
