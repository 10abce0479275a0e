//! The real binary in network namespaces: faults under the judge, restarts, leaving, bad input.
//! Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "lab/additions.rs"]
mod additions;
#[path = "lab/admission.rs"]
mod admission;
#[path = "lab/faults.rs"]
mod faults;
#[path = "lab/guard.rs"]
mod guard;
#[path = "lab/harm.rs"]
mod harm;
#[path = "lab/health.rs"]
mod health;
#[path = "lab/host.rs"]
mod host;
#[path = "lab/interfaces.rs"]
mod interfaces;
#[path = "lab/leaving.rs"]
mod leaving;
#[path = "lab/manager.rs"]
mod manager;
#[path = "lab/netlink.rs"]
mod netlink;
#[path = "lab/probe.rs"]
mod probe;
#[path = "lab/queues.rs"]
mod queues;
#[path = "lab/restart.rs"]
mod restart;
#[path = "lab/seen.rs"]
mod seen;
#[path = "lab/start.rs"]
mod start;
#[path = "lab/story.rs"]
mod story;
#[path = "lab/strangers.rs"]
mod strangers;
#[path = "lab/upgrade.rs"]
mod upgrade;
