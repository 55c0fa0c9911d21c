//! Single answers, pipes and saved sessions.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::program::{Finished, Program, command, home};
use crate::test_model;

const THINKS: [(&str, &str); 6] = [
    ("<think>", "h"),
    ("h", "m"),
    ("m", "</think>"),
    ("</think>", "O"),
    ("O", "K"),
    ("K", "<｜end▁of▁sentence｜>"),
];

fn thinking_model(home: &Path) -> String {
    let path = home.join("script.gguf");
    test_model::write_script(&path, &THINKS);
    path.to_str().unwrap().to_owned()
}

fn noise_model(home: &Path, name: &str) -> String {
    let path = home.join(format!("{name}.gguf"));
    test_model::write_noise(&path, name);
    path.to_str().unwrap().to_owned()
}

fn ask(home: &Path, model: &str, arguments: &[&str]) -> Finished {
    Program::new(home)
        .args(["-m", model, "-c", "512"])
        .args(arguments)
        .run()
}

#[test]
fn only_the_answer_goes_to_a_pipe() {
    let home = home();
    let model = thinking_model(home.path());
    let run = ask(home.path(), &model, &["-p", "hello"]);
    assert_eq!(run.stdout, "OK\n");
    assert!(
        run.stderr.contains("t/s") && !run.stderr.contains('\x1b'),
        "{}",
        run.stderr
    );
    assert_eq!(run.code, Some(0));

    let shown = ask(
        home.path(),
        &model,
        &["-p", "hello", "--show-thinking", "--quiet"],
    );
    assert_eq!(
        (shown.stdout.as_str(), shown.stderr.as_str()),
        ("[thinking]\nhm\n\n[answer]\nOK\n", "")
    );

    let cut = ask(
        home.path(),
        &model,
        &["-p", "hello", "--nothink", "-n", "1"],
    );
    assert!(
        cut.stderr.contains("stopped after 1 tokens"),
        "{}",
        cut.stderr
    );
    assert_eq!(cut.success(), "O\n");

    let prompt = home.path().join("prompt.txt");
    fs::write(&prompt, "hello\n").unwrap();
    let from_file = ask(
        home.path(),
        &model,
        &["--prompt-file", prompt.to_str().unwrap()],
    );
    assert_eq!(from_file.success(), "OK\n");
    let arguments = ["-m", &model, "-c", "512", "--prompt-file", "-"];
    let piped = Program::new(home.path())
        .args(arguments)
        .input("hello")
        .run();
    assert_eq!(piped.success(), "OK\n");
}

