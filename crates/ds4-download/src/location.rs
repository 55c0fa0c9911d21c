//! URLs: where a request goes, where a redirect leads, and who may see the token.

use std::fmt;

use ureq::http::Uri;
use ureq::http::uri::PathAndQuery;

use crate::error::DownloadError;

/// An absolute `http` or `https` URL.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Location(Uri);

impl Location {
    /// Parses an absolute URL; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "this is no URL")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("expected a URL that begins with https:// or http://");
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err("the URL names no host");
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err("a user or password in the URL is not supported");
        }
        Ok(Self(uri))
    }

    /// The hub's URL with a path below it.
    pub(crate) fn of_endpoint(endpoint: &str, path: &str) -> Result<Self, DownloadError> {
        let wrong = |problem| DownloadError::Endpoint {
            endpoint: endpoint.to_owned(),
            problem,
        };
        let base = Self::parse(endpoint).map_err(wrong)?;
        if base.0.query().is_some() {
            return Err(wrong("the URL must not have a query"));
        }
        Self::parse(&format!("{}{path}", endpoint.trim_end_matches('/'))).map_err(wrong)
    }

    /// Where a `Location` header leads (RFC 3986, section 5).
    pub(crate) fn redirect(&self, target: &str) -> Result<Self, &'static str> {
        // A fragment is for browsers.
        let target = target.split('#').next().unwrap_or("");
        let text = if target.contains("://") {
            target.to_owned()
        } else if let Some(rest) = target.strip_prefix("//") {
            format!("{}://{rest}", self.scheme())
        } else if target.starts_with('/') {
            format!("{}{target}", self.origin())
        } else if target.is_empty() {
            return Err("it leads nowhere");
        } else {
            let directory = self
                .0
                .path()
                .rsplit_once('/')
                .map_or("", |(directory, _)| directory);
            format!("{}{directory}/{target}", self.origin())
        };
        let next = Self::parse(&text)?;
        if self.scheme() == "https" && next.scheme() != "https" {
            return Err("it leads from https to http");
        }
        Ok(next)
    }

    fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or("")
    }

    fn port(&self) -> u16 {
        let default = if self.scheme() == "https" { 443 } else { 80 };
        self.0.port_u16().unwrap_or(default)
    }

    fn origin(&self) -> String {
        let authority = self
            .0
            .authority()
            .map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.scheme())
    }

    /// Whether this is the same server: scheme, host and port.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        let host = |location: &Self| location.0.host().unwrap_or("").to_ascii_lowercase();
        self.scheme() == other.scheme() && self.port() == other.port() && host(self) == host(other)
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    /// Without the query, which may hold a signature.
    pub(crate) fn shown(&self) -> String {
        let path = self.0.path_and_query().map_or("/", PathAndQuery::path);
        format!("{}{path}", self.origin())
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> Location {
        Location::parse(text).unwrap()
    }

    #[test]
    fn redirects_lead_where_the_standard_says() {
        let base = location("https://hub.example:8443/a/b?x=1");
        for (target, expected) in [
            (
                "https://cdn.example/f?sig=1",
                Some("https://cdn.example/f?sig=1"),
            ),
            ("//cdn.example/f", Some("https://cdn.example/f")),
            ("/c/d?y=2", Some("https://hub.example:8443/c/d?y=2")),
            ("e#part", Some("https://hub.example:8443/a/e")),
            ("http://hub.example/f", None),
            ("file:///etc/passwd", None),
            ("https://user:secret@cdn.example/f", None),
            ("", None),
            ("https://", None),
        ] {
            let next = base.redirect(target).ok();
            assert_eq!(next, expected.map(location), "{target}");
        }
        assert!(location("http://a/").redirect("http://b/").is_ok());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = location("https://hub.example/a");
        assert!(hub.same_origin(&location("https://HUB.example:443/b")));
        for other in [
            "http://hub.example/a",
            "https://hub.example:444/a",
            "https://hub.example.evil/a",
            "https://evil/hub.example",
        ] {
            assert!(!hub.same_origin(&location(other)), "{other}");
        }
    }

    #[test]
    fn endpoints_are_checked_and_signatures_hidden() {
        let joined = Location::of_endpoint("https://mirror.example/hf/", "/o/r").unwrap();
        assert_eq!(joined.shown(), "https://mirror.example/hf/o/r");
        for endpoint in [
            "",
            "mirror.example",
            "ftp://x",
            "https://",
            "https://x/?a=b",
            "a b",
        ] {
            assert!(Location::of_endpoint(endpoint, "/o").is_err(), "{endpoint}");
        }
        let signed = location("https://cdn.example/f?Signature=secret");
        assert_eq!(signed.shown(), "https://cdn.example/f");
    }
}
