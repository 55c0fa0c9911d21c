//! Sessions on a small random model of the true architecture: every way to the
//! same tokens must give the same logits.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ds4_engine::{
    BackendKind, Engine, EngineError, EngineOptions, MemoryPlan, Session, SpeculationOptions,
    SyncControl, SyncReport, session_file,
};
use ds4_gguf::GgufFile;
use ds4_model::{KvFormat, TokenId};

fn open(options: EngineOptions) -> Engine {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-testkit/data/flash-tiny-native.gguf");
    let file = GgufFile::open(&path).unwrap();
    Engine::open(&file, None, &options, &mut |_| ()).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions {
        backend: BackendKind::Cpu,
        threads: Some(1),
        context: 1024,
        prefill_chunk: 32,
        ..EngineOptions::default()
    }
}

fn sync(engine: &mut Engine, session: &mut Session, tokens: &[TokenId]) -> SyncReport {
    let cancel = AtomicBool::new(false);
    let mut control = SyncControl {
        cancel: &cancel,
        progress: &mut |_, _| (),
    };
    engine.sync(session, tokens, &mut control).unwrap()
}

/// Tokens without a pattern that a window could hide.
fn tokens(count: usize, seed: u32) -> Vec<TokenId> {
    (0..count as u32)
        .map(|i| (i * i * 7 + i * 13 + seed * 101 + 3) % 512)
        .collect()
}

fn fresh_logits(engine: &mut Engine, tokens: &[TokenId]) -> Vec<f32> {
    engine.forget_kept();
    let mut session = engine.session().unwrap();
    assert_eq!(sync(engine, &mut session, tokens).reused, 0);
    let logits = session.logits().to_vec();
    engine.close(session);
    engine.forget_kept();
    logits
}

/// Bytes of two slices of floats must be equal: `==` would accept 0.0 for -0.0.
fn assert_same(found: &[f32], expected: &[f32]) {
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected));
}

#[test]
fn extending_computes_only_the_new_tokens() {
    let mut engine = open(options());
    let all = tokens(150, 1);
    let expected = fresh_logits(&mut engine, &all);
    let mut session = engine.session().unwrap();
    assert_eq!(sync(&mut engine, &mut session, &all[..97]).evaluated, 97);
    let report = sync(&mut engine, &mut session, &all);
    assert_eq!((report.reused, report.evaluated), (97, 53));
    assert_same(session.logits(), &expected);
    assert_eq!(sync(&mut engine, &mut session, &all).evaluated, 0);
    assert_same(session.logits(), &expected);
}

#[test]
fn going_back_reuses_the_state_at_the_end_of_an_earlier_sync() {
    let mut engine = open(options());
    let prompt = tokens(300, 1);
    let mut session = engine.session().unwrap();
    sync(&mut engine, &mut session, &prompt);
    for token in tokens(40, 2) {
        engine.append(&mut session, token).unwrap();
    }
    // The next turn leaves out what was generated, as a dropped reasoning does.
    let mut next = prompt.clone();
    next.extend(tokens(10, 3));
    let report = sync(&mut engine, &mut session, &next);
    assert_eq!((report.reused, report.evaluated), (300, 10));
    let logits = session.logits().to_vec();
    engine.close(session);
    assert_same(&logits, &fresh_logits(&mut engine, &next));
}

#[test]
fn a_mismatch_before_every_kept_point_starts_over() {
    let mut engine = open(options());
    let mut session = engine.session().unwrap();
    sync(&mut engine, &mut session, &tokens(60, 1));
    let other = tokens(50, 9);
    let report = sync(&mut engine, &mut session, &other);
    assert_eq!((report.reused, report.evaluated), (0, 50));
    let logits = session.logits().to_vec();
    engine.close(session);
    assert_same(&logits, &fresh_logits(&mut engine, &other));
}

#[test]
fn a_cancelled_sync_keeps_what_it_computed() {
    let mut engine = open(options());
    let all = tokens(200, 4);
    let expected = fresh_logits(&mut engine, &all);
    let mut session = engine.session().unwrap();
    let cancel = AtomicBool::new(false);
    let mut stop_after_two = |done, _| cancel.store(done >= 64, Ordering::Relaxed);
    let mut control = SyncControl {
        cancel: &cancel,
        progress: &mut stop_after_two,
    };
    let report = engine.sync(&mut session, &all, &mut control).unwrap();
    assert!(report.cancelled);
    assert_eq!(session.tokens(), &all[..64]);
    let report = sync(&mut engine, &mut session, &all);
    assert_eq!((report.reused, report.evaluated), (64, 136));
    assert_same(session.logits(), &expected);
}

