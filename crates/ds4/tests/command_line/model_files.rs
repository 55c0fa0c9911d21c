//! inspect, plan and bench.

use serde_json::Value;

use crate::program::{Program, home};
use crate::test_model::golden;

fn run_on(model: &str, arguments: &[&str]) -> String {
    let home = home();
    let (command, rest) = arguments.split_first().unwrap();
    Program::new(home.path())
        .args([*command, "--model"])
        .args([golden(model)])
        .args(rest)
        .run()
        .success()
}

#[test]
fn inspect_counts_what_is_in_the_file() {
    let text = run_on("flash-tiny-native.gguf", &["inspect"]);
    for expected in [
        "flash-tiny",
        "32 of 64 wide, 6 per token",
        "MXFP4",
        "Q8_0",
        "512 tokens",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let json = run_on(
        "flash-tiny-native.gguf",
        &["inspect", "--json", "--ctx", "4096"],
    );
    let value: Value = json.parse().unwrap();
    assert_eq!(
        value["model"]["compress_ratios"],
        serde_json::json!([0, 0, 4, 128, 4, 128, 4])
    );
    assert_eq!(value["memory"]["context"], 4096);
    // 32 experts of three matrices of 64 x 128 in each of 7 layers, all in MXFP4.
    assert_eq!(value["types"]["MXFP4"]["elements"], 7 * 3 * 32 * 64 * 128);
    // 17 bytes for 32 elements.
    assert_eq!(
        value["types"]["MXFP4"]["bytes"],
        7 * 3 * 32 * 64 * 128 / 32 * 17
    );
    let (total, active) = (&value["parameters"], &value["active_parameters"]);
    // Of 32 experts 26 sleep, and all rows of the embedding but one.
    let asleep = 7 * 3 * 26 * 64 * 128 + 511 * 128;
    assert_eq!(total.as_u64().unwrap() - active.as_u64().unwrap(), asleep);
}

#[test]
fn inspect_shows_a_file_that_cannot_run_and_fails() {
    let home = home();
    let run = Program::new(home.path())
        .args(["inspect", "-m"])
        .args([golden("flash-tiny-mtp.gguf")])
        .run();
    assert!(run.stdout.contains("Tensors by type"), "{}", run.stdout);
    let error = run.failure(1);
    assert!(error.contains("ds4 cannot run this file: "), "{error}");
}

#[test]
fn plan_grows_with_context_sessions_and_row_size() {
    let plans = |arguments: &[&str]| -> Vec<Value> {
        let arguments = [&["plan", "--json"], arguments].concat();
        let value: Value = run_on("flash-tiny-native.gguf", &arguments)
            .parse()
            .unwrap();
        value["plans"].as_array().unwrap().clone()
    };
    let one = plans(&["--ctx", "4096,65536"]);
    let types: Vec<_> = one[..4].iter().map(|plan| &plan["kv_cache_type"]).collect();
    assert_eq!(types, ["q4", "fp8", "f16", "f32"]);
    let pages = |plan: &Value| plan["kv_pages"].as_u64().unwrap();
    assert_eq!(one.len(), 8);
    for (small, large) in one[..4].iter().zip(&one[4..]) {
        // 256 and 16 pages of 256 tokens, and four for the ends of turns.
        assert_eq!(pages(large) * (16 + 4), pages(small) * (256 + 4));
        assert_eq!(small["kv_cache_type"], large["kv_cache_type"]);
    }
    assert_eq!(
        pages(&one[3]),
        2 * pages(&one[2]),
        "f32 rows are twice f16 rows"
    );
    let share = pages(&one[0]) as f64 / pages(&one[1]) as f64;
    assert!(
        (0.45..0.6).contains(&share),
        "q4 rows are half of fp8: {share}"
    );
    let four = plans(&["--ctx", "4096", "--sessions", "4", "--kv-cache-type", "fp8"]);
    assert_eq!(pages(&four[0]), 4 * pages(&one[1]));
    let table = run_on("flash-tiny-native.gguf", &["plan"]);
    assert!(
        table.contains("1,048,576") && table.contains("MiB"),
        "{table}"
    );
}

#[test]
fn bench_serve_and_soak_run() {
    let run = |command: &str, arguments: &str| {
        let home = home();
        Program::new(home.path())
            .args(["bench", command, "--model"])
            .args([golden("flash-tiny-native.gguf")])
            .args(arguments.split(' '))
            .run()
            .success()
    };
    let arguments = "--sessions 1,2 --prompt-tokens 20 --gen-tokens 6 --prefill 60 --quantum 8";
    let json: Value = run("serve", &format!("{arguments} --json"))
        .parse()
        .unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, sessions) in rows.iter().zip([1, 2]) {
        assert_eq!(row["sessions"], sessions);
        assert!(row["decode_tps"].as_f64().unwrap() > 0.0, "{row}");
        let gap = &row["beside_prefill"]["gap"]["worst"];
        assert!(gap.as_f64().unwrap() > 0.0, "{row}");
    }
    let table = run("serve", arguments);
    assert!(table.contains("Beside a prompt of 60 tokens"), "{table}");

    let arguments = "--minutes 0.03 --rounds 2 --prompt-tokens 200 --json";
    let json: Value = run("soak", arguments).parse().unwrap();
    assert_eq!(json["clean"], true, "{json}");
}

#[test]
fn bench_measures_and_its_formats_agree() {
    let arguments = [
        "--prompt-tokens",
        "16",
        "--gen-tokens",
        "4",
        "--repeat",
        "2",
    ];
    let json: Value = run_on(
        "flash-tiny-native.gguf",
        &[&["bench", "--json"], &arguments[..]].concat(),
    )
    .parse()
    .unwrap();
    let number = |key: &str| json[key].as_f64().unwrap();
    assert!(number("prefill_tps") > 0.0 && number("decode_tps") > 0.0);
    let share = number("decode_tps") * number("bytes_per_token") / number("memory_bandwidth");
    assert!((number("bandwidth_share") / share - 1.0).abs() < 1e-9);
    let csv = run_on(
        "flash-tiny-native.gguf",
        &[&["bench", "--csv"], &arguments[..]].concat(),
    );
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines.iter().all(|line| line.split(',').count() == 9),
        "{csv}"
    );
    let table = run_on(
        "flash-tiny-native.gguf",
        &[&["bench"], &arguments[..]].concat(),
    );
    assert!(
        table.contains("GB/s") && table.contains("median t/s"),
        "{table}"
    );
}
