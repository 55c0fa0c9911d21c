//! Bad files: each gets one clear error that says what is wrong and where.

mod build;

use std::time::{Duration, Instant};

use build::{Raw, valid};
use ds4_gguf::{GgufError, GgufFile};

fn open(bytes: Vec<u8>) -> Result<GgufFile, GgufError> {
    GgufFile::from_bytes("bad.gguf", bytes.into())
}

/// Opens `bytes` and expects an error whose text contains every one of `parts`.
fn refuses(case: &str, bytes: Vec<u8>, parts: &[&str]) {
    let start = Instant::now();
    let Err(error) = open(bytes) else {
        panic!("{case}: accepted")
    };
    let text = error.to_string();
    for part in parts.iter().chain(&["bad.gguf"]) {
        assert!(text.contains(part), "{case}: `{text}` lacks `{part}`");
    }
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{case}: took too long"
    );
}

fn one_tensor(dims: &[u64], ty: u32, offset: u64, data: usize) -> Vec<u8> {
    Raw::start(1, 0)
        .tensor("blk.0.x", dims, ty, offset)
        .data(data)
}

fn with_alignment(ty: u32, value: &[u8]) -> Vec<u8> {
    Raw::start(0, 1)
        .key("general.alignment", ty)
        .bytes(value)
        .data(64)
}

#[test]
fn the_valid_file_is_valid() {
    let file = open(valid()).unwrap();
    assert_eq!(file.tensors().len(), 2);
    assert_eq!(file.tensor("output.weight").unwrap().dims, [32, 2]);
    assert_eq!(file.metadata().u32("deepseek4.block_count"), Ok(43));
}

#[test]
fn starts() {
    refuses("empty file", vec![], &["at byte 0", "magic"]);
    refuses("three bytes", b"GGU".to_vec(), &["at byte 0", "magic"]);
    refuses(
        "wrong magic",
        b"GGML\x03\0\0\0".to_vec(),
        &["at byte 0", "magic", "GGUF"],
    );
    refuses(
        "a zip",
        [b"PK\x03\x04".as_slice(), &[0; 60]].concat(),
        &["magic"],
    );
    refuses(
        "magic only",
        b"GGUF".to_vec(),
        &["at byte 4", "version", "truncated"],
    );
    for version in [0_u32, 1, 2, 4, u32::MAX] {
        let bytes = Raw(b"GGUF".to_vec()).u32(version).u64(0).u64(0).0;
        refuses(
            "version",
            bytes,
            &["at byte 4", &format!("version {version}"), "expected 3"],
        );
    }
    let big_endian = Raw(b"GGUF".to_vec())
        .bytes(&3_u32.to_be_bytes())
        .u64(0)
        .u64(0)
        .0;
    refuses("big-endian", big_endian, &["big-endian", "version 3"]);
}

#[test]
fn counts() {
    // CVE-2024-23605 and CVE-2026-27940: counts that overflow when multiplied by a size.
    for count in [1 << 63, u64::MAX, u64::MAX / 24 + 1, 1 << 32, 1000] {
        let text = count.to_string();
        refuses(
            "n_kv",
            Raw::start(0, count).data(64),
            &["number of metadata keys", &text],
        );
        // llama.cpp#15711: the same for the tensors.
        refuses(
            "n_tensors",
            Raw::start(count, 0).data(64),
            &["number of tensors", &text],
        );
    }
    refuses(
        "no counts",
        Raw(b"GGUF".to_vec()).u32(3).0,
        &["tensor count", "truncated"],
    );
}

#[test]
fn names() {
    for len in [u64::MAX, 1 << 63, 100_000] {
        let raw = Raw::start(0, 1).u64(len);
        refuses(
            "key length",
            raw.data(64),
            &["at byte 24", "metadata key", &len.to_string()],
        );
    }
    refuses(
        "key past the end",
        Raw::start(0, 1).u64(5000).data(64),
        &["truncated", "5000"],
    );
    refuses(
        "empty key",
        Raw::start(0, 1).u64(0).data(64),
        &["metadata key", "0 bytes"],
    );
    let raw = Raw::start(0, 1).string(b"a\xffb").u32(0);
    refuses(
        "key of bytes",
        raw.data(64),
        &["metadata key", "UTF-8", "a\u{fffd}b"],
    );
    let raw = Raw::start(0, 2)
        .key("twice", 0)
        .bytes(&[1])
        .key("twice", 0)
        .bytes(&[2]);
    refuses("duplicate key", raw.data(64), &["`twice` appears twice"]);
    let raw = Raw::start(2, 0)
        .tensor("same", &[4], 0, 0)
        .tensor("same", &[4], 0, 32);
    refuses(
        "duplicate tensor",
        raw.data(64),
        &["tensor name `same` appears twice"],
    );
    let raw = Raw::start(1, 0)
        .string(b"\xc3\x28")
        .u32(1)
        .u64(4)
        .u32(0)
        .u64(0);
    refuses(
        "tensor name of bytes",
        raw.data(64),
        &["tensor name", "UTF-8"],
    );
}

