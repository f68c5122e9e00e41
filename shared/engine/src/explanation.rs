//! Why a decision came out as it did: stage by stage, with the rule's place, the inputs used and the outcome.

use std::fmt::{self, Display, Write};

use crate::ruleset::RuleRef;

/// About how much is said of a request: room for it is made at once.
const STAGES: usize = 10;
const INPUTS: usize = 12;
const TEXT_BYTES: usize = 256;

/// The stages that a request went through, in order.
///
/// Whatever is said stands in one text, so that explaining a decision which nobody asks about costs little.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Each stage's outcome, then the values of its inputs.
    text: String,
    stages: Vec<Noted>,
    inputs: Vec<Input>,
}

/// A stage as it is kept; where something begins follows from what is before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Noted {
    stage: &'static str,
    rule: Option<RuleRef>,
    /// Where the outcome begins and ends in the text.
    outcome: (usize, usize),
    /// Which inputs it has.
    inputs: (usize, usize),
}

/// An input as it is kept: its name, and where its value begins and ends in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Input {
    name: &'static str,
    value: (usize, usize),
}

/// One stage of the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// `request`, `bundle`, `host`, `security`, `route`, `cors`, `redirect`, `auth`, `limit`, `experiment`, `goal`, `canary`,
    /// `cache`, `steering`, `rewrite`, `forward`, `transform`, `log`, `exchange`.
    pub stage: &'static str,
    /// Rule that decided, where one did.
    pub rule: Option<&'a RuleRef>,
    /// What was decided, in a few words that never hold a secret: `matched`, `denied: not in the allow list` …
    pub outcome: &'a str,
    text: &'a str,
    inputs: &'a [Input],
}

impl Explanation {
    /// Adds a stage; its inputs follow by [`Explanation::with`].
    pub fn note(&mut self, stage: &'static str, rule: Option<&RuleRef>, outcome: impl Display) -> &mut Self {
        if self.stages.is_empty() {
            self.text.reserve(TEXT_BYTES);
            self.stages.reserve(STAGES);
            self.inputs.reserve(INPUTS);
        }
        let outcome = self.write(&outcome);
        let inputs = (self.inputs.len(), self.inputs.len());
        self.stages.push(Noted { stage, rule: rule.cloned(), outcome, inputs });
        self
    }

    /// Adds an input to the last stage, by name; never a token, a key or a cookie.
    pub fn with(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        let value = self.write(&value);
        self.inputs.push(Input { name, value });
        if let Some(stage) = self.stages.last_mut() {
            stage.inputs.1 = self.inputs.len();
        }
        self
    }

    /// The value of the first input of this name, in whatever stage.
    pub(crate) fn input(&self, name: &str) -> Option<&str> {
        let input = self.inputs.iter().find(|input| input.name == name)?;
        self.text.get(input.value.0..input.value.1)
    }

    fn write(&mut self, said: &dyn Display) -> (usize, usize) {
        let start = self.text.len();
        // Writing to a text does not fail.
        let _ = write!(self.text, "{said}");
        (start, self.text.len())
    }

    /// The stages in order.
    pub fn stages(&self) -> impl ExactSizeIterator<Item = Stage<'_>> {
        self.stages.iter().map(|Noted { stage, rule, outcome, inputs }| Stage {
            stage,
            rule: rule.as_ref(),
            outcome: self.text.get(outcome.0..outcome.1).unwrap_or_default(),
            text: &self.text,
            inputs: self.inputs.get(inputs.0..inputs.1).unwrap_or_default(),
        })
    }
}

impl<'a> Stage<'a> {
    /// What it was decided by, by name.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = (&'static str, &'a str)> {
        let text = self.text;
        self.inputs
            .iter()
            .map(|Input { name, value }| (*name, text.get(value.0..value.1).unwrap_or_default()))
    }
}

/// One line for people: `auth        verified  (Route orders, acme/routes.yaml:12)  issuer=acme subject=ada`.
/// Control characters in what came with the request are shown escaped.
impl fmt::Display for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} ", self.stage)?;
        for character in self.outcome.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        if let Some(RuleRef { kind, name, file, line }) = self.rule {
            write!(f, "  ({kind} {name}, {file}:{line})")?;
        }
        for (number, (name, value)) in self.inputs().enumerate() {
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
        self.stages().try_for_each(|stage| writeln!(f, "{stage}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::rule;

    #[test]
    fn each_stage_is_a_line_for_people() {
        let mut explanation = Explanation::default();
        explanation.note("host", None, "tenant acme").with("host", "acme.example");
        explanation
            .note("route", Some(&rule("Route")), "matched")
            .with("method", "GET")
            .with("path", "/a b\n");
        explanation.note("auth", None, "denied: no \"iss\"");
        let expect = "host        tenant acme  host=acme.example\n\
                      route       matched  (Route r, rules.yaml:1)  method=GET path=\"/a b\\n\"\n\
                      auth        denied: no \"iss\"\n";
        assert_eq!(explanation.to_string(), expect);
    }
}
