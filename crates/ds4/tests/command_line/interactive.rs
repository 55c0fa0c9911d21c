//! The chat on a terminal.

use std::path::Path;

use crate::program::{command, home};
use crate::pseudo_terminal::PseudoTerminal;
use crate::test_model;

const THINKS: [(&str, &str); 5] = [
    ("<think>", "h"),
    ("h", "m"),
    ("m", "</think>"),
    ("</think>", "O"),
    ("O", "K"),
];
const END: (&str, &str) = ("K", "<｜end▁of▁sentence｜>");
/// Never ends.
const ENDLESS: [(&str, &str); 4] = [("<think>", "a"), ("</think>", "a"), ("a", "z"), ("z", "a")];

fn thinking_model(home: &Path) -> String {
    let path = home.join("script.gguf");
    test_model::write_script(&path, &[THINKS.as_slice(), &[END]].concat());
    path.to_str().unwrap().to_owned()
}

fn endless_model(home: &Path) -> String {
    let path = home.join("endless.gguf");
    test_model::write_script(&path, &ENDLESS);
    path.to_str().unwrap().to_owned()
}

fn chat(home: &Path, arguments: &[&str]) -> PseudoTerminal {
    let mut command = command(home);
    command.args(arguments);
    PseudoTerminal::start(command)
}

#[test]
fn a_conversation_from_the_first_line_to_the_last() {
    let home = home();
    let model = thinking_model(home.path());
    let mut terminal = chat(home.path(), &["-m", &model, "-c", "512"]);
    terminal.expect("/help for the commands");
    terminal.expect("ds4> ");
    terminal.line("hello");
    terminal.expect("\x1b[2mh\x1b[0m");
    terminal.expect("\x1b[2mm\x1b[0m");
    terminal.expect("OK\r\n");
    terminal.expect("t/s");
    terminal.expect("ds4> ");
    terminal.line("/nothink");
    terminal.expect("thinking is off");
    terminal.line("again");
    terminal.expect("OK\r\n");
    terminal.expect("t/s");
    terminal.expect("ds4> ");
    terminal.keys("\x03");
    terminal.expect("/quit leaves");
    terminal.expect("ds4> ");
    terminal.keys("\x04");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("think>"), "tags are not shown: {screen}");
    let history = home.path().join(".local/share/ds4/history");
    let history = std::fs::read_to_string(history).unwrap();
    assert!(history.ends_with("hello\n/nothink\nagain\n"), "{history:?}");
}

#[test]
fn mistakes_in_commands_do_not_end_the_chat() {
    let home = home();
    let model = thinking_model(home.path());
    let mut terminal = chat(home.path(), &["-m", &model, "-c", "512"]);
    for (line, answer) in [
        ("/ctx abc", "needs a number of tokens"),
        ("/ctx 99999999999", "the context"),
        ("/nonsense", "unknown command `/nonsense`"),
        ("/stauts", "did you mean `/status`?"),
        ("/load nothing", "no session `nothing`"),
        ("/save", "no name yet"),
        ("/save ../x", "cannot name a session"),
        ("/save x", "nothing to save yet"),
        ("/read /nowhere/at/all", "cannot read"),
        ("/help", "change the context to N tokens"),
        ("/status", "temperature 1"),
        ("/think-max", "needs a context of 393216"),
        ("/ctx 1024", "the context is 1,024 tokens"),
        ("/status", "0 of 1,024 tokens in use"),
    ] {
        terminal.expect("ds4> ");
        terminal.line(line);
        terminal.expect(answer);
    }
    terminal.expect("ds4> ");
    terminal.line("still there?");
    terminal.expect("OK\r\n");
    terminal.expect("ds4> ");
    terminal.line("/exit");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
}

#[test]
fn ctrl_c_stops_the_answer_and_keeps_the_conversation() {
    let home = home();
    let model = endless_model(home.path());
    let mut terminal = chat(home.path(), &["-m", &model, "-c", "100000", "--nothink"]);
    terminal.expect("ds4> ");
    terminal.line("begin");
    terminal.expect("azazaz");
    terminal.keys("\x03");
    terminal.expect("the answer so far is kept");
    terminal.expect("ds4> ");
    terminal.line("/status");
    terminal.expect("answers   1");
    terminal.expect("ds4> ");
    terminal.line("and on");
    terminal.expect("azaz");
    terminal.keys("\x03");
    // The first turn is still part of the prompt and was not computed again.
    terminal.expect("reused");
    terminal.expect("ds4> ");
    terminal.keys("\x04");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
}

#[test]
fn ctrl_c_ends_a_single_answer_with_130_and_keeps_what_was_said() {
    let home = home();
    let model = endless_model(home.path());
    let arguments = [
        "-m",
        &model,
        "-c",
        "100000",
        "--save-session",
        "cut",
        "-p",
        "begin",
    ];
    let mut terminal = chat(home.path(), &arguments);
    terminal.expect("a");
    terminal.keys("\x03");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(130), "{screen}");
    assert!(
        home.path()
            .join(".local/share/ds4/sessions/cut.ds4session")
            .exists(),
        "{screen}"
    );
}

