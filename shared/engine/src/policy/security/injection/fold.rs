//! One spelling for what means the same to those who are attacked.

use std::borrow::Cow;

/// What browsers leave out of a URL wherever it stands (URL standard, section 4.4).
const LEFT_OUT_OF_URLS: [char; 3] = ['\t', '\n', '\r'];

/// The spellings of a decoded text that rules are searched in. One is never taken for another: what is a comment to a database is
/// text to a browser.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Folded<'a> {
    /// In lower case, with full-width letters as plain ones, character references of HTML resolved, zero-width and zero bytes
    /// taken out, and white space as single spaces, as well as bytes that are no UTF-8: a database may read `%a0` as a space.
    pub text: Cow<'a, str>,
    /// The same with comments of SQL as spaces and those that MySQL runs opened, where there are any.
    pub uncommented: Option<String>,
    /// The same without tabs and line breaks, where there are any.
    pub url: Option<String>,
}

/// Folds a decoded text.
pub(super) fn fold(text: &str) -> Folded<'_> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.~".contains(&byte);
    if text.bytes().all(is_plain) {
        return Folded { text: Cow::Borrowed(text), uncommented: None, url: None };
    }
    let letters = letters(text);
    let has_breaks = letters.contains(LEFT_OUT_OF_URLS);
    let has_comments =
        letters.contains("/*") || has_breaks && (letters.contains('#') || letters.contains("--"));
    Folded {
        uncommented: has_comments.then(|| without_comments(&letters)),
        url: has_breaks.then(|| spaced(&letters.replace(LEFT_OUT_OF_URLS, ""))),
        text: Cow::Owned(spaced(&letters)),
    }
}

/// Every letter folded, references of HTML resolved.
fn letters(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let (letter, behind) = match reference(rest) {
            Some((letter, behind)) => (letter, behind),
            None => (letter, rest.get(letter.len_utf8()..).unwrap_or_default()),
        };
        rest = behind;
        match letter {
            '\0' | '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => {}
            '\u{ff01}'..='\u{ff5e}' => {
                let plain = u32::from(letter) - 0xff00 + 0x20;
                folded.push(char::from_u32(plain).unwrap_or(letter).to_ascii_lowercase());
            }
            // Databases take these for an s and a k.
            '\u{17f}' => folded.push('s'),
            '\u{212a}' => folded.push('k'),
            '\u{2018}' | '\u{2019}' | '\u{2b9}' | '\u{2bc}' => folded.push('’'),
            _ => folded.push(letter.to_ascii_lowercase()),
        }
    }
    folded
}

/// A character reference at the beginning of a text (HTML, section 13.5), and what follows it.
fn reference(text: &str) -> Option<(char, &str)> {
    const NAMED: [(&str, char); 13] = [
        ("lt;", '<'),
        ("gt;", '>'),
        ("quot;", '"'),
        ("apos;", '\''),
        ("amp;", '&'),
        ("colon;", ':'),
        ("lpar;", '('),
        ("rpar;", ')'),
        ("tab;", '\t'),
        ("newline;", '\n'),
        ("sol;", '/'),
        ("equals;", '='),
        ("grave;", '`'),
    ];
    let rest = text.strip_prefix('&')?;
    if let Some(number) = rest.strip_prefix('#') {
        let (digits, radix) =
            number.strip_prefix(['x', 'X']).map_or((number, 10), |hexadecimal| (hexadecimal, 16));
        let end = digits.find(|digit: char| !digit.is_digit(radix)).unwrap_or(digits.len());
        let (digits, behind) = digits.split_at_checked(end)?;
        let letter = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
        return Some((letter, behind.strip_prefix(';').unwrap_or(behind)));
    }
    NAMED.into_iter().find_map(|(name, letter)| {
        let is_named = rest.get(..name.len())?.eq_ignore_ascii_case(name);
        is_named.then(|| rest.get(name.len()..).map(|behind| (letter, behind)))?
    })
}

/// White space as single spaces.
fn spaced(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    text.chars().for_each(|letter| push(&mut plain, letter));
    plain
}

/// The same without comments: `/*` to `*/`, and `--` and `#` to the end of their line.
fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    let (last_end, last_break) = (text.rfind("*/"), text.rfind(['\n', '\r']));
    // Ends of comments that MySQL runs, still to be taken out.
    let mut open = 0u32;
    while let Some(letter) = rest.chars().next() {
        let is_before_a_break = last_break.is_some_and(|end| text.len() - rest.len() < end);
        rest = match rest.strip_prefix("/*") {
            Some(inside) if inside.starts_with('!') => {
                open += 1;
                push(&mut plain, ' ');
                inside.trim_start_matches('!').trim_start_matches(|digit: char| digit.is_ascii_digit())
            }
            Some(inside) if last_end.is_some_and(|end| text.len() - inside.len() <= end) => {
                push(&mut plain, ' ');
                inside.split_once("*/").map_or("", |(_, behind)| behind)
            }
            _ if open > 0 && rest.starts_with("*/") => {
                open -= 1;
                push(&mut plain, ' ');
                rest.get(2..).unwrap_or_default()
            }
            _ if (letter == '#' || rest.starts_with("--")) && is_before_a_break => {
                push(&mut plain, ' ');
                rest.split_once(['\n', '\r']).map_or("", |(_, behind)| behind)
            }
            _ => {
                push(&mut plain, letter);
                rest.get(letter.len_utf8()..).unwrap_or_default()
            }
        };
    }
    plain
}

/// Adds a letter, of spaces in a row the first alone.
fn push(text: &mut String, letter: char) {
    let is_space = letter.is_whitespace() || letter.is_control() || letter == char::REPLACEMENT_CHARACTER;
    if !is_space {
        text.push(letter);
    } else if !text.ends_with(' ') {
        text.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_one() {
        let check = |text: &str, expect: &str| assert_eq!(fold(text).text, expect, "{text:?}");
        check("plain-text_1.0~", "plain-text_1.0~");
        check("UNION\t\n ALL\u{a0}\u{fffd}SELECT", "union all select");
        check("/*<SCRIPT>*/", "/*<script>*/");
        check("\u{ff1c}script\u{ff1e}", "<script>");
        check("&#106;ava&#x73;cript&colon;a&Tab;b &amp &#xffffff; &lt;", "javascript:a b &amp &#xffffff; <");
        check("a&equals;b&sol;c", "a=b/c");
        check("se\0l\u{200b}ect ſ\u{212a}", "select sk");
        check("O’Reilly 🎉", "o’reilly 🎉");
    }

    #[test]
    fn comments_of_a_database_are_spaces_to_it_alone() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(fold(text).uncommented.as_deref(), expect, "{text:?}");
        };
        check("UNION SELECT -- 1 # 2", None);
        check("UNION/**/ALL\t\n SELECT", Some("union all select"));
        check("/*!50000UNION*/ SELECT 1 /* not closed", Some(" union select 1 /* not closed"));
        check("UNION#x\nSELECT--y z\r\n1", Some("union select 1"));
        check("1\n-- to the end", Some("1 -- to the end"));
        check("/*' OR 1=1*/", Some(" "));
    }

    #[test]
    fn a_browser_leaves_tabs_and_line_breaks_out_of_a_url() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(fold(text).url.as_deref(), expect, "{text:?}");
        };
        check("java script:x", None);
        check("Java\tScr\r\nipt:x y", Some("javascript:x y"));
        check("java&Tab;scr&#10;ipt:x", Some("javascript:x"));
    }
}
