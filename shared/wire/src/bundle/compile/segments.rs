//! Segments of a tenant's users.

use meridian_engine::expr::{Expr, Value};
use meridian_engine::ruleset::UserSegment;

use super::{Body, Compiler, Document, of_kind, rule};
use crate::limits::SEGMENTS_MAX;

impl Compiler {
    pub(super) fn segments(&mut self, documents: &[Document]) -> Vec<UserSegment> {
        let mut segments = Vec::new();
        for (at, document, spec) in of_kind!(documents, Segment) {
            self.document = at;
            if segments.len() == SEGMENTS_MAX {
                let expected = format!("at most {SEGMENTS_MAX} (SEGMENTS_MAX)");
                self.flaw("spec", format_args!("more than {SEGMENTS_MAX} segments"), expected);
            }
            let when = self.condition(Some(&spec.when), "spec.when");
            let when = when.unwrap_or(Expr::Literal(Value::Bool(false)));
            segments.push(UserSegment { rule: rule(document), when });
        }
        segments
    }
}
