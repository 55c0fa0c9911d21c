//! `ds4 download`: published model files to disk.

use std::env;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;
use ds4_download::{
    CATALOGUE, DownloadError, Presence, Progress, Proxy, Settings, Source, Summary, download, find,
    free_space, presence, verify,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::directories::DataDirectory;
use crate::failure::{Hint, Interrupted, UsageError};
use crate::interrupt::Interrupt;
use crate::output::{Output, visible};
use crate::table::{Table, bytes};

const TEMPLATE: &str =
    "{bar:30} {bytes}/{total_bytes}, {binary_bytes_per_sec}, {eta} left {wide_msg}";

const ASKING_TEMPLATE: &str = "{spinner} {wide_msg}";

/// Off a terminal, progress is told once for so many hundredths of the file.
const TOLD_PERCENT: u64 = 10;

/// Off a terminal, failures that pass are told at most so often.
const TOLD_RETRIES: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "\
Examples:
  ds4 download                            the models that have a name
  ds4 download deepseek-v4-flash          then: ds4 --model deepseek-v4-flash
  ds4 download owner/repository:file.gguf any file of a hub that keeps SHA-256 (owner/repository@revision:… too)

A download that was stopped or killed goes on where it ended when the same command runs again.

Environment:
  HF_TOKEN          access token, sent to the hub alone
  HF_ENDPOINT       URL of the hub or a mirror [default: https://huggingface.co]
  HF_HUB_OFFLINE    1 means --offline
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE   as usual";

/// Arguments of `ds4 download`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DownloadArguments {
    /// Which model; without it, list them
    name: Option<String>,
    /// Where the file goes [default: the models directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value = "8")]
    connections: NonZeroUsize,
    /// Do not touch the network: only say whether the file is there
    #[arg(long)]
    offline: bool,
    /// Read a file that is there already, and compare its SHA-256
    #[arg(long)]
    verify: bool,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
    /// No progress; only warnings and errors
    #[arg(short, long)]
    quiet: bool,
}

/// Lists the catalogue, or downloads a file.
pub(crate) fn run(
    arguments: &DownloadArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    output.set_quiet(arguments.quiet);
    let directory = match &arguments.dir {
        Some(directory) => directory.clone(),
        None => DataDirectory::of_user()?.models(),
    };
    let Some(name) = &arguments.name else {
        return list(arguments.json, &directory, output);
    };
    let source = source(name)?;
    let offline = arguments.offline || variable(&["HF_HUB_OFFLINE"]).is_some_and(is_true);
    let state = presence(&source, &directory);
    let is_there = matches!(state, Presence::Complete { .. });
    if offline && !(is_there && (source.sha256.is_some() || !arguments.verify)) {
        return Err(missing(name, &source, &directory, &state));
    }
    let settings = settings(arguments, offline)?;
    let armed = interrupt.arm();
    let mut display = Display::new(output);
    let started = Instant::now();
    let mut progress = |event: Progress<'_>| display.show(&event, output);
    let verified = is_there && arguments.verify;
    let result = if verified {
        verify(
            &source,
            &directory,
            &settings,
            armed.cancel(),
            &mut progress,
        )
        .map(|hash| Summary {
            path: directory.join(source.local_name()),
            length: length_of(&state),
            resumed: length_of(&state),
            sha256: Some(hash),
            was_there: true,
        })
    } else {
        download(
            &source,
            &directory,
            &settings,
            armed.cancel(),
            &mut progress,
        )
    };
    display.bar.finish_and_clear();
    let summary = match result {
        Ok(summary) => summary,
        Err(DownloadError::Cancelled) => {
            output.note(&match presence(&source, &directory) {
                _ if verified => "stopped".to_owned(),
                Presence::Unfinished { arrived, length } => format!(
                    "stopped with {} of {}; the same command goes on from here",
                    bytes(arrived),
                    bytes(length)
                ),
                _ => "stopped; nothing had arrived yet".to_owned(),
            });
            return Err(Interrupted.into());
        }
        Err(error) => return Err(explain(error, verified)),
    };
    report(
        name,
        &summary,
        verified,
        arguments,
        started.elapsed(),
        output,
    )
}

/// The file that a name stands for.
fn source(name: &str) -> anyhow::Result<Source> {
    if let Some(entry) = find(name) {
        return Ok(entry.source());
    }
    if name.contains([':', '/']) {
        return name
            .parse()
            .map_err(|error: DownloadError| UsageError(error.to_string()).into());
    }
    let names: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
    Err(UsageError(format!(
        "there is no model `{name}` to download; names are {}, or OWNER/REPOSITORY:FILE.gguf",
        names.join(", ")
    ))
    .into())
}

/// What goes from the environment into the download.
fn settings(arguments: &DownloadArguments, offline: bool) -> anyhow::Result<Settings> {
    let mut settings = Settings {
        connections: arguments.connections.get(),
        ..Settings::default()
    };
    if offline {
        return Ok(settings);
    }
    if let Some(endpoint) = variable(&["HF_ENDPOINT"]) {
        settings.endpoint = endpoint;
    }
    settings.token = variable(&["HF_TOKEN"]);
    let of_scheme = if settings.endpoint.starts_with("http:") {
        ["http_proxy", "HTTP_PROXY"]
    } else {
        ["https_proxy", "HTTPS_PROXY"]
    };
    let proxy = variable(&of_scheme).or_else(|| variable(&["all_proxy", "ALL_PROXY"]));
    settings.proxy = proxy.map(|url| Proxy {
        url,
        except: variable(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
    });
    // Where the system has none, those of Mozilla are used.
    let certificates = rustls_native_certs::load_native_certs().certs;
    settings.root_certificates = certificates.iter().map(|der| der.to_vec()).collect();
    Ok(settings)
}

/// The first of these variables that is set and not empty.
fn variable(names: &[&str]) -> Option<String> {
    let value = |name: &&str| env::var(name).ok().map(|value| value.trim().to_owned());
    names
        .iter()
        .filter_map(value)
        .find(|value| !value.is_empty())
}

fn is_true(value: String) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "true" | "yes" | "on"
    )
}

