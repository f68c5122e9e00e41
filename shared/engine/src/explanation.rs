//! Why a decision came out as it did: stage by stage, with the rule's place, the inputs used and the outcome.

use std::borrow::Cow;
use std::fmt::{self, Write};

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
    /// `request`, `bundle`, `host`, `security`, `route`, `cors`, `redirect`, `auth`, `limit`, `experiment`, `goal`, `canary`,
    /// `cache`, `steering`, `rewrite`, `forward`, `transform`, `log`, `exchange`.
    pub stage: &'static str,
    /// Rule that decided, where one did.
    pub rule: Option<RuleRef>,
    /// What was decided, in a few words that never hold a secret: `matched`, `denied: not in the allow list` …
    pub outcome: Cow<'static, str>,
    /// What it was decided by, by name; never a token, a key or a cookie.
    pub inputs: Vec<(&'static str, String)>,
}

impl Stage {
    /// Whether it is here that the request was refused or could not be served.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        ["denied", "failed", "exceeded"].iter().any(|word| {
            let rest = self.outcome.strip_prefix(word);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
    }
}

/// One line for people: `auth        verified  (Route orders, acme/routes.yaml:12)  issuer=acme subject=ada`.
/// Control characters in what came with the request are shown escaped.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} ", self.stage)?;
        for character in self.outcome.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        if let Some(RuleRef { kind, name, file, line }) = &self.rule {
            write!(f, "  ({kind} {name}, {file}:{line})")?;
        }
        for (number, (name, value)) in self.inputs.iter().enumerate() {
            let gap = if number == 0 { "  " } else { " " };
            let quoted =
                value.is_empty() || value.contains([' ', '"', '=']) || value.contains(char::is_control);
            if quoted {
                write!(f, "{gap}{name}={value:?}")?;
            } else {
                write!(f, "{gap}{name}={value}")?;
            }
        }
        Ok(())
    }
}

/// One line a stage, each with its end of line.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stages.iter().try_for_each(|stage| writeln!(f, "{stage}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::rule;

    #[test]
    fn each_stage_is_a_line_for_people() {
        let stages = vec![
            Stage {
                stage: "host",
                rule: None,
                outcome: "tenant acme".into(),
                inputs: vec![("host", "acme.example".to_owned())],
            },
            Stage {
                stage: "route",
                rule: Some(rule("Route")),
                outcome: "matched".into(),
                inputs: vec![("method", "GET".to_owned()), ("path", "/a b\n".to_owned())],
            },
            Stage { stage: "auth", rule: None, outcome: "denied: no \"iss\"".into(), inputs: vec![] },
        ];
        let refusals: Vec<bool> = stages.iter().map(Stage::is_refusal).collect();
        assert_eq!(refusals, [false, false, true]);
        let expect = "host        tenant acme  host=acme.example\n\
                      route       matched  (Route r, rules.yaml:1)  method=GET path=\"/a b\\n\"\n\
                      auth        denied: no \"iss\"\n";
        assert_eq!(Explanation { stages }.to_string(), expect);
    }
}
