//! Why a decision came out as it did: stage by stage, with the rule's place, the inputs used and the outcome.

use crate::ruleset::RuleRef;

/// The stages that a request went through, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Stages in order.
    pub stages: Vec<Stage>,
}

/// One stage of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// `host`, `security`, `route`, `auth`, `limit`, `experiment`, `cache`, `steering`, `forward`, `transform`.
    pub stage: &'static str,
    /// Rule that decided, where one did.
    pub rule: Option<RuleRef>,
    /// What was decided, in a few words that never hold a secret: `matched`, `denied: not in the allow list` …
    pub outcome: String,
    /// What it was decided by, by name; never a token, a key or a cookie.
    pub inputs: Vec<(&'static str, String)>,
}
