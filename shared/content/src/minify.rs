//! Minification of pages as they stream: comments are removed, and each run of white space between two tags or comments
//! becomes one space, outside of elements where that could be seen. Cloudflare's edge has the same in `content.js`, in the
//! same words: what changes here changes there.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use lol_html::html_content::{Comment, ContentType, Element, EndTag, TextChunk};
use lol_html::{DocumentContentHandlers, ElementContentHandlers, Selector, Settings};
use meridian_engine::ruleset::PageChanges;

/// White space of HTML: no-break spaces and the like are text.
const SPACES: [char; 5] = ['\t', '\n', '\x0c', '\r', ' '];

/// Adds what minifies to a rewriter; `left` matches the elements that are left as they are.
pub(crate) fn minify(settings: Settings<'static, 'static>, left: Selector) -> Settings<'static, 'static> {
    let memory = Rc::new(RefCell::new(Memory::default()));
    let [of_elements, of_texts, of_comments] = [Rc::clone(&memory), Rc::clone(&memory), memory];
    let elements = ElementContentHandlers::default().element(move |element: &mut Element<'_, '_>| {
        // There is none of what has no content: `<style/>` in SVG.
        if let Some(handlers) = element.end_tag_handlers() {
            of_elements.borrow_mut().depth += 1;
            let memory = Rc::clone(&of_elements);
            handlers.push(Box::new(move |_: &mut EndTag<'_>| {
                memory.borrow_mut().depth -= 1;
                Ok(())
            }));
        }
        Ok(())
    });
    let document = DocumentContentHandlers::default()
        .text(move |chunk: &mut TextChunk<'_>| {
            of_texts.borrow_mut().text(chunk);
            Ok(())
        })
        .comments(move |comment: &mut Comment<'_>| {
            of_comments.borrow().comment(comment);
            Ok(())
        });
    settings
        .append_element_content_handler((Cow::Owned(left), elements))
        .append_document_content_handler(document)
}

/// What goes on over pieces of a page.
#[derive(Default)]
struct Memory {
    /// Elements that are left as they are and have not ended.
    depth: usize,
    /// Whether the text so far ends with white space.
    is_after_space: bool,
    /// Whether the text so far ends with `<`, or with `&` and what may be the rest of a character reference: what comes
    /// behind a comment would go on with it if the comment were gone, and `<<!-- -->b>` would be a tag.
    is_unfinished: bool,
}

impl Memory {
    fn text(&mut self, chunk: &mut TextChunk<'_>) {
        if self.depth > 0 {
            return;
        }
        let text = chunk.as_str();
        let is_of_reference = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'#';
        if let Some(last) = text.bytes().rev().find(|byte| !is_of_reference(*byte)) {
            self.is_unfinished = matches!(last, b'<' | b'&');
        }
        let short = self.shortened(text);
        if short != text {
            chunk.replace(&short, ContentType::Html);
        }
        if chunk.last_in_text_node() {
            self.is_after_space = false;
        }
    }

    fn shortened(&mut self, text: &str) -> String {
        let mut short = String::with_capacity(text.len());
        for letter in text.chars() {
            let is_space = SPACES.contains(&letter);
            match (is_space, self.is_after_space) {
                (true, true) => {}
                (true, false) => short.push(' '),
                (false, _) => short.push(letter),
            }
            self.is_after_space = is_space;
        }
        short
    }

