//! What a server must do before its processor time says anything: refuse, count, split and remember for real.

use anyhow::{Context as _, Result, ensure};

use super::field::{Field, get};
use super::tokens::Tokens;
use super::upstream::{CACHED_BYTES, CACHED_LARGE_BYTES};
use crate::progress::say;
use crate::stack::http::Answer;

/// Requests to a route that allows five a minute: far more than that.
const LIMITED_REQUESTS: usize = 40;
/// Subjects among whom both variants of an even split occur, but for one time in 10^12.
const SUBJECTS: usize = 40;
/// Requests by which an answer has to be stored.
const FILLS_MAX: u32 = 100;
/// Hits that are looked at.
const HITS: usize = 8;

/// What takes any valid token.
const TOKEN: &str = "/auth/items";
/// What takes a token with the scope, and does all else. The edges count the first by the region, the second by themselves.
const FULL: &[Pipeline] = &[
    Pipeline { items: "/full/items", head: "/full/head", limited: "/limited/items" },
    Pipeline { items: "/counted-here/items", head: "/counted-here/head", limited: "/limited-here/items" },
];

/// Paths of one way through the full pipeline.
struct Pipeline {
    /// What is measured.
    items: &'static str,
    /// Tells what the upstream sees of a request.
    head: &'static str,
    /// Counts in the same way, and allows five a minute.
    limited: &'static str,
}

/// A server that is looked at.
struct Checked<'a> {
    field: &'a Field,
    title: &'static str,
    url: String,
}

/// Checks every server of a field.
///
/// # Errors
/// When one does not do what its measurement would claim.
pub fn check(field: &Field) -> Result<()> {
    for server in field.contest.servers {
        let asked: Vec<&str> = field.contest.cells.iter().filter_map(|cell| cell.path_on(server)).collect();
        let checked = Checked { field, title: server.title, url: field.url(server)? };
        let full: Vec<&Pipeline> = FULL.iter().filter(|pipeline| asked.contains(&pipeline.items)).collect();
        let token = [TOKEN].into_iter().filter(|path| asked.contains(path));
        for path in token.chain(full.iter().map(|pipeline| pipeline.items)) {
            checked
                .refuses(path)
                .with_context(|| format!("{} with tokens that are not valid", server.title))?;
        }
        for pipeline in full {
            checked.transforms(pipeline).with_context(|| format!("{} with headers", server.title))?;
            checked.splits(pipeline).with_context(|| format!("{} with the split", server.title))?;
            checked.limits(pipeline).with_context(|| format!("{} with the limit", server.title))?;
        }
        checked.caches().with_context(|| format!("{} with its cache", server.title))?;
        say(&format!("  ✓ {} does what is measured", server.title));
    }
    Ok(())
}

impl Checked<'_> {
    fn get(&self, path: &str, token: Option<&str>) -> Result<Answer> {
        get(&format!("{}{path}", self.url), token).send()
    }

    /// Forged, expired and foreign tokens, and none at all: nothing comes to the upstream. One without the scope does where none
    /// is wanted.
    fn refuses(&self, path: &str) -> Result<()> {
        let served = self.field.upstream.served();
        let refused = Tokens::some(&self.field.tokens.refused, usize::MAX)?;
        ensure!(refused.len() > 1, "there are no tokens to be refused");
        for (number, token) in refused.iter().map(|token| Some(token.as_str())).chain([None]).enumerate() {
            let status = self.get(path, token)?.status;
            ensure!([401, 403].contains(&status), "{path} answers {status} to token {number}, expected 401");
        }
        let unscoped = Tokens::first(&self.field.tokens.unscoped)?;
        let (expected, forwarded) = if path == TOKEN { (200, 1) } else { (403, 0) };
        let status = self.get(path, Some(&unscoped))?.status;
        ensure!(
            status == expected,
            "{path} answers {status} to a token without the scope, expected {expected}"
        );
        let came = self.field.upstream.served() - served;
        ensure!(came == forwarded, "{came} requests came to the upstream from {path}, expected {forwarded}");
        Ok(())
    }

    /// The upstream sees the header that is set, and the subject in place of the token.
    fn transforms(&self, pipeline: &Pipeline) -> Result<()> {
        let token = Tokens::first(&self.field.tokens.es256)?;
        for (path, header) in [
            ("/auth/head", "x-subject: client-00000"),
            (pipeline.head, "x-subject: client-00000"),
            (pipeline.head, "x-edge: bench"),
        ] {
            let head = self.get(path, Some(&token))?.body.to_ascii_lowercase();
            ensure!(
                head.contains(&format!("\r\n{header}\r\n")),
                "{path}: the upstream does not see {header}"
            );
            ensure!(!head.contains("\r\nauthorization:"), "{path}: the upstream sees the token");
        }
        Ok(())
    }

    /// Both variants occur, and a subject keeps its own.
    fn splits(&self, pipeline: &Pipeline) -> Result<()> {
        let variants = || -> Result<Vec<String>> {
            let tokens = Tokens::some(&self.field.tokens.es256, SUBJECTS)?;
            let variant = |token: &String| {
                let answer = self.get(pipeline.items, Some(token))?;
                let variant = answer.header("x-checkout").map(str::to_owned);
                variant.with_context(|| format!("an answer {} without X-Checkout", answer.status))
            };
            tokens.iter().map(variant).collect()
        };
        let first = variants()?;
        for variant in ["classic", "express"] {
            ensure!(first.iter().any(|found| found == variant), "nobody of {SUBJECTS} gets {variant}");
        }
        ensure!(first == variants()?, "a subject gets another variant than before");
        Ok(())
    }

    /// Five a minute are allowed to a subject; another subject is not held for it.
    fn limits(&self, pipeline: &Pipeline) -> Result<()> {
        let mut tokens = Tokens::some(&self.field.tokens.es256, SUBJECTS + 2)?;
        let (other, token) = (tokens.pop().context("a token")?, tokens.pop().context("a token")?);
        let statuses = (0..LIMITED_REQUESTS).map(|_| Ok(self.get(pipeline.limited, Some(&token))?.status));
        let statuses = statuses.collect::<Result<Vec<u16>>>()?;
        ensure!(
            statuses.first() == Some(&200),
            "the first request is answered {:?}, expected 200",
            statuses.first()
        );
        ensure!(
            statuses.last() == Some(&429),
            "request {LIMITED_REQUESTS} is answered {:?}, expected 429",
            statuses.last()
        );
        let status = self.get(pipeline.limited, Some(&other))?.status;
        ensure!(status == 200, "another subject is answered {status}, expected 200");
        Ok(())
    }

    /// What was answered once is answered without the upstream, whole.
    fn caches(&self) -> Result<()> {
        for (path, bytes) in
            [("/cached/kilobyte", CACHED_BYTES), ("/cached/64-kilobytes", CACHED_LARGE_BYTES)]
        {
            // Some store what they answered only afterwards.
            for request in 1.. {
                let served = self.field.upstream.served();
                self.get(path, None)?;
                if self.field.upstream.served() == served {
                    break;
                }
                ensure!(request < FILLS_MAX, "{path} is not stored after {FILLS_MAX} requests");
            }
            let served = self.field.upstream.served();
            for _ in 0..HITS {
                let length = self.get(path, None)?.body.len();
                ensure!(length == bytes, "{path} has {length} bytes, expected {bytes}");
            }
            let more = self.field.upstream.served() - served;
            ensure!(more == 0, "{}: {more} of {HITS} requests for {path} came to the upstream", self.title);
        }
        Ok(())
    }
}
