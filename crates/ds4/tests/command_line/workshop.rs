//! score, imatrix and bench as scripts use them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Finished, Program, home};
use crate::quantize::checkpoint;
use crate::test_model::golden;

fn run(home: &Path, arguments: &[&str]) -> Finished {
    Program::new(home).args(arguments).run()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Documents of token ids without a pattern, and the file that they are in.
fn write_documents(path: &Path, documents: u64, tokens: u64) {
    let mut state = 7_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % 512
    };
    let lines = (0..documents).map(|_| {
        let ids: Vec<u64> = (0..tokens).map(|_| next()).collect();
        json!({ "ids": ids }).to_string() + "\n"
    });
    fs::write(path, lines.collect::<String>()).unwrap();
}

#[test]
fn an_importance_matrix_lowers_the_error_on_its_text() {
    let home = home();
    checkpoint(home.path());
    write_documents(&home.path().join("text.jsonl"), 4, 150);
    let quantize = |out: &str, recipe: &str, more: &[&str]| {
        let fixed = [
            "quantize", "kq-tiny", out, "--recipe", recipe, "--mtp", "skip",
        ];
        run(home.path(), &[&fixed[..], more].concat()).success();
    };
    quantize("exact.gguf", "bf16", &[]);
    let imatrix = [
        "imatrix",
        "text.jsonl",
        "--model",
        "./exact.gguf",
        "--out",
        "imatrix.gguf",
    ];
    let finished = run(home.path(), &imatrix);
    assert!(
        finished.stderr.contains("600 tokens of text.jsonl"),
        "{finished:?}"
    );
    finished.success();
    let again = run(home.path(), &imatrix).failure(1);
    assert!(
        again.contains("exists already") && again.contains("--overwrite"),
        "{again}"
    );
    quantize("plain.gguf", "q2", &[]);
    quantize("weighted.gguf", "q2", &["--imatrix", "imatrix.gguf"]);

    let score = |model: &str| {
        let arguments = [
            "score",
            "text.jsonl",
            "--model",
            model,
            "--against",
            "./exact.gguf",
            "--exact",
            "--json",
        ];
        parse(&run(home.path(), &arguments).success())
    };
    let [plain, weighted] = ["./plain.gguf", "./weighted.gguf"].map(score);
    let kl = |score: &Value| score["kl"].as_f64().unwrap();
    println!("KL {} without, {} with", kl(&plain), kl(&weighted));
    assert!(
        kl(&weighted) < 0.995 * kl(&plain),
        "{} {}",
        kl(&weighted),
        kl(&plain)
    );
    assert_eq!(plain["tokens"], 4 * 149);
    assert_eq!(plain["against"]["exact"], true);
    assert_eq!(plain["against"]["nll"], weighted["against"]["nll"]);
}

#[test]
fn a_score_is_told_with_its_error_and_token_by_token() {
    let home = home();
    let model = golden("flash-tiny-native.gguf");
    let model = model.to_str().unwrap();
    let ids: Vec<u32> = (0..40).map(|i| 400 + (i * i) % 97).collect();
    fs::write(
        home.path().join("text.jsonl"),
        format!("\n{}\n{{\"ids\": [1]}}\n", json!({ "ids": ids })),
    )
    .unwrap();
    let fixed = [
        "score",
        "text.jsonl",
        "--model",
        model,
        "--against-exact",
        "--ctx",
        "16",
    ];
    let json = run(
        home.path(),
        &[&fixed[..], &["--per-token", "--json"]].concat(),
    )
    .success();
    let json = parse(&json);
    let tokens = json["per_token"].as_array().unwrap();
    assert_eq!((tokens.len(), json["stride"].as_u64()), (39, Some(8)));
    let nll: Vec<f64> = tokens
        .iter()
        .map(|token| token["nll"].as_f64().unwrap())
        .collect();
    let mean = nll.iter().sum::<f64>() / 39.0;
    let variance = nll.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 38.0;
    let near = |key: &str, expected: f64| {
        let found = json[key].as_f64().unwrap();
        assert!(
            (found / expected - 1.0).abs() < 1e-9,
            "{key}: {found} {expected}"
        );
    };
    near("nll", mean);
    near("nll_error", (variance / 39.0).sqrt());
    near("perplexity", mean.exp());
    near("bits_per_token", mean / 2_f64.ln());
    assert_eq!(json["exact"], false);
    assert_eq!(json["against"]["exact"], true);
    assert_eq!(json["against"]["kv_cache_type"], "f32");
    assert!(json["kl"].as_f64().unwrap() > 0.0);

    let table = run(
        home.path(),
        &[&fixed[..], &["--per-token", "--max-tokens", "5"]].concat(),
    );
    let table = table.success();
    for expected in [
        "5 tokens scored",
        "perplexity",
        "±",
        "KL(against || model)",
        "1:5",
    ] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    assert!(!table.contains("1:6"), "{table}");
}