    fn comment(&self, comment: &mut Comment<'_>) {
        if self.depth > 0 || self.is_unfinished {
            return;
        }
        let text = comment.text();
        let text = text.trim_start_matches(SPACES);
        if !PageChanges::KEPT_COMMENTS.iter().any(|beginning| text.starts_with(beginning)) {
            comment.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use meridian_engine::ruleset::{HtmlChange, HtmlEdit, Markup, Spot};
    use proptest::prelude::*;

    use super::*;
    use crate::{RewriteFault, Rewriter, rewrite_whole};

    fn minified(page: &str) -> String {
        let changes = PageChanges { edits: Vec::new(), minify: true };
        String::from_utf8(rewrite_whole(changes, page.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn runs_of_white_space_become_one_space() {
        let check = |page: &str, expect: &str| assert_eq!(minified(page), expect, "{page:?}");
        check("<p>\n  a \t b\r\n\x0cc  </p>\n\n", "<p> a b c </p> ");
        check("a  <b>  b  </b>  c", "a <b> b </b> c");
        check("  <!doctype html>\n<title>\n a  b </title>", " <!doctype html> <title> a b </title>");
        check("\u{a0}\u{a0} \u{2003}&#32;&#32;&nbsp; &nbsp;", "\u{a0}\u{a0} \u{2003}&#32;&#32;&nbsp; &nbsp;");
        check("<a  title='a  b'\n href=c >  d</a  >", "<a  title='a  b'\n href=c > d</a  >");
        check("1  <  2 &  3", "1 < 2 & 3");
        check("", "");
        check("a\nb", "a b");
    }

    #[test]
    fn elements_where_white_space_counts_are_left() {
        for name in PageChanges::LEFT_ELEMENTS.split(", ").filter(|name| *name != "plaintext") {
            let left = format!("<{name} a>\n a  b\n</{name}>");
            assert_eq!(minified(&format!("a  {left}  b")), format!("a {left} b"));
        }
        let check = |page: &str, expect: &str| assert_eq!(minified(page), expect, "{page:?}");
        check("a  <plaintext>  b  </plaintext>  c", "a <plaintext>  b  </plaintext>  c");
        check("<PRE> <pre>  </pre>  <b>  </b> </PRE>  a", "<PRE> <pre>  </pre>  <b>  </b> </PRE> a");
        check("<pre><!-- a -->\n</pre><!-- a -->", "<pre><!-- a -->\n</pre>");
        check("<div><pre>  a</div>  b", "<div><pre>  a</div> b");
        check("</pre>  a", "</pre> a");
        check("<pre>  a", "<pre>  a");
        check("<svg><style/>  <text>  a</text>  </svg>  b", "<svg><style/> <text>  a</text> </svg> b");
        check("<noscript>  <img alt='a  b'></noscript>  c", "<noscript>  <img alt='a  b'></noscript> c");
        check("<script>a  <!-- b -->  c</script>", "<script>a  <!-- b -->  c</script>");
    }

    #[test]
    fn comments_are_removed_but_for_some() {
        let check = |page: &str, expect: &str| assert_eq!(minified(page), expect, "{page:?}");
        check("<!-- a --><p>a<!-- <b>  --></p><!---->", "<p>a</p>");
        check("a  <!-- b -->  c", "a  c");
        check("a<!-- to the end", "a");
        check("a</ b>c<!d>e", "ace");
        for kept in [
            "<!--[if lt IE 9]>  <b>  <![endif]-->",
            "<!--[if !IE]><!-->",
            "<!--[if !IE]> -->",
            "<!--<![endif]-->",
            "<!-- <![endif]-->",
            "<![if !IE]>",
            "<![endif]>",
            "<!--#include virtual=\"a\" -->",
            "<!-- #include file=\"a\" -->",
            "<!--esi  <p>  -->",
            "<!--! Licence  MIT -->",
            "<?php  a ?>",
        ] {
            assert_eq!(minified(&format!("a  {kept}  b")), format!("a {kept} b"));
        }
    }

    #[test]
    fn a_comment_that_keeps_two_texts_apart_stays() {
        let stays = |page: &str| assert_eq!(minified(page), page);
        stays("<<!-- -->b>");
        stays("&l<!-- -->t;");
        stays("&<!-- --><!-- -->amp;");
        stays("&#3<!-- -->8;");
        let goes = |page: &str, expect: &str| assert_eq!(minified(page), expect, "{page:?}");
        goes("&lt;<!-- -->b>", "&lt;b>");
        goes("a & b<!-- -->", "a & b");
        goes("< <!-- -->b>", "< b>");
    }

    #[test]
    fn what_edits_put_in_stays_as_it_is() {
        let put = |select: &str, spot| HtmlEdit {
            select: select.to_owned(),
            change: HtmlChange::Put(spot, Markup::Html, "<i>  <!-- a --></i>".to_owned()),
        };
        let remove = HtmlEdit { select: "pre.x".to_owned(), change: HtmlChange::Remove };
        let edits = vec![put("b", Spot::Append), put("pre.y", Spot::Replace), remove];
        let changes = PageChanges { edits, minify: true };
        let page = rewrite_whole(changes, b"<b>  a</b>  <pre class=y>  b</pre>  <pre class=x>  </pre>  c");
        let expect = "<b> a<i>  <!-- a --></i></b> <i>  <!-- a --></i>  c";
        assert_eq!(String::from_utf8(page.unwrap()).unwrap(), expect);
    }

    /// Pages of what matters here, well-formed or not.
    fn page() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(vec![
            " ",
            "  ",
            "\n\t",
            "a",
            "é",
            "&",
            "&amp;",
            "<",
            ">",
            "/",
            "-",
            "<!--",
            "-->",
            "<!-- a  b -->",
            "<!--[if IE]>",
            "<!--!a-->",
            "<b>",
            "</b>",
            "<p a='  b'>",
            "<pre>",
            "</pre>",
            "<div>",
            "</div>",
            "<textarea>",
            "</textarea>",
            "<script>",
            "</script>",
            "<svg>",
            "</svg>",
            "<style/>",
            "<![CDATA[",
            "]]>",
            "</>",
        ]);
        let bytes = prop::collection::vec(any::<u8>(), 1..3);
        let part = prop_oneof![30 => part.prop_map(|part| part.as_bytes().to_vec()), 1 => bytes];
        prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

        #[test]
        fn pages_are_minified_alike_however_they_are_cut(page in page(), pieces in prop::collection::vec(1..9_usize, 1..40)) {
            let changes = || PageChanges { edits: Vec::new(), minify: true };
            let whole = rewrite_whole(changes(), &page);
            let in_pieces = || -> Result<Vec<u8>, RewriteFault> {
                let mut rewriter = Rewriter::new(changes())?;
                let (mut out, mut rest) = (Vec::new(), page.as_slice());
                for bytes in pieces.iter().cycle() {
                    let (piece, behind) = rest.split_at((*bytes).min(rest.len()));
                    out.extend(rewriter.push(piece)?);
                    rest = behind;
                    if rest.is_empty() {
                        break;
                    }
                }
                out.extend(rewriter.finish()?);
                Ok(out)
            };
            prop_assert_eq!(&in_pieces(), &whole);
            let longer = whole.is_ok_and(|whole| whole.len() > String::from_utf8_lossy(&page).len());
            prop_assert!(!longer, "{:?}", page);
        }
    }
}
