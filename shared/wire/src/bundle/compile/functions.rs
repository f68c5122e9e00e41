//! Functions: which component, and what it may take.

use meridian_engine::ruleset::Function;

use super::{Body, Compiler, Document, of_kind, rule};
use crate::document::{ComponentDigest, FunctionSpec};
use crate::limits::{
    COMPONENT_BYTES_MAX, FUNCTION_CPU_MS_MAX, FUNCTION_CPU_MS_MIN, FUNCTION_MEMORY_BYTES_MAX,
    FUNCTION_MEMORY_BYTES_MIN, FUNCTION_TIMEOUT_MS_MAX, FUNCTION_TIMEOUT_MS_MIN,
};

impl Compiler {
    pub(super) fn functions(&mut self, documents: &[Document]) -> Vec<Function> {
        let mut functions = Vec::new();
        for (at, document, spec) in of_kind!(documents, Function) {
            self.document = at;
            let component = self.component(spec);
            let memory = spec.max_memory_bytes;
            if !(FUNCTION_MEMORY_BYTES_MIN..=FUNCTION_MEMORY_BYTES_MAX).contains(&memory) {
                let expected = format!(
                    "{FUNCTION_MEMORY_BYTES_MIN} to {FUNCTION_MEMORY_BYTES_MAX} (FUNCTION_MEMORY_BYTES_MAX)"
                );
                self.flaw("spec.maxMemoryBytes", memory, expected);
            }
            if !(FUNCTION_CPU_MS_MIN..=FUNCTION_CPU_MS_MAX).contains(&spec.cpu.ms) {
                self.flaw("spec.cpu", spec.cpu, "10ms to 1s");
            }
            if !(FUNCTION_TIMEOUT_MS_MIN..=FUNCTION_TIMEOUT_MS_MAX).contains(&spec.timeout.ms) {
                self.flaw("spec.timeout", spec.timeout, "10ms to 60s");
            }
            functions.push(Function {
                rule: rule(document),
                sha256: component.sha256.into(),
                component_bytes: component.bytes,
                memory_bytes_max: memory,
                cpu_ms_max: u32::try_from(spec.cpu.ms).unwrap_or(u32::MAX),
                timeout_ms: u32::try_from(spec.timeout.ms).unwrap_or(u32::MAX),
                fail: spec.fail.into(),
            });
        }
        functions
    }

    /// The digest names a key of stores and a path of an origin: it is nothing else than one.
    fn component(&mut self, spec: &FunctionSpec) -> ComponentDigest {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_digest = |found: &&ComponentDigest| {
            let fits = (1..=COMPONENT_BYTES_MAX as u64).contains(&found.bytes);
            found.sha256.len() == 64 && found.sha256.bytes().all(is_digit) && fits
        };
        match spec.component.content.as_ref().filter(is_digest) {
            Some(found) => found.clone(),
            None => {
                let expected = "a component with its SHA-256 and its length";
                self.flaw("spec.component", "a file that was not read", expected);
                ComponentDigest { sha256: String::new(), bytes: 0 }
            }
        }
    }
}
