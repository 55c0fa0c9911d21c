//! Traces: what clients sent, what the model saw and said, what clients got; on demand.
//!
//! A trace is JSON lines. Keys do not get into it: headers that may hold one are redacted, and so is
//! the text of the server's own keys wherever it stands.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use super::metrics::Metrics;
use super::timestamp::timestamp;

const REDACTED: &str = "[redacted]";
/// Parts of the names of headers whose values are not for others to see.
const SECRET_NAMES: [&str; 6] = ["auth", "key", "cookie", "token", "secret", "session"];
/// Shorter keys are found in ordinary words.
const SHORTEST_KEY: usize = 6;

/// Where traces go.
#[derive(Debug)]
pub(crate) struct Trace {
    place: Place,
    keys: Vec<String>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
enum Place {
    /// All requests in one file.
    File(Arc<Mutex<File>>),
    /// A file for each request.
    Directory(PathBuf),
}

impl Trace {
    /// Traces to `path`: a file for each request if it is a directory, else all in one file, at
    /// whose end they go.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(path: &Path, keys: &[String], metrics: Arc<Metrics>) -> io::Result<Self> {
        let place = if path.is_dir() {
            Place::Directory(path.to_owned())
        } else {
            Place::File(Arc::new(Mutex::new(private_file(path)?)))
        };
        Ok(Self {
            place,
            keys: keys.to_vec(),
            metrics,
        })
    }

    /// The trace of a request.
    pub(crate) fn request(self: &Arc<Self>, id: &str, time: SystemTime) -> Option<RequestTrace> {
        let file = match &self.place {
            Place::File(file) => Arc::clone(file),
            Place::Directory(directory) => {
                // Colons are no part of file names everywhere.
                let name = format!("{}-{id}.jsonl", timestamp(time).replace(':', ""));
                match private_file(&directory.join(name)) {
                    Ok(file) => Arc::new(Mutex::new(file)),
                    Err(_) => {
                        self.failed();
                        return None;
                    }
                }
            }
        };
        Some(RequestTrace {
            id: id.to_owned(),
            file,
            trace: Arc::clone(self),
        })
    }

    fn failed(&self) {
        self.metrics.trace_errors.fetch_add(1, Ordering::Relaxed);
    }

    fn redact(&self, mut line: String) -> String {
        for key in self.keys.iter().filter(|key| key.len() >= SHORTEST_KEY) {
            if line.contains(key.as_str()) {
                line = line.replace(key.as_str(), REDACTED);
            }
        }
        line
    }
}

/// Opens a file that nobody else may read, to write at its end.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let file = options.mode(0o600).open(path)?;
        // It may have been there with other rights. Devices and pipes keep theirs.
        if file.metadata()?.is_file() {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

/// The trace of one request.
#[derive(Debug)]
pub(crate) struct RequestTrace {
    id: String,
    file: Arc<Mutex<File>>,
    trace: Arc<Trace>,
}

impl RequestTrace {
    /// Writes a line of this kind. To the page cache, which does not wait for the disk.
    pub(crate) fn write(&self, kind: &str, fields: Map<String, Value>) {
        let mut line = Map::new();
        line.insert("time".to_owned(), timestamp(SystemTime::now()).into());
        line.insert("id".to_owned(), self.id.as_str().into());
        line.insert("kind".to_owned(), kind.into());
        line.extend(fields);
        let mut line = self.trace.redact(Value::Object(line).to_string());
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.write_all(line.as_bytes()).is_err() {
            self.trace.failed();
        }
    }

    /// The head of the request.
    pub(crate) fn head(&self, method: &str, uri: &str, headers: &HeaderMap) {
        let headers: Map<String, Value> = headers
            .iter()
            .map(|(name, value)| {
                let name = name.as_str();
                let secret = SECRET_NAMES.iter().any(|part| name.contains(part));
                let value = if secret {
                    REDACTED.into()
                } else {
                    String::from_utf8_lossy(value.as_bytes())
                };
                (name.to_owned(), Value::from(value))
            })
            .collect();
        self.write(
            "request",
            fields(json!({"method": method, "uri": uri, "headers": headers})),
        );
    }
}

/// The fields of an object.
pub(crate) fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(map) => map,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}
