//! The pure rule engine: facts in, steps and a decision out.
