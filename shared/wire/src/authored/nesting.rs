//! How deep the brackets of an expression are nested, before a parser whose stack grows by each of them sees it: it looks ahead
//! beyond its own limit of recursion.

/// The first bracket, by its character from 0, that opens more than `levels_max` levels outside of literals of text. Where a literal
/// does not end, brackets in it count too.
pub(super) fn first_beyond(text: &str, levels_max: usize) -> Option<usize> {
    match scan(text, levels_max, true) {
        Ok(found) => found,
        Err(Unended) => scan(text, levels_max, false).unwrap_or_default(),
    }
}

/// A literal that does not end.
struct Unended;

fn scan(text: &str, levels_max: usize, skip_literals: bool) -> Result<Option<usize>, Unended> {
    let mut levels = 0_usize;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        match letter {
            '(' | '[' | '{' => {
                levels += 1;
                if levels > levels_max {
                    let before = text.len().saturating_sub(rest.len());
                    return Ok(Some(text.get(..before).unwrap_or_default().chars().count()));
                }
            }
            ')' | ']' | '}' => levels = levels.saturating_sub(1),
            '"' | '\'' if skip_literals => {
                let before = text.len().saturating_sub(rest.len());
                let is_raw = text.get(..before).is_some_and(|text| text.ends_with(['r', 'R']));
                rest = behind_literal(rest, letter, is_raw).ok_or(Unended)?;
                continue;
            }
            _ => {}
        }
        rest = rest.get(letter.len_utf8()..).unwrap_or_default();
    }
    Ok(None)
}

/// What follows the literal that `text` begins with: between one or three quotes, with escapes unless it is raw.
fn behind_literal(text: &str, quote: char, is_raw: bool) -> Option<&str> {
    let triple: String = [quote; 3].iter().collect();
    let end = if text.starts_with(&triple) { triple.as_str() } else { triple.get(..1)? };
    let mut rest = text.get(end.len()..)?;
    while !rest.starts_with(end) {
        let mut letters = rest.chars();
        if letters.next()? == '\\' && !is_raw {
            letters.next()?;
        }
        rest = letters.as_str();
    }
    rest.get(end.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_outside_of_literals() {
        let check = |text: &str, expect: Option<usize>| assert_eq!(first_beyond(text, 2), expect, "{text}");
        check("a == [1, (2)] && f(g(1))", None);
        check("[[[1]]]", Some(2));
        check("é(((", Some(3));
        check(r#"a == "(((" && b == '[[['"#, None);
        check(r#"a == "\"(((" && (b)"#, None);
        check(r#"a == r"\" && (((b)))"#, Some(15));
        check(r#"a == """"(((""" && (b)"#, None);
        check(r#"a == "((("#, Some(8));
    }
}
