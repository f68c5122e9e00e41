//! Functions: a tenant's own components around forwarding.

use serde::{Deserialize, Serialize};

use super::policy::FailSpec;
use super::unit::Span;

spec! {
/// A WebAssembly component of the tenant's own that requests of a route go through on their way to the target and back.
///
/// It exports `wasi:http/handler@0.3` and gets the request as the target would. It may answer by itself, or send one
/// request on with `wasi:http/client`, to the authority that the request is for and nowhere else, and it makes the
/// response. Clocks, random bytes and standard output are all that it has beside; of its imports, environment and file
/// system are empty.
#[derive(Eq)]
pub struct FunctionSpec {
    /// The component: path of a file of the push that ends with `.wasm`, at most 2 MiB.
    pub component: ComponentFile,
    /// Bytes of memory that one request may take, 1 MiB to 64 MiB. Without it, 32 MiB.
    #[serde(default = "memory")]
    pub max_memory_bytes: u64,
    /// Processor time that one request may take, 10ms to 1s, in steps of 10ms. Without it, 50ms.
    #[serde(default = "cpu")]
    pub cpu: Span,
    /// Until the head of the response must be there, the target's time included: 10ms to 60s. Without it, 10s.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// What becomes of a request whose function fails: `closed` answers 502; `open` forwards the request without it, as far
    /// as nothing was sent on before and its body is at hand still.
    #[serde(default = "FailSpec::closed")]
    pub fail: FailSpec,
}
}

/// A file with a component. Written as its name; a bundle carries `{"file": NAME, "sha256": DIGEST, "bytes": LENGTH}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ComponentFileForm")]
pub struct ComponentFile {
    /// Its path in the pushed folder.
    pub file: String,
    /// What is in it; only a bundle says that.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub content: Option<ComponentDigest>,
}

/// Which component it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentDigest {
    /// SHA-256, in lower-case hexadecimal.
    pub sha256: String,
    /// How many bytes it has.
    pub bytes: u64,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum ComponentFileForm {
    Named(String),
    Read { file: String, sha256: String, bytes: u64 },
}

impl From<ComponentFileForm> for ComponentFile {
    fn from(form: ComponentFileForm) -> Self {
        match form {
            ComponentFileForm::Named(file) => Self { file, content: None },
            ComponentFileForm::Read { file, sha256, bytes } => {
                Self { file, content: Some(ComponentDigest { sha256, bytes }) }
            }
        }
    }
}

#[cfg(feature = "documents")]
impl schemars::JsonSchema for ComponentFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ComponentFile".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A WebAssembly component of the push, a file that ends with .wasm." })
    }
}

fn memory() -> u64 {
    32 << 20
}

fn cpu() -> Span {
    Span::from_ms(50)
}

fn timeout() -> Span {
    Span::from_secs(10)
}
