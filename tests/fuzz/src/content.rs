//! Content: codings and HTML rewriting, a piece at a time.

use std::io::Read as _;

use meridian_content::{Coder, Rewriter, rewrite_whole};
use meridian_engine::ruleset::{Coding, HtmlChange, HtmlEdit, Markup, PageChanges, Spot};

/// The first two bytes say where it is cut into pieces, how it is coded and whether it is minified; the rest is a page.
pub fn content(data: &[u8]) {
    let [cut, coding, page @ ..] = data else { return };
    let piece = usize::from(*cut).max(1);
    codes(page, piece, *coding);
    rewrites(page, piece, *coding & 0x40 != 0);
}

/// What is coded in pieces, with pauses, is the body again once it is decoded.
fn codes(body: &[u8], piece: usize, choice: u8) {
    let coding = [Coding::Gzip, Coding::Brotli, Coding::Zstd][usize::from(choice % 3)];
    let mut coder = Coder::new(coding);
    let mut coded = Vec::new();
    for (at, part) in body.chunks(piece).enumerate() {
        coded.extend(coder.push(part).expect("memory takes what is written"));
        if choice & 0x80 != 0 && at % 3 == 0 {
            coded.extend(coder.flush().expect("memory takes what is written"));
        }
    }
    coded.extend(coder.finish().expect("memory takes what is written"));
    let mut decoded = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(&*coded).read_to_end(&mut decoded).map(drop),
        Coding::Brotli => brotli::BrotliDecompress(&mut &*coded, &mut decoded),
        Coding::Zstd => frames(&coded, &mut decoded),
    }
    .expect("what was coded can be decoded");
    assert!(decoded == body, "{coding:?} in pieces of {piece}");
}

/// A body in Zstandard is one frame after the other (RFC 8878, section 3.1).
fn frames(mut coded: &[u8], decoded: &mut Vec<u8>) -> std::io::Result<()> {
    while !coded.is_empty() {
        let frame = ruzstd::decoding::StreamingDecoder::new(&mut coded);
        frame.map_err(std::io::Error::other)?.read_to_end(decoded)?;
    }
    Ok(())
}

fn changes(minify: bool) -> PageChanges {
    let edit = |select: &str, change| HtmlEdit { select: select.to_owned(), change };
    let text = || "<&>".to_owned();
    let edits = vec![
        edit("a[href]", HtmlChange::SetAttribute("rel".to_owned(), "\"'<".to_owned())),
        edit("script", HtmlChange::Remove),
        edit("p.b", HtmlChange::Put(Spot::Inner, Markup::Text, text())),
        edit("head", HtmlChange::Put(Spot::Append, Markup::Html, "<meta name=x>".to_owned())),
        edit("img", HtmlChange::RemoveAttribute("onerror".to_owned())),
        edit("b > i", HtmlChange::Put(Spot::Replace, Markup::Text, text())),
    ];
    PageChanges { edits, minify }
}

/// A page comes out alike in whatever pieces it came.
fn rewrites(page: &[u8], piece: usize, minify: bool) {
    let whole = rewrite_whole(changes(minify), page);
    let pieces = || {
        let mut rewriter = Rewriter::new(changes(minify))?;
        let mut out = Vec::new();
        for part in page.chunks(piece) {
            out.extend(rewriter.push(part)?);
        }
        out.extend(rewriter.finish()?);
        Ok(out)
    };
    let pieces: Result<Vec<u8>, meridian_content::RewriteFault> = pieces();
    assert_eq!(whole.is_ok(), pieces.is_ok(), "{whole:?} or {pieces:?}");
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert!(whole == pieces, "in pieces of {piece}");
    }
}
