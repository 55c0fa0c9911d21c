//! Redirects, tokens, proxies, and what the hub says about a file.

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;

use ds4_download::{DownloadError, Settings, Source};

use crate::fixture::{LENGTH, fails, good, names_of, run, settings, source, unpinned};
use crate::server::{Reply, Request, Server, content, sha256};

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