#[test]
fn sessions_do_not_disturb_one_another() {
    let mut engine = open(EngineOptions {
        sessions: 3,
        ..options()
    });
    let prompts: Vec<_> = (0..3)
        .map(|seed| tokens(130 + 7 * seed as usize, seed))
        .collect();
    let expected: Vec<_> = prompts
        .iter()
        .map(|p| fresh_logits(&mut engine, p))
        .collect();
    let mut sessions: Vec<_> = prompts.iter().map(|_| engine.session().unwrap()).collect();
    assert!(matches!(
        engine.session(),
        Err(EngineError::NoFreeSession { slots: 3 })
    ));
    for part in [0..60, 60..130] {
        for (session, prompt) in sessions.iter_mut().zip(&prompts) {
            sync(&mut engine, session, &prompt[..part.end]);
        }
    }
    for ((session, prompt), expected) in sessions.iter_mut().zip(&prompts).zip(&expected) {
        sync(&mut engine, session, prompt);
        assert_same(session.logits(), expected);
    }
    let pages = engine.free_pages();
    for session in sessions {
        engine.close(session);
    }
    engine.forget_kept();
    assert!(engine.free_pages() > pages);
    assert_eq!(engine.free_pages(), 3 * (1024 / 256 + 4));
}

#[test]
fn states_are_kept_at_intervals_for_every_session() {
    let mut engine = open(EngineOptions {
        sessions: 2,
        keep_every: 64,
        kept_bytes: Some(1 << 28),
        ..options()
    });
    let prompt = tokens(300, 1);
    let mut session = engine.session().unwrap();
    sync(&mut engine, &mut session, &prompt);
    for token in tokens(100, 2) {
        engine.append(&mut session, token).unwrap();
    }
    let all = session.tokens().to_vec();
    engine.close(session);
    // Another session branches off: inside the prompt, at its end, inside the answer.
    for (common, expected) in [
        (63, 0),
        (64, 64),
        (255, 192),
        (299, 256),
        (300, 300),
        (383, 320),
    ] {
        let mut branch = all[..common].to_vec();
        branch.extend(tokens(20, 7).iter().map(|token| (token + 1) % 512));
        let mut session = engine.session().unwrap();
        let report = sync(&mut engine, &mut session, &branch);
        assert_eq!(report.reused, expected, "common prefix of {common}");
        let logits = session.logits().to_vec();
        engine.close(session);

        let mut alone = open(options());
        assert_same(&logits, &fresh_logits(&mut alone, &branch));
    }
    assert!(engine.kept_bytes() <= engine.memory().kept_points);
}

#[test]
fn a_state_inside_a_page_outlives_the_branches_that_start_there() {
    let mut engine = open(EngineOptions {
        context: 128,
        ..options()
    });
    let beginning = tokens(100, 1);
    let mut session = engine.session().unwrap();
    sync(&mut engine, &mut session, &beginning);
    // More branches than there are pages or room for kept states.
    for seed in 2..14 {
        let branch = [beginning.as_slice(), &tokens(5, seed)].concat();
        assert_eq!(sync(&mut engine, &mut session, &beginning).evaluated, 0);
        assert_eq!(sync(&mut engine, &mut session, &branch).reused, 100);
        for token in tokens(8, seed) {
            engine.append(&mut session, token).unwrap();
        }
    }
    let found = session.logits().to_vec();
    let all = session.tokens().to_vec();
    engine.close(session);
    assert_same(&found, &fresh_logits(&mut engine, &all));
}

