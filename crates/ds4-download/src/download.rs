//! A download from the first question to the finished file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::client::{Client, Failure, Remote};
use crate::digest::{Sha256Hash, hash_file};
use crate::error::{DownloadError, io};
use crate::part_file::{PartFile, sync_directory};
use crate::settings::Settings;
use crate::source::Source;
use crate::state::{Identity, State, peek};
use crate::transfer::{self, Outcome, Transfer, next_wait, sleep};

/// A file that changed so often while it was downloaded is given up.
const MOST_RESTARTS: usize = 3;

/// What a download is doing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// It asks the server for the file.
    Asking {
        /// URL of the file.
        url: &'a str,
    },
    /// What an earlier run left is of no use.
    StartingOver {
        /// Why.
        reason: &'static str,
        /// Bytes that are thrown away.
        discarded: u64,
    },
    /// The transfer begins.
    Started {
        /// Bytes that are there from an earlier run.
        resumed: u64,
        /// Size of the file.
        total: u64,
    },
    /// Bytes arrive.
    Transferring {
        /// Bytes that have arrived, in earlier runs too.
        arrived: u64,
        /// Size of the file.
        total: u64,
    },
    /// Something failed and will be tried again.
    Retrying {
        /// What failed.
        reason: &'a str,
        /// When it will be tried again.
        wait: Duration,
    },
    /// Everything has arrived, and the rest is hashed.
    Verifying {
        /// Bytes hashed.
        done: u64,
        /// Size of the file.
        total: u64,
    },
}

/// A finished download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub length: u64,
    /// Bytes that were there from an earlier run; all of them if there was nothing to do.
    pub resumed: u64,
    /// Its SHA-256. A file that was there already was not read; then this is what it should have, if known.
    pub sha256: Option<Sha256Hash>,
    /// Whether the file was there already.
    pub was_there: bool,
}

/// What is on disk of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Missing,
    /// A part of it.
    Unfinished {
        /// Bytes that have arrived.
        arrived: u64,
        /// Bytes that it will have.
        length: u64,
    },
    /// A file of its name and size, or of any size if that is not known.
    Complete {
        /// Its size in bytes.
        length: u64,
    },
    /// Something else has its name.
    InTheWay,
}

/// The unfinished file beside `target`.
pub fn part_path(target: &Path) -> PathBuf {
    with_ending(target, ".part")
}

/// The file that says what has arrived of the unfinished file beside `target`.
pub fn state_path(target: &Path) -> PathBuf {
    with_ending(target, ".part.state")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// What is in `directory` of a file. Asks nobody else.
pub fn presence(source: &Source, directory: &Path) -> Presence {
    let target = directory.join(source.local_name());
    match existing(&target, source.length) {
        Ok(Some(length)) => Presence::Complete { length },
        Err(_) => Presence::InTheWay,
        Ok(None) => match peek(&state_path(&target)) {
            Some((identity, arrived)) => Presence::Unfinished {
                arrived,
                length: identity.length,
            },
            None => Presence::Missing,
        },
    }
}

/// The size of the file at `target`, which must be `expected` if that is known.
fn existing(target: &Path, expected: Option<u64>) -> Result<Option<u64>, DownloadError> {
    let not_a_file = |kind| DownloadError::NotAFile {
        path: target.to_owned(),
        kind,
    };
    let metadata = match target.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match target.symlink_metadata() {
                Ok(_) => Err(not_a_file("a symbolic link that leads nowhere")),
                Err(_) => Ok(None),
            };
        }
        Err(error) => return Err(io(target, "look at")(error)),
    };
    if !metadata.is_file() {
        return Err(not_a_file(if metadata.is_dir() {
            "a directory"
        } else {
            "a special file"
        }));
    }
    match expected {
        Some(expected) if expected != metadata.len() => Err(DownloadError::Exists {
            path: target.to_owned(),
            found: metadata.len(),
            expected,
        }),
        _ => Ok(Some(metadata.len())),
    }
}

