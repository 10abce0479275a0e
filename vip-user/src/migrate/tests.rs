//! Tables: what is edited, what stands against a step, and the order of the steps.

mod courses;
mod decisions;
mod editing;
mod facts;
mod forms;
