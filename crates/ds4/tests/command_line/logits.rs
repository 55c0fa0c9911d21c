//! `ds4 logits` against transformers' logits on the same weights (golden/README.md, point 1).

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::program::{Program, home};
use crate::test_model::golden;

/// F32 elements of a golden tensor.
fn tensor(file: &[u8], name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4)
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// Token ids of a golden sequence, whatever their width.
fn ids(file: &[u8], name: &str) -> Vec<i64> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let width = tensor.data().len() / tensor.shape().iter().product::<usize>();
    tensor
        .data()
        .chunks_exact(width)
        .map(|word| match width {
            8 => i64::from_le_bytes(word.try_into().unwrap()),
            4 => i64::from(i32::from_le_bytes(word.try_into().unwrap())),
            other => panic!("ids of {other} bytes"),
        })
        .collect()
}

/// Shape and elements of a `.npy` file, read by its specification.
pub(crate) fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let data = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(data % 64, 0);
    let header = std::str::from_utf8(&bytes[10..data]).unwrap();
    assert!(
        header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': ("),
        "{header}"
    );
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape: Vec<usize> = shape
        .split(", ")
        .map(|size| size.parse().unwrap())
        .collect();
    let values: Vec<f32> = bytes[data..]
        .chunks_exact(4)
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(values.len(), shape.iter().product::<usize>());
    (shape, values)
}

fn compare(model: &str, goldens: &str, length: usize, arguments: &[&str]) {
    const VOCABULARY: usize = 512;
    let home = home();
    let goldens = fs::read(golden(goldens)).unwrap();
    let ids = ids(&goldens, &format!("seq{length}.ids"));
    assert_eq!(ids.len(), length);
    let mut expected = tensor(&goldens, &format!("seq{length}.logits"));
    let (tokens, out) = (home.path().join("ids.json"), home.path().join("out.npy"));
    let all = arguments.contains(&"--all");
    // Both forms of the input.
    let json = if all {
        format!("{ids:?}")
    } else {
        format!("{{\"ids\": {ids:?}}}")
    };
    fs::write(&tokens, json).unwrap();
    Program::new(home.path())
        .args(["logits", "--exact", "--model"])
        .args([
            golden(model).as_os_str(),
            "--tokens".as_ref(),
            tokens.as_os_str(),
        ])
        .args(["--out".as_ref(), out.as_os_str()])
        .args(arguments)
        .run()
        .success();
    let (shape, found) = read_npy(&out);
    if !all {
        expected = expected.split_off((length - 1) * VOCABULARY);
    }
    assert_eq!(shape, [expected.len() / VOCABULARY, VOCABULARY]);
    let largest = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(largest <= 1e-3, "{model} {length} {arguments:?}: {largest}");
}

#[test]
fn exact_logits_agree_on_all_positions() {
    let tiny = ("flash-tiny-native.gguf", "flash-tiny.native.tf.safetensors");
    let kq = ("kq-tiny-ds4q2.gguf", "kq-tiny.ds4q2.tf.safetensors");
    for (model, goldens) in [tiny, kq] {
        compare(model, goldens, 37, &["--all"]);
        compare(
            model,
            goldens,
            37,
            &["--all", "--chunk", "1", "--threads", "1"],
        );
        compare(
            model,
            goldens,
            37,
            &["--all", "--chunk", "7", "--backend", "reference"],
        );
        compare(model, goldens, 37, &["--chunk", "5"]);
    }
}

#[test]
fn an_unusable_token_list_is_refused_with_its_name() {
    let home = home();
    let tokens = home.path().join("ids.json");
    for (content, expected) in [
        ("[]", "holds no token ids"),
        ("[1, 512]", "512"),
        ("[1, -2]", "expected a JSON array"),
        ("{}", "ids"),
    ] {
        fs::write(&tokens, content).unwrap();
        let error = Program::new(home.path())
            .args(["logits", "--model"])
            .args([golden("flash-tiny-native.gguf")])
            .args(["--tokens", "ids.json", "--out", "out.npy"])
            .run()
            .failure(1);
        assert!(error.contains(expected), "{content}: {error}");
        assert!(!home.path().join("out.npy").exists());
    }
}