#[test]
fn without_a_terminal_every_line_is_a_message_or_a_command() {
    let home = home();
    let model = thinking_model(home.path());
    let run = Program::new(home.path())
        .args(["-m", &model, "-c", "512"])
        .input("one\n\n/nonsense\n/ctx abc\n/status\ntwo \\\nlines\n")
        .run();
    assert_eq!(run.stdout, "OK\nOK\n");
    assert!(run.stderr.contains("answers   1"), "{}", run.stderr);
    assert_eq!(run.code, Some(0));
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_one_another() {
    let home = home();
    let model = noise_model(home.path(), "noise");
    let answer = |seed: &str| {
        let arguments = [
            "-p",
            "hi",
            "--nothink",
            "-n",
            "24",
            "--min-p",
            "0",
            "--seed",
            seed,
        ];
        ask(home.path(), &model, &arguments).success()
    };
    assert_eq!(answer("1"), answer("1"));
    assert_ne!(answer("1"), answer("2"));
}

/// Two turns in one process, and the same two in two processes.
fn continues_equally(thinking: &str, kv_type: &str) {
    let home = home();
    let model = noise_model(home.path(), "noise");
    let common = [
        "-m",
        &model,
        "-c",
        "512",
        "--temp",
        "0",
        "-n",
        "20",
        thinking,
        "--kv-cache-type",
        kv_type,
        "--show-thinking",
    ];
    let together = Program::new(home.path())
        .args(common)
        .input("first question\nsecond question\n")
        .run()
        .success();
    let first = Program::new(home.path())
        .args(common)
        .args(["--save-session", "s", "-p", "first question"])
        .run()
        .success();
    let second = Program::new(home.path())
        .args(common)
        .args(["--load-session", "s", "-p", "second question"])
        .run();
    // All of the history was restored: what is computed is the new message.
    let report = second
        .stderr
        .lines()
        .find(|line| line.contains("prefill"))
        .unwrap()
        .to_owned();
    let number = |after: &str| -> usize {
        let rest = report.split_once(after).unwrap().1;
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    // <User>, 15 bytes, <Assistant>, and the tag.
    assert_eq!(number("prefill "), 18, "{report}");
    assert!(number("(+") > 15, "{report}");
    assert_eq!(first + &second.success(), together, "{thinking} {kv_type}");
}

#[test]
fn a_session_continues_in_another_process_as_in_its_own() {
    continues_equally("--nothink", "fp8");
    continues_equally("--think", "f32");
}

#[test]
fn sessions_are_private_and_survive_every_refusal() {
    let home = home();
    let model = thinking_model(home.path());
    ask(
        home.path(),
        &model,
        &["--save-session", "mine", "-p", "hello"],
    )
    .success();
    let sessions = home.path().join(".local/share/ds4/sessions");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&sessions), 0o700);
    let file = sessions.join("mine.ds4session");
    assert_eq!(mode(&file), 0o600);

    let other = noise_model(home.path(), "other");
    let error = ask(home.path(), &other, &["--load-session", "mine", "-p", "x"]).failure(1);
    assert!(
        error.contains("another model") && error.contains("hint: "),
        "{error}"
    );

    let error = ask(
        home.path(),
        &model,
        &[
            "--load-session",
            "mine",
            "--kv-cache-type",
            "f16",
            "-p",
            "x",
        ],
    )
    .failure(1);
    assert!(
        error.contains("KV cache type fp8") && error.contains("--kv-cache-type"),
        "{error}"
    );

    let error = ask(home.path(), &model, &["--load-session", "yours", "-p", "x"]).failure(1);
    assert!(error.contains("saved sessions are mine"), "{error}");

    let loaded = ask(
        home.path(),
        &model,
        &["--load-session", "mine", "-p", "more"],
    );
    assert!(
        loaded.stderr.contains("with 1 answers"),
        "{}",
        loaded.stderr
    );
    assert_eq!(loaded.success(), "OK\n");

    let mut damaged = fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(sessions.join("damaged.ds4session"), damaged).unwrap();
    let error = ask(
        home.path(),
        &model,
        &["--load-session", "damaged", "-p", "x"],
    )
    .failure(1);
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn the_data_directory_can_be_elsewhere() {
    let home = home();
    let model = thinking_model(home.path());
    let data = home.path().join("data");
    fs::create_dir_all(data.join("ds4/models")).unwrap();
    fs::rename(&model, data.join("ds4/models/deepseek-v4-flash.gguf")).unwrap();
    let arguments = [
        "-m",
        "deepseek-v4-flash",
        "-c",
        "512",
        "--save-session",
        "s",
        "-p",
        "hello",
    ];
    let output = command(home.path())
        .args(arguments)
        .env("XDG_DATA_HOME", &data)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"OK\n");
    assert!(data.join("ds4/sessions/s.ds4session").exists());
    assert!(!home.path().join(".local").exists());
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_with_advice() {
    let home = home();
    let model = thinking_model(home.path());
    let long = "x".repeat(600);
    let error = ask(home.path(), &model, &["-p", &long]).failure(1);
    assert!(error.contains("do not fit the context of 512"), "{error}");
    assert!(
        error.contains("hint: ") && error.contains("--ctx"),
        "{error}"
    );
}

#[test]
fn thinking_at_maximum_needs_its_context() {
    let home = home();
    let model = thinking_model(home.path());
    let run = ask(home.path(), &model, &["--think-max", "-p", "hello"]);
    assert!(
        run.stderr.contains("warning: thinking at maximum effort"),
        "{}",
        run.stderr
    );
    assert_eq!(run.success(), "OK\n");
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let home = home();
    let path = home.path().join("endless.gguf");
    test_model::write_script(&path, &[("</think>", "a"), ("a", "z"), ("z", "a")]);
    let mut child = command(home.path())
        .args([
            "-m",
            path.to_str().unwrap(),
            "-c",
            "100000",
            "--nothink",
            "-q",
            "-p",
            "go",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert_eq!(&start, b"azaz");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
