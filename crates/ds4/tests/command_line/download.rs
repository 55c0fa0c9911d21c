//! `ds4 download`, against a server on the loopback interface.

#[path = "../../../ds4-download/tests/downloads/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use server::{Reply, Request, Server, content, sha256};

use crate::program::{Program, command, home};
use crate::test_model::golden;

/// What the program asks for at a time.
const PIECE: usize = 16 << 20;

const MODELS: &str = ".local/share/ds4/models";

/// `ds4 download` with these arguments and this hub.
fn download(home: &Path, endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = command(home);
    for name in [
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ] {
        command.env_remove(name);
    }
    command
        .env("HF_ENDPOINT", endpoint)
        .arg("download")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn success(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn failure(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    text(&output.stderr)
}

/// A hub's answer: it states the hash.
fn good(request: &Request, data: &[u8]) -> Reply {
    Reply::file(data, "one", request).with("X-Linked-Etag", format!("\"{}\"", sha256(data)))
}

/// Waits for something that must come soon.
#[track_caller]
fn wait_for(what: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < until, "it did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A run that is ended with the test.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.0.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Exit code and standard error.
    fn finish(mut self) -> (Option<i32>, String) {
        let status = self.0.wait().unwrap();
        let mut error = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut error).unwrap();
        (status.code(), error)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn file(home: &Path, name: &str) -> PathBuf {
    home.join(MODELS).join(name)
}

#[test]
fn the_list_has_names_and_sizes() {
    let home = home();
    let (table, note) = success(&download(home.path(), "", &[]).output().unwrap());
    for (name, size) in [
        ("deepseek-v4-flash ", "80.8 GiB"),
        ("deepseek-v4-flash-q4 ", "153 GiB"),
        ("deepseek-v4-flash-mxfp4 ", "145 GiB"),
        ("deepseek-v4-pro ", "433 GiB"),
        ("deepseek-v4-flash-mtp ", "3.55 GiB"),
    ] {
        let line = table.lines().find(|line| line.starts_with(name));
        assert!(
            line.is_some_and(|line| line.contains(size)),
            "{name}: {table}"
        );
    }
    assert!(note.contains(MODELS) && note.contains("free"), "{note}");
    let (json, _) = success(&download(home.path(), "", &["--json"]).output().unwrap());
    let value: Value = json.parse().unwrap();
    let flash = &value["models"][0];
    assert_eq!(
        (flash["bytes"].as_u64(), flash["state"].as_str()),
        (Some(86_720_111_488), Some("missing"))
    );
}

#[test]
fn both_spellings_are_one_command_and_wrong_names_are_told() {
    let home = home();
    for arguments in [
        &["download", "deepseek-v5"][..],
        &["--download", "deepseek-v5"],
        &["--download=deepseek-v5"],
        &["download", "--offline", "deepseek-v5"],
    ] {
        let error = Program::new(home.path()).args(arguments).run().failure(2);
        assert!(
            error.contains("deepseek-v5") && error.contains("deepseek-v4-flash"),
            "{error}"
        );
    }
    for name in ["a/b:../x.gguf", "a/b:x", "../b:x.gguf", "a/b"] {
        let error = failure(&download(home.path(), "", &[name]).output().unwrap(), 2);
        assert!(error.contains(name), "{error}");
    }
    assert!(!home.path().join(".local").exists());
}

#[test]
fn a_downloaded_model_is_found_by_its_name() {
    let home = home();
    let data = Arc::new(fs::read(golden("flash-tiny-native.gguf")).unwrap());
    let served = Arc::clone(&data);
    let server = Server::start(move |request| good(request, &served));
    let run = |arguments: &[&str]| {
        let mut command = download(home.path(), &server.url(), arguments);
        command.env("HF_TOKEN", "hf_secret").output().unwrap()
    };
    let name = "me/models:tiny.gguf";
    let offline = failure(&run(&[name, "--offline"]), 1);
    assert!(offline.contains("`tiny.gguf` is missing"), "{offline}");
    assert_eq!(server.requests().len(), 0);

    let (output, note) = success(&run(&[name]));
    assert_eq!(output, "");
    assert!(note.contains("7.37 MiB, the SHA-256 is right"), "{note}");
    assert!(note.contains("ds4 --model tiny\n"), "{note}");
    let tokens = server
        .requests()
        .iter()
        .filter(|request| request.header("authorization") == Some("Bearer hf_secret"))
        .count();
    assert_eq!(tokens, server.requests().len());
    let inspect = Program::new(home.path())
        .args(["inspect", "--model", "tiny"])
        .run();
    assert!(inspect.success().contains("flash-tiny"));

    let asked = server.requests().len();
    let (json, _) = success(&run(&[name, "--offline", "--json"]));
    let value: Value = json.parse().unwrap();
    assert_eq!(value["was_there"], true);
    assert_eq!(value["bytes"].as_u64(), Some(data.len() as u64));
    assert_eq!(server.requests().len(), asked);
    success(&run(&[name, "--verify"]));
    let path = file(home.path(), "tiny.gguf");
    let mut damaged = fs::read(&path).unwrap();
    damaged[1000] ^= 1;
    fs::write(&path, damaged).unwrap();
    let error = failure(&run(&[name, "--verify"]), 1);
    assert!(
        error.contains("SHA-256") && error.contains("move it away"),
        "{error}"
    );

    // Another place, and the hash in the summary.
    let (json, _) = success(&run(&[
        name,
        "--dir",
        "elsewhere",
        "--json",
        "--connections",
        "1",
    ]));
    let value: Value = json.parse().unwrap();
    assert_eq!(value["sha256"], sha256(&data).as_str());
    assert_eq!(value["downloaded"], value["bytes"]);
    assert_eq!(
        fs::read(home.path().join("elsewhere/tiny.gguf")).unwrap(),
        *data
    );
}

/// A file under its published name is the model of the catalogue's name; only its size is looked at.
#[test]
fn published_files_are_known_by_the_name_in_the_catalogue() {
    let home = home();
    fs::create_dir_all(home.path().join(MODELS)).unwrap();
    let published = "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix-0731.gguf";
    let path = file(home.path(), published);
    fs::copy(golden("flash-tiny-native.gguf"), &path).unwrap();
    let inspect = |name: &str| {
        let run = Program::new(home.path())
            .args(["inspect", "--json", "--model", name])
            .run();
        run.success().parse::<Value>().unwrap()
    };
    for name in ["deepseek-v4-flash", "deepseek-v4-flash-0731"] {
        // The file's own metadata name no release, its name does.
        assert!(inspect(name).to_string().contains("\"0731\""), "{name}");
    }
    let error = Program::new(home.path())
        .args(["inspect", "--model", "deepseek-v4-pro"])
        .run()
        .failure(1);
    assert!(
        error.contains("`ds4 download deepseek-v4-pro` fetches it, 433 GiB"),
        "{error}"
    );

    let offline = |name: &str| {
        download(home.path(), "", &[name])
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap()
    };
    let error = failure(&offline("deepseek-v4-pro"), 1);
    assert!(error.contains("all 433 GiB of"), "{error}");
    let error = failure(&offline("deepseek-v4-flash"), 1);
    assert!(error.contains("is another file"), "{error}");
    let sparse = fs::File::options().write(true).open(&path).unwrap();
    sparse.set_len(86_720_111_488).unwrap();
    success(&offline("deepseek-v4-flash"));
}

/// Kill -9, as often as it takes: a run loses only the pieces in flight, at most one for each connection.
#[test]
fn a_killed_download_goes_on_where_it_ended() {
    let home = home();
    let data = Arc::new(content(5 * PIECE + 1000, 3));
    let served = Arc::clone(&data);
    let hangs = Arc::new(AtomicBool::new(true));
    let hang = Arc::clone(&hangs);
    // Two pieces arrive in each run; the third hangs in the middle.
    let server = Server::start(move |request| {
        let reply = good(request, &served);
        let is_third = request
            .range()
            .is_some_and(|range| (range.start / PIECE) % 3 == 2);
        if is_third && hang.load(Ordering::SeqCst) {
            return Reply {
                stall: Some((PIECE / 2, Duration::from_secs(25))),
                ..reply
            };
        }
        reply
    });
    let arguments = ["me/models:killed.gguf", "--connections", "1"];
    let running = Running::start(download(home.path(), &server.url(), &arguments));
    wait_for(|| server.sent() == (2 * PIECE + PIECE / 2 + 1) as u64);
    running.signal("-9");
    assert_eq!(running.finish().0, None);
    assert!(!file(home.path(), "killed.gguf").exists());

    hangs.store(false, Ordering::SeqCst);
    let sent = server.sent();
    let run = download(home.path(), &server.url(), &arguments)
        .output()
        .unwrap();
    let (_, note) = success(&run);
    assert!(note.contains("going on at 32.0 MiB of 80.0 MiB"), "{note}");
    assert!(fs::read(file(home.path(), "killed.gguf")).unwrap() == *data);
    assert_eq!(server.sent() - sent, (data.len() - 2 * PIECE + 1) as u64);
    assert_eq!(fs::read_dir(home.path().join(MODELS)).unwrap().count(), 1);
}

#[test]
fn interrupting_says_how_to_go_on_and_a_second_process_is_refused() {
    let home = home();
    let data = Arc::new(content(1 << 20, 3));
    let served = Arc::clone(&data);
    let hangs = Arc::new(AtomicBool::new(true));
    let hang = Arc::clone(&hangs);
    let server = Server::start(move |request| {
        let stall = Some((1 << 19, Duration::from_secs(25)));
        Reply {
            stall: stall.filter(|_| hang.load(Ordering::SeqCst) && !request.is_probe()),
            ..good(request, &served)
        }
    });
    let arguments = ["me/models:stopped.gguf"];
    let running = Running::start(download(home.path(), &server.url(), &arguments));
    wait_for(|| server.sent() == (1 << 19) + 1);
    let second = download(home.path(), &server.url(), &arguments)
        .output()
        .unwrap();
    let error = failure(&second, 1);
    assert!(
        error.contains("another process") && error.contains("hint"),
        "{error}"
    );

    running.signal("-INT");
    let since = Instant::now();
    let (code, error) = running.finish();
    assert_eq!(code, Some(130), "{error}");
    assert!(since.elapsed() < Duration::from_secs(10));
    assert!(error.contains("stopped"), "{error}");
    assert!(!file(home.path(), "stopped.gguf").exists());
    hangs.store(false, Ordering::SeqCst);
    success(
        &download(home.path(), &server.url(), &arguments)
            .output()
            .unwrap(),
    );
    assert!(fs::read(file(home.path(), "stopped.gguf")).unwrap() == *data);
}

#[test]
fn failures_say_what_to_do() {
    let home = home();
    let huge = 1_u64 << 60;
    for (answer, expected) in [
        (
            Box::new(|_: &Request| Reply::status(401))
                as Box<dyn Fn(&Request) -> Reply + Send + Sync>,
            "HF_TOKEN",
        ),
        (Box::new(|_: &Request| Reply::status(404)), "check the name"),
        (
            Box::new(move |request: &Request| Reply {
                body: vec![0],
                ..good(request, &[0]).with("Content-Range", format!("bytes 0-0/{huge}"))
            }),
            "are missing: the download takes 1.00 EiB more",
        ),
        (
            Box::new(|request: &Request| Reply::file(&[1, 2], "x", request)),
            "large file storage",
        ),
        (
            Box::new(|request: &Request| {
                Reply::file(&[1, 2], "x", request).with("X-Linked-Etag", sha256(b"other"))
            }),
            "it was removed",
        ),
        (
            Box::new(|_: &Request| Reply::status(302).with("Location", "ftp://x/y")),
            "HF_ENDPOINT",
        ),
    ] {
        let server = Server::start(answer);
        let run = download(home.path(), &server.url(), &["me/models:x.gguf"])
            .output()
            .unwrap();
        let error = failure(&run, 1);
        assert!(
            error.contains(expected) && error.contains("hint: "),
            "{expected}: {error}"
        );
        assert_eq!(fs::read_dir(home.path().join(MODELS)).unwrap().count(), 0);
    }
    for (name, value) in [
        ("HF_ENDPOINT", "nonsense"),
        ("HF_TOKEN", "a b"),
        ("ALL_PROXY", "://"),
    ] {
        let mut command = download(home.path(), "http://127.0.0.1:9", &["me/models:x.gguf"]);
        let error = failure(&command.env(name, value).output().unwrap(), 1);
        assert!(error.contains(name), "{error}");
    }
    fs::create_dir_all(file(home.path(), "x.gguf")).unwrap();
    let run = download(home.path(), "http://127.0.0.1:9", &["me/models:x.gguf"])
        .output()
        .unwrap();
    assert!(failure(&run, 1).contains("--dir"));
}

#[test]
fn the_proxy_of_the_environment_is_asked() {
    let home = home();
    let proxy = Server::start(|_| Reply::status(503));
    let mut command = download(home.path(), "http://hub.invalid", &["me/models:x.gguf"]);
    command
        .env("HTTP_PROXY", proxy.url())
        .env("HF_TOKEN", "hf_secret");
    let _running = Running::start(command);
    wait_for(|| !proxy.requests().is_empty());
    let request = &proxy.requests()[0];
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("CONNECT", "hub.invalid:80")
    );
    assert_eq!(request.header("authorization"), None);
}
