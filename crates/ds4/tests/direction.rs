//! Lower crates never know upper ones: the code map of ARCHITECTURE.md, checked.

use std::collections::BTreeMap;
use std::process::Command;

/// What each crate may use of this workspace, the crates that those use included.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ds4-quant", &[]),
    ("ds4-gguf", &["ds4-quant"]),
    ("ds4-tokenizer", &[]),
    ("ds4-chat", &[]),
    ("ds4-kvstore", &[]),
    ("ds4-download", &[]),
    ("ds4-model", &["ds4-gguf", "ds4-quant"]),
    ("ds4-cpu", &["ds4-gguf", "ds4-model", "ds4-quant"]),
    (
        "ds4-engine",
        &[
            "ds4-cpu",
            "ds4-gguf",
            "ds4-kvstore",
            "ds4-model",
            "ds4-quant",
        ],
    ),
    ("ds4-eval", &["ds4-chat"]),
    ("ds4-grammar", &["ds4-chat", "ds4-engine", "ds4-tokenizer"]),
    (
        "ds4-server",
        &["ds4-chat", "ds4-engine", "ds4-grammar", "ds4-tokenizer"],
    ),
    ("ds4-quantize", &["ds4-gguf", "ds4-model", "ds4-quant"]),
    ("ds4-synthetic", &["ds4-gguf", "ds4-quant"]),
    (
        "ds4-workshop",
        &[
            "ds4-cpu",
            "ds4-engine",
            "ds4-gguf",
            "ds4-model",
            "ds4-quant",
            "ds4-quantize",
        ],
    ),
];

/// The programs and the test kit may use everything below them.
const TOP: &[&str] = &["ds4", "ds4-testkit"];

#[test]
fn lower_crates_do_not_know_upper_ones() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();

    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if TOP.contains(&name) {
            continue;
        }
        let allowed = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no place in the map"));
        let used = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| {
                // Tests may look down from anywhere.
                dependency["kind"].is_null() && !dependency["path"].is_null()
            });
        for dependency in used {
            let dependency = dependency["name"].as_str().unwrap();
            assert!(
                allowed.contains(&dependency),
                "{name} must not know {dependency}"
            );
        }
    }
}
