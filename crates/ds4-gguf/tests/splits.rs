//! Models in several files.

#![expect(clippy::unwrap_used, reason = "a broken fixture must fail the test")]

use std::path::{Path, PathBuf};

use ds4_gguf::{GgufFile, GgufWriter, Metadata, TensorSpec};
use ds4_quant::TensorType;

/// Writes part `no` of `count` under the usual name, with one tensor filled with `no`.
fn part(folder: &Path, no: u16, count: u16, keys: (u16, u16, i32), tensor: &str) -> PathBuf {
    let path = folder.join(format!("m-{:05}-of-{count:05}.gguf", no + 1));
    let mut metadata = Metadata::new();
    if no == 0 {
        metadata
            .insert("general.architecture", "deepseek4")
            .unwrap();
    }
    metadata.insert("split.no", keys.0).unwrap();
    metadata.insert("split.count", keys.1).unwrap();
    metadata.insert("split.tensors.count", keys.2).unwrap();
    let spec = TensorSpec {
        name: tensor.to_owned(),
        dims: vec![16],
        ty: TensorType::F32,
    };
    let mut writer = GgufWriter::create(&path, &metadata, &[spec]).unwrap();
    writer.write_tensor(tensor, &[no as u8; 64]).unwrap();
    writer.finish().unwrap();
    path
}

fn three(folder: &Path) -> Vec<PathBuf> {
    (0..3)
        .map(|no| part(folder, no, 3, (no, 3, 3), &format!("t{no}")))
        .collect()
}

fn error(path: &Path) -> String {
    GgufFile::open(path).unwrap_err().to_string()
}

#[test]
fn any_part_opens_all() {
    let folder = tempfile::tempdir().unwrap();
    let paths = three(folder.path());
    for path in &paths {
        let file = GgufFile::open(path).unwrap();
        assert_eq!(file.metadata().str("general.architecture"), Ok("deepseek4"));
        assert_eq!(file.paths().collect::<Vec<_>>(), paths);
        for no in 0..3 {
            let tensor = file.tensor(&format!("t{no}")).unwrap();
            assert_eq!(tensor.part, no);
            assert_eq!(file.bytes(tensor)[..], [no as u8; 64]);
        }
        file.check_unchanged().unwrap();
    }
}

#[test]
fn parts_that_do_not_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let paths = three(folder);

    part(folder, 1, 3, (2, 3, 3), "t1");
    let text = error(&paths[0]);
    assert!(
        text.contains("-00002-of-00003") && text.contains("`split.no` is 2, expected 1"),
        "{text}"
    );

    part(folder, 1, 3, (1, 4, 3), "t1");
    assert!(error(&paths[0]).contains("`split.count` is 4, expected 3"));

    part(folder, 1, 3, (1, 3, 3), "t0");
    let text = error(&paths[2]);
    assert!(
        text.contains("tensor `t0` is also in") && text.contains("-00001-of-"),
        "{text}"
    );

    part(folder, 1, 3, (1, 3, 3), "t1");
    part(folder, 0, 3, (0, 3, 4), "t0");
    assert!(
        error(&paths[0]).contains("`split.tensors.count` is 3, expected 4")
            || error(&paths[0]).contains("`split.tensors.count` is 4, expected 3")
    );

    std::fs::remove_file(&paths[1]).unwrap();
    let text = error(&paths[0]);
    assert!(
        text.contains("-00002-of-00003.gguf") && text.contains("cannot open"),
        "{text}"
    );
}

#[test]
fn names_that_do_not_lead_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let paths = three(folder.path());
    for name in [
        "model.gguf",
        "m-00001-of-00004.gguf",
        "m-00004-of-00003.gguf",
        "m-0000x-of-00003.gguf",
    ] {
        let path = folder.path().join(name);
        std::fs::copy(&paths[0], &path).unwrap();
        let text = error(&path);
        assert!(
            text.contains("part of 3") && text.contains("-00001-of-00003.gguf"),
            "{text}"
        );
        std::fs::remove_file(&path).unwrap();
    }
    let bytes: &'static [u8] = Box::leak(std::fs::read(&paths[0]).unwrap().into_boxed_slice());
    let text = GgufFile::from_static("embedded", bytes)
        .unwrap_err()
        .to_string();
    assert!(text.contains("only from files"), "{text}");
}

#[test]
fn a_count_that_nothing_backs_ends_at_the_first_missing_part() {
    let folder = tempfile::tempdir().unwrap();
    let path = part(folder.path(), 0, 65_535, (0, 65_535, 1), "t0");
    assert!(error(&path).contains("-00002-of-65535.gguf"));
}
