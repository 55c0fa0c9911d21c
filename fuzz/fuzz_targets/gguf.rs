//! Any bytes as a GGUF file: an error or a file whose every accessor works, never a panic.

#![no_main]

use ds4_gguf::{GgufFile, GgufWriter, TensorSpec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file = match GgufFile::from_bytes("fuzz.gguf", data.to_vec().into()) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(file.file_size(), data.len() as u64);
    assert!(file.check_unchanged().is_ok());
    let metadata = file.metadata();
    for (key, value) in metadata.iter() {
        assert_eq!(metadata.get(key).map(|found| found.value_type()), Some(value.value_type()));
        let _ = value.to_string();
        let _ = (metadata.u32(key), metadata.u64(key), metadata.f32(key), metadata.bool(key));
        let _ = (metadata.str(key), metadata.bytes(key), metadata.strings(key));
        let _ = (metadata.integers(key), metadata.floats(key));
        if let Ok(strings) = metadata.byte_strings(key) {
            assert!(strings.map(<[u8]>::len).sum::<usize>() <= data.len());
        }
    }
    for tensor in file.tensors() {
        assert!(file.tensor(&tensor.name).is_some());
        assert!(tensor.elements() > 0 && tensor.byte_len() <= data.len() as u64);
        let _ = file.bytes(tensor).iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    }
    // Whatever can be read can be written, as far as the tensor list goes.
    let specs: Vec<TensorSpec> = file
        .tensors()
        .iter()
        .map(|tensor| TensorSpec {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            ty: tensor.ty,
        })
        .collect();
    let nowhere = std::path::Path::new("/nonexistent/fuzz.gguf");
    assert!(GgufWriter::create(nowhere, metadata, &specs).is_err());
});
