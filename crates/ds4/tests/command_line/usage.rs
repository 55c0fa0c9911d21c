//! Help, mistakes and exit codes.

use crate::program::{Program, home};

fn run(arguments: &[&str]) -> crate::program::Finished {
    Program::new(home().path()).args(arguments).run()
}

#[test]
fn help_goes_to_standard_output_and_mistakes_do_not() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["help", "logits"],
        &["logits", "--help"],
    ] {
        let help = run(arguments).success();
        assert!(help.contains("Usage:"), "{help}");
    }
    let help = run(&["--help"]).success();
    for word in [
        "inspect",
        "plan",
        "--think-max",
        "--load-session",
        "Exit codes",
        "130",
    ] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn wrong_usage_is_2_and_says_what_is_wrong() {
    for (arguments, expected) in [
        (&["--promt", "x"][..], "--prompt"),
        (&["inspekt"], "inspect"),
        (&["-p", "x", "--prompt-file", "y"], "cannot be used with"),
        (&["--ctx", "abc"], "abc"),
        (&["--ctx", "0"], "at least 1"),
        (&["--backend", "cuda"], "cpu"),
        (&["logits", "--tokens", "x"], "--out"),
        (&["-p", ""], "the prompt is empty"),
        (
            &["--save-session", "../../x", "-p", "x"],
            "cannot name a session",
        ),
        (&["--load-session", "a/b"], "cannot name a session"),
        (
            &["tokenize", "--model", "a", "--tokenizer", "b"],
            "cannot be used with",
        ),
        (&["bench", "--repeat", "0"], "at least 1"),
    ] {
        let finished = run(arguments);
        assert_eq!(finished.stdout, "", "{arguments:?}");
        let error = finished.failure(2);
        assert!(
            error.starts_with("ds4: ") && error.contains(expected),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn failures_are_1_and_name_the_file() {
    let home = home();
    std::fs::write(home.path().join("no.gguf"), "not a model").unwrap();
    for (arguments, expected) in [
        (&["-p", "x", "--model", "missing.gguf"][..], "missing.gguf"),
        (
            &["-p", "x", "--model", "deepseek-v4-flash"],
            ".local/share/ds4/models",
        ),
        (&["inspect", "--model", "no.gguf"], "no.gguf"),
        (&["plan", "--model", "."], "directory"),
        (&["tokenize", "--tokenizer", "no.gguf"], "no.gguf"),
        (&["--prompt-file", "missing.txt"], "missing.txt"),
    ] {
        let finished = Program::new(home.path()).args(arguments).run();
        let error = finished.failure(1);
        assert!(
            error.starts_with("ds4: ") && error.contains(expected),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn both_names_are_one_program() {
    let other = std::process::Command::new(env!("CARGO_BIN_EXE_ds4-cli"))
        .arg("--help")
        .output();
    let other = String::from_utf8(other.unwrap().stdout).unwrap();
    assert!(other.contains("Usage: ds4-cli "), "{other}");
    assert_eq!(other.replace("ds4-cli", "ds4"), run(&["--help"]).success());
}

#[test]
fn the_reference_spelling_of_system_is_understood() {
    let home = home();
    let path = home.path().join("m.gguf");
    let end = "<｜end▁of▁sentence｜>";
    crate::test_model::write_script(&path, &[("</think>", "y"), ("y", end)]);
    let arguments = [
        "-m",
        path.to_str().unwrap(),
        "-sys",
        "Be short.",
        "--nothink",
        "-p",
        "x",
    ];
    assert_eq!(
        Program::new(home.path()).args(arguments).run().success(),
        "y\n"
    );
}

#[test]
fn completions_know_the_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).success();
        assert!(script.contains("load-session"), "{shell}");
    }
}
