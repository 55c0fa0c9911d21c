//! Requests: which server has the file, what it says about it, and the bytes of a range.

use std::io::{self, Read};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Timeout};

use crate::backoff::retry_after;
use crate::digest::Sha256Hash;
use crate::error::DownloadError;
use crate::location::Location;
use crate::settings::{Proxy, Settings};
use crate::source::Source;

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 8;

/// Asks for one file.
pub(crate) struct Client {
    agent: Agent,
    start: Location,
    token: Option<String>,
    read_timeout: Duration,
}

/// What the server says about the file.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// Where the bytes are, behind all redirects.
    location: Location,
    /// Entity tag of the responses there.
    range_etag: Option<String>,
    /// Whether ranges can be asked for.
    pub(crate) has_ranges: bool,
    /// Size in bytes.
    pub(crate) length: u64,
    /// Entity tag of the file: the hub's, or that of the responses.
    pub(crate) etag: Option<String>,
    /// SHA-256, as the hub states it.
    pub(crate) sha256: Option<Sha256Hash>,
}

/// Why a request did not give what was wanted.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may work later.
    Passing {
        reason: String,
        /// What the server wants to have waited.
        wait: Option<Duration>,
    },
    /// The place or the file behind it is not what it was; look again.
    Stale { reason: String },
    /// It will not work.
    Lasting(DownloadError),
}

/// Bytes on their way.
pub(crate) struct Incoming {
    /// They begin at the position that was asked for.
    pub(crate) reader: Box<dyn Read + Send>,
    /// Position behind the last of them.
    pub(crate) end: u64,
}