#[test]
fn no_color_means_no_styles() {
    let home = home();
    let model = thinking_model(home.path());
    let mut command = command(home.path());
    command
        .args(["-m", &model, "-c", "512", "-p", "hello"])
        .env("NO_COLOR", "1");
    let (code, screen) = PseudoTerminal::start(command).finish();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains('\x1b'), "{screen:?}");
    // What dimming would have shown is said in words.
    assert!(
        screen.contains("[thinking]\r\nhm\r\n\r\n[answer]\r\nOK\r\n"),
        "{screen:?}"
    );
}

#[test]
fn what_the_model_writes_cannot_drive_the_terminal() {
    let home = home();
    let path = home.path().join("escape.gguf");
    // Byte 0x1b in the spelling of the vocabulary.
    let escape = "\u{11b}";
    let end = "<｜end▁of▁sentence｜>";
    test_model::write_script(&path, &[("</think>", escape), (escape, "c"), ("c", end)]);
    let mut command = command(home.path());
    command.args(["-m", path.to_str().unwrap(), "--nothink", "-q", "-p", "x"]);
    let (code, screen) = PseudoTerminal::start(command).finish();
    assert_eq!((code, screen.as_str()), (Some(0), "\u{fffd}c\r\n"));
}

#[test]
fn a_long_prefill_shows_its_progress_and_takes_it_away() {
    let home = home();
    let model = thinking_model(home.path());
    std::fs::write(home.path().join("long.txt"), "x".repeat(3000)).unwrap();
    let arguments = [
        "-m",
        &model,
        "-c",
        "4096",
        "--nothink",
        "--prompt-file",
        "long.txt",
    ];
    let (code, screen) = chat(home.path(), &arguments).finish();
    assert_eq!(code, Some(0), "{screen}");
    let bar = screen
        .find("/3031 tokens")
        .unwrap_or_else(|| panic!("no bar in {screen:?}"));
    let cleared = screen[bar..].find("\x1b[2K").expect("the bar is cleared");
    assert!(screen[bar + cleared..].contains("OK\r\n"), "{screen:?}");
}

#[test]
fn ctrl_c_during_prefill_takes_the_message_back() {
    let home = home();
    let model = thinking_model(home.path());
    std::fs::write(home.path().join("long.txt"), "x".repeat(60_000)).unwrap();
    let mut terminal = chat(home.path(), &["-m", &model, "-c", "100000", "--nothink"]);
    terminal.expect("ds4> ");
    terminal.line("/read long.txt");
    terminal.expect("tokens, ");
    terminal.keys("\x03");
    terminal.expect("your message was taken back");
    terminal.expect("ds4> ");
    terminal.line("/status");
    terminal.expect("answers   0");
    terminal.expect("ds4> ");
    terminal.line("short");
    terminal.expect("OK\r\n");
    terminal.expect("ds4> ");
    terminal.keys("\x04");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
}

#[test]
fn a_model_file_that_changes_is_noticed_and_the_chat_goes_on() {
    let home = home();
    let model = thinking_model(home.path());
    let mut terminal = chat(home.path(), &["-m", &model, "-c", "512"]);
    terminal.expect("ds4> ");
    let file = std::fs::OpenOptions::new()
        .append(true)
        .open(&model)
        .unwrap();
    file.set_len(file.metadata().unwrap().len() + 1).unwrap();
    terminal.line("hello");
    terminal.expect("the file changed after it was opened");
    terminal.expect("ds4> ");
    terminal.line("/quit");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
}

#[test]
fn a_session_is_saved_and_loaded_in_the_chat() {
    let home = home();
    let model = thinking_model(home.path());
    let mut terminal = chat(home.path(), &["-m", &model, "-c", "512"]);
    terminal.expect("ds4> ");
    terminal.line("one");
    terminal.expect("OK\r\n");
    terminal.expect("ds4> ");
    terminal.line("/save trip");
    terminal.expect("saved session `trip`");
    terminal.expect("ds4> ");
    terminal.line("two");
    terminal.expect("OK\r\n");
    terminal.expect("ds4> ");
    // What was said after saving is gone, and thinking is as it was.
    terminal.line("/nothink");
    terminal.expect("ds4> ");
    terminal.line("/load trip");
    terminal.expect("with 1 answers");
    terminal.expect("ds4> ");
    terminal.line("/status");
    terminal.expect("answers   1");
    terminal.expect("thinking  on");
    terminal.expect("ds4> ");
    terminal.line("/load trap");
    terminal.expect("no session `trap`");
    terminal.expect("ds4> ");
    terminal.line("/quit");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
}