/// Brings a published file to `directory`, which is created if need be.
///
/// Bytes go to `FILE.part`, with `FILE.part.state` beside it; the file gets its name when its SHA-256 is right. A
/// run that was killed loses what it had not synced, at most [`Settings::range_bytes`] for each connection; the
/// next one goes on from there. A file of the right size that is there already is left alone and not read.
///
/// # Errors
///
/// Everything in [`DownloadError`]. What has arrived stays on disk, unless its hash is wrong or the file on the
/// server is another one now.
pub fn download(
    source: &Source,
    directory: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Summary, DownloadError> {
    source.check().map_err(|problem| DownloadError::Source {
        text: source.to_string(),
        problem,
    })?;
    let target = directory.join(source.local_name());
    let there = |length| Summary {
        path: target.clone(),
        length,
        resumed: length,
        sha256: source.sha256,
        was_there: true,
    };
    if let Some(length) = existing(&target, source.length)? {
        // A run that was killed between renaming and tidying up leaves its state.
        if !part_path(&target).exists() {
            let _ = fs::remove_file(state_path(&target));
        }
        return Ok(there(length));
    }
    let client = Arc::new(Client::new(source, settings)?);
    fs::create_dir_all(directory).map_err(io(directory, "create directory"))?;
    let state = State::open(&state_path(&target), &target)?;
    // Whoever held the lock before may have finished it.
    if let Some(length) = existing(&target, source.length)? {
        state.remove()?;
        return Ok(there(length));
    }
    let part = match PartFile::open(&part_path(&target)) {
        Ok(part) => Arc::new(part),
        Err(error) => {
            state.remove()?;
            return Err(error);
        }
    };
    let mut unfinished = Unfinished {
        target,
        part,
        state: Some(state),
    };
    let result = unfinished.finish(source, &client, settings, cancel, progress);
    if result.is_err() {
        unfinished.tidy();
    }
    result
}

/// Reads a file that is there already and compares its SHA-256 with the published one, which is asked for if it
/// is not known beforehand.
///
/// # Errors
///
/// The file is missing or cannot be read, its hash is wrong, or the hub does not state one. The file stays as it is.
pub fn verify(
    source: &Source,
    directory: &Path,
    settings: &Settings,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Sha256Hash, DownloadError> {
    let target = directory.join(source.local_name());
    let Some(total) = existing(&target, source.length)? else {
        return Err(io(&target, "open")(ErrorKind::NotFound.into()));
    };
    let expected = match source.sha256 {
        Some(hash) => hash,
        None => {
            let client = Arc::new(Client::new(source, settings)?);
            check(source, &ask(&client, settings, cancel, progress)?, &client)?
        }
    };
    let found = hash_file(&target, cancel, &mut |done| {
        progress(Progress::Verifying { done, total });
    })?;
    if found != expected {
        return Err(DownloadError::WrongHash {
            path: target,
            found,
            expected,
        });
    }
    Ok(found)
}

/// A download under way.
struct Unfinished {
    target: PathBuf,
    part: Arc<PartFile>,
    /// `None` once it is removed.
    state: Option<State>,
}

impl Unfinished {
    /// Transfers, verifies, and gives the file its name.
    fn finish(
        &mut self,
        source: &Source,
        client: &Arc<Client>,
        settings: &Settings,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Summary, DownloadError> {
        for _ in 0..=MOST_RESTARTS {
            let remote = ask(client, settings, cancel, progress)?;
            let expected = check(source, &remote, client)?;
            let resumed = self.prepare(&remote, &expected, progress)?;
            progress(Progress::Started {
                resumed,
                total: remote.length,
            });
            let length = remote.length;
            let Some(state) = self.state.take() else {
                break;
            };
            let transfer = Transfer {
                client: Arc::clone(client),
                remote,
                part: Arc::clone(&self.part),
                state,
            };
            let (state, outcome) = transfer::run(transfer, settings, cancel, progress);
            self.state = state;
            match outcome {
                Outcome::Changed => {}
                Outcome::Failed(error) => return Err(error),
                Outcome::Complete(found) if found != expected => {
                    self.discard()?;
                    return Err(DownloadError::WrongHash {
                        path: self.target.clone(),
                        found,
                        expected,
                    });
                }
                Outcome::Complete(found) => {
                    // Not over something that was put there meanwhile.
                    existing(&self.target, Some(length))?;
                    self.part.rename(&self.target)?;
                    if let Some(state) = self.state.take() {
                        state.remove()?;
                    }
                    return Ok(Summary {
                        path: self.target.clone(),
                        length,
                        resumed,
                        sha256: Some(found),
                        was_there: false,
                    });
                }
            }
        }
        Err(DownloadError::Changing { url: client.url() })
    }

    /// Decides whether to go on or to start over, and reserves the space; how much is there already.
    fn prepare(
        &mut self,
        remote: &Remote,
        sha256: &Sha256Hash,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<u64, DownloadError> {
        let identity = Identity {
            length: remote.length,
            sha256: sha256.to_string(),
            etag: remote.etag.clone(),
        };
        let Some(state) = self.state.as_mut() else {
            return Ok(0);
        };
        let reason = match state.identity() {
            _ if self.part.length()? != remote.length => Some("the unfinished file is not whole"),
            None => Some("nobody noted what has arrived"),
            Some(old) if old.sha256 != identity.sha256 => {
                Some("the published file is another one now")
            }
            Some(old) if old.length != identity.length => {
                Some("the file on the server has another size now")
            }
            Some(old) if old.etag != identity.etag => Some("the entity tag on the server changed"),
            Some(_) => None,
        };
        if let Some(reason) = reason {
            let discarded = state.finished().total();
            if discarded > 0 {
                progress(Progress::StartingOver { reason, discarded });
            }
            // First the claim, then what it is about.
            state.reset(identity)?;
            self.part.clear()?;
        }
        self.part.reserve(remote.length)?;
        sync_directory(self.target.parent().unwrap_or(Path::new(".")))?;
        Ok(state.finished().total())
    }

    /// Removes the unfinished file; the state, which says it is worth something, goes first.
    fn discard(&mut self) -> Result<(), DownloadError> {
        if let Some(state) = self.state.take() {
            state.remove()?;
        }
        self.part.remove()
    }

    /// After a failure: leaves nothing behind if nothing has arrived.
    fn tidy(&mut self) {
        let is_empty = |state: &State| state.finished().is_empty();
        if self.state.as_ref().is_some_and(is_empty) {
            let _ = self.discard();
        }
    }
}

/// Compares what the server says with what is known; the hash that the file must have.
fn check(source: &Source, remote: &Remote, client: &Client) -> Result<Sha256Hash, DownloadError> {
    if let Some(expected) = source.length
        && expected != remote.length
    {
        return Err(DownloadError::Length {
            url: client.url(),
            found: remote.length,
            expected,
        });
    }
    match (source.sha256, remote.sha256) {
        (Some(expected), Some(found)) if found != expected => Err(DownloadError::Republished {
            url: client.url(),
            found,
            expected,
        }),
        (Some(hash), _) | (None, Some(hash)) => Ok(hash),
        (None, None) => Err(DownloadError::NoHash { url: client.url() }),
    }
}

/// Asks where the file is, as often as the policy allows, on a thread that can be left behind.
fn ask(
    client: &Arc<Client>,
    settings: &Settings,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Remote, DownloadError> {
    enum Event {
        Retrying(String, Duration),
        Answer(Result<Remote, DownloadError>),
    }
    progress(Progress::Asking { url: &client.url() });
    let (events, inbox) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (client, policy, stopped) = (Arc::clone(client), settings.retry, Arc::clone(&stop));
    thread::spawn(move || {
        let mut backoff = Backoff::new(policy);
        let answer = loop {
            let (reason, asked) = match client.probe() {
                Ok(remote) => break Ok(remote),
                Err(Failure::Lasting(error)) => break Err(error),
                Err(Failure::Passing { reason, wait }) => (reason, wait),
                Err(Failure::Stale { reason }) => (reason, None),
            };
            match next_wait(&mut backoff, asked, &client.url(), &reason) {
                Ok(wait) => {
                    let _ = events.send(Event::Retrying(reason, wait));
                    sleep(wait, &stopped);
                }
                Err(error) => break Err(error),
            }
            if stopped.load(Ordering::Relaxed) {
                break Err(DownloadError::Cancelled);
            }
        };
        let _ = events.send(Event::Answer(answer));
    });
    loop {
        match inbox.recv_timeout(Duration::from_millis(50)) {
            Ok(Event::Retrying(reason, wait)) => progress(Progress::Retrying {
                reason: &reason,
                wait,
            }),
            Ok(Event::Answer(answer)) => return answer,
            Err(RecvTimeoutError::Timeout) => {}
            // The thread cannot end without an answer but by a panic.
            Err(RecvTimeoutError::Disconnected) => return Err(DownloadError::Cancelled),
        }
        if cancel.load(Ordering::Relaxed) {
            stop.store(true, Ordering::Relaxed);
            return Err(DownloadError::Cancelled);
        }
    }
}
