//! The fields of a `multipart/form-data` body (RFC 7578). Of a file its name is looked at, not what is in it.

use super::{End, Values, one, parameters};

/// Takes names and texts, part by part.
pub(super) fn read(text: &str, boundary: &str, whole: bool, values: &mut Values<'_>) -> Result<(), End> {
    let cut = if whole { Err(End::Malformed) } else { Ok(()) };
    let delimiter = format!("\r\n--{boundary}");
    let first = delimiter.trim_start();
    let Some(mut rest) = text.strip_prefix(first) else {
        return if first.starts_with(text) { cut } else { Err(End::Malformed) };
    };
    while !rest.starts_with("--") {
        let Some(part) = rest.strip_prefix("\r\n") else {
            return if ["-", "\r", ""].contains(&rest) { cut } else { Err(End::Malformed) };
        };
        let Some((head, content)) = part.split_once("\r\n\r\n") else { return cut };
        let (content, behind) = content
            .split_once(&delimiter)
            .map_or((content, None), |(content, behind)| (content, Some(behind)));
        field(head, content, values)?;
        match behind {
            Some(behind) => rest = behind,
            None => return cut,
        }
    }
    Ok(())
}

fn field(head: &str, content: &str, values: &mut Values<'_>) -> Result<(), End> {
    let mut disposition = None;
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or(End::Malformed)?;
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" if disposition.is_some() => return Err(End::Malformed),
            "content-disposition" => disposition = Some(value.trim()),
            // Not to be used any more (RFC 7578, section 4.7), and what it codes can't be seen.
            "content-transfer-encoding" if !is_plain(value) => return Err(End::Malformed),
            _ => {}
        }
    }
    let parameters = disposition
        .and_then(|value| {
            value.get(..9).filter(|kind| kind.eq_ignore_ascii_case("form-data")).and(value.get(9..))
        })
        .and_then(parameters)
        .ok_or(End::Malformed)?;
    let name = one(&parameters, "name").flatten().ok_or(End::Malformed)?;
    values.name(name, false)?;
    let mut is_file = false;
    for file_name in ["filename", "filename*"] {
        if let Some(file_name) = one(&parameters, file_name) {
            is_file = true;
            values.value(name, file_name.ok_or(End::Malformed)?, false)?;
        }
    }
    if is_file { Ok(()) } else { values.value(name, content, false) }
}

fn is_plain(coding: &str) -> bool {
    ["7bit", "8bit", "binary"].iter().any(|plain| coding.trim().eq_ignore_ascii_case(plain))
}
