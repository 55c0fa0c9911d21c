//! `ds4 steer` and the `--dir-steering` options.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Program, home};
use crate::test_model;

/// Layers and width of the test model.
const LAYERS: usize = 7;
const HIDDEN: usize = 128;

fn write_inputs(home: &Path) {
    test_model::write_noise(&home.join("noise.gguf"), "noise");
    fs::write(home.join("good.txt"), "# short\nyes\n\n  no  \nab\n").unwrap();
    fs::write(
        home.join("bad.txt"),
        "a long answer\nmany words here\nmore and more\n",
    )
    .unwrap();
    fs::write(home.join("ids.json"), "[256, 3, 1, 4, 1, 5, 9, 2, 6]").unwrap();
}

fn steer(home: &Path, arguments: &[&str]) -> Program {
    Program::new(home)
        .args(["steer", "--model", "noise.gguf", "--out", "v.f32"])
        .args(["--good-file", "good.txt", "--bad-file", "bad.txt"])
        .args(arguments)
}

/// `[layers, D]`.
fn read_directions(home: &Path) -> Vec<f32> {
    let bytes = fs::read(home.join("v.f32")).unwrap();
    let words = bytes.chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

fn logits(home: &Path, arguments: &[&str]) -> Vec<u8> {
    Program::new(home)
        .args(["logits", "--model", "noise.gguf", "--tokens", "ids.json"])
        .args(["--out", "out.npy"])
        .args(arguments)
        .run()
        .success();
    fs::read(home.join("out.npy")).unwrap()
}

#[test]
fn directions_have_length_1_and_say_what_they_are() {
    let home = home();
    write_inputs(home.path());
    let mut made = Vec::new();
    for arguments in [
        &[][..],
        &["--component", "attn"],
        &["--no-orthogonalize"],
        &["--pair-normalize"],
        &["--think", "--system", ""],
    ] {
        steer(home.path(), arguments).run().success();
        let directions = read_directions(home.path());
        assert_eq!(directions.len(), LAYERS * HIDDEN);
        for direction in directions.chunks_exact(HIDDEN) {
            let length: f64 = direction.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
        made.push(directions);
    }
    for (index, directions) in made.iter().enumerate() {
        assert!(
            !made[..index].contains(directions),
            "option {index} changes nothing"
        );
    }
    let about = fs::read_to_string(home.path().join("v.json")).unwrap();
    let about: Value = serde_json::from_str(&about).unwrap();
    assert_eq!(about["format"], "ds4-directional-steering-v1");
    assert_eq!(about["shape"], serde_json::json!([LAYERS, HIDDEN]));
    assert_eq!(about["component"], "ffn_out");
    assert_eq!(
        (&about["good_prompts"], &about["thinking"]),
        (&3.into(), &true.into())
    );

    // The opposite question has the opposite answer.
    steer(home.path(), &["--no-orthogonalize"]).run().success();
    let forth = read_directions(home.path());
    Program::new(home.path())
        .args([
            "steer",
            "--model",
            "noise.gguf",
            "--out",
            "v.f32",
            "--no-orthogonalize",
        ])
        .args(["--good-file", "bad.txt", "--bad-file", "good.txt"])
        .run()
        .success();
    let back = read_directions(home.path());
    let sums = forth.iter().zip(&back).map(|(a, b)| (a + b).abs());
    assert!(sums.fold(0.0, f32::max) < 1e-6);
}

#[test]
fn a_steered_model_gives_other_logits_and_scale_0_the_same_bits() {
    let home = home();
    write_inputs(home.path());
    steer(home.path(), &[]).run().success();
    let plain = logits(home.path(), &[]);
    let file = ["--dir-steering-file", "v.f32"];
    let with = |arguments: &[&str]| logits(home.path(), &[&file, arguments].concat());
    assert!(with(&["--dir-steering-ffn", "0"]) == plain);
    let experts = with(&[]);
    assert!(experts != plain);
    // The file alone means scale 1 behind the experts.
    assert!(with(&["--dir-steering-ffn", "1"]) == experts);
    assert!(with(&["--dir-steering-ffn", "1", "--dir-steering-attn", "0"]) == experts);
    let attention = with(&["--dir-steering-attn", "-1"]);
    assert!(attention != plain && attention != experts);
}

#[test]
fn what_does_not_fit_is_refused() {
    let home = home();
    write_inputs(home.path());
    let run = |arguments: &[&str]| {
        Program::new(home.path())
            .args(["logits", "--model", "noise.gguf", "--tokens", "ids.json"])
            .args(["--out", "out.npy"])
            .args(arguments)
            .run()
    };
    let file = ["--dir-steering-file", "v.f32"];
    let error = run(&file).failure(1);
    assert!(error.contains("cannot read `v.f32`"), "{error}");
    for size in [0, 4 * LAYERS * HIDDEN - 4, 4 * 43 * 4096] {
        fs::write(home.path().join("v.f32"), vec![0; size]).unwrap();
        let error = run(&file).failure(1);
        assert!(
            error.contains("expected 3584: 7 layers of 128 F32 each"),
            "{error}"
        );
    }
    let mut nan = vec![0; 4 * LAYERS * HIDDEN];
    nan[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(home.path().join("v.f32"), nan).unwrap();
    let error = run(&file).failure(1);
    assert!(
        error.contains("component 1 of the direction of layer 0 is NaN"),
        "{error}"
    );
    fs::write(home.path().join("v.f32"), vec![0; 4 * LAYERS * HIDDEN]).unwrap();
    let error = run(&[&file[..], &["--dir-steering-ffn", "101"]].concat()).failure(1);
    assert!(error.contains("expected -100 to 100"), "{error}");
    run(&["--dir-steering-ffn", "1"]).failure(2);

    fs::write(home.path().join("good.txt"), "# nothing\n").unwrap();
    let error = steer(home.path(), &[]).run().failure(1);
    assert!(error.contains("`good.txt` holds no prompts"), "{error}");
    fs::write(home.path().join("good.txt"), "one\n").unwrap();
    let error = steer(home.path(), &["--pair-normalize"]).run().failure(2);
    assert!(error.contains("1 and 3 prompts"), "{error}");
    fs::copy(home.path().join("good.txt"), home.path().join("bad.txt")).unwrap();
    let error = steer(home.path(), &[]).run().failure(1);
    assert!(error.contains("do not differ in layer 0"), "{error}");
}

#[test]
fn sessions_of_a_steered_model_belong_to_it() {
    let home = home();
    write_inputs(home.path());
    steer(home.path(), &[]).run().success();
    let chat = |arguments: &[&str]| {
        Program::new(home.path())
            .args([
                "-m",
                "noise.gguf",
                "-c",
                "256",
                "--nothink",
                "-n",
                "4",
                "--temp",
                "0",
            ])
            .args(arguments)
            .run()
    };
    let file = ["--dir-steering-file", "v.f32", "--dir-steering-ffn", "-2"];
    let save = ["-p", "hello", "--save-session", "s"];
    let load = ["-p", "go on", "--load-session", "s"];
    let steered = chat(&[&file[..], &save].concat()).success();
    assert_ne!(steered, chat(&["-p", "hello"]).success());
    chat(&[&file[..], &load].concat()).success();
    let error = chat(&load).failure(1);
    assert!(
        error.contains("another model") && error.contains("--dir-steering"),
        "{error}"
    );
}
