//! Checkpoints on disk: an engine goes on where another one stopped, with the same bits.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ds4_engine::{
    CheckpointStore, Closed, DiskStatus, Engine, EngineHandle, EngineOptions, GenerationEvent,
    GenerationRequest, GenerationSink, InferenceService, SamplerSettings, ServiceOptions, Shutdown,
    TokenLogprobs, Usage,
};
use ds4_gguf::GgufFile;
use ds4_kvstore::{Limits, Store};
use ds4_model::{KvFormat, TokenId};

struct ChannelSink(Sender<GenerationEvent>);

impl GenerationSink for ChannelSink {
    fn send(&mut self, event: GenerationEvent) -> Result<(), Closed> {
        self.0.send(event).map_err(|_| Closed)
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// What a request got.
#[derive(Debug, PartialEq)]
struct Answer {
    tokens: Vec<(TokenId, Option<TokenLogprobs>)>,
    usage: Usage,
}

impl Answer {
    fn ids(&self) -> Vec<TokenId> {
        self.tokens.iter().map(|(id, _)| *id).collect()
    }
}

fn engine(cache_tokens: Option<usize>) -> Engine {
    engine_with(cache_tokens, KvFormat::default())
}

fn engine_with(cache_tokens: Option<usize>, kv_format: KvFormat) -> Engine {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-testkit/data/flash-tiny-native.gguf");
    let file = GgufFile::open(&path).unwrap();
    let options = EngineOptions {
        threads: Some(1),
        context: 2048,
        sessions: 2,
        cache_tokens,
        kv_format,
        prefill_chunk: 64,
        keep_every: 128,
        kept_bytes: Some(1 << 26),
        ..EngineOptions::default()
    };
    Engine::open(&file, None, &options, &mut |_| ()).unwrap()
}

fn start_in(directory: &Path, cache_tokens: Option<usize>, limits: Limits) -> EngineHandle {
    start_engine(directory, engine(cache_tokens), limits)
}

fn start_engine(directory: &Path, engine: Engine, limits: Limits) -> EngineHandle {
    let store = CheckpointStore {
        min_tokens: 64,
        min_new_tokens: 32,
        ..CheckpointStore::new(Store::open(directory, limits).unwrap())
    };
    EngineHandle::start_with_store(engine, ServiceOptions::default(), store).unwrap()
}

fn start(directory: &Path) -> EngineHandle {
    start_in(directory, None, Limits::default())
}

fn prompt(count: u32, seed: u32) -> Vec<TokenId> {
    (0..count)
        .map(|i| (i * i * 7 + i * 3 + seed * 101) % 512)
        .collect()
}

fn submit(
    handle: &EngineHandle,
    tokens: &[TokenId],
    max_tokens: usize,
) -> Receiver<GenerationEvent> {
    let (sender, receiver) = channel();
    let request = GenerationRequest {
        sampling: SamplerSettings {
            seed: 3,
            ..SamplerSettings::default()
        },
        logprobs: Some(3),
        ..GenerationRequest::new(tokens.to_vec(), max_tokens)
    };
    handle
        .submit(request, Box::new(ChannelSink(sender)))
        .unwrap();
    receiver
}

fn answer(receiver: &Receiver<GenerationEvent>) -> Answer {
    let mut tokens = Vec::new();
    loop {
        match receiver.recv_timeout(Duration::from_secs(120)).unwrap() {
            GenerationEvent::Token { id, logprobs } => tokens.push((id, logprobs)),
            GenerationEvent::Finished { usage, .. } => return Answer { tokens, usage },
            GenerationEvent::Failed(error) => panic!("{error}"),
            GenerationEvent::Queued { .. } | GenerationEvent::Prefill { .. } => {}
        }
    }
}

fn ask(handle: &EngineHandle, tokens: &[TokenId], max_tokens: usize) -> Answer {
    answer(&submit(handle, tokens, max_tokens))
}

/// Ends the engine; what it was saving is on disk then.
fn stop(handle: EngineHandle) -> DiskStatus {
    handle.shutdown(Shutdown::Finish);
    handle.status().disk.unwrap()
}

/// A conversation of two turns: what was asked in each, and what an engine without a disk answers.
fn conversation() -> (Vec<TokenId>, Vec<TokenId>, Answer, Answer) {
    let plain = EngineHandle::start(engine(None), ServiceOptions::default()).unwrap();
    let first = prompt(700, 1);
    let one = ask(&plain, &first, 20);
    let second = [first.clone(), one.ids(), prompt(40, 9)].concat();
    let two = ask(&plain, &second, 20);
    (first, second, one, two)
}

#[test]
fn an_engine_goes_on_where_another_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second, one, two) = conversation();
    let handle = start(directory.path());
    assert_eq!(ask(&handle, &first, 20).tokens, one.tokens);
    let status = stop(handle);
    assert_eq!((status.failures, status.restored), (0, 0), "{status:?}");