fn length_of(state: &Presence) -> u64 {
    match state {
        Presence::Complete { length } => *length,
        _ => 0,
    }
}

/// The table, or the JSON, of everything that has a name.
fn list(as_json: bool, directory: &Path, output: &mut Output) -> anyhow::Result<()> {
    if as_json {
        let models: Vec<Value> = CATALOGUE
            .iter()
            .map(|entry| {
                let source = entry.source();
                let (state, arrived) = match presence(&source, directory) {
                    Presence::Complete { length } => ("complete", length),
                    Presence::Unfinished { arrived, .. } => ("unfinished", arrived),
                    Presence::InTheWay => ("in the way", 0),
                    _ => ("missing", 0),
                };
                json!({
                    "name": entry.name,
                    "aliases": entry.aliases,
                    "release": entry.release,
                    "weights": entry.weights,
                    "repository": source.repository,
                    "revision": source.revision,
                    "file": entry.file,
                    "bytes": entry.length,
                    "sha256": entry.sha256.to_string(),
                    "state": state,
                    "arrived": arrived,
                })
            })
            .collect();
        let value = json!({ "directory": directory, "models": models });
        output.line(&serde_json::to_string_pretty(&value)?)?;
        return Ok(());
    }
    let width = CATALOGUE.iter().map(|entry| entry.weights.len()).max();
    let width = width.unwrap_or(0);
    let mut table = Table::new([
        "model".to_owned(),
        "size".to_owned(),
        "on disk".to_owned(),
        "release".to_owned(),
        format!("{:width$}", "weights"),
    ]);
    for entry in CATALOGUE {
        let on_disk = match presence(&entry.source(), directory) {
            Presence::Complete { .. } => "yes".to_owned(),
            // Never 100: that would be "yes".
            Presence::Unfinished { arrived, length } => {
                format!(
                    "{} %",
                    (arrived as f64 / length.max(1) as f64 * 99.0) as u64
                )
            }
            Presence::InTheWay => "another file".to_owned(),
            _ => "no".to_owned(),
        };
        table.row([
            entry.name.to_owned(),
            bytes(entry.length),
            on_disk,
            entry.release.to_owned(),
            format!("{:width$}", entry.weights),
        ]);
    }
    for line in table.lines() {
        output.line(&line)?;
    }
    let free = free_space(directory).map(|free| format!(", {} free", bytes(free)));
    output.note(&format!(
        "`ds4 download NAME` puts a model into {}{}",
        directory.display(),
        free.unwrap_or_default()
    ));
    Ok(())
}

