//! Checkpoints that are damaged, incomplete or of another shape: one typed error that names the culprit.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ds4_quantize::{Checkpoint, ImportanceMatrix, Plan, PlanOptions, QuantizeError, Recipe};
use serde_json::{Value, json};

use crate::checkpoint::{run, weights, whole, without_weights, write_tensors};

fn plan(folder: &Path) -> Result<Plan, QuantizeError> {
    let checkpoint = Checkpoint::open(folder)?;
    Plan::main_model(&checkpoint, &PlanOptions::new(Recipe::Q2), false)
}

/// What planning says when the tensors are changed by `change`: name, type, shape, bytes; none leaves
/// the tensor out.
fn refusal(
    change: impl Fn(&str, &mut String, &mut Vec<u64>, &mut Vec<u8>) -> bool,
) -> Result<String> {
    let (_root, folder) = without_weights()?;
    let (header, data) = weights()?;
    let mut tensors = Vec::new();
    for (name, entry) in header.as_object().context("an object")? {
        if name == "__metadata__" {
            continue;
        }
        let at = |i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
        let mut dtype = entry["dtype"].as_str().context("a type")?.to_owned();
        let mut shape: Vec<u64> = serde_json::from_value(entry["shape"].clone())?;
        let mut bytes = data[at(0)..at(1)].to_vec();
        if change(name, &mut dtype, &mut shape, &mut bytes) {
            tensors.push((name.as_str(), dtype, shape, bytes));
        }
    }
    let tensors = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, dtype.as_str(), shape.clone(), &bytes[..]));
    write_tensors(&folder.join("model.safetensors"), tensors)?;
    let checkpoint = Checkpoint::open(&folder)?;
    let plan = match Plan::main_model(&checkpoint, &PlanOptions::new(Recipe::Mxfp4), false) {
        Ok(plan) => plan,
        Err(error) => return Ok(error.to_string()),
    };
    let error = run(&checkpoint, &plan, &folder.join("out.gguf"));
    Ok(error.err().context("the change was accepted")?.to_string())
}

#[test]
fn tensors_that_are_missing_or_wrong_are_named() -> Result<()> {
    let expert = "layers.1.ffn.experts.5.w2";
    let message = refusal(|name, _, _, _| name != format!("{expert}.weight"))?;
    assert!(
        message.contains(&format!("`{expert}.weight` is missing")),
        "{message}"
    );

    let message = refusal(|name, _, _, _| name != format!("{expert}.scale"))?;
    assert!(
        message.contains(&format!("needs the scales `{expert}.scale`")),
        "{message}"
    );

    let message = refusal(|name, dtype, _, _| {
        if name == format!("{expert}.scale") {
            *dtype = "I8".to_owned();
        }
        true
    })?;
    assert!(
        message.contains(&format!("`{expert}.scale` is I8, expected F8_E8M0")),
        "{message}"
    );

    let message = refusal(|name, _, shape, _| {
        if name == "layers.2.attn.wq_b.weight" {
            shape.reverse();
        }
        true
    })?;
    assert!(
        message.contains("[128, 1024], expected [1024, 128]"),
        "{message}"
    );

    let message = refusal(|name, dtype, shape, bytes| {
        if name == "layers.3.attn.wkv.scale" {
            (*dtype, *shape) = ("F8_E8M0".to_owned(), vec![2, 1]);
            bytes.truncate(2);
        }
        true
    })?;
    assert!(
        message.contains("`layers.3.attn.wkv.scale` has the shape [2, 1]"),
        "{message}"
    );

    let message = refusal(|name, dtype, _, _| {
        if name == "layers.0.attn_norm.weight" {
            *dtype = "I16".to_owned();
        }
        true
    })?;
    assert!(
        message.contains("is I16, expected F32, F16 or BF16"),
        "{message}"
    );
    Ok(())
}

