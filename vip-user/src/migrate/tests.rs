//! Tables: what is edited, what stands against a step, and the order of the steps.

mod decisions;
mod editing;
mod facts;
mod forms;