#[test]
fn a_fork_and_its_origin_go_their_own_ways() {
    for kv_format in [KvFormat::F32, KvFormat::Fp8, KvFormat::Q4] {
        let mut engine = open(EngineOptions {
            sessions: 2,
            kv_format,
            ..options()
        });
        let prompt = tokens(270, 1);
        let mut session = engine.session().unwrap();
        sync(&mut engine, &mut session, &prompt);
        // Nobody but the two may hold the half-full page.
        engine.forget_kept();
        let free = engine.free_pages();
        let mut fork = engine.fork(&session).unwrap();
        assert_eq!(engine.free_pages(), free, "a fork copies no page");
        assert_same(fork.logits(), session.logits());
        let (own, other) = (tokens(30, 2), tokens(30, 3));
        for (&a, &b) in own.iter().zip(&other) {
            engine.append(&mut session, a).unwrap();
            engine.append(&mut fork, b).unwrap();
        }
        assert_eq!(engine.free_pages(), free - 1, "one page was copied");
        let found = [session.logits().to_vec(), fork.logits().to_vec()];
        engine.close(session);
        engine.close(fork);
        assert_eq!(engine.free_pages(), 2 * (1024 / 256 + 4));
        for (found, tail) in found.iter().zip([own, other]) {
            let tokens = [prompt.as_slice(), &tail].concat();
            assert_same(found, &fresh_logits(&mut engine, &tokens));
        }
    }
}

#[test]
fn kept_states_make_room_for_sessions() {
    // Pages for one context only, and states that want more of them.
    let mut engine = open(EngineOptions {
        context: 512,
        keep_every: 64,
        cache_tokens: Some(512),
        sessions: 2,
        ..options()
    });
    for seed in 0..6 {
        let prompt = tokens(500, seed);
        let mut session = engine.session().unwrap();
        sync(&mut engine, &mut session, &prompt);
        let logits = session.logits().to_vec();
        engine.close(session);
        assert!(engine.kept_bytes() <= engine.memory().kept_points);
        let mut alone = open(options());
        assert_same(&logits, &fresh_logits(&mut alone, &prompt));
    }
    let mut sessions = [engine.session().unwrap(), engine.session().unwrap()];
    sync(&mut engine, &mut sessions[0], &tokens(500, 8));
    let cancel = AtomicBool::new(false);
    let mut control = SyncControl {
        cancel: &cancel,
        progress: &mut |_, _| (),
    };
    let error = engine
        .sync(&mut sessions[1], &tokens(500, 9), &mut control)
        .unwrap_err();
    assert!(
        matches!(error, EngineError::NoFreePage { pages: 2 }),
        "{error}"
    );
    for session in sessions {
        engine.close(session);
    }
    engine.forget_kept();
    assert_eq!((engine.free_pages(), engine.kept_bytes()), (2, 0));
}

#[test]
fn a_saved_session_continues_bit_identically_in_another_engine() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chat.ds4session");
    for kv_format in KvFormat::ALL {
        let mut engine = open(EngineOptions {
            kv_format,
            ..options()
        });
        let mut session = engine.session().unwrap();
        sync(&mut engine, &mut session, &tokens(333, 5));
        session_file::save(&path, &mut engine, &session, b"attachment").unwrap();
        let mut expected = Vec::new();
        for token in tokens(140, 6) {
            engine.append(&mut session, token).unwrap();
            expected.push(session.logits().to_vec());
        }

        // Another ring size and context than the first engine had.
        let mut other = open(EngineOptions {
            kv_format,
            prefill_chunk: 8,
            context: 600,
            sessions: 2,
            ..options()
        });
        let (mut restored, attachment) = session_file::load(&path, &mut other).unwrap();
        assert_eq!(attachment, b"attachment");
        assert_eq!(restored.tokens(), tokens(333, 5));
        for (token, expected) in tokens(140, 6).into_iter().zip(&expected) {
            other.append(&mut restored, token).unwrap();
            assert_same(restored.logits(), expected);
        }
    }
}

