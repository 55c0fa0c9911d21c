//! Measures how long an engine needs to take up a session that another one left on disk, with the KV cache
//! of V4 Flash and weights so small that computing 100,000 tokens takes minutes only:
//!
//! ```sh
//! cargo run --release -p ds4-testkit --example restore_session -- [TOKENS]
//! ```

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ds4_engine::{
    CheckpointStore, Closed, Engine, EngineHandle, EngineOptions, GenerationEvent,
    GenerationRequest, GenerationSink, InferenceService, ServiceOptions, Shutdown,
};
use ds4_gguf::GgufFile;
use ds4_kvstore::{Limits, Store};
use ds4_model::TokenId;
use ds4_synthetic::SyntheticModel;

struct Channel(Sender<(Instant, GenerationEvent)>);

impl GenerationSink for Channel {
    fn send(&mut self, event: GenerationEvent) -> Result<(), Closed> {
        self.0.send((Instant::now(), event)).map_err(|_| Closed)
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// Flash in everything that the KV cache depends on, and nothing else.
fn model() -> SyntheticModel {
    SyntheticModel {
        name: "Synthetic, the KV cache of V4 Flash".to_owned(),
        hidden: 64,
        vocabulary: 512,
        heads: 1,
        q_lora: 64,
        output_groups: 1,
        output_lora: 64,
        index_heads: 1,
        index_top_k: 16,
        experts: 2,
        experts_used: 1,
        expert_hidden: 64,
        hash_layers: 1,
        ..SyntheticModel::flash()
    }
}

fn start(file: &GgufFile, directory: &Path, tokens: usize) -> Result<EngineHandle> {
    let options = EngineOptions {
        context: (tokens + 1024).next_multiple_of(256),
        sessions: 1,
        prefill_chunk: 512,
        ..EngineOptions::default()
    };
    let engine = Engine::open(file, None, &options, &mut |_| ())?;
    let store = CheckpointStore::new(Store::open(directory, Limits::default())?);
    Ok(EngineHandle::start_with_store(
        engine,
        ServiceOptions::default(),
        store,
    )?)
}

fn ask(handle: &EngineHandle, tokens: Vec<TokenId>) -> Result<Answer> {
    let (sender, events) = channel();
    let submitted = Instant::now();
    handle.submit(GenerationRequest::new(tokens, 1), Box::new(Channel(sender)))?;
    Answer::take(submitted, &events)
}

struct Answer {
    cached: usize,
    /// Until the prompt's known prefix was there.
    restored: Duration,
    first_token: Duration,
    token: TokenId,
}

impl Answer {
    fn take(submitted: Instant, events: &Receiver<(Instant, GenerationEvent)>) -> Result<Self> {
        let (mut restored, mut answer) = (None, None);
        loop {
            let (at, event) = events.recv().context("the engine ended")?;
            let took = at.saturating_duration_since(submitted);
            match event {
                GenerationEvent::Prefill { .. } => {
                    restored.get_or_insert(took);
                }
                GenerationEvent::Token { id, .. } => answer = Some((took, id)),
                GenerationEvent::Failed(error) => bail!("{error}"),
                GenerationEvent::Finished { usage, .. } => {
                    let (first_token, token) = answer.context("no token came")?;
                    return Ok(Self {
                        cached: usage.cached.disk,
                        restored: restored.context("no prefill was reported")?,
                        first_token,
                        token,
                    });
                }
                GenerationEvent::Queued { .. } => {}
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "an example prints its results")]
fn main() -> Result<()> {
    let count = match std::env::args().nth(1) {
        Some(count) => count.parse().context("TOKENS must be a number")?,
        None => 100_000,
    };
    let directory = tempfile::tempdir()?;
    let file = model().file()?;
    let mut prompt: Vec<TokenId> = (0..count as u32)
        .map(|at| at.wrapping_mul(at).wrapping_mul(7) % 500)
        .collect();

    let kept = directory.path().join("kv");
    let handle = start(&file, &kept, count)?;
    let computed = ask(&handle, prompt.clone())?;
    println!(
        "computed   {count} tokens in {:.1} s",
        computed.first_token.as_secs_f64()
    );
    prompt.extend([computed.token, 1, 2, 3]);
    let alone = ask(&handle, prompt.clone())?;
    handle.shutdown(Shutdown::Finish);
    let status = handle.status().disk.context("no disk")?;
    println!(
        "on disk    {:.1} MB in {} checkpoints",
        status.bytes as f64 / 1e6,
        status.checkpoints
    );
    drop(handle);

    for _ in 0..3 {
        let handle = start(&file, &kept, count)?;
        let answer = ask(&handle, prompt.clone())?;
        ensure!(
            answer.cached >= count,
            "only {} tokens came from disk",
            answer.cached
        );
        ensure!(
            answer.token == alone.token,
            "another token after the restore"
        );
        println!(
            "restored   {} tokens in {:.2} s, the first token after {:.2} s",
            answer.cached,
            answer.restored.as_secs_f64(),
            answer.first_token.as_secs_f64()
        );
    }
    Ok(())
}
