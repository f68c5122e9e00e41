//! What a host is asked to put around an attempt, and what it says came of that.
//!
//! Where functions run elsewhere than where attempts are made, both go there and back as header fields: [`FIELD`],
//! [`TARGET_FIELD`] and [`ENDED_FIELD`]. No client, function or target has a say in them: whoever receives one from those
//! takes it out.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Field of a request on its way to where functions run: the function and what it may, [`FunctionCall::field`].
pub const FIELD: &str = "meridian-function";
/// Field of such a request: scheme and authority that it is for.
pub const TARGET_FIELD: &str = "meridian-function-target";
/// Field of the response from there: what came of it, [`ended_field`].
pub const ENDED_FIELD: &str = "meridian-function-ended";

/// The function that an attempt goes through: the host gives it the request, lets it send one request on to the very
/// authority that the attempt is for, and takes its response for the target's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCall {
    /// Tenant whose function it is. Components are kept and looked up by it.
    pub tenant: Arc<str>,
    /// Name of the `Function` document.
    pub name: Arc<str>,
    /// Version of the bundle that it stands in: where an origin finds the component.
    pub bundle: String,
    /// SHA-256 of the component, in lower-case hexadecimal.
    pub sha256: Arc<str>,
    /// Bytes of the component.
    pub component_bytes: u64,
    /// Memory that it may take.
    pub memory_bytes_max: u64,
    /// Processor time that it may take.
    pub cpu_ms_max: u32,
    /// Until the head of its response must be there.
    pub timeout_ms: u32,
}

impl FunctionCall {
    /// As a header field's value: the name, then what else there is as `;NAME=VALUE`.
    #[must_use]
    pub fn field(&self) -> String {
        let Self { tenant, name, bundle, sha256, component_bytes, memory_bytes_max, cpu_ms_max, timeout_ms } =
            self;
        format!(
            "{name};tenant={tenant};bundle={bundle};sha256={sha256};bytes={component_bytes};memory={memory_bytes_max};\
             cpu={cpu_ms_max};timeout={timeout_ms}"
        )
    }

    /// The call that a field's value stands for; `None` where it is none.
    #[must_use]
    pub fn of_field(value: &str) -> Option<Self> {
        let mut parts = value.split(';');
        let name = parts.next().filter(|name| !name.is_empty())?;
        let mut members: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
        let call = Self {
            name: name.into(),
            tenant: members.remove("tenant")?.into(),
            bundle: members.remove("bundle")?.to_owned(),
            sha256: members.remove("sha256")?.into(),
            component_bytes: members.remove("bytes")?.parse().ok()?,
            memory_bytes_max: members.remove("memory")?.parse().ok()?,
            cpu_ms_max: members.remove("cpu")?.parse().ok()?,
            timeout_ms: members.remove("timeout")?.parse().ok()?,
        };
        members.is_empty().then_some(call)
    }

    /// Key of an edge's store under which the component lies: one of each function, whatever its version.
    #[must_use]
    pub fn key(&self) -> String {
        format!("function/{}/{}", self.tenant, self.name)
    }
}

/// How a response came about that went through a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// The function sent the request on; the response is what it made of the target's.
    SentOn,
    /// It answered by itself: the target saw nothing.
    Answered,
    /// It ran where the host can't tell which of the two it did.
    Unseen,
}

/// A function brought no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionFault {
    /// Why.
    pub why: FunctionFailure,
    /// Whether it had sent the request on before.
    pub sent_on: bool,
}

/// Why a function brought no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionFailure {
    /// Its component could not be had, or is not what the rules name.
    Missing,
    /// This host runs no functions, or can't run this one.
    Unsupported,
    /// Too many requests are in functions of the tenant, or of all.
    Busy,
    /// It took more processor time than it may.
    Cpu,
    /// It needed more memory than it may have.
    Memory,
    /// It took too long.
    Timeout,
    /// It ended itself: a trap, a panic.
    Trap,
    /// It answered with an error.
    Error,
}

impl FunctionFailure {
    const WORDS: [(Self, &str); 8] = [
        (Self::Missing, "missing"),
        (Self::Unsupported, "unsupported"),
        (Self::Busy, "busy"),
        (Self::Cpu, "cpu"),
        (Self::Memory, "memory"),
        (Self::Timeout, "timeout"),
        (Self::Trap, "trap"),
        (Self::Error, "error"),
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(failure, _)| *failure == self).map_or("error", |(_, word)| word)
    }

    /// The failure that a word stands for.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(failure, _)| *failure)
    }
}

/// What came of a function, as a header field's value.
#[must_use]
pub fn ended_field(ended: Result<Ran, FunctionFault>) -> String {
    match ended {
        Ok(Ran::SentOn) => "sent-on".to_owned(),
        Ok(Ran::Answered) => "answered".to_owned(),
        Ok(Ran::Unseen) => "ran".to_owned(),
        Err(FunctionFault { why, sent_on: false }) => format!("failed;{}", why.word()),
        Err(FunctionFault { why, sent_on: true }) => format!("failed;{};sent-on", why.word()),
    }
}

/// What a field's value says came of a function. A function that ran where nobody says so is [`Ran::Unseen`].
///
/// # Errors
/// Where it failed.
pub fn of_ended_field(value: Option<&str>) -> Result<Ran, FunctionFault> {
    match value {
        Some("sent-on") => return Ok(Ran::SentOn),
        Some("answered") => return Ok(Ran::Answered),
        _ => {}
    }
    let Some(rest) = value.and_then(|value| value.strip_prefix("failed;")) else { return Ok(Ran::Unseen) };
    let (word, sent_on) = rest.strip_suffix(";sent-on").map_or((rest, false), |word| (word, true));
    Err(FunctionFault { why: FunctionFailure::of_word(word).unwrap_or(FunctionFailure::Error), sent_on })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let call = FunctionCall {
            tenant: "acme".into(),
            name: "greet.v1".into(),
            bundle: "00000000000000aa".to_owned(),
            sha256: "ab".into(),
            component_bytes: 1,
            memory_bytes_max: 2,
            cpu_ms_max: 3,
            timeout_ms: 4,
        };
        let field = call.field();
        assert_eq!(FunctionCall::of_field(&field), Some(call.clone()));
        assert_eq!(call.key(), "function/acme/greet.v1");
        for wrong in
            ["", "greet.v1", &field[1..5], &field.replace("cpu=3", "cpu=x"), &format!("{field};more=1")]
        {
            assert_eq!(FunctionCall::of_field(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_end_is_read_as_it_was_written() {
        for ran in [Ran::SentOn, Ran::Answered, Ran::Unseen] {
            assert_eq!(of_ended_field(Some(&ended_field(Ok(ran)))), Ok(ran));
        }
        for (why, word) in FunctionFailure::WORDS {
            assert_eq!((why.word(), FunctionFailure::of_word(word)), (word, Some(why)));
            for sent_on in [false, true] {
                let fault = FunctionFault { why, sent_on };
                assert_eq!(of_ended_field(Some(&ended_field(Err(fault)))), Err(fault));
            }
        }
        assert_eq!(of_ended_field(None), Ok(Ran::Unseen));
        let fault = FunctionFault { why: FunctionFailure::Error, sent_on: false };
        assert_eq!(of_ended_field(Some("failed;oddly")), Err(fault));
    }
}
