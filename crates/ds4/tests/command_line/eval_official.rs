//! `ds4 eval official` against likelihoods computed from `ds4 logits`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::logits::read_npy;
use crate::program::{Program, home};
use crate::test_model;

const PROMPTS: [(&str, &str, &str); 4] = [
    ("case_000", "Explain B-trees.", "A B-tree is a tree"),
    ("case_001", "Ciao, come va?", "B"),
    ("case_003", "Well?", "OK no"),
    (
        "case_002",
        "Write\ntwo lines.\n",
        "<think>\n\u{e9}\u{20ac} are bytes, too\n",
    ),
];

/// Token ids as `ds4 render` or `ds4 tokenize` gives them.
fn ids(home: &Path, arguments: &[&str], input: &Value) -> Vec<u32> {
    let line = Program::new(home)
        .args(arguments)
        .args(["--model", "model.gguf"])
        .input(input.to_string())
        .run()
        .success();
    let value: Value = serde_json::from_str(&line).unwrap();
    let ids = if value.is_array() {
        &value
    } else {
        &value["ids"]
    };
    serde_json::from_value(ids.clone()).unwrap()
}

/// Tokens of the target, sum of `-ln p`, whether the first is the likeliest, length of the greedy prefix.
fn expected(home: &Path, prompt: &str, continuation: &str) -> (usize, usize, f64, bool, usize) {
    let message = json!({"messages": [{"role": "user", "content": prompt}]});
    let prompt = ids(home, &["render"], &message);
    let target = ids(home, &["tokenize"], &json!(continuation));
    let all: Vec<u32> = prompt.iter().chain(&target).copied().collect();
    fs::write(home.join("ids.json"), json!(all).to_string()).unwrap();
    Program::new(home)
        .args(["logits", "--model", "model.gguf", "--tokens", "ids.json"])
        .args(["--out", "all.npy", "--all", "--exact"])
        .run()
        .success();
    let (shape, logits) = read_npy(&home.join("all.npy"));
    let (mut nll, mut prefix) = (0.0, 0);
    for (index, &token) in target.iter().enumerate() {
        let row = &logits[(prompt.len() + index - 1) * shape[1]..][..shape[1]];
        let over = |logit: f32| f64::from(logit - row[token as usize]).exp();
        nll += row.iter().map(|&logit| over(logit)).sum::<f64>().ln();
        let likeliest = (0..shape[1]).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        if likeliest == Some(token as usize) && prefix == index {
            prefix += 1;
        }
    }
    (prompt.len(), target.len(), nll, prefix > 0, prefix)
}

/// Files below `data/` and a manifest that names them from where `ds4` runs, or from further up.
fn write_manifest(home: &Path, entries: &[(&str, String, String)]) {
    let data = home.join("top/data");
    fs::create_dir_all(&data).unwrap();
    let mut manifest = "# id\tprompt_file\tcontinuation_file\tresponse_file\n".to_owned();
    for (id, prompt, continuation) in entries {
        fs::write(data.join(format!("{id}.prompt.txt")), prompt).unwrap();
        fs::write(data.join(format!("{id}.txt")), continuation).unwrap();
        manifest.push_str(&format!(
            "{id}\tdata/{id}.prompt.txt\tdata/{id}.txt\tnone.json\n"
        ));
    }
    fs::write(data.join("manifest.tsv"), manifest).unwrap();
}

fn official(home: &Path) -> Program {
    Program::new(home)
        .args(["eval", "official", "top/data/manifest.tsv"])
        .args(["--model", "model.gguf", "--exact"])
}

#[test]
fn likelihoods_follow_from_the_logits() {
    compare(|path| test_model::write_noise(path, "noise"));
    // This one says "OK" to everything, so there are matches.
    let says = [
        ("</think>", "O"),
        ("O", "K"),
        ("K", "<｜end▁of▁sentence｜>"),
    ];
    compare(|path| test_model::write_script(path, &says));
}