/// What `--offline` says about a file that is not there.
fn missing(name: &str, source: &Source, directory: &Path, state: &Presence) -> anyhow::Error {
    let file = source.local_name();
    let what = match (state, source.length) {
        (Presence::Complete { .. }, _) => "the hub must be asked for the SHA-256".to_owned(),
        (Presence::InTheWay, _) => format!("`{file}` is another file"),
        (Presence::Unfinished { arrived, length }, _) => format!(
            "{} of {} are missing of `{file}`",
            bytes(length.saturating_sub(*arrived)),
            bytes(*length)
        ),
        (_, Some(length)) => format!("all {} of `{file}` are missing", bytes(length)),
        (_, None) => format!("`{file}` is missing"),
    };
    let error = anyhow!(
        "offline, and `{name}` is not complete in `{}`: {what}",
        directory.display()
    );
    let hinted: anyhow::Result<()> = Err(error).hint(|| {
        format!(
            "run `ds4 download {name}` with a connection, or bring the file there in another way"
        )
    });
    hinted.err().unwrap_or_else(|| anyhow!("offline"))
}

/// What is shown of a download under way.
struct Display {
    bar: ProgressBar,
    /// Tenths that were told, where there is no bar.
    told: Option<u64>,
    told_retry: Option<Instant>,
}

