//! What the tests of the whole platform share: the decision corpus, a running local stack, a plain HTTP client, plain servers.

pub mod client;
pub mod collector;
pub mod corpus;
pub mod decode;
pub mod edge;
pub mod kept;
pub mod packages;
pub mod proxy;
pub mod serve;
pub mod stack;