fn compare(write_model: impl FnOnce(&Path)) {
    let home = home();
    write_model(&home.path().join("model.gguf"));
    let mut entries: Vec<(&str, String, String)> = PROMPTS
        .iter()
        .map(|(id, prompt, continuation)| (*id, (*prompt).to_owned(), (*continuation).to_owned()))
        .collect();
    entries.push(("empty", "Say nothing.".to_owned(), String::new()));
    write_manifest(home.path(), &entries);

    let json = official(home.path())
        .args(["--json", "--tsv", "scores.tsv"])
        .run()
        .success();
    let report: Value = serde_json::from_str(&json).unwrap();
    let tsv = fs::read_to_string(home.path().join("scores.tsv")).unwrap();
    let mut lines = tsv.lines();
    assert_eq!(
        lines.next().unwrap(),
        "id\tprompt_tokens\ttarget_tokens\tnll\tavg_nll\tfirst_match\tgreedy_lcp"
    );
    let (mut total, mut tokens, mut firsts, mut prefixes) = (0.0, 0, 0, 0);
    for (index, (id, prompt, continuation)) in entries.iter().enumerate() {
        let (length, count, nll, first, prefix) = expected(home.path(), prompt, continuation);
        let case = &report["case_scores"][index];
        assert_eq!(case["id"], *id);
        assert_eq!(case["prompt_tokens"], length);
        assert_eq!(case["target_tokens"], count);
        let found = case["nll"].as_f64().unwrap();
        assert!(
            (found - nll).abs() < 1e-4 * nll.max(1.0),
            "{id}: {found} for {nll}"
        );
        assert_eq!(case["first_match"], first, "{id}");
        assert_eq!(case["greedy_lcp"], prefix, "{id}");
        let columns: Vec<&str> = lines.next().unwrap().split('\t').collect();
        assert_eq!(columns.len(), 7);
        assert_eq!(columns[3], format!("{found:.9}"));
        assert_eq!(columns[5], if first { "1" } else { "0" });
        total += nll;
        tokens += count;
        firsts += usize::from(first);
        prefixes += prefix;
    }
    assert_eq!(report["tokens"], tokens);
    assert_eq!(report["first_match"], firsts);
    let mean = report["avg_nll"].as_f64().unwrap();
    assert!((mean - total / tokens as f64).abs() < 1e-4, "{mean}");
    let prefix = report["avg_lcp"].as_f64().unwrap();
    assert!((prefix - prefixes as f64 / entries.len() as f64).abs() < 1e-12);

    let table = official(home.path()).run().success();
    let last = table.lines().last().unwrap();
    assert!(
        last.starts_with("all") && last.contains(&format!("{mean:.6}")),
        "{table}"
    );
}

#[test]
fn unusable_manifests_are_refused_by_name() {
    let home = home();
    test_model::write_noise(&home.path().join("model.gguf"), "noise");
    let data = home.path().join("top/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("p.txt"), "hello").unwrap();
    fs::write(data.join("latin.txt"), [b'a', 0xe9]).unwrap();
    for (manifest, expected) in [
        ("", "the manifest has no entry"),
        ("a p.txt p.txt\n", "line 1 has 1 columns"),
        ("a\tp.txt\n", "line 1 has 2 columns"),
        (
            "a\tp.txt\tp.txt\na\tp.txt\tp.txt\n",
            "line 2: the id `a` is there twice",
        ),
        (
            "a\tp.txt\tmissing.txt\n",
            "cannot read case `a`: there is no file `missing.txt`",
        ),
        ("a\tp.txt\tlatin.txt\n", "is not UTF-8"),
        ("a\t.\tp.txt\n", "there is no file `.`"),
    ] {
        fs::write(data.join("manifest.tsv"), manifest).unwrap();
        let error = official(home.path()).run().failure(1);
        assert!(error.contains(expected), "{manifest:?}: {error}");
    }
    fs::remove_file(data.join("manifest.tsv")).unwrap();
    let error = official(home.path()).run().failure(1);
    assert!(error.contains("manifest.tsv"), "{error}");
}