impl Client {
    /// A client for one file.
    pub(crate) fn new(source: &Source, settings: &Settings) -> Result<Self, DownloadError> {
        let visible = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        if !settings.token.iter().all(visible) {
            return Err(DownloadError::Token);
        }
        let proxy = settings.proxy.as_ref().map(proxy).transpose()?;
        let roots = if settings.root_certificates.is_empty() {
            RootCerts::WebPki
        } else {
            let owned = |der: &Vec<u8>| Certificate::from_der(der).to_owned();
            settings.root_certificates.iter().map(owned).into()
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, to see the hub's headers and to keep the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("ds4/", env!("CARGO_PKG_VERSION")))
            // Lengths and positions are those of the file only if nobody packs it on the way.
            .accept_encoding("identity")
            .max_idle_connections_per_host(settings.connections)
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_recv_response(Some(settings.read_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .timeout_per_write(Some(settings.read_timeout))
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            start: Location::of_endpoint(&settings.endpoint, &source.url_path())?,
            token: settings.token.clone(),
            read_timeout: settings.read_timeout,
        })
    }

    /// The URL of the file, for messages.
    pub(crate) fn url(&self) -> String {
        self.start.shown()
    }

    /// Finds the file: follows redirects and asks for its first byte.
    pub(crate) fn probe(&self) -> Result<Remote, Failure> {
        let mut at = self.start.clone();
        let mut linked_etag = None;
        let mut linked_length = None;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.get(&at, Some(0..1))?;
            let headers = response.headers();
            // Only the hub knows what it links to.
            if at.same_origin(&self.start) {
                linked_etag = header(headers, "x-linked-etag").or(linked_etag);
                linked_length = number(headers, "x-linked-size").or(linked_length);
            }
            let (length, has_ranges) = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => {
                    at = self.follow(&at, headers)?;
                    continue;
                }
                206 => match content_range(headers) {
                    Some((Some(Range { start: 0, end: 1 }), Some(length))) => (length, true),
                    _ => {
                        return Err(protocol(
                            &at,
                            "the range of the answer is not the one asked for",
                        ));
                    }
                },
                200 => match number(headers, "content-length").or(linked_length) {
                    Some(length) => (length, false),
                    None => return Err(protocol(&at, "the server does not state the size")),
                },
                416 if matches!(content_range(headers), Some((None, Some(0)))) => (0, true),
                416 => {
                    return Err(Failure::Passing {
                        reason: "the server does not have the first byte".to_owned(),
                        wait: None,
                    });
                }
                _ => return Err(self.refusal(&at, &response)),
            };
            if length == 0 {
                return Err(protocol(&at, "the file on the server is empty"));
            }
            if linked_length.is_some_and(|linked| linked != length) {
                let linked = linked_length.unwrap_or(0);
                return Err(protocol(
                    &at,
                    &format!("the hub states {linked} bytes, the server of the file {length}"),
                ));
            }
            let range_etag = header(headers, "etag");
            let hash = |etag: &String| etag.trim_start_matches("W/").trim_matches('"').parse().ok();
            return Ok(Remote {
                location: at,
                has_ranges,
                length,
                sha256: linked_etag.as_ref().and_then(hash),
                etag: linked_etag.or_else(|| range_etag.clone()),
                range_etag,
            });
        }
        Err(protocol(&self.start, "the server redirects in circles"))
    }

    fn follow(&self, at: &Location, headers: &HeaderMap) -> Result<Location, Failure> {
        let Some(target) = header(headers, "location") else {
            return Err(protocol(at, "the server redirects to nowhere"));
        };
        at.redirect(&target)
            .map_err(|problem| protocol(at, &format!("the server redirects wrongly: {problem}")))
    }

    /// Asks for a range. The server may give less of it, beginning with its start.
    pub(crate) fn open(&self, remote: &Remote, range: &Range<u64>) -> Result<Incoming, Failure> {
        let at = &remote.location;
        let asked = remote.has_ranges.then(|| range.clone());
        let response = self.get(at, asked)?;
        let headers = response.headers();
        let status = response.status().as_u16();
        let stale = |reason: &str| {
            Err(Failure::Stale {
                reason: reason.to_owned(),
            })
        };
        match status {
            200 | 206 if header(headers, "content-encoding").is_some_and(|it| it != "identity") => {
                return Err(protocol(at, "the server packs the file on the way"));
            }
            200 if remote.has_ranges => {
                return stale("the server ignores that a range was asked for");
            }
            200 | 206 => {}
            300..=399 => return stale("the server redirects again"),
            416 => return stale("the server does not have the range"),
            _ => return Err(self.refusal(at, &response)),
        }
        if let (Some(before), Some(now)) = (&remote.range_etag, header(headers, "etag"))
            && *before != now
        {
            return stale("the entity tag changed");
        }
        if !remote.has_ranges {
            if response
                .body()
                .content_length()
                .is_some_and(|length| length != remote.length)
            {
                return stale("the size changed");
            }
            let mut reader = response.into_body().into_reader();
            skip(&mut reader, range.start).map_err(|error| self.reading(&error))?;
            return Ok(Incoming {
                reader: Box::new(reader),
                end: remote.length,
            });
        }
        let end = match content_range(headers) {
            Some((Some(_), Some(length))) if length != remote.length => {
                return stale("the size changed");
            }
            Some((Some(given), _)) if given.start == range.start && given.end <= range.end => {
                given.end
            }
            _ => {
                return Err(Failure::Passing {
                    reason: "the range of the answer is not the one asked for".to_owned(),
                    wait: None,
                });
            }
        };
        Ok(Incoming {
            reader: Box::new(response.into_body().into_reader()),
            end,
        })
    }

    fn get(&self, at: &Location, range: Option<Range<u64>>) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(at.uri().clone());
        if let Some(range) = range {
            let last = range.end.saturating_sub(1);
            request = request.header("Range", format!("bytes={}-{last}", range.start));
        }
        if let Some(token) = &self.token
            && at.same_origin(&self.start)
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request
            .call()
            .map_err(|error| self.request_failed(at, error))
    }

    /// What a status that is no success means.
    fn refusal(&self, at: &Location, response: &Response<Body>) -> Failure {
        let status = response.status().as_u16();
        let url = at.shown();
        let elsewhere = !at.same_origin(&self.start);
        match status {
            // Signed URLs expire.
            401 | 403 | 404 | 410 if elsewhere => Failure::Stale {
                reason: format!("the server of the file answers {status}"),
            },
            401 | 403 => Failure::Lasting(DownloadError::Denied { url, status }),
            404 | 410 => Failure::Lasting(DownloadError::NotFound { url, status }),
            408 | 425 | 429 | 500..=599 => Failure::Passing {
                reason: format!("the server answers {}", response.status()),
                wait: header(response.headers(), "retry-after")
                    .and_then(|value| retry_after(&value, SystemTime::now())),
            },
            _ => protocol(at, &format!("the server answers {}", response.status())),
        }
    }

    fn request_failed(&self, at: &Location, error: ureq::Error) -> Failure {
        let tls = |problem: String| {
            Failure::Lasting(DownloadError::Tls {
                url: at.shown(),
                problem,
            })
        };
        match error {
            ureq::Error::Tls(problem) => tls(problem.to_owned()),
            ureq::Error::Rustls(problem) => tls(problem.to_string()),
            // rustls reports certificates so.
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                tls(error.to_string())
            }
            ureq::Error::InvalidProxyUrl => Failure::Lasting(DownloadError::Proxy),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => protocol(at, &error.to_string()),
            error => self.reading(&error.into_io()),
        }
    }

    /// A connection that broke.
    pub(crate) fn reading(&self, error: &io::Error) -> Failure {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<ureq::Error>());
        let reason = match inner {
            Some(ureq::Error::Timeout(Timeout::PerRead | Timeout::RecvResponse)) => {
                format!(
                    "nothing arrived for {} seconds",
                    self.read_timeout.as_secs_f32()
                )
            }
            Some(ureq::Error::Timeout(_)) => "the connection takes too long".to_owned(),
            Some(ureq::Error::HostNotFound) => "the host is not found".to_owned(),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the connection ended early".to_owned()
            }
            _ => error.to_string(),
        };
        Failure::Passing { reason, wait: None }
    }
}

