//! `ds4 serve`: the HTTP server.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use ds4_engine::{CheckpointStore, Engine, EngineHandle, EngineOptions, ServiceOptions, Shutdown};
use ds4_kvstore::{Access, Limits, Store};
use ds4_model::ModelShape;
use ds4_server::turn::Thinking as ServerThinking;
use ds4_server::{Inference, RequestLog, RunningServer, ServerSettings, serve};

use crate::arguments::ServeArguments;
use crate::directories::{CacheDirectory, create_private};
use crate::failure::UsageError;
use crate::interrupt::Interrupt;
use crate::loaded_model::Vocabulary;
use crate::machine_memory;
use crate::model_file::ModelFile;
use crate::output::{Output, visible};
use crate::settings::{ServeSettings, Thinking};
use crate::table::bytes;

/// Most bytes on disk of what the model sampled, and of stored responses, so that conversations go on
/// after a restart.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
const MAX_RESPONSE_BYTES: u64 = 64 << 20;
/// How long the last of them may take to be written.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// How often the program looks whether it was told to stop.
const POLL: Duration = Duration::from_millis(50);
/// How long requests may go on after that.
const GRACE: Duration = Duration::from_secs(30);

/// Serves until Ctrl-C or SIGTERM.
pub(crate) fn run(
    arguments: &ServeArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    output.set_quiet(arguments.quiet);
    let settings = server_settings(arguments)?;
    let mut model = ModelFile::open(arguments.model.model.as_deref())?;
    model.open_mtp(arguments.speculation.mtp.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let vocabulary = Vocabulary::of_file(&model.file)?;
    let serve_settings = ServeSettings::new(arguments, &shape, &model, &vocabulary)?;
    machine_memory::check(&model.file, &serve_settings.engine)?;
    let disk = disk_cache(arguments, output)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the server's threads")?
        .block_on(serve_model(
            &model,
            vocabulary,
            serve_settings,
            settings,
            arguments.max_queue,
            disk,
            output,
            interrupt,
        ))
}

async fn serve_model(
    model: &ModelFile,
    vocabulary: Vocabulary,
    settings: ServeSettings,
    server_settings: ServerSettings,
    queue: usize,
    disk: Option<DiskCache>,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let server = Arc::new(serve(server_settings).await?);
    output.note(&format!("listening on http://{}", server.address()));
    let engine = load(model, &settings, &server).await?;
    let options = ServiceOptions {
        queue,
        ..ServiceOptions::default()
    };
    let handle = Arc::new(match &disk {
        None => EngineHandle::start(engine, options)?,
        Some(disk) => {
            let store = CheckpointStore::new(disk.store.clone());
            EngineHandle::start_with_store(engine, options, store)?
        }
    });
    let service: Arc<dyn ds4_engine::InferenceService> = Arc::clone(&handle) as _;
    let mut inference = Inference::new(
        service,
        vocabulary.tokenizer,
        settings.vintage,
        settings.sampling,
        server_thinking(settings.thinking),
    )?;
    if let Some(disk) = &disk {
        let kept = [
            (
                "answers",
                inference.keep_answers(&disk.directory, disk.max_answer_bytes),
            ),
            (
                "responses",
                inference.keep_responses(&disk.directory, disk.max_response_bytes),
            ),
        ];
        for (what, kept) in kept {
            if let Err(error) = kept {
                let reason = visible(&format!("{:#}", anyhow!(error)));
                output.warning(&format!("{what} are not kept for the next start: {reason}"));
            }
        }
    }
    let inference = Arc::new(inference);
    server.open(Arc::clone(&inference));
    // Until here there is nothing to finish or to save: Ctrl-C ends the program at once.
    let armed = interrupt.arm();
    stop_on_sigterm(interrupt)?;
    output.note("ready");
    while !armed.is_cancelled() {
        tokio::time::sleep(POLL).await;
    }
    output.note("stopping: running requests may finish; Ctrl-C again ends at once");
    let stopping = tokio::task::spawn_blocking(move || handle.shutdown(Shutdown::Finish));
    match Arc::try_unwrap(server) {
        Ok(server) => server.stop().await,
        Err(_) => return Err(anyhow!("the server is still in use")),
    }
    let flushed = tokio::task::spawn_blocking(move || inference.flush(LAST_WRITES)).await;
    if !matches!(flushed, Ok(true)) {
        output.warning("the last answers may not be on disk");
    }
    // What has not ended by now is cancelled when the handle is dropped.
    let _ = tokio::time::timeout(Duration::from_secs(1), stopping).await;
    Ok(())
}

/// What is kept on disk.
struct DiskCache {
    directory: PathBuf,
    store: Store,
    max_answer_bytes: u64,
    max_response_bytes: u64,
}

/// The KV cache on disk, unless it is switched off. A directory that cannot be used is a failure only
/// if the user named it.
fn disk_cache(
    arguments: &ServeArguments,
    output: &mut Output,
) -> anyhow::Result<Option<DiskCache>> {
    if arguments.no_kv_disk {
        return Ok(None);
    }
    let space = (arguments.kv_space_mb as u64).saturating_mul(1 << 20);
    let max_answer_bytes = MAX_ANSWER_BYTES.min(space / 8);
    let max_response_bytes = MAX_RESPONSE_BYTES.min(space / 8);
    let limits = Limits {
        max_bytes: space - max_answer_bytes - max_response_bytes,
        ..Limits::default()
    };
    let opened = match &arguments.kv_dir {
        Some(directory) => Ok((directory.clone(), Store::open(directory, limits)?)),
        None => default_store(limits),
    };
    match opened {
        Err(error) => {
            let reason = visible(&format!("{error:#}"));
            output.warning(&format!("nothing is kept on disk: {reason}"));
            Ok(None)
        }
        Ok((directory, store)) => {
            let shown = visible(&directory.to_string_lossy());
            if let Access::ReadOnly { reason } = store.access() {
                output.warning(&format!("the KV cache in {shown} is not written: {reason}"));
            }
            output.note(&format!(
                "KV cache on disk in {shown}, at most {}",
                bytes(space)
            ));
            Ok(Some(DiskCache {
                directory,
                store,
                max_answer_bytes,
                max_response_bytes,
            }))
        }
    }
}

fn default_store(limits: Limits) -> anyhow::Result<(PathBuf, Store)> {
    let directory = CacheDirectory::of_user()?.kv();
    if let Some(parent) = directory.parent() {
        create_private(parent)?;
    }
    let store = Store::open(&directory, limits)?;
    Ok((directory, store))
}

/// Loads the model on a thread of its own, so that the sockets answer meanwhile.
async fn load(
    model: &ModelFile,
    settings: &ServeSettings,
    server: &Arc<RunningServer>,
) -> anyhow::Result<Engine> {
    let options: EngineOptions = settings.engine;
    let steering = settings.steering.clone();
    let label = model.label.clone();
    let progress = Arc::clone(server);
    // The file is a mapping shared by reference.
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            let mut engine =
                Engine::open(&model.file, model.mtp.as_ref(), &options, &mut |loaded| {
                    progress.loading(loaded.tensors, loaded.total);
                })
                .with_context(|| format!("cannot load the model `{label}`"))?;
            if let Some(steering) = &steering {
                engine
                    .steer(steering)
                    .with_context(|| format!("cannot steer the model `{label}`"))?;
            }
            anyhow::Ok(engine)
        });
        // The other worker serves the sockets while this one waits.
        tokio::task::block_in_place(|| loading.join())
            .unwrap_or_else(|_| Err(anyhow!("loading the model failed in an unforeseen way")))
    })
}

