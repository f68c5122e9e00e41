//! What a reply's content becomes on its way out: HTML, and content codings.

use meridian_engine::limits::HTML_VALUE_BYTES_MAX;
use meridian_engine::ruleset::{
    Coding, Compress, HeaderValue, HtmlChange, HtmlRule, Markup, MediaType, Spot,
};

use super::policies::is_field_name;
use super::{Compiler, short};
use crate::document::{CompressSpec, HeaderText, HtmlRuleSpec, MarkupSpec};
use crate::limits::{CODED_BYTES_MIN_MAX, HTML_RULES_MAX, SELECTOR_BYTES_MAX};

impl Compiler {
    pub(super) fn compress(&mut self, spec: &CompressSpec) -> Compress {
        let mut codings = Vec::new();
        if spec.codings.is_empty() {
            self.flaw("spec.compress.codings", "an empty list", "at least one of zstd, br and gzip");
        }
        for (at, name) in spec.codings.iter().enumerate() {
            let coding = Coding::ALL.into_iter().find(|coding| coding.token() == name);
            match coding.filter(|coding| !codings.contains(coding)) {
                Some(coding) => codings.push(coding),
                None => self.flaw(
                    format!("spec.compress.codings[{at}]"),
                    format_args!("{:?}", short(name)),
                    "zstd, br or gzip, each once",
                ),
            }
        }
        if spec.bytes_min > CODED_BYTES_MIN_MAX {
            let expected = format!("at most {CODED_BYTES_MIN_MAX} bytes (CODED_BYTES_MIN_MAX)");
            self.flaw("spec.compress.bytesMin", spec.bytes_min, expected);
        }
        if spec.types.is_empty() {
            self.flaw("spec.compress.types", "an empty list", "at least one media type");
        }
        let mut types = Vec::new();
        for (at, name) in spec.types.iter().enumerate() {
            match media_type(name) {
                Some(kind) => types.push(kind),
                None => self.flaw(
                    format!("spec.compress.types[{at}]"),
                    format_args!("{:?}", short(name)),
                    "a media type such as text/html, text/* or *+json, but for text/event-stream",
                ),
            }
        }
        Compress { codings, bytes_min: spec.bytes_min.into(), types }
    }

    pub(super) fn html(&mut self, specs: &[HtmlRuleSpec]) -> Vec<HtmlRule<HeaderValue>> {
        if specs.len() > HTML_RULES_MAX {
            let expected = format!("at most {HTML_RULES_MAX} (HTML_RULES_MAX)");
            self.flaw("spec.html", format_args!("{} changes", specs.len()), expected);
        }
        let rules = specs.iter().enumerate().filter_map(|(at, spec)| {
            let path = format!("spec.html[{at}]");
            if spec.select.trim().is_empty() || spec.select.len() > SELECTOR_BYTES_MAX {
                self.flaw(
                    format!("{path}.select"),
                    format_args!("{:?}", short(&spec.select)),
                    format!("a CSS selector of at most {SELECTOR_BYTES_MAX} bytes (SELECTOR_BYTES_MAX)"),
                );
            }
            let change = self.html_change(spec, &path)?;
            Some(HtmlRule { select: spec.select.clone(), change })
        });
        rules.collect()
    }

    fn html_change(&mut self, spec: &HtmlRuleSpec, path: &str) -> Option<HtmlChange<HeaderValue>> {
        let puts = [
            ("before", Spot::Before, &spec.before),
            ("prepend", Spot::Prepend, &spec.prepend),
            ("append", Spot::Append, &spec.append),
            ("after", Spot::After, &spec.after),
            ("setInner", Spot::Inner, &spec.set_inner),
            ("replace", Spot::Replace, &spec.replace),
        ];
        let mut changes = Vec::new();
        if let Some(attribute) = &spec.set_attribute {
            self.attribute(&attribute.name, &format!("{path}.setAttribute.name"));
            let value = self.page_value(&attribute.value, &format!("{path}.setAttribute.value"));
            changes.push(value.map(|value| HtmlChange::SetAttribute(attribute.name.clone(), value)));
        }
        if let Some(name) = &spec.remove_attribute {
            self.attribute(name, &format!("{path}.removeAttribute"));
            changes.push(Some(HtmlChange::RemoveAttribute(name.clone())));
        }
        for (name, spot, put) in puts {
            if let Some(put) = put {
                changes.push(self.put(put, spot, &format!("{path}.{name}")));
            }
        }
        if spec.remove {
            changes.push(Some(HtmlChange::Remove));
        }
        if changes.len() != 1 {
            let expected = "one of setAttribute, removeAttribute, before, prepend, append, after, setInner, replace, remove";
            self.flaw(path, format_args!("{} changes", changes.len()), expected);
        }
        changes.into_iter().next().flatten()
    }

    fn put(&mut self, spec: &MarkupSpec, spot: Spot, path: &str) -> Option<HtmlChange<HeaderValue>> {
        let (name, markup, value) = match (&spec.text, &spec.html) {
            (Some(text), None) => ("text", Markup::Text, text),
            (None, Some(html)) => ("html", Markup::Html, html),
            (both, _) => {
                let found = if both.is_some() { "both" } else { "neither" };
                self.flaw(path, found, "text or html");
                return None;
            }
        };
        let value = self.page_value(value, &format!("{path}.{name}"))?;
        Some(HtmlChange::Put(spot, markup, value))
    }

    fn page_value(&mut self, value: &HeaderText, path: &str) -> Option<HeaderValue> {
        match value {
            HeaderText::Expr(condition) => self.condition(Some(condition), path).map(HeaderValue::Expr),
            HeaderText::Text(text) => {
                if text.len() > HTML_VALUE_BYTES_MAX {
                    let expected = format!("at most {HTML_VALUE_BYTES_MAX} bytes (HTML_VALUE_BYTES_MAX)");
                    self.flaw(path, format_args!("{} bytes", text.len()), expected);
                }
                Some(HeaderValue::Text(text.clone()))
            }
        }
    }

    fn attribute(&mut self, name: &str, path: &str) {
        let odd = |letter: char| letter.is_control() || letter.is_whitespace() || "/>=\"'<".contains(letter);
        if name.is_empty() || name.contains(odd) {
            self.flaw(path, format_args!("{:?}", short(name)), "the name of an attribute");
        }
    }
}

fn media_type(text: &str) -> Option<MediaType> {
    let text = text.to_ascii_lowercase();
    let (top, sub) = text.split_once('/').unwrap_or((&text, ""));
    if let Some(suffix) = top.strip_prefix("*+").filter(|suffix| sub.is_empty() && is_field_name(suffix)) {
        return (!text.contains('/')).then(|| MediaType::Suffix(suffix.to_owned()));
    }
    match (is_field_name(top) && top != "*", sub) {
        (true, "*") => Some(MediaType::Top(top.to_owned())),
        (true, sub) if is_field_name(sub) && text != "text/event-stream" => {
            Some(MediaType::Exact(text.clone()))
        }
        _ => None,
    }
}
