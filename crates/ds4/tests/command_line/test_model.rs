//! Small models that can chat: the golden flash-tiny with another vocabulary.

use std::path::{Path, PathBuf};

use ds4_chat::ControlToken;
use ds4_gguf::{Array, GgufFile, GgufWriter, Metadata, TensorInfo, TensorSpec, Value, ValueType};
use ds4_quant::TensorType;

/// Tokens and width of flash-tiny.
const VOCABULARY: usize = 512;
const HIDDEN: usize = 128;

/// The golden models, which lie with the test kit.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../ds4-testkit/data")
        .join(name)
}

/// Writes flash-tiny with a vocabulary of bytes and control tokens. It answers with noise, which
/// depends on everything before it.
pub(crate) fn write_noise(path: &Path, name: &str) {
    write(path, name, |_, bytes| bytes);
}

/// Writes a model that continues every token in `successors` with the token beside it, certain at
/// any temperature.
///
/// Its blocks contribute nothing, so the residual streams stay the embedding of the newest token. Tokens
/// have pseudo-random signs as embeddings, and a token's output row is the sum of its predecessors'
/// embeddings.
pub(crate) fn write_script(path: &Path, successors: &[(&str, &str)]) {
    let ids = vocabulary();
    let id_of = |token: &str| ids.iter().position(|known| known == token).unwrap();
    let pairs: Vec<(usize, usize)> = successors
        .iter()
        .map(|&(token, next)| (id_of(token), id_of(next)))
        .collect();
    write(path, "script", |tensor, bytes| match tensor.name.as_str() {
        "token_embd.weight" => rows(tensor.ty, sign),
        "output.weight" => rows(tensor.ty, |token, column| {
            let predecessors = pairs.iter().filter(|&&(_, next)| next == token);
            predecessors.map(|&(before, _)| sign(before, column)).sum()
        }),
        "output_norm.weight" => 1.0_f32.to_le_bytes().repeat(HIDDEN),
        name if name.ends_with("attn_output_b.weight")
            || name.ends_with("ffn_down_exps.weight")
            || name.ends_with("ffn_down_shexp.weight") =>
        {
            vec![0; bytes.len()]
        }
        _ => bytes,
    });
}

/// 1 or -1, without a pattern (SplitMix64).
fn sign(token: usize, column: usize) -> i8 {
    let mut mixed = (token * HIDDEN + column) as u64;
    mixed = mixed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    if (mixed ^ (mixed >> 31)) & 1 == 0 {
        1
    } else {
        -1
    }
}

/// A matrix of small integers, which all types here hold exactly.
fn rows(ty: TensorType, value: impl Fn(usize, usize) -> i8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for token in 0..VOCABULARY {
        for column in 0..HIDDEN {
            let value = value(token, column);
            match ty {
                TensorType::F32 => bytes.extend(f32::from(value).to_le_bytes()),
                TensorType::Bf16 => {
                    bytes.extend(((f32::from(value).to_bits() >> 16) as u16).to_le_bytes());
                }
                TensorType::Q8_0 => {
                    if column % 32 == 0 {
                        bytes.extend(0x3c00_u16.to_le_bytes()); // the scale, 1 as a half
                    }
                    bytes.extend(value.to_le_bytes());
                }
                other => panic!("flash-tiny has no {other} here"),
            }
        }
    }
    bytes
}

fn write(path: &Path, name: &str, change: impl Fn(&TensorInfo, Vec<u8>) -> Vec<u8>) {
    let source = GgufFile::open(&golden("flash-tiny-native.gguf")).unwrap();
    let mut metadata = Metadata::new();
    for (key, value) in source.metadata().iter() {
        if key == "general.name" {
            metadata.insert(key, name).unwrap();
        } else if !key.starts_with("tokenizer.") {
            metadata.insert(key, value.clone()).unwrap();
        }
    }
    let tokens = vocabulary();
    let id_of = |token: ControlToken| {
        tokens
            .iter()
            .position(|known| known == token.text())
            .unwrap() as u32
    };
    let control = |token: &String| ControlToken::ALL.iter().any(|known| known.text() == token);
    let types = tokens
        .iter()
        .map(|token| Value::I32(if control(token) { 3 } else { 1 }));
    let types = Array::new(ValueType::I32, types).unwrap();
    metadata.insert("tokenizer.ggml.model", "gpt2").unwrap();
    metadata.insert("tokenizer.ggml.pre", "joyai-llm").unwrap();
    metadata
        .insert("tokenizer.ggml.tokens", Array::of_strings(&tokens))
        .unwrap();
    metadata.insert("tokenizer.ggml.token_type", types).unwrap();
    metadata
        .insert("tokenizer.ggml.merges", Array::of_strings(["a b"]))
        .unwrap();
    metadata
        .insert(
            "tokenizer.ggml.bos_token_id",
            id_of(ControlToken::BeginOfSentence),
        )
        .unwrap();
    metadata
        .insert(
            "tokenizer.ggml.eos_token_id",
            id_of(ControlToken::EndOfSentence),
        )
        .unwrap();

    let specs: Vec<TensorSpec> = source
        .tensors()
        .iter()
        .map(|tensor| TensorSpec {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            ty: tensor.ty,
        })
        .collect();
    let mut writer = GgufWriter::create(path, &metadata, &specs).unwrap();
    for tensor in source.tensors() {
        let bytes = change(tensor, source.bytes(tensor).to_vec());
        writer.write_tensor(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// The bytes, one merge, the control tokens, and words that nothing encodes to.
fn vocabulary() -> Vec<String> {
    let spelling = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0x00..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap(),
        0xad => '\u{143}',
    };
    let mut tokens: Vec<String> = (0..=255).map(|byte| spelling(byte).to_string()).collect();
    tokens.push("ab".to_owned());
    tokens.extend(
        ControlToken::ALL
            .iter()
            .map(|token| token.text().to_owned()),
    );
    tokens.extend((tokens.len()..VOCABULARY).map(|id| format!("word{id}")));
    tokens
}
