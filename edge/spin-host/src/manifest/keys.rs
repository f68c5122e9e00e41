//! The keys of a manifest: which Spin has, which of them this host ignores, and which it refuses because what they ask for
//! would be missing.

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{InvalidManifest, Source};
use crate::routes::WELL_KNOWN;

/// The keys that Spin has at each level, as far as this host looks; `*` stands for any name. Those for tools alone, such as
/// `build`, `targets` and `tool`, say nothing of how an application runs.
const KNOWN: &[(&str, &[&str])] = &[
    ("", &["spin_manifest_version", "application", "variables", "trigger", "component"]),
    ("application", &["name", "version", "description", "authors", "targets", "trigger", "tool"]),
    ("variables.*", &["default", "required", "secret", "description"]),
    (
        "trigger.http",
        &["id", "component", "components", "dependencies", "static_response", "route", "executor"],
    ),
    ("trigger.http.route", &["private"]),
    ("trigger.http.executor", &["type", "argv", "entrypoint"]),
    (
        "component.*",
        &[
            "source",
            "description",
            "files",
            "exclude_files",
            "allowed_outbound_hosts",
            "allowed_http_hosts",
            "key_value_stores",
            "sqlite_databases",
            "ai_models",
            "variables",
            "environment",
            "dependencies",
            "dependencies_inherit_configuration",
            "profile",
            "targets",
            "build",
            "tool",
        ],
    ),
    ("component.*.files", &["source", "destination"]),
    ("component.*.build", &["command", "workdir", "watch"]),
];

/// What Spin does for an application and this host does not: without it the application would be another.
const REFUSED: &[(&str, &str, &str)] = &[
    ("application.trigger", "http", "Spin wants each route whole under [[trigger.http]]"),
    ("trigger.http", "dependencies", "this host composes no components, so that no middleware would run"),
    ("trigger.http", "components", "this host runs one component for a trigger"),
    ("trigger.http", "static_response", "this host answers by components alone"),
    ("component.*", "allowed_http_hosts", "`allowed_outbound_hosts` has taken its place"),
    ("component.*", "sqlite_databases", "this host has no SQLite databases"),
    ("component.*", "ai_models", "this host has no models"),
    ("component.*", "exclude_files", "this host mounts all files that `files` names"),
    ("component.*", "dependencies", "this host composes no components"),
    ("component.*", "dependencies_inherit_configuration", "this host composes no components"),
];

/// The one key-value store that Spin has without a runtime configuration.
const DEFAULT_STORE: &str = "default";

