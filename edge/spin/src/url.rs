//! Absolute URLs of requests that the edge sends, in the parts that the host wants.

/// An absolute URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Url<'a> {
    /// Whether it is `https`.
    pub secure: bool,
    /// Host and port, as written.
    pub authority: &'a str,
    /// Path and query; begins with `/`.
    pub target: &'a str,
}

impl<'a> Url<'a> {
    /// The parts of an `http` or `https` URL; `None` where it is anything else.
    #[must_use]
    pub fn parse(url: &'a str) -> Option<Self> {
        let (secure, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let rest = rest.split('#').next()?;
        let (authority, target) = match rest.find('/') {
            Some(slash) => rest.split_at_checked(slash)?,
            None => (rest, "/"),
        };
        let plain = !authority.is_empty() && !authority.contains(['?', '@', ' ']);
        plain.then_some(Self { secure, authority, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart() {
        let parse = |url| Url::parse(url).map(|url| (url.secure, url.authority, url.target));
        assert_eq!(parse("http://127.0.0.1:17101/v1/a?b=c#d"), Some((false, "127.0.0.1:17101", "/v1/a?b=c")));
        assert_eq!(parse("https://[::1]:8443"), Some((true, "[::1]:8443", "/")));
        for wrong in ["", "/a", "ftp://a/", "http://", "http:///a", "http://a?b", "http://user@a/"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
