//! The keys of a manifest: which this host reads, which it ignores, and which it refuses because what they ask for would be
//! missing.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{InvalidManifest, Source};

/// What this host reads (or may well leave unread, like a description) at each level; `*` stands for any name.
const KNOWN: &[(&str, &[&str])] = &[
    ("", &["spin_manifest_version", "application", "variables", "trigger", "component"]),
    ("application", &["name", "version", "description", "authors"]),
    ("variables.*", &["default", "required", "secret", "description"]),
    ("trigger", &["http"]),
    ("trigger.http", &["id", "component", "route", "executor"]),
    (
        "component.*",
        &[
            "source",
            "description",
            "files",
            "allowed_outbound_hosts",
            "key_value_stores",
            "variables",
            "environment",
            "build",
        ],
    ),
];

/// What Spin gives to a component, or keeps from it, and this host does not.
const REFUSED: &[(&str, &str, &str)] = &[
    ("component.*", "sqlite_databases", "this host has no SQLite databases"),
    ("component.*", "ai_models", "this host has no models"),
    ("component.*", "exclude_files", "this host mounts all files that `files` names"),
    ("component.*", "dependencies", "this host composes no components"),
];

/// The one key-value store that Spin has without a runtime configuration.
const DEFAULT_STORE: &str = "default";

/// Notes what is ignored or otherwise not as on Spin.
///
/// # Errors
/// Where a key can't be ignored.
pub(super) fn check(source: &Source<'_>) -> Result<Vec<InvalidManifest>, InvalidManifest> {
    let table = DeTable::parse(source.text).map_err(|error| source.syntax(String::new(), &error))?;
    let mut checked = Checked { source, notes: Vec::new() };
    checked.table(table.get_ref(), "", "")?;
    checked.notes.sort_by_key(|note| note.line);
    Ok(checked.notes)
}

struct Checked<'a> {
    source: &'a Source<'a>,
    notes: Vec<InvalidManifest>,
}

impl Checked<'_> {
    /// Checks the keys of `table`; `shape` is its path with `*` for free names, `path` its path as written.
    fn table(&mut self, table: &DeTable<'_>, shape: &str, path: &str) -> Result<(), InvalidManifest> {
        let known = KNOWN.iter().find(|(level, _)| *level == shape).map(|(_, keys)| *keys);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let here = join(path, name);
            if let Some((_, _, why)) =
                REFUSED.iter().find(|(level, refused, _)| *level == shape && *refused == name)
            {
                return Err(self.source.at(key, &here, format!("can't be honoured: {why}")));
            }
            if let Some(known) = known
                && !known.contains(&name)
            {
                let what = match shape {
                    "trigger" => "is ignored: this host serves HTTP triggers only",
                    _ => "is ignored: this host doesn't know it",
                };
                self.notes.push(self.source.at(key, &here, what.to_owned()));
                continue;
            }
            if name == "key_value_stores" {
                self.stores(value, &here);
            }
            self.value(value, &if known.is_some() { join(shape, name) } else { join(shape, "*") }, &here)?;
        }
        Ok(())
    }

    fn value(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        shape: &str,
        path: &str,
    ) -> Result<(), InvalidManifest> {
        let leads_on =
            KNOWN.iter().any(|(level, _)| *level == shape || level.starts_with(&format!("{shape}.")));
        match value.get_ref() {
            DeValue::Table(inner) if leads_on => self.table(inner, shape, path),
            DeValue::Array(items) if leads_on => items.iter().enumerate().try_for_each(|(index, item)| {
                let Some(inner) = item.get_ref().as_table() else { return Ok(()) };
                self.table(inner, shape, &format!("{path}[{index}]"))
            }),
            _ => Ok(()),
        }
    }

    /// Every label has a store here, on this machine's disk; Spin wants to be told what backs it.
    fn stores(&mut self, value: &Spanned<DeValue<'_>>, path: &str) {
        for label in value.get_ref().as_array().into_iter().flatten() {
            if let Some(name) = label.get_ref().as_str().filter(|name| *name != DEFAULT_STORE) {
                let what = format!(
                    "\"{name}\" is kept on this machine's disk; Spin has it only where its runtime configuration \
                     names a backend"
                );
                self.notes.push(self.source.at(label, path, what));
            }
        }
    }
}

fn join(parent: &str, child: &str) -> String {
    if parent.is_empty() { child.to_owned() } else { format!("{parent}.{child}") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Manifest;

    const GOOD: &str = r#"spin_manifest_version = 2
[application]
name = "shop"
[variables]
token = { default = "", secret = true }
[[trigger.http]]
route = "/..."
component = "edge"
[component.edge]
source = "edge.wasm"
key_value_stores = ["default"]
"#;

    fn parse(text: &str) -> Result<Vec<String>, String> {
        let manifest = Manifest::parse(Path::new("app/spin.toml"), text);
        manifest.map(|manifest| manifest.warnings).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_ignored_or_other_than_on_spin_is_said_with_its_line() {
        assert_eq!(parse(GOOD), Ok(Vec::new()));
        #[rustfmt::skip]
        let cases = [
            ("secret = true", "secret = true, hidden = true",
             "app/spin.toml:5: variables.token.hidden: is ignored: this host doesn't know it"),
            ("[[trigger.http]]", "[[trigger.redis]]\nchannel = \"x\"\ncomponent = \"edge\"\n[[trigger.http]]",
             "app/spin.toml:6: trigger.redis: is ignored: this host serves HTTP triggers only"),
            ("route =", "timeout = 5\nroute =",
             "app/spin.toml:7: trigger.http[0].timeout: is ignored: this host doesn't know it"),
            ("source =", "tool = { x = 1 }\nsource =",
             "app/spin.toml:10: component.edge.tool: is ignored: this host doesn't know it"),
            ("[\"default\"]", "[\"default\", \"sessions\"]",
             "app/spin.toml:11: component.edge.key_value_stores: \"sessions\" is kept on this machine's disk; Spin has \
              it only where its runtime configuration names a backend"),
        ];
        for (from, to, expected) in cases {
            assert!(GOOD.contains(from), "{from}");
            assert_eq!(parse(&GOOD.replace(from, to)), Ok(vec![expected.to_owned()]));
        }
    }

    #[test]
    fn what_would_be_missing_is_an_error_with_its_line() {
        #[rustfmt::skip]
        let cases = [
            ("sqlite_databases = [\"default\"]", "sqlite_databases: can't be honoured: this host has no SQLite databases"),
            ("ai_models = [\"llama2-chat\"]", "ai_models: can't be honoured: this host has no models"),
            ("exclude_files = [\"secret\"]", "exclude_files: can't be honoured: this host mounts all files that `files` names"),
            ("dependencies = { \"a:b\" = \"1\" }", "dependencies: can't be honoured: this host composes no components"),
        ];
        for (line, expected) in cases {
            let text = GOOD.replace("source =", &format!("{line}\nsource ="));
            assert_eq!(parse(&text), Err(format!("app/spin.toml:10: component.edge.{expected}")));
        }
    }
}