impl Display {
    fn new(output: &Output) -> Self {
        let shown = output.stderr_is_terminal() && !output.is_quiet();
        let bar = if shown {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        if shown {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self {
            bar,
            told: (!shown).then_some(0),
            told_retry: None,
        }
    }

    fn set_template(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    fn show(&mut self, event: &Progress<'_>, output: &mut Output) {
        match event {
            Progress::Asking { url } => {
                self.set_template(ASKING_TEMPLATE);
                self.bar.set_message(format!("asking for {url}"));
            }
            Progress::StartingOver { reason, discarded } => {
                let text = format!(
                    "starting over: {reason}; {} are thrown away",
                    bytes(*discarded)
                );
                self.bar.suspend(|| output.warning(&text));
            }
            Progress::Started { resumed, total } => {
                let text = match resumed {
                    0 => format!("{} to download", bytes(*total)),
                    _ => format!("going on at {} of {}", bytes(*resumed), bytes(*total)),
                };
                self.bar.suspend(|| output.note(&text));
                self.told = self.told.map(|_| tenths(*resumed, *total));
                self.bar.set_message("");
                self.bar.set_length(*total);
                self.bar.set_position(*resumed);
                self.bar.reset_eta();
                self.set_template(TEMPLATE);
            }
            Progress::Transferring { arrived, total } => {
                self.bar.set_position(*arrived);
                if !self.bar.message().is_empty() && self.told_retry.is_none_or(is_old) {
                    self.bar.set_message("");
                }
                let now = tenths(*arrived, *total);
                if self.told.is_some_and(|told| now > told) {
                    self.told = Some(now);
                    let text = format!("{} % of {}", now * TOLD_PERCENT, bytes(*total));
                    output.note(&text);
                }
            }
            Progress::Retrying { reason, wait } => {
                let reason = visible(reason);
                let text = format!("{reason}; trying again in {} s", wait.as_secs_f32().ceil());
                if self.told.is_some() && self.told_retry.is_none_or(is_old) {
                    output.note(&text);
                    self.told_retry = Some(Instant::now());
                } else if self.told.is_none() {
                    self.told_retry = Some(Instant::now());
                }
                self.bar.set_message(text);
            }
            Progress::Verifying { done, total } => {
                self.set_template(TEMPLATE);
                self.bar.set_length(*total);
                self.bar.set_position(*done);
                self.bar.set_message("verifying");
            }
            _ => {}
        }
    }
}

fn is_old(told: Instant) -> bool {
    told.elapsed() > TOLD_RETRIES
}

fn tenths(arrived: u64, total: u64) -> u64 {
    (arrived as f64 / total.max(1) as f64 * 100.0) as u64 / TOLD_PERCENT
}

/// Says where the file is and how to use it.
fn report(
    name: &str,
    summary: &Summary,
    verified: bool,
    arguments: &DownloadArguments,
    took: Duration,
    output: &mut Output,
) -> anyhow::Result<()> {
    if arguments.json {
        let value = json!({
            "name": name,
            "path": summary.path,
            "bytes": summary.length,
            "downloaded": summary.length - summary.resumed,
            "sha256": summary.sha256.map(|hash| hash.to_string()),
            "verified": verified || !summary.was_there,
            "was_there": summary.was_there,
            "seconds": took.as_secs_f64(),
        });
        output.line(&value.to_string())?;
        return Ok(());
    }
    let path = summary.path.display();
    let size = bytes(summary.length);
    output.note(&match (summary.was_there, verified) {
        (true, false) => format!("{path}: there already, {size}; `--verify` compares its SHA-256"),
        (true, true) => format!("{path}: there already, {size}, the SHA-256 is right"),
        (false, _) => format!("{path}: {size}, the SHA-256 is right"),
    });
    let entry = find(name);
    if entry.is_some_and(|entry| !entry.is_model) {
        return Ok(());
    }
    let model = match (&arguments.dir, entry) {
        (None, Some(entry)) => entry.name.to_owned(),
        (None, None) => summary.path.file_stem().map_or_else(
            || path.to_string(),
            |stem| stem.to_string_lossy().into_owned(),
        ),
        (Some(_), _) => path.to_string(),
    };
    output.note(&format!("use it with: ds4 --model {model}"));
    Ok(())
}

/// The error in units that people read, and what to do about it.
fn explain(error: DownloadError, verified: bool) -> anyhow::Error {
    let again = "what has arrived is kept, and the same command goes on from there";
    let hint = match &error {
        DownloadError::DiskSpace { missing, .. } => {
            format!(
                "free {}, or name another place with `--dir`",
                bytes(*missing)
            )
        }
        DownloadError::DiskFull { missing, .. } => format!("free {}; {again}", bytes(*missing)),
        DownloadError::Io { source, .. } if source.kind() == ErrorKind::Interrupted => {
            again.to_owned()
        }
        DownloadError::Io { .. } => "`--dir` names another place for the file".to_owned(),
        DownloadError::Busy { .. } => "wait for the other process, or stop it".to_owned(),
        DownloadError::Exists { .. } | DownloadError::NotAFile { .. } => {
            "move it away, or name another place with `--dir`".to_owned()
        }
        DownloadError::Unreachable { .. } => format!(
            "is there a connection? HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror; {again}"
        ),
        DownloadError::Wait { .. } => format!("run the command later; {again}"),
        DownloadError::Denied { .. } => {
            "set HF_TOKEN to a token that may read this repository".to_owned()
        }
        DownloadError::NotFound { .. } => {
            "check the name; if HF_ENDPOINT is set, the mirror may lack the file".to_owned()
        }
        DownloadError::Tls { .. } => {
            "is the clock right? A proxy that looks into connections needs its certificate in the \
             system's store or in SSL_CERT_FILE"
                .to_owned()
        }
        DownloadError::Length { .. } | DownloadError::Republished { .. } => {
            "a newer ds4 may know the new file; `ds4 download OWNER/REPOSITORY:FILE.gguf` takes \
             what is there now"
                .to_owned()
        }
        DownloadError::NoHash { .. } => {
            "only files that the hub keeps in its large file storage can be verified".to_owned()
        }
        DownloadError::WrongHash { .. } if verified => {
            "the file is damaged or another one: move it away and download it again".to_owned()
        }
        DownloadError::WrongHash { .. } => "it was removed; run the command again. If it happens \
                                            twice, a mirror or proxy alters the file"
            .to_owned(),
        DownloadError::Endpoint { .. } => "correct HF_ENDPOINT, or unset it".to_owned(),
        DownloadError::Proxy => "correct HTTPS_PROXY or ALL_PROXY".to_owned(),
        DownloadError::Token => "correct HF_TOKEN".to_owned(),
        _ => format!("try again later, or name a mirror with HF_ENDPOINT; {again}"),
    };
    let error = match error {
        DownloadError::DiskSpace {
            directory,
            needed,
            free,
            missing,
        } => anyhow!(
            "{}: {} are missing: the download takes {} more, {} are free",
            directory.display(),
            bytes(missing),
            bytes(needed),
            bytes(free)
        ),
        DownloadError::DiskFull { path, missing } => anyhow!(
            "{}: the disk is full; {} of the file are missing",
            path.display(),
            bytes(missing)
        ),
        error => anyhow!(visible(&error.to_string())),
    };
    match Err::<(), _>(error).hint(|| hint) {
        Err(error) => error,
        Ok(()) => anyhow!("the download failed"),
    }
}
