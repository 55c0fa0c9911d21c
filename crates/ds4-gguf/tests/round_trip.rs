//! Files written by other programs, and what the writer makes of them.

#![expect(clippy::unwrap_used, reason = "a broken fixture must fail the test")]

mod build;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ds4_gguf::{Array, GgufFile, GgufWriter, Metadata, TensorSpec, Value, ValueType};
use ds4_quant::TensorType;
use tempfile::TempDir;

/// A file of llama.cpp's converter, unpacked.
fn converted(folder: &TempDir) -> PathBuf {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/flash-tiny-mtp.gguf.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    let path = folder.path().join("flash-tiny-mtp.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn specs(file: &GgufFile) -> Vec<TensorSpec> {
    let spec = |tensor: &ds4_gguf::TensorInfo| TensorSpec {
        name: tensor.name.clone(),
        dims: tensor.dims.clone(),
        ty: tensor.ty,
    };
    file.tensors().iter().map(spec).collect()
}

fn copy(file: &GgufFile, to: &Path) {
    let mut writer = GgufWriter::create(to, file.metadata(), &specs(file)).unwrap();
    for tensor in file.tensors() {
        writer
            .write_tensor(&tensor.name, &file.bytes(tensor))
            .unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn a_converted_file_reads_as_its_converter_meant() {
    let folder = tempfile::tempdir().unwrap();
    let path = converted(&folder);
    let file = GgufFile::open(&path).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.architecture"), Ok("deepseek4"));
    assert_eq!(metadata.u32("deepseek4.embedding_length"), Ok(128));
    assert_eq!(metadata.u32("deepseek4.nextn_predict_layers"), Ok(1));
    let ratios = metadata
        .integers("deepseek4.attention.compress_ratios")
        .unwrap();
    assert_eq!(ratios, [0, 0, 4, 128, 4, 128, 4, 0]);
    assert_eq!(
        metadata
            .byte_strings("tokenizer.ggml.tokens")
            .unwrap()
            .count(),
        512
    );
    let embedding = file.tensor("token_embd.weight").unwrap();
    assert_eq!(embedding.dims, [128, 512]);
    assert_eq!(embedding.elements(), 128 * 512);
    assert_eq!(
        file.bytes(embedding).len(),
        embedding.ty.row_bytes(128).unwrap() * 512
    );
    assert_eq!(file.file_size(), std::fs::metadata(&path).unwrap().len());
    assert_eq!(file.paths().collect::<Vec<_>>(), [path]);
    file.check_unchanged().unwrap();
}

#[test]
fn a_copy_has_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = converted(&folder);
    let file = GgufFile::open(&path).unwrap();
    let to = folder.path().join("copy.gguf");
    copy(&file, &to);
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&to).unwrap());
    let copied = GgufFile::open(&to).unwrap();
    assert_eq!(copied.metadata(), file.metadata());
    for (one, other) in file.tensors().iter().zip(copied.tensors()) {
        assert_eq!(
            (&one.name, &one.dims, one.ty, one.offset),
            (&other.name, &other.dims, other.ty, other.offset)
        );
        assert!(file.bytes(one) == copied.bytes(other), "{}", one.name);
    }
}

#[test]
fn every_kind_of_value_survives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.gguf");
    let mut metadata = Metadata::new();
    let values = [
        Value::U8(255),
        Value::I8(-128),
        Value::U16(65_535),
        Value::I16(-32_768),
        Value::U32(u32::MAX),
        Value::I32(i32::MIN),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F32(-0.1),
        Value::F64(1e300),
        Value::Bool(true),
        Value::from(""),
        Value::from("grüße\n\0"),
        Array::from([1_i32, -2].as_slice()).into(),
        Array::from([true, false].as_slice()).into(),
        Array::of_strings(["", "é", "<｜User｜>"]).into(),
        Array::of_strings(Vec::<&str>::new()).into(),
        Array::new(ValueType::Array, [Array::from([7_u8].as_slice()).into()])
            .unwrap()
            .into(),
    ];
    for (i, value) in values.iter().enumerate() {
        metadata.insert(format!("key.{i}"), value.clone()).unwrap();
    }
    metadata.insert("general.alignment", 128_u32).unwrap();
    let tensor = |name: &str, dims: &[u64], ty| TensorSpec {
        name: name.to_owned(),
        dims: dims.to_vec(),
        ty,
    };
    let tensors = [
        tensor("a", &[3], TensorType::F32),
        tensor("b", &[256, 3, 2], TensorType::Iq2Xxs),
        tensor("c", &[1, 1, 1, 1], TensorType::Bf16),
    ];
    let mut writer = GgufWriter::create(&path, &metadata, &tensors).unwrap();
    writer.write_tensor("a", &[1; 12]).unwrap();
    writer.write_part("b", &[2; 100]).unwrap();
    writer.write_part("b", &[3; 66 * 6 - 100]).unwrap();
    writer.write_tensor("c", &[4; 2]).unwrap();
    assert!(
        !path.exists(),
        "the file must appear only when it is complete"
    );
    writer.finish().unwrap();
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.metadata(), &metadata);
    for (i, value) in values.iter().enumerate() {
        assert_eq!(file.metadata().get(&format!("key.{i}")), Some(value));
    }
    assert_eq!(
        file.tensors().iter().map(|t| t.offset).collect::<Vec<_>>(),
        [0, 128, 640]
    );
    assert_eq!(file.bytes(&file.tensors()[1])[98..102], [2, 2, 3, 3]);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

