//! An engine that serves many, under synthetic load.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ds4_engine::{CheckpointStore, Engine, EngineOptions, ServiceOptions};
use ds4_gguf::GgufFile;
use ds4_kvstore::{Limits, Store};
use ds4_workshop::load::{LoadOptions, measure};
use ds4_workshop::soak::{SoakOptions, SoakReport, soak};
use ds4_workshop::{Control, WorkshopError};

fn open(options: &EngineOptions) -> Engine {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-testkit/data/flash-tiny-native.gguf");
    let file = GgufFile::open(&path).unwrap();
    Engine::open(&file, None, options, &mut |_| ()).unwrap()
}

fn one_thread() -> EngineOptions {
    EngineOptions {
        threads: Some(1),
        prefill_chunk: 64,
        ..EngineOptions::default()
    }
}

fn load() -> LoadOptions {
    LoadOptions {
        sessions: vec![1, 3],
        prompt_tokens: 40,
        gen_tokens: 12,
        prefill_tokens: 200,
        service: ServiceOptions {
            prefill_quantum: 16,
            ..ServiceOptions::default()
        },
    }
}

#[test]
fn the_figures_of_a_load_agree_with_each_other() {
    let options = load();
    let cancel = AtomicBool::new(false);
    let mut control = Control {
        cancel: &cancel,
        progress: &mut |_, _| (),
    };
    let engine = open(&options.engine_options(one_thread()));
    let rows = measure(engine, &options, &mut control).unwrap();
    let sessions: Vec<usize> = rows.iter().map(|row| row.sessions).collect();
    assert_eq!(sessions, options.sessions);
    for row in rows {
        assert!(row.decode_tps > 0.0 && row.total_tps > 0.0, "{row:?}");
        let beside = row.beside_prefill.unwrap();
        for latency in [row.first_token, row.gap, beside.gap] {
            assert!(
                0.0 < latency.median && latency.median <= latency.p99,
                "{row:?}"
            );
            assert!(latency.p99 <= latency.worst, "{row:?}");
        }
        // A short prompt does not wait for the long one.
        assert!(
            0.0 < beside.newcomer_first_token
                && beside.newcomer_first_token < beside.long_first_token,
            "{row:?}"
        );
        // In each step every session gets a token and the prompt at most its share of rows.
        let steps = beside.prefill_tps / 16.0;
        let tokens = beside.decode_tps / row.sessions as f64;
        assert!((0.5..2.0).contains(&(tokens / steps)), "{row:?}");
    }
}

#[test]
fn a_load_can_be_stopped() {
    let options = load();
    let cancel = AtomicBool::new(false);
    let mut control = Control {
        cancel: &cancel,
        progress: &mut |_, _| cancel.store(true, Ordering::Relaxed),
    };
    let engine = open(&options.engine_options(one_thread()));
    let stopped = measure(engine, &options, &mut control);
    assert!(matches!(stopped, Err(WorkshopError::Cancelled)));
}

fn run_soak(seed: u64, duration: Duration) -> SoakReport {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_bytes: 3 << 20,
        ..Limits::default()
    };
    let store = CheckpointStore {
        min_tokens: 64,
        min_new_tokens: 32,
        ..CheckpointStore::new(Store::open(&directory.path().join("kv"), limits).unwrap())
    };
    let engine = open(&EngineOptions {
        context: 768,
        sessions: 5,
        // Pages for two and a half of them.
        cache_tokens: Some(2048),
        keep_every: 64,
        kept_bytes: Some(4 << 20),
        ..one_thread()
    });
    let options = SoakOptions {
        duration,
        compare: duration,
        rounds: 4,
        seed,
        prompt_tokens: 600,
        gen_tokens: 30,
    };
    let cancel = AtomicBool::new(false);
    let mut control = Control {
        cancel: &cancel,
        progress: &mut |_, _| (),
    };
    soak(engine, &store, &options, &|| None, &mut control).unwrap()
}

/// The short form of `ds4 bench soak`.
#[test]
fn nothing_is_lost_mixed_up_or_leaked() {
    let report = run_soak(7, Duration::from_secs(20));
    assert!(report.is_clean(), "{report:#?}");
    // How much else happens in the time depends on the machine.
    assert!(report.compared > 0 && report.saved > 0, "{report:#?}");
    assert!(report.cached_memory > 0, "{report:#?}");
}
