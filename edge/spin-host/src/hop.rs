//! Header fields of a response that belong to one connection (RFC 9110, section 7.6.1). Components never see `Connection`,
//! so that only the host can know which fields it names.

use http::{HeaderMap, HeaderName, header};

/// Removes the fields that `Connection` names.
pub fn remove_nominated(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // These frame the message, whatever `Connection` says of them.
        .filter(|name| {
            *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING && *name != header::HOST
        })
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_goes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-hop, Close"),
            ("connection", "x-other , content-length"),
            ("x-hop", "1"),
            ("x-other", "2"),
            ("x-stays", "3"),
            ("content-length", "0"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        remove_nominated(&mut headers);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "content-length", "x-stays"]);
    }
}
