//! The model that comes with the program.

use crate::program::{Program, home};

/// Questions that the README and the guide send people to the program with.
const QUESTIONS: [(&str, &str); 4] = [
    ("How do I save a session?", "/save"),
    ("How do I load a session?", "--load-session"),
    ("How do I set the context size?", "--ctx"),
    ("Who are you?", "small demonstration model"),
];

#[test]
fn it_knows_the_program_and_says_what_it_is() {
    let home = home();
    for (question, expected) in QUESTIONS {
        for thinking in ["--think", "--nothink"] {
            let arguments = ["-p", question, thinking, "--temp", "0"];
            let run = Program::new(home.path()).args(arguments).run();
            assert!(
                run.stderr.contains("a small demonstration model"),
                "{}",
                run.stderr
            );
            let answer = run.success();
            assert!(answer.contains(expected), "{question} {thinking}: {answer}");
        }
    }
}

#[test]
fn it_is_a_model_like_any_other() {
    let home = home();
    let run = |arguments: &[&str]| Program::new(home.path()).args(arguments).run();
    let inspected = run(&["inspect", "--json"]).success();
    let inspected: serde_json::Value = inspected.parse().unwrap();
    assert_eq!(inspected["architecture"], "deepseek4");
    assert!(inspected["file_bytes"].as_u64().unwrap() <= 24 << 20);
    let by_name = run(&["inspect", "--json", "--model", "ds4-nano"]).success();
    assert_eq!(by_name.parse::<serde_json::Value>().unwrap(), inspected);
    run(&["plan"]).success();
}
