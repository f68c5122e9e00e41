//! Transforms: header changes, redirects, rewrites, cross-origin sharing.

use meridian_engine::facts::normalise_path;
use meridian_engine::policy::transform::is_reserved;
use meridian_engine::ruleset::{
    Cors, HeaderChange, HeaderValue, OriginPattern, Piece, Redirect, Rewrite, Route, Segment, Template,
    Transform,
};

use super::policies::is_field_name;
use super::{Body, Compiler, Document, of_kind, rule, short};
use crate::document::{ChangesSpec, CorsSpec, HeaderText, RedirectSpec, RewriteSpec, TransformSpec};
use crate::limits::FIELD_VALUE_BYTES_MAX;

/// Longest text that a rule sets or sends to.
const TEXT_BYTES_MAX: usize = 4_096;

const PLACEHOLDERS: &str =
    "text with {name} (a capture), {**}, {scheme}, {host}, {path}, {query} or {?query}";

impl Compiler {
    pub(super) fn transforms(&mut self, documents: &[Document]) -> Vec<Transform> {
        let mut transforms = Vec::new();
        for (at, document, spec) in of_kind!(documents, Transform) {
            self.document = at;
            let empty = TransformSpec { when: spec.when.clone(), ..TransformSpec::default() };
            if *spec == empty {
                self.flaw("spec", "no change", "a change to the request, the response or both");
            }
            transforms.push(Transform {
                rule: rule(document),
                when: self.condition(spec.when.as_ref(), "spec.when"),
                redirect: spec.redirect.as_ref().and_then(|redirect| self.redirect(redirect)),
                rewrite: spec.rewrite.as_ref().map(|rewrite| self.rewrite(rewrite)),
                cors: spec.cors.as_ref().map(|cors| self.cors(cors)),
                security_headers: spec.security_headers,
                request: self.changes(&spec.request, "spec.request"),
                response: self.changes(&spec.response, "spec.response"),
                html: self.html(&spec.html),
                minify: spec.minify,
                compress: spec.compress.as_ref().map(|compress| self.compress(compress)),
            });
        }
        transforms
    }

    fn redirect(&mut self, spec: &RedirectSpec) -> Option<Redirect> {
        if !matches!(spec.status, 301 | 302 | 303 | 307 | 308) {
            self.flaw("spec.redirect.status", spec.status, "301, 302, 303, 307 or 308");
        }
        let location = self.template(&spec.location, "spec.redirect.location")?;
        if !leads_where_it_says(&location.0) {
            let expected =
                "a path, or an https or http URL whose host is written out or {host}, and then its path";
            self.flaw("spec.redirect.location", format_args!("{:?}", short(&spec.location)), expected);
        }
        Some(Redirect { status: spec.status, location })
    }

    fn rewrite(&mut self, spec: &RewriteSpec) -> Rewrite {
        if spec.path.is_none() && spec.query.is_none() {
            self.flaw("spec.rewrite", "no change", "path, query or both");
        }
        let path = spec.path.as_deref().and_then(|path| {
            if !path.starts_with('/') && !path.starts_with("{path}") {
                self.flaw(
                    "spec.rewrite.path",
                    format_args!("{:?}", short(path)),
                    "a path, which begins with /",
                );
            }
            let template = self.template(path, "spec.rewrite.path")?;
            let is_of_path = |piece: &Piece| {
                matches!(piece, Piece::Text(_) | Piece::Capture(_) | Piece::Rest | Piece::Path)
            };
            if !template.0.iter().all(is_of_path) {
                let expected = "text with {name}, {**} and {path} alone";
                self.flaw("spec.rewrite.path", format_args!("{:?}", short(path)), expected);
            } else if !stays_normal(&template.0) {
                let expected = "a path without empty, . and .. segments and in one percent-encoding";
                self.flaw("spec.rewrite.path", format_args!("{:?}", short(path)), expected);
            }
            Some(template)
        });
        let query = spec.query.as_deref().and_then(|query| self.template(query, "spec.rewrite.query"));
        Rewrite { path, query }
    }

    fn template(&mut self, text: &str, path: &str) -> Option<Template> {
        let is_plain = text.len() <= TEXT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        let template = pieces(text).filter(|_| is_plain);
        if template.is_none() {
            self.flaw(path, format_args!("{:?}", short(text)), PLACEHOLDERS);
        }
        template
    }

