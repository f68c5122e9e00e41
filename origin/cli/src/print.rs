//! What people read: errors with their line, tables; and JSON for machines.

use std::io::{self, Write as _};

use meridian_wire::authored::{File, FileKind, Invalid};
use serde_json::Value;

use crate::limits::SOURCE_COLUMNS_MAX;

/// Prints a line. A reader that has gone away is no error of ours.
pub fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints JSON.
pub fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Prints an error.
pub fn error(text: &str) {
    let _ = writeln!(io::stderr(), "error: {text}");
}

/// Prints a remark that is not the command's result.
pub fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Remarks which regions did not answer, so that a part is not taken for all.
pub fn away(answer: &Value) {
    if answer.get("away").and_then(Value::as_array).is_some_and(|away| !away.is_empty()) {
        remark(&format!("without {}, away now", cell(answer, "away")));
    }
}

/// What is wrong with files, each with its line and a caret below the place.
pub fn invalid(files: &[File], invalid: &[Invalid]) -> String {
    let mut text = String::new();
    for (index, one) in invalid.iter().enumerate() {
        text.push_str(&format!("{}{one}\n", if index == 0 { "" } else { "error: " }));
        text.push_str(&source(files, one).unwrap_or_default());
    }
    text.push_str(&count(invalid.len(), "error"));
    text
}

fn source(files: &[File], invalid: &Invalid) -> Option<String> {
    let shown = |file: &&File| file.path == invalid.file && file.kind() != FileKind::Component;
    let file = files.iter().find(shown)?;
    let line = file.content.lines().nth((invalid.line as usize).checked_sub(1)?)?;
    let column = (invalid.column as usize).saturating_sub(1);
    if line.trim().is_empty() || column >= SOURCE_COLUMNS_MAX {
        return None;
    }
    let number = invalid.line.to_string();
    let shown: String = line
        .chars()
        .take(SOURCE_COLUMNS_MAX)
        .map(|letter| if letter == '\t' { ' ' } else { letter })
        .collect();
    let margin = " ".repeat(number.len());
    Some(format!("  {number} | {shown}\n  {margin} | {}^\n", " ".repeat(column)))
}

/// A number of things: `1 test`, `2 tests`.
pub fn count(many: usize, thing: &str) -> String {
    format!("{many} {thing}{}", if many == 1 { "" } else { "s" })
}

/// Prints a table. A cell is at most 60 characters wide.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let cut = |cell: &str| {
        if cell.chars().count() > 60 {
            cell.chars().take(59).chain(['…']).collect()
        } else {
            cell.to_owned()
        }
    };
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| cut(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let print = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(head.to_vec());
    for row in &rows {
        print(row.iter().map(String::as_str).collect());
    }
}

/// A member of a JSON object as the text of a cell.
pub fn cell(value: &Value, member: &str) -> String {
    match value.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => other.to_string(),
    }
}
