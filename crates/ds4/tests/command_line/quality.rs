//! `ds4 quality` on models whose answers are known.

use std::fs;

use serde_json::{Value, json};

use crate::program::{Finished, Program, home};
use crate::test_model;

/// Cases "right" and "wrong" for a model that answers "OK".
fn write_cases(path: &std::path::Path) {
    let case = |id: &str, category: &str, text: &str| {
        json!({
            "id": id,
            "category": category,
            "messages": [{"role": "user", "content": format!("question {id}")}],
            "max_tokens": 6,
            "check": {"kind": "contains", "text": text},
        })
    };
    let cases = [
        case("1", "a", "ok"),
        case("2", "a", "no"),
        case("3", "b", "ok"),
    ];
    let lines: Vec<String> = cases.iter().map(|case| format!("{case}\n")).collect();
    fs::write(path, lines.concat()).unwrap();
}

fn quality(home: &std::path::Path, arguments: &[&str]) -> Finished {
    Program::new(home)
        .args(["quality", "--cases", "cases.jsonl"])
        .args(arguments)
        .run()
}

#[test]
fn drafts_change_no_answer() {
    let home = home();
    let says = [("</think>", "O"), ("O", "K"), ("K", "O")];
    test_model::write_script(&home.path().join("script.gguf"), &says);
    write_cases(&home.path().join("cases.jsonl"));
    let found = quality(home.path(), &["script.gguf", "--drafts", "--json"]).success();
    let report: Value = serde_json::from_str(&found).unwrap();
    let drafts = &report["drafts"];
    assert_eq!(drafts["answers"], 3);
    assert_eq!(drafts["same_answers"], 3);
    assert_eq!(drafts["tokens"], 3 * 6);
    // "OKOKOK" goes on as it began.
    assert!(drafts["accepted"].as_u64() > Some(0), "{drafts}");
    let found = quality(home.path(), &["script.gguf", "--drafts"]).success();
    let sentence = "With drafts 3 of 3 answers are the same";
    assert!(found.contains(sentence), "{}", found);
}

#[test]
fn models_are_compared_with_the_first() {
    let home = home();
    let says = [
        ("</think>", "O"),
        ("O", "K"),
        ("K", "<｜end▁of▁sentence｜>"),
    ];
    test_model::write_script(&home.path().join("script.gguf"), &says);
    test_model::write_noise(&home.path().join("noise.gguf"), "noise");
    fs::copy(
        home.path().join("script.gguf"),
        home.path().join("twin.gguf"),
    )
    .unwrap();
    write_cases(&home.path().join("cases.jsonl"));
    fs::write(home.path().join("text.txt"), "KOKOKO").unwrap();
    let models = ["script.gguf", "twin.gguf", "noise.gguf"];
    let options = [
        "--json",
        "--svg",
        "q.svg",
        "--text",
        "text.txt",
        "--kv-cache-types",
        "f32,f16",
    ];
    let stdout = quality(home.path(), &[&models[..], &options].concat()).success();
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let rows = report["measurements"].as_array().unwrap();
    let names: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap();
            (text("model"), text("kv_cache_type"))
        })
        .collect();
    let standard = names[0].1;
    let expected = [
        ("script.gguf", "f32"),
        ("script.gguf", "f16"),
        ("twin.gguf", standard),
        ("noise.gguf", standard),
    ];
    // The format that is standard was measured first.
    let rest: Vec<_> = expected
        .into_iter()
        .filter(|row| *row != names[0])
        .collect();
    assert_eq!(names[1..], rest);

    // Of each token F32 rows take twice what F16 rows take.
    let growth = |kv_type: &str| {
        let row = rows.iter().find(|row| row["kv_cache_type"] == kv_type);
        row.unwrap()["kv_bytes_per_token"].as_f64().unwrap()
    };
    assert_eq!(growth("f32"), 2.0 * growth("f16"));

    let row = |name: &str| rows.iter().rfind(|row| row["model"] == name).unwrap();
    assert_eq!(rows[0]["scores"], json!({"a": 0.5, "b": 1.0}));
    // What a model says greedily is the likeliest when it is judged, too.
    assert_eq!(rows[0]["reference_answers"]["same_answers"], 3);
    // The twin is certain of the same answers: three of O, K and the end.
    let twin = &row("twin.gguf")["reference_answers"];
    assert_eq!(
        (&twin["tokens"], &twin["agreement"]),
        (&json!(9), &json!(1.0))
    );
    assert_eq!(twin["same_answers"], 3);
    assert!(twin["nll"].as_f64().unwrap() < 0.01, "{twin}");
    assert_eq!(row("twin.gguf")["scores"], rows[0]["scores"]);
    assert_eq!(row("twin.gguf")["text"], rows[0]["text"]);
    assert_eq!(*twin, rows[0]["reference_answers"]);
    // For the model of noise they are as likely as any.
    let noise = &row("noise.gguf")["reference_answers"];
    assert!(noise["nll"].as_f64().unwrap() > 2.0, "{noise}");
    assert!(noise["same_answers"] == 0, "{noise}");
    assert!(row("noise.gguf")["text"]["nll"].as_f64().unwrap() > 2.0);
    assert_eq!(row("noise.gguf")["text"]["tokens"], 6);

    let svg = fs::read_to_string(home.path().join("q.svg")).unwrap();
    assert!(svg.contains("script, ") && svg.contains("noise, "), "{svg}");
    let tables = quality(
        home.path(),
        &["script.gguf", "noise.gguf", "--category", "a"],
    )
    .success();
    let noise = tables.lines().find(|line| line.starts_with("noise.gguf"));
    assert!(noise.unwrap().contains("0 of 2"), "{tables}");
    assert!(
        !tables.lines().any(|line| line.starts_with("b ")),
        "{tables}"
    );
}

#[test]
fn several_files_of_cases_are_one_table() {
    let home = home();
    test_model::write_noise(&home.path().join("noise.gguf"), "noise");
    write_cases(&home.path().join("cases.jsonl"));
    let more = json!({
        "id": "far",
        "category": "c",
        "messages": [{"role": "user", "content": "?"}],
        "max_tokens": 1,
        "check": {"kind": "contains", "text": "x"},
    });
    fs::write(home.path().join("more.jsonl"), format!("{more}\n")).unwrap();
    let stdout = Program::new(home.path())
        .args(["quality", "noise.gguf", "--json"])
        .args(["--cases", "cases.jsonl,more.jsonl", "--category", "b,c"])
        .run()
        .success();
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["cases"], "cases.jsonl, more.jsonl");
    let scores = report["measurements"][0]["scores"].as_object().unwrap();
    assert_eq!(scores.keys().collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn models_with_another_vocabulary_are_refused() {
    let home = home();
    test_model::write_noise(&home.path().join("noise.gguf"), "noise");
    write_cases(&home.path().join("cases.jsonl"));
    let error = quality(home.path(), &["noise.gguf", "ds4-nano"]).failure(1);
    assert!(
        error.contains("`ds4-nano` has another vocabulary"),
        "{error}"
    );
    quality(home.path(), &[]).failure(2);
}