    /// Says which captures of a route's transforms its path does not have.
    pub(super) fn captures_of(&mut self, route: &Route, transforms: &[Transform]) {
        let used = route.transforms.iter().filter_map(|number| transforms.get(*number));
        for transform in used {
            let rewrite =
                transform.rewrite.iter().flat_map(|rewrite| rewrite.path.iter().chain(&rewrite.query));
            let templates = transform.redirect.iter().map(|redirect| &redirect.location).chain(rewrite);
            for piece in templates.flat_map(|template| &template.0) {
                let known = match piece {
                    Piece::Capture(name) => {
                        route.matcher.path.segments.contains(&Segment::Capture(name.clone()))
                    }
                    Piece::Rest => route.matcher.path.open,
                    _ => true,
                };
                if !known {
                    let name = if let Piece::Capture(name) = piece { name.as_str() } else { "**" };
                    let expected =
                        format!("{{{}}}, which Transform {:?} names", short(name), transform.rule.name);
                    self.flaw("spec.match.path", "a path without it", expected);
                }
            }
        }
    }

    fn cors(&mut self, spec: &CorsSpec) -> Cors {
        if spec.origins.is_empty() {
            self.flaw("spec.cors.origins", "an empty list", "at least one origin");
        }
        let origins: Vec<_> = spec
            .origins
            .iter()
            .enumerate()
            .filter_map(|(at, origin)| {
                let pattern = origin_pattern(origin);
                if pattern.is_none() {
                    self.flaw(
                        format!("spec.cors.origins[{at}]"),
                        format_args!("{:?}", short(origin)),
                        "an origin such as https://app.example or https://*.app.example, or *",
                    );
                }
                pattern
            })
            .collect();
        if origins.contains(&OriginPattern::Any) && (origins.len() > 1 || spec.credentials) {
            let expected = "* alone and without credentials, or the origins by name";
            self.flaw("spec.cors.origins", "\"*\"", expected);
        }
        for (at, method) in spec.methods.iter().enumerate() {
            if method != "*" && !is_field_name(method) {
                self.flaw(
                    format!("spec.cors.methods[{at}]"),
                    format_args!("{:?}", short(method)),
                    "a method, or *",
                );
            }
        }
        for (list, names) in [("headers", &spec.headers), ("expose", &spec.expose)] {
            for (at, name) in names.iter().enumerate() {
                if name != "*" && !is_field_name(name) {
                    self.flaw(
                        format!("spec.cors.{list}[{at}]"),
                        format_args!("{:?}", short(name)),
                        "the name of a header field, or *",
                    );
                }
            }
        }
        let all = spec.expose.iter().position(|name| name == "*");
        if let Some(at) = all.filter(|_| spec.credentials && self.is_push) {
            let expected = "the fields by name: with credentials, * is a field of that name";
            self.flaw(format!("spec.cors.expose[{at}]"), "\"*\"", expected);
        }
        Cors {
            origins,
            methods: spec.methods.clone(),
            headers: spec.headers.clone(),
            expose: spec.expose.clone(),
            credentials: spec.credentials,
            max_age_s: u32::try_from(spec.max_age.ms / 1_000).unwrap_or(u32::MAX),
        }
    }

    fn changes(&mut self, spec: &ChangesSpec, path: &str) -> Vec<HeaderChange> {
        let mut changes = Vec::new();
        for (at, name) in spec.remove.iter().enumerate() {
            let name = self.changeable(name, &format!("{path}.remove[{at}]"));
            changes.push(HeaderChange::Remove(name));
        }
        for (name, text) in &spec.set {
            let path = format!("{path}.set.{name}");
            let (name, value) = (self.changeable(name, &path), self.header_value(text, &path));
            changes.extend(value.map(|value| HeaderChange::Set(name, value)));
        }
        for (name, text) in &spec.append {
            let path = format!("{path}.append.{name}");
            let (name, value) = (self.changeable(name, &path), self.header_value(text, &path));
            changes.extend(value.map(|value| HeaderChange::Append(name, value)));
        }
        changes
    }

    pub(super) fn changeable(&mut self, name: &str, path: &str) -> String {
        let lower = name.to_ascii_lowercase();
        if is_reserved(&lower) || !is_field_name(name) {
            self.flaw(path, format_args!("{:?}", short(name)), "a header field that rules may change");
        }
        lower
    }

    fn header_value(&mut self, text: &HeaderText, path: &str) -> Option<HeaderValue> {
        match text {
            HeaderText::Expr(condition) => self.condition(Some(condition), path).map(HeaderValue::Expr),
            HeaderText::Text(text) => {
                // RFC 9110, section 5.5: no control characters.
                if text.chars().any(char::is_control) || text.len() > FIELD_VALUE_BYTES_MAX {
                    self.flaw(
                        path,
                        format_args!("{:?}", short(text)),
                        "a text without control characters, 4096 bytes at the most",
                    );
                }
                Some(HeaderValue::Text(text.clone()))
            }
        }
    }
}