#[test]
fn values() {
    for ty in [13, 255, u32::MAX] {
        let raw = Raw::start(0, 1).key("k", ty);
        refuses(
            "value type",
            raw.data(64),
            &["unknown metadata value type", &ty.to_string()],
        );
        let raw = Raw::start(0, 1).key("k", 9).u32(ty).u64(1);
        refuses(
            "element type",
            raw.data(64),
            &["unknown metadata value type"],
        );
    }
    for len in [u64::MAX, u64::MAX - 7, 1 << 63, 65] {
        // CVE-2025-66959: string lengths that are believed.
        let raw = Raw::start(0, 1).key("k", 8).u64(len);
        refuses("string length", raw.data(0), &["a string", "truncated"]);
        for element in [0, 4, 7, 8, 9, 12] {
            let raw = Raw::start(0, 1).key("k", 9).u32(element).u64(len);
            refuses(
                "array length",
                raw.data(0),
                &["an array length", &len.to_string()],
            );
        }
    }
    let raw = Raw::start(0, 1).key("k", 7).bytes(&[2]);
    refuses("bool of 2", raw.data(64), &["bool is 2"]);
    let raw = Raw::start(0, 1).key("k", 9).u32(7).u64(3).bytes(&[0, 1, 7]);
    refuses("bool of 7 in an array", raw.data(64), &["bool is 7"]);
    let mut raw = Raw::start(0, 1)
        .key("k", 9)
        .u32(8)
        .u64(3)
        .string("ab")
        .u64(1 << 40)
        .0;
    raw.resize(200, 0);
    refuses("string in an array", raw, &["a string", "truncated"]);
}

#[test]
fn nesting() {
    let nested = |depth: usize| {
        let raw = (1..depth).fold(Raw::start(0, 1).key("k", 9), |raw, _| raw.u32(9).u64(1));
        raw.u32(0).u64(1).bytes(&[7]).data(64)
    };
    let file = open(nested(4)).unwrap();
    assert_eq!(
        file.metadata().get("k").unwrap().to_string(),
        "[array; 1] [array; 1] [array; 1] [u8; 1] 7"
    );
    for depth in [5, 6, 1000, 100_000] {
        refuses("nesting", nested(depth), &["nested deeper than 4"]);
    }
    // A bomb of empty arrays costs the file 12 bytes each, and the reader nothing.
    let raw = Raw::start(0, 1).key("k", 9).u32(9).u64(100_000);
    let file = open((0..100_000).fold(raw, |raw, _| raw.u32(9).u64(0)).data(64)).unwrap();
    assert!(file.metadata().integers("k").is_err());
    let raw = Raw::start(0, 1).key("k", 9).u32(9).u64(1 << 40);
    refuses("promised arrays", raw.data(4096), &["an array length"]);
}

#[test]
fn alignments() {
    for value in [0_u32, 1, 3, 4, 33, 48, 1 << 21, 1 << 31, u32::MAX] {
        // llama.cpp#24997 and the PoCs of May 2026: padding that wraps to 0.
        let text = value.to_string();
        let bytes = with_alignment(4, &value.to_le_bytes());
        refuses(
            "alignment",
            bytes,
            &["general.alignment", &text, "power of two"],
        );
    }
    let bytes = with_alignment(10, &(1_u64 << 63).to_le_bytes());
    refuses(
        "wide alignment",
        bytes,
        &["general.alignment", "9223372036854775808"],
    );
    let bytes = with_alignment(5, &(-32_i32).to_le_bytes());
    refuses("negative alignment", bytes, &["general.alignment", "-32"]);
    let bytes = with_alignment(6, &32_f32.to_le_bytes());
    refuses("float alignment", bytes, &["general.alignment"]);
    for value in [8_u32, 32, 64, 4096, 1 << 20] {
        open(with_alignment(4, &value.to_le_bytes())).unwrap();
    }
}

