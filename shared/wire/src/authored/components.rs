//! Files with components, and whether edges can run what is in them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use super::File;
use super::invalid::{Invalid, nearest};
use crate::document::{Body, ComponentDigest};
use crate::encoding::sha256_hex;
use crate::limits::COMPONENT_BYTES_MAX;

/// What a function exports.
const HANDLER: &str = "wasi:http/handler@0.3.";
/// What a function may import, before the version. Of the environment and the file system there is nothing: they are here
/// because the standard libraries of most languages ask for them.
const IMPORTS: [&str; 26] = [
    "wasi:http/types@0.3",
    "wasi:http/client@0.3",
    "wasi:cli/environment@0",
    "wasi:cli/exit@0",
    "wasi:cli/stderr@0",
    "wasi:cli/stdin@0",
    "wasi:cli/stdout@0",
    "wasi:cli/terminal-input@0",
    "wasi:cli/terminal-output@0",
    "wasi:cli/terminal-stderr@0",
    "wasi:cli/terminal-stdin@0",
    "wasi:cli/terminal-stdout@0",
    "wasi:cli/types@0",
    "wasi:clocks/monotonic-clock@0",
    "wasi:clocks/system-clock@0",
    "wasi:clocks/timezone@0",
    "wasi:clocks/types@0",
    "wasi:clocks/wall-clock@0",
    "wasi:filesystem/preopens@0",
    "wasi:filesystem/types@0",
    "wasi:io/error@0",
    "wasi:io/poll@0",
    "wasi:io/streams@0",
    "wasi:random/insecure@0",
    "wasi:random/insecure-seed@0",
    "wasi:random/random@0",
];

/// Whether a file holds a component, by its name. Its content is base64 (RFC 4648, section 4), since a push is text.
pub(super) fn is_component(path: &str) -> bool {
    path.ends_with(".wasm")
}

/// The bytes of a file with a component; `None` where its content is no base64.
#[must_use]
pub fn component_bytes(content: &str) -> Option<Vec<u8>> {
    STANDARD.decode(content).ok()
}

/// The content of a file with this component.
#[must_use]
pub(super) fn content(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The components of a push, by their names. What is wrong with them goes to `invalid`.
pub(super) fn read<'a>(
    files: impl Iterator<Item = &'a File>,
    invalid: &mut Vec<Invalid>,
) -> BTreeMap<&'a str, ComponentDigest> {
    let mut components = BTreeMap::new();
    for file in files {
        let bytes = component_bytes(&file.content);
        if let Err((found, expected)) = bytes.as_deref().map_or_else(|| Err(no_base64()), check) {
            let (file, path, suggestion) = (file.path.clone(), String::new(), None);
            invalid.push(Invalid { file, line: 1, column: 1, path, found, expected, suggestion });
        }
        let bytes = bytes.unwrap_or_default();
        // One that is refused still has a digest, so that the documents which name it are checked as well.
        let length = (bytes.len() as u64).clamp(1, COMPONENT_BYTES_MAX as u64);
        let digest = ComponentDigest { sha256: sha256_hex(&bytes), bytes: length };
        components.insert(file.path.as_str(), digest);
    }
    components
}

/// Puts the digest of a component into a document that names its file. What is wrong comes back: path, what was found, and
/// what was perhaps meant.
pub(super) fn resolve(
    body: &mut Body,
    components: &BTreeMap<&str, ComponentDigest>,
) -> Option<(String, String, Option<String>)> {
    let Body::Function(spec) = body else { return None };
    let named = &mut spec.component;
    named.content = components.get(named.file.as_str()).cloned();
    if named.content.is_some() {
        return None;
    }
    named.content = Some(ComponentDigest { sha256: sha256_hex(b""), bytes: 1 });
    let near = nearest(&named.file, components.keys().copied());
    let shown: String = named.file.chars().take(80).collect();
    Some(("spec.component".to_owned(), format!("{shown:?}"), near))
}