/// Whether a path stays one that every server reads alike, whatever the request puts into it, which is normal by itself.
fn stays_normal(pieces: &[Piece]) -> bool {
    let part = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Path => "/x".to_owned(),
        _ => "x".to_owned(),
    };
    normalise_path(&pieces.iter().map(part).collect::<String>()).is_ok()
}

/// Whether a location leads to the host that a reader of the rule sees: behind the authority, nothing of the request comes
/// before a slash or a question mark.
fn leads_where_it_says(pieces: &[Piece]) -> bool {
    let ends = |rest: &[Piece]| match rest.first() {
        None | Some(Piece::Path | Piece::QueryWithMark) => true,
        Some(Piece::Text(text)) => text.starts_with(['/', '?']),
        Some(_) => false,
    };
    let authority = |text: &str, rest: &[Piece]| match (text.is_empty(), rest) {
        (true, [Piece::Host, rest @ ..]) => ends(rest),
        (true, _) => false,
        (false, rest) => !text.starts_with(['/', '?']) && (text.contains(['/', '?']) || ends(rest)),
    };
    match pieces {
        [Piece::Path, ..] => true,
        [Piece::Text(text), ..] if text.starts_with('/') => !text.starts_with("//"),
        [Piece::Text(text), rest @ ..] => ["https://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .is_some_and(|text| authority(text, rest)),
        [Piece::Scheme, Piece::Text(text), rest @ ..] => {
            text.strip_prefix("://").is_some_and(|text| authority(text, rest))
        }
        _ => false,
    }
}

/// The pieces of a template; `None` where a brace stands alone or holds something else.
fn pieces(text: &str) -> Option<Template> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, after) = behind.split_once('}')?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(match name {
            "**" => Piece::Rest,
            "scheme" => Piece::Scheme,
            "host" => Piece::Host,
            "path" => Piece::Path,
            "query" => Piece::Query,
            "?query" => Piece::QueryWithMark,
            name if !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') =>
            {
                Piece::Capture(name.to_owned())
            }
            _ => return None,
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    (!text.contains("}}")
        && !pieces.iter().any(|piece| matches!(piece, Piece::Text(text) if text.contains('}'))))
    .then_some(Template(pieces))
}

/// Origins are compared as browsers write them: scheme and host in lower case, no path, no default port (RFC 6454, section 6.2).
fn origin_pattern(text: &str) -> Option<OriginPattern> {
    if text == "*" {
        return Some(OriginPattern::Any);
    }
    let (scheme, authority) = text.split_once("://")?;
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte);
    let (is_below, domain) = authority.strip_prefix("*.").map_or((false, authority), |domain| (true, domain));
    let fine = matches!(scheme, "https" | "http") && !domain.is_empty() && domain.bytes().all(plain);
    fine.then(|| match is_below {
        true => OriginPattern::Below { scheme: scheme.to_owned(), domain: domain.to_owned() },
        false => OriginPattern::Exact(format!("{scheme}://{authority}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let check = |text: &str, expect: &str| {
            let exact = OriginPattern::Exact(expect.to_owned());
            assert_eq!(origin_pattern(text), Some(exact), "RFC 6454, section 6.2: {text}");
        };
        check("https://a.example:443", "https://a.example");
        check("http://a.example:80", "http://a.example");
        check("http://[::1]:80", "http://[::1]");
        check("http://a.example:443", "http://a.example:443");
        check("https://a.example:8443", "https://a.example:8443");
        let below = OriginPattern::Below { scheme: "https".to_owned(), domain: "a.example".to_owned() };
        assert_eq!(origin_pattern("https://*.a.example:443"), Some(below));
        assert_eq!(origin_pattern("https://:443"), None);
    }

    #[test]
    fn locations_lead_where_they_say() {
        let check = |location: &str, fine: bool| {
            let template = pieces(location).unwrap();
            assert_eq!(leads_where_it_says(&template.0), fine, "{location}");
        };
        for fine in [
            "/new/{**}{?query}",
            "{path}",
            "https://{host}{path}{?query}",
            "https://{host}",
            "https://{host}/a/{**}",
            "{scheme}://www.shop.example{path}",
            "{scheme}://{host}/a",
            "https://shop.example/{name}",
            "https://shop.example?q={query}",
        ] {
            check(fine, true);
        }
        for wrong in [
            "//evil.example",
            "https://{host}{**}",
            "https://{host}{name}",
            "https://shop.example{**}",
            "https://shop.example{query}",
            "https://{name}/",
            "https://",
            "{scheme}{host}",
            "{scheme}://{host}{**}",
            "{name}/a",
            "javascript:alert(1)",
        ] {
            check(wrong, false);
        }
    }
}
