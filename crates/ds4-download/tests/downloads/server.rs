//! A server on the loopback interface that behaves as badly as a test wants.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test program uses another part of it, and a test may panic"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Counted from 0 over the server's life.
    pub(crate) number: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The range that is asked for.
    pub(crate) fn range(&self) -> Option<Range<usize>> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
    }

    /// Whether this only asks where the file is, and how long.
    pub(crate) fn is_probe(&self) -> bool {
        self.range() == Some(0..1)
    }
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The `Content-Length`, if it is a lie.
    pub(crate) stated_length: Option<usize>,
    /// Body bytes after which the connection is closed.
    pub(crate) cut_after: Option<usize>,
    /// Body bytes after which nothing comes for that long.
    pub(crate) stall: Option<(usize, Duration)>,
    /// Body bytes per millisecond.
    pub(crate) speed: Option<usize>,
    /// Send the body in chunks, without a length.
    pub(crate) chunked: bool,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers
            .retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// What a good server answers for a file with this entity tag.
    pub(crate) fn file(content: &[u8], etag: &str, request: &Request) -> Self {
        let length = content.len();
        let reply = match request.range() {
            None => Self {
                body: content.to_vec(),
                ..Self::status(200)
            },
            Some(range) if range.start < length => {
                let range = range.start..range.end.min(length);
                let stated = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                Self {
                    body: content[range].to_vec(),
                    ..Self::status(206)
                }
                .with("Content-Range", stated)
            }
            Some(_) => Self::status(416).with("Content-Range", format!("bytes */{length}")),
        };
        reply.with("ETag", format!("\"{etag}\""))
    }
}

/// A server. It ends with the value.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            sent: Arc::default(),
            stop: Arc::default(),
        };
        let (requests, sent) = (Arc::clone(&server.requests), Arc::clone(&server.sent));
        let stop = Arc::clone(&server.stop);
        let answer = Arc::new(answer);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let (requests, sent) = (Arc::clone(&requests), Arc::clone(&sent));
                let (answer, stop) = (Arc::clone(&answer), Arc::clone(&stop));
                thread::spawn(move || serve(stream, &requests, &sent, &stop, &*answer));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that was asked for.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Body bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(
    stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    sent: &AtomicU64,
    stop: &AtomicBool,
    answer: &dyn Fn(&Request) -> Reply,
) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(20)));
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    while !stop.load(Ordering::Relaxed) {
        let Some(mut request) = read_request(&mut reader) else {
            return;
        };
        {
            let mut requests = requests.lock().unwrap();
            request.number = requests.len();
            requests.push(request.clone());
        }
        let reply = answer(&request);
        if !write_reply(&mut writer, &reply, sent, stop) {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || lines.len() > 100 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut first = lines.first()?.split(' ');
    let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
    Some(Request {
        number: 0,
        method: first.next()?.to_owned(),
        target: first.next()?.to_owned(),
        headers: headers
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect(),
    })
}

/// Whether the connection can be used again.
fn write_reply(stream: &mut TcpStream, reply: &Reply, sent: &AtomicU64, stop: &AtomicBool) -> bool {
    let mut head = format!("HTTP/1.1 {} Test\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else {
        let length = reply.stated_length.unwrap_or(reply.body.len());
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head.push_str("\r\n");
    if stream.write_all(head.as_bytes()).is_err() {
        return false;
    }
    let end = reply.cut_after.unwrap_or(usize::MAX).min(reply.body.len());
    let mut at = 0;
    while at < end {
        let mut next = end.min(at + 8192);
        if let Some((position, time)) = reply.stall {
            if at == position {
                let mut left = time;
                while !left.is_zero() && !stop.load(Ordering::Relaxed) {
                    let nap = left.min(Duration::from_millis(20));
                    thread::sleep(nap);
                    left -= nap;
                }
            } else if at < position {
                next = next.min(position);
            }
        }
        if let Some(speed) = reply.speed {
            thread::sleep(Duration::from_millis(((next - at) / speed) as u64));
        }
        let piece = &reply.body[at..next];
        let written = if reply.chunked {
            write!(stream, "{:x}\r\n", piece.len())
                .and_then(|()| stream.write_all(piece))
                .and_then(|()| stream.write_all(b"\r\n"))
        } else {
            stream.write_all(piece)
        };
        if written.is_err() || stop.load(Ordering::Relaxed) {
            return false;
        }
        sent.fetch_add((next - at) as u64, Ordering::Relaxed);
        at = next;
    }
    if reply.chunked && stream.write_all(b"0\r\n\r\n").is_err() {
        return false;
    }
    end == reply.body.len() && reply.stated_length.is_none_or(|length| length == end)
}

/// Bytes without a pattern.
pub(crate) fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