    // Inside the prompt, and at the end of the answer.
    let handle = start(directory.path());
    assert_eq!(handle.status().disk.unwrap().checkpoints, 2);
    let answer = ask(&handle, &second, 20);
    // All but the last token of the first answer, which was never computed.
    assert_eq!(answer.usage.cached.disk, first.len() + 19);
    assert_eq!(answer.usage.cached.total(), first.len() + 19);
    // Probabilities, too: the logits are the same bits.
    assert_eq!(answer.tokens, two.tokens);
    // From now on memory has it.
    let again = ask(&handle, &second, 20);
    assert_eq!(again.tokens, two.tokens);
    assert_eq!(
        (again.usage.cached.disk, again.usage.cached.kept),
        (0, second.len())
    );
    let totals = handle.status().totals;
    assert_eq!(totals.cached_disk as usize, first.len() + 19);
    let status = stop(handle);
    assert_eq!((status.failures, status.restored), (0, 1), "{status:?}");

    // The second answer's end was saved, and its prompt's, since it was asked twice.
    let handle = start(directory.path());
    assert_eq!(handle.status().disk.unwrap().checkpoints, 4);
    assert_eq!(ask(&handle, &second, 20).tokens, two.tokens);
    let other = ask(&handle, &prompt(700, 2), 4);
    assert_eq!(other.usage.cached.total(), 0);
    stop(handle);
}

#[test]
fn what_another_engine_saves_is_found_while_both_run() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second, _, two) = conversation();
    let early = start(directory.path());
    ask(&early, &prompt(80, 7), 2);
    let other = start(directory.path());
    ask(&other, &first, 20);
    stop(other);
    // A lookup asks the directory twice a second at most.
    std::thread::sleep(Duration::from_millis(600));
    let answer = ask(&early, &second, 20);
    assert_eq!(answer.usage.cached.disk, first.len() + 19);
    assert_eq!(answer.tokens, two.tokens);
    stop(early);
}

#[test]
fn checkpoints_of_one_kv_format_are_nothing_to_another() {
    let directory = tempfile::tempdir().unwrap();
    let start = |kv_format| {
        let engine = engine_with(None, kv_format);
        start_engine(directory.path(), engine, Limits::default())
    };
    let first = prompt(700, 1);
    let handle = start(KvFormat::Fp8);
    ask(&handle, &first, 20);
    stop(handle);

    let handle = start(KvFormat::Q4);
    let one = ask(&handle, &first, 20);
    assert_eq!(one.usage.cached.total(), 0);
    stop(handle);

    // Its own rows it finds, and goes on with the same bits.
    let plain = engine_with(None, KvFormat::Q4);
    let plain = EngineHandle::start(plain, ServiceOptions::default()).unwrap();
    assert_eq!(ask(&plain, &first, 20).tokens, one.tokens);
    let second = [first.clone(), one.ids(), prompt(40, 9)].concat();
    let handle = start(KvFormat::Q4);
    let two = ask(&handle, &second, 20);
    assert_eq!(two.usage.cached.disk, first.len() + 19);
    assert_eq!(two.tokens, ask(&plain, &second, 20).tokens);
    let status = stop(handle);
    assert_eq!((status.failures, status.restored), (0, 1), "{status:?}");
}

