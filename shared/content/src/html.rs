//! HTML rewriting by `lol_html`, the parser that Cloudflare's own rewriter is made of.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use lol_html::errors::AttributeNameError;
use lol_html::html_content::{ContentType, Element};
use lol_html::{ElementContentHandlers, HtmlRewriter, MemorySettings, OutputSink, Selector, Settings};
use meridian_engine::ruleset::{HtmlChange, HtmlEdit, Markup, PageChanges, Spot};

use crate::limits::{HTML_BUFFER_BYTES, HTML_MEMORY_BYTES_MAX};
use crate::minify::minify;

/// Changes one page.
pub struct Rewriter {
    parser: HtmlRewriter<'static, Sink>,
    out: Rc<RefCell<Vec<u8>>>,
}

/// Why a page can't be changed to its end: what was given so far is all that can be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the HTML can't be rewritten: {0}")]
pub struct RewriteFault(String);

/// A selector that the parser can't match as it streams.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSelector(String);

/// Checks a selector.
///
/// # Errors
/// Why it is none, in a few words.
pub fn check_selector(text: &str) -> Result<(), InvalidSelector> {
    text.parse::<Selector>()
        .map(drop)
        .map_err(|error| InvalidSelector(error.to_string().trim_end_matches('.').to_owned()))
}

/// A whole page with changes made to it.
///
/// # Errors
/// As [`Rewriter::push`].
pub fn rewrite_whole(changes: PageChanges, page: &[u8]) -> Result<Vec<u8>, RewriteFault> {
    let mut rewriter = Rewriter::new(changes)?;
    let mut changed = rewriter.push(page)?;
    changed.extend(rewriter.finish()?);
    Ok(changed)
}

impl Rewriter {
    /// A rewriter at the beginning of a page in UTF-8.
    ///
    /// # Errors
    /// Where a selector is none.
    pub fn new(changes: PageChanges) -> Result<Self, RewriteFault> {
        let mut settings = Settings::new().with_strict(true).with_memory_settings(
            MemorySettings::new()
                .with_preallocated_parsing_buffer_size(HTML_BUFFER_BYTES)
                .with_max_allowed_memory_usage(HTML_MEMORY_BYTES_MAX),
        );
        for HtmlEdit { select, change } in changes.edits {
            let selector = parsed(&select)?;
            let handler = move |element: &mut Element<'_, '_>| Ok(apply(element, &change)?);
            let handlers = ElementContentHandlers::default().element(handler);
            settings = settings.append_element_content_handler((Cow::Owned(selector), handlers));
        }
        if changes.minify {
            let left = parsed(PageChanges::LEFT_ELEMENTS)?;
            settings = minify(settings, left);
        }
        let out = Rc::new(RefCell::new(Vec::new()));
        Ok(Self { parser: HtmlRewriter::new(settings, Sink(Rc::clone(&out))), out })
    }

    /// Takes the next bytes and gives those that are done.
    ///
    /// # Errors
    /// Where the parser gives up: out of memory, or markup that can't be told from text without looking back.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, RewriteFault> {
        self.parser.write(bytes).map_err(|error| RewriteFault(error.to_string()))?;
        Ok(self.out.take())
    }

    /// Ends the page.
    ///
    /// # Errors
    /// As [`Rewriter::push`].
    pub fn finish(self) -> Result<Vec<u8>, RewriteFault> {
        self.parser.end().map_err(|error| RewriteFault(error.to_string()))?;
        Ok(self.out.take())
    }
}

fn parsed(selector: &str) -> Result<Selector, RewriteFault> {
    selector.parse().map_err(|error| RewriteFault(format!("selector {selector:?}: {error}")))
}

fn apply(element: &mut Element<'_, '_>, change: &HtmlChange<String>) -> Result<(), AttributeNameError> {
    match change {
        HtmlChange::SetAttribute(name, value) => element.set_attribute(name, value)?,
        HtmlChange::RemoveAttribute(name) => element.remove_attribute(name),
        HtmlChange::Remove => element.remove(),
        HtmlChange::Put(spot, markup, content) => {
            let kind = match markup {
                Markup::Text => ContentType::Text,
                Markup::Html => ContentType::Html,
            };
            match spot {
                Spot::Before => element.before(content, kind),
                Spot::Prepend => element.prepend(content, kind),
                Spot::Append => element.append(content, kind),
                Spot::After => element.after(content, kind),
                Spot::Inner => element.set_inner_content(content, kind),
                Spot::Replace => element.replace(content, kind),
            }
        }
    }
    Ok(())
}

