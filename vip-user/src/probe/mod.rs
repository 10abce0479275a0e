//! `xvip probe`: which station answers for a VIP, and what a user feels.
//!
//! Reading order: [`verdict`] judges one round of answers, [`timeline`] joins many rounds, [`user`]
//! connects as a user does, [`report`] draws.

pub mod report;
pub mod timeline;
pub mod user;
pub mod verdict;
