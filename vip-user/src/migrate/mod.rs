//! Moves a node from kube-vip to xvip: what a manifest says, how its text is changed, what stands
//! against a step, and the order of the steps. No I/O: facts come in, decisions and texts go out.

pub mod additions;
pub mod apply;
pub mod edit;
pub mod facts;
pub mod finish;
mod lines;
pub mod plan;
pub mod pod;
pub mod rollback;
#[cfg(test)]
mod tests;
