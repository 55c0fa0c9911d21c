//! Any bytes as a saved session: an error, or a session that continues.
//!
//! Checksum and fingerprint are made right first; nothing would get past them otherwise.

#![no_main]

use std::cell::RefCell;
use std::path::Path;

use ds4_engine::{BackendKind, Engine, EngineOptions, session_file};
use ds4_gguf::GgufFile;
use libfuzzer_sys::fuzz_target;

/// Magic and version.
const MAGIC_BYTES: usize = 8;

thread_local! {
    static ENGINE: RefCell<Engine> = RefCell::new(small_engine());
}

fn small_engine() -> Engine {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/ds4-testkit/data");
    let file = GgufFile::open(&data.join("flash-tiny-native.gguf")).expect("the small model opens");
    let options = EngineOptions {
        backend: BackendKind::Reference,
        context: 64,
        prefill_chunk: 4,
        ..EngineOptions::default()
    };
    Engine::open(&file, None, &options, &mut |_| ()).expect("the small model loads")
}

fuzz_target!(|data: &[u8]| {
    ENGINE.with_borrow_mut(|engine| {
        assert!(session_file::from_bytes(data, engine).is_err(), "a checksum by chance");
        let mut file = data.to_vec();
        let fingerprint = *engine.fingerprint().as_bytes();
        if let Some(place) = file.get_mut(MAGIC_BYTES..MAGIC_BYTES + fingerprint.len()) {
            place.copy_from_slice(&fingerprint);
        }
        let hash = blake3::hash(&file);
        file.extend_from_slice(hash.as_bytes());
        match session_file::from_bytes(&file, engine) {
            Ok((session, attachment)) => {
                assert!(session.position() <= 64 && attachment.len() < data.len());
                engine.close(session);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        // Whatever happened, the engine's only session is free again.
        let session = engine.session().expect("no session leaks");
        engine.close(session);
    });
});