#[test]
fn a_session_file_is_loaded_whole_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chat.ds4session");
    let mut engine = open(options());
    let mut session = engine.session().unwrap();
    sync(&mut engine, &mut session, &tokens(20, 5));
    session_file::save(&path, &mut engine, &session, &[]).unwrap();
    engine.close(session);
    let bytes = std::fs::read(&path).unwrap();

    for length in (0..bytes.len()).step_by(997) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = session_file::load(&path, &mut engine).unwrap_err();
        assert!(
            matches!(error, EngineError::SessionFile(_)),
            "{length}: {error}"
        );
    }
    for position in (0..bytes.len()).step_by(991) {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        assert!(
            session_file::load(&path, &mut engine).is_err(),
            "{position}"
        );
    }
    let error = session_file::load(directory.path(), &mut engine).unwrap_err();
    assert!(matches!(error, EngineError::Io { .. }), "{error}");

    std::fs::write(&path, &bytes).unwrap();
    let mut other = open(EngineOptions {
        kv_format: KvFormat::F16,
        ..options()
    });
    let error = session_file::load(&path, &mut other).unwrap_err();
    assert!(
        matches!(error, EngineError::OtherKvFormat { .. }),
        "{error}"
    );
    let mut small = open(EngineOptions {
        context: 16,
        ..options()
    });
    let error = session_file::load(&path, &mut small).unwrap_err();
    assert!(matches!(error, EngineError::ContextFull { .. }), "{error}");
    assert!(session_file::load(&path, &mut engine).is_ok());
}

#[test]
fn the_memory_plan_is_what_is_allocated() {
    let mut pages = Vec::new();
    for kv_format in KvFormat::ALL {
        for (context, sessions, prefill_chunk) in [(1024, 1, 32), (700, 3, 100), (16, 2, 64)] {
            let engine = open(EngineOptions {
                context,
                sessions,
                prefill_chunk,
                kv_format,
                ..options()
            });
            assert_eq!(engine.memory().allocated(), engine.allocated());
            pages.push(engine.memory().kv_pages);
        }
    }
    // Of each size a smaller format takes less.
    for (larger, smaller) in pages.iter().zip(&pages[3..]) {
        assert!(smaller < larger, "{pages:?}");
    }
}

#[test]
fn the_memory_plan_counts_what_drafting_needs() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-testkit/data");
    let file = GgufFile::open(&data.join("flash-tiny-native.gguf")).unwrap();
    let mtp_file = GgufFile::open(&data.join("flash-tiny-mtp.gguf")).unwrap();
    let plain = MemoryPlan::for_file(&file, &options()).unwrap();
    let mut before = plain.allocated();
    for (prompt_lookup, mtp) in [(true, false), (true, true)] {
        for sessions in [1, 12] {
            let with = EngineOptions {
                sessions,
                speculation: SpeculationOptions {
                    prompt_lookup,
                    mtp,
                    ..SpeculationOptions::default()
                },
                ..options()
            };
            let mtp_file = mtp.then_some(&mtp_file);
            let engine = Engine::open(&file, mtp_file, &with, &mut |_| ()).unwrap();
            assert_eq!(engine.memory().allocated(), engine.allocated());
            let plan = MemoryPlan::for_files(&file, mtp_file, &with).unwrap();
            assert_eq!(engine.memory(), plan);
            assert_eq!(plan.weights > plain.weights, mtp);
            if sessions == 1 {
                assert!(plan.allocated() > before, "drafts need memory");
                before = plan.allocated();
            }
        }
    }
    // What is off costs nothing, and a block that is missing is named.
    let off = open(options());
    assert_eq!(off.allocated(), plain.allocated());
    let with = EngineOptions {
        speculation: SpeculationOptions {
            mtp: true,
            ..SpeculationOptions::default()
        },
        ..options()
    };
    let refused = Engine::open(&file, None, &with, &mut |_| ()).err().unwrap();
    assert!(refused.to_string().contains("mtp.0"), "{refused}");
}

#[test]
fn impossible_requests_are_refused_by_name() {
    let mut engine = open(EngineOptions {
        context: 64,
        ..options()
    });
    let mut session = engine.session().unwrap();
    let cancel = AtomicBool::new(false);
    let mut control = SyncControl {
        cancel: &cancel,
        progress: &mut |_, _| (),
    };
    let error = engine
        .sync(&mut session, &tokens(65, 1), &mut control)
        .unwrap_err();
    assert!(
        matches!(
            error,
            EngineError::ContextFull {
                tokens: 65,
                context: 64
            }
        ),
        "{error}"
    );
    let error = engine.sync(&mut session, &[], &mut control).unwrap_err();
    assert!(matches!(error, EngineError::EmptyPrompt), "{error}");
    assert!(engine.sync(&mut session, &[512], &mut control).is_err());
    // The failed step leaves a session that works.
    assert_eq!(
        sync(&mut engine, &mut session, &tokens(64, 1)).evaluated,
        64
    );
}
