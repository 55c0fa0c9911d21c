//! Rules, fallbacks, importance and the MTP block.

use std::fs;

use anyhow::{Context, Result};
use ds4_gguf::GgufFile;
use ds4_quant::TensorType;
use ds4_quantize::{Checkpoint, ImportanceMatrix, Plan, PlanOptions, Recipe};

use crate::checkpoint::{numbers, run, ty, whole};

#[test]
fn the_last_matching_rule_decides() -> Result<()> {
    let (_root, folder) = whole()?;
    let checkpoint = Checkpoint::open(&folder)?;
    let options = |rules: &[&str]| -> Result<PlanOptions> {
        let rules = rules
            .iter()
            .map(|rule| rule.parse())
            .collect::<Result<_, _>>()?;
        Ok(PlanOptions {
            rules,
            ..PlanOptions::new(Recipe::Q2)
        })
    };
    let rules = options(&[
        "*=q6_k",
        "blk.?.attn_q_b.weight=Q4_0",
        "blk.1.attn_norm.weight=f16",
    ])?;
    let plan = Plan::main_model(&checkpoint, &rules, false)?;
    let planned = |name: &str| {
        plan.tensors()
            .iter()
            .find(|tensor| tensor.spec.name == name)
            .unwrap()
    };
    for (name, ty) in [
        ("output.weight", TensorType::Q6K),
        ("blk.0.ffn_gate_exps.weight", TensorType::Q6K),
        ("blk.3.attn_q_b.weight", TensorType::Q4_0),
        // A pattern leaves vectors, positions and tables of ids as they are.
        ("blk.0.attn_norm.weight", TensorType::F32),
        ("blk.1.attn_norm.weight", TensorType::F16),
        ("blk.2.attn_compressor_ape.weight", TensorType::F16),
        ("blk.0.ffn_gate_tid2eid.weight", TensorType::I32),
    ] {
        assert_eq!(planned(name).spec.ty, ty, "{name}");
    }
    // Rows of 128 are no blocks of 256.
    let short = planned("blk.2.indexer.attn_q_b.weight");
    assert_eq!(
        (short.spec.ty, short.fell_back_from),
        (TensorType::Q8_0, Some(TensorType::Q6K))
    );

    for (rule, problem) in [
        ("blk.9.*=Q8_0", "no tensor has such a name"),
        ("blk.0.ffn_gate_tid2eid.weight=F32", "stay I32"),
        ("blk.0.attn_norm.weight=Q8_0", "must be F32, F16 or BF16"),
    ] {
        let error = Plan::main_model(&checkpoint, &options(&[rule])?, false).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    Ok(())
}

#[test]
fn the_last_six_layers_of_q2_q4_are_better() -> Result<()> {
    let (_root, folder) = whole()?;
    let checkpoint = Checkpoint::open(&folder)?;
    let plan = Plan::main_model(&checkpoint, &PlanOptions::new(Recipe::Q2Q4), false)?;
    let experts = plan
        .tensors()
        .iter()
        .filter(|tensor| tensor.role.is_expert());
    // The model has six layers.
    assert!(
        experts
            .into_iter()
            .all(|tensor| tensor.spec.ty == TensorType::Q4K)
    );
    Ok(())
}

#[test]
fn the_mtp_block_goes_where_it_is_wanted() -> Result<()> {
    let (root, folder) = whole()?;
    let checkpoint = Checkpoint::open(&folder)?;
    let options = PlanOptions::new(Recipe::Q2);
    let main = Plan::main_model(&checkpoint, &options, false)?;
    let both = Plan::main_model(&checkpoint, &options, true)?;
    let mtp = Plan::mtp_block(&checkpoint, &options)?.context("a block")?;
    assert_eq!(
        both.tensors().len(),
        main.tensors().len() + mtp.tensors().len()
    );
    assert!(main.unused().is_empty() && both.unused().is_empty() && mtp.unused().is_empty());
    let output = root.path().join("both.gguf");
    run(&checkpoint, &both, &output)?;
    let file = GgufFile::open(&output)?;
    let shape = ds4_model::ModelShape::from_file(&file)?;
    assert!(ds4_model::bind::bind(&file, None, &shape)?.mtp.is_some());
    assert_eq!(ty(&file, "mtp.0.ffn_gate_exps.weight"), TensorType::Q4K);
    assert_eq!(ty(&file, "mtp.0.ffn_gate_inp.weight"), TensorType::F32);
    assert_eq!(ty(&file, "mtp.0.e_proj.weight"), TensorType::Q8_0);
    Ok(())
}

/// A matrix that counts every other column must make these more exact, expert by expert.
#[test]
fn importance_moves_the_error_to_what_does_not_matter() -> Result<()> {
    let (root, folder) = whole()?;
    let name = "blk.3.ffn_down_exps.weight";
    let mut bytes = 1_i32.to_le_bytes().to_vec();
    bytes.extend((name.len() as i32).to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(1_i32.to_le_bytes());
    bytes.extend((8 * 256_i32).to_le_bytes());
    // Even experts need their even columns, odd ones their odd.
    let matters = |i: usize| i % 2 == i / 256 % 2;
    for i in 0..8 * 256 {
        bytes.extend((if matters(i) { 1.0_f32 } else { 0.01 }).to_le_bytes());
    }
    bytes.extend(24_i32.to_le_bytes());
    bytes.extend(4_i32.to_le_bytes());
    bytes.extend(b"text");
    let path = root.path().join("imatrix.dat");
    fs::write(&path, bytes)?;

    let checkpoint = Checkpoint::open(&folder)?;
    let convert = |recipe, importance| -> Result<GgufFile> {
        let options = PlanOptions {
            importance,
            ..PlanOptions::new(recipe)
        };
        let plan = Plan::main_model(&checkpoint, &options, false)?;
        let output = tempfile::Builder::new()
            .suffix(".gguf")
            .tempfile_in(root.path())?;
        let output = output.into_temp_path().keep()?;
        fs::remove_file(&output)?;
        run(&checkpoint, &plan, &output)?;
        Ok(GgufFile::open(&output)?)
    };
    let matrix = ImportanceMatrix::open(&path)?;
    assert_eq!(
        (matrix.chunks(), matrix.dataset(), matrix.len()),
        (Some(24), Some("text"), 1)
    );
    let truth = numbers(&convert(Recipe::F32, None)?, name)?;
    let plain = convert(Recipe::Q2, None)?;
    let weighted = convert(Recipe::Q2, Some(matrix))?;
    let error = |file: &GgufFile, wanted: bool| -> Result<f64> {
        let found = numbers(file, name)?;
        let pairs = found.iter().zip(&truth).enumerate();
        let row = |i: usize| 256 * (i / (256 * 256)) + i % 256;
        Ok(pairs
            .filter(|(i, _)| matters(row(*i)) == wanted)
            .map(|(_, (a, b))| f64::from(a - b).powi(2))
            .sum())
    };
    let (before, after) = (error(&plain, true)?, error(&weighted, true)?);
    println!("error of the columns that matter: {before} before, {after} after");
    assert!(after < 0.9 * before);
    assert!(error(&weighted, false)? > error(&plain, false)?);
    // Nothing else changes, and the file says what it was made with.
    let other = "blk.4.ffn_down_exps.weight";
    assert!(numbers(&weighted, other)? == numbers(&plain, other)?);
    assert_eq!(
        weighted.metadata().str("quantize.imatrix.file")?,
        "imatrix.dat"
    );
    assert_eq!(
        weighted.metadata().u64("quantize.imatrix.chunks_count")?,
        24
    );
    Ok(())
}