type Wrong = (String, String);

fn no_base64() -> Wrong {
    ("a text that is no base64".to_owned(), "a component in base64 (RFC 4648, section 4)".to_owned())
}

/// Whether edges can run it: a valid component with the one export, and no imports but those that it may have.
fn check(bytes: &[u8]) -> Result<(), Wrong> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        let expected = format!("at most {COMPONENT_BYTES_MAX} (COMPONENT_BYTES_MAX)");
        return Err((format!("{} bytes", bytes.len()), expected));
    }
    if !Parser::is_component(bytes) {
        let found = if Parser::is_core_wasm(bytes) { "a core module" } else { "no WebAssembly" };
        let expected = "a WebAssembly component, such as Rust makes for the target wasm32-wasip2";
        return Err((found.to_owned(), expected.to_owned()));
    }
    let invalid = |error: wasmparser::BinaryReaderError| {
        (format!("{} at byte {}", error.message(), error.offset()), "a valid component".to_owned())
    };
    let features = WasmFeatures::default() | WasmFeatures::CM_ASYNC;
    Validator::new_with_features(features).validate_all(bytes).map_err(invalid)?;
    let (mut depth, mut handles) = (0u32, false);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Component | Encoding::Module, .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    allowed(import.map_err(invalid)?.name.name)?;
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    handles |= export.map_err(invalid)?.name.name.starts_with(HANDLER);
                }
            }
            _ => {}
        }
    }
    if handles {
        return Ok(());
    }
    Err(("a component without wasi:http/handler@0.3".to_owned(), "one that exports it".to_owned()))
}

fn allowed(name: &str) -> Result<(), Wrong> {
    let is_known = |known: &str| name.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'));
    if IMPORTS.iter().any(|known| is_known(known)) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    let expected =
        "no imports but wasi:http/types and client@0.3, wasi:cli, clocks, filesystem, io and random";
    Err((format!("an import of {shown:?}"), expected.to_owned()))
}

#[cfg(test)]
mod tests {
    use meridian_engine::ruleset::Target;

    use super::*;
    use crate::authored::{Compiled, compile};
    use crate::bundle::Rules;

