//! One spelling for what means the same to those who are attacked.

use std::borrow::Cow;

/// A decoded text in lower case, with full-width letters as plain ones, character references of HTML resolved, comments
/// of SQL taken out (those that MySQL runs opened), zero-width and zero bytes taken out, and white space as single spaces.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.~".contains(&byte);
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(without_comments(&letters(text)))
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
    const NAMED: [(&str, char); 10] = [
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

/// Without comments, white space as single spaces.
fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    let last_end = text.rfind("*/");
    // Ends of comments that MySQL runs, still to be taken out.
    let mut open = 0u32;
    while let Some(letter) = rest.chars().next() {
        rest = match rest.strip_prefix("/*") {
            Some(inside) if inside.starts_with('!') => {
                open += 1;
                space(&mut plain);
                inside.trim_start_matches('!').trim_start_matches(|digit: char| digit.is_ascii_digit())
            }
            Some(inside) if last_end.is_some_and(|end| text.len() - inside.len() <= end) => {
                space(&mut plain);
                inside.split_once("*/").map_or("", |(_, behind)| behind)
            }
            _ if open > 0 && rest.starts_with("*/") => {
                open -= 1;
                space(&mut plain);
                rest.get(2..).unwrap_or_default()
            }
            _ => {
                if letter.is_whitespace() || letter.is_control() {
                    space(&mut plain);
                } else {
                    plain.push(letter);
                }
                rest.get(letter.len_utf8()..).unwrap_or_default()
            }
        };
    }
    plain
}

fn space(text: &mut String) {
    if !text.ends_with(' ') {
        text.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_one() {
        let check = |text: &str, expect: &str| assert_eq!(fold(text), expect, "{text:?}");
        check("plain-text_1.0~", "plain-text_1.0~");
        check("UNION/**/ALL\t\n SELECT", "union all select");
        check("/*!50000UNION*/ SELECT 1 /* not closed", " union select 1 /* not closed");
        check("\u{ff1c}script\u{ff1e}", "<script>");
        check("&#106;ava&#x73;cript&colon;a&Tab;b &amp &#xffffff; &lt;", "javascript:a b &amp &#xffffff; <");
        check("se\0l\u{200b}ect ſ\u{212a}", "select sk");
        check("O’Reilly 🎉", "o’reilly 🎉");
    }
}