#[test]
fn shapes() {
    refuses(
        "no dimensions",
        one_tensor(&[], 0, 0, 64),
        &["`blk.0.x`", "0 dimensions"],
    );
    refuses(
        "five dimensions",
        one_tensor(&[1; 5], 0, 0, 64),
        &["`blk.0.x`", "5 dimensions"],
    );
    // n_dims = 0xFFFFFFFF of the May 2026 PoCs.
    let raw = Raw::start(1, 0)
        .string("blk.0.x")
        .u32(u32::MAX)
        .u64(1)
        .u64(1)
        .u32(0)
        .u64(0);
    refuses(
        "four billion dimensions",
        raw.data(64),
        &["`blk.0.x`", "4294967295 dimensions"],
    );
    // ne[j] == 0 divided by zero elsewhere.
    for (index, dims) in [[0, 4, 4, 4], [32, 0, 4, 4], [32, 4, 4, 0]]
        .iter()
        .enumerate()
    {
        let zero = [0, 1, 3][index];
        let text = format!("dimension {zero} is 0");
        refuses(
            "zero dimension",
            one_tensor(dims, 0, 0, 4096),
            &["`blk.0.x`", &text],
        );
    }
    // CVE-2024-21802, CVE-2025-53630, CVE-2026-33298: products and sizes that wrap around.
    for (dims, ty) in [
        (vec![1 << 32, 1 << 32], 0),
        (vec![1 << 63, 2], 0),
        (vec![u64::MAX], 0),
        (vec![u64::MAX / 4 + 1], 0),
        (vec![(1 << 62) + 8], 0),
        (vec![1 << 21, 1 << 21, 1 << 21, 2], 8),
        (vec![256, 1 << 32, 1 << 32], 16),
        (vec![1 << 61, 2], 1),
        (vec![1 << 63], 0),
    ] {
        refuses(
            "product",
            one_tensor(&dims, ty, 0, 4096),
            &["`blk.0.x`", "overflow"],
        );
    }
    refuses(
        "huge but countable",
        one_tensor(&[1 << 60], 0, 0, 64),
        &["`blk.0.x`", "file ends"],
    );
    for (dims, ty, name) in [
        (33, 8, "Q8_0"),
        (128, 10, "Q2_K"),
        (255, 16, "IQ2_XXS"),
        (16, 39, "MXFP4"),
    ] {
        let parts = ["`blk.0.x`", name, "not a whole number"];
        refuses("partial block", one_tensor(&[dims, 2], ty, 0, 4096), &parts);
    }
    for ty in [3, 4, 5, 6, 9, 15, 31, 36, 41, 1000, u32::MAX] {
        let parts = ["`blk.0.x`", "type id", &ty.to_string()];
        refuses("type id", one_tensor(&[32], ty, 0, 4096), &parts);
    }
}

#[test]
fn offsets() {
    for offset in [1, 16, 31, 33] {
        let parts = ["`blk.0.x`", &format!("offset {offset}"), "alignment 32"];
        refuses("unaligned", one_tensor(&[8], 0, offset, 4096), &parts);
    }
    // CVE-2026-7482: data beyond the end of the file read the heap.
    for offset in [64, 96, 1 << 40, 1 << 63, u64::MAX - 31] {
        let parts = ["`blk.0.x`", &format!("offset {offset}"), "file ends"];
        refuses("past the end", one_tensor(&[8], 0, offset, 64), &parts);
    }
    refuses(
        "cut inside",
        one_tensor(&[16], 0, 0, 63),
        &["`blk.0.x`", "1 bytes after the file ends"],
    );
    refuses(
        "no data",
        one_tensor(&[16], 0, 0, 0),
        &["`blk.0.x`", "64 bytes after"],
    );
    let list = |second| {
        Raw::start(2, 0)
            .tensor("first", &[16], 0, 32)
            .tensor("second", &[16], 0, second)
            .data(192)
    };
    for second in [0, 32, 64] {
        refuses("overlap", list(second), &["overlap", "`first`", "`second`"]);
    }
    open(list(96)).unwrap();
    open(list(128)).unwrap();
}

#[test]
fn every_truncation_is_refused() {
    let whole = valid();
    for len in 0..whole.len() {
        let error = open(whole[..len].to_vec()).unwrap_err();
        assert!(error.to_string().contains("bad.gguf"), "{len}: {error}");
    }
}

