//! Functions: a tenant's own components around forwarding.

use std::sync::Arc;

use super::{Fail, RuleRef};

/// A component that gets a request on its way to the target, and makes the response.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Where it stands.
    pub rule: RuleRef,
    /// SHA-256 of the component, in lower-case hexadecimal.
    pub sha256: Arc<str>,
    /// Bytes of the component.
    pub component_bytes: u64,
    /// Memory that one request may take.
    pub memory_bytes_max: u64,
    /// Processor time that one request may take.
    pub cpu_ms_max: u32,
    /// Until the head of the response must be there, whatever the target takes included.
    pub timeout_ms: u32,
    /// What becomes of a request whose function failed before it sent anything on.
    pub fail: Fail,
}