#[test]
fn values_that_mean_nothing_are_located() -> Result<()> {
    let message = refusal(|name, _, _, bytes| {
        if name == "layers.1.ffn.gate.tid2eid" {
            bytes[8 * 13..][..8].copy_from_slice(&8_i64.to_le_bytes());
        }
        true
    })?;
    assert!(
        message.contains("blk.1.ffn_gate_tid2eid.weight`: entry 13 is 8"),
        "{message}"
    );

    let message = refusal(|name, _, _, bytes| {
        if name == "layers.4.ffn_norm.weight" {
            bytes[2 * 7..][..2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
        }
        true
    })?;
    assert!(
        message.contains("blk.4.ffn_norm.weight`: element 7 of row 0 is NaN"),
        "{message}"
    );

    // The E4M3 code for "not a number", and the E8M0 one.
    let message = refusal(|name, _, _, bytes| {
        if name == "layers.0.attn.wkv.weight" {
            bytes[256 * 130 + 200] = 0x7f;
        }
        true
    })?;
    assert!(
        message.contains("blk.0.attn_kv.weight`: element 200 of row 130 is NaN"),
        "{message}"
    );
    let message = refusal(|name, _, _, bytes| {
        if name == "layers.0.ffn.experts.2.w1.scale" {
            bytes[8 * 3 + 1] = 255;
        }
        true
    })?;
    assert!(
        message.contains("the scale of block 1 in row 3 of expert 2"),
        "{message}"
    );
    Ok(())
}

fn index(folder: &Path, map: &Value) -> Result<()> {
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    let path = folder.join("model.safetensors.index.json");
    Ok(fs::write(path, serde_json::to_vec(&index)?)?)
}

#[test]
fn shards_must_be_those_of_the_index() -> Result<()> {
    let (_root, folder) = whole()?;
    let (header, _) = weights()?;
    let names: Vec<&String> = header
        .as_object()
        .context("an object")?
        .keys()
        .skip(1)
        .collect();
    let map = |file: &str| -> Value {
        names
            .iter()
            .map(|name| ((*name).clone(), json!(file)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    index(&folder, &map("model.safetensors"))?;
    plan(&folder)?;

    index(&folder, &map("model-00002-of-00002.safetensors"))?;
    let message = plan(&folder).unwrap_err().to_string();
    assert!(
        message.contains("model-00002-of-00002.safetensors: this shard"),
        "{message}"
    );

    for outside in [
        "../model.safetensors",
        "/model.safetensors",
        "a/b.safetensors",
        "",
    ] {
        index(&folder, &map(outside))?;
        let message = plan(&folder).unwrap_err().to_string();
        assert!(
            message.contains("is not the name of a file in this folder"),
            "{message}"
        );
    }

    let mut more = map("model.safetensors");
    more["layers.9.attn_norm.weight"] = json!("model.safetensors");
    index(&folder, &more)?;
    let message = plan(&folder).unwrap_err().to_string();
    assert!(
        message.contains("`layers.9.attn_norm.weight` is listed"),
        "{message}"
    );
    Ok(())
}

#[test]
fn sharded_checkpoints_give_the_same_plan() -> Result<()> {
    let (_whole_root, whole) = whole()?;
    let (_root, folder) = without_weights()?;
    let (header, data) = weights()?;
    let mut map = serde_json::Map::new();
    let entries: Vec<_> = header
        .as_object()
        .context("an object")?
        .iter()
        .skip(1)
        .collect();
    for part in 0..3 {
        let file = format!("model-{:05}-of-00003.safetensors", part + 1);
        let mut tensors = Vec::new();
        for (name, entry) in entries.iter().skip(part).step_by(3) {
            let at = |i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
            let shape = serde_json::from_value(entry["shape"].clone())?;
            let dtype = entry["dtype"].as_str().context("a type")?;
            tensors.push((name.as_str(), dtype, shape, &data[at(0)..at(1)]));
            map.insert((*name).clone(), json!(file));
        }
        write_tensors(&folder.join(&file), tensors)?;
    }
    // Weights and scales lie in different shards now. Without an index too.
    for with_index in [false, true] {
        if with_index {
            index(&folder, &Value::Object(map.clone()))?;
        }
        let output = folder.join(format!("{with_index}.gguf"));
        crate::checkpoint::quantize(&folder, Recipe::Mxfp4, &output)?;
        let expected = folder.join("whole.gguf");
        if !expected.exists() {
            crate::checkpoint::quantize(&whole, Recipe::Mxfp4, &expected)?;
        }
        assert!(fs::read(&output)? == fs::read(&expected)?);
    }
    Ok(())
}

#[test]
fn damaged_safetensors_headers_are_refused() -> Result<()> {
    let (_root, folder) = without_weights()?;
    let path = folder.join("model.safetensors");
    let entry = |offsets: &str, shape: &str, dtype: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let good = entry("[0,8]", "[2]", "F32");
    for (header, length, problem) in [
        (String::new(), None, "header"),
        ("{".to_owned(), None, "header"),
        ("[]".to_owned(), None, "header"),
        (format!(r#"{{"a":{good}}}"#), Some(u64::MAX), "said to have"),
        (format!(r#"{{"a":{good}}}"#), Some(1 << 40), "said to have"),
        (
            format!(r#"{{"a":{good},"a":{}}}"#, entry("[8,8]", "[0]", "F32")),
            None,
            "twice",
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("[4,8]", "[1]", "F32")),
            None,
            "lies at 4..8",
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("[0,16]", "[4]", "F32")),
            None,
            "lies at 0..16",
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("[0,4]", "[1]", "F32")),
            None,
            "4 bytes follow",
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("[8,0]", "[2]", "F32")),
            None,
            "lies at 8..0",
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("[0,8]", "[3]", "F32")),
            None,
            "which is not F32",
        ),
        (
            format!(
                r#"{{"a":{}}}"#,
                entry("[0,8]", "[4294967296,4294967296]", "F32")
            ),
            None,
            "which is not F32",
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("[0,8]", "[2]", "F4_E9")),
            None,
            "unknown variant",
        ),
        (
            format!(r#"{{"a":{}}}"#, entry("[0,8]", "[-2]", "F32")),
            None,
            "header",
        ),
    ] {
        let length = length.unwrap_or(header.len() as u64);
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 8]);
        fs::write(&path, &bytes)?;
        let message = Checkpoint::open(&folder).unwrap_err().to_string();
        assert!(message.contains(problem), "{header}: {message}");
    }
    for bytes in [&b""[..], b"1234567"] {
        fs::write(&path, bytes)?;
        assert!(matches!(
            Checkpoint::open(&folder),
            Err(QuantizeError::Safetensors { .. })
        ));
    }
    fs::remove_file(&path)?;
    let message = Checkpoint::open(&folder).unwrap_err().to_string();
    assert!(message.contains("expected a checkpoint"), "{message}");
    Ok(())
}

#[test]
fn configurations_of_other_models_are_refused() -> Result<()> {
    let (_root, folder) = whole()?;
    let path = folder.join("config.json");
    let original: Value = serde_json::from_slice(&fs::read(&path)?)?;
    for (field, value, problem) in [
        (
            "model_type",
            json!("deepseek_v41"),
            "`model_type` is deepseek_v41",
        ),
        ("hidden_size", json!(0), "`hidden_size` is 0"),
        ("hidden_size", json!(1_u64 << 40), "`hidden_size`"),
        ("hidden_size", json!(-1), "integer `-1`"),
        (
            "num_hidden_layers",
            json!(16_000_000),
            "`num_hidden_layers`",
        ),
        ("num_hidden_layers", json!(4000), "`compress_ratios`"),
        (
            "compress_ratios",
            json!([0, 0, 4, 127, 4, 128, 0]),
            "`compress_ratios` is 127",
        ),
        ("o_groups", json!(3), "`o_groups` is 3"),
        ("n_shared_experts", json!(2), "`n_shared_experts` is 2"),
        (
            "num_experts_per_tok",
            json!(9),
            "`num_experts_per_tok` is 9",
        ),
        ("rms_norm_eps", json!(0), "`rms_norm_eps`"),
        ("swiglu_limit", json!(1e300), "`swiglu_limit`"),
        ("rope_scaling", json!(null), "config.json"),
        ("vocab_size", json!(100), "shape"),
        (
            "n_routed_experts",
            json!(9),
            "experts.8.w1.weight` is missing",
        ),
    ] {
        let mut config = original.clone();
        config[field] = value.clone();
        fs::write(&path, serde_json::to_vec(&config)?)?;
        // The first tensor that contradicts is named; routers come before experts.
        let message = plan(&folder).unwrap_err().to_string();
        let is_router = message.contains("`layers.0.ffn.gate.weight` has the shape");
        let accepted = message.contains(problem) || (field == "n_routed_experts" && is_router);
        assert!(accepted, "{field} {value}: {message}");
    }
    Ok(())
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() -> Result<()> {
    let (_root, folder) = whole()?;
    let path = folder.join("tokenizer.json");
    let original: Value = serde_json::from_slice(&fs::read(&path)?)?;
    type Change = (&'static str, fn(&mut Value));
    let changes: [Change; 6] = [
        ("`model.vocab` is missing", |t| {
            t["model"]["vocab"] = json!(3)
        }),
        ("expected `BPE`", |t| t["model"]["type"] = json!("Unigram")),
        ("has the id 512", |t| t["model"]["vocab"]["!"] = json!(512)),
        ("have the same id", |t| t["model"]["vocab"]["!"] = json!(4)),
        ("merge 0 is", |t| t["model"]["merges"][0] = json!("a b c")),
        ("has no `content`", |t| {
            t["added_tokens"][0] = json!({"id": 0})
        }),
    ];
    for (problem, change) in changes {
        let mut tokenizer = original.clone();
        change(&mut tokenizer);
        fs::write(&path, serde_json::to_vec(&tokenizer)?)?;
        let message = plan(&folder).unwrap_err().to_string();
        assert!(message.contains(problem), "{message}");
    }
    Ok(())
}

#[test]
fn damaged_importance_is_refused() -> Result<()> {
    let root = tempfile::tempdir()?;
    let path = root.path().join("imatrix.dat");
    let word = |n: i32| n.to_le_bytes().to_vec();
    let entry = |values: i32| [word(1), word(1), b"a".to_vec(), word(1), word(values)].concat();
    let float = |x: f32| x.to_le_bytes().to_vec();
    for (bytes, problem) in [
        (vec![], "ends before"),
        (word(-1), "negative"),
        (word(1), "ends before"),
        ([word(1), word(i32::MAX)].concat(), "beyond the end"),
        (entry(i32::MAX), "beyond the end"),
        ([entry(1), float(f32::NAN)].concat(), "is NaN"),
        ([entry(1), float(-1.0)].concat(), "is -1"),
        (
            [entry(1), float(1.0), word(1), word(9)].concat(),
            "beyond the end",
        ),
        (b"GGUF....".to_vec(), "version"),
    ] {
        fs::write(&path, &bytes)?;
        let message = ImportanceMatrix::open(&path).unwrap_err().to_string();
        assert!(message.contains(problem), "{bytes:?}: {message}");
    }
    Ok(())
}

/// The same in llama.cpp's GGUF form.
#[test]
fn damaged_gguf_importance_is_refused() -> Result<()> {
    let root = tempfile::tempdir()?;
    let path = root.path().join("imatrix.gguf");
    let tensors = |list: &[(&str, &[f32], u64)], kind: &str| -> Result<()> {
        let mut metadata = ds4_gguf::Metadata::new();
        metadata.insert("general.type", kind)?;
        let spec = |&(name, values, columns): &(&str, &[f32], u64)| ds4_gguf::TensorSpec {
            name: name.to_owned(),
            dims: vec![columns, values.len() as u64 / columns],
            ty: ds4_quant::TensorType::F32,
        };
        let specs: Vec<_> = list.iter().map(spec).collect();
        let mut writer = ds4_gguf::GgufWriter::create(&path, &metadata, &specs)?;
        for (name, values, _) in list {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            writer.write_tensor(name, &bytes)?;
        }
        Ok(writer.finish()?)
    };
    let sums: (&str, &[f32], u64) = ("a.in_sum2", &[1.0, 2.0, 3.0, 4.0], 2);
    for (list, kind, problem) in [
        (vec![sums], "model", "no importance matrix"),
        (vec![sums], "imatrix", "no counts"),
        (
            vec![sums, ("a.counts", &[1.0, 1.0, 1.0][..], 1)],
            "imatrix",
            "4 sums and 3 counts",
        ),
        (
            vec![sums, ("a.counts", &[1.0, f32::NAN], 1)],
            "imatrix",
            "is NaN",
        ),
        (
            vec![("a.in_sum2", &[1.0, -2.0], 2), ("a.counts", &[1.0], 1)],
            "imatrix",
            "is -2",
        ),
    ] {
        tensors(&list, kind)?;
        let message = ImportanceMatrix::open(&path).unwrap_err().to_string();
        assert!(message.contains(problem), "{problem}: {message}");
    }
    tensors(&[sums, ("a.counts", &[2.0, 0.0], 1)], "imatrix")?;
    assert_eq!(ImportanceMatrix::open(&path)?.len(), 1);
    Ok(())
}