#[test]
fn what_is_no_text_is_refused_with_its_line() {
    let home = home();
    let model = golden("flash-tiny-native.gguf");
    let model = model.to_str().unwrap();
    for (line, expected) in [
        ("{\"ids\": [1, 512]}", "id 512 is not in the vocabulary"),
        ("{\"text\": 3}", "no text, ids or messages"),
        ("[1, 2]", "neither a string nor an object"),
        ("{\"messages\": 1}", "no conversation"),
        ("{", "no JSON"),
    ] {
        fs::write(
            home.path().join("text.jsonl"),
            format!("\"fine\"\n{line}\n"),
        )
        .unwrap();
        for command in ["score", "imatrix"] {
            let arguments = [command, "text.jsonl", "--model", model, "--out", "x.dat"];
            let arguments = if command == "score" {
                &arguments[..4]
            } else {
                &arguments
            };
            let error = run(home.path(), arguments).failure(1);
            assert!(error.contains("line 2"), "{error}");
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
    fs::write(home.path().join("empty.txt"), "").unwrap();
    let error = run(home.path(), &["score", "empty.txt", "--model", model]).failure(1);
    assert!(error.contains("nothing can be predicted"), "{error}");
    for (arguments, expected) in [
        (&["score", "x", "--ctx", "1"][..], "the context is 1"),
        (
            &["score", "x", "--ctx", "8", "--stride", "8"],
            "the stride is 8",
        ),
        (&["imatrix", "x", "--out", "y", "--ctx", "1"], "at least 2"),
        (&["bench", "--contexts", "8,8"], "ascending"),
        (
            &["bench", "--contexts", "8", "--prompt-tokens", "9"],
            "cannot be used",
        ),
    ] {
        let error = run(home.path(), arguments).failure(2);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn a_sweep_measures_every_context_and_compares() {
    let home = home();
    let model = golden("flash-tiny-native.gguf");
    let model = model.to_str().unwrap();
    let fixed = [
        "bench",
        "--model",
        model,
        "--contexts",
        "16,64,200",
        "--gen-tokens",
        "4",
        "--repeat",
        "2",
        "--threads",
        "1",
    ];
    let json = run(
        home.path(),
        &[&fixed[..], &["--json", "--svg", "plot.svg"]].concat(),
    )
    .success();
    fs::write(home.path().join("old.json"), &json).unwrap();
    let json = parse(&json);
    let rows = json["rows"].as_array().unwrap();
    let of =
        |key: &str| -> Vec<u64> { rows.iter().map(|row| row[key].as_u64().unwrap()).collect() };
    assert_eq!(of("context"), [16, 64, 200]);
    assert_eq!(of("prompt_tokens"), [16, 48, 136]);
    assert!(of("bytes_per_token").is_sorted() && of("kv_cache_bytes").is_sorted());
    for row in rows {
        let runs = row["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for key in ["prefill_tps", "decode_tps"] {
            let speeds = [0, 1].map(|run| runs[run][key].as_f64().unwrap());
            assert!(speeds.iter().all(|&speed| speed > 0.0));
            let median = row[key].as_f64().unwrap();
            assert!((median - (speeds[0] + speeds[1]) / 2.0).abs() < 1e-9 * median);
        }
    }
    let svg = fs::read_to_string(home.path().join("plot.svg")).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.matches("<circle").count() == 6,
        "{svg}"
    );

    let csv = run(home.path(), &[&fixed[..], &["--csv"]].concat()).success();
    assert_eq!(csv.lines().count(), 1 + 3 * 2, "{csv}");
    let table = run(
        home.path(),
        &[&fixed[..], &["--compare", "old.json"]].concat(),
    )
    .success();
    assert!(
        table.contains("new / old") && table.contains("Ratios of medians"),
        "{table}"
    );

    // Twice as fast in every run is faster; half as fast slower.
    let mut new = json.clone();
    for row in new["rows"].as_array_mut().unwrap() {
        for run in row["runs"].as_array_mut().unwrap() {
            run["decode_tps"] = (100.0 * run["decode_tps"].as_f64().unwrap()).into();
            run["prefill_tps"] = (0.01 * run["prefill_tps"].as_f64().unwrap()).into();
        }
    }
    fs::write(home.path().join("new.json"), new.to_string()).unwrap();
    let files = ["bench", "--compare", "old.json", "new.json"];
    let table = run(home.path(), &files).success();
    assert_eq!(table.matches(" faster").count(), 3, "{table}");
    assert_eq!(table.matches(" slower").count(), 3, "{table}");
    let compared = run(home.path(), &[&files[..], &["--json"]].concat()).success();
    let compared = parse(&compared);
    let ratio = compared["comparison"][1]["decode"]["ratio"]
        .as_f64()
        .unwrap();
    assert!((ratio - 100.0).abs() < 1e-6);

    fs::write(home.path().join("other.json"), "{}").unwrap();
    let error = run(
        home.path(),
        &["bench", "--compare", "old.json", "other.json"],
    )
    .failure(1);
    assert!(error.contains("other.json` is no measurement"), "{error}");
}

#[test]
fn synthetic_files_run_and_say_what_they_are_wherever_they_are_shown() {
    let home = home();
    for (recipe, dialect) in [("q2-q4", "published"), ("mxfp4", "llama.cpp")] {
        let out = format!("{recipe}.gguf");
        let arguments = [
            "synth",
            &out,
            "--recipe",
            recipe,
            "--dialect",
            dialect,
            "--mtp",
        ];
        let finished = run(home.path(), &arguments);
        assert!(finished.stderr.contains("random weights"), "{finished:?}");
        finished.success();
        let again = run(home.path(), &arguments).failure(1);
        assert!(again.contains("exists already"), "{again}");
        assert!(home.path().join(format!("{recipe}-mtp.gguf")).exists());

        let model = format!("./{out}");
        let inspect = run(home.path(), &["inspect", "--model", &model, "--tensors"]);
        assert!(inspect.stderr.contains("is synthetic"), "{inspect:?}");
        let inspect = inspect.success();
        let expert = if recipe == "mxfp4" { "MXFP4" } else { "Q4_K" };
        for expected in ["(synthetic: random weights)", "Synthetic small", expert] {
            assert!(inspect.contains(expected), "{expected}: {inspect}");
        }
        let json = run(home.path(), &["inspect", "--model", &model, "--json"]).success();
        assert_eq!(parse(&json)["synthetic"], true);
        let bench = [
            "bench",
            "--model",
            &model,
            "--prompt-tokens",
            "8",
            "--gen-tokens",
            "2",
            "--repeat",
            "1",
        ];
        let bench = run(home.path(), &bench).success();
        assert!(bench.contains("(synthetic: random weights)"), "{bench}");
        let chat = run(
            home.path(),
            &["--model", &model, "-p", "Hi", "-n", "3", "--nothink"],
        );
        assert!(
            chat.stderr.contains("what it says means nothing"),
            "{chat:?}"
        );
        chat.success();
    }
    // The whole of PRO is refused before the first byte, unless this is a very large machine.
    let error = run(
        home.path(),
        &["synth", "pro.gguf", "--shape", "pro", "--recipe", "f32"],
    );
    let error = error.failure(1);
    assert!(
        error.contains("are missing") && error.contains("TiB"),
        "{error}"
    );
    assert!(!home.path().join("pro.gguf").exists());
    let json = run(home.path(), &["inspect", "--json"]).success();
    assert_eq!(parse(&json)["synthetic"], false);
}