fn proxy(proxy: &Proxy) -> Result<ureq::Proxy, DownloadError> {
    let parsed = ureq::Proxy::new(&proxy.url).map_err(|_| DownloadError::Proxy)?;
    let mut builder = ureq::Proxy::builder(parsed.protocol())
        .host(parsed.host())
        .port(parsed.port());
    if let Some(username) = parsed.username() {
        builder = builder.username(username);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for host in proxy.except.split(',').map(str::trim) {
        if !host.is_empty() {
            builder = builder.no_proxy(host);
        }
    }
    builder.build().map_err(|_| DownloadError::Proxy)
}

fn protocol(at: &Location, problem: &str) -> Failure {
    Failure::Lasting(DownloadError::Protocol {
        url: at.shown(),
        problem: problem.to_owned(),
    })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    header(headers, name)?.parse().ok()
}

/// The `Content-Range`: `bytes FIRST-LAST/SIZE`, where range or size may be unknown (RFC 9110, section 14.4).
fn content_range(headers: &HeaderMap) -> Option<(Option<Range<u64>>, Option<u64>)> {
    let value = header(headers, "content-range")?;
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let size = match size {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    if range == "*" {
        return Some((None, size));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1)?;
    (first < end && size.is_none_or(|size| end <= size)).then_some((Some(first..end), size))
}

/// Reads on until the position is reached.
fn skip(reader: &mut impl Read, count: u64) -> io::Result<()> {
    let skipped = io::copy(&mut reader.take(count), &mut io::sink())?;
    if skipped < count {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ureq::http::HeaderValue;

    use super::*;

    #[test]
    fn content_ranges_are_whole_or_nothing() {
        let parse = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-range", HeaderValue::from_static(value));
            content_range(&headers)
        };
        assert_eq!(parse("bytes 0-0/10"), Some((Some(0..1), Some(10))));
        assert_eq!(parse("bytes 5-9/*"), Some((Some(5..10), None)));
        assert_eq!(parse("bytes */0"), Some((None, Some(0))));
        for wrong in [
            "0-0/10",
            "bytes 0-0",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes -5/10",
            "bytes a-b/c",
            "bytes 0-18446744073709551615/*",
            "items 0-1/2",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
