//! `ds4 connect`: what is shown, asked and written.

use std::fs;
use std::path::Path;

use crate::program::{Finished, Program, command, home};
use crate::pseudo_terminal::PseudoTerminal;

fn run(home: &Path, arguments: &[&str]) -> Finished {
    Program::new(home).args(["connect"]).args(arguments).run()
}

#[test]
fn every_agent_gets_its_file_and_a_second_run_changes_nothing() {
    let home = home();
    for (client, path, part) in [
        ("codex", ".codex/config.toml", "wire_api = \"responses\""),
        (
            "claude",
            ".claude/settings.json",
            "\"ANTHROPIC_BASE_URL\": \"http://127.0.0.1:8000\"",
        ),
        (
            "opencode",
            ".config/opencode/opencode.json",
            "\"baseURL\": \"http://127.0.0.1:8000/v1\"",
        ),
        (
            "pi",
            ".pi/agent/models.json",
            "\"api\": \"openai-completions\"",
        ),
    ] {
        let path = home.path().join(path);
        let shown = run(home.path(), &[client, "--yes"]).success();
        let written = fs::read_to_string(&path).unwrap();
        assert!(written.contains(part), "{written}");
        assert!(
            shown.contains(&format!("+++ {}", path.display())),
            "{shown}"
        );
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            serde_json::from_str::<serde_json::Value>(&written).unwrap();
        }
        let again = run(home.path(), &[client, "--yes"]);
        assert!(again.stderr.contains("already"), "{again:?}");
        assert_eq!(again.success(), "");
        assert_eq!(fs::read_to_string(&path).unwrap(), written);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn the_users_own_settings_stay_and_are_copied() {
    let home = home();
    let path = home.path().join(".codex/config.toml");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let before =
        "# mine\nmodel = \"gpt\" # usual\n\n[projects.\"/x\"]\ntrust_level = \"trusted\"\n";
    fs::write(&path, before).unwrap();
    let arguments = [
        "codex",
        "--url",
        "http://box:1/v1",
        "--api-key",
        "abc",
        "--model",
        "default",
    ];
    let refused = run(home.path(), &arguments).failure(2);
    assert!(refused.contains("--yes"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    let shown = run(home.path(), &[&arguments[..], &["--yes"]].concat()).success();
    assert!(
        shown.contains("-model = \"gpt\" # usual\n+model = \"default\" # usual\n"),
        "{shown}"
    );
    let after = fs::read_to_string(&path).unwrap();
    for part in [
        "# mine\n",
        "trust_level = \"trusted\"",
        "base_url = \"http://box:1/v1\"",
        "experimental_bearer_token = \"abc\"",
    ] {
        assert!(after.contains(part), "{after}");
    }
    let copy = home.path().join(".codex/config.toml.before-ds4-1");
    assert_eq!(fs::read_to_string(copy).unwrap(), before);
}

#[test]
fn print_touches_nothing() {
    let home = home();
    let shown = run(home.path(), &["pi", "--print"]).success();
    let settings: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        settings["providers"]["ds4"]["baseUrl"],
        "http://127.0.0.1:8000/v1"
    );
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn bad_settings_files_and_arguments_are_told_and_left_alone() {
    let home = home();
    let path = home.path().join(".claude/settings.json");
    fs::create_dir(path.parent().unwrap()).unwrap();
    for text in ["{\"env\": 3}", "{", "[]"] {
        fs::write(&path, text).unwrap();
        let error = run(home.path(), &["claude", "--yes"]).failure(1);
        assert!(error.contains("settings.json"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    for (arguments, part) in [
        (&["claude", "--url", "nowhere"][..], "no address"),
        (&["claude", "--api-key", "!rm"], "API key"),
        (&["claude", "--print", "--yes"], "cannot be used with"),
        (&["emacs"], "codex"),
    ] {
        let error = run(home.path(), arguments).failure(2);
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn on_a_terminal_it_asks() {
    for (answer, written) in [("n", false), ("", false), ("y", true)] {
        let home = home();
        let mut command = command(home.path());
        command.args(["connect", "claude"]);
        let mut terminal = PseudoTerminal::start(command);
        terminal.expect("Write this? [y/N] ");
        terminal.line(answer);
        assert_eq!(terminal.finish().0, Some(0));
        let path = home.path().join(".claude/settings.json");
        assert_eq!(path.exists(), written, "{answer:?}");
    }
}