struct Sink(Rc<RefCell<Vec<u8>>>);

impl OutputSink for Sink {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.borrow_mut().extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(select: &str, spot: Spot, markup: Markup, value: &str) -> HtmlEdit {
        HtmlEdit { select: select.to_owned(), change: HtmlChange::Put(spot, markup, value.to_owned()) }
    }

    fn rewrite(edits: &[HtmlEdit], pieces: &[&str]) -> Result<String, RewriteFault> {
        let mut rewriter = Rewriter::new(PageChanges { edits: edits.to_vec(), minify: false })?;
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(rewriter.push(piece.as_bytes())?);
        }
        out.extend(rewriter.finish()?);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_change_is_made() {
        let check = |edit: HtmlEdit, expect: &str| {
            for pieces in [&["<p><b id=x>a</b></p>"][..], &["<p><", "b id", "=x>a<", "/b></p>"]] {
                assert_eq!(rewrite(std::slice::from_ref(&edit), pieces).as_deref(), Ok(expect), "{edit:?}");
            }
        };
        let b = |spot| put("p > b", spot, Markup::Text, "<é>");
        check(b(Spot::Before), "<p>&lt;é&gt;<b id=x>a</b></p>");
        check(b(Spot::Prepend), "<p><b id=x>&lt;é&gt;a</b></p>");
        check(b(Spot::Append), "<p><b id=x>a&lt;é&gt;</b></p>");
        check(b(Spot::After), "<p><b id=x>a</b>&lt;é&gt;</p>");
        check(b(Spot::Inner), "<p><b id=x>&lt;é&gt;</b></p>");
        check(b(Spot::Replace), "<p>&lt;é&gt;</p>");
        check(put("b", Spot::Inner, Markup::Html, "<i>"), "<p><b id=x><i></b></p>");
        let change = |change| HtmlEdit { select: "#x".to_owned(), change };
        check(change(HtmlChange::Remove), "<p></p>");
        check(change(HtmlChange::RemoveAttribute("id".to_owned())), "<p><b>a</b></p>");
        let set = |name: &str, value: &str| HtmlChange::SetAttribute(name.to_owned(), value.to_owned());
        check(change(set("class", "a\"><script>")), "<p><b id=x class=\"a&quot;><script>\">a</b></p>");
        check(change(set("id", "y")), "<p><b id=\"y\">a</b></p>");
    }

    #[test]
    fn what_can_not_be_told_apart_is_no_page() {
        let edits = [put("p", Spot::Inner, Markup::Text, "")];
        let fault = rewrite(&edits, &["<select><xmp><script></xmp></select>"]).unwrap_err();
        assert!(fault.to_string().contains("ambiguous"), "{fault}");
        let changes = PageChanges { edits: edits.to_vec(), minify: false };
        let mut rewriter = Rewriter::new(changes).unwrap();
        let mut pushed = Ok(Vec::new());
        for _ in 0..=HTML_MEMORY_BYTES_MAX / 65_536 {
            pushed = pushed.and_then(|_| rewriter.push(format!("<p {}", "a".repeat(65_536)).as_bytes()));
        }
        let fault = pushed.unwrap_err();
        assert!(fault.to_string().contains("memory"), "{fault}");
    }

    #[test]
    fn selectors_are_checked() {
        for fine in
            ["p", "div.note > p:first-child", "a[href^=\"http:\" i]", "*", "#x, .y", "p:nth-of-type(2n+1)"]
        {
            assert_eq!(check_selector(fine), Ok(()), "{fine}");
        }
        for wrong in ["", "p +", "p + b", "p::before", "a:hover", "p[", "1"] {
            assert!(check_selector(wrong).is_err(), "{wrong}");
        }
    }
}
