//! score, imatrix and bench as scripts use them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use ds4_gguf::{GgufFile, GgufWriter, TensorInfo, TensorSpec};
use ds4_quant::TensorType;
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

/// Questions to the built-in model, a conversation a line.
fn write_questions(path: &Path) {
    let training = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../training/heldout.jsonl");
    let questions = fs::read_to_string(training).unwrap();
    let conversations = questions.lines().map(|line| {
        let question = &parse(line)["question"];
        json!({ "messages": [{ "role": "user", "content": question }] }).to_string() + "\n"
    });
    fs::write(path, conversations.collect::<String>()).unwrap();
}

/// Means of squares by tensor, and the name of the text, from a `.dat` file: its format read anew.
fn read_importance(path: &Path) -> (HashMap<String, Vec<f32>>, String) {
    let bytes = fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let mut take = |count: usize| rest.split_off(..count).unwrap();
    let number = |bytes: &[u8]| i32::from_le_bytes(bytes.try_into().unwrap()) as usize;
    let mut entries = HashMap::new();
    for _ in 0..number(take(4)) {
        let length = number(take(4));
        let name = String::from_utf8(take(length).to_vec()).unwrap();
        assert_eq!(number(take(4)), 1);
        let count = number(take(4));
        let values = take(4 * count).as_chunks().0;
        let values = values.iter().map(|word| f32::from_le_bytes(*word));
        entries.insert(name, values.collect());
    }
    take(4);
    let length = number(take(4));
    let text = String::from_utf8(take(length).to_vec()).unwrap();
    assert!(rest.is_empty());
    (entries, text)
}

/// Writes the built-in model with its Q8_0 matrices in Q4_0.
fn write_four_bits(path: &Path, importance: Option<&HashMap<String, Vec<f32>>>) {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/ds4-nano.gguf");
    let file = GgufFile::open(&nano).unwrap();
    let is_matrix =
        |tensor: &TensorInfo| tensor.ty == TensorType::Q8_0 && tensor.name.starts_with("blk.");
    let specs: Vec<TensorSpec> = file
        .tensors()
        .iter()
        .map(|tensor| TensorSpec {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            ty: if is_matrix(tensor) {
                TensorType::Q4_0
            } else {
                tensor.ty
            },
        })
        .collect();
    let mut writer = GgufWriter::create(path, file.metadata(), &specs).unwrap();
    for (tensor, spec) in file.tensors().iter().zip(&specs) {
        let mut bytes = file.bytes(tensor).to_vec();
        // The MTP block has no importance.
        let weights = importance.and_then(|importance| importance.get(&tensor.name));
        if is_matrix(tensor) {
            let mut values = vec![0.0; tensor.elements() as usize];
            ds4_quant::decode(tensor.ty, &bytes, &mut values).unwrap();
            let columns = tensor.dims[0] as usize;
            bytes.clear();
            let row_bytes = spec.ty.row_bytes(columns).unwrap();
            let rows_of_matrix = tensor.dims[1] as usize;
            for (row, values) in values.chunks_exact(columns).enumerate() {
                let mut encoded = vec![0; row_bytes];
                match weights {
                    None => ds4_quant::encode(spec.ty, values, &mut encoded),
                    Some(weights) => {
                        let matrices = weights.len() / columns;
                        let start = row / rows_of_matrix % matrices * columns;
                        let weights = &weights[start..start + columns];
                        ds4_quant::encode_weighted(spec.ty, values, weights, &mut encoded)
                    }
                }
                .unwrap();
                bytes.extend(encoded);
            }
        }
        writer.write_tensor(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn an_importance_matrix_lowers_the_error_on_its_text() {
    let home = home();
    write_questions(&home.path().join("text.jsonl"));
    let imatrix = ["imatrix", "text.jsonl", "--out", "imatrix.dat"];
    run(home.path(), &imatrix).success();
    let again = run(home.path(), &imatrix).failure(1);
    assert!(
        again.contains("exists already") && again.contains("--overwrite"),
        "{again}"
    );
    let (importance, text) = read_importance(&home.path().join("imatrix.dat"));
    assert_eq!(text, "text.jsonl");
    let score = |importance| {
        write_four_bits(&home.path().join("four.gguf"), importance);
        let arguments = ["score", "text.jsonl", "--model", "four.gguf"];
        let against = ["--against", "ds4-nano", "--exact", "--per-token", "--json"];
        let score = run(home.path(), &[&arguments[..], &against].concat()).success();
        let kl = parse(&score)["per_token"].as_array().unwrap().clone();
        kl.iter()
            .map(|token| token["kl"].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let (plain, weighted) = (score(None), score(Some(&importance)));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    // A few tokens diverge by far the most; the logarithm lets all of them count.
    let gains: Vec<f64> = plain
        .iter()
        .zip(&weighted)
        .map(|(plain, weighted)| (plain.max(1e-9) / weighted.max(1e-9)).ln())
        .collect();
    let gain = mean(&gains);
    let squares: Vec<f64> = gains.iter().map(|x| (x - gain).powi(2)).collect();
    let error = (mean(&squares) / gains.len() as f64).sqrt();
    println!(
        "mean KL {:.5} without, {:.5} with; logarithm less by {gain:.4} ± {error:.4}",
        mean(&plain),
        mean(&weighted)
    );
    assert!(mean(&weighted) < mean(&plain) && gain > 3.0 * error);
}

/// From one command to the next, in llama.cpp's GGUF form.
#[test]
fn quantize_takes_what_imatrix_writes() {
    let home = home();
    checkpoint(home.path());
    let ids: Vec<u32> = (0..100).map(|i| i * i % 512).collect();
    let text = json!({ "ids": ids }).to_string();
    fs::write(home.path().join("text.jsonl"), text).unwrap();
    let model = golden("kq-tiny-ds4q2.gguf");
    let arguments = ["imatrix", "text.jsonl", "--out", "imatrix.gguf", "--model"];
    let finished = run(
        home.path(),
        &[&arguments[..], &[model.to_str().unwrap()]].concat(),
    );
    assert!(
        finished.stderr.contains("100 tokens of text.jsonl"),
        "{finished:?}"
    );
    finished.success();
    let arguments = [
        "quantize",
        "kq-tiny",
        "out.gguf",
        "--recipe",
        "q4",
        "--mtp",
        "skip",
        "--imatrix",
        "imatrix.gguf",
    ];
    run(home.path(), &arguments).success();
    let out = GgufFile::open(&home.path().join("out.gguf")).unwrap();
    let metadata = out.metadata();
    assert_eq!(
        metadata.str("quantize.imatrix.dataset").unwrap(),
        "text.jsonl"
    );
    // Twelve matrices in each of six layers, two more in four with a compressor, four more in two with
    // an indexer, and the output matrix.
    let entries = metadata.u64("quantize.imatrix.entries_count").unwrap();
    assert_eq!(entries, 6 * 12 + 4 * 2 + 2 * 4 + 1);
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
