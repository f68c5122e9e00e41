//! The head of a request: limits, and the one host that it is meant for.

use http::{HeaderMap, Method, Uri, Version, header, request::Parts, uri::Authority};
use meridian_engine::{policy::request::Malformed, problem::Problem};

use crate::{hop, limits};

/// Why the host refuses a request before a component sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `CONNECT`, which no component can take.
    Method,
    /// A target beyond [`limits::URI_BYTES_MAX`].
    UriTooLong,
    /// No host, several, or one with a user.
    Host,
    /// What the fields of its connection say.
    Connection(Malformed),
}

impl Refused {
    /// What the client is told.
    #[must_use]
    pub fn problem(self) -> Problem {
        match self {
            Self::Method => Problem::new(501, "malformed-request", "This method is not served"),
            Self::UriTooLong => Problem::new(414, "malformed-request", "The request's target is too long"),
            Self::Host => {
                Problem::new(400, "malformed-request", "The request names no host, or more than one")
            }
            Self::Connection(malformed) => malformed.problem(),
        }
    }
}

/// Checks a head, gives it the absolute URI that it was meant for, and removes the fields that `Connection` names.
///
/// # Errors
/// The first thing that is refused.
pub fn check(head: &mut Parts) -> Result<(), Refused> {
    if head.method == Method::CONNECT {
        return Err(Refused::Method);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    if target.len() > limits::URI_BYTES_MAX {
        return Err(Refused::UriTooLong);
    }
    // An absolute target does not stand for it (RFC 9112, section 3.2).
    if head.version == Version::HTTP_11 && !head.headers.contains_key(header::HOST) {
        return Err(Refused::Host);
    }
    let authority = authority(&head.uri, &head.headers).ok_or(Refused::Host)?;
    hop::check_request(&head.method, &mut head.headers).map_err(Refused::Connection)?;
    head.uri = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(if target == "*" { "/" } else { target })
        .build()
        .map_err(|_| Refused::Host)?;
    Ok(())
}

/// The host that a request is meant for (RFC 9112, section 3.2): the one `Host` field's, which an absolute target's has to be too.
/// HTTP/2 may name it in `:authority` alone (RFC 9113, section 8.3.1).
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, None) = (hosts.next(), hosts.next()) else { return None };
    let host = host.map(|host| Authority::try_from(host.as_bytes())).transpose().ok()?;
    let meant = match (uri.authority(), host) {
        (Some(target), Some(host)) if *target != host => None,
        (Some(target), _) => Some(target.clone()),
        (None, host) => host,
    };
    meant.filter(|authority| !authority.as_str().contains('@'))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    #[test]
    fn a_request_is_for_one_host() {
        let cases: &[(&str, &[&str], Option<&str>)] = &[
            ("/a", &["shop.example:81"], Some("shop.example:81")),
            ("http://shop.example/a", &["Shop.example"], Some("shop.example")),
            ("http://shop.example/a", &[], Some("shop.example")),
            ("http://other.example/a", &["shop.example"], None),
            ("http://user@shop.example/a", &[], None),
            ("/a", &[], None),
            ("/a", &["one.example", "two.example"], None),
            ("/a", &["user@shop.example"], None),
            ("/a", &["not a host"], None),
        ];
        for (uri, hosts, expected) in cases {
            let mut headers = HeaderMap::new();
            for host in *hosts {
                headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
            }
            let found = authority(&uri.parse().unwrap(), &headers);
            assert_eq!(found.as_ref().map(Authority::as_str), *expected, "{uri} {hosts:?}");
        }
    }

    #[test]
    fn a_head_gets_the_uri_that_it_is_meant_for() {
        let check = |method: Method, target: &str, expect: Result<&str, Refused>| {
            let request = Request::builder().method(method).uri(target).header("host", "shop.example");
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            let found = super::check(&mut head).map(|()| head.uri.to_string());
            assert_eq!(found, expect.map(str::to_owned), "{target}");
        };
        check(Method::GET, "/a?b", Ok("http://shop.example/a?b"));
        check(Method::OPTIONS, "*", Ok("http://shop.example/"));
        check(Method::CONNECT, "shop.example:443", Err(Refused::Method));
        let long = format!("/{}", "a".repeat(limits::URI_BYTES_MAX));
        check(Method::GET, &long, Err(Refused::UriTooLong));
        let (mut head, ()) = Request::get("http://shop.example/a").body(()).unwrap().into_parts();
        assert_eq!(super::check(&mut head), Err(Refused::Host), "in HTTP/1.1 the field is a must");
        head.version = Version::HTTP_2;
        assert_eq!(super::check(&mut head), Ok(()));
    }
}