/// Notes what is ignored or otherwise not as on Spin.
///
/// # Errors
/// Where a key can't be ignored, and where Spin itself would refuse it.
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
            let name: &str = key.get_ref();
            let here = join(path, name);
            if let Some((_, _, why)) =
                REFUSED.iter().find(|(level, refused, _)| *level == shape && *refused == name)
                && !is_empty(value.get_ref())
            {
                return Err(self.source.at(key, &here, format!("can't be honoured: {why}")));
            }
            if known.is_some_and(|known| !known.contains(&name)) {
                let what = "is refused by Spin, which has no such key here".to_owned();
                return Err(self.source.at(key, &here, what));
            }
            self.meaning(shape, key, value, &here)?;
            // What is below a kind of trigger depends on which.
            let kept = known.is_some() || shape.ends_with("trigger");
            self.value(value, &join(shape, if kept { name } else { "*" }), &here)?;
        }
        Ok(())
    }

    fn value(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        shape: &str,
        path: &str,
    ) -> Result<(), InvalidManifest> {
        let below = format!("{shape}.");
        let mut levels =
            KNOWN.iter().map(|(level, _)| *level).chain(REFUSED.iter().map(|(level, _, _)| *level));
        let leads_on = levels.any(|level| level == shape || level.starts_with(&below));
        match value.get_ref() {
            DeValue::Table(inner) if leads_on => self.table(inner, shape, path),
            DeValue::Array(items) if leads_on => items.iter().enumerate().try_for_each(|(index, item)| {
                let Some(inner) = item.get_ref().as_table() else { return Ok(()) };
                self.table(inner, shape, &format!("{path}[{index}]"))
            }),
            _ => Ok(()),
        }
    }

    /// What is to be said of one key for its value's sake.
    fn meaning(
        &mut self,
        shape: &str,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        path: &str,
    ) -> Result<(), InvalidManifest> {
        let name: &str = key.get_ref();
        match (shape, name) {
            ("trigger", "http") => {}
            ("trigger", _) => {
                self.note(key, path, "is ignored: this host serves HTTP triggers only");
            }
            ("trigger.http", "component") if value.get_ref().is_table() => {
                let what = "can't be honoured: this host runs components that stand under [component.NAME]";
                return Err(self.source.at(key, path, what.to_owned()));
            }
            ("trigger.http", "route") => self.route(value, path),
            ("variables", _) => self.variable(key, value, path)?,
            ("component.*", "key_value_stores") => self.stores(value, path),
            ("component.*", "profile") => {
                self.note(key, path, "is not used: this host runs what `spin up` runs without --profile");
            }
            _ => {}
        }
        Ok(())
    }

    fn route(&mut self, value: &Spanned<DeValue<'_>>, path: &str) {
        if value.get_ref().is_table() {
            let what = "is not served: components can't ask each other here (service chaining)";
            self.note(value, path, what);
        } else if value.get_ref().as_str().is_some_and(|route| route.starts_with(WELL_KNOWN)) {
            self.note(value, path, "is never reached: Spin and this host answer there themselves");
        }
    }

    /// A variable is required or has a default, and never both.
    fn variable(
        &self,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        path: &str,
    ) -> Result<(), InvalidManifest> {
        let Some(variable) = value.get_ref().as_table() else { return Ok(()) };
        let required = match variable.get("required") {
            None => false,
            Some(required) => required.get_ref().as_bool().ok_or_else(|| {
                let what = "expected true or false".to_owned();
                self.source.at(required, &join(path, "required"), what)
            })?,
        };
        let found = match (required, variable.contains_key("default")) {
            (true, true) => "both",
            (false, false) => "neither",
            _ => return Ok(()),
        };
        let what = format!("expected either `required = true` or a default, found {found}");
        Err(self.source.at(key, path, what))
    }

    /// Every label has a store here, on this machine's disk; Spin wants to be told what backs it.
    fn stores(&mut self, value: &Spanned<DeValue<'_>>, path: &str) {
        for label in value.get_ref().as_array().into_iter().flatten() {
            if let Some(name) = label.get_ref().as_str().filter(|name| *name != DEFAULT_STORE) {
                let what = format!(
                    "\"{name}\" is kept on this machine's disk; Spin has it only where its runtime configuration \
                     names a backend"
                );
                self.note(label, path, &what);
            }
        }
    }

    fn note<T>(&mut self, place: &Spanned<T>, path: &str, what: &str) {
        self.notes.push(self.source.at(place, path, what.to_owned()));
    }
}