    const RULES: &str = "
apiVersion: meridian/v1
kind: Tenant
metadata: {name: acme}
spec: {homeRegion: us-east-1, allowedRegions: [us-east-1]}
---
apiVersion: meridian/v1
kind: Function
metadata: {name: greet}
spec: {component: functions/greet.wasm, cpu: 20ms, fail: open}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: all}
spec: {match: {path: \"/**\"}, function: greet}
";

    fn push(rules: &str, name: &str, text: &str) -> Result<Compiled, Vec<String>> {
        let file = |path: &str, content: &str| File { path: path.to_owned(), content: content.to_owned() };
        let files = [file("rules.yaml", rules), file(name, text)];
        compile(&Target::Tenant("acme".to_owned()), &files, None)
            .map_err(|invalid| invalid.iter().map(ToString::to_string).collect())
    }

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![id, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn named(name: &str) -> Vec<u8> {
        let mut bytes = vec![0, u8::try_from(name.len()).unwrap()];
        bytes.extend_from_slice(name.as_bytes());
        bytes
    }

    /// A component that imports an empty instance and exports it.
    fn component(import: &str, export: &str) -> Vec<u8> {
        let header = b"\0asm\x0d\0\x01\0".to_vec();
        let types = section(7, &[1, 0x42, 0]);
        let import = section(10, &[&[1][..], &named(import), &[5, 0]].concat());
        let export = section(11, &[&[1][..], &named(export), &[5, 0, 0]].concat());
        [header, types, import, export].concat()
    }

    fn good() -> Vec<u8> {
        component("wasi:http/client@0.3.0", "wasi:http/handler@0.3.0")
    }

    #[test]
    fn a_bundle_says_which_component_and_has_no_byte_of_it() {
        let compiled = push(RULES, "functions/greet.wasm", &content(&good())).unwrap();
        let text = String::from_utf8(compiled.bytes.clone()).unwrap();
        let digest = sha256_hex(&good());
        assert!(text.contains(&digest) && !text.contains(&content(&good())));
        let Rules::Tenant(rules) = compiled.rules else { panic!("a tenant's") };
        let function = &rules.functions[0];
        assert_eq!((&*function.sha256, function.component_bytes), (&*digest, good().len() as u64));
        assert_eq!(
            (function.memory_bytes_max, function.cpu_ms_max, function.timeout_ms),
            (32 << 20, 20, 10_000)
        );
        assert_eq!(rules.routes[0].function, Some(0));
        let Ok(Rules::Tenant(read)) =
            crate::bundle::Bundle::parse(&compiled.bytes, &Target::Tenant("acme".to_owned()), 1)
        else {
            panic!("what is released can be read")
        };
        assert_eq!(read.functions, rules.functions);
    }

    #[test]
    fn what_edges_can_not_run_is_refused_with_the_reason() {
        let place = "functions/greet.wasm:1:1: found";
        let expect = |text: &str, said: &str| {
            let invalid = push(RULES, "functions/greet.wasm", text).unwrap_err();
            assert_eq!(invalid.len(), 1, "{invalid:?}");
            assert!(invalid[0].starts_with(&format!("{place} {said}")), "{invalid:?}");
        };
        expect("not base64!", "a text that is no base64, expected a component in base64");
        expect(&content(b"PK"), "no WebAssembly, expected a WebAssembly component");
        expect(&content(b"\0asm\x01\0\0\0"), "a core module");
        for wanted in ["wasi:sockets/tcp@0.2.0", "spin:key-value/key-value@3.0.0", "wasi:http/handler@0.3.0"]
        {
            let component = component(wanted, "wasi:http/handler@0.3.0");
            expect(&content(&component), &format!("an import of {wanted:?}, expected no imports but"));
        }
        let other = component("wasi:http/client@0.3.0", "wasi:http/incoming-handler@0.2.0");
        expect(&content(&other), "a component without wasi:http/handler@0.3, expected one that exports it");
        let broken = &good()[..good().len() - 1];
        expect(&content(broken), "unexpected end-of-file");
        let large = [good(), section(0, &named("filler")), vec![0; COMPONENT_BYTES_MAX]].concat();
        expect(&content(&large), &format!("{} bytes, expected at most 2097152", large.len()));
    }

    #[test]
    fn what_documents_name_has_to_be_there() {
        let wasm = content(&good());
        let push = |rules: &str, name: &str| push(rules, name, &wasm).unwrap_err();
        assert_eq!(
            push(RULES, "functions/great.wasm"),
            [
                "rules.yaml:10:19: spec.component: found \"functions/greet.wasm\", expected the path of a file of the push that ends with .wasm; did you mean \"functions/great.wasm\"?"
            ]
        );
        let rules = RULES.replace("function: greet", "function: great");
        assert_eq!(
            push(&rules, "functions/greet.wasm"),
            [
                "rules.yaml:15:40: spec.function: found \"great\", expected the name of a document of kind Function; did you mean \"greet\"?"
            ]
        );
        let rules = RULES.replace("cpu: 20ms", "cpu: 2s, timeout: 2m, maxMemoryBytes: 5");
        assert_eq!(
            push(&rules, "functions/greet.wasm"),
            [
                "rules.yaml:10:46: spec.cpu: found 2s, expected 10ms to 1s",
                "rules.yaml:10:59: spec.timeout: found 2m, expected 10ms to 60s",
                "rules.yaml:10:79: spec.maxMemoryBytes: found 5, expected 1048576 to 67108864 (FUNCTION_MEMORY_BYTES_MAX)",
            ]
        );
    }
}
