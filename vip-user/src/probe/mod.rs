//! `xvip probe`: who answers for a VIP, and what a user feels.
//!
//! Reading order: [`verdict`] says what one round of answers means, [`timeline`] what many rounds mean,
//! [`user`] asks as a user does, [`report`] draws.

pub mod report;
pub mod timeline;
pub mod user;
pub mod verdict;