/// Whether a value asks for nothing, as if its key were not there.
fn is_empty(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Array(items) => items.is_empty(),
        DeValue::Table(table) => table.is_empty(),
        _ => false,
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
        #[rustfmt::skip]
        let cases = [
            ("[[trigger.http]]", "[[trigger.redis]]\nchannel = \"x\"\ncomponent = \"edge\"\n[[trigger.http]]",
             "app/spin.toml:6: trigger.redis: is ignored: this host serves HTTP triggers only"),
            ("[[trigger.http]]", "[[trigger.http]]\nroute = { private = true }\ncomponent = \"edge\"\n[[trigger.http]]",
             "app/spin.toml:7: trigger.http[0].route: is not served: components can't ask each other here (service \
              chaining)"),
            ("[[trigger.http]]", "[[trigger.http]]\nroute = \"/.well-known/spin/x\"\ncomponent = \"edge\"\n[[trigger.http]]",
             "app/spin.toml:7: trigger.http[0].route: is never reached: Spin and this host answer there themselves"),
            ("source =", "profile = { debug = { source = \"debug.wasm\" } }\nsource =",
             "app/spin.toml:10: component.edge.profile: is not used: this host runs what `spin up` runs without --profile"),
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
    fn what_is_for_tools_or_asks_for_nothing_is_not_spoken_of() {
        assert_eq!(parse(GOOD), Ok(Vec::new()));
        #[rustfmt::skip]
        let cases = [
            ("name = \"shop\"", "name = \"shop\"\nauthors = [\"a\"]\ntargets = [\"spin-up:4.1\"]\ntool = { x = { y = 1 } }"),
            ("name = \"shop\"", "name = \"shop\"\ntrigger = { redis = { address = \"redis://h\" } }"),
            ("route =", "id = \"all\"\ndependencies = {}\nroute ="),
            ("source =", "targets = []\ntool = { x = { y = 1 } }\nbuild = { command = \"make\", watch = [] }\nsource ="),
            ("source =", "sqlite_databases = []\nexclude_files = []\nallowed_http_hosts = []\nsource ="),
        ];
        for (from, to) in cases {
            assert!(GOOD.contains(from), "{from}");
            assert_eq!(parse(&GOOD.replace(from, to)), Ok(Vec::new()), "{to}");
        }
    }

    #[test]
    fn what_would_be_missing_is_an_error_with_its_line() {
        #[rustfmt::skip]
        let cases = [
            ("[variables]", "[application.trigger.http]\nbase = \"/shop\"\n[variables]",
             "4: application.trigger.http: can't be honoured: Spin wants each route whole under [[trigger.http]]"),
            ("route =", "dependencies = { middleware = [{ path = \"auth.wasm\" }] }\nroute =",
             "7: trigger.http[0].dependencies: can't be honoured: this host composes no components, so that no middleware would run"),
            ("route =", "components = { other = \"edge\" }\nroute =",
             "7: trigger.http[0].components: can't be honoured: this host runs one component for a trigger"),
            ("component = \"edge\"", "static_response = { status_code = 404 }",
             "8: trigger.http[0].static_response: can't be honoured: this host answers by components alone"),
            ("component = \"edge\"", "component = { source = \"edge.wasm\" }",
             "8: trigger.http[0].component: can't be honoured: this host runs components that stand under [component.NAME]"),
            ("source =", "allowed_http_hosts = [\"a.example\"]\nsource =",
             "10: component.edge.allowed_http_hosts: can't be honoured: `allowed_outbound_hosts` has taken its place"),
            ("source =", "sqlite_databases = [\"default\"]\nsource =",
             "10: component.edge.sqlite_databases: can't be honoured: this host has no SQLite databases"),
            ("source =", "ai_models = [\"llama2-chat\"]\nsource =",
             "10: component.edge.ai_models: can't be honoured: this host has no models"),
            ("source =", "exclude_files = [\"secret\"]\nsource =",
             "10: component.edge.exclude_files: can't be honoured: this host mounts all files that `files` names"),
            ("source =", "dependencies = { \"a:b\" = \"1\" }\nsource =",
             "10: component.edge.dependencies: can't be honoured: this host composes no components"),
            ("source =", "dependencies_inherit_configuration = true\nsource =",
             "10: component.edge.dependencies_inherit_configuration: can't be honoured: this host composes no components"),
        ];
        refuses(&cases);
    }

    #[test]
    fn what_spin_refuses_is_refused() {
        #[rustfmt::skip]
        let cases = [
            ("[application]", "edition = 4\n[application]",
             "2: edition: is refused by Spin, which has no such key here"),
            ("secret = true", "secret = true, hidden = true",
             "5: variables.token.hidden: is refused by Spin, which has no such key here"),
            ("route =", "timeout = 5\nroute =",
             "7: trigger.http[0].timeout: is refused by Spin, which has no such key here"),
            ("source =", "allowed_hosts = []\nsource =",
             "10: component.edge.allowed_hosts: is refused by Spin, which has no such key here"),
            ("source =", "files = [{ source = \"a\", destination = \"/a\", mode = 4 }]\nsource =",
             "10: component.edge.files[0].mode: is refused by Spin, which has no such key here"),
            ("default = \"\"", "default = \"\", required = true",
             "5: variables.token: expected either `required = true` or a default, found both"),
            ("default = \"\", ", "",
             "5: variables.token: expected either `required = true` or a default, found neither"),
            ("default = \"\"", "required = \"yes\"",
             "5: variables.token.required: expected true or false"),
        ];
        refuses(&cases);
    }

    fn refuses(cases: &[(&str, &str, &str)]) {
        for (from, to, expected) in cases {
            assert!(GOOD.contains(from), "{from}");
            assert_eq!(parse(&GOOD.replace(from, to)), Err(format!("app/spin.toml:{expected}")), "{to}");
        }
    }
}