#[test]
fn tokens_may_be_bytes_but_text_may_not() {
    let file = open(valid()).unwrap();
    let metadata = file.metadata();
    let tokens: Vec<&[u8]> = metadata
        .byte_strings("tokenizer.ggml.tokens")
        .unwrap()
        .collect();
    assert_eq!(tokens, [b"a".as_slice(), &[0xff, 0xfe]]);
    let error = metadata
        .strings("tokenizer.ggml.tokens")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tokenizer.ggml.tokens") && error.contains("element 1"),
        "{error}"
    );
    let raw = Raw::start(0, 1)
        .key("general.architecture", 8)
        .string(b"deep\xff");
    let file = open(raw.data(64)).unwrap();
    let error = file
        .metadata()
        .str("general.architecture")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`general.architecture` is not UTF-8"),
        "{error}"
    );
    assert_eq!(
        file.metadata().bytes("general.architecture").unwrap(),
        b"deep\xff"
    );
}

#[test]
fn getters_take_any_width_and_name_what_they_missed() {
    let raw = Raw::start(0, 8)
        .key("u8", 0)
        .bytes(&[200])
        .key("i64", 11)
        .u64(43)
        .key("negative", 5)
        .u32(-1_i32 as u32)
        .key("wide", 10)
        .u64(1 << 33)
        .key("double", 12)
        .u64(1.5_f64.to_bits())
        .key("huge", 12)
        .u64(1e300_f64.to_bits())
        .key("shorts", 9)
        .u32(3)
        .u64(2)
        .bytes(&[0xff, 0xff, 4, 0])
        .key("yes", 7)
        .bytes(&[1]);
    let file = open(raw.data(0)).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.u32("u8"), Ok(200));
    assert_eq!(metadata.u32("i64"), Ok(43));
    assert_eq!(metadata.u64("wide"), Ok(1 << 33));
    assert_eq!(metadata.f32("double"), Ok(1.5));
    assert_eq!(metadata.f32("i64"), Ok(43.0));
    assert_eq!(metadata.integers("shorts"), Ok(vec![-1, 4]));
    assert_eq!(metadata.floats("shorts"), Ok(vec![-1.0, 4.0]));
    assert_eq!(metadata.bool("yes"), Ok(true));
    assert_eq!(metadata.optional_u32("none"), Ok(None));
    let errors = [
        (
            metadata.u32("none").unwrap_err(),
            "`none` is missing, expected u32",
        ),
        (
            metadata.u32("negative").unwrap_err(),
            "`negative` is -1, which does not fit u32",
        ),
        (
            metadata.u32("wide").unwrap_err(),
            "`wide` is 8589934592, which does not fit u32",
        ),
        (
            metadata.u32("double").unwrap_err(),
            "`double` is a value of type f64, expected u32",
        ),
        (
            metadata.optional_u32("shorts").unwrap_err(),
            "`shorts` is an array of i16, expected u32",
        ),
        (
            metadata.str("u8").unwrap_err(),
            "`u8` is a value of type u8, expected string",
        ),
        (metadata.bool("u8").unwrap_err(), "expected bool"),
        (
            metadata.strings("shorts").unwrap_err(),
            "array of i16, expected array of strings",
        ),
        (
            metadata.integers("yes").unwrap_err(),
            "value of type bool, expected array of integers",
        ),
    ];
    for (error, expected) in errors {
        assert!(
            error.to_string().contains(expected),
            "`{error}` lacks `{expected}`"
        );
    }
    assert!(
        metadata
            .f32("huge")
            .unwrap_err()
            .to_string()
            .contains("does not fit f32")
    );
}

#[cfg(unix)]
#[test]
fn paths_that_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |path: &std::path::Path, part: &str| {
        let start = Instant::now();
        let text = GgufFile::open(path).unwrap_err().to_string();
        assert!(text.contains(part), "`{text}` lacks `{part}`");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{text}: took too long"
        );
    };
    fails(folder.path(), "a directory");
    fails(&folder.path().join("missing.gguf"), "cannot open");
    fails(std::path::Path::new("/dev/zero"), "a device");
    let fifo = folder.path().join("fifo.gguf");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success());
    fails(&fifo, "a named pipe");
    let socket = folder.path().join("socket.gguf");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fails(&socket, "a socket");
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, []).unwrap();
    fails(&empty, "magic");
}
