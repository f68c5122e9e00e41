//! `Cache-Status` of this cache (RFC 9211).

use std::fmt;

/// `Cache-Status` of this cache (RFC 9211, section 2). Every reply has one to a request that came as far as the cache, also
/// where it was passed by; what ends before (403, 401, 429, redirects, preflights) has none, as the cache had no part in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Answered without going forward.
    pub hit: bool,
    /// Why it went forward.
    pub fwd: Option<Fwd>,
    /// Status of the response that came, where it is not the one given to the client.
    pub fwd_status: Option<u16>,
    /// Stored.
    pub stored: bool,
    /// Waited for the fetch of another request: whether what that brought could be used.
    pub collapsed: Option<bool>,
    /// Freshness left in seconds; negative where stale.
    pub ttl_s: Option<i64>,
    /// More, for people: a token.
    pub detail: Option<&'static str>,
}

/// Why a request went forward (RFC 9211, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fwd {
    /// The rules say so.
    Bypass,
    /// The method is not answered from the cache.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// What is stored is for other header values.
    VaryMiss,
    /// The client wants it validated.
    Request,
    /// What is stored is stale.
    Stale,
}

impl CacheStatus {
    /// A request that went forward.
    pub(super) fn forwarded(fwd: Fwd, detail: Option<&'static str>) -> Self {
        Self { fwd: Some(fwd), detail, ..Self::default() }
    }

    /// Answered with what another request brought: no hit, for this one would have gone forward too (section 2.6).
    pub fn collapse(&mut self, fwd: Fwd) {
        (self.hit, self.fwd, self.collapsed) = (false, Some(fwd), Some(true));
    }

    /// Value of the field with the cache's name: `meridian; hit; ttl=30`.
    #[must_use]
    pub fn field(&self) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "meridian; {self}"))
    }
}

/// The parameters without the cache's name.
impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut parameter = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            let separator = if std::mem::take(&mut first) { "" } else { "; " };
            write!(f, "{separator}{text}")
        };
        if self.hit {
            parameter(f, format_args!("hit"))?;
        } else if let Some(fwd) = self.fwd {
            let fwd = match fwd {
                Fwd::Bypass => "bypass",
                Fwd::Method => "method",
                Fwd::UriMiss => "uri-miss",
                Fwd::VaryMiss => "vary-miss",
                Fwd::Request => "request",
                Fwd::Stale => "stale",
            };
            parameter(f, format_args!("fwd={fwd}"))?;
        }
        if let Some(status) = self.fwd_status {
            parameter(f, format_args!("fwd-status={status}"))?;
        }
        if let Some(ttl) = self.ttl_s {
            parameter(f, format_args!("ttl={ttl}"))?;
        }
        if self.stored {
            parameter(f, format_args!("stored"))?;
        }
        if let Some(reused) = self.collapsed {
            parameter(f, format_args!("{}", if reused { "collapsed" } else { "collapsed=?0" }))?;
        }
        if let Some(detail) = self.detail {
            parameter(f, format_args!("detail={detail}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_as_rfc_9211_writes_them() {
        let check = |status: CacheStatus, expect: &str| assert_eq!(status.field().to_string(), expect);
        check(CacheStatus { hit: true, ttl_s: Some(30), ..CacheStatus::default() }, "meridian; hit; ttl=30");
        check(
            CacheStatus { stored: true, ttl_s: Some(60), ..CacheStatus::forwarded(Fwd::UriMiss, None) },
            "meridian; fwd=uri-miss; ttl=60; stored",
        );
        check(
            CacheStatus {
                fwd_status: Some(304),
                collapsed: Some(true),
                ..CacheStatus::forwarded(Fwd::Stale, Some("purged"))
            },
            "meridian; fwd=stale; fwd-status=304; collapsed; detail=purged",
        );
        check(CacheStatus::forwarded(Fwd::Bypass, None), "meridian; fwd=bypass");
        let mut hit = CacheStatus { hit: true, ttl_s: Some(9), ..CacheStatus::default() };
        hit.collapse(Fwd::UriMiss);
        check(hit, "meridian; fwd=uri-miss; ttl=9; collapsed");
        check(
            CacheStatus { collapsed: Some(false), ..CacheStatus::forwarded(Fwd::UriMiss, None) },
            "meridian; fwd=uri-miss; collapsed=?0",
        );
    }
}
