//! Settings of the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::observe::RequestLog;

/// How the server listens and whom it serves.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where it listens; loopback by default.
    pub address: SocketAddr,
    /// Keys of which a request must show one; none for no check.
    pub api_keys: Vec<String>,
    /// Names by which the server may be called besides those of the loopback and its own address:
    /// a page on another site cannot reach it under a name of its own (DNS rebinding).
    pub allowed_hosts: Vec<String>,
    /// Sites whose pages may call the server; `*` for all. None by default.
    pub allowed_origins: Vec<String>,
    /// Names of the model besides its own.
    pub aliases: Vec<String>,
    /// Longest body of a request, in bytes.
    pub max_body: usize,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Longest time for the head of a request, and for its body.
    pub read_timeout: Duration,
    /// Longest time that a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// Longest silence of a stream.
    pub keep_alive: Duration,
    /// How long running requests may go on after the server was told to stop.
    pub grace: Duration,
    /// Gets a report of each request when it is over.
    pub log: Option<RequestLog>,
    /// A file, or a directory for a file for each request, that gets everything that goes in and out,
    /// the prompts and what the model said; keys are redacted.
    pub trace: Option<PathBuf>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8000)),
            api_keys: Vec::new(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            aliases: Vec::new(),
            max_body: 64 << 20,
            max_connections: 1024,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(120),
            keep_alive: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            log: None,
            trace: None,
        }
    }
}
