//! Texts with parts of the request in them, for where a request goes or is sent.

use crate::facts::{Facts, Scheme};
use crate::ruleset::{PathTemplate, Piece, Template};

impl Template {
    /// The text for a request whose route has this path. Parts of the path stay encoded as they came; a text never begins
    /// with two slashes, which a client would take for another host (RFC 3986, section 4.2).
    #[must_use]
    pub fn render(&self, facts: &Facts, path: &PathTemplate) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Capture(name) => text.push_str(path.capture(&facts.path, name).unwrap_or_default()),
                Piece::Rest => text.push_str(rest(facts, path)),
                Piece::Scheme => text.push_str(match facts.scheme {
                    Scheme::Http => "http",
                    Scheme::Https => "https",
                }),
                Piece::Host => text.push_str(&facts.host),
                Piece::Path => text.push_str(&facts.path),
                Piece::Query => text.push_str(facts.query.as_deref().unwrap_or_default()),
                Piece::QueryWithMark => {
                    if let Some(query) = &facts.query {
                        text.push('?');
                        text.push_str(query);
                    }
                }
            }
        }
        match text.strip_prefix("//") {
            Some(rest) => format!("/{}", rest.trim_start_matches('/')),
            None => text,
        }
    }
}

/// What follows the segments of an open path.
fn rest<'a>(facts: &'a Facts, path: &PathTemplate) -> &'a str {
    let mut rest = facts.path.strip_prefix('/').unwrap_or(&facts.path);
    for _ in &path.segments {
        rest = rest.split_once('/').map_or("", |(_, behind)| behind);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{request, route};

    fn render(pieces: &[Piece], path: &str, query: Option<&str>, template: &str) -> String {
        let mut facts = request("GET", "acme.example", path);
        facts.query = query.map(str::to_owned);
        Template(pieces.to_vec()).render(&facts, &route(template).matcher.path)
    }

    #[test]
    fn parts_of_the_request_take_their_places() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let id = || Piece::Capture("id".to_owned());
        assert_eq!(render(&[text("/v2/"), id()], "/v1/a%20b", None, "/v1/{id}"), "/v2/a%20b");
        assert_eq!(render(&[text("/v2/"), Piece::Rest], "/v1/x/y", None, "/v1/**"), "/v2/x/y");
        assert_eq!(render(&[text("/v2/"), Piece::Rest], "/v1", None, "/v1/**"), "/v2/");
        assert_eq!(
            render(
                &[text("https://"), Piece::Host, Piece::Path, Piece::QueryWithMark],
                "/a",
                Some("b=1"),
                "/**"
            ),
            "https://acme.example/a?b=1"
        );
        assert_eq!(render(&[Piece::Path, Piece::QueryWithMark], "/a", None, "/**"), "/a");
        assert_eq!(render(&[text("q="), Piece::Query], "/a", Some("b=1"), "/**"), "q=b=1");
    }

    #[test]
    fn no_path_becomes_another_host() {
        let pieces = [Piece::Text("/".to_owned()), Piece::Rest];
        assert_eq!(render(&pieces, "/old//evil.example", None, "/old/**"), "/evil.example");
        assert_eq!(render(&pieces, "/old///evil.example", None, "/old/**"), "/evil.example");
    }
}
