//! Configurations with names to be filled in.

use anyhow::{Context as _, Result};

/// Replaces every `@NAME@` in a text by its value.
///
/// # Errors
/// When the text asks for a name that has no value.
pub fn fill_in(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find('@') {
        let (before, after) = rest.split_at(start);
        filled.push_str(before);
        let name = after[1..].split('@').next().unwrap_or_default();
        let is_name = !name.is_empty()
            && after[1..].len() > name.len()
            && name
                .chars()
                .all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_');
        if !is_name {
            filled.push('@');
            rest = &after[1..];
            continue;
        }
        let value = values.iter().find(|(known, _)| *known == name);
        let (_, value) = value.with_context(|| format!("the template asks for an unknown @{name}@"))?;
        filled.push_str(value);
        rest = &after[name.len() + 2..];
    }
    filled.push_str(rest);
    Ok(filled)
}

/// As [`fill_in`], for Cap'n Proto: values are escaped for the quotes around them.
///
/// # Errors
/// As [`fill_in`].
pub fn fill_in_quoted(template: &str, values: &[(&str, String)]) -> Result<String> {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
    let escaped: Vec<(&str, String)> = values.iter().map(|(name, value)| (*name, escape(value))).collect();
    fill_in(template, &escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_escaped() {
        let values = [("LISTEN", "127.0.0.1:1".to_owned()), ("ODD_2", "a\"b\\c@LISTEN@".to_owned())];
        let template = "x = \"@LISTEN@\"; e@mail; y = \"@ODD_2@\" @";
        let plain = fill_in(template, &values).unwrap();
        assert_eq!(plain, "x = \"127.0.0.1:1\"; e@mail; y = \"a\"b\\c@LISTEN@\" @");
        let quoted = fill_in_quoted(template, &values).unwrap();
        assert_eq!(quoted, "x = \"127.0.0.1:1\"; e@mail; y = \"a\\\"b\\\\c@LISTEN@\" @");
        assert!(fill_in("@NEW_THING@", &values).unwrap_err().to_string().contains("@NEW_THING@"));
    }
}
