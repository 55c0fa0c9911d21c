//! How to download.

use std::fmt;
use std::time::Duration;

/// Settings of a download. The caller takes them from options and the environment.
#[derive(Clone)]
pub struct Settings {
    /// URL of the hub.
    pub endpoint: String,
    /// Access token, sent to the endpoint and to nobody else.
    pub token: Option<String>,
    /// Proxy for all connections.
    pub proxy: Option<Proxy>,
    /// Certificates (DER) that servers are trusted by; none for those of Mozilla.
    pub root_certificates: Vec<Vec<u8>>,
    /// Connections at a time.
    pub connections: usize,
    /// Bytes asked for at a time: what a kill can lose for each connection.
    pub range_bytes: u64,
    /// Longest time to set up a connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub read_timeout: Duration,
    /// What to do about failures that may pass.
    pub retry: RetryPolicy,
}

/// A proxy.
#[derive(Clone)]
pub struct Proxy {
    /// `http://`, `https://`, `socks4://`, `socks5://` or `socks5h://`, perhaps with user and password.
    pub url: String,
    /// Hosts that are reached without it: names, `.domain` or `*`, separated by commas.
    pub except: String,
}

/// Exponential back-off with jitter.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Attempts without progress before giving up.
    pub attempts: u32,
    /// Wait after the first failure; doubled after each further one.
    pub first_wait: Duration,
    /// Longest wait that grows out of doubling.
    pub longest_wait: Duration,
    /// Longest wait that a server may ask for (`Retry-After`).
    pub longest_asked: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            proxy: None,
            root_certificates: Vec::new(),
            connections: 8,
            range_bytes: 16 << 20,
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
        }
    }
}

impl Default for RetryPolicy {
    /// Eight attempts within about two minutes.
    fn default() -> Self {
        Self {
            attempts: 8,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            longest_asked: Duration::from_secs(600),
        }
    }
}

impl fmt::Debug for Settings {
    /// Without token and proxy, which are secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("has_token", &self.token.is_some())
            .field("has_proxy", &self.proxy.is_some())
            .field("connections", &self.connections)
            .field("range_bytes", &self.range_bytes)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Proxy {
    /// Without the URL, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Proxy").finish_non_exhaustive()
    }
}