#[test]
fn the_writer_refuses_what_would_make_a_bad_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    let none = Metadata::new();
    let spec = |name: &str, dims: &[u64], ty| TensorSpec {
        name: name.to_owned(),
        dims: dims.to_vec(),
        ty,
    };
    let create = |tensors: &[TensorSpec]| GgufWriter::create(&path, &none, tensors).map(|_| ());
    let text = |result: Result<(), ds4_gguf::GgufError>| result.unwrap_err().to_string();
    assert!(text(create(&[spec("x", &[], TensorType::F32)])).contains("0 dimensions"));
    assert!(text(create(&[spec("x", &[32, 0], TensorType::F32)])).contains("dimension 1 is 0"));
    assert!(text(create(&[spec("x", &[33], TensorType::Q8_0)])).contains("whole number"));
    assert!(text(create(&[spec("x", &[1 << 62, 4], TensorType::F32)])).contains("overflow"));
    let twice = [
        spec("x", &[1], TensorType::F32),
        spec("x", &[1], TensorType::F32),
    ];
    assert!(text(create(&twice)).contains("`x`"));
    let mut odd = Metadata::new();
    odd.insert("general.alignment", 3_u32).unwrap();
    assert!(GgufWriter::create(&path, &odd, &[]).is_err());
    assert!(odd.insert("general.alignment", 32_u32).is_err());

    let two = [
        spec("x", &[2], TensorType::F32),
        spec("y", &[2], TensorType::F32),
    ];
    let mut writer = GgufWriter::create(&path, &none, &two).unwrap();
    assert!(text(writer.write_tensor("y", &[0; 8])).contains("next tensor is `x`"));
    assert!(text(writer.write_tensor("x", &[0; 7])).contains("expected 8"));
    assert!(text(writer.write_part("x", &[0; 9])).contains("lacks only 8"));
    writer.write_tensor("x", &[0; 8]).unwrap();
    writer.write_part("y", &[0; 4]).unwrap();
    assert!(text(writer.finish()).contains("4 of its 8 bytes are missing"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(GgufWriter::create(&folder.path().join("no/such/folder.gguf"), &none, &[]).is_err());
}

#[test]
fn a_full_vocabulary_opens_fast() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocabulary.gguf");
    let mut metadata = Metadata::new();
    let strings = |n: usize| Array::of_strings((0..n).map(|i| format!("token{i}")));
    metadata
        .insert("tokenizer.ggml.tokens", strings(129_280))
        .unwrap();
    metadata
        .insert("tokenizer.ggml.merges", strings(127_741))
        .unwrap();
    GgufWriter::create(&path, &metadata, &[])
        .unwrap()
        .finish()
        .unwrap();
    let start = Instant::now();
    let file = GgufFile::open(&path).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(
        file.metadata()
            .byte_strings("tokenizer.ggml.tokens")
            .unwrap()
            .count(),
        129_280
    );
    // Takes a few milliseconds; the limit leaves room for a busy machine.
    assert!(elapsed < Duration::from_millis(100), "{elapsed:?}");
}

#[test]
fn data_outlive_the_file_and_cross_threads() {
    let bytes: &'static [u8] = Box::leak(build::valid().into_boxed_slice());
    let file = GgufFile::from_static("embedded", bytes).unwrap();
    let data = file.bytes(file.tensor("output.weight").unwrap());
    drop(file);
    let len = std::thread::spawn(move || data.len()).join().unwrap();
    assert_eq!(len, 68);
}

#[test]
fn a_change_after_opening_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changing.gguf");
    std::fs::write(&path, build::valid()).unwrap();
    let file = GgufFile::open(&path).unwrap();
    file.check_unchanged().unwrap();
    let handle = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    handle.set_modified(later).unwrap();
    assert!(
        file.check_unchanged()
            .unwrap_err()
            .to_string()
            .contains("written to")
    );
    handle.set_len(10).unwrap();
    let text = file.check_unchanged().unwrap_err().to_string();
    assert!(
        text.contains("changing.gguf") && text.contains("to 10 bytes"),
        "{text}"
    );
}