#[test]
fn two_requests_with_one_prefix_read_it_once() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second, ..) = conversation();
    let handle = start(directory.path());
    ask(&handle, &first, 20);
    stop(handle);
    let handle = start(directory.path());
    let other = [&second[..first.len() + 19], &prompt(30, 5)].concat();
    let receivers = [submit(&handle, &second, 5), submit(&handle, &other, 5)];
    let answers = receivers.each_ref().map(answer);
    let cached = answers.each_ref().map(|answer| answer.usage.cached);
    assert_eq!(cached[0].disk, first.len() + 19);
    assert_eq!((cached[1].disk, cached[1].live), (0, first.len() + 19));
    assert_eq!(stop(handle).restored, 1);
}

/// Files below a folder of the store.
fn files(directory: &Path, folder: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory.join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn damaged_files_cost_time_only() {
    // A load stops at the first damaged segment and has that one replaced.
    for (folder, count) in [("segments", 1), ("checkpoints", 2)] {
        let directory = tempfile::tempdir().unwrap();
        let (first, second, _, two) = conversation();
        let handle = start(directory.path());
        ask(&handle, &first, 20);
        stop(handle);
        let handle = start(directory.path());
        for file in files(directory.path(), folder).into_iter().take(count) {
            let mut bytes = fs::read(&file).unwrap();
            let middle = bytes.len() * 3 / 4;
            bytes[middle] ^= 1;
            fs::write(&file, bytes).unwrap();
        }
        let answer = ask(&handle, &second, 20);
        assert_eq!(answer.tokens, two.tokens, "{folder}");
        assert_eq!(answer.usage.cached.disk, 0, "{folder}");
        let status = handle.status().disk.unwrap();
        assert!(status.failures > 0, "{status:?}");
        assert!(status.last_failure.is_some());
        // It is saved anew.
        assert_eq!(stop(handle).restored, 0);
        let handle = start(directory.path());
        let again = ask(&handle, &second, 20);
        assert!(again.usage.cached.disk >= 640, "{folder}");
        assert_eq!(again.tokens, two.tokens, "{folder}");
        stop(handle);
    }
}

#[test]
fn a_full_store_and_a_small_cache_harm_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second, one, two) = conversation();
    // The store has room for nothing.
    let limits = Limits {
        max_bytes: 1000,
        ..Limits::default()
    };
    let handle = start_in(directory.path(), None, limits);
    assert_eq!(ask(&handle, &first, 20).tokens, one.tokens);
    assert_eq!(ask(&handle, &second, 20).tokens, two.tokens);
    stop(handle);
    // Eight pages, which two requests at a time fill.
    let handle = start_in(directory.path(), Some(2048), Limits::default());
    for round in 0..2 {
        let prompts = [&first[..], &second, &prompt(900, 4), &prompt(1000, 5)];
        let receivers = prompts.map(|prompt| submit(&handle, prompt, 20));
        let answers = receivers.each_ref().map(answer);
        assert_eq!(answers[0].tokens, one.tokens, "round {round}");
        assert_eq!(answers[1].tokens, two.tokens, "round {round}");
    }
    stop(handle);
}

#[test]
fn where_requests_branch_off_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let handle = start(directory.path());
    let common = prompt(400, 1);
    let request = |seed| [common.clone(), prompt(150, seed)].concat();
    ask(&handle, &request(2), 4);
    let second = ask(&handle, &request(3), 4);
    assert_eq!(second.usage.cached.kept, 384);
    stop(handle);
    let handle = start(directory.path());
    let third = ask(&handle, &request(4), 4);
    assert_eq!(third.usage.cached.disk, 384);
    stop(handle);
    let plain = EngineHandle::start(engine(None), ServiceOptions::default()).unwrap();
    assert_eq!(ask(&plain, &request(4), 4).tokens, third.tokens);
}
