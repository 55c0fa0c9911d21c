//! `ds4 quantize` on the checkpoint that the conversion crate is tested with.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::program::{Program, home};

pub(crate) fn checkpoint(home: &Path) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-quantize/tests/data/kq-tiny");
    let folder = home.join("kq-tiny");
    fs::create_dir(&folder).unwrap();
    for name in ["config.json", "tokenizer_config.json"] {
        fs::copy(data.join(name), folder.join(name)).unwrap();
    }
    for name in ["tokenizer.json", "model.safetensors"] {
        let packed = fs::File::open(data.join(format!("{name}.gz"))).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn a_checkpoint_becomes_a_model_that_runs() {
    let home = home();
    checkpoint(home.path());
    let quantize = |arguments: &[&str]| {
        let fixed = ["quantize", "kq-tiny", "--recipe", "q8"];
        Program::new(home.path())
            .args(fixed.iter().chain(arguments))
            .run()
    };

    let table = quantize(&["--dry-run", "--tensor-type", "output.weight=f16"]).success();
    let line = table.lines().find(|line| line.starts_with("output.weight"));
    assert!(
        line.is_some_and(|line| line.contains("F16") && line.contains("[256, 512]")),
        "{table}"
    );
    assert!(table.contains("mtp.0.e_proj.weight"), "{table}");
    assert!(!home.path().join("out.gguf").exists());

    quantize(&[
        "out.gguf",
        "--name",
        "tiny",
        "--metadata",
        "general.license=mit",
    ])
    .success();
    let error = quantize(&["out.gguf"]).failure(1);
    assert!(
        error.contains("exists already") && error.contains("--overwrite"),
        "{error}"
    );
    quantize(&["out.gguf", "--overwrite", "--mtp", "skip"]).success();

    fs::write(home.path().join("ids.json"), "[1, 2, 3]").unwrap();
    let logits = [
        "logits",
        "--model",
        "./out.gguf",
        "--tokens",
        "ids.json",
        "--out",
        "out.npy",
    ];
    Program::new(home.path()).args(logits).run().success();
    // The MTP block is a file of its own, which is no model.
    let error = Program::new(home.path())
        .args([
            "logits",
            "--model",
            "./out-mtp.gguf",
            "--tokens",
            "ids.json",
            "--out",
            "x.npy",
        ])
        .run()
        .failure(1);
    assert!(error.contains("is missing"), "{error}");

    let mut left: Vec<_> = fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("out"))
        .collect();
    left.sort();
    assert_eq!(left, ["out-mtp.gguf", "out.gguf", "out.npy"]);
}

#[test]
fn mistakes_are_told_before_anything_is_written() {
    let home = home();
    let folder = checkpoint(home.path());
    for (arguments, code, expected) in [
        (&["quantize", "kq-tiny", "out.gguf"][..], 2, "--recipe"),
        (&["quantize", "kq-tiny", "out.gguf", "-r", "q3"], 2, "mxfp4"),
        (&["quantize", "kq-tiny", "-r", "q8"], 2, "OUT.gguf"),
        (
            &[
                "quantize",
                "kq-tiny",
                "out.gguf",
                "-r",
                "q8",
                "--tensor-type",
                "x",
            ],
            2,
            "PATTERN=TYPE",
        ),
        (
            &[
                "quantize",
                "kq-tiny",
                "out.gguf",
                "-r",
                "q8",
                "--tensor-type",
                "x=Q8_0",
            ],
            1,
            "no tensor",
        ),
        (
            &[
                "quantize",
                "kq-tiny",
                "out.gguf",
                "-r",
                "q8",
                "--metadata",
                "x",
            ],
            2,
            "KEY=VALUE",
        ),
        (
            &["quantize", "nowhere", "out.gguf", "-r", "q8"],
            1,
            "nowhere",
        ),
        (
            &[
                "quantize",
                "kq-tiny",
                "out.gguf",
                "-r",
                "q4",
                "--imatrix",
                "kq-tiny/config.json",
            ],
            1,
            "config.json",
        ),
    ] {
        let error = Program::new(home.path())
            .args(arguments)
            .run()
            .failure(code);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    fs::write(folder.join("model.safetensors"), b"not weights").unwrap();
    let error = Program::new(home.path())
        .args(["quantize", "kq-tiny", "out.gguf", "-r", "q8"])
        .run()
        .failure(1);
    assert!(error.contains("incompletely downloaded"), "{error}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}
