//! One request on its way through the pipeline.

use crate::facts::Facts;
use crate::node::Node;
use crate::step::{Answer, Step};

/// One request on its way through the pipeline: begun with its facts, resumed with each answer, ended by a reply.
#[derive(Debug)]
pub struct Exchange {}

impl Exchange {
    /// Begins an exchange and says what to do first.
    pub fn begin(node: &mut Node, facts: Facts) -> (Self, Step) {
        let _ = (node, facts);
        loop {}
    }

    /// Takes the answer to the last step and says what to do next. An answer that does not fit the step counts as a
    /// failure of that step. `now_ms` is the time of the answer, in milliseconds since the Unix epoch.
    pub fn resume(&mut self, node: &mut Node, answer: Answer, now_ms: u64) -> Step {
        let _ = (node, answer, now_ms);
        loop {}
    }
}