/// Has SIGTERM do what Ctrl-C does, the second time too.
fn stop_on_sigterm(interrupt: &Arc<Interrupt>) -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot take over SIGTERM")?;
        let interrupt = Arc::clone(interrupt);
        tokio::spawn(async move {
            while terminate.recv().await.is_some() {
                interrupt.pressed();
            }
        });
    }
    #[cfg(not(unix))]
    let _ = interrupt;
    Ok(())
}

fn server_settings(arguments: &ServeArguments) -> anyhow::Result<ServerSettings> {
    let mut api_keys = arguments.api_key.clone();
    if let Some(path) = &arguments.api_key_file {
        api_keys.extend(keys_of(path)?);
    }
    if api_keys.iter().any(|key| key.trim().is_empty()) {
        return Err(UsageError("an API key is empty".to_owned()).into());
    }
    if !arguments.host.is_loopback() && api_keys.is_empty() {
        return Err(UsageError(format!(
            "listening on {} lets others in: give a key with --api-key or --api-key-file",
            arguments.host
        ))
        .into());
    }
    Ok(ServerSettings {
        address: SocketAddr::new(arguments.host, arguments.port),
        api_keys,
        allowed_hosts: arguments.allow_host.clone(),
        allowed_origins: arguments.allow_origin.clone(),
        aliases: arguments.alias.clone(),
        grace: GRACE,
        log: (!arguments.quiet).then(request_log),
        trace: arguments.trace.clone(),
        ..ServerSettings::default()
    })
}

/// A line on standard error for each request.
fn request_log() -> RequestLog {
    RequestLog::new(|report| {
        // In one piece, so that lines do not mix. Nobody to tell when it fails.
        let _ = std::io::stderr().write_all(format!("{report}\n").as_bytes());
    })
}

fn keys_of(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the keys in `{}`", path.display()))?;
    let keys: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if keys.is_empty() {
        return Err(anyhow!("`{}` holds no key", path.display()));
    }
    Ok(keys)
}

fn server_thinking(thinking: Thinking) -> ServerThinking {
    match thinking {
        Thinking::Off => ServerThinking::Off,
        Thinking::High => ServerThinking::On(ds4_chat::ReasoningEffort::High),
        Thinking::Max => ServerThinking::On(ds4_chat::ReasoningEffort::Max),
    }
}
