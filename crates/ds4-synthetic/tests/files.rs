//! Files of full-size shapes against the published figures, and what lies in them.
use std::sync::atomic::AtomicBool;

use ds4_gguf::GgufFile;
use ds4_model::{ModelShape, bind};
use ds4_quant::TensorType;
use ds4_synthetic::{
    Dialect, SyntheticError, SyntheticModel, WeightTypes, WriteControl, WriteOptions,
};

const SPARSE: WriteOptions = WriteOptions {
    mtp: false,
    sparse: true,
};

fn control<'a>(cancel: &'a AtomicBool, progress: &'a mut dyn FnMut(u64, u64)) -> WriteControl<'a> {
    WriteControl { cancel, progress }
}

/// 1328 tensors and 80.76 GiB are those of the published 2-bit Flash file; 284 and 1573 billion
/// parameters are DeepSeek's own count, the MTP block left out.
#[test]
fn full_size_shapes_are_those_of_the_published_files() {
    let model = SyntheticModel::flash();
    let (flash, sparse) = model.file_bytes(SPARSE).unwrap();
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    assert!((gib(flash) - 80.76).abs() < 0.02, "{}", gib(flash));
    assert!(gib(sparse) < 2.0, "{}", gib(sparse));
    // One byte for 0.94 parameters; what is no large matrix does not count.
    let q8 = SyntheticModel {
        types: WeightTypes::Q8,
        ..SyntheticModel::pro()
    };
    let (pro, _) = q8.file_bytes(WriteOptions::default()).unwrap();
    let parameters = pro as f64 / 34.0 * 32.0;
    assert!((parameters / 1.573e12 - 1.0).abs() < 0.002, "{parameters}");
}

#[test]
fn a_sparse_file_is_whole_and_takes_little() {
    // Large enough for holes, small enough for a test: the experts and the output matrix.
    let model = SyntheticModel {
        hidden: 512,
        expert_hidden: 512,
        experts: 64,
        vocabulary: 20_000,
        compress_ratios: vec![0, 4],
        types: WeightTypes::PUBLISHED_4_BIT,
        ..SyntheticModel::small()
    };
    let types = WeightTypes {
        output: TensorType::F32,
        expert_in: TensorType::F32,
        expert_out: TensorType::F32,
        ..model.types
    };
    let model = SyntheticModel { types, ..model };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.gguf");
    let never = AtomicBool::new(false);
    let mut last = (0, 0);
    model
        .write_with(
            &path,
            SPARSE,
            &mut control(&never, &mut |done, total| last = (done, total)),
        )
        .unwrap();
    let (size, on_disk) = model.file_bytes(SPARSE).unwrap();
    assert_eq!(last, (size, size));
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), size);
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let blocks = 512 * metadata.blocks();
        assert!(blocks < on_disk + (2 << 20), "{blocks} {on_disk} of {size}");
    }
    let file = GgufFile::open(&path).unwrap();
    let shape = ModelShape::from_file(&file).unwrap();
    bind::bind(&file, None, &shape).unwrap();
    let zeros = |name: &str| {
        file.bytes(file.tensor(name).unwrap())
            .iter()
            .all(|&b| b == 0)
    };
    assert!(zeros("blk.1.ffn_down_exps.weight") && zeros("output.weight"));
    assert!(!zeros("token_embd.weight") && !zeros("blk.1.attn_q_a.weight"));
    // What is there is what a whole file has.
    let whole = model.file().unwrap();
    for name in [
        "token_embd.weight",
        "blk.1.ffn_gate_inp.weight",
        "output_norm.weight",
    ] {
        let bytes = |file: &GgufFile| file.bytes(file.tensor(name).unwrap()).to_vec();
        assert!(bytes(&file) == bytes(&whole), "{name}");
    }
}

/// Rows of large tensors come from a pool; neither experts nor tokens may become the same by that.
#[test]
fn rows_of_large_tensors_differ_and_have_the_size_of_the_others() {
    let model = SyntheticModel {
        types: WeightTypes::PUBLISHED_4_BIT,
        experts: 128,
        vocabulary: 17_500,
        compress_ratios: vec![0],
        ..SyntheticModel::small()
    };
    let file = model.file().unwrap();
    let deviation = |values: &[f32]| {
        let squares: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
        (squares / values.len() as f64).sqrt()
    };
    for (name, expected) in [
        ("token_embd.weight", 1.0),
        ("blk.0.ffn_gate_exps.weight", 1.0 / 16.0),
        ("blk.0.ffn_down_exps.weight", 1.0 / 16.0),
    ] {
        let tensor = file.tensor(name).unwrap();
        assert!(tensor.elements() > 1 << 22, "{name} is not large");
        let bytes = file.bytes(tensor);
        let row = tensor.ty.row_bytes(256).unwrap();
        let rows: std::collections::HashSet<&[u8]> = bytes.chunks_exact(row).collect();
        let count = bytes.len() / row;
        // Q4_K has one block in these rows: nothing to move on.
        let blocks = 256 / tensor.ty.block_elements();
        let distinct = count.min(((1 << 22) / 256 - 1) * blocks);
        assert!(rows.len() >= distinct, "{name}: {} of {count}", rows.len());
        let mut values = vec![0.0; 256 * 1000];
        ds4_quant::decode(tensor.ty, &bytes[..1000 * row], &mut values).unwrap();
        assert!((deviation(&values) / expected - 1.0).abs() < 0.1, "{name}");
        let expert = 256 * row;
        if tensor.dims.len() == 3 {
            assert!(bytes[..expert] != bytes[64 * expert..65 * expert], "{name}");
        }
    }
}

#[test]
fn every_file_is_marked_and_a_stopped_one_leaves_nothing() {
    for dialect in [Dialect::Published, Dialect::LlamaCpp] {
        let model = SyntheticModel {
            dialect,
            types: WeightTypes::LLAMA_CPP,
            ..SyntheticModel::small()
        };
        for file in [model.file().unwrap(), model.mtp_file().unwrap()] {
            assert!(file.metadata().bool(ds4_synthetic::MARK).unwrap());
        }
        let file = model.file().unwrap();
        let shape = ModelShape::from_file(&file).unwrap();
        assert!(shape.name.contains("random weights"));
        let mtp = model.mtp_file().unwrap();
        assert!(bind::bind(&file, Some(&mtp), &shape).unwrap().mtp.is_some());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stopped.gguf");
    let cancel = AtomicBool::new(true);
    let model = SyntheticModel {
        types: WeightTypes::Q8,
        ..SyntheticModel::small()
    };
    let stopped = model.write_with(
        &path,
        WriteOptions::default(),
        &mut control(&cancel, &mut |_, _| {}),
    );
    assert!(matches!(stopped, Err(SyntheticError::Cancelled)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
