//! `ds4 bench serve` and a server of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Program, command, home};
use crate::test_model::write_noise;

/// `ds4 serve` until it is dropped.
struct Server {
    child: std::process::Child,
    address: String,
}

impl Server {
    fn start(home: &Path, model: &Path, arguments: &[&str]) -> Self {
        let mut child = command(home)
            .args(["serve", "--port", "0", "--no-kv-disk", "--model"])
            .arg(model)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let address = lines
            .find_map(|line| Some(line.split_once("listening on ")?.1.trim().to_owned()))
            .expect("the server says where it listens");
        assert!(lines.any(|line| line.contains("ready")), "the model loads");
        // What it says later goes nowhere, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn bench_serve_measures_a_running_server() {
    let home = home();
    let model = home.path().join("noise.gguf");
    write_noise(&model, "noise");
    let server = Server::start(
        home.path(),
        &model,
        &[
            "--sessions",
            "4",
            "--ctx",
            "4096",
            "--cache-tokens",
            "16384",
            "--api-key",
            "secret",
        ],
    );
    let run = |arguments: &[&str]| {
        Program::new(home.path())
            .args(["bench", "serve", "--url", &server.address])
            .args(arguments)
            .run()
    };
    let sizes = [
        "--sessions",
        "1,2",
        "--prompt-tokens",
        "200",
        "--gen-tokens",
        "6",
        "--prefill",
        "1500",
    ];
    let keyed = [&sizes[..], &["--api-key", "secret"]].concat();
    let json: Value = run(&[&keyed[..], &["--json"]].concat())
        .success()
        .parse()
        .unwrap();
    assert_eq!(json["model"], "noise");
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, sessions) in rows.iter().zip([1, 2]) {
        assert_eq!(row["sessions"], sessions);
        let number = |path: &str| row.pointer(path).and_then(Value::as_f64).unwrap();
        assert!(number("/total_tps") > 0.0, "{row}");
        assert!(
            number("/first_token/worst") >= number("/first_token/median"),
            "{row}"
        );
        let newcomer = number("/beside_prefill/newcomer_first_token");
        assert!(
            0.0 < newcomer && newcomer < number("/beside_prefill/long_first_token"),
            "a short prompt does not wait for the long one: {row}"
        );
    }
    let table = run(&keyed).success();
    assert!(
        table.contains("Beside a prompt of 1500 tokens\n"),
        "{table}"
    );

    let refused = run(&sizes).failure(1);
    assert!(refused.contains("/v1/models: 401"), "{refused}");
    let too_long = [&keyed[..6], &["--prefill", "5000", "--api-key", "secret"]].concat();
    let refused = run(&too_long).failure(1);
    assert!(
        refused.contains("400") && refused.contains("--prefill"),
        "{refused}"
    );
    let nobody = Program::new(home.path())
        .args(["bench", "serve", "--url", "http://127.0.0.1:1"])
        .run()
        .failure(1);
    assert!(nobody.contains("http://127.0.0.1:1/v1/models"), "{nobody}");
}
