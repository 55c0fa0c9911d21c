//! Random damage to a valid file: an error or a valid reading, never a panic, always soon.

mod build;

use ds4_gguf::GgufFile;
use proptest::prelude::*;

/// Reads everything that a file offers.
fn read_all(bytes: Vec<u8>) {
    let Ok(file) = GgufFile::from_bytes("damaged", bytes.into()) else {
        return;
    };
    for (key, value) in file.metadata().iter() {
        let _ = value.to_string();
        let metadata = file.metadata();
        let _ = (
            metadata.u32(key),
            metadata.f32(key),
            metadata.bool(key),
            metadata.str(key),
        );
        let _ = (
            metadata.integers(key),
            metadata.floats(key),
            metadata.strings(key),
        );
    }
    for tensor in file.tensors() {
        let bytes = file.bytes(tensor);
        assert_eq!(bytes.len() as u64, tensor.byte_len());
        assert!(tensor.elements() > 0);
        let _ = bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn damaged_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = build::valid();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(bytes);
    }

    #[test]
    fn damaged_numbers(
        at in any::<prop::sample::Index>(),
        number in prop_oneof![
            Just(u64::MAX), Just(1 << 63), Just(1 << 32), Just(u64::from(u32::MAX)), Just(0), 0_u64..300
        ],
    ) {
        let mut bytes = build::valid();
        let at = at.index(bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        read_all(bytes);
    }

    #[test]
    fn cut_and_spliced(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let whole = build::valid();
        let (from, to) = (from.index(whole.len()), to.index(whole.len()));
        read_all([&whole[..from], &noise, &whole[to..]].concat());
    }
}
